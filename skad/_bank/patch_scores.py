"""Scores of an image's patches, bounded at once and computed where it matters.

Scores are asked for, not computed on the spot: `PatchScores` yields questions from generators, so that
those of several images can be answered by one search (`answered_together`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from skad._torch.transfers import AsyncHostCopy

# While the highest score is looked for, few patches are computed at first (mostly two or three matter),
# and four times as many in every further round.
_AT_FIRST = 4
# Where images are scored together, so many patches of each are computed, those with the highest bounds.
_OF_EACH = 32
# More rivals of the highest than these are bounded more closely before any is computed.
_MANY = 16

T = TypeVar("T")


Score = Callable[[torch.Tensor, "int | NDArray[np.int64] | None"], NDArray[np.float64]]
"""Scores (n, d) patches; leaves out the vectors of one image, or for every patch those of its own."""


class Question(NamedTuple):
    """Patches whose scores are wanted."""

    rows: torch.Tensor
    """(n, d) float32."""
    exclude_source: int | None
    """Number of the image whose vectors do not count."""
    score: Score
    """Who knows the answer."""


Asking = Generator[Question, NDArray[np.float64], T]
"""Yields questions, is sent their scores, (n,) float64, and returns what follows from them."""

# Number of a generator, itself, and what it is sent next.
_Reply = tuple[int, Asking[T], NDArray[np.float64] | None]


def answered(asking: Asking[T]) -> T:
    """Give a generator the scores that it asks for; returns its result."""
    ((_, result),) = answered_together([asking], at_once=1)
    return result


def answered_together(askings: Iterable[Asking[T]], at_once: int) -> Iterator[tuple[int, T]]:
    """Give many generators the scores that they ask for, those of several in one search.

    Whoever has finished makes room for the next, so that searches stay large from first to last.

    Parameters
    ----------
    askings : iterable of generators
        Taken from it when there is room.
    at_once : int
        Generators that are under way at a time, 1 at least.

    Yields
    ------
    int
        Number of a generator, in the order of `askings`; they finish in another.
    object
        Its result.
    """
    coming: Iterator[_Reply[T]] = ((i, asking, None) for i, asking in enumerate(askings))
    waiting: dict[int, tuple[Asking[T], Question]] = {}
    replies = list(islice(coming, at_once))
    while replies:
        for i, asking, scores in replies:
            try:
                # The None that starts a generator answers no question.
                waiting[i] = asking, asking.send(scores)  # type: ignore[arg-type]
            except StopIteration as end:
                yield i, end.value
        replies = _answer_most(waiting)
        replies += islice(coming, at_once - len(waiting) - len(replies))


def _answer_most(waiting: dict[int, tuple[Asking[T], Question]]) -> list[_Reply[T]]:
    """Answer the largest group of questions that one search can answer; the others wait on.

    A search that leaves out nothing may be another one, by an index of faiss.
    """
    alike: dict[tuple[Score, bool], list[int]] = {}
    for i, (_, question) in waiting.items():
        key = question.score, question.exclude_source is None
        alike.setdefault(key, []).append(i)
    if not alike:
        return []
    numbers = max(alike.values(), key=len)
    askings, questions = zip(*(waiting.pop(i) for i in numbers), strict=True)
    return list(zip(numbers, askings, _in_one_search(questions), strict=True))


def _in_one_search(questions: tuple[Question, ...]) -> list[NDArray[np.float64]]:
    if len(questions) == 1:
        (question,) = questions
        return [question.score(question.rows, question.exclude_source)]
    sizes = [len(question.rows) for question in questions]
    sources = [question.exclude_source for question in questions]
    scores = questions[0].score(
        torch.cat([question.rows for question in questions]),
        None if sources[0] is None else np.repeat(np.array(sources), sizes),
    )
    return np.split(scores, np.cumsum(sizes)[:-1])


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
    score : callable
        Both stand in every question.
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
    >>> def score(rows, exclude_source):
    ...     return rows[:, 0].double().numpy()
    >>> scores = PatchScores(exact, None, score, bounds=score(exact, None) + 0.25)
    >>> int(answered(scores.highest()))
    0
    >>> scores.values[0]
    np.float64(3.0)
    """

    def __init__(
        self,
        rows: torch.Tensor,
        exclude_source: int | None,
        score: Score,
        bounds: NDArray[np.float64] | None = None,
        tighten: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None = None,
    ) -> None:
        self._rows, self._exclude_source, self._score = rows, exclude_source, score
        self._tighten = tighten
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
        self.values[unknown] = yield self._question(self._rows[torch.from_numpy(unknown)])
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
            self.values = yield self._question(self._rows)
            self.certain[:] = True
        return self.values

    def highest(self) -> Asking[np.int64]:
        """Find the patch with the highest score, and make sure of it.

        Returns
        -------
        int
            The lowest number where several are equally high.
        """
        if not self._bounded:
            return np.argmax((yield from self.all()))
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

    def _question(self, rows: torch.Tensor) -> Question:
        return Question(rows, self._exclude_source, self._score)

    def _rivals(self) -> NDArray[np.int64]:
        """Patches that may be as high as the highest that is computed; the highest bounds first."""
        highest = self.values[self.certain].max()
        rivals = np.flatnonzero(~self.certain & (self.values >= highest))
        return rivals[np.argsort(-self.values[rivals], kind="stable")]


class HighestOfEach:
    """The patches with the highest scores of many images, found together.

    Those with the highest bounds of each image are computed at once. A device is given all of this work
    without waiting for it.

    Parameters
    ----------
    rows : tensor of shape (n, p, d), float32
        Patches of n images.
    bounds : tensor of shape (n, p), on the same device
        No score exceeds its bound; -inf for patches that do not count, which are not all of an image.
    on_device : callable or None
        Maps (n, m, d) patches to their (n, m) scores on the device. None: scores are the host's to tell.

    Examples
    --------
    >>> rows = torch.tensor([[[3.0], [1.0]], [[0.5], [2.0]]])
    >>> highest = HighestOfEach(rows, rows[..., 0] + 0.25, lambda rows: rows[..., 0])
    >>> highest.find(lambda rows, exclude_source: rows[:, 0].double().numpy())
    (array([0, 1]), array([3., 2.]))
    """

    def __init__(
        self,
        rows: torch.Tensor,
        bounds: torch.Tensor,
        on_device: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> None:
        self._rows, self._bounds = rows, bounds
        n_patches = bounds.shape[1]
        self._of_each = min(_OF_EACH, n_patches)
        upper, numbers = bounds.topk(min(_OF_EACH + 1, n_patches), dim=1)
        images = torch.arange(len(rows), device=rows.device)
        self._candidates = rows[images[:, None], numbers[:, : self._of_each]]
        known = [] if on_device is None else [on_device(self._candidates)]
        self._host_copy = AsyncHostCopy(upper, numbers, *known)

    def find(self, score: Score) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Wait for the device, and make sure of the patches.

        Parameters
        ----------
        score : callable
            Scores patches of several images.

        Returns
        -------
        patches : ndarray of shape (n,)
            Numbers of the highest. Exact: of images with more rivals, all rivals are computed.
        scores : ndarray of shape (n,), float64
        """
        upper, numbers, *known = self._host_copy.arrays()
        n = len(upper)
        all_rows = self._candidates.flatten(0, 1)
        scores = known[0] if known else score(all_rows, None).reshape(n, self._of_each)
        scores = np.where(
            np.isneginf(upper[:, : self._of_each]), -np.inf, scores.astype(np.float64)
        )
        best = scores.argmax(axis=1)
        patches, highest = numbers[np.arange(n), best], scores[np.arange(n), best]
        rivals = upper[:, self._of_each :].max(axis=1, initial=-np.inf)
        self._compare_rivals(np.flatnonzero(~(rivals < highest)), patches, highest, score)
        return patches, highest

    def _compare_rivals(
        self,
        images: NDArray[np.int64],
        patches: NDArray[np.int64],
        highest: NDArray[np.float64],
        score: Score,
    ) -> None:
        """Compute all patches of some images that may exceed what was found, and take the highest."""
        bounds = self._bounds[torch.from_numpy(images)].double().cpu().numpy()
        owners, numbers = np.nonzero(bounds >= highest[images, None])
        if not len(owners):
            return
        rows = self._rows[torch.from_numpy(images[owners]), torch.from_numpy(numbers)]
        scores = score(rows, None)
        for i in np.unique(owners):
            own = np.flatnonzero(owners == i)
            top = own[scores[own].argmax()]
            patches[images[i]], highest[images[i]] = numbers[top], scores[top]
