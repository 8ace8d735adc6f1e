"""The check of a record's claims that have no witness, as far as possible without attacking.

Witnesses prove that images are broken.  Which images survive, and how hard the search was, is only
claimed.  But the record must be consistent: the attacks of the suite must exist, the
passes must fit them, the images and the model must be those found here, and the flags those of the
model. docs/trust.md lists what remains unchecked.
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
from satbench.diagnosis.diagnose import images_to_examine, looked_at, probe
from satbench.engine.ball import size
from satbench.engine.bpda import Replaced
from satbench.engine.contract import Selective
from satbench.engine.stage import Stage
from satbench.evaluation.given import Given
from satbench.evaluation.plan import in_doubt, kind_of
from satbench.evaluation.replacements import IDENTITY
from satbench.models import LoadedModel, is_of_own_code
from satbench.records.flags import (
    AT_CHANCE,
    NOT_DIAGNOSED,
    RESULT_FLAGS,
    Flag,
    flags_from_assumed,
    flags_from_result,
    not_diagnosed,
)
from satbench.records.record import WRONG_CLEAN, DatasetInfo, Diagnosis, Record, StageResult
from satbench.records.witnesses import Witnesses

LEAST, MOST, BESIDE = 0.5, 6, 60
"""The allowed passes of a stage, relative to what its attack should make: least and most.

`BESIDE` are passes on an image that any attack may make in addition.  On the committed records,
stages make 0.75 to 2.2 times the expected passes (docs/trust.md); in L1 restarts are five times as
many.
"""

REACH = 0.99
"""The share of eps that the largest of several perturbations must reach, if each may reach eps.

With only `FEW` witnesses there is no check.
"""
FEW = 10

NEARLY = 0.02
"""The share of images whose flag may differ between here and the record, by rounding."""


@dataclass(frozen=True)
class OpenedRecord:
    """A record with its model and images, as found here."""

    record: Record
    witnesses: Witnesses
    dataset: Dataset
    loaded: LoadedModel


def check_claims(found: OpenedRecord, given: Given) -> Iterator[str]:
    """Yield the inconsistencies, one sentence each; no attack is run."""
    record = found.record
    yield from check_images(record.dataset, found.dataset, given)
    yield from _check_suite(record, given)
    stages = _stages(record, given)
    yield from _check_expenses(record, stages)
    yield from _check_reach(found, stages)
    yield from _check_replacements(record, found.loaded.module)
    yield from _check_form(record)


def _check_form(record: Record) -> Iterator[str]:
    """Check the form of what a run writes."""
    threat, model = Threat.of(record.norm, record.eps), record.model
    if (record.norm, record.eps) != (threat.norm, show_fraction(threat.eps)):
        yield f"the threat model is not written as satbench does, {threat}"
    if record.schema > 1 and record.diagnosis is None:
        yield "the diagnosis is missing, which every record of schema 2 has"
    if record.schema > 1 and is_of_own_code(model.source) and not model.answers_digest:
        yield f"a model given as a {model.source} is known by its answers, which are missing"
    yield from _check_examined(record)


def _check_examined(record: Record) -> Iterator[str]:
    """Check that the diagnosis examined as many images as it does after the first attack.

    A challenge adds attacks, and leaves the diagnosis as it is.
    """
    told = record.diagnosis
    if told is None or told.images is None or not_diagnosed(told.flags):
        return
    passes = record.n + sum(stage.forwards + stage.backwards for stage in record.stages[:1])
    least = images_to_examine(passes, record.clean_correct, record.surviving())
    if not least <= told.images <= record.clean_correct:
        yield (
            f"the diagnosis examined {told.images} of {record.clean_correct} images that are "
            f"right; after such attacks it examines at least {least}"
        )


def check_images(
    recorded: DatasetInfo, dataset: Dataset, given: Given, file: str = "record"
) -> Iterator[str]:
    """Yield the differences between images found here and those of a record or certificate.

    `file` says which of the two it is.
    """
    if recorded.split != dataset.split:
        yield f"the images are of the split {dataset.split}, in the {file} of {recorded.split!r}"
    if recorded.split != USER and recorded.classes != dataset.classes:
        yield f"the images are of {dataset.classes} classes, in the {file} of {recorded.classes}"
    if given.dataset is None and recorded.name != dataset.name:
        yield f"the images are called {dataset.name}, in the {file} {recorded.name!r}"


def _check_suite(record: Record, given: Given) -> Iterator[str]:
    """Check that the attacks of the suite exist, and that the stages are their parts."""
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
            yield f"the record names a suite {name!r} that it did not run"
    for spec in filter(is_own_attack, record.suite):
        parts = _parts(spec)
        ran = [stage.part for stage in record.stages if stage.attack == spec]
        if isinstance(parts, str):
            yield f"the attack {spec} cannot be read here: {parts}"
        elif ran and sorted(set(ran)) != sorted({stage.part for stage in parts}):
            missing = {stage.part for stage in parts} ^ set(ran)
            yield f"the stages of {spec} are not its parts: {', '.join(sorted(missing))}"


def _name_of(spec: str) -> str:
    try:
        return split_spec(spec)[0]
    except SatbenchError:
        return spec


def _is_of_a_file(name: str, record: Record) -> bool:
    """Return whether an attack is a suite from a user's own file, with the digest in its name."""
    digest = record.suites.get(name, "")
    return name.startswith("suite.") and bool(digest) and name.endswith(f"-{digest[:12]}")


@cache
def _parts(spec: str) -> tuple[Stage, ...] | str:
    """Return the stages of a built-in attack, or why there are none."""
    try:
        return parse_suite([spec])
    except SatbenchError as error:
        return str(error)


def _stages(record: Record, given: Given) -> list[Stage | None]:
    """Return for each stage of a record the stage that it ran, None if that is unknown here."""
    known: dict[tuple[str, str], Stage] = {}
    for spec in record.suite:
        if is_own_attack(spec) or _name_of(spec) in given.trust:
            parts = _parts(spec)
            known |= {} if isinstance(parts, str) else {(spec, one.part): one for one in parts}
    return [known.get((stage.attack, stage.part)) for stage in record.stages]


def _check_expenses(record: Record, stages: Sequence[Stage | None]) -> Iterator[str]:
    flags = record.diagnosis.flags if record.diagnosis else []
    is_random = any(flag.name == "randomised" for flag in flags)
    for result, stage in zip(record.stages, stages, strict=True):
        if stage is None:
            continue
        title = f"{result.attack.partition('(')[0]}/{result.part}".rstrip("/")
        if result.passed_over and not isinstance(stage.attack, Selective):
            yield f"{title} passed over {result.passed_over} images, which it never does"
        expected = expenses_of(stage.attack, record.dataset.classes)
        if expected:
            yield from _check_passes(result, expected, title, is_random)


def _check_passes(
    result: StageResult, expected: Expenses, title: str, is_random: bool
) -> Iterator[str]:
    held = 0 if is_random else result.attacked - result.broken
    pairs = {
        "forwards": (result.forwards, expected.forwards),
        "backwards": (result.backwards, expected.backwards),
        "backwards of surrogates": (result.source_backwards, expected.surrogates),
    }
    for what, (count, each) in pairs.items():
        if count < LEAST * each * held:
            yield (
                f"{title} has {count} {what} on {held} surviving images, where each takes "
                f"about {each}"
            )
        most = result.attacked * (MOST * each + BESIDE)
        if count > most and what != "backwards of surrogates":
            yield f"{title} has {count} {what} on {result.attacked} images: more than {most}"


def _check_reach(found: OpenedRecord, stages: Sequence[Stage | None]) -> Iterator[str]:
    """Check that perturbations use the whole eps; otherwise eps was raised afterwards."""
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
            f"no witness moves a pixel by more than {reach:.1%} of eps {record.eps}, but such "
            "searches start with more: eps was raised after the attack"
        )


def _check_replacements(record: Record, module: nn.Module) -> Iterator[str]:
    layers = dict(module.named_modules())
    for name in record.replacements:
        if name not in layers:
            yield f"the record replaced the backward of a layer {name!r}, which the model lacks"


def flags_here(found: OpenedRecord, given: Given) -> list[Flag] | None:
    """Return the flags that the model and the verdicts give here; None if that is unknown.

    It is unknown if searches used a user's own replacement of a layer.
    """
    record = found.record
    if any(text != IDENTITY for text in record.replacements.values()):
        return None
    of_result = _flags_of_result(record, given)
    module = found.loaded.module
    if record.replacements:
        module = Replaced(module, {name: nn.Identity() for name in record.replacements})
    right = np.flatnonzero(np.array(record.verdicts) != WRONG_CLEAN)
    seed = next((stage.seed for stage in record.stages if stage.seed is not None), record.seed)
    threat = Threat.of(record.norm, record.eps)
    assumed = flags_from_assumed(record.model.assumed, record.n)
    if not_diagnosed(recorded := record.diagnosis.flags if record.diagnosis else []):
        left_out = [flag for flag in recorded if flag.name == NOT_DIAGNOSED]
        return [*left_out, *assumed, *of_result]
    most = _looked_at(record.diagnosis, len(right))
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


def _looked_at(told: Diagnosis | None, right: int) -> int:
    if told is None:
        return looked_at([], 0, right)
    return looked_at(told.flags, told.forwards, right) if told.images is None else told.images


def _flags_of_result(record: Record, given: Given) -> list[Flag]:
    """Return the flags that follow from the record.

    What a stage of a file that is not here did is only claimed.  So is a flag that only such
    stages can have raised: it can be more than is computed, and not less.
    """
    stages = _stages(record, given)
    kinds = [kind_of(stage) if stage else "white-box" for stage in stages]
    doubts = in_doubt(stages, record.stages)
    claimed = record.diagnosis.flags if record.diagnosis else []
    # Records from before the interval counted tell of fewer images too.
    also = [flag.name for flag in claimed]
    found = flags_from_result(record.verdicts, kinds, record.dataset.classes, also, doubts)
    if None not in stages:
        return found
    flags = {flag.name: flag for flag in found}
    for told in claimed:
        computed = flags[told.name].images if told.name in flags else 0
        if told.name in RESULT_FLAGS and told.name != AT_CHANCE and told.images > computed:
            flags[told.name] = told
    return list(flags.values())


_PROBED: dict[tuple[object, ...], tuple[Flag, ...]] = {}
"""A cache of the flags of models with a card: a board has several records of each."""
_MOST_PROBED = 1000


def check_flags(record: Record, here: Sequence[Flag]) -> Iterator[str]:
    """Yield where the flags of a record differ from those of the model and the verdicts here.

    Flags that follow from the record itself are the same on any machine.  A record that is older
    than the diagnosis has none.
    """
    if record.diagnosis is None:
        return
    recorded = {flag.name: flag.images for flag in record.diagnosis.flags}
    computed = {flag.name: flag.images for flag in here}
    most = max(1, round(NEARLY * record.n))
    for name in computed | recorded:
        mine, theirs = computed.get(name, 0), recorded.get(name, 0)
        is_exact = name in RESULT_FLAGS or name.startswith("assumed-")
        if abs(mine - theirs) > (0 if is_exact else most) and name != "training-data":
            yield (
                f"the flag {name} is of {mine} images here, in the record of {theirs}"
                if theirs
                else f"the flag {name}, of {mine} images here, is not in the record"
            )
