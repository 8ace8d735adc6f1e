"""The plan of a study: the models that its arms need, and the evaluations of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache, cached_property
from typing import Any

import torch

from satbench.attacks import attack_spec
from satbench.attacks.suites.suite import parse_suite
from satbench.core.digests import digest_json
from satbench.core.errors import SatbenchError
from satbench.core.specs import split_spec
from satbench.core.threat import Threat
from satbench.data import check_name
from satbench.evaluation.own_code import identified
from satbench.evaluation.surrogates import with_surrogates
from satbench.models import load_model, request_model
from satbench.recipes import TrainConfig, load_recipe, parse_overrides
from satbench.recipes.config import settings
from satbench.studies.design import Arm, Choice, Study, StudyColumn, Sweep
from satbench.studies.images import DatasetCache

EVALUATION_SEED = 0

_DESCRIPTIVE = ("recipe",)
_RELATIVE = "*base"


@dataclass(frozen=True)
class StudyOptions:
    """The user's options for a study.

    `overrides` replace settings of the recipe; settings of the arms replace these.  `seeds` is
    empty for those of the study, `n_examples` None for its number of images.  `evaluate_on` is the
    data set of the attacked images; empty for the test set of each arm's training data.  `sweep`
    chooses the value of a setting for each arm (`satbench.studies.sweep`).
    """

    overrides: Mapping[str, object] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    n_examples: int | None = None
    evaluate_on: str = ""
    sweep: Sweep | None = None


@dataclass(frozen=True)
class Wanted:
    """An evaluation that a model needs: canonical specs, in order, with a threat model."""

    suite: tuple[str, ...]
    threat: Threat


@dataclass(frozen=True)
class Cell:
    """A model of the study: trained by `config`, or given by the name `model`.

    `key` is the digest of everything that the weights depend on.  Arms with the same key share the
    cell; `label` names the first of them, for people.  `answers` identify a given model of a user's
    own code (`satbench.records.answers`).
    """

    key: str
    label: str
    seed: int
    dataset: str
    wanted: tuple[Wanted, ...]
    config: TrainConfig | None = None
    data_digest: str = ""
    model: str = ""
    answers: str = ""


@dataclass(frozen=True)
class StudyPlan:
    """The cells of a study.  `rows` has each arm's cells in the order of its seeds.

    `choices` are the values that a sweep chose; the settings of the arms include them.
    """

    study: Study
    base: TrainConfig
    options: StudyOptions
    rows: Mapping[str, tuple[Cell, ...]]
    choices: tuple[Choice, ...] = ()

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Each cell once, seed by seed, so that contrasts progress evenly.

        The arms of the primary question come first, then the others.
        """
        asked = self.study.primary.pairs if self.study.primary else ()
        primary = {name for pair in asked for name in (pair.arm, pair.baseline)}
        first = [cells for name, cells in self.rows.items() if name in primary]
        others = [cells for name, cells in self.rows.items() if name not in primary]
        found: dict[str, Cell] = {}
        for cell in (*_seed_by_seed(first), *_seed_by_seed(others)):
            found.setdefault(cell.key, cell)
        return tuple(found.values())

    @property
    def n(self) -> int:
        """The number of images that are attacked."""
        asked = self.options.n_examples
        return self.study.n_examples if asked is None else asked

    def threat_of(self, evaluation: StudyColumn) -> Threat:
        """Return the threat model of a column."""
        return scaled(Threat.parse(self.base.threat), evaluation.eps_factor)


def _seed_by_seed(rows: Sequence[Sequence[Cell]]) -> Iterator[Cell]:
    for place in range(max(map(len, rows), default=0)):
        yield from (cells[place] for cells in rows if place < len(cells))


def plan_study(study: Study, options: StudyOptions, images: DatasetCache) -> StudyPlan:
    """Plan which models a study needs.

    Raises SatbenchError for settings that are wrong or have no effect, and for training data that
    cannot be found.
    """
    if options.n_examples is not None and options.n_examples < 1:
        raise SatbenchError(f"expected 1 example or more, got {options.n_examples}")
    if options.evaluate_on:
        check_name(options.evaluate_on)
    overrides = {**study.base, **options.overrides}
    base = load_recipe(study.recipe, **_values(overrides))
    _check_effect(study, options)
    rows = {}
    for arm in study.arms:
        cells = (
            (_given(study, arm, base, options, images),)
            if arm.model
            else _trained(study, arm, base, options, images)
        )
        rows[arm.name] = cells
    return StudyPlan(study, base, options, rows)


def training_key(config: Mapping[str, Any], data_digest: str) -> str:
    """Return the key of a trained model: the digest of everything that its weights depend on."""
    values = {key: value for key, value in config.items() if key not in _DESCRIPTIVE}
    return digest_json({"config": values, "data": data_digest})[:16]


def given_key(name: str, weights_digest: str) -> str:
    """Return the key of a given model."""
    return digest_json({"model": name, "weights": weights_digest})[:16]


def scaled(threat: Threat, factor: float) -> Threat:
    """Return a threat model with its radius multiplied."""
    return Threat(threat.norm, threat.eps * Fraction(str(factor)))


def suite_for(key: str, attacks: Sequence[str], dataset: str, threat: Threat) -> tuple[str, ...]:
    """Return the specs of a suite for one model, in the form of a record of that data set.

    An audit has a separate sample for each model, drawn by the model's key, so that the audits of a
    study can be counted together.
    """
    return tuple(_drawn(key, spec) for spec in _canonical_suite(tuple(attacks), dataset, threat))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read `0-4`, `0,2,5`, `3` (seed 3), or a count, `5x`: seeds 0 to 4.  Raises SatbenchError."""
    count = text.strip().removesuffix("x")
    try:
        if count != text.strip():
            seeds = list(range(int(count)))
        else:
            seeds = [seed for part in text.split(",") for seed in _span(part)]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds):
        raise SatbenchError(
            "expected seeds such as 0-4, 0,2,5 or 0 (that seed only), or a count of them such as "
            f"5x (seeds 0 to 4); got {text!r}"
        )
    return tuple(seeds)


@cache
def _canonical_suite(attacks: tuple[str, ...], dataset: str, threat: Threat) -> tuple[str, ...]:
    spelt_out = with_surrogates(attacks, dataset, threat)
    return tuple(dict.fromkeys(stage.spec for stage in parse_suite(spelt_out)))


def _drawn(key: str, spec: str) -> str:
    """Return the spec of an audit with the draw of a model's key; others unchanged."""
    name, arguments = split_spec(spec)
    if name != "audit" or "draw" in arguments:
        return spec
    return attack_spec(f"{spec[:-1]},draw={int(key[:8], 16)})")


def _span(part: str) -> range:
    first, dash, last = part.partition("-")
    return range(int(first), int(last if dash else first) + 1)


def _trained(
    study: Study, arm: Arm, base: TrainConfig, options: StudyOptions, images: DatasetCache
) -> tuple[Cell, ...]:
    changes = _values({**study.base, **options.overrides, **_resolved(arm, base)})
    config = load_recipe(study.recipe, **changes)
    if config.threat != base.threat:
        raise SatbenchError(
            f"the arm {arm.name} of {study.name} trains with {config.threat}, the others with "
            f"{base.threat}: their evaluations could not be compared"
        )
    digest = images.training_digest(config)
    dataset = options.evaluate_on or config.dataset
    cells = []
    for seed in options.seeds or study.default_seeds:
        seeded = replace(config, seed=seed)
        key = training_key(seeded.to_dict(), digest)
        label = f"{arm.name}, seed {seed}"
        wanted = _wanted(study, key, dataset, config.threat)
        cells.append(Cell(key, label, seed, dataset, wanted, seeded, digest))
    return tuple(cells)


def _given(
    study: Study, arm: Arm, base: TrainConfig, options: StudyOptions, images: DatasetCache
) -> Cell:
    dataset = options.evaluate_on or base.dataset
    request = request_model(arm.model)
    digest, answers = request.card.weights_digest if request.card else "", ""
    if not request.card:
        asked = images.test(dataset, options.n_examples or study.n_examples)
        loaded = load_model(request, asked.classes)
        info = identified(loaded.info, loaded.module, asked, torch.device("cpu"))
        digest, answers = info.weights_digest, info.answers
    key = given_key(arm.model, digest)
    wanted = _wanted(study, key, dataset, base.threat)
    return Cell(key, arm.name, 0, dataset, wanted, model=arm.model, answers=answers)


def _wanted(study: Study, key: str, dataset: str, threat: str) -> tuple[Wanted, ...]:
    found = []
    for evaluation in study.evaluations:
        if evaluation.attacks:
            within = scaled(Threat.parse(threat), evaluation.eps_factor)
            suite = suite_for(key, evaluation.attacks, dataset, within)
            found.append(Wanted(suite, within))
    return tuple(dict.fromkeys(found))


def _check_effect(study: Study, options: StudyOptions) -> None:
    trained = [arm for arm in study.arms if not arm.model]
    for key in options.overrides:
        if key == "seed":
            raise SatbenchError("give the seeds of a study with --seeds, not with --set seed")
        own = [str(arm.settings[key]) for arm in trained if key in arm.settings]
        if own and len(own) == len(trained) and not any(one.endswith(_RELATIVE) for one in own):
            raise SatbenchError(f"--set {key} has no effect: every arm of {study.name} sets it")


def _resolved(arm: Arm, base: TrainConfig) -> dict[str, object]:
    """Return an arm's settings with `2*base` multiplied out."""
    found: dict[str, object] = {}
    for key, value in arm.settings.items():
        times, relative, rest = str(value).partition(_RELATIVE)
        if not (isinstance(value, str) and relative and not rest and key in settings()):
            found[key] = value
            continue
        own = getattr(base, key)
        factor = int(times)
        found[key] = tuple(factor * one for one in own) if isinstance(own, tuple) else factor * own
    return found


def _values(changes: Mapping[str, object]) -> dict[str, object]:
    """Return settings in the form of the recipe; texts are read like --set."""
    found: dict[str, object] = {}
    for key, value in changes.items():
        found.update(
            parse_overrides([f"{key}={value}"]) if isinstance(value, str) else {key: value}
        )
    return found


__all__ = [
    "EVALUATION_SEED",
    "Cell",
    "StudyOptions",
    "StudyPlan",
    "Wanted",
    "given_key",
    "parse_seeds",
    "plan_study",
    "scaled",
    "suite_for",
    "training_key",
]
