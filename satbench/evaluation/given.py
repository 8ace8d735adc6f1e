"""The model, images and surrogates that a record names, found on this machine.

Names in a record are not trusted.  Models are looked up among those known here, and images among
the data sets of satbench.  A name runs no code and contacts no server, unless the user gave it
(`--model`, `--dataset`) or trusts it (`--trust`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import nn

from satbench.attacks import is_own_attack
from satbench.attacks.suites.suite import parse_suite
from satbench.calling.modules import check_module
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import USER, Dataset, completed, load_dataset
from satbench.evaluation.named_in_files import refuse_foreign, request_known
from satbench.evaluation.surrogates import benchmark_surrogates, surrogate_digest
from satbench.model_zoo.card import card_of_digest
from satbench.models import (
    FileOptions,
    LoadedModel,
    ModelRequest,
    describe_module,
    has_a_name,
    load_model,
    request_model,
)
from satbench.records.answers import same_surrogate
from satbench.records.record import DatasetInfo, ModelInfo, Record


@dataclass(frozen=True)
class Given:
    """The model and images that the user gives for a record, which names them or cannot.

    `model` is a name that `--model` takes, or the model itself.  `dataset` is the name of a data
    set, or the images.  `data_dir` is the folder of named data sets.  `file` describes a file of
    weights, if `model` is one.  `trust` has the names of models, data sets and attacks, as written
    in the record, that may run code and use the network.
    """

    model: str | nn.Module | None = None
    dataset: str | Dataset | None = None
    data_dir: Path | None = None
    file: FileOptions = field(default_factory=FileOptions)
    trust: tuple[str, ...] = ()


class ModelAndImages(Protocol):
    """What names a model and images: a record, or a certificate."""

    @property
    def model(self) -> ModelInfo:
        """The model."""
        ...

    @property
    def dataset(self) -> DatasetInfo:
        """The images."""
        ...


def find_model(record: ModelAndImages, given: Given) -> LoadedModel:
    """Return the record's model: the given one, else a known one with its name or weights.

    Raises SatbenchError, which says how to give the model, if there is none.
    """
    if isinstance(given.model, nn.Module):
        info = describe_module(check_module(given.model), record.model.name, "python")
        return LoadedModel(given.model, info, None)
    # The labels of a user's own images may not use all classes; the weights' digest decides.
    return load_model(_requested(record, given), record.dataset.classes, exactly=False)


def _requested(record: ModelAndImages, given: Given) -> ModelRequest:
    model = record.model
    if given.model is not None:
        return request_model(str(given.model), **vars(given.file))
    is_named = has_a_name(model.source) or model.name in given.trust
    if not is_named and card_of_digest(model.weights_digest) is None:
        raise SatbenchError(
            f"the record is of {model.name!r}, which was given as a {model.source}: "
            "name it with --model, or pass it to satbench.verify(record, model, x, y)"
        )
    name = model.name if is_named else ""
    ways = f"give --model {shlex.quote(name)} or --trust {shlex.quote(name)}"
    return request_known(name, model.weights_digest, given.trust, ways=ways)


def check_surrogates(record: Record, dataset: Dataset, given: Given) -> Iterator[str]:
    """Yield a fault for each surrogate that is not the one with the same name here."""
    for name, recorded in record.sources.items():
        try:
            here = _surrogate_here(name, recorded, record, dataset, given)
        except SatbenchError as error:
            yield f"the surrogate {name} cannot be checked: {error}"
            continue
        if here.partition(" ")[0] != recorded.partition(" ")[0]:
            yield (
                f"the surrogate {name} here has weights {here[:12]}…, "
                f"in the record {recorded[:12]}…"
            )
        elif not same_surrogate(here, recorded):
            yield f"the surrogate {name} here gives other answers than the record's: other code"
    for name in sorted(_named_surrogates(record, given) - set(record.sources)):
        yield f"the suite uses {name}, but the record does not say with which weights"


def _surrogate_here(
    name: str, recorded: str, record: Record, dataset: Dataset, given: Given
) -> str:
    own = benchmark_surrogates(record.dataset.name, Threat.of(record.norm, record.eps))
    if name in own:
        return own[name]
    card = request_known(name, recorded.partition(" ")[0], given.trust).card
    return card.weights_digest if card else surrogate_digest(name, dataset)


def _named_surrogates(record: Record, given: Given) -> set[str]:
    names: set[str] = set()
    for spec in record.suite:
        try:
            if is_own_attack(spec) or spec in given.trust:
                names |= _surrogates_in(spec)
        except SatbenchError:  # a spec of an older protocol
            continue
    return names


@cache
def _surrogates_in(spec: str) -> frozenset[str]:
    return frozenset(name for stage in parse_suite([spec]) for name in stage.traits.surrogates)


def find_images(record: ModelAndImages, given: Given) -> Dataset | None:
    """Return the record's images; if none has its digest, the closest ones.

    Raises SatbenchError if there are none, and for a name that needs code or a server.
    """
    recorded, whole = record.dataset, given.dataset
    n, population = recorded.n, recorded.population
    if not isinstance(whole, Dataset):
        if whole is None and recorded.split == USER:
            raise SatbenchError(
                f"the record is of a user's own images ({recorded.name}): give them with --data "
                "FILE, or pass them to satbench.verify(record, model, x, y)"
            )
        if whole is None and recorded.name not in given.trust:
            refuse_foreign(recorded.name)
        wanted = max(population or n, 1)
        name = completed(whole or recorded.name, recorded.name, recorded.classes)
        try:
            whole = load_dataset(name, "test", wanted, given.data_dir, or_fewer=True)
        except SatbenchError as error:
            if whole or ":" not in recorded.name:
                raise
            raise SatbenchError(
                f"{error}; say where {recorded.name} is, --dataset KIND:PATH"
            ) from None
    if not 1 <= n <= (population or n) <= len(whole):
        return None
    cut = whole.first(population or n)
    stored = (one.shuffled().first(n) if population else one for one in _ways_to_store(cut))
    first = next(stored)
    if first.digest == recorded.digest:
        return first
    return next((one for one in stored if one.digest == recorded.digest), first)


def _ways_to_store(dataset: Dataset) -> Iterator[Dataset]:
    """Yield the data set, and the same pixels as bytes or as floats if that is exact."""
    yield dataset
    pixels = dataset.pixels(np.arange(len(dataset)))
    grey = np.rint(255 * pixels).astype(np.uint8)
    if dataset.images.dtype == np.uint8:
        yield replace(dataset, images=pixels)
    elif np.array_equal(grey.astype(np.float32) / np.float32(255), pixels):
        yield replace(dataset, images=grey)
