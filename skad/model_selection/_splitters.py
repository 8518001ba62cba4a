"""Splitters that train on good images only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator, StratifiedGroupKFold
from sklearn.utils import check_random_state

from skad._common.labels import read_labels
from skad._common.warn import warn_user
from skad._sklearn_compat import _num_samples


class _OneClassSplitter(BaseCrossValidator):
    """What both splitters have in common: labels in, indices out."""

    n_splits: int

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of divisions.

        Parameters
        ----------
        X, y, groups : object
            Ignored.

        Returns
        -------
        int
        """
        return self.n_splits

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Generate the indices of each division.

        Parameters
        ----------
        X : images
            n images; only their number counts.
        y : array-like of shape (n,)
            +1 good, -1 defective.
        groups : array-like of shape (n,), default=None
            What belongs together, such as the part or the shift that images come from.

        Yields
        ------
        train, test : ndarray of int
            Ascending.

        Raises
        ------
        ValueError
            For other labels, or if there are too few good or defective images, or too few groups.
        """
        for train, test in self._divide(read_labels(y, _num_samples(X)), groups):
            yield np.sort(train), np.sort(test)

    @abstractmethod
    def _divide(self, labels: np.ndarray, groups: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the indices of good images to learn from, and of all images to test on."""


class OneClassKFold(_OneClassSplitter):
    """K folds whose training parts hold good images only.

    Good images are divided into K folds, and so are defective ones. Fold i is tested on its good and its
    defective images, after learning from the good images of the other folds. With `groups`, folds
    are made of whole groups, by scikit-learn's StratifiedGroupKFold: no group is on both sides.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds K, at least 2 and at most the number of good images, and of defective ones if
        there are any.
    shuffle : bool, default=False
        Whether images are drawn into folds at random. Else each fold is a run of consecutive images,
        which is right where neighbours look alike (frames of a video).
    random_state : int, RandomState instance or None, default=None
        For ``shuffle=True``.

    See Also
    --------
    sklearn.model_selection.StratifiedKFold : Works too, since detectors leave defective images out of
        the training by themselves.
    sklearn.model_selection.StratifiedGroupKFold : The same with groups.

    Examples
    --------
    >>> import numpy as np
    >>> from skad.model_selection import OneClassKFold
    >>> y = np.array([1, 1, 1, 1, -1, -1])
    >>> for train, test in OneClassKFold(2).split(y, y):
    ...     print(train, test)
    [2 3] [0 1 4]
    [0 1] [2 3 5]
    """

    # As scikit-learn's own splitters by groups: with metadata routing, groups reach `split`.
    __metadata_request__split = {"groups": True}

    n_splits: int
    shuffle: bool
    random_state: Any

    def __init__(
        self, n_splits: int = 5, *, shuffle: bool = False, random_state: Any = None
    ) -> None:
        if not isinstance(n_splits, Integral) or n_splits < 2:
            raise ValueError(f"n_splits={n_splits!r} must be an integer of at least 2.")
        self.n_splits = int(n_splits)
        self.shuffle = shuffle
        self.random_state = random_state

    def _divide(self, labels: np.ndarray, groups: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        good, defective = np.flatnonzero(labels == 1), np.flatnonzero(labels == -1)
        for images, what in ((good, "good"), (defective, "defective")):
            if len(images) < self.n_splits and not (what == "defective" and len(images) == 0):
                raise ValueError(
                    f"n_splits={self.n_splits} needs at least {self.n_splits} {what} images; y has "
                    f"{len(images)}. Lower n_splits."
                )
        if groups is not None:
            yield from self._divide_groups(labels, groups)
            return
        if self.shuffle:
            rng = check_random_state(self.random_state)
            good, defective = rng.permutation(good), rng.permutation(defective)
        folds = zip(
            np.array_split(good, self.n_splits),
            np.array_split(defective, self.n_splits),
            strict=True,
        )
        for own, bad in folds:
            yield np.setdiff1d(good, own), np.append(own, bad)

    def _divide_groups(
        self, labels: np.ndarray, groups: Any
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        random_state = self.random_state if self.shuffle else None
        folds = StratifiedGroupKFold(
            self.n_splits, shuffle=self.shuffle, random_state=random_state
        ).split(labels, labels, _numbered(groups))
        for i, (others, test) in enumerate(folds):
            train = others[labels[others] == 1]
            for images, what in ((train, "images to learn from"), (test, "images to test on")):
                if not (labels[images] == 1).any():
                    raise ValueError(
                        f"fold {i} of n_splits={self.n_splits} has no good image among the {what}: "
                        "there are too few groups with good images, or one is too large. Lower n_splits."
                    )
            yield train, test


class OneClassShuffleSplit(_OneClassSplitter):
    """Random parts of the good images to learn from; the others, and all defective ones, to test on.

    Groups are ignored, with a warning, as by scikit-learn's ShuffleSplit.

    Parameters
    ----------
    n_splits : int, default=10
        Number of random divisions.
    test_size : float or int, default=0.2
        Good images to test on: a fraction in (0, 1), or their number.
    train_size : float, int or None, default=None
        Good images to learn from: a fraction, or their number (for few-shot training); None: all others.
    random_state : int, RandomState instance or None, default=None

    Examples
    --------
    >>> import numpy as np
    >>> from skad.model_selection import OneClassShuffleSplit
    >>> y = np.array([1, 1, 1, 1, 1, -1, -1])
    >>> for train, test in OneClassShuffleSplit(2, test_size=2, random_state=0).split(y, y):
    ...     print(len(train), [int(y[i]) for i in test])
    3 [1, 1, -1, -1]
    3 [1, 1, -1, -1]
    """

    n_splits: int
    test_size: float
    train_size: float | None
    random_state: Any

    def __init__(
        self,
        n_splits: int = 10,
        *,
        test_size: float = 0.2,
        train_size: float | None = None,
        random_state: Any = None,
    ) -> None:
        if not isinstance(n_splits, Integral) or n_splits < 1:
            raise ValueError(f"n_splits={n_splits!r} must be an integer of at least 1.")
        self.n_splits = int(n_splits)
        self.test_size = test_size
        self.train_size = train_size
        self.random_state = random_state

    def _divide(self, labels: np.ndarray, groups: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if groups is not None:
            warn_user(
                "OneClassShuffleSplit ignores groups: images of one group may lie on both sides. "
                "OneClassKFold keeps groups together."
            )
        good, defective = np.flatnonzero(labels == 1), np.flatnonzero(labels == -1)
        n_test = _count("test_size", self.test_size, len(good))
        n_train = len(good) - n_test
        if self.train_size is not None:
            n_train = _count("train_size", self.train_size, len(good))
        if n_train < 1 or n_train + n_test > len(good):
            raise ValueError(
                f"train_size={self.train_size!r} and test_size={self.test_size!r} do not fit into "
                f"{len(good)} good images."
            )
        rng = check_random_state(self.random_state)
        for _ in range(self.n_splits):
            order = rng.permutation(good)
            yield order[n_test : n_test + n_train], np.append(order[:n_test], defective)


def _numbered(groups: Any) -> np.ndarray:
    """Give groups numbers in order of appearance, whatever their names and their container are."""
    column: Any = groups if isinstance(groups, list | tuple) else np.asarray(groups)
    if getattr(column, "ndim", 1) == 2 and column.shape[1] == 1:
        column = column[:, 0]
    numbers: dict[Any, int] = {}
    try:
        return np.array([numbers.setdefault(group, len(numbers)) for group in column])
    except TypeError as error:
        raise ValueError(
            f"groups must be one name or number per image, of shape (n,): {error}."
        ) from error


def _count(name: str, size: float, n: int) -> int:
    """Turn a fraction or a number into a number of images."""
    if isinstance(size, Integral) and size >= 1:
        return int(size)
    if isinstance(size, Real) and 0 < size < 1:
        return max(1, round(float(size) * n))
    raise ValueError(
        f"{name}={size!r} must be a fraction in (0, 1) or a positive number of images."
    )
