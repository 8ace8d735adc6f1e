"""What certification and certified training cost, for ReLU and smooth activations, in CPU seconds.

First the steps of training: a batch of 128 images by each recipe.  Then the bounds of one image by
CROWN, on shipped nets: the share of neurons that need lines of their own, and the time.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from satbench.certification.bounding.crown import crown_bounds, is_free
from satbench.certification.bounding.region import Region
from satbench.certification.network import prover_of
from satbench.evaluation.config import first_examples
from satbench.models import load_model, request_model
from satbench.networks.build import build_network
from satbench.recipes import load_recipe
from satbench.training.ranks import ALONE
from satbench.training.update.step import Stepper

RECIPES = ("fmnist-standard", "fmnist-pgd2", "fmnist-ibp", "fmnist-crown-ibp")
ACTIVATIONS = ("relu", "silu")
MODELS = ("fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0")
STEPS_OF_AN_EPOCH = 460


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--steps", type=int, default=3, help="Training steps to time. Default: 3.")
    made.add_argument("--eps", type=float, default=0.002, help="Radius of CROWN. Default: 0.002.")
    given = made.parse_args(arguments)
    torch.set_num_threads(1)
    print("| recipe | activation | CPU seconds an epoch |\n| --- | --- | ---: |")
    for recipe in RECIPES:
        for activation in ACTIVATIONS:
            seconds = step_seconds(recipe, activation, given.steps) * STEPS_OF_AN_EPOCH
            print(f"| {recipe} | {activation} | {seconds:.0f} |", flush=True)
    print("\n| model | neurons | with a choice of lines | CPU seconds an image |")
    print("| --- | ---: | ---: | ---: |")
    for name in MODELS:
        neurons, free, seconds = bound_seconds(name, given.eps)
        print(
            f"| {name} | {neurons:,} | {100 * free / neurons:.0f} % | {seconds:.1f} |", flush=True
        )


def step_seconds(recipe: str, activation: str, steps: int) -> float:
    """Return the CPU time of one training step after a first one, halfway up the ramp of eps."""
    config = load_recipe(recipe, activation=activation)
    torch.manual_seed(0)
    network = build_network(config.architecture, activation, 10)
    whole = STEPS_OF_AN_EPOCH * config.epochs
    stepper = Stepper(config, network, torch.device("cpu"), ALONE, steps=whole)
    x, y = torch.rand(config.batch_size, 1, 28, 28), torch.randint(0, 10, (config.batch_size,))
    stepper(x, y, 1, 0, 0.01)
    began = time.process_time()
    for step in range(steps):
        stepper(x, y, 1, 1 + step, 0.01)
    return (time.process_time() - began) / steps


def bound_seconds(name: str, eps: float) -> tuple[int, int, float]:
    """Return a net's neurons, those with a choice of lines at one image, and the time of CROWN."""
    images = first_examples("fashion-mnist", 1)
    prover = prover_of(load_model(request_model(name), 10).module, images.shape)
    x = torch.from_numpy(images.pixels(np.array([0]))).double()
    began = time.process_time()
    with torch.no_grad():
        bounds = crown_bounds(prover.program, Region.around(x, "linf", eps), prover.rounding)
    seconds = time.process_time() - began
    free = sum(int(is_free(bounds, site).sum()) for site in prover.program.sites)
    return prover.program.neurons, free, seconds


if __name__ == "__main__":
    main()
