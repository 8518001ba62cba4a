"""Templates: what is escaped, what is an error."""

import pytest
from jinja2 import UndefinedError

from skad.inspection._html import _environment, load_template


def picture(png, alt):
    return str(load_template("picture.html").module.picture(png, alt))


def test_texts_are_escaped_and_pictures_are_not():
    tag = picture(b"\xfb\xff", "<script>\"'{{ 7 * 7 }}")
    assert tag == (
        '<img alt="&lt;script&gt;&#34;&#39;{{ 7 * 7 }}" src="data:image/png;base64,+/8=">'
    )


def test_bytes_of_file_names_that_are_no_utf8():
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert r'alt="caf\xe9.png"' in picture(b"", name)


def test_a_name_that_is_not_passed_is_an_error():
    with pytest.raises(UndefinedError, match="page"):
        load_template("report.html").render()


def test_all_templates_are_compiled_at_once():
    """jinja2 compiles under a lock, which a child that is forked meanwhile would find held."""
    names = {name for _, name in _environment().cache}
    assert names == {"picture.html", "report.css", "report.html"}
