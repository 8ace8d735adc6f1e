"""Sweeps: choosing the value of a setting for each arm of a study, by held-out robust accuracy.

Weight decay alone can change robust accuracy by seven points (Pang et al., 2021, arXiv:2010.00467),
and the best value may differ between activations: Huang et al. (2023, "Revisiting residual networks
for adversarial robustness", section 4.1.2) tune it for each before they compare.  Here each arm is
trained with each value, and gets the one with the greatest mean PGD-10 accuracy on held-out
training images; test images are not used.  The run files of these trainings have the scores, so
that the choice can be repeated from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import fmean

from satbench.core.errors import SatbenchError
from satbench.recipes import parse_overrides
from satbench.recipes.values import show_override
from satbench.studies.design import Arm, Choice, Study, Sweep
from satbench.studies.images import DatasetCache
from satbench.studies.plan import StudyOptions, StudyPlan, plan_study
from satbench.studies.run_file import StudyRun
from satbench.studies.store import Places

SCORE = "pgd-10"
"""The held-out accuracy of a run that decides the choice."""

_EQUAL = 1e-9
"""Means that are closer count as equal; the first of equals is chosen."""

_UNLIKE = ("seed", "held_out", "subset")
"""Settings that would change the measured images, or that have their own option."""


def parse_sweep(text: str, seeds: tuple[int, ...] = ()) -> Sweep:
    """Read `KEY=VALUE,VALUE,…`, such as `weight_decay=1e-4,5e-4`.

    Raises SatbenchError for a setting that is unknown or not a number, and for fewer than two
    values.
    """
    key, _, values_text = (part.strip() for part in text.partition("="))
    values = [parse_overrides([f"{key}={value}"])[key] for value in values_text.split(",")]
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or key in _UNLIKE:
        raise SatbenchError(
            f"expected --sweep of a setting that is a number, such as weight_decay, got {key}"
        )
    if len(set(numbers)) < max(2, len(numbers)):
        raise SatbenchError(
            "expected --sweep with two values or more, all different, such as "
            f"weight_decay=1e-4,5e-4, got {text!r}"
        )
    return Sweep(key, tuple(numbers), seeds)


def plan_sweep(
    study: Study, sweep: Sweep, options: StudyOptions, images: DatasetCache
) -> StudyPlan:
    """Return the plan of the trainings for the choice, without evaluations.

    Raises SatbenchError if an arm or the options set the swept setting, and if no arm is trained.
    """
    trained = _trained(study)
    own = [arm.name for arm in trained if sweep.key in arm.settings]
    if own:
        raise SatbenchError(
            f"--sweep {sweep.key} is not possible: the arm {own[0]} of {study.name} sets it"
        )
    if sweep.key in options.overrides:
        raise SatbenchError(f"{sweep.key} is given twice, by --sweep and by --set: give one")
    if not trained:
        raise SatbenchError(f"--sweep has no effect: {study.name} trains nothing")
    arms = tuple(
        replace(_with(arm, sweep.key, value), name=_label(arm, sweep.key, value))
        for arm in trained
        for value in sweep.values
    )
    alone = replace(
        study, arms=arms, contrasts=(), primary=None, masked=(), axes=(), measured=False
    )
    seeds = sweep.seeds or options.seeds
    plan = plan_study(alone, replace(options, seeds=seeds, sweep=None), images)
    rows = {arm: tuple(replace(c, wanted=()) for c in cells) for arm, cells in plan.rows.items()}
    return replace(plan, rows=rows)


def plan_swept(
    study: Study, options: StudyOptions, images: DatasetCache, places: Places
) -> StudyPlan:
    """Return the plan of a study with the values that its sweep chose for the arms.

    Raises SatbenchError unless all trainings for the choice are kept.
    """
    sweep = options.sweep
    if sweep is None:
        return plan_study(study, options, images)
    choices = _choices(study, sweep, plan_sweep(study, sweep, options, images), places)
    values = {choice.arm: choice.value for choice in choices}
    plan = plan_study(_study_with(study, sweep, values), options, images)
    return replace(plan, choices=choices)


def outlook(
    study: Study,
    options: StudyOptions,
    images: DatasetCache,
    places: Places,
    say: Callable[[str], None],
) -> tuple[StudyPlan, ...]:
    """Return the plans for a dry run: the sweep, if there is one, and the study.

    If the choice is not made yet, the study is planned with the first value, and `say` reports it.
    """
    sweep = options.sweep
    if sweep is None:
        return (plan_study(study, options, images),)
    first = plan_sweep(study, sweep, options, images)
    if not _lacking(first, places):
        return first, plan_swept(study, options, images, places)
    setting = show_override(sweep.key, sweep.values[0])
    say(f"the sweep of {sweep.key} is not done yet: the study is estimated with {setting}")
    values = {arm.name: sweep.values[0] for arm in _trained(study)}
    return first, plan_study(_study_with(study, sweep, values), options, images)


def _lacking(plan: StudyPlan, places: Places) -> list[str]:
    """Return the labels of the missing trainings of a sweep."""
    return [cell.label for cell in plan.cells if places.run(cell.key) is None]


def _choices(study: Study, sweep: Sweep, plan: StudyPlan, places: Places) -> tuple[Choice, ...]:
    if missing := _lacking(plan, places):
        raise SatbenchError(
            f"the sweep of {sweep.key} lacks {len(missing)} of {len(plan.cells)} trainings: "
            f"{', '.join(missing)}; the same command without --only and --check makes them"
        )
    kept = {cell.key: places.run(cell.key) for cell in plan.cells}
    found = []
    for arm in _trained(study):
        rows = [plan.rows[_label(arm, sweep.key, value)] for value in sweep.values]
        scores = tuple(fmean(_score(kept[cell.key]) for cell in row) for row in rows)
        equal = (score > max(scores) - _EQUAL for score in scores)
        value = next(v for v, best in zip(sweep.values, equal, strict=True) if best)
        found.append(Choice(arm.name, value, show_override(sweep.key, value), scores))
    return tuple(found)


def _score(run: StudyRun | None) -> float:
    if run is None or SCORE not in run.held_out:
        key = run.key if run else ""
        raise SatbenchError(f"the run file {key}.json has no held-out accuracy: remove it")
    return float(run.held_out[SCORE])


def _study_with(study: Study, sweep: Sweep, values: Mapping[str, float]) -> Study:
    """Return a study whose arms have these values of the swept setting."""
    arms = (
        _with(arm, sweep.key, values[arm.name]) if arm.name in values else arm for arm in study.arms
    )
    return replace(study, arms=tuple(arms))


def _trained(study: Study) -> list[Arm]:
    return [arm for arm in study.arms if not arm.model]


def _with(arm: Arm, key: str, value: float) -> Arm:
    return replace(arm, settings={**arm.settings, key: value})


def _label(arm: Arm, key: str, value: float) -> str:
    return f"{arm.name}, {show_override(key, value)}"
