"""Find masked gradients: a network looks robust under PGD, and other attacks show that it is not.

The network is a shipped one that was trained without an adversary, behind a layer that rounds the
pixels.  The gradient of that layer is 0, so PGD finds no direction.  Takes a few seconds.
"""

import satbench
from satbench.model_zoo.masked import rounding

IMAGES = {"eps": 0.1, "n_examples": 50, "name": "rounding"}


def main() -> None:
    """Evaluate the network with PGD, and then as its flag advises."""
    model = rounding()
    naive = satbench.evaluate(model, "fashion-mnist", attacks="pgd-20", **IMAGES)
    print(f"PGD-20:          {naive.surviving()} of {naive.n} survive")
    for flag in naive.diagnosis.flags:
        print(f"  flag {flag}")

    # Without gradients: a random search that reads only the logits.
    square = satbench.evaluate(model, "fashion-mnist", attacks="square(queries=200)", **IMAGES)
    print(f"200 queries each: {square.surviving()} of {square.n} survive")

    # With another gradient instead of 0 (BPDA): backward treats the layer as the identity.
    bpda = satbench.evaluate(
        model, "fashion-mnist", attacks="pgd-20", bpda={"round": "identity"}, **IMAGES
    )
    print(f"PGD-20 with BPDA: {bpda.surviving()} of {bpda.n} survive")


if __name__ == "__main__":
    main()
