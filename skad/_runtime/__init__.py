"""Scoring an exported file: NumPy, Pillow, SciPy and ONNX Runtime alone.

- `file`: an ONNX file with skad's header and a checksum over everything;
- `content`: what the header says of a detector;
- `thresholds_file`: thresholds that were moved, beside the file;
- `detector`: the object that judges images.
"""
