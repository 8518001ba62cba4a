"""Values of parameters on a command line."""

import pytest

from skad.benchmark._grid import parse_grid, parse_grids


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("k=3,5", [3, 5]),
        ("b=None,9", [None, 9]),
        ("sigma=auto,1.0", ["auto", 1.0]),
        ("layers=(2,3),(1,2,3)", [(2, 3), (1, 2, 3)]),
        ("layers=((1,2),(3,))", [((1, 2), (3,))]),
        ("weights='a,b.pt',c=d.pt", ["a,b.pt", "c=d.pt"]),
        ("memory=", [""]),
    ],
)
def test_values(text, values):
    assert parse_grid([text]) == {text.partition("=")[0]: values}


def test_names_come_once():
    with pytest.raises(ValueError, match=r"--set names 'k' twice: write k=VALUE,VALUE"):
        parse_grid(["k=3", "k=5"])


def test_rows_share_what_is_set():
    rows = [["backbone=skad_nano"], ["backbone=resnet18", "weights=a.pt"]]
    first, second = parse_grids(["b=3,9"], rows)
    assert first == {"backbone": ["skad_nano"], "b": [3, 9]}
    assert second == {"backbone": ["resnet18"], "weights": ["a.pt"], "b": [3, 9]}
    assert parse_grids(["b=3,9"], []) == [{"b": [3, 9]}]
    with pytest.raises(ValueError, match="--row and --set both name 'b': write it in each"):
        parse_grids(["b=3"], [["b=9"]])
    with pytest.raises(ValueError, match="--row 'b': write NAME=VALUE"):
        parse_grids([], [["b"]])
