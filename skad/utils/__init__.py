"""Tools for those who write detectors."""
