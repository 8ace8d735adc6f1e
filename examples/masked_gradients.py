"""Masked gradients: a network that only looks robust, and how that is found out.

The network is the shipped one that was trained without an adversary, behind a layer that rounds
the pixels.  Its gradient is 0, so PGD has nothing to follow.  Takes a few seconds.
"""

import satbench
from satbench.model_zoo.masked import rounding

IMAGES = {"eps": 0.1, "n_examples": 50, "name": "rounding"}


def main() -> None:
    """Evaluate the network as one would by habit, and then as its flag says."""
    model = rounding()
    naive = satbench.evaluate(model, "fashion-mnist", attacks="pgd-20", **IMAGES)
    print(f"PGD-20:          {naive.surviving()} of {naive.n} survive")
    for flag in naive.diagnosis.flags:
        print(f"  flag {flag}")

    # Without gradients: random search by the logits.
    square = satbench.evaluate(model, "fashion-mnist", attacks="square(queries=200)", **IMAGES)
    print(f"200 queries each: {square.surviving()} of {square.n} survive")

    # With a gradient in place of the one that is 0 (BPDA): the layer as if it were not there.
    bpda = satbench.evaluate(
        model, "fashion-mnist", attacks="pgd-20", bpda={"round": "identity"}, **IMAGES
    )
    print(f"PGD-20 with BPDA: {bpda.surviving()} of {bpda.n} survive")


if __name__ == "__main__":
    main()
