"""Scores of an image's patches, bounded at once and computed where it matters.

What computes scores is asked, not called: `PatchScores` yields questions from generators, so that those
of several images can be answered by one search (`answered_together`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

# While the highest score is looked for, few patches are computed at first (mostly two or three matter),
# and four times as many in every further round.
_AT_FIRST = 4
# More rivals of the highest than these are bounded more closely before any is computed.
_MANY = 16

T = TypeVar("T")


class Question(NamedTuple):
    """Patches whose scores are wanted."""

    rows: torch.Tensor
    """(n, d) float32."""
    exclude_source: int | None
    """Number of the image whose vectors do not count."""


Asking = Generator[Question, NDArray[np.float64], T]
"""Yields questions, is sent their scores, (n,) float64, and returns what follows from them."""

Score = Callable[[torch.Tensor, "int | NDArray[np.int64] | None"], NDArray[np.float64]]
"""Scores (n, d) patches; leaves out the vectors of one image, or for every patch those of its own."""


def answered(asking: Asking[T], score: Score) -> T:
    """Give a generator the scores that it asks for; returns its result."""
    return answered_together([asking], score)[0]


def answered_together(askings: list[Asking[T]], score: Score) -> list[T]:
    """Give several generators the scores that they ask for, those of a round in one search.

    Parameters
    ----------
    askings : list of generators
    score : callable

    Returns
    -------
    list
        Their results, in the order of `askings`.
    """
    results: dict[int, T] = {}
    replies: dict[int, NDArray[np.float64] | None] = dict.fromkeys(range(len(askings)))
    while replies:
        questions = {}
        for i, reply in replies.items():
            try:
                # The None that starts a generator answers no question.
                questions[i] = askings[i].send(reply)  # type: ignore[arg-type]
            except StopIteration as end:
                results[i] = end.value
        replies = _answer(questions, score)
    return [results[i] for i in range(len(askings))]


def _answer(questions: dict[int, Question], score: Score) -> dict[int, NDArray[np.float64] | None]:
    """Answer all questions by one search; those that leave out nothing by one of their own."""
    answers: dict[int, NDArray[np.float64] | None] = {}
    for leaves_out in (False, True):
        some = {i: q for i, q in questions.items() if (q.exclude_source is not None) == leaves_out}
        if len(some) < 2:
            answers |= {i: score(*question) for i, question in some.items()}
            continue
        sizes = [len(question.rows) for question in some.values()]
        sources = [question.exclude_source for question in some.values()]
        scores = score(
            torch.cat([question.rows for question in some.values()]),
            np.repeat(np.array(sources), sizes) if leaves_out else None,
        )
        answers |= zip(some, np.split(scores, np.cumsum(sizes)[:-1]), strict=True)
    return answers


class PatchScores:
    """Scores of patches that are known from above, and exactly where somebody asked.

    The distance to *any* vector of a memory bank bounds the distance to the nearest one from above. An
    image is as anomalous as its most anomalous patch: once a few patches with the highest bounds are
    computed, the bounds of all others usually lie below the highest score, and need no search at all.
    The result is exact.

    Parameters
    ----------
    rows : tensor of shape (n, d), float32
        The patches.
    exclude_source : int or None
        Passed on in every question.
    bounds : ndarray of shape (n,), float64, optional
        No score exceeds its bound. Without bounds, all scores are asked for at once.
    tighten : callable, optional
        Maps an int array of patch numbers to closer bounds, at a fraction of what scores cost.

    Attributes
    ----------
    values : ndarray of shape (n,), float64
        The score where `certain`, else its bound.
    certain : ndarray of shape (n,), bool

    Examples
    --------
    >>> exact = torch.tensor([[3.0], [1.0], [2.0], [0.5]])
    >>> scores = PatchScores(exact, None, bounds=exact[:, 0].double().numpy() + 0.25)
    >>> int(answered(scores.highest(), lambda rows, _: rows[:, 0].double().numpy()))
    0
    >>> scores.values[0]
    np.float64(3.0)
    """

    def __init__(
        self,
        rows: torch.Tensor,
        exclude_source: int | None,
        bounds: NDArray[np.float64] | None = None,
        tighten: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None = None,
    ) -> None:
        self._rows, self._exclude_source, self._tighten = rows, exclude_source, tighten
        self._bounded = bounds is not None
        self.values = np.full(len(rows), np.inf) if bounds is None else bounds
        self.certain = np.zeros(len(rows), dtype=bool)

    def ensure(self, patches: NDArray[np.int64]) -> Asking[bool]:
        """Ask for the scores of some patches; returns False if all were known."""
        unknown = patches[~self.certain[patches]]
        if not len(unknown):
            return False
        if not self._bounded:
            yield from self.all()
            return True
        # In the order given: all patches of a small grid may come by their bounds.
        some = self._rows[torch.from_numpy(unknown)]
        self.values[unknown] = yield Question(some, self._exclude_source)
        self.certain[unknown] = True
        return True

    def all(self) -> Asking[NDArray[np.float64]]:
        """Ask for whatever is not known yet.

        Returns
        -------
        ndarray of shape (n,), float64
        """
        if not self.certain.all():
            # All at once: a product of few rows may round otherwise than one of all.
            self.values = yield Question(self._rows, self._exclude_source)
            self.certain[:] = True
        return self.values

    def highest(self) -> Asking[np.int64]:
        """Find the patch with the highest score, and make sure of it.

        Returns
        -------
        int
            The lowest number where several are equally high.
        """
        yield from self.ensure(np.argsort(-self.values, kind="stable")[:_AT_FIRST])
        rivals = self._rivals()
        if len(rivals) > _MANY and self._tighten is not None:
            self.values[rivals] = np.minimum(self.values[rivals], self._tighten(rivals))
            rivals = self._rivals()
        size = _AT_FIRST
        while len(rivals):
            size *= 4
            yield from self.ensure(rivals[:size])
            rivals = self._rivals()
        return np.argmax(np.where(self.certain, self.values, -np.inf))

    def _rivals(self) -> NDArray[np.int64]:
        """Patches that may be as high as the highest that is computed; the highest bounds first."""
        highest = self.values[self.certain].max()
        rivals = np.flatnonzero(~self.certain & (self.values >= highest))
        return rivals[np.argsort(-self.values[rivals], kind="stable")]
