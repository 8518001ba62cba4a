"""Files that are no results."""

import pytest

from skad.benchmark import PRESETS, run, write_tables


@pytest.mark.parametrize("content", ["[1, 2", "[1, 2]", '{"preset": 1}', b"\xff"])
def test_foreign_files_are_refused(parts, tmp_path, content):
    (tmp_path / "patchcore-1").mkdir()
    file = tmp_path / "patchcore-1" / "folder-bottle-0.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = r"bottle-0\.json' is no result of a benchmark.*: move it elsewhere"
    with pytest.raises(ValueError, match=message):
        run(parts, {"patchcore-1": PRESETS["patchcore-1"]}, tmp_path)
    with pytest.raises(ValueError, match=message):
        write_tables(tmp_path)
