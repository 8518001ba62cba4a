"""HTML from the templates in the folder beside this file."""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING, Any

from skad._common.forks import LOADING
from skad._common.text import readable

if TYPE_CHECKING:
    from jinja2 import Environment, Template


def load_template(name: str) -> Template:
    """Load a template.

    Texts are escaped where a template inserts them. A name that a template uses and the caller does
    not pass is an error.

    Parameters
    ----------
    name : str
        File name in the folder ``templates``.

    Returns
    -------
    jinja2.Template
    """
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    """Compile all templates, once."""
    # jinja2 compiles under a lock that a forked child would find held for ever: so no thread forks
    # meanwhile, and nothing is compiled later.
    with LOADING:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("skad.inspection", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=-1,
            auto_reload=False,
        )
        environment.filters["base64"] = _as_base64
        for name in environment.list_templates():
            environment.get_template(name)
    return environment


def _finalize(value: Any) -> Any:
    """Replace what UTF-8 cannot encode in file names; markup (a subclass of str) has none."""
    return readable(value) if type(value) is str else value


def _as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
