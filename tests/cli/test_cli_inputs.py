"""Images as a command line names them."""

import pytest

from skad.cli._inputs import find_images, refuse_overwriting
from skad.cli._messages import CommandError, UsageError
from skad.cli._outputs import picture_names


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ["a/2.png", "a/1.JPG", "a/notes.txt", "a/.hidden.png", "b/3.png", "b/c/4.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (["a"], ["a/1.JPG", "a/2.png"]),
        (["b", "a"], ["b/3.png", "a/1.JPG", "a/2.png"]),
        (["b/**/*.png"], ["b/3.png", "b/c/4.png"]),
        (["a/2.png", "a"], ["a/2.png", "a/1.JPG"]),
        (["a/gone.png"], ["a/gone.png"]),
    ],
)
def test_found_in_their_order_once(named, found):
    assert find_images(named) == found


def test_images_of_other_formats_are_said(folder):
    (folder / "a" / "3.HEIC").touch()
    with pytest.warns(UserWarning, match=r"^'a': .*suffix \(\.heic\): 1, such as '3\.HEIC'"):
        assert find_images(["a"]) == ["a/1.JPG", "a/2.png"]


@pytest.mark.parametrize(
    "table",
    [
        "path\na/2.png\nb/3.png\n",
        "id,path\n1,a/2.png\n\n2,b/3.png",
        "Path;id\na/2.png;1\nb/3.png;2\n",
        "\ufeffid\tPATH\n1\ta/2.png\n2\tb/3.png\n",
        'id,path\n"1,0",a/2.png\n2, b/3.png\n',
    ],
)
def test_a_table_as_spreadsheets_write_it(table, folder):
    (folder / "list.csv").write_text(table, encoding="utf-8")
    assert find_images(["list.csv"]) == ["a/2.png", "b/3.png"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file\na.png\n", "has no column 'path', only file"),
        ("", "has no column 'path', only none"),
        ("id,path\n1,\n", "row 2: the path is empty"),
        ("path\n", "lists no images"),
    ],
)
def test_a_table_without_paths(table, message, folder):
    (folder / "list.csv").write_text(table)
    with pytest.raises(CommandError, match=message):
        find_images(["list.csv"])


def test_what_is_read_is_not_written_over(folder):
    (folder / "link.png").symlink_to(folder / "a/2.png")
    refuse_overwriting([None, "new.csv"], ["a/2.png"])
    with pytest.raises(UsageError, match=r"'link\.png' is read by this command"):
        refuse_overwriting(["link.png"], ["a/2.png"])
    with pytest.raises(UsageError, match=r"'\./new\.csv' is to be written twice"):
        refuse_overwriting(["new.csv", None, "./new.csv"], ["a/2.png"])


def test_no_two_pictures_have_one_name():
    paths = ["a/1.png", "a/1.jpg", "b/c/1.png", "1.png.bmp", "a/1.png.tif"]
    names = picture_names(paths)
    assert len(set(names.values())) == len(paths)
    assert all(name.endswith(".png") for name in names.values())
