"""Images changed at random."""

import numpy as np

from skad.benchmark._augmentation import augmented


def test_changes_depend_on_file_and_seed_alone(parts, opened):
    file = parts / "cable/test/good/0.png"
    changed = np.asarray(augmented(file, 0))
    assert changed.shape == np.asarray(opened(file)).shape
    np.testing.assert_array_equal(changed, augmented(file, 0))
    assert not np.array_equal(changed, augmented(file, 1))
