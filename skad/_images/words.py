"""Quotations in error messages: what users hold may be long, messages must not be."""

from skad._text import shortened

__all__ = ["shortened"]
