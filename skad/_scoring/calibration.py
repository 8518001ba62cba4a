"""Scores of good images that were measured at different times, and which of them still count."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skad._scoring.results import TrainingScores

# With 2, a threshold after images had doubled lay one standard deviation of the scores below that of a
# refit; with 1.25 few scores are left, and it rests on chance. Measured on generated images.
_GROWTH = 1.5


class CalibrationLog(NamedTuple):
    """Scores of n good images, each as it was measured when its image was there.

    The images of earlier calls are gone, and a bank that has grown since would score them lower: nearer
    vectors may have come, and none has gone. So an old score is the more anomalous the older it is. It
    counts for as long as the bank knows at most half as many images again as it knew then, which keeps
    more than a third of all images, the latest.
    """

    out_of_sample: np.ndarray
    """(n,) float64; NaN for images that were trimmed, and for the first image of all, if it was alone
    and could not be held out."""
    in_sample: np.ndarray | None
    """(n,) float64; None unless a percentile is asked for."""
    peaks: np.ndarray
    """(n,) float64, the highest value of each image's map."""
    n_images: np.ndarray
    """(n,) int64, how many images the bank knew when the score was measured."""

    @classmethod
    def of(cls, scores: TrainingScores, n_images: int) -> CalibrationLog:
        """Note scores that have just been measured.

        Parameters
        ----------
        scores : TrainingScores
        n_images : int
            Images that the bank knows now.

        Returns
        -------
        CalibrationLog
        """
        out_of_sample = scores.calibrating()
        if out_of_sample is None:
            out_of_sample = np.full(len(scores.peaks), np.nan)
        known = np.full(len(scores.peaks), n_images)
        return cls(out_of_sample, scores.in_sample, scores.peaks, known)

    def followed_by(self, newer: CalibrationLog) -> CalibrationLog:
        """Put newer scores behind these, and drop those that no longer count.

        Parameters
        ----------
        newer : CalibrationLog
            Measured together, later than all of these.

        Returns
        -------
        CalibrationLog
        """
        counts = (_GROWTH * self.n_images >= newer.n_images[0]) & ~np.isnan(self.out_of_sample)
        in_sample = newer.in_sample
        if self.in_sample is not None and in_sample is not None:
            in_sample = np.append(self.in_sample[counts], in_sample)
        return CalibrationLog(
            np.append(self.out_of_sample[counts], newer.out_of_sample),
            in_sample,
            np.append(self.peaks[counts], newer.peaks),
            np.append(self.n_images[counts], newer.n_images),
        )
