"""Pretrained models of timm, with the normalisation of their configuration.

timm builds the network and adapts the published weights to it.  satbench downloads and reads the
file, because timm 1.0.9 cannot download with huggingface_hub 1 or later, and unpickles some files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from satbench.core.downloads import cache_folder, download, sha256_check
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.models._file_options import FileOptions
from satbench.models._hub import digest_in_name, hub_file, one_line
from satbench.models._loaded import LoadedModel, describe_module, import_timm, need, normalized
from satbench.models._local import LocalFile, load_local

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Timm:
    """`timm:NAME` or `timm:NAME.TAG`, such as `timm:resnet50.a1_in1k`, or either with `@FILE`.

    With a tag, the file must have exactly those weights; without one, any weights of that network.
    """

    text: str
    name: str
    file: LocalFile | None = None
    dataset: str = ""
    threat: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the name.  Raises SatbenchError if the file or timm is missing."""
        name, at, file = text.partition(":")[2].partition("@")
        if at and not file:
            raise SatbenchError(f"expected timm:NAME@FILE, got {text!r}")
        need("timm", "timm", text)
        return cls(text, name, LocalFile.at(file) if at else None)

    def with_options(self, options: FileOptions) -> Self:
        """Return the source with options for its file.  Raises SatbenchError with a tag."""
        if "." in self.name:
            raise SatbenchError(
                f"{' and '.join(options.given)}: timm already determines these for {self.name}"
            )
        return replace(self, file=self.file and self.file.with_options(options, self.text))

    def load(self, classes: int) -> LoadedModel:
        """Build the network with its published weights, downloaded if missing.

        Raises SatbenchError for an unknown name or tag, and for weights that cannot be downloaded,
        are corrupt or do not fit.
        """
        from satbench.model_zoo.checkpoints import read_state

        timm, base = import_timm(), self.name.partition(".")[0]
        if self.file and base == self.name:
            return self._from_file(self.file, classes)
        configuration = self._configuration()
        state = (
            self.file.state() if self.file else read_state(_weights_file(self.name, configuration))
        )
        try:
            network: nn.Module = timm.create_model(
                self.name, pretrained=True, pretrained_cfg_overlay={"state_dict": state}
            )
        except Exception as error:  # timm and torch have different errors
            raise SatbenchError(f"timm cannot load {self.name}: {one_line(error)}") from error
        module = behind_its_normalisation(network)
        name, source = (self.file.name, "file") if self.file else (self.text, "timm")
        info = describe_module(module, name, source)
        return LoadedModel(module, replace(info, architecture=f"timm:{base}"), None)

    def _from_file(self, file: LocalFile, classes: int) -> LoadedModel:
        timm = import_timm()
        if not timm.is_model(self.name):
            raise UnknownNameError("timm model", self.name, timm.list_models())
        return load_local(
            file,
            f"timm:{self.name}",
            lambda count: timm.create_model(self.name, pretrained=False, num_classes=count),
            _constants,
            classes,
        )

    def _configuration(self) -> Any:
        timm = import_timm()
        base, _, tag = self.name.partition(".")
        if not timm.is_model(base):
            raise UnknownNameError("timm model", base, timm.list_models())
        tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{base}.*")]
        if tag and tag not in tags:
            raise UnknownNameError(f"weights of timm's {base}", tag, tags)
        configuration = timm.get_pretrained_cfg(self.name)
        if configuration is None or not configuration.has_weights:
            raise SatbenchError(f"timm has no pretrained weights for {base}: name another model")
        return configuration


def behind_its_normalisation(network: nn.Module) -> nn.Module:
    """Return a network of timm as a model in pixel space, with its own mean and deviation."""
    configuration: Any = network.pretrained_cfg
    configuration.pop("state_dict", None)  # a second copy of the weights
    return normalized(network, *_constants(network))


def _constants(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    configuration: Any = network.pretrained_cfg
    return tuple(configuration["mean"]), tuple(configuration["std"])


def _weights_file(model: str, configuration: Any) -> Path:
    """Return the file of weights in timm's configuration of a model, downloaded if missing."""
    if configuration.hf_hub_id:
        for name in _safe_names(configuration.hf_hub_filename):
            if path := hub_file(configuration.hf_hub_id, name):
                return path
        where = f"{configuration.hf_hub_id} at the Hugging Face Hub"
        raise SatbenchError(
            f"cannot find the weights of timm's {model} in {where} or in the hub's cache: "
            "the first use downloads them, so check the network; for a local file give "
            f"timm:{model}@FILE"
        )
    if not isinstance(configuration.url, str) or configuration.custom_load:
        raise SatbenchError(f"timm has no weights for {model} that can be read safely")
    name = configuration.url.rpartition("/")[2]
    return download(
        configuration.url, cache_folder() / "timm" / name, sha256_check(digest_in_name(name))
    )


def _safe_names(chosen: str | None) -> tuple[str, ...]:
    """Return the possible names of a file of weights in a repository, the safest first."""
    if not chosen:
        return ("model.safetensors", "pytorch_model.bin")
    safe = chosen.replace("pytorch_model.bin", "model.safetensors")
    return (safe, chosen) if safe != chosen else (chosen,)
