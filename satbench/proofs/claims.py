"""Hold what a record claims beside its witnesses against what can be computed without attacking.

Witnesses prove that images are broken.  Survivors, and by how hard a search they survived, are the
record's word; but the word has to fit: the suite must be of attacks that exist, the passes those of
its attacks, the images and the model those found here, the flags those that the model gives.
docs/trust.md lists what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn

from satbench.attacks import ATTACKS, is_given, is_own_attack, suite_digests
from satbench.attacks.expenses import Expenses, expenses_of, reaches_the_surface
from satbench.attacks.suites.suite import parse_suite
from satbench.core.errors import SatbenchError
from satbench.core.specs import split_spec
from satbench.core.threat import Threat, show_fraction
from satbench.data import USER, Dataset
from satbench.diagnosis.diagnose import looked_at, probe
from satbench.engine.ball import size
from satbench.engine.bpda import Replaced
from satbench.engine.contract import Selective
from satbench.engine.stage import Stage
from satbench.evaluation.given import Given
from satbench.evaluation.plan import kind_of
from satbench.evaluation.replacements import IDENTITY
from satbench.models import LoadedModel, is_of_own_code
from satbench.records.flags import (
    NOT_DIAGNOSED,
    RESULT_FLAGS,
    Flag,
    flags_from_assumed,
    flags_from_result,
    not_diagnosed,
)
from satbench.records.record import WRONG_CLEAN, Record, StageResult
from satbench.records.witnesses import Witnesses

LEAST, MOST, BESIDE = 0.5, 6, 60
"""How many passes a stage may tell of: from this share of what its attack makes, to so many times.

`BESIDE` are passes on an image that are made whatever the attack is.  On the committed records,
stages make 0.75 to 2.2 times (docs/trust.md); in L1 restarts are five times as many.
"""

REACH = 0.99
"""The share of eps that the largest of some perturbations reaches, where each may reach all of it.

`FEW` witnesses say nothing.
"""
FEW = 10

NEARLY = 0.02
"""The share of images for which a flag may hold here and not in the record: machines round."""


@dataclass(frozen=True)
class OpenedRecord:
    """What was found here of what a record speaks of."""

    record: Record
    witnesses: Witnesses
    dataset: Dataset
    loaded: LoadedModel


def check_claims(found: OpenedRecord, given: Given) -> Iterator[str]:
    """Yield what does not fit, a sentence each; no attack is run."""
    record = found.record
    yield from _check_images(record, found.dataset, given)
    yield from _check_suite(record, given)
    stages = _stages(record, given)
    yield from _check_expenses(record, stages)
    yield from _check_reach(found, stages)
    yield from _check_replacements(record, found.loaded.module)
    yield from _check_form(record)


def _check_form(record: Record) -> Iterator[str]:
    """Check what a run writes down, in its way."""
    threat, model = Threat.of(record.norm, record.eps), record.model
    if (record.norm, record.eps) != (threat.norm, show_fraction(threat.eps)):
        yield f"the threat model is not written as satbench does, {threat}"
    if record.schema > 1 and record.diagnosis is None:
        yield "the diagnosis is missing, which every record of schema 2 has"
    if record.schema > 1 and is_of_own_code(model.source) and not model.answers_digest:
        yield f"a model given as a {model.source} is known by its answers, which are missing"


def _check_images(record: Record, dataset: Dataset, given: Given) -> Iterator[str]:
    told = record.dataset
    if told.split != dataset.split:
        yield f"the images are of the split {dataset.split}, in the record of {told.split!r}"
    if told.split != USER and told.classes != dataset.classes:
        yield f"the images are of {dataset.classes} classes, in the record of {told.classes}"
    if given.dataset is None and told.name != dataset.name:
        yield f"the images are called {dataset.name}, in the record {told.name!r}"


def _check_suite(record: Record, given: Given) -> Iterator[str]:
    """Check that the suite is of attacks that there are, and its stages their parts."""
    here: dict[str, str] = {}
    for spec in record.suite:
        name = _name_of(spec)
        if is_own_attack(spec):
            here |= suite_digests([spec])
        elif not (
            _is_of_a_file(name, record) or is_given(spec) or name in given.trust or name == "images"
        ):
            plugin = ATTACKS[name].plugin if name in ATTACKS else ""
            who = f"the plug-in {plugin} has" if plugin else "satbench does not have"
            yield (
                f"the suite names the attack {name!r}, which {who}: if you know what it does, "
                f"give --trust {name}"
            )
    for name, digest in record.suites.items():
        if here.get(name, digest) != digest:
            yield f"the suite {name} here is another than the record's, or its digest was changed"
        elif name not in {_name_of(spec) for spec in record.suite}:
            yield f"the record tells of a suite {name!r} that it did not run"
    for spec in filter(is_own_attack, record.suite):
        parts = _parts(spec)
        told = [stage.part for stage in record.stages if stage.attack == spec]
        if isinstance(parts, str):
            yield f"the attack {spec} cannot be read here: {parts}"
        elif told and sorted(set(told)) != sorted({stage.part for stage in parts}):
            missing = {stage.part for stage in parts} ^ set(told)
            yield f"the stages of {spec} are not its parts: {', '.join(sorted(missing))}"


def _name_of(spec: str) -> str:
    try:
        return split_spec(spec)[0]
    except SatbenchError:
        return spec


def _is_of_a_file(name: str, record: Record) -> bool:
    """Say whether an attack is a suite of a user's own file, with the digest in its name."""
    digest = record.suites.get(name, "")
    return name.startswith("suite.") and bool(digest) and name.endswith(f"-{digest[:12]}")


@cache
def _parts(spec: str) -> tuple[Stage, ...] | str:
    """Return the stages of an attack of satbench's own, or why there are none."""
    try:
        return parse_suite([spec])
    except SatbenchError as error:
        return str(error)


def _stages(record: Record, given: Given) -> list[Stage | None]:
    """Return for each stage of a record what it ran, None where that is not known here."""
    known: dict[tuple[str, str], Stage] = {}
    for spec in record.suite:
        if is_own_attack(spec) or _name_of(spec) in given.trust:
            parts = _parts(spec)
            known |= {} if isinstance(parts, str) else {(spec, one.part): one for one in parts}
    return [known.get((stage.attack, stage.part)) for stage in record.stages]


def _check_expenses(record: Record, stages: Sequence[Stage | None]) -> Iterator[str]:
    flags = record.diagnosis.flags if record.diagnosis else []
    is_random = any(flag.name == "randomised" for flag in flags)
    for told, stage in zip(record.stages, stages, strict=True):
        if stage is None:
            continue
        title = f"{told.attack.partition('(')[0]}/{told.part}".rstrip("/")
        if told.passed_over and not isinstance(stage.attack, Selective):
            yield f"{title} passed over {told.passed_over} images, which it never does"
        expected = expenses_of(stage.attack, record.dataset.classes)
        if expected:
            yield from _check_passes(told, expected, title, is_random)


def _check_passes(
    told: StageResult, expected: Expenses, title: str, is_random: bool
) -> Iterator[str]:
    held = 0 if is_random else told.attacked - told.broken
    pairs = {
        "forwards": (told.forwards, expected.forwards),
        "backwards": (told.backwards, expected.backwards),
        "backwards of surrogates": (told.source_backwards, expected.surrogates),
    }
    for what, (count, each) in pairs.items():
        if count < LEAST * each * held:
            yield (
                f"{title} tells of {count} {what} on {held} images that held, where each takes "
                f"about {each}"
            )
        most = told.attacked * (MOST * each + BESIDE)
        if count > most and what != "backwards of surrogates":
            yield f"{title} tells of {count} {what} on {told.attacked} images: more than {most}"


def _check_reach(found: OpenedRecord, stages: Sequence[Stage | None]) -> Iterator[str]:
    """Check that perturbations are as large as eps lets them: else eps was raised afterwards."""
    record, witnesses = found.record, found.witnesses
    threat, verdicts = Threat.of(record.norm, record.eps), np.array(record.verdicts)
    if record.norm != "linf":
        return
    numbers = [k for k, one in enumerate(stages, 1) if one and reaches_the_surface(one.attack)]
    rows = np.flatnonzero(np.isin(verdicts[witnesses.indices], numbers))
    if len(rows) < FEW:
        return
    x = torch.from_numpy(found.dataset.pixels(witnesses.indices[rows]))
    moved = torch.from_numpy(witnesses.images[rows]).double() - x.double()
    reach = float(size(moved, threat).max()) / threat.radius
    if reach < REACH:
        yield (
            f"no witness moves a pixel by more than {reach:.1%} of eps {record.eps}, where such "
            "searches begin with more: eps was raised after the attack"
        )


def _check_replacements(record: Record, module: nn.Module) -> Iterator[str]:
    layers = dict(module.named_modules())
    for name in record.replacements:
        if name not in layers:
            yield f"the record replaced the backward of a layer {name!r}, which the model lacks"


def flags_here(found: OpenedRecord, given: Given) -> list[Flag] | None:
    """Return the flags that the model and the verdicts give here; None where that is not known.

    It is not where searches ran a replacement of a layer whose code is its user's.
    """
    record = found.record
    if any(text != IDENTITY for text in record.replacements.values()):
        return None
    kinds = [kind_of(stage) if stage else "white-box" for stage in _stages(record, given)]
    # Records from before the interval counted tell of fewer images too.
    also = [flag.name for flag in record.diagnosis.flags] if record.diagnosis else []
    of_result = flags_from_result(record.verdicts, kinds, record.dataset.classes, also)
    module = found.loaded.module
    if record.replacements:
        module = Replaced(module, {name: nn.Identity() for name in record.replacements})
    right = np.flatnonzero(np.array(record.verdicts) != WRONG_CLEAN)
    seed = next((stage.seed for stage in record.stages if stage.seed is not None), record.seed)
    threat = Threat.of(record.norm, record.eps)
    assumed = flags_from_assumed(record.model.assumed, record.n)
    if not_diagnosed(told := record.diagnosis.flags if record.diagnosis else []):
        left_out = [flag for flag in told if flag.name == NOT_DIAGNOSED]
        return [*left_out, *assumed, *of_result]
    forwards = record.diagnosis.forwards if record.diagnosis else 0
    most = looked_at(told, forwards, len(right))
    key = (
        record.model.weights_digest,
        record.model.architecture,
        record.model.activation,
        record.dataset.digest,
        threat,
        right.tobytes(),
        tuple(record.replacements),
        seed,
        most,
    )
    if key in _PROBED and found.loaded.card:
        return [*_PROBED[key], *assumed, *of_result]
    batch_size = record.environment.batch_size
    signs = probe(module, found.dataset, threat, right, batch_size, seed, most=most)
    if len(_PROBED) < _MOST_PROBED:
        _PROBED[key] = signs.flags
    return [*signs.flags, *assumed, *of_result]


_PROBED: dict[tuple[object, ...], tuple[Flag, ...]] = {}
"""What models of a card were seen to give: a board has several records of each."""
_MOST_PROBED = 1000


def check_flags(record: Record, here: Sequence[Flag]) -> Iterator[str]:
    """Yield where the flags of a record are not those that the model and the verdicts give.

    Those that follow from the record itself are the same on any machine.  A record from before
    there was a diagnosis tells of none.
    """
    if record.diagnosis is None:
        return
    told = {flag.name: flag.images for flag in record.diagnosis.flags}
    computed = {flag.name: flag.images for flag in here}
    most = max(1, round(NEARLY * record.n))
    for name in computed | told:
        mine, theirs = computed.get(name, 0), told.get(name, 0)
        is_exact = name in RESULT_FLAGS or name.startswith("assumed-")
        if abs(mine - theirs) > (0 if is_exact else most) and name != "training-data":
            yield (
                f"the flag {name} is of {mine} images here, in the record of {theirs}"
                if theirs
                else f"the flag {name}, of {mine} images here, is not in the record"
            )
