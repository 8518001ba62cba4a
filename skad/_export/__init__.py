"""Fitted detectors as ONNX files.

- `export`: from a fitted detector to a verified file;
- `refusals`: what cannot be exported yet;
- `scoring`, `banks`, `rendering`, `networks`: a detector as one network of torch's;
- `graph`: from that network to ONNX;
- `description`: what the header of the file says;
- `verification`: the file beside the detector.
"""
