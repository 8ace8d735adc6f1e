"""The curve of robust accuracy against eps, by minimum-norm attacks with confirmed distances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from satbench.attacks import suite_digests
from satbench.attacks.minimum_norm import MinimumNorm
from satbench.attacks.suites.suite import check_suite, parse_suite
from satbench.calling.borrow import borrowed
from satbench.calling.devices import choose_device, device_of
from satbench.calling.generators import own_generators
from satbench.core.errors import SatbenchError
from satbench.core.files import file_stem
from satbench.core.progress.receiver import NoProgress, Progress
from satbench.core.threat import Threat
from satbench.curve.bounds import (
    bound_by_attack,
    bound_by_record,
    name_of,
    record_folders,
    records_of,
)
from satbench.curve.nearest import Nearest
from satbench.curve.search import SearchRun
from satbench.data import Dataset
from satbench.engine.claims import Member, found_if_concluded
from satbench.engine.journal import RunStore, known_models
from satbench.engine.machine.threads import one_thread_if_small
from satbench.engine.runner import Context, run_stages
from satbench.engine.stage import Stage
from satbench.evaluation.config import EvalConfig, first_examples
from satbench.evaluation.cost.stage_costs import costs_of
from satbench.evaluation.environment import measured_environment
from satbench.evaluation.own_code import identified
from satbench.evaluation.surrogates import NamedSurrogates, with_surrogates
from satbench.evaluation.trained_on import check_not_trained_on
from satbench.models import load_model
from satbench.preflight.preflight import Needs, check_set_up
from satbench.records.curves import (
    KIND,
    Curve,
    CurveBound,
    curve_identity,
    marks_of,
    reach_of,
    read_curve,
    write_curve,
)
from satbench.records.record import DatasetInfo, ModelInfo
from satbench.records.witnesses import read_witnesses, witnesses_path, write_witnesses


@dataclass(frozen=True)
class CurvePlan:
    """The settings of a curve, except the model.

    `attacks` are specs of minimum-norm attacks; the nearest point that any of them finds counts.
    At each eps of `marks` (None for those in a table of the curve) the attacks `at_marks` look for
    what these missed; empty means PGD-50, or Square if no attack uses gradients.  Records of the
    same model, published ones and those in the curve's folder, bound it too.
    """

    dataset: Dataset
    norm: str
    attacks: Sequence[str]
    seed: int = 0
    batch_size: int = 250
    marks: Sequence[float] | None = None
    at_marks: Sequence[str] = ()
    data_dir: Path | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise SatbenchError(f"expected a batch size of 1 or more, got {self.batch_size}")


@dataclass(frozen=True)
class Measured:
    """A curve, its path, and whether it already existed."""

    curve: Curve
    path: Path
    found: bool


def minimum_norm_suite(attacks: Sequence[str], norm: str) -> tuple[Stage, ...]:
    """Read minimum-norm attacks.  Raises SatbenchError for any other, or one without `norm`."""
    suite = parse_suite(attacks)
    for stage in suite:
        if not isinstance(stage.attack, MinimumNorm):
            raise SatbenchError(
                f"expected attacks that look for the smallest perturbation, such as foolbox.fmn, "
                f"got {stage.title}"
            )
        if norm not in stage.traits.norms:
            raise SatbenchError(
                f"expected attacks for {norm}, got {stage.title}, which supports "
                f"{' and '.join(stage.traits.norms)} only"
            )
    return suite


def measure_configs(
    configs: Sequence[EvalConfig],
    at_marks: Sequence[str] = (),
    progress: Progress | None = None,
    begins: Callable[[EvalConfig], None] = lambda config: None,
    shared: bool | Member = False,
) -> list[Measured]:
    """Measure the curves of a command; the radii in `configs` are not used.

    They have one norm and data set, and all are bounded at the marks of their common table.
    `begins` is called with each model before its curve.  Other processes may work on `shared`
    curves.
    """
    made, bounded = [], []
    for config in configs:
        begins(config)
        made.append(_measure_config(config, (), at_marks, progress, shared))
    marks = marks_of([one.curve for one in made])
    for config, before in zip(configs, made, strict=True):
        begins(config)
        again = replace(config, fresh=False)
        after = _measure_config(again, marks, at_marks, progress, shared)
        bounded.append(replace(after, found=before.found and after.found))
    return bounded


def _measure_config(
    config: EvalConfig,
    marks: Sequence[float],
    at_marks: Sequence[str],
    progress: Progress | None,
    shared: bool | Member,
) -> Measured:
    device = choose_device(config.device)
    dataset = first_examples(config.dataset, config.n_examples, config.data_dir)
    with own_generators(device, config.seed):
        loaded = load_model(config.model, dataset.classes, exactly=not dataset.more_classes)
        loaded.check_images(dataset.shape, dataset.name)
        check_not_trained_on(loaded.info, config.dataset, dataset)
        plan = CurvePlan(
            dataset,
            config.threat.norm,
            config.attacks,
            config.seed,
            config.batch_size,
            marks,
            at_marks,
            config.data_dir,
            config.timeout,
        )
        module = loaded.module.to(device)
        return measure_curve(module, loaded.info, plan, config.out, progress, config.fresh, shared)


@found_if_concluded
def measure_curve(
    module: nn.Module,
    info: ModelInfo,
    plan: CurvePlan,
    out: Path,
    progress: Progress | None = None,
    fresh: bool = False,
    shared: bool | Member = False,
) -> Measured:
    """Measure the distance of the nearest adversarial point of each image, on the model's device.

    The curve and its points are written to the folder `out`.  If the curve of the same inputs
    already exists, it is returned, unless `fresh`; it is first bounded by new records and by
    attacks at new marks.  Other processes may work on a `shared` curve.  The model does not change.
    Raises SatbenchError from preflight, the judge, or attacks that do not fit.
    """
    suite, shown = minimum_norm_suite(plan.attacks, plan.norm), progress or NoProgress()
    bounding = _bounding_suite(plan, suite)
    learnt = check_set_up(
        module,
        plan.dataset,
        Threat.of(plan.norm, "1"),
        Needs.of([*suite, *bounding]),
        plan.timeout,
        plan.batch_size,
    )
    known_info = known_models(out, info.name)
    info = identified(info, module, plan.dataset, device_of(module), known_info, learnt.look)
    data = plan.dataset
    dataset = DatasetInfo(data.name, data.split, len(data), data.classes, data.digest)
    specs = [stage.spec for stage in suite]
    inputs = _Inputs(info, dataset, curve_identity(info, dataset, plan.norm, plan.seed, specs))
    stem = file_stem((info.name, dataset.name, plan.norm, KIND, inputs.identity[:8]))
    path = out / f"{stem}.json"
    store = RunStore(out, inputs.identity, data.images.shape)
    with store.claimed(shared), one_thread_if_small(device_of(module), learnt.flops):
        store.begin(info, fresh, suite_digests([*specs, *(one.spec for one in bounding)]))
        known = None if fresh else _found(path, inputs.identity, data)
        work = _Work(plan, store, shown, shared)
        curve, nearest = known or _measure(module, inputs, suite, work)
        bounds = [
            *_by_records(module, curve, nearest, plan, out),
            *_at_marks(module, curve, nearest, bounding, work),
        ]
        with store.concluding(shared, shown.note):
            now = _found(path, inputs.identity, data) if shared else known
            if now and not _missing(bounds, now[0]):
                store.remove()
                return Measured(now[0], path, found=bool(known and not bounds))
            points = nearest.points()
            curve = replace(
                curve,
                bounds=[*curve.bounds, *bounds],
                distances=nearest.listed(),
                points_digest=points.digest,
            )
            write_witnesses(points, witnesses_path(path))
            write_curve(curve, path)
            store.remove()
    return Measured(curve, path, found=False)


def _missing(bounds: Sequence[CurveBound], curve: Curve) -> bool:
    held = {(bound.by, bound.eps) for bound in curve.bounds}
    return any((bound.by, bound.eps) not in held for bound in bounds)


@dataclass(frozen=True)
class _Inputs:
    """Everything that decides a curve, except its bounds."""

    info: ModelInfo
    dataset: DatasetInfo
    identity: str


def _bounding_suite(plan: CurvePlan, suite: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Return the attacks at the marks.  Raises SatbenchError if one does not support the norm."""
    default = "pgd-50" if any(stage.uses_gradients for stage in suite) else "square"
    threat = Threat.of(plan.norm, "1")
    bounding = parse_suite(with_surrogates(plan.at_marks or (default,), plan.dataset.name, threat))
    check_suite(bounding, threat)
    return bounding


def _found(path: Path, identity: str, data: Dataset) -> tuple[Curve, Nearest] | None:
    """Return the curve with an identity and its points, if both exist."""
    points = witnesses_path(path)
    if not (path.exists() and points.exists()):
        return None
    curve = read_curve(path)
    return (
        (curve, Nearest.of(curve, read_witnesses(points), data))
        if (curve.identity == identity)
        else None
    )


@dataclass(frozen=True)
class _Work:
    """A curve in progress: its plan, its journal and its progress bar."""

    plan: CurvePlan
    store: RunStore
    progress: Progress
    shared: bool | Member

    def context(self, threat: Threat | None = None, part: str = "") -> Context:
        """Return the context of the units; those of a `part` have their own journal."""
        store = self.store.within(part) if part else self.store
        plan = self.plan
        return Context(
            images=plan.dataset,
            threat=threat or Threat.of(plan.norm, "1"),
            journal=store,
            progress=self.progress,
            seed=plan.seed,
            batch_size=plan.batch_size,
            surrogates=NamedSurrogates(plan.dataset, plan.data_dir),
            timeout=plan.timeout,
            sharing=store.sharing(self.shared),
        )


def _measure(
    module: nn.Module, inputs: _Inputs, suite: tuple[Stage, ...], work: _Work
) -> tuple[Curve, Nearest]:
    """Run the minimum-norm attacks, or continue them; the curve has no bounds yet."""
    plan, data = work.plan, work.plan.dataset
    context = replace(work.context(), costs=costs_of(suite, data.classes))
    nearest = Nearest(data)
    with torch.enable_grad(), borrowed(module) as judged:
        run = SearchRun(judged, suite, plan.norm, nearest, context)
        run_stages(run, context)
    clean_seconds, *seconds = run.seconds
    curve = Curve(
        identity=inputs.identity,
        model=inputs.info,
        dataset=inputs.dataset,
        shape=list(data.shape),
        chance=float(np.bincount(data.labels).max() / len(data)),
        norm=plan.norm,
        seed=plan.seed,
        attacks=run.costs(),
        bounds=[],
        reach=reach_of(nearest.listed()),
        distances=nearest.listed(),
        points_digest="",
        environment=measured_environment(
            device_of(module), plan.batch_size, clean_seconds, seconds
        ),
    )
    return curve, nearest


def _by_records(
    module: nn.Module, curve: Curve, nearest: Nearest, plan: CurvePlan, out: Path
) -> list[CurveBound]:
    """Bound the curve by the records of its model that do not bound it yet."""
    done = {bound.by for bound in curve.bounds}
    new = [
        (path, record)
        for path, record in records_of(curve.model, plan.dataset, plan.norm, record_folders(out))
        if name_of(record) not in done
    ]
    with borrowed(module) as judged:
        return [
            bound_by_record(judged, nearest, path, record, plan.batch_size, plan.data_dir)
            for path, record in new
        ]


def _at_marks(
    module: nn.Module, curve: Curve, nearest: Nearest, suite: tuple[Stage, ...], work: _Work
) -> list[CurveBound]:
    """Bound the curve by attacks at marks where they have not run yet, the least eps first."""
    plan, bounds = work.plan, list[CurveBound]()
    done = {(bound.by, bound.eps) for bound in curve.bounds}
    for eps in sorted(marks_of([curve]) if plan.marks is None else plan.marks):
        due = tuple(stage for stage in suite if (stage.spec, eps) not in done)
        if eps > 0 and due:
            context = work.context(Threat.of(plan.norm, eps), part=f"at-{eps:g}")
            bounds += bound_by_attack(module, nearest, due, context)
    return bounds
