"""Whether recent images still look like the training images, with a level that holds at any time."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import deque
from math import isfinite, log, log10
from typing import Any

import numpy as np

from skad._common.numbers import refuse_masked

_FORMAT = 1


class DriftMonitor:
    """Watch the scores of images, one after the other, for drift away from the training images.

    A lamp ages, a camera is replaced, a supplier changes a coating: scores shift, and the threshold no
    longer keeps its false-alarm rate. The monitor compares each image with the calibration scores
    and all images seen before it, and gathers evidence against the hypothesis that they come from
    one source. If they do, the chance that it ever raises an alarm is at most `level`, however
    often one looks.

    Parameters
    ----------
    calibration_scores : array-like of shape (n,)
        Scores of good images that the detector has not learned from, at least one:
        ``det.calibration_scores_``.
    threshold : float or None, default=None
        None: all images count, defects included. A number: only images that score above it count, the
        same among the calibration scores; with ``det.offset_``, those called good.
    level : float, default=0.05
        Maximum probability of a false alarm, over the whole life of the monitor.
    memory : int, default=20_000
        Maximum number of scores among which images are ranked; beyond it, one of them, chosen at
        random, is forgotten with each image. Also the number of latest images whose scores,
        p-values and evidence are kept.
    random_state : int, default=0
        Seed of what breaks ties and forgets. The same seed and scores give the same result.

    Attributes
    ----------
    alarm_at_ : int or None
        Index of the image at which the evidence first reached ``1 / level``, counted from 0 over all
        images passed to :meth:`update`; None: no alarm so far.
    is_drifting_ : bool
        Whether there has been an alarm. It is never taken back: once the cause is dealt with, start
        a new monitor.
    n_images_, n_counted_ : int
        Number of images seen, and of those that counted.
    scores_ : ndarray of shape (m,)
        Of the latest images, where m is the lower of `n_images_` and `memory`.
    p_values_ : ndarray of shape (m,)
        In 0..1, low = less normal than the images before; NaN for images that did not count.
    log10_evidence_ : ndarray of shape (m,)
        Logarithm to base 10 of the evidence after each image. It starts at 0; 1.3 is a factor of
        20, the alarm at a level of 0.05.

    See Also
    --------
    skad.inspection.DriftDisplay : Scores and evidence over time.

    Notes
    -----
    The p-value of an image is its rank among the calibration scores, all images before it and itself,
    with ties broken at random. If all of them are exchangeable, these p-values are independent and
    uniform [1]_. (p-values against a fixed calibration set, such as those of ``anomaly_p_value``, are
    not independent: all share the luck of that set, and no level over many images follows from them.)

    The evidence is a martingale: the capital of a player who starts with 1 and bets on each p-value
    before it is known. By Ville's inequality it ever reaches ``1 / level`` with probability at most
    `level`. The capital is spread over nine bets, densities on 0..1 that are at most 4: none; mildly,
    clearly and strongly lower p-values, and higher ones; more at both ends; more in the middle. With
    each image a small fraction of it is spread anew (the Simple Jumper of [2]_, with more bets
    and a fraction that falls as ``1 / (1000 + n)``, so that a quiet year costs little capital). That
    bets are bounded keeps single defects from raising an alarm.

    Forgetting keeps the p-values independent and uniform, since the score that is forgotten is chosen
    without regard to its age. What changes more slowly than `memory` images go by may escape.

    **What is approximate.** Calibration scores come from training images that were scored by models
    without them, new images from the final model. They are exchangeable as far as both kinds of
    models score alike; ``docs/drift.md`` has what was measured. A threshold that was fitted to all
    calibration scores, rather than being one of them, makes the selection approximate too. With a
    threshold, missed defects count as good images, and a shift that carries images past the threshold
    goes unseen: they no longer count. Without one, a stream with defects is not like the good images,
    and a high fraction of them raises an alarm.

    References
    ----------
    .. [1] Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", Springer 2005; Vovk,
       Nouretdinov and Gammerman, "Testing exchangeability on-line", ICML 2003.
    .. [2] Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman, "Retrain or not retrain:
       conformal test martingales for change-point detection", COPA 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.metrics import DriftMonitor
    >>> rng = np.random.default_rng(0)
    >>> monitor = DriftMonitor(rng.normal(size=200))
    >>> monitor.update(rng.normal(size=500)).is_drifting_
    False
    >>> monitor.update(rng.normal(size=50) - 1).alarm_at_
    526
    """

    def __init__(
        self,
        calibration_scores: Any,
        *,
        threshold: float | None = None,
        level: float = 0.05,
        memory: int = 20_000,
        random_state: int = 0,
    ) -> None:
        scores = _read_scores(calibration_scores, "calibration_scores")
        self.threshold = None if threshold is None else _read_threshold(threshold)
        self.level = _read_level(level)
        self.memory = _read_integer(memory, "memory", 1)
        self.random_state = _read_integer(random_state, "random_state", 0)
        if self.threshold is not None:
            # Strictly above: the threshold is often itself one of the calibration scores, and those
            # above it are then distributed as new scores above it are; it would always be the lowest.
            scores = scores[scores > self.threshold]
            if not len(scores):
                raise ValueError(
                    f"no calibration score lies above threshold={self.threshold:g}: there is nothing "
                    "to compare with. Pass the scores and the offset_ of the same detector."
                )
        self._ranks = _OnlineRanks(scores, self.memory, np.random.default_rng(self.random_state))
        self._bets = _Bets()
        self.n_images_ = self.n_counted_ = 0
        self.alarm_at_: int | None = None
        self._history: deque[tuple[float, float, float]] = deque(maxlen=self.memory)

    def update(self, scores: Any) -> DriftMonitor:
        """Look at further images.

        Parameters
        ----------
        scores : array-like of shape (n,)
            ``score_samples`` of at least one image, in the order in which they were taken. How they
            are divided into calls makes no difference.

        Returns
        -------
        self : DriftMonitor

        Raises
        ------
        ValueError
            If there is no score, or if one is not finite; no image has been counted then.
        """
        for score in _read_scores(scores, "scores").tolist():
            p_value = float("nan")
            if self.threshold is None or score > self.threshold:
                p_value = self._ranks.add(score)
                self._bets.settle(p_value)
                self.n_counted_ += 1
            evidence = self._bets.log10_capital
            if self.alarm_at_ is None and evidence >= -log10(self.level):
                self.alarm_at_ = self.n_images_
            self.n_images_ += 1
            self._history.append((score, p_value, evidence))
        return self

    @property
    def is_drifting_(self) -> bool:
        """Whether there has been an alarm."""
        return self.alarm_at_ is not None

    @property
    def scores_(self) -> np.ndarray:
        """Scores of the latest images."""
        return self._kept(0)

    @property
    def p_values_(self) -> np.ndarray:
        """p-values of the latest images."""
        return self._kept(1)

    @property
    def log10_evidence_(self) -> np.ndarray:
        """Evidence after each of the latest images, as a power of ten."""
        return self._kept(2)

    def _kept(self, column: int) -> np.ndarray:
        return np.array([entry[column] for entry in self._history], dtype=float)

    def __repr__(self) -> str:
        """Say what has been seen."""
        alarm = "no alarm" if self.alarm_at_ is None else f"alarm at image {self.alarm_at_}"
        return f"<DriftMonitor: {self.n_images_} images, {self.n_counted_} counted, {alarm}>"

    # ------------------------------------------------------------------ state

    def to_json(self) -> str:
        """Write the whole state as text, for a file or a database.

        Returns
        -------
        str
            JSON; about 100 bytes per image, up to `memory` images.
        """
        scores, p_values, evidence = (
            zip(*self._history, strict=True) if self._history else ((),) * 3
        )
        return json.dumps(
            {
                "format": _FORMAT,
                "level": self.level,
                "threshold": self.threshold,
                "memory": self.memory,
                "random_state": self.random_state,
                "generator": self._ranks.generator.bit_generator.state,
                "ranked": self._ranks.scores,
                "capital": self._bets.capital,
                "log_total": self._bets.log_total,
                "n_images": self.n_images_,
                "n_counted": self.n_counted_,
                "alarm_at": self.alarm_at_,
                "scores": scores,
                "p_values": [p if isfinite(p) else None for p in p_values],
                "log10_evidence": evidence,
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> DriftMonitor:
        """Read what :meth:`to_json` wrote; the monitor goes on as if it had never stopped.

        Parameters
        ----------
        text : str

        Returns
        -------
        DriftMonitor

        Raises
        ------
        ValueError
            If the text is not the state of a monitor.
        """
        state = json.loads(text)
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise ValueError(
                "the text is not the state of a DriftMonitor as to_json of this version writes it."
            )
        monitor = cls(
            state["ranked"],
            level=state["level"],
            memory=state["memory"],
            random_state=state["random_state"],
        )
        monitor.threshold = state["threshold"]
        monitor._ranks.generator.bit_generator.state = state["generator"]
        monitor._bets.capital = state["capital"]
        monitor._bets.log_total = state["log_total"]
        monitor._bets.n = monitor.n_counted_ = state["n_counted"]
        monitor.n_images_, monitor.alarm_at_ = state["n_images"], state["alarm_at"]
        p_values = [float("nan") if p is None else p for p in state["p_values"]]
        monitor._history.extend(
            zip(state["scores"], p_values, state["log10_evidence"], strict=True)
        )
        return monitor


class _OnlineRanks:
    """Scores in ascending order, and the rank of each new one among them and itself."""

    def __init__(self, scores: np.ndarray, most: int, generator: np.random.Generator) -> None:
        self.most, self.generator = most, generator
        if len(scores) > most:
            scores = generator.choice(scores, most, replace=False)
        self.scores: list[float] = np.sort(scores).tolist()

    def add(self, score: float) -> float:
        """Return the p-value of a score, and keep it for those to come."""
        lower = bisect_left(self.scores, score)
        ties = bisect_right(self.scores, score, lower) - lower
        p_value = (lower + self.generator.random() * (ties + 1)) / (len(self.scores) + 1)
        self.scores.insert(lower, score)
        if len(self.scores) > self.most:
            # Any of them, the new one included. Were young ones spared or preferred, what remains would
            # tell about the p-values of before, and those to come would not be independent of them.
            del self.scores[int(self.generator.integers(len(self.scores)))]
        return p_value


class _Bets:
    """A martingale: capital spread over bets on the next p-value."""

    def __init__(self) -> None:
        self.n = 0
        self.log_total = 0.0  # logarithm of the capital, which may be larger than any float
        self.capital = [1 / 9] * 9  # as fractions of it

    @property
    def log10_capital(self) -> float:
        return self.log_total / log(10)

    def settle(self, p_value: float) -> None:
        """Pay out the bets on a p-value; each is a density on 0..1, so that none gains on average."""
        self.n += 1
        # Spread anew: capital that lies with one bet could not follow another change.
        moved = 1 / (1000 + self.n)
        high, low = p_value, 1 - p_value
        ends = (high - low) ** 2
        payoffs = (
            1.0,
            0.5 + low,
            0.5 + high,
            2 * low,
            2 * high,
            4 * low**3,
            4 * high**3,
            0.5 + 1.5 * ends,
            1.5 - 1.5 * ends,
        )
        capital = [
            payoff * (share + moved * (1 / 9 - share))
            for payoff, share in zip(payoffs, self.capital, strict=True)
        ]
        total = sum(capital)
        self.log_total += log(total)
        self.capital = [share / total for share in capital]


def _read_scores(scores: Any, name: str) -> np.ndarray:
    refuse_masked(scores, name)
    values = np.asarray(scores)
    if values.dtype.kind not in "iuf" or values.ndim != 1 or not len(values):
        raise ValueError(
            f"{name} must be a list of at least one number, one per image; got shape {values.shape}, "
            f"dtype {str(values.dtype)[:40]}."
        )
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(f"{name} holds NaN or infinity, first at {int(finite.argmin())}.")
    return values.astype(float)


def _read_threshold(threshold: Any) -> float:
    given = np.asarray(threshold)
    if given.ndim or given.dtype.kind not in "iuf" or np.isnan(given):
        raise ValueError(
            f"threshold={threshold!r} must be a number, such as det.offset_, or None: all images count."
        )
    return float(given)


def _read_level(level: Any) -> float:
    given = np.asarray(level)
    if given.ndim or given.dtype.kind != "f" or not 0 < given < 1:
        raise ValueError(f"level={level!r} must be a probability between 0 and 1, such as 0.05.")
    return float(given)


def _read_integer(value: Any, name: str, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        raise ValueError(f"{name}={value!r} must be an integer of at least {lowest}.")
    return int(value)
