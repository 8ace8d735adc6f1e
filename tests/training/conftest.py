"""What the tests of training share: a toy data set, a config for it, and a power cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from satbench.data import Dataset
from satbench.recipes import TrainConfig


@pytest.fixture(scope="session")
def toy() -> Dataset:
    """Return 40 images of noise in 3 classes, told apart by their brightness."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    images = rng.integers(0, 86, (40, 1, 8, 8)) + 80 * labels.reshape(-1, 1, 1, 1)
    return Dataset("toy", "train", images.astype(np.uint8), labels, 3)


@pytest.fixture(scope="session")
def config() -> TrainConfig:
    """Return a config of two epochs of four steps on the toy data."""
    return TrainConfig(
        recipe="toy",
        dataset="fashion-mnist",
        architecture="tiny(width=2)",
        activation="silu",
        threat="linf:0.1",
        attack="pgd(steps=1,step=1.25*eps,restarts=1,start=uniform,keep=last)",
        epochs=2,
        batch_size=8,
        learning_rate=0.1,
        weight_decay=5e-4,
        attack_mode="train",
        held_out=8,
        warm_up=0.25,
    )


class PowerCutError(Exception):
    """The power is off."""


@pytest.fixture(scope="session")
def power_cut() -> type[Exception]:
    """Return the error of a power cut."""
    return PowerCutError


@pytest.fixture(scope="session")
def cut_at() -> Callable[[int, int], Callable[[int, int, int], None]]:
    """Return a function from epoch and step to an `on_step` that cuts the power there."""

    def make(epoch: int, step: int) -> Callable[[int, int, int], None]:
        def on_step(now: int, done: int, steps: int) -> None:
            if (now, done) == (epoch, step):
                raise PowerCutError

        return on_step

    return make
