"""From what a user names to a model: zoo name, card, file of weights, other people's zoos, code.

A new source is one module with a frozen dataclass (see `_loaded.Source`) and one line in SOURCES.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.core.registry import Entry, Registry
from satbench.model_zoo.card import Card, find_card, read_card, user_names, zoo_names
from satbench.models._factory import load_factory, load_plugin, make_module
from satbench.models._files import load_file
from satbench.models._loaded import LoadedModel, Source, describe_module
from satbench.models._zoo import load_card

SOURCES = Registry(
    "source",
    (
        Entry(
            "robustbench",
            "satbench.models._robustbench:RobustBench",
            "robustbench:cifar10/Linf/Carmon2019Unlabeled, an entry of RobustBench's model zoo",
            "Croce et al., 2021, arXiv:2010.09670",
        ),
        Entry(
            "torchvision",
            "satbench.models._torchvision:Torchvision",
            "torchvision:resnet50@IMAGENET1K_V2, a classifier with the weights named",
            "https://pytorch.org/vision/stable/models.html",
        ),
        Entry(
            "timm",
            "satbench.models._timm:Timm",
            "timm:resnet50.a1_in1k, a pretrained model of timm",
            "Wightman, 2019, https://github.com/huggingface/pytorch-image-models",
        ),
        Entry(
            "hf",
            "satbench.models._hugging_face:HuggingFace",
            "hf:ORG/REPO[@REVISION], safetensors with a card of satbench or timm's config.json",
            "https://huggingface.co/models",
        ),
        Entry(
            "torchhub",
            "satbench.models._torchhub:TorchHub",
            "torchhub:OWNER/REPO@REF:ENTRY, code of a GitHub repository that you trust",
            "https://pytorch.org/hub",
        ),
    ),
)

MODELS = Registry("model")
"""Models by the names that plug-ins give them, in the group `satbench.models`."""

_PLUG_IN = "plug-in"
_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".th")


@dataclass(frozen=True)
class ModelRequest:
    """What the user asked for, checked as far as it can be without torch.

    `text` is what the user wrote.  `card` is there for a zoo name or the path of a card, and
    `weights` is then where its weights belong; `source` is there for `PREFIX:NAME`.
    """

    text: str
    kind: str
    card: Card | None = None
    architecture: str | None = None
    activation: str | None = None
    weights: Path | None = None
    source: Source | None = None

    @property
    def dataset(self) -> str | None:
        """The name of the data set that the model was made for, if that is known."""
        if self.card:
            return self.card.training.dataset if self.card.training else None
        return (self.source.dataset or None) if self.source else None

    @property
    def classes(self) -> int | None:
        """How many classes the model tells apart, if its card says."""
        return self.card.classes if self.card else None

    @property
    def threat(self) -> str | None:
        """The threat model that the model was made for, such as `linf:8/255`, if known."""
        if self.card:
            return self.card.training.threat if self.card.training else None
        return (self.source.threat or None) if self.source else None


def has_a_name(source: str) -> bool:
    """Whether a model of this source (see `ModelInfo.source`) can be had again by its name."""
    return source in ("zoo", "user-zoo", "factory", *SOURCES.names()) or source.startswith(_PLUG_IN)


def is_of_own_code(source: str) -> bool:
    """Whether the code of a model of this source is its user's, so that weights do not name it."""
    return source in ("factory", "python", "torchhub") or source.startswith(_PLUG_IN)


def request_model(
    text: str, architecture: str | None = None, activation: str | None = None
) -> ModelRequest:
    """Check what the user named.  Imports no torch.

    Raises SatbenchError: an unknown name (with the nearest), a missing file, a weights file
    without `--arch` and `--activation`, a source whose package is not installed.
    """
    if text in zoo_names() or text in user_names():
        card, weights = find_card(text)
        kind = "zoo" if text in zoo_names() else "user-zoo"
        return ModelRequest(text, kind, card, weights=weights)
    prefix, colon, name = text.partition(":")
    if colon and name and prefix in SOURCES:
        source = cast(type[Source], SOURCES[prefix].load()).parse(text)
        return ModelRequest(text, prefix, source=source)
    path = Path(text)
    if path.suffix == ".json":
        card = read_card(path)
        return ModelRequest(text, "file", card, weights=path.parent / card.weights)
    path = Path(text.partition("#")[0])
    if path.suffix in _FILES:
        return _request_file(text, path, architecture, activation)
    if text in MODELS:
        return ModelRequest(text, "plug-in")
    if colon and prefix and name and "/" not in prefix:
        return ModelRequest(text, "factory")
    raise UnknownNameError("model", text, [*zoo_names(), *user_names(), *MODELS.names()])


def load_model(request: ModelRequest, classes: int) -> LoadedModel:
    """Build the model and load its weights; `classes` is the data set's count.

    Raises SatbenchError: weights that are missing, corrupt, of another digest than the card says
    or that do not fit, a factory that cannot be imported, fails, or returns no module.
    """
    if request.card and request.weights:
        return load_card(request.card, request.weights, request.kind)
    if request.source:
        return request.source.load(classes)
    if request.kind == "plug-in":
        return load_plugin(MODELS[request.text])
    if request.architecture and request.activation:
        return load_file(request.text, request.architecture, request.activation, classes)
    return load_factory(request.text)


def _request_file(
    text: str, path: Path, architecture: str | None, activation: str | None
) -> ModelRequest:
    if not os.path.isfile(path):
        raise SatbenchError(f"expected weights at {path}, which is missing")
    if architecture is None or activation is None:
        raise SatbenchError(
            f"weights alone do not say what they belong to: give --arch and --activation "
            f"with {text}, or name the card beside it"
        )
    return ModelRequest(text, "file", None, architecture, activation)


__all__ = [
    "MODELS",
    "SOURCES",
    "LoadedModel",
    "ModelRequest",
    "Source",
    "describe_module",
    "has_a_name",
    "is_of_own_code",
    "load_model",
    "make_module",
    "request_model",
]
