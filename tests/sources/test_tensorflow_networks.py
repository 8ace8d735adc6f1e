"""Networks that TensorFlow built and saved give the same logits when they are read without it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from satbench.models import load_model, request_model
from satbench.models.tensorflow_import import ImportRequest, import_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("tensorflow") is None, reason="needs TensorFlow: pip install 'satbench[tf1]'"
    ),
]


def run(network: str, size: int, prefix: Path, *more: str) -> tuple[Tensor, Tensor]:
    """Let TensorFlow write a checkpoint; -> its images, (N, 3, S, S) in [0, 1], and its logits."""
    program = Path(__file__).with_name("tensorflow_networks.py")
    command = [sys.executable, str(program), network, str(size), str(prefix), *more]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(f"{prefix}.npz") as saved:
        pixels, logits = (torch.from_numpy(saved[name]) for name in ("pixels", "logits"))
    return pixels.permute(0, 3, 1, 2) / 255, logits


def answers(card: Path, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = load_model(request_model(str(card)), 1000).module(x)
    return logits


@pytest.mark.parametrize(
    ("network", "architecture", "activation", "size"),
    [
        ("resnet(activation=silu)", "resnet(depth=50)", "silu", 224),
        ("resnet(activation=smooth-relu)", "resnet(depth=50)", "smooth-relu", 224),
        ("resnet(activation=gelu)", "resnet(depth=50)", "gelu", 97),
        ("resnet(activation=softplus)", "resnet(depth=50)", "softplus", 96),
        ("resnet(activation=elu)", "resnet(depth=50)", "elu", 96),
        ("resnet(activation=mish)", "resnet(depth=50)", "mish", 96),
        ("resnet(activation=relu)", "resnet(depth=50)", "relu", 96),
        ("resnet(groups=32,width=4)", "resnext(depth=50)", "silu", 97),
        ("efficientnet-b0", "efficientnet", "silu", 224),
        ("efficientnet-b0", "efficientnet", "silu", 225),
    ],
)
def test_the_logits_are_those_of_tensorflow(
    network: str, architecture: str, activation: str, size: int, tmp_path: Path
) -> None:
    x, expected = run(network, size, tmp_path / "net")
    card = import_checkpoint(ImportRequest(tmp_path / "net", architecture, activation), tmp_path)
    got = answers(card, x.flip(1) if "resne" in architecture else x)  # it was trained on BGR images

    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_the_moving_averages_are_those_of_tensorflow(tmp_path: Path) -> None:
    x, expected = run("efficientnet-b0", 64, tmp_path / "b0", "averaged")
    logits = {}
    for averaged in (True, False):
        wanted = ImportRequest(tmp_path / "b0", "efficientnet", "silu", averaged=averaged)
        logits[averaged] = answers(import_checkpoint(wanted, tmp_path / str(averaged)), x)

    torch.testing.assert_close(logits[True], expected, rtol=0, atol=1e-4)
    assert (logits[False] - expected).abs().max() > 0.1
