"""The result of every source of models, and what the sources share."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, Self

from satbench.core.errors import SatbenchError
from satbench.model_zoo.card import Card
from satbench.records.record import ModelInfo

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode on the CPU, with its description for a record."""

    module: nn.Module
    info: ModelInfo
    card: Card | None

    def check_images(self, shape: tuple[int, ...], dataset: str) -> None:
        """Raise SatbenchError unless images (C, H, W) have the shape on the card."""
        if self.card and self.card.input_shape != shape:
            raise SatbenchError(
                f"expected images of shape {self.card.input_shape} for {self.info.name}, "
                f"got {shape} from {dataset}"
                + ("; PATH@none does not resize images" if "imagefolder:" in dataset else "")
            )


class ModelSource(Protocol):
    """A source of models, `PREFIX:NAME`: a frozen dataclass of the parts of NAME.

    `dataset` and `threat` say what the model is for; they are empty if its name does not say it.
    """

    @property
    def dataset(self) -> str: ...

    @property
    def threat(self) -> str: ...

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `PREFIX:NAME` as far as possible without torch.  Raises SatbenchError."""
        ...

    def load(self, classes: int) -> LoadedModel:
        """Download the weights if they are missing, and build the model.

        `classes` is the data set's count.  Raises SatbenchError.
        """
        ...


def describe_module(module: nn.Module, name: str, source: str) -> ModelInfo:
    """Return the description of a module without a card for a record."""
    from satbench.calling.function import Function
    from satbench.model_zoo.weights import digest_weights

    kind = type(module)
    named = f"{kind.__module__}.{kind.__qualname__}"
    return ModelInfo(
        name=name,
        source=source,
        architecture=module.name if isinstance(module, Function) else named,
        activation="unknown",
        parameters=sum(p.numel() for p in module.parameters()),
        weights_digest=digest_weights(module),
        training={},
    )


def normalized(
    network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]
) -> nn.Sequential:
    """Return `network` behind its normalisation: a model in pixel space, in eval mode."""
    from collections import OrderedDict

    from torch import nn

    from satbench.networks.normalize import Normalize

    layers = OrderedDict([("normalize", Normalize(mean, std)), ("network", network)])
    return nn.Sequential(layers).eval()


def need(package: str, extra: str, what: str) -> None:
    """Raise SatbenchError unless `package` is installed.  Imports nothing."""
    if find_spec(package) is None:
        raise SatbenchError(
            f"{what} needs the package {package}, which is not installed: "
            f"pip install 'satbench[{extra}]'"
        )


def import_timm() -> ModuleType:
    """Import timm, without its warnings about its use of torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("timm")


@contextmanager
def strangers_code() -> Iterator[None]:
    """Run another library's loading code: its prints go to stderr, and it cannot unpickle.

    An environment variable can turn off torch's default, `weights_only=True`; it has no effect
    inside the block.
    """
    from satbench.model_zoo.checkpoints import harmless_globals

    forced = os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    try:
        with redirect_stdout(sys.stderr), harmless_globals():
            yield
    finally:
        if forced is not None:
            os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = forced
