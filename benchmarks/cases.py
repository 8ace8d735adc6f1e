"""What is attacked: a small and a large net, each where most images survive and where few do.

The large net is the ResNet-18 that the package pyautoattack brings along, with Foolbox's twenty
CIFAR-10 images.  It is not robust at 8/255; at 0.25/255 most images survive, and that stands in
for a robust model: the passes are those of one.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.engine.judge import predict
from satbench.models import load_model, request_model


@dataclass(frozen=True)
class Case:
    """A model under a threat: `make` builds it afresh, as its user would load it."""

    net: str
    kind: str
    threat: Threat
    make: Callable[[], nn.Module]
    images: Callable[[], Dataset]

    @property
    def name(self) -> str:
        """What people and the command line call it."""
        return f"{self.net}-{self.kind}"

    def correct(self, n: int) -> Dataset:
        """Return the first `n` images that the model gets right, so that all are attacked."""
        images, model = self.images(), self.make()
        x = torch.from_numpy(images.pixels(np.arange(min(len(images), 4 * n))))
        right = (predict(model, x).numpy() == images.labels[: len(x)]).nonzero()[0][:n]
        return Dataset(
            images.name, images.split, images.images[right], images.labels[right], images.classes
        )


def _shipped(name: str) -> Callable[[], nn.Module]:
    return lambda: load_model(request_model(name), classes=10).module


def _fashion() -> Dataset:
    return load_dataset("fashion-mnist", "test", 2000)


def _resnet() -> nn.Module:
    import pyautoattack

    folder = Path(pyautoattack.__file__).parent / "examples"
    spec = importlib.util.spec_from_file_location("resnet", folder / "resnet.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"no resnet.py in {folder}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: nn.Module = module.ResNet18()
    weights = torch.load(folder / "model_test.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    return model.eval()


def _cifar() -> Dataset:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import foolbox

    paths = sorted((Path(foolbox.__file__).parent / "data").glob("cifar10_*.png"))
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    labels = np.array([int(path.stem.split("_")[2]) for path in paths], np.int64)
    return Dataset("cifar10", "test", pixels.transpose(0, 3, 1, 2).copy(), labels, 10)


CASES = (
    Case(
        "small", "robust", Threat.parse("linf:0.1"), _shipped("fmnist-sat-tiny-relu-s0"), _fashion
    ),
    Case(
        "small",
        "weak",
        Threat.parse("linf:0.1"),
        _shipped("fmnist-standard-tiny-relu-s0"),
        _fashion,
    ),
    Case("large", "robust", Threat.parse("linf:1/1020"), _resnet, _cifar),
    Case("large", "weak", Threat.parse("linf:8/255"), _resnet, _cifar),
)
