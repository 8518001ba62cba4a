"""Every command of docs/cli.md and of the README's block runs."""

import re
import shlex
from pathlib import Path

import pytest
from command_line import plant, run, scheduler_here

from skad import PatchCoreDetector

pytestmark = pytest.mark.scripts
ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Waits for ever, on a camera that is not here.
SMALLER = {"/camera/incoming --jsonl verdicts.jsonl": "incoming --jsonl w.jsonl --once"}
SCHEDULER = "tcp://scheduler:8786"


def commands(page, scheduler=SCHEDULER):
    text = (ROOT / page).read_text(encoding="utf-8")
    shell = [block for language, block in BLOCK.findall(text) if language in ("", "sh")]
    lines = [line for block in shell for line in block.splitlines()]
    found = [line for line in lines if line.startswith("skad ")]
    for said, smaller in {**SMALLER, SCHEDULER: scheduler}.items():
        found = [line.replace(said, smaller) for line in found]
    return [shlex.split(line, comments=True)[1:] for line in found]


@pytest.fixture
def workshop(tmp_path, parts, monkeypatch):
    """Images where the page has them, and small networks."""
    plant(tmp_path, monkeypatch)
    (tmp_path / "line3.skad").unlink()
    (tmp_path / "incoming").mkdir()
    (tmp_path / "parts/good-of-today").symlink_to(tmp_path / "parts/good")
    for name in ("test", "ground_truth"):
        (tmp_path / "parts" / name).symlink_to(parts / "bottle" / name)
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    (table,) = (block for _, block in BLOCK.findall(text) if block.startswith("name,images"))
    (tmp_path / "lines.csv").write_text(table, encoding="utf-8")
    (tmp_path / "archive").symlink_to(tmp_path / "parts")
    small = {**PatchCoreDetector.__init__.__kwdefaults__, "image_size": 32, "coreset_size": 0.5}
    monkeypatch.setattr(PatchCoreDetector.__init__, "__kwdefaults__", small)


@pytest.fixture
def scheduler():
    """A cluster in place of the one that the page names."""
    with scheduler_here() as address:
        yield address


@pytest.mark.filterwarnings("ignore:target_false_alarm_rate:UserWarning")
@pytest.mark.filterwarnings("ignore:Your learning rate:UserWarning")
@pytest.mark.parametrize(("page", "n"), [("docs/cli.md", 16), ("README.md", 3)])
def test_commands_run(page, n, workshop, scheduler, capsys):
    found = commands(page, scheduler)
    assert len(found) == n
    for arguments in found:
        result = run(capsys, *arguments)
        # Verdicts are no failures: there are defective images among the new ones.
        assert result.code in (0, 3), (arguments, result.err)


def test_the_examples_of_help_are_read_by_the_parser():
    from skad.cli._parser import _COMMANDS, build_parser

    parser = build_parser()
    lines = [line.strip() for module in _COMMANDS for line in module.EXAMPLES.splitlines()]
    found = [line.partition("&&")[0] for line in lines if line.startswith("skad ")]
    # The benchmark has a parser of its own.
    found = [
        line for line in found if not line.startswith("skad benchmark") and "codes" not in line
    ]
    assert len(found) > 12
    for line in found:
        assert parser.parse_args(shlex.split(line)[1:]).command in line
