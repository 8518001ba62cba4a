"""What knows torch alone, and nothing of images, detectors or banks.

Correctness, which nothing works without:

- `devices`: every decision about hardware and precision, and whether only the plain path is wanted;
- `invariance`: results that do not depend on what else is in the batch.

Accelerators, each of which can be deleted (`accelerators` says where they come in):

- `fusing`: convolutions fused with what follows them;
- `cuda_graphs`: kernels that a GPU records once and replays;
- `transfers`: copies between host and GPU that nobody waits for;
- `capturable_adamp`: AdamP without a question to the device.
"""
