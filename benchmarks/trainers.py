"""One epoch of PGD-1 adversarial training by six loops: the same nets, images and attack.

The attack takes one step of eps from a uniform start, with batch-norm in eval mode.  The update is
SGD with momentum on the adversarial images.  The other loops are written as users of these packages
write them.  All keep their net from call to call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import ToTensor

from satbench.calling.warm import warm_cpu
from satbench.core.noise import generator_for
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.recipes import TrainConfig
from satbench.training.images.batches import batches_of
from satbench.training.loop import fresh_model
from satbench.training.ranks import ALONE
from satbench.training.update.step import Stepper

PACKAGES = ("torchattacks",)
CPU = torch.device("cpu")

Epoch = Callable[[], float]
"""A function that trains on every image once and returns the mean loss over the batches."""


def satbench(config: TrainConfig, data: Dataset) -> Epoch:
    """Return satbench's own steps, as in `satbench train`."""
    warm_cpu()
    stepper = Stepper(config, fresh_model(config, data.classes), CPU, ALONE)
    batches = batches_of(data, config, CPU)
    done = 0

    def epoch() -> float:
        nonlocal done
        order = generator_for(config.seed, "order", done).permutation(len(data))
        rows = list(order.reshape(-1, config.batch_size))
        totals = torch.zeros(2, dtype=torch.float64)
        for step, (x, y) in enumerate(batches.train(done, rows)):
            totals += stepper(x, y, done, step, config.learning_rate)
        done += 1
        return float(totals[0]) / len(rows)

    return epoch


def satbench_bfloat16(config: TrainConfig, data: Dataset) -> Epoch:
    """Return the same with passes in bfloat16, the weights in float32."""
    return satbench(replace(config, precision="bfloat16"), data)


def torchattacks(config: TrainConfig, data: Dataset) -> Epoch:
    """Return the usual loop with torchattacks' PGD and images through torchvision's ToTensor."""
    return _with_torchattacks(config, data, Pictures(data))


def torchattacks_tensors(config: TrainConfig, data: Dataset) -> Epoch:
    """Return the same with all images in one tensor of floats."""
    x = torch.from_numpy(data.pixels(np.arange(len(data))))
    return _with_torchattacks(config, data, TensorDataset(x, torch.from_numpy(data.labels.copy())))


def mair_style(config: TrainConfig, data: Dataset) -> Epoch:
    """Return a loop like MAIR's trainers: its own PGD, a loss per image, a log per step."""
    model, optimiser, eps = *_plain(config, data), Threat.parse(config.threat).radius
    loader = DataLoader(Pictures(data), config.batch_size, shuffle=True)

    def attacked(x: Tensor, y: Tensor) -> Tensor:
        model.eval()
        x_adv = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1).detach()
        x_adv.requires_grad_()
        loss = nn.CrossEntropyLoss()(model(x_adv), y)
        (grad,) = torch.autograd.grad(loss, x_adv)
        delta = (x_adv.detach() + eps * grad.sign() - x).clamp(-eps, eps)
        model.train()
        return (x + delta).clamp(0, 1).detach()

    def epoch() -> float:
        records = []
        for x, y in loader:
            model.train()
            losses = nn.CrossEntropyLoss(reduction="none")(model(attacked(x, y)), y)
            records.append(losses.mean().item())
            optimiser.zero_grad()
            losses.mean().backward()
            optimiser.step()
        return float(np.mean(records))

    return epoch


def fast_at_style(config: TrainConfig, data: Dataset) -> Epoch:
    """Return a loop in the style of Wong et al., 2020, arXiv:2001.03994 (in float32).

    The attack's gradient comes from `backward`, which also computes those of the weights.
    """
    model, optimiser, eps = *_plain(config, data), Threat.parse(config.threat).radius
    loader = DataLoader(Pictures(data), config.batch_size, shuffle=True)
    loss_of = nn.CrossEntropyLoss()

    def epoch() -> float:
        total = 0.0
        for x, y in loader:
            delta = torch.zeros_like(x).uniform_(-eps, eps).requires_grad_()
            model.eval()
            loss_of(model((x + delta).clamp(0, 1)), y).backward()
            assert delta.grad is not None
            delta = (delta + eps * delta.grad.sign()).clamp(-eps, eps).detach()
            model.train()
            loss = loss_of(model((x + delta).clamp(0, 1)), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        return total / len(loader)

    return epoch


BASE = "satbench"
TRAINERS: dict[str, Callable[[TrainConfig, Dataset], Epoch]] = {
    BASE: satbench,
    "satbench, bfloat16": satbench_bfloat16,
    "torchattacks": torchattacks,
    "torchattacks, tensors": torchattacks_tensors,
    "MAIR-style": mair_style,
    "Fast-AT-style": fast_at_style,
}


@dataclass(frozen=True)
class Pictures(TorchDataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets return them: one at a time, through PIL and ToTensor."""

    data: Dataset

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        pixels = self.data.images[row].transpose(1, 2, 0)
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return ToTensor()(picture), int(self.data.labels[row])


def _plain(config: TrainConfig, data: Dataset) -> tuple[nn.Module, torch.optim.SGD]:
    model = fresh_model(config, data.classes).train()
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )
    return model, optimiser


def _with_torchattacks(
    config: TrainConfig, data: Dataset, images: TorchDataset[tuple[Tensor, int]]
) -> Epoch:
    import torchattacks as package

    model, optimiser = _plain(config, data)
    eps = Threat.parse(config.threat).radius
    attack = package.PGD(model, eps=eps, alpha=eps, steps=1, random_start=True)
    loss_of = nn.CrossEntropyLoss()
    loader = DataLoader(images, config.batch_size, shuffle=True)

    def epoch() -> float:
        model.train()
        total = 0.0
        for x, y in loader:
            x_adv = attack(x, y)  # in eval mode; the package restores train mode
            loss = loss_of(model(x_adv), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
        return total / len(loader)

    return epoch
