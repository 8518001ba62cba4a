"""How often the 95 % intervals of ``python -m skad.benchmark`` hold the true value, by simulation.

Scores are normal; two rows share most of their noise and differ a little. Test sets are as large as the
six of docs/results.md. "True" is the mean of the figure over many test sets of that size::

    python benchmarks/interval_coverage.py
"""

from __future__ import annotations

import argparse

import numpy as np

from skad.benchmark._intervals import draws, percentiles, weighted_figures

# Good and defective images, and how far apart their scores lie.
SETS = [
    (25, 63, 4.0),
    (150, 244, 1.9),
    (150, 62, 2.2),
    (20, 60, 3.2),
    (26, 141, 1.7),
    (103, 100, 2.9),
]
FIGURES = ("image_auroc", "average_precision", "recall_at_5_percent")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=250)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    labels = [np.repeat([1, -1], [n_good, n_bad]) for n_good, n_bad, _ in SETS]
    ones = [np.ones((1, len(y)), dtype=int) for y in labels]
    true = np.mean([measured(labels, ones, rng) for _ in range(6 * args.rounds)], axis=0)[..., 0]
    weights = [draws(y, seed) for seed, y in enumerate(labels)]
    samples = [measured(labels, weights, rng) for _ in range(args.rounds)]
    print("set          figure               row 1  row 2  difference")
    for i, part in enumerate([*([j] for j in range(len(SETS))), range(len(SETS))]):
        name = "mean" if i == len(SETS) else "{} + {}".format(*SETS[i][:2])
        for k, figure in enumerate(FIGURES):
            one, two = true[:, list(part), k].mean(axis=1)
            found = [s[:, list(part), k].mean(axis=1) for s in samples]
            held = [
                holds([a for a, _ in found], one),
                holds([b for _, b in found], two),
                holds([b - a for a, b in found], two - one),
            ]
            print(f"{name:<12} {figure:<20} " + " ".join(f"{h:6.2f}" for h in held))


def measured(
    labels: list[np.ndarray], weights: list[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Figures of two rows on new images: (2, sets, figures, replicates)."""
    rows: list[list[np.ndarray]] = [[], []]
    for y, weight, (_, _, distance) in zip(labels, weights, SETS, strict=True):
        first = rng.normal(size=len(y)) + distance * (y == 1)
        second = first + 0.5 * rng.normal(size=len(y)) + 0.15 * (y == 1)
        for row, scores in zip(rows, (first, second), strict=True):
            figures = weighted_figures(y, scores, weight)
            row.append(np.stack([figures[name] for name in FIGURES]))
    return np.array(rows)


def holds(samples: list[np.ndarray], true: float) -> float:
    """Fraction of the intervals that hold a value."""
    limits = [percentiles(sample) for sample in samples]
    return float(np.mean([low <= true <= high for low, high in limits]))


if __name__ == "__main__":
    main()
