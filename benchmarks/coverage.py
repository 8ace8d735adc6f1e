"""A simulation of how often the intervals of the studies contain the truth.

A difference is the truth plus normal noise of the seed, of the image and of the cell, with the
standard deviations shown.  There are 300 images.  Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np

from satbench.core.stats.shown import two_way_effect

TRUTH, IMAGES, CELL = 0.02, 300, 0.5
SEEDS, SEED_DEVIATIONS, IMAGE_DEVIATIONS = (3, 5), (0.0, 0.005, 0.015, 0.03), (0.0, 0.3)


def main() -> None:
    """Simulate; print a line per case, and write all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for seeds, seed, image in product(SEEDS, SEED_DEVIATIONS, IMAGE_DEVIATIONS):
        both, alone = coverage(seeds, seed, image, options.repeats)
        rows.append({"seeds": seeds, "seed": seed, "image": image, "both": both, "alone": alone})
        noise = f"deviation {seed} by seed, {image} by image"
        print(f"{seeds} seeds, {noise}: both {both:.1%}, seeds alone {alone:.1%}")
    if options.json:
        settings = {"repeats": options.repeats, "images": IMAGES, "cell": CELL}
        options.json.write_text(json.dumps({**settings, "rows": rows}, indent=1) + "\n")


def coverage(seeds: int, seed: float, image: float, repeats: int) -> tuple[float, float]:
    """Return how often two intervals contain the truth: over seeds and images, and over seeds."""
    drawn = np.random.default_rng(0)
    both = alone = 0
    for _ in range(repeats):
        effect = two_way_effect(
            TRUTH
            + seed * drawn.standard_normal((seeds, 1))
            + image * drawn.standard_normal((1, IMAGES))
            + CELL * drawn.standard_normal((seeds, IMAGES))
        )
        assert effect.interval
        assert effect.by_seed
        both += effect.interval[0] <= TRUTH <= effect.interval[1]
        alone += effect.by_seed[0] <= TRUTH <= effect.by_seed[1]
    return both / repeats, alone / repeats


if __name__ == "__main__":
    main()
