"""Time the greedy coreset selection against a plain one-row-at-a-time loop.

The plain loop is a fair opponent: norms once, one matrix-vector product per center, everything in
place. Both run alternately, so that a busy machine slows both; medians are compared. The two
selections must cover the vectors equally well. Floors: the products of all vectors with all picks, at
the rate of one large product; and one reading of the vectors for every pick, which is the plain loop's.

    python benchmarks/bench_coreset.py
    python benchmarks/bench_coreset.py --features vectors.npy --ratios 0.01 --threads 1
    python benchmarks/bench_coreset.py --device cuda --n 163856 --ratios 0.1
"""

import argparse
import statistics

import numpy as np
import torch
from timing import name_of, product_rate, reading_rate, timed

from skad._bank import covering_radius, greedy_k_center


def plain_k_center(X: torch.Tensor, n_select: int) -> np.ndarray:
    """Greedy k-centre from row 0, one matrix-vector product per center."""
    points = X - X.mean(0)
    norms = (points * points).sum(1)
    gaps = torch.full_like(norms, torch.inf)
    to_pick = torch.empty_like(norms)
    picks, farthest = [], 0
    for _ in range(n_select):
        picks.append(farthest)
        torch.addmv(norms, points, points[farthest], alpha=-2, out=to_pick)
        torch.minimum(gaps, to_pick.add_(norms[farthest]).clamp_(min=0), out=gaps)
        gaps[farthest] = -1
        farthest = int(gaps.argmax())
    return np.array(picks)


def compare(X: torch.Tensor, ratio: float, repeats: int) -> None:
    device, n_select = str(X.device), max(1, int(len(X) * ratio))
    plain, blocked = [], []
    greedy_k_center(X, 2, start=0)
    for _ in range(repeats):
        took, picks_plain = timed(lambda: plain_k_center(X, n_select), device)
        plain.append(took)
        took, picks_blocked = timed(lambda: greedy_k_center(X, n_select, start=0), device)
        blocked.append(took)
    slow, fast = statistics.median(plain), statistics.median(blocked)
    print(
        f"{ratio:6.1%} {n_select:7d} picks  plain {slow:7.2f} s  skad {fast:6.2f} s  "
        f"{slow / fast:5.1f} times faster  same picks {np.mean(picks_plain == picks_blocked):.1%}"
    )
    products = 2 * n_select * X.numel() / product_rate(device)
    readings = 4 * n_select * X.numel() / reading_rate(device)
    print(f"{'':15} floors: products {products:.3f} s, one reading per center {readings:.3f} s")
    expected, got = covering_radius(X, picks_plain), covering_radius(X, picks_blocked)
    if abs(got - expected) > 1e-5 * expected:
        raise SystemExit(f"covering radius differs: {got} instead of {expected}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=78_400, help="rows (default: 100 images)")
    parser.add_argument("--d", type=int, default=128, help="length of random vectors")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument("--threads", type=int, help="default: torch's own choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--features", help="two-dimensional .npy file instead of random vectors")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.features:
        X = torch.from_numpy(np.load(args.features)[: args.n]).float()
    else:
        X = torch.randn(args.n, args.d, generator=torch.Generator().manual_seed(0))
    X = X.to(args.device)
    print(f"{len(X)} vectors of length {X.shape[1]}, {name_of(args.device)}")
    for ratio in args.ratios:
        compare(X, ratio, args.repeats)


if __name__ == "__main__":
    main()
