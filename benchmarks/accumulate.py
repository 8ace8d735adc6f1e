"""The difference between training with a batch in parts and with the whole batch.

Two steps of `fmnist-sat` from the same weights on the same images: the distance of the weights,
with batch-norm, whose statistics are those of a part, and in the same net without it.  Then two
epochs of 9,000 images with batch-norm: the accuracies on 1,000 other images.  The images are those
of Fashion-MNIST's test set, because it ships with satbench; no model is judged here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from harness import finish, parser, short
from tables import accumulate_table

from satbench.data import Dataset, load_dataset
from satbench.networks.build import build_network
from satbench.recipes import load_recipe
from satbench.training.loop import Trained, train
from satbench.training.own import Own

FEW, MANY = 50, 1000
"""Images held out of the two steps and of the two epochs."""

Network = Callable[[], nn.Module]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("--batch", type=int, default=128)
    made.add_argument("--steps", type=int, default=2)
    made.add_argument("--parts", type=int, nargs="+", default=[2, 8])
    made.add_argument("--epochs", type=int, default=2)
    options = made.parse_args(arguments)
    torch.set_num_threads(1)
    few = load_dataset("fashion-mnist", "test", options.batch * options.steps + FEW)
    rows: list[dict[str, Any]] = []
    for name, network in (("batch-norm", with_norm), ("the same net without it", without_norm)):
        whole = weights(trained(network(), few, options.batch, 1, 1, FEW))
        for parts in options.parts:
            other = weights(trained(network(), few, options.batch, parts, 1, FEW))
            far = [other[key] - whole[key] for key in whole]
            rows.append(
                {
                    "net": name,
                    "parts": parts,
                    "relative": short(length(far) / length(list(whole.values()))),
                    "greatest": short(max(float(each.abs().max()) for each in far)),
                }
            )
    every = load_dataset("fashion-mnist", "test")
    accuracies = []
    for parts in (1, *options.parts):
        last = trained(with_norm(), every, options.batch, parts, options.epochs, MANY).history[-1]
        accuracy = {"clean": last.held_out_clean, "pgd10": last.held_out_pgd10}
        accuracies.append({"parts": parts, **accuracy})
    shown = {"batch": options.batch, "steps": options.steps, "epochs": options.epochs}
    print(accumulate_table(finish(rows, options.json, **shown, accuracies=accuracies)))


def with_norm() -> nn.Module:
    """Return the net of the recipe, always with the same weights."""
    config = load_recipe("fmnist-sat")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(config.architecture, config.activation, 10)


def without_norm() -> nn.Module:
    """Return the same net, without its batch-norm."""
    network = with_norm()
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.Identity())
    return network


def trained(
    network: nn.Module, data: Dataset, batch: int, parts: int, epochs: int, held_out: int
) -> Trained:
    """Train by the recipe with each batch in `parts` parts."""
    config = load_recipe("fmnist-sat", batch_size=batch, held_out=held_out, epochs=epochs)
    with TemporaryDirectory() as folder:
        return train(
            replace(config, accumulate=parts),
            *(data, Path(folder), torch.device("cpu")),
            own=Own(network),
        )


def weights(done: Trained) -> dict[str, Tensor]:
    """Return the parameters in float64."""
    return {name: tensor.detach().double() for name, tensor in done.model.named_parameters()}


def length(tensors: list[Tensor]) -> float:
    """Return the L2 norm of all numbers together."""
    return float(torch.cat([each.flatten() for each in tensors]).norm())


if __name__ == "__main__":
    main()
