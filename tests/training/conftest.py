"""Shared fixtures of the training tests: a toy data set, a config for it, and a power cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satbench.data import Dataset, ImageTree, ResizeCrop, open_tree
from satbench.recipes import TrainConfig


@pytest.fixture(scope="session")
def toy() -> Dataset:
    """Return 40 images of noise in 3 classes, which differ in brightness."""
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


@pytest.fixture
def tree(tmp_path: Path) -> ImageTree:
    """Write 2 classes of 5 images of noise, and open them at 16 × 16."""
    rng, folder = np.random.default_rng(0), tmp_path / "tree"
    for kind in ("cat", "dog"):
        (folder / kind).mkdir(parents=True)
        for k in range(5):
            pixels = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{k}.png")
    return open_tree(f"imagefolder:{folder}", ResizeCrop.centre(16), 0)


@pytest.fixture
def resized(config: TrainConfig) -> TrainConfig:
    """Return a config of random crops from a folder."""
    return replace(config, dataset="imagefolder:x", augment="resized-crop-flip", crop=16)


@pytest.fixture
def from_folder(resized: TrainConfig) -> TrainConfig:
    """Return a config that trains a small colour net on the tree with all changes of images."""
    return replace(
        resized,
        architecture="wide-resnet(depth=10,widen=1)",
        batch_size=4,
        held_out=2,
        crop_schedule="1:12,2:16",
        colour_jitter=0.4,
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
