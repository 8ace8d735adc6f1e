"""The curve of robust accuracy against eps: minimum-norm attacks, every distance confirmed."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import satbench
from satbench.attacks.blame import Batch
from satbench.attacks.borrow import borrowed
from satbench.attacks.engine import Progress, device_of
from satbench.attacks.judge import predict
from satbench.attacks.minimum_norm import MinimumNorm, minimum_distances
from satbench.attacks.passes import CountingModel, Passes
from satbench.attacks.searched import Searched, Trial
from satbench.attacks.suite import Stage, parse_suite
from satbench.core.errors import SatbenchError
from satbench.core.files import file_stem
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.devices import choose_device
from satbench.eval_config import EvalConfig, first_examples
from satbench.evaluation import Silent
from satbench.generators import own_generators
from satbench.leaderboard.curves import (
    KIND,
    Curve,
    CurveAttack,
    curve_identity,
    read_curve,
    write_curve,
)
from satbench.leaderboard.record import DatasetInfo, Environment, ModelInfo
from satbench.leaderboard.witnesses import Witnesses, witnesses_path, write_witnesses
from satbench.models import load_model
from satbench.own_code import identified
from satbench.plan import device_name
from satbench.preflight import Needs, check_set_up


@dataclass(frozen=True)
class CurvePlan:
    """What a curve is to be made of, apart from the model.

    `attacks` are specs of minimum-norm attacks; the nearest point that any of them finds counts.
    """

    dataset: Dataset
    norm: str
    attacks: Sequence[str]
    seed: int = 0
    batch_size: int = 250

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise SatbenchError(f"expected a batch size of 1 or more, got {self.batch_size}")


@dataclass(frozen=True)
class Measured:
    """A curve, where it lies, and whether it was already there."""

    curve: Curve
    path: Path
    found: bool


def minimum_norm_suite(attacks: Sequence[str], norm: str) -> tuple[Stage, ...]:
    """Read minimum-norm attacks.  Raises SatbenchError for any other, or one unfit for `norm`."""
    suite = parse_suite(attacks)
    for stage in suite:
        if not isinstance(stage.attack, MinimumNorm):
            raise SatbenchError(
                f"expected attacks that look for the smallest perturbation, such as foolbox.fmn, "
                f"got {stage.title}"
            )
        if norm not in stage.traits.norms:
            raise SatbenchError(
                f"expected attacks for {norm}, got {stage.title}, which knows "
                f"{' and '.join(stage.traits.norms)} only"
            )
    return suite


def measure_config(config: EvalConfig, progress: Progress | None = None) -> Measured:
    """Measure the curve that the command line was asked for; the radius in `config` is unused."""
    device = choose_device(config.device)
    dataset = first_examples(config.dataset, config.n_examples, config.data_dir)
    with own_generators(device, config.seed):
        loaded = load_model(config.model, dataset.classes, exactly=not dataset.more_classes)
        loaded.check_images(dataset.shape, dataset.name)
        plan = CurvePlan(
            dataset, config.threat.norm, config.attacks, config.seed, config.batch_size
        )
        module = loaded.module.to(device)
        return measure_curve(module, loaded.info, plan, config.out, progress, config.fresh)


def measure_curve(
    module: nn.Module,
    info: ModelInfo,
    plan: CurvePlan,
    out: Path,
    progress: Progress | None = None,
    fresh: bool = False,
) -> Measured:
    """Measure how far the nearest adversarial point of each image lies, on the model's device.

    The curve and its points are written to the folder `out`; if the curve of the same inputs is
    there already, it is returned, unless it is to be made `fresh`.  The model comes back as it was.
    Raises SatbenchError from preflight, the judge, or attacks that do not fit.
    """
    suite = minimum_norm_suite(plan.attacks, plan.norm)
    check_set_up(module, plan.dataset, Threat.of(plan.norm, "1"), Needs.of(suite))
    info = identified(info, module, plan.dataset, device_of(module))
    data = plan.dataset
    dataset = DatasetInfo(data.name, data.split, len(data), data.classes, data.digest)
    specs = [stage.spec for stage in suite]
    identity = curve_identity(info, dataset, plan.norm, plan.seed, specs)
    stem = file_stem((info.name, dataset.name, plan.norm, KIND, identity[:8]))
    path = out / f"{stem}.json"
    if not fresh and path.exists() and (curve := read_curve(path)).identity == identity:
        return Measured(curve, path, found=True)

    nearest = _Nearest(data)
    with torch.enable_grad(), borrowed(module) as judged:
        target = Searched(judged)
        clean_seconds = _clean(judged, nearest, plan.batch_size)
        told = progress or Silent()
        costs, seconds = zip(
            *(
                _attack(judged, target, nearest, k, stage, plan, told)
                for k, stage in enumerate(suite)
            ),
            strict=True,
        )
    points = nearest.points()
    curve = Curve(
        identity=identity,
        model=info,
        dataset=dataset,
        shape=list(data.shape),
        chance=float(np.bincount(data.labels).max() / len(data)),
        norm=plan.norm,
        seed=plan.seed,
        attacks=[replace(cost, nearest=nearest.credit(k)) for k, cost in enumerate(costs)],
        distances=[float(d) if np.isfinite(d) else None for d in nearest.distances],
        points_digest=points.digest,
        environment=_environment(device_of(module), plan.batch_size, clean_seconds, seconds),
    )
    write_witnesses(points, witnesses_path(path))
    write_curve(curve, path)
    return Measured(curve, path, found=False)


class _Nearest:
    """The nearest confirmed point of each image so far, and whose it is."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.distances = np.full(len(data), np.inf)
        self.owner = np.full(len(data), -1)
        self.images: dict[int, NDArray[np.float32]] = {}

    @property
    def right(self) -> NDArray[np.int64]:
        """The images that the model gets right when clean."""
        return np.flatnonzero(self.distances > 0)

    def offer(
        self,
        owner: int,
        indices: NDArray[np.int64],
        images: NDArray[np.float32],
        distances: NDArray[np.float64],
    ) -> None:
        """Take what is nearer than what is known."""
        for index, image, distance in zip(indices.tolist(), images, distances, strict=True):
            if distance < self.distances[index]:
                self.distances[index], self.owner[index] = distance, owner
                self.images[index] = image

    def credit(self, owner: int) -> int:
        """Return for how many images the nearest point is this attack's."""
        return int((self.owner == owner).sum())

    def points(self) -> Witnesses:
        """Return the points, ordered by image."""
        indices = sorted(self.images)
        if not indices:
            return Witnesses(np.empty(0, np.int64), np.empty((0, *self.data.shape), np.float32))
        return Witnesses(np.array(indices), np.stack([self.images[index] for index in indices]))


def _clean(judged: nn.Module, nearest: _Nearest, batch_size: int) -> float:
    started = time.perf_counter()
    for batch in _batches(np.arange(len(nearest.data)), None, batch_size):
        x, y = _load(judged, nearest.data, batch)
        with Batch(judged, nearest.data, batch, "under no attack").in_a_sentence():
            wrong = (predict(judged, x) != y).cpu().numpy()
        nearest.distances[batch[wrong]] = 0
    return time.perf_counter() - started


def _attack(
    judged: nn.Module,
    target: Searched,
    nearest: _Nearest,
    number: int,
    stage: Stage,
    plan: CurvePlan,
    progress: Progress,
) -> tuple[CurveAttack, float]:
    """Attack every image that is right when clean, and return the cost and the seconds."""
    started = time.perf_counter()
    passes, found, due = Passes(), 0, nearest.right
    counting = CountingModel(target, passes)
    target.get_ready()
    trial = Trial([target])
    progress.stage(stage.title, total=len(due), done=0)
    for batch in _batches(due, stage.block, plan.batch_size):
        x, y = _load(judged, nearest.data, batch)
        block = int(batch[0]) // stage.block if stage.block else 0
        noise = Noise(plan.seed, stage.purpose, tuple(batch.tolist()), block)
        attack = cast(MinimumNorm, stage.attack)
        search = partial(minimum_distances, judged, counting, x, y, attack, plan.norm, noise)
        with Batch(judged, nearest.data, batch, f"under {stage.title}").in_a_sentence():
            points, sizes = trial.run(search, passes.mark())
        distances = sizes.cpu().numpy()
        found += int(np.isfinite(distances).sum())
        nearest.offer(number, batch, points.cpu().numpy(), distances)
        progress.advance(len(batch), int(np.isinf(nearest.distances).sum()))
    cost = CurveAttack(stage.spec, len(due), found, 0, passes.forwards, passes.backwards)
    return cost, time.perf_counter() - started


def _batches(
    due: NDArray[np.int64], block: int | None, batch_size: int
) -> Iterator[NDArray[np.int64]]:
    if block is None:
        yield from (due[start : start + batch_size] for start in range(0, len(due), batch_size))
    else:
        yield from (due[due // block == number] for number in np.unique(due // block))


def _load(
    model: nn.Module, data: Dataset, batch: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    device = device_of(model)
    return (
        torch.from_numpy(data.pixels(batch)).to(device),
        torch.from_numpy(data.labels[batch]).to(device),
    )


def _environment(
    device: torch.device, batch_size: int, clean_seconds: float, seconds: Sequence[float]
) -> Environment:
    return Environment(
        satbench=satbench.__version__,
        torch=str(torch.__version__),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=device_name(device),
        threads=torch.get_num_threads(),
        batch_size=batch_size,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        clean_seconds=round(clean_seconds, 3),
        stage_seconds=[round(second, 3) for second in seconds],
    )
