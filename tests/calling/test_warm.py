"""Evaluation and training start with a warm-up that makes activations faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from in_memory import Journal, Quiet, run_suite
from torch import nn

from satbench.attacks.suites.suite import parse_suite
from satbench.calling.warm import warm_cpu
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.recipes import load_recipe
from satbench.training.loop import train


def test_an_evaluation_warms_the_process(
    mean_model: nn.Module, grey_images: Callable[..., Dataset]
) -> None:
    warm_cpu.cache_clear()
    suite, linf = parse_suite(["pgd-1"]), Threat.parse("linf:0.1")
    run_suite(mean_model, grey_images((0.9,), (1,)), linf, suite, 0, 1, Journal(), Quiet())

    assert warm_cpu.cache_info().currsize == 1


def test_training_warms_the_process(tmp_path: Path) -> None:
    warm_cpu.cache_clear()
    recipe = load_recipe("fmnist-standard", activation="elu", epochs=1, batch_size=8, held_out=8)
    pixels = np.zeros((16, 1, 28, 28), np.uint8)
    data = Dataset("made", "train", pixels, np.arange(16, dtype=np.int64) % 10, 10)
    train(replace(recipe), data, tmp_path, torch.device("cpu"))

    assert warm_cpu.cache_info().currsize == 1
