"""Pretrained models of timm, normalised as their configuration says.

timm builds the network and fits the published weights to it; the file is fetched and read here.
timm 1.0.9 cannot fetch with huggingface_hub 1 or later, and unpickles some files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from satbench.core.downloads import cache_folder, download, sha256_check
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.models._hub import hub_file, one_line
from satbench.models._loaded import LoadedModel, describe_module, import_timm, need, normalized

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Timm:
    """`timm:NAME` or `timm:NAME.TAG`, such as `timm:resnet50.a1_in1k`."""

    text: str
    name: str
    dataset: str = ""
    threat: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take the name.  Raises SatbenchError where timm is not installed."""
        need("timm", "timm", text)
        return cls(text, text.partition(":")[2])

    def load(self, classes: int) -> LoadedModel:
        """Build the network with its published weights, fetched if need be.

        Raises SatbenchError for an unknown name or tag, and weights that cannot be had, are
        corrupt or do not fit.
        """
        from satbench.model_zoo.checkpoints import read_state

        timm, base = import_timm(), self.name.partition(".")[0]
        state = read_state(self._weights_file())
        try:
            network: nn.Module = timm.create_model(
                self.name, pretrained=True, pretrained_cfg_overlay={"state_dict": state}
            )
        except Exception as error:  # of timm or torch, each with errors of its own
            raise SatbenchError(f"timm cannot load {self.name}: {one_line(error)}") from error
        module = behind_its_normalisation(network)
        info = describe_module(module, self.text, "timm")
        return LoadedModel(module, replace(info, architecture=f"timm:{base}"), None)

    def _weights_file(self) -> Path:
        told = self._configuration()
        if told.hf_hub_id:
            for name in _safe_names(told.hf_hub_filename):
                if path := hub_file(told.hf_hub_id, name):
                    return path
            where = f"{told.hf_hub_id} at the Hugging Face Hub"
            raise SatbenchError(
                f"expected the weights of timm's {self.name} in {where}, or in the hub's cache: "
                "the first time they are fetched, so see that the network is there"
            )
        if not isinstance(told.url, str) or told.custom_load:
            raise SatbenchError(f"timm has no weights for {self.name} that can be read safely")
        name = told.url.rpartition("/")[2]
        named = re.search(r"-([0-9a-f]{8,})\.", name)  # as torch.hub has it
        return download(
            told.url, cache_folder() / "timm" / name, sha256_check(named[1] if named else "")
        )

    def _configuration(self) -> Any:
        timm = import_timm()
        base, _, tag = self.name.partition(".")
        if not timm.is_model(base):
            raise UnknownNameError("timm model", base, timm.list_models())
        tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{base}.*")]
        if tag and tag not in tags:
            raise UnknownNameError(f"weights of timm's {base}", tag, tags)
        told = timm.get_pretrained_cfg(self.name)
        if told is None or not told.has_weights:
            raise SatbenchError(f"timm has no pretrained weights for {base}: name another model")
        return told


def behind_its_normalisation(network: nn.Module) -> nn.Module:
    """Return a network of timm as a model in pixel space, by its own mean and deviation."""
    told: Any = network.pretrained_cfg
    told.pop("state_dict", None)  # a second copy of the weights
    return normalized(network, tuple(told["mean"]), tuple(told["std"]))


def _safe_names(chosen: str | None) -> tuple[str, ...]:
    """Return the names that a file of weights may have in a repository, the safest first."""
    if not chosen:
        return ("model.safetensors", "pytorch_model.bin")
    safe = chosen.replace("pytorch_model.bin", "model.safetensors")
    return (safe, chosen) if safe != chosen else (chosen,)
