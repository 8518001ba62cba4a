"""tools/train_nano.py: batches follow from their number; a run is continued where it stopped."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from skad._features._timm import import_timm
from skad._features.backbones import load_backbone
from skad._features.nano import WEIGHTS

pytestmark = pytest.mark.scripts
TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        return importlib.import_module("train_nano")


@pytest.fixture
def small(script, monkeypatch):
    """The script with blocks of two batches of small images."""
    monkeypatch.setattr(sys.modules["nano_images"], "SIDE", 48)
    monkeypatch.setattr(script, "BLOCK", 2)
    return script


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nano")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        photo = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        photo.resize((120, 90), Image.Resampling.BICUBIC).save(folder / "photos" / f"{i}.png")
    timm = import_timm()
    first = timm.create_model("resnet18", features_only=True, out_indices=(2, 3))
    save_file(first.state_dict(), folder / "resnet18.safetensors")
    second = timm.create_model("tf_efficientnet_lite2").state_dict()
    torch.save({f"_{name}": value for name, value in second.items()}, folder / "lite2.pth")
    return folder


@pytest.fixture
def arguments(files, tmp_path):
    def arguments(name, *options):
        return [str(word) for word in (
            "--photos", files / "photos", "--resnet18", files / "resnet18.safetensors",
            "--out", tmp_path / f"{name}.safetensors",
            "--batch-size", 4, "--blocks", 3, "--passes", 2, "--device", "cpu", *options,
        )]  # fmt: skip

    return arguments


@pytest.fixture
def run(small, arguments, tmp_path):
    def run(name, *options):
        small.main(arguments(name, *options))
        return load_file(tmp_path / f"{name}.safetensors")

    return run


def test_a_batch_follows_from_its_number(small, files):
    batches = small.TrainingBatches([files / "photos"], batch_size=6, seed=0)
    assert torch.equal(batches[3], batches[3])
    assert batches[3].shape == (6, 48, 48, 3)
    assert batches[3].dtype == torch.uint8
    others = (batches[4], batches[-3], small.TrainingBatches([files / "photos"], 6, seed=1)[3])
    assert not any(torch.equal(batches[3], other) for other in others)


def test_the_student_comes_closer_to_both_teachers(small, arguments, files):
    words = arguments("weights", "--passes", 4, "--lite2", files / "lite2.pth")
    run = small.Run(small.read_arguments(words))
    run.begin()
    run.student.train()
    block = [run.data[0], run.data[1]]
    losses = np.stack([run._learn(block) for _ in range(6)])
    assert (losses[-1] < 0.9 * losses[0]).all()


def test_the_file_is_what_the_backbone_loads(run):
    """Every tensor of the trunk, in half precision."""
    state = run("weights")
    assert state.keys() == import_timm().create_model("skad_nano").state_dict().keys()
    assert {t.dtype for t in state.values()} == {torch.float16, torch.int64}


def test_necks_half_whiten_their_stage(small, arguments):
    """The covariance behind a neck is the square root of the one before it."""
    run = small.Run(small.read_arguments(arguments("weights")))
    small.fit_necks(run.student, run.unseen())
    batches = [small.normalised(b, small.IMAGENET_MEAN, small.IMAGENET_STD) for b in run.unseen()]
    small.export(run.student, run.args.out)
    net = load_backbone("skad_nano", run.args.out, (2, 3), torch.device("cpu"))
    with torch.no_grad():
        for layer in (2, 3):
            before = [list(run.student.trunk.stages(batch))[layer] for batch in batches]
            after = [net.body(batch)[layer - 2] for batch in batches]
            C, D = (torch.cov(torch.cat(m).transpose(0, 1).flatten(1)) for m in (before, after))
            assert (D @ D - C).norm() < 0.02 * C.norm()


def test_an_interrupted_run_ends_as_an_uninterrupted_one(run, small, monkeypatch, capsys):
    whole = run("whole")
    learn, calls = small.Run._learn, []

    def interrupted(self, block):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn(self, block)

    monkeypatch.setattr(small.Run, "_learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("parts")
    continued = run("parts")
    assert "continued after block 2" in capsys.readouterr().out
    assert all(torch.equal(value, continued[key]) for key, value in whole.items())


def test_a_checkpoint_of_other_options_is_not_continued(run):
    run("weights")
    with pytest.raises(SystemExit, match="other options: delete it"):
        run("weights", "--lr", 0.1)


def test_a_run_begins_with_the_weights_that_it_is_given(small, arguments):
    run = small.Run(small.read_arguments(arguments("weights", "--start", WEIGHTS)))
    trunk, given = run.student.trunk.state_dict(), load_file(WEIGHTS)
    assert all(
        torch.equal(trunk[name], given[name].float()) for name in trunk if "num_b" not in name
    )


def test_the_second_teacher_sees_the_places_of_the_student(script, files):
    """A spot moves the features around its own position, not those half a stride away."""
    teacher = script.Teacher(script.TEACHERS["lite2"], files / "lite2.pth")
    # Positive and symmetric kernels, so that the grid alone decides; small, so that nothing saturates.
    for module in teacher.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.fill_(1 / module.weight[0].numel())
    images = torch.full((2, 96, 96, 3), 128, dtype=torch.uint8)
    images[1, 48, 48] = 255
    with torch.no_grad():
        changes = [(layer[1] - layer[0]).abs().sum(0) for layer in teacher(images)]
    assert [divmod(int(c.argmax()), c.shape[1]) for c in changes] == [(6, 6), (3, 3)]


def test_a_folder_without_photographs_is_named(small, tmp_path):
    with pytest.raises(SystemExit, match=r"--photos .*no \.jpg or \.png"):
        small.TrainingBatches([tmp_path], 4, seed=0)
