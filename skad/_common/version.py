"""The version of skad, in one place."""

__version__ = "0.1.0"
