"""Long words, and names that no encoding can write."""

import pytest

from skad._common.text import readable, shortened


@pytest.mark.parametrize("text", ["", "plain.png", "caf\u00e9/\u4e2d\u6587.png", "\U0001f600\n"])
def test_what_can_be_written_stays(text):
    assert readable(text) == text


@pytest.mark.parametrize(
    ("name", "expected"),
    [(b"caf\xe9.png", r"caf\xe9.png"), (b"\xff\x80a\xc3\xa9", "\\xff\\x80a\u00e9")],
)
def test_bytes_that_are_no_utf8(name, expected):
    assert readable(name.decode("utf-8", "surrogateescape")) == expected


def test_any_surrogate():
    text = readable("a\ud800b\udfff\udc7f")
    assert text == r"a\ud800b\udfff\udc7f"
    assert text.encode("utf-8")


def test_long_texts_lose_their_middle():
    assert shortened("a" * 200) == "a" * 200
    text = shortened("begin" + "x" * 5000 + "end", 50)
    assert len(text) <= 50
    assert text.startswith("begin")
    assert text.endswith("end")
