"""The display of spectra: what it reads back from a detector."""

import numpy as np
import pytest
from conftest import make_detector, make_recontrast
from sklearn.exceptions import NotFittedError

pytest.importorskip("matplotlib")
from skad._features.whitening import LayerMoments
from skad.inspection import SpectrumDisplay


def test_variances_are_those_of_the_good_patches(good, monkeypatch):
    seen = []
    measure = LayerMoments.covariance
    monkeypatch.setattr(
        LayerMoments, "covariance", lambda self: (seen.append(measure(self)), seen[-1])[1]
    )
    det = make_detector(image_size=64, whitening=0.4).fit(good)
    display = SpectrumDisplay.from_estimator(det)
    assert len(display.variances) == 2
    for found, covariance in zip(display.variances, seen, strict=False):
        expected = np.linalg.eigvalsh(covariance.numpy())[::-1]
        ridge = found[-1] - expected[-1]
        assert ridge == pytest.approx(0.1 * expected.mean(), rel=1e-3)
        np.testing.assert_allclose(found, expected + ridge, atol=1e-3 * expected[0])
    assert all(before < after for before, after in display.directions)


def test_labels_name_the_layers(good):
    display = SpectrumDisplay.from_estimator(
        make_detector(layers=(1, 2), whitening=0.25).fit(good), name="bolts"
    )
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert [text.split(":")[0] for text in texts] == [
        *("layer 1, before", "layer 1, after", "layer 2, before", "layer 2, after")
    ]
    assert display.ax_.get_title() == "bolts, whitening 0.25"


def test_what_has_no_spectrum_is_refused(good):
    with pytest.raises(NotFittedError):
        SpectrumDisplay.from_estimator(make_detector())
    with pytest.raises(TypeError):
        SpectrumDisplay.from_estimator(make_recontrast().fit(good))
    with pytest.raises(ValueError, match="whitening above 0"):
        SpectrumDisplay.from_estimator(make_detector(whitening=0).fit(good))
