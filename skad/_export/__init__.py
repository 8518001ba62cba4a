"""Fitted detectors as ONNX files.

- `export`: from a fitted detector to a verified file;
- `refusals`: what cannot be exported yet;
- `detectors`: a detector as one network of torch's; of `scoring`, `banks`, `products`,
  `reconstructions`, `tiles`, `rendering`, `networks`;
- `graph`: from that network to ONNX;
- `int8`: its convolutions in 8-bit integers;
- `description`: what the header of the file says;
- `verification`: the file beside the detector.
"""
