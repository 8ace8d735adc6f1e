"""Repositories of the Hugging Face Hub: safetensors, and a file that says what they belong to."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from satbench.core.errors import SatbenchError
from satbench.model_zoo.card import read_card
from satbench.models._hub import hub_file, one_line
from satbench.models._loaded import LoadedModel, describe_module, import_timm, need
from satbench.models.carded import load_card

if TYPE_CHECKING:
    from torch import nn

CARD = "satbench.json"
"""The name of a card of satbench in a repository; the weights that it names lie beside it."""

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_OURS = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
"""Settings by which timm would read weights from elsewhere, and unpickle them."""

_FORM = re.compile(r"^[\w.-]+/[\w.-]+$")


@dataclass(frozen=True)
class HuggingFace:
    """`hf:ORG/REPO` or `hf:ORG/REPO@REVISION`, a revision being a branch, a tag or a commit."""

    text: str
    repo: str
    revision: str
    dataset: str = ""
    threat: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split the name.  Raises SatbenchError for another form, or without huggingface_hub."""
        repo, at, revision = text.partition(":")[2].partition("@")
        if not _FORM.match(repo) or (at and not revision):
            raise SatbenchError(f"expected hf:ORG/REPO or hf:ORG/REPO@REVISION, got {text!r}")
        need("huggingface_hub", "timm", text)
        return cls(text, repo, revision)

    def load(self, classes: int) -> LoadedModel:
        """Build what the repository's card, else its timm configuration, says, and load it.

        Raises SatbenchError for files that are missing or cannot be fetched, a configuration
        that is not timm's, and weights that do not fit.
        """
        card_path = self._optional(CARD)
        if card_path:
            card = read_card(card_path)
            loaded = load_card(card, self._file(card.weights), "hf")
            return replace(loaded, info=replace(loaded.info, name=self.text))
        config_path = self._optional(_CONFIG)
        if config_path is None:
            raise SatbenchError(
                f"expected {CARD} or timm's {_CONFIG} in {self.text}, found neither: "
                "check the name, and that the network or a copy in the hub's cache is there"
            )
        return self._from_timm(config_path)

    def _from_timm(self, config_path: Path) -> LoadedModel:
        from satbench.model_zoo.weights import load_weights
        from satbench.models._timm import behind_its_normalisation

        config = json.loads(config_path.read_text(encoding="utf-8"))
        need("timm", "timm", self.text)
        network = _network(self.text, config)
        load_weights(network, self._file(_WEIGHTS))
        module = behind_its_normalisation(network)
        info = describe_module(module, self.text, "hf")
        return LoadedModel(
            module, replace(info, architecture=f"timm:{config['architecture']}"), None
        )

    def _file(self, name: str) -> Path:
        path = self._optional(name)
        if path is None:
            raise SatbenchError(f"expected a file {name} in {self.text}, which has none")
        return path

    def _optional(self, name: str) -> Path | None:
        return hub_file(self.repo, name, self.revision)


def _network(text: str, config: dict[str, Any]) -> nn.Module:
    timm = import_timm()
    told, architecture = config.get("pretrained_cfg", config), config.get("architecture", "")
    if not timm.is_model(architecture) or not {"mean", "std"} <= told.keys():
        raise SatbenchError(
            f"the {_CONFIG} of {text} is not timm's: expected architecture and pretrained_cfg "
            f"with mean and std; a {CARD} beside it would say what to build"
        )
    settings = config.get("model_args", {})
    if refused := sorted(_OURS & settings.keys()):
        raise SatbenchError(f"the {_CONFIG} of {text} may not set {', '.join(refused)}")
    try:
        network: nn.Module = timm.create_model(
            architecture,
            pretrained=False,
            pretrained_cfg=dict(told),
            num_classes=config.get("num_classes", told.get("num_classes")),
            **settings,
        )
    except Exception as error:  # whatever timm makes of a stranger's settings
        raise SatbenchError(f"timm cannot build what {text} asks for: {one_line(error)}") from error
    return network
