"""The functions `satbench.load_model` and `satbench.load_dataset`."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.data import load_dataset as load_named
from satbench.evaluation.arguments import check_arguments
from satbench.models import FileKeywords, FileOptions, request_model
from satbench.models import load_model as load_requested

_CLASSES = {"cifar10": 10, "cifar100": 100, "fashion-mnist": 10, "imagenet": 1000}


class LabelledImages(NamedTuple):
    """Images `x` (N, C, H, W), float32 in [0, 1], and labels `y` (N,) int64.

    >>> import satbench
    >>> satbench.load_dataset("fashion-mnist", n_examples=20)
    LabelledImages(20 images of 1×28×28, labels of 10 classes)
    """

    x: Tensor
    y: Tensor

    def __repr__(self) -> str:
        """Return one line instead of all pixels."""
        shape = "×".join(map(str, self.x.shape[1:]))
        classes = len(set(self.y.tolist()))
        return f"LabelledImages({len(self.y):,} images of {shape}, labels of {classes} classes)"


def load_model(name: str, *, classes: int | None = None, **file: Unpack[FileKeywords]) -> nn.Module:
    """Load a model by name, and return it in eval mode, on the CPU.

    `name` is one that `satbench eval --model` takes: a model of the zoo (`satbench models`), a
    card, the folder of a run, a file of weights, `robustbench:…`, `torchvision:…`, `timm:…`,
    `hf:…`, or `package.module:factory`.  The model maps images (B, C, H, W), float32 in [0, 1], to
    logits (B, K); it includes the normalisation.  `classes` is K, if neither name nor file says it;
    `file` describes a file of weights, as for `satbench.evaluate`.  Raises SatbenchError for an
    unknown name (with the nearest known one), and for weights that are missing or do not fit.

    >>> import satbench, torch
    >>> model = satbench.load_model("fmnist-sat-tiny-silu-s0")
    >>> model(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    check_arguments(model_name=name, n_classes=classes)
    if unknown := file.keys() - FileKeywords.__annotations__:
        raise TypeError(f"load_model() got an unexpected keyword argument {min(unknown)!r}")
    request = request_model(name, **vars(FileOptions(**file)))
    known = classes or request.classes or _CLASSES.get((request.dataset or "").partition("@")[0])
    loaded = load_requested(request, known or 2, exactly=known is not None)
    return loaded.module.eval()


def load_dataset(
    name: str,
    n_examples: int | None = None,
    *,
    split: str = "test",
    data_dir: str | PathLike[str] | None = None,
) -> LabelledImages:
    """Load the first images of a data set, with their labels, as tensors.

    `name` is one that `satbench eval --dataset` takes, such as `"cifar10"`, `"imagefolder:PATH"` or
    `"arrays:x.npy,y.npy"`.  `split` is `"test"` or `"train"`; `n_examples=None` loads all of it.
    Files are looked up in `data_dir` and downloaded to it.  Raises SatbenchError for an unknown
    name, and for files that are missing or corrupt.

    >>> import satbench
    >>> x, y = satbench.load_dataset("fashion-mnist", 100)
    >>> x.shape, y.shape
    (torch.Size([100, 1, 28, 28]), torch.Size([100]))
    """
    check_arguments(dataset=name, n_examples=n_examples)
    if split not in ("test", "train"):
        raise SatbenchError(f"expected the split 'test' or 'train', got {split!r}")
    found = load_named(
        name,
        "train" if split == "train" else "test",
        None if n_examples is None else int(n_examples),
        None if data_dir is None else Path(data_dir),
    )
    pixels = found.pixels(np.arange(len(found)))
    return LabelledImages(torch.from_numpy(pixels), torch.from_numpy(found.labels.copy()))
