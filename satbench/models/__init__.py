"""From what a user names to a model: zoo name, card, file of weights, other people's zoos, code.

A new source is one module with a frozen dataclass (see `_loaded.ModelSource`) and one line in
SOURCES.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from satbench.core.errors import AssumptionWarning, SatbenchError, UnknownNameError
from satbench.core.registry import Entry, Registry
from satbench.model_zoo.card import Card, find_card, read_card, user_names, zoo_names
from satbench.model_zoo.presets import find_preset
from satbench.models._factory import load_factory, load_plugin, make_module
from satbench.models._file_options import FileKeywords, FileOptions
from satbench.models._loaded import LoadedModel, ModelSource, describe_module
from satbench.models._local import Told
from satbench.models.carded import check_agrees, load_card
from satbench.models.weight_files import card_of_file, card_of_run, load_file
from satbench.records.flags import flags_from_assumed

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
            "torchvision:resnet50@IMAGENET1K_V2, a classifier with the weights named; or @FILE",
            "https://pytorch.org/vision/stable/models.html",
        ),
        Entry(
            "timm",
            "satbench.models._timm:Timm",
            "timm:resnet50.a1_in1k, a pretrained model of timm; or timm:NAME@FILE",
            "Wightman, 2019, https://github.com/huggingface/pytorch-image-models",
        ),
        Entry(
            "hf",
            "satbench.models._hugging_face:HuggingFace",
            "hf:ORG/REPO[@REVISION] or hf:FOLDER: safetensors with a config.json or a card",
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
FILE_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".th")


@dataclass(frozen=True)
class ModelRequest:
    """What the user asked for, checked as far as it can be without torch.

    `text` is what the user wrote.  `card` is there for a zoo name, the path of a card or of a run,
    and a file of weights that is known; `weights` is then where its weights belong; `source` is
    there for `PREFIX:NAME`.  `options` say how a file of weights is to be read.
    """

    text: str
    kind: str
    card: Card | None = None
    weights: Path | None = None
    source: ModelSource | None = None
    options: FileOptions = field(default_factory=FileOptions)

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
    text: str,
    architecture: str | None = None,
    activation: str | None = None,
    preset: str | None = None,
    normalize: str | None = None,
    keys: str = "",
    drop_keys: Sequence[str] = (),
) -> ModelRequest:
    """Check what the user named.  Imports no torch, but to find out what a pickle holds.

    The fields of `FileOptions` say how a file of weights is to be read.  Raises SatbenchError: an
    unknown name (with the nearest), a missing file, a file of weights that neither says nor is told
    what it belongs to, options for what is no file, a source whose package is not installed.
    """
    options = FileOptions(architecture, activation, preset, normalize, keys, drop_keys)
    if options.preset:
        find_preset(options.preset)
    request = _requested(text, options)
    if options.given and isinstance(request.source, Told) and request.source.file:
        return replace(request, source=request.source.told(options))
    told = [one for one in options.given if request.card is None or one not in _OF_A_CARD]
    if request.kind != _FOREIGN and told:
        raise SatbenchError(
            f"{' and '.join(told)}: for files of weights that do not say themselves what they are, "
            f"and {text} is none"
        )
    return request


def _requested(text: str, options: FileOptions) -> ModelRequest:
    if text in zoo_names() or text in user_names():
        card, weights = find_card(text)
        kind = "zoo" if text in zoo_names() else "user-zoo"
        return ModelRequest(text, kind, card, weights, options=options)
    prefix, colon, name = text.partition(":")
    if colon and name and prefix in SOURCES:
        source = cast(type[ModelSource], SOURCES[prefix].load()).parse(text)
        return ModelRequest(text, prefix, source=source)
    path = Path(text)
    if path.suffix == ".json":
        card = read_card(path)
        return ModelRequest(text, "file", card, path.parent / card.weights, options=options)
    path = Path(text.partition("#")[0])
    if path.suffix in FILE_ENDINGS:
        return _request_file(text, path, options)
    if text in MODELS:
        return ModelRequest(text, "plug-in")
    if text and os.path.isdir(path):
        card, weights = card_of_run(path)
        return ModelRequest(text, "file", card, weights, options=options)
    if os.path.isfile(path) or (options.given and not colon):
        return _request_file(text, path, options)
    if colon and prefix and name and "/" not in prefix:
        return ModelRequest(text, "factory")
    if "/" in text and not colon:
        raise SatbenchError(f"expected a model at {text}, and there is neither a file nor a folder")
    raise UnknownNameError("model", text, [*zoo_names(), *user_names(), *MODELS.names()])


def load_model(request: ModelRequest, classes: int, exactly: bool = True) -> LoadedModel:
    """Build the model and load its weights; `classes` is the data set's count.

    Where the data set may have more classes than its labels show, `exactly` is false, and a file of
    weights says itself how many there are.  Raises SatbenchError: weights that are missing,
    corrupt, of another digest than the card says, of another network than was said, or that do not
    fit, a factory that cannot be imported, fails, or returns no module.
    """
    options = request.options
    if request.card and request.weights:
        check_agrees(request.card, options, request.text)
        return load_card(
            request.card, request.weights, request.kind, request.text.partition("#")[2]
        )
    if request.source:
        loaded = request.source.load(classes)
        _warn_of_assumed(request.text, loaded)
        return loaded
    if request.kind == "plug-in":
        return load_plugin(MODELS[request.text])
    if request.kind == _FOREIGN:
        loaded = load_file(request.text, options, classes, exactly)
        _warn_of_assumed(request.text, loaded)
        return loaded
    return load_factory(request.text)


def _warn_of_assumed(text: str, loaded: LoadedModel) -> None:
    for flag in flags_from_assumed(loaded.info.assumed, 0):
        warnings.warn(f"{text}: {flag.cause}; {flag.run}", AssumptionWarning, stacklevel=3)


_FOREIGN = "file of weights"
_OF_A_CARD = ("--arch", "--activation", "--preset")  # which are compared with it


def _request_file(text: str, path: Path, options: FileOptions) -> ModelRequest:
    if not os.path.isfile(path):
        raise SatbenchError(f"expected weights at {path}, which is missing")
    told = options.preset or (options.architecture and options.activation)
    if card := card_of_file(text, told=bool(told)):
        return ModelRequest(text, "file", card, path, options=options)
    if not told:
        raise SatbenchError(
            f"weights alone do not say what they belong to: give --arch and --activation with "
            f"{text}, a --preset such as trades, or the name of the card beside it"
        )
    return ModelRequest(text, _FOREIGN, options=options)


__all__ = [
    "MODELS",
    "SOURCES",
    "FileKeywords",
    "FileOptions",
    "LoadedModel",
    "ModelRequest",
    "ModelSource",
    "describe_module",
    "has_a_name",
    "is_of_own_code",
    "load_model",
    "make_module",
    "request_model",
]
