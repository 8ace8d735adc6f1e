"""What a record names, found here: its model, its images, its surrogates.

Names in a record are a stranger's.  Models are looked up among those that are known here, images
among the data sets of satbench, and no code is run or server asked for the sake of a name, unless
somebody gave it (`--model`, `--dataset`) or said that it may be trusted (`--trust`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

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
from satbench.records.record import Record


@dataclass(frozen=True)
class Given:
    """What somebody gives for what a record names, or cannot name.

    `model` is a name that `--model` takes, or the model itself; `dataset` is the name of a data
    set, or the images.  `data_dir` is where a named one lies; `file` says what a file of weights
    is, where `model` is one.  `trust` has names as they stand in the record, of models, data sets
    and attacks, that may run code and reach for the network.
    """

    model: str | nn.Module | None = None
    dataset: str | Dataset | None = None
    data_dir: Path | None = None
    file: FileOptions = field(default_factory=FileOptions)
    trust: tuple[str, ...] = ()


def find_model(record: Record, given: Given) -> LoadedModel:
    """Return the record's model: the one given, else the one of its name or weights known here.

    Raises SatbenchError where there is none, saying how to give it.
    """
    if isinstance(given.model, nn.Module):
        info = describe_module(check_module(given.model), record.model.name, "python")
        return LoadedModel(given.model, info, None)
    # Labels of somebody's own images may leave classes out; the weights' digest tells the rest.
    return load_model(_requested(record, given), record.dataset.classes, exactly=False)


def _requested(record: Record, given: Given) -> ModelRequest:
    model = record.model
    if given.model is not None:
        return request_model(str(given.model), **vars(given.file))
    is_named = has_a_name(model.source) or model.name in given.trust
    if not is_named and card_of_digest(model.weights_digest) is None:
        raise SatbenchError(
            f"the record is of {model.name!r}, a model given as a {model.source}; "
            "name it with --model, or give it to satbench.verify(record, model, x, y)"
        )
    name = model.name if is_named else ""
    ways = f"give --model {shlex.quote(name)} or --trust {shlex.quote(name)}"
    return request_known(name, model.weights_digest, given.trust, ways=ways)


def check_surrogates(record: Record, dataset: Dataset, given: Given) -> Iterator[str]:
    """Check that the surrogates are those of the same names here."""
    for name, told in record.sources.items():
        try:
            here = _surrogate_here(name, told, record, dataset, given)
        except SatbenchError as error:
            yield f"the surrogate {name} cannot be checked: {error}"
            continue
        if here.partition(" ")[0] != told.partition(" ")[0]:
            yield f"the surrogate {name} here has weights {here[:12]}…, in the record {told[:12]}…"
        elif not same_surrogate(here, told):
            yield f"the surrogate {name} here answers otherwise than the record's: other code"
    for name in sorted(_named_surrogates(record, given) - set(record.sources)):
        yield f"the suite asks for {name}, but the record does not say with which weights"


def _surrogate_here(name: str, told: str, record: Record, dataset: Dataset, given: Given) -> str:
    own = benchmark_surrogates(record.dataset.name, Threat.of(record.norm, record.eps))
    if name in own:
        return own[name]
    card = request_known(name, told.partition(" ")[0], given.trust).card
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


def find_images(record: Record, given: Given) -> Dataset | None:
    """Return the record's images, where they are those of its digest: the nearest thing else.

    Raises SatbenchError where there are none, and for a name that asks for more than a look here.
    """
    told, whole = record.dataset, given.dataset
    n, population = told.n, told.population
    if not isinstance(whole, Dataset):
        if whole is None and told.split == USER:
            raise SatbenchError(
                f"the record is of images of a user's own ({told.name}): give them with --data "
                "FILE, or to satbench.verify(record, model, x, y)"
            )
        if whole is None and told.name not in given.trust:
            refuse_foreign(told.name)
        wanted = max(population or n, 1)
        name = completed(whole or told.name, told.name, told.classes)
        try:
            whole = load_dataset(name, "test", wanted, given.data_dir, or_fewer=True)
        except SatbenchError as error:
            if whole or ":" not in told.name:
                raise
            raise SatbenchError(
                f"{error}; say where {told.name} lies here, --dataset KIND:PATH"
            ) from None
    if not 1 <= n <= (population or n) <= len(whole):
        return None
    cut = whole.first(population or n)
    stored = (one.shuffled().first(n) if population else one for one in _ways_to_store(cut))
    first = next(stored)
    if first.digest == told.digest:
        return first
    return next((one for one in stored if one.digest == told.digest), first)


def _ways_to_store(dataset: Dataset) -> Iterator[Dataset]:
    """Yield a data set as it is, and with the same pixels as bytes or floats if they can be."""
    yield dataset
    pixels = dataset.pixels(np.arange(len(dataset)))
    grey = np.rint(255 * pixels).astype(np.uint8)
    if dataset.images.dtype == np.uint8:
        yield replace(dataset, images=pixels)
    elif np.array_equal(grey.astype(np.float32) / np.float32(255), pixels):
        yield replace(dataset, images=grey)
