from inspect import getdoc

import pytest

from skad._common.docstrings import with_inherited_texts


class Mixin:
    """Takes sizes.

    Parameters
    ----------
    size : int or "auto"
        Side, in pixels. "auto": as large
        as can be.

        An empty line ends nothing.
    colour : str
        Of the paint.

    Notes
    -----
    depth : this is no parameter
    """


@pytest.fixture
def Base():
    @with_inherited_texts
    class Base(Mixin):
        """Paints.

        Parameters
        ----------
        depth : float, default=1e-3
            How far down.
        """

        def __init__(self, size="auto", depth=1e-3, *, colour="red", n=None):
            pass

    return Base


def test_what_bases_say_stands_in_the_order_of_init_with_its_defaults(Base):
    assert getdoc(Base) == (
        "Paints.\n\n"
        "Parameters\n----------\n"
        'size : int or "auto", default="auto"\n'
        '    Side, in pixels. "auto": as large\n    as can be.\n\n    An empty line ends nothing.\n'
        "depth : float, default=1e-3\n    How far down.\n"
        'colour : str, default="red"\n    Of the paint.'
    )


def test_an_entry_with_a_type_replaces_one_without_adds(Base):
    @with_inherited_texts
    class Derived(Base):
        """Paints walls.

        Parameters
        ----------
        size : int
            Side, in metres.
        colour
            Walls have few.
        n : int or None
            Coats.

        See Also
        --------
        Base : Paints anything.
        """

        def __init__(self, *, colour=None, size, depth=0.5, n=2):
            pass

    assert getdoc(Derived) == (
        "Paints walls.\n\n"
        "Parameters\n----------\n"
        "colour : str, default=None\n    Of the paint.\n    Walls have few.\n"
        "size : int\n    Side, in metres.\n"
        "depth : float, default=0.5\n    How far down.\n"
        "n : int or None, default=2\n    Coats.\n\n"
        "See Also\n--------\nBase : Paints anything."
    )


def test_without_init_all_entries_stand():
    @with_inherited_texts
    class Abstract(Mixin):
        """Paints.

        Parameters
        ----------
        n : int
            Coats.
        """

    names = [line.split(" : ")[0] for line in getdoc(Abstract).splitlines() if " : " in line]
    assert names == ["size", "colour", "n"]


def test_classes_without_docstrings_stay_without(Base):
    @with_inherited_texts
    class Silent(Base):
        def __init__(self, colour=None):
            pass

    assert not vars(Silent)["__doc__"].strip()
