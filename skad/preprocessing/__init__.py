"""Transformers of images, for the steps of a pipeline before a detector."""

from skad.preprocessing._register import Register

__all__ = ["Register"]
