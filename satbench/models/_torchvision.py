"""Classifiers of torchvision with the weights it publishes, normalised as it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self, cast

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.models._hub import torch_hub_file
from satbench.models._loaded import LoadedModel, describe_module, normalized


@dataclass(frozen=True)
class Torchvision:
    """`torchvision:NAME@WEIGHTS`, such as `torchvision:resnet50@IMAGENET1K_V2`."""

    text: str
    name: str
    weights: str
    dataset: str = ""
    threat: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split the name.  Raises SatbenchError for one without a name."""
        name, _, weights = text.partition(":")[2].partition("@")
        if not name:
            raise SatbenchError(f"expected torchvision:NAME@WEIGHTS, got {text!r}")
        return cls(text, name, weights)

    def load(self, classes: int) -> LoadedModel:
        """Build the network behind the normalisation of its weights, fetched if need be.

        Raises SatbenchError for an unknown name, weights that do not exist (with those that do),
        files of another digest than their name tells, and models that are no classifiers.
        """
        from torchvision.models import get_model, get_model_weights, list_models
        from torchvision.transforms._presets import ImageClassification

        from satbench.model_zoo.weights import load_weights

        if self.name not in list_models():
            raise UnknownNameError("torchvision model", self.name, list_models())
        known = {one.name: one for one in cast(Iterable, get_model_weights(self.name))}  # type: ignore[type-arg]
        if self.weights not in known:
            said = f"no weights {self.weights!r}" if self.weights else "weights only by name"
            raise SatbenchError(
                f"torchvision has {said} for {self.name}: "
                + (" or ".join(f"torchvision:{self.name}@{one}" for one in known) or "it has none")
            )
        chosen = known[self.weights]
        preset = chosen.transforms()
        if not isinstance(preset, ImageClassification):
            raise SatbenchError(f"expected a classifier of images, got torchvision's {self.name}")
        network = get_model(self.name, weights=None, num_classes=len(chosen.meta["categories"]))
        load_weights(network, torch_hub_file(chosen.url))
        module = normalized(network, tuple(preset.mean), tuple(preset.std))
        info = describe_module(module, self.text, "torchvision")
        return LoadedModel(module, replace(info, architecture=f"torchvision:{self.name}"), None)
