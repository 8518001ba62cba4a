"""Images changed at random, and rotated."""

import numpy as np

from skad.benchmark._augmentation import augmented, rotated, write_rotated


def test_changes_depend_on_file_and_seed_alone(parts, opened):
    file = parts / "cable/test/good/0.png"
    changed = np.asarray(augmented(file, 0))
    assert changed.shape == np.asarray(opened(file)).shape
    np.testing.assert_array_equal(changed, augmented(file, 0))
    assert not np.array_equal(changed, augmented(file, 1))


def test_rotations_by_quarters_keep_every_pixel(parts, opened):
    file = parts / "cable/test/good/0.png"
    image = np.asarray(opened(file))
    np.testing.assert_array_equal(rotated(file, 90), np.rot90(image))
    np.testing.assert_array_equal(rotated(file, 180), image[::-1, ::-1])
    assert np.asarray(rotated(file, 45)).shape == image.shape
    assert not np.asarray(rotated(file, 45))[0, 0].any()  # a corner that opened


def test_rotated_copies_stand_beside_their_images(parts, tmp_path, opened):
    files = [str(parts / f"cable/train/good/{i}.png") for i in range(2)]
    found = write_rotated(files, tmp_path, 4)
    assert found[::4] == files
    for k, copy in enumerate(found[4:]):
        np.testing.assert_array_equal(opened(copy), rotated(files[1], 90 * k))
    assert write_rotated(files, tmp_path, 1) == files
