"""Repositories of the Hugging Face Hub, and such folders: safetensors with a card or config."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from satbench.core.errors import SatbenchError
from satbench.core.schema import parse_object, read_text
from satbench.model_zoo.card import Card, card_within, read_card
from satbench.models._hub import hub_file, one_line
from satbench.models._loaded import LoadedModel, describe_module, import_timm, need
from satbench.models.carded import load_card

if TYPE_CHECKING:
    from torch import nn

CARD = "satbench.json"
"""The name of a card of satbench in a repository; its weights are next to it."""

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_OURS = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
"""Settings that would make timm read other weights and unpickle them."""

_FORM = re.compile(r"^[\w.-]+/[\w.-]+$")


@dataclass(frozen=True)
class HuggingFace:
    """`hf:ORG/REPO`, `hf:ORG/REPO@REVISION` (a branch, a tag or a commit), or `hf:FOLDER`."""

    text: str
    repo: str
    revision: str
    folder: Path | None = None
    dataset: str = ""
    threat: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split the name.  Raises SatbenchError for another form, or without huggingface_hub."""
        name = text.partition(":")[2]
        if (folder := Path(name).expanduser()).is_dir():
            return cls(text, "", "", folder)
        if name.startswith(("/", "~", "./", "../")):
            raise SatbenchError(f"expected a folder at {folder}, found none")
        repo, at, revision = name.partition("@")
        if not _FORM.match(repo) or (at and not revision):
            raise SatbenchError(
                f"expected hf:ORG/REPO, hf:ORG/REPO@REVISION or a folder, got {text!r}"
            )
        need("huggingface_hub", "timm", text)
        return cls(text, repo, revision)

    def load(self, classes: int) -> LoadedModel:
        """Build the model of the repository's card, else of its configuration, and load it.

        Raises SatbenchError for files that are missing or cannot be downloaded, a configuration
        that is neither timm's nor transformers', and weights that do not fit.
        """
        card_path = self._optional(CARD)
        if card_path:
            card = read_card(card_path)
            return self._from_card(card, self._file(card.weights))
        config_path = self._optional(_CONFIG)
        if config_path is None:
            raise SatbenchError(
                f"expected {CARD} or a {_CONFIG} of timm or transformers in {self.text}, found "
                "neither: check the name"
                + ("" if self.folder else ", and the network or the hub's cache")
            )
        config = _read(config_path, self.text)
        if "model_type" in config:
            return self._from_transformers(config_path, config)
        if "satbench" in config and "pretrained_cfg" not in config:  # from `satbench export`
            weights = self._file(_WEIGHTS)
            if within := card_within(weights):
                return self._from_card(within, weights)
        return self._from_timm(config)

    def _from_card(self, card: Card, weights: Path) -> LoadedModel:
        loaded = load_card(card, weights, self._source)
        name = loaded.info.name if self.folder else self.text
        return replace(loaded, info=replace(loaded.info, name=name))

    def _from_transformers(self, config_path: Path, config: dict[str, Any]) -> LoadedModel:
        need("transformers", "transformers", self.text)
        from satbench.models._transformers import PROCESSOR, build_with_weights

        self._file(_WEIGHTS)
        if self._optional(PROCESSOR) is None:
            raise SatbenchError(
                f"expected a file {PROCESSOR} in {self.text}, which says how to normalise "
                "pixels: save it with processor.save_pretrained(folder)"
            )
        module = build_with_weights(config_path.parent, self.text)
        return self._described(module, f"transformers:{config['model_type']}")

    def _from_timm(self, config: dict[str, Any]) -> LoadedModel:
        from satbench.model_zoo.weights import load_weights
        from satbench.models._timm import behind_its_normalisation

        need("timm", "timm", self.text)
        network = _network(self.text, config)
        load_weights(network, self._file(_WEIGHTS))
        return self._described(behind_its_normalisation(network), f"timm:{config['architecture']}")

    @property
    def _source(self) -> str:
        return "file" if self.folder else "hf"

    def _described(self, module: nn.Module, architecture: str) -> LoadedModel:
        name = self.folder.resolve().name if self.folder else self.text
        info = describe_module(module, name, self._source)
        return LoadedModel(module, replace(info, architecture=architecture), None)

    def _file(self, name: str) -> Path:
        path = self._optional(name)
        if path is None:
            raise SatbenchError(f"expected a file {name} in {self.text}, found none")
        return path

    def _optional(self, name: str) -> Path | None:
        if self.folder:
            path = self.folder / name
            return path if path.is_file() else None
        return hub_file(self.repo, name, self.revision)


def _read(path: Path, text: str) -> dict[str, Any]:
    return parse_object(read_text(path, "config"), "config", f"{_CONFIG} of {text}")


def _network(text: str, config: dict[str, Any]) -> nn.Module:
    timm = import_timm()
    pretrained, architecture = config.get("pretrained_cfg", config), config.get("architecture", "")
    if not timm.is_model(architecture) or not {"mean", "std"} <= pretrained.keys():
        raise SatbenchError(
            f"the {_CONFIG} of {text} is neither timm's nor transformers': expected architecture "
            f"and pretrained_cfg with mean and std, or model_type, or a {CARD}"
        )
    settings = config.get("model_args", {})
    if refused := sorted(_OURS & settings.keys()):
        raise SatbenchError(f"the {_CONFIG} of {text} may not set {', '.join(refused)}")
    try:
        network: nn.Module = timm.create_model(
            architecture,
            pretrained=False,
            pretrained_cfg=dict(pretrained),
            num_classes=config.get("num_classes", pretrained.get("num_classes")),
            **settings,
        )
    except Exception as error:  # timm can raise anything for foreign settings
        raise SatbenchError(
            f"timm cannot build the network of {text}: {one_line(error)}"
        ) from error
    return network
