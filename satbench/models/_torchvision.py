"""Classifiers of torchvision, with its published weights or a user's file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast
from unittest import mock

from satbench.core.digests import digest_file
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.models._file_options import FileOptions
from satbench.models._hub import digest_in_name, torch_hub_file
from satbench.models._loaded import LoadedModel, describe_module, normalized
from satbench.models._local import LocalFile, is_file, load_local

if TYPE_CHECKING:
    from torch import nn

_TRANSFORMING = ("googlenet", "inception_v3")
"""Networks that normalise a second time with torchvision's published weights."""


@dataclass(frozen=True)
class Torchvision:
    """`torchvision:NAME@WEIGHTS`, such as `torchvision:resnet50@IMAGENET1K_V2`, or `@FILE`."""

    text: str
    name: str
    weights: str
    file: LocalFile | None = None
    dataset: str = ""
    threat: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split the text.  Raises SatbenchError for a missing name or file."""
        name, _, weights = text.partition(":")[2].partition("@")
        if not name:
            raise SatbenchError(f"expected torchvision:NAME@WEIGHTS, got {text!r}")
        return cls(text, name, weights, LocalFile.at(weights) if is_file(weights) else None)

    def with_options(self, options: FileOptions) -> Self:
        """Return the source with options for its file.  Raises SatbenchError."""
        return replace(self, file=self.file and self.file.with_options(options, self.text))

    def load(self, classes: int) -> LoadedModel:
        """Build the network with the normalisation of its weights, downloaded if missing.

        Raises SatbenchError for an unknown name, unknown weights (with the known ones), a file
        with another digest than in its name, a model that is not a classifier, and a file that does
        not fit.
        """
        from torchvision.models import get_model_weights, list_models

        if self.name not in list_models():
            raise UnknownNameError("torchvision model", self.name, list_models())
        known = list(cast(Iterable[Any], get_model_weights(self.name)))
        if self.file:
            return self._from_file(self.file, known, classes)
        by_name = {one.name: one for one in known}
        if self.weights not in by_name:
            said = f"no weights {self.weights!r}" if self.weights else "weights only by name"
            raise SatbenchError(
                f"torchvision has {said} for {self.name}: "
                + (
                    " or ".join(f"torchvision:{self.name}@{one}" for one in by_name)
                    or "it has none"
                )
            )
        chosen = by_name[self.weights]
        self._check_classifier(chosen)
        return self._published(chosen, torch_hub_file(chosen.url))

    def _published(self, chosen: Any, path: Path) -> LoadedModel:
        from satbench.model_zoo.checkpoints import read_state

        preset, state = chosen.transforms(), read_state(path)
        module = normalized(self._built(chosen, state, path), tuple(preset.mean), tuple(preset.std))
        info = describe_module(module, self.text, "torchvision")
        return LoadedModel(module, replace(info, architecture=f"torchvision:{self.name}"), None)

    def _built(self, chosen: Any, state: dict[str, Any], path: Path) -> nn.Module:
        """Let torchvision build the network for its weights; without them it builds another one.

        It gets tensors that were read as data, instead of reading the file itself.
        """
        from torchvision.models import get_model

        try:
            with mock.patch.object(type(chosen), "get_state_dict", return_value=state):
                network: nn.Module = get_model(self.name, weights=chosen)
        except (RuntimeError, ValueError) as error:
            raise SatbenchError(
                f"the weights {path} do not fit torchvision's {self.name}: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        return network

    def _from_file(self, file: LocalFile, known: list[Any], classes: int) -> LoadedModel:
        from torchvision.models import get_model

        self._check_classifier(known[0] if known else None)
        if not file.options.given and (own := _published_as(known, file.path)):
            loaded = self._published(own, file.path)
            return replace(loaded, info=replace(loaded.info, name=file.name, source="file"))
        if self.name in _TRANSFORMING:
            raise SatbenchError(
                f"a file does not say whether torchvision's {self.name} normalises its input a "
                "second time (transform_input): expected the file that torchvision publishes, got "
                f"{file.path}; build the network in a function, --model package.module:factory"
            )
        preset = known[0].transforms()
        return load_local(
            file,
            f"torchvision:{self.name}",
            lambda count: get_model(self.name, weights=None, num_classes=count),
            lambda network: (tuple(preset.mean), tuple(preset.std)),
            classes,
        )

    def _check_classifier(self, chosen: Any) -> None:
        from torchvision.transforms._presets import ImageClassification

        if chosen is None or not isinstance(chosen.transforms(), ImageClassification):
            raise SatbenchError(f"expected a classifier of images, got torchvision's {self.name}")


def _published_as(known: list[Any], path: Path) -> Any:
    """Return the published weights with the digest of a file; None for another file."""
    wanted = {digest_in_name(one.url.rpartition("/")[2]): one for one in known}
    digest = digest_file(path)
    return next((one for start, one in wanted.items() if start and digest.startswith(start)), None)
