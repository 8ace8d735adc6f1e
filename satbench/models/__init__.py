"""Models from what a user names: a zoo name, a card, a file of weights, another zoo, or code.

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
from satbench.models._local import WithFile
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
            "torchvision:resnet50@IMAGENET1K_V2, a classifier with named weights; or @FILE",
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
            "torchhub:OWNER/REPO@REF:ENTRY, the code of a GitHub repository that you trust",
            "https://pytorch.org/hub",
        ),
    ),
)

MODELS = Registry("model")
"""Models that plug-ins register in the group `satbench.models`."""

_PLUG_IN = "plug-in"
FILE_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".th")


@dataclass(frozen=True)
class ModelRequest:
    """The model that the user named, checked as far as possible without torch.

    `text` is what the user wrote.  A zoo name, the path of a card or of a run, and a known file of
    weights have a `card`, and `weights`, the path of its weights.  `PREFIX:NAME` has a `source`.
    `options` say how to read a file of weights.
    """

    text: str
    kind: str
    card: Card | None = None
    weights: Path | None = None
    source: ModelSource | None = None
    options: FileOptions = field(default_factory=FileOptions)

    @property
    def dataset(self) -> str | None:
        """The name of the data set that the model is for, if known."""
        if self.card:
            return self.card.training.dataset if self.card.training else None
        return (self.source.dataset or None) if self.source else None

    @property
    def classes(self) -> int | None:
        """The number of classes of the model, if its card says it."""
        return self.card.classes if self.card else None

    @property
    def threat(self) -> str | None:
        """The threat model that the model was trained for, such as `linf:8/255`, if known."""
        if self.card:
            return self.card.training.threat if self.card.training else None
        return (self.source.threat or None) if self.source else None


def has_a_name(source: str) -> bool:
    """Whether a model of this source (see `ModelInfo.source`) can be loaded by its name."""
    return source in ("zoo", "user-zoo", "factory", *SOURCES.names()) or source.startswith(_PLUG_IN)


def is_of_own_code(source: str) -> bool:
    """Whether a model of this source is the user's own code, which weights do not identify."""
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
    """Check the model that the user named.  Imports torch only to look into a pickle.

    The fields of `FileOptions` say how to read a file of weights.  Raises SatbenchError for an
    unknown name (with the nearest known one), a missing file, a file of weights for an unknown
    network, options without a file, and a source whose package is not installed.
    """
    options = FileOptions(architecture, activation, preset, normalize, keys, drop_keys)
    if options.preset:
        find_preset(options.preset)
    request = _requested(text, options)
    if options.given and isinstance(request.source, WithFile) and request.source.file:
        return replace(request, source=request.source.with_options(options))
    given = [one for one in options.given if request.card is None or one not in _OF_A_CARD]
    if request.kind != _FOREIGN and given:
        raise SatbenchError(
            f"{' and '.join(given)}: only for files of weights that do not name their network; "
            f"{text} is not one"
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
        raise SatbenchError(f"expected a model at {text}, found neither a file nor a folder")
    raise UnknownNameError("model", text, [*zoo_names(), *user_names(), *MODELS.names()])


def load_model(request: ModelRequest, classes: int, exactly: bool = True) -> LoadedModel:
    """Build the model and load its weights; `classes` is that of the data set.

    If the data set may have more classes than its labels show, `exactly` is false, and a file of
    weights decides how many there are.  Raises SatbenchError for weights that are missing, corrupt,
    not those of the card, or that do not fit, and for a factory that cannot be imported, fails, or
    returns no module.
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
_OF_A_CARD = ("--arch", "--activation", "--preset")  # these are compared with the card


def _request_file(text: str, path: Path, options: FileOptions) -> ModelRequest:
    if not os.path.isfile(path):
        raise SatbenchError(f"expected weights at {path}, which is missing")
    described = options.preset or (options.architecture and options.activation)
    if card := card_of_file(text, described=bool(described)):
        return ModelRequest(text, "file", card, path, options=options)
    if not described:
        raise SatbenchError(
            f"weights alone do not say what network they are for: give --arch and --activation "
            f"with {text}, a --preset such as trades, or the name of its card"
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
