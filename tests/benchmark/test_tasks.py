"""Images to learn from."""

from skad.benchmark import Preset
from skad.benchmark._rows import Row
from skad.benchmark._tasks import Task


def trained_on(parts, category="bottle", seed=0, n_images=None, shots=None):
    row = Row("row", Preset("row", "patchcore", {}, shots=shots), n_images=n_images)
    part = Task(row, "folder", str(parts), (category,), seed, None).load(category)
    return [int(file.rsplit("/", 1)[-1].removesuffix(".png")) for file in part.X_train]


def test_fewer_images_are_spread_evenly(parts):
    assert trained_on(parts) == trained_on(parts, n_images=99) == list(range(8))
    assert trained_on(parts, n_images=3) == [0, 4, 7]


def test_shots_are_drawn_anew_for_every_seed_and_category(parts):
    drawn = trained_on(parts, shots=4)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 4
    assert drawn == trained_on(parts, shots=4)
    others = [trained_on(parts, "cable", shots=4), trained_on(parts, seed=1, shots=4)]
    assert all(drawn != other for other in others)
    assert set(trained_on(parts, n_images=3, shots=2)) < {0, 4, 7}
