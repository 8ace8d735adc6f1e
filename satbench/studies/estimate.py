"""The remaining work of a study, and an estimate of its time on this machine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch

from satbench.calling.devices import choose_device
from satbench.core.specs import split_spec
from satbench.networks.build import build_network
from satbench.recipes import TrainConfig
from satbench.studies.measures import MEASURED_IMAGES, PASSES
from satbench.studies.plan import Cell, Wanted
from satbench.studies.run_file import StudyRun
from satbench.studies.runner import Runner, duration

if TYPE_CHECKING:
    from rich.table import Table

_TYPICAL = {
    "fast": (150.0, 100.0),
    "autoattack": (5800.0, 1500.0),
    "square": (3000.0, 0.0),
    "transfer": (10.0, 0.0),
    "distilled": (60.0, 10.0),
}
"""Forwards and backwards per image of suites on small robust networks, from our records."""

_AUDITED = (6700.0, 1900.0)
"""The same for AutoAttack on an image that it does not break."""

_UNKNOWN = (200.0, 100.0)
_TIMED_IMAGES, _FEW, _TIMED_SECONDS = 128, 4, 0.4


@dataclass(frozen=True)
class RunEstimate:
    """A run of a study: the source of its model, its evaluations done and missing, seconds left.

    An evaluation also counts as done if a record has its result.
    """

    run: str
    key: str
    model: str
    done: int
    missing: int
    seconds: float


class Estimate:
    """Estimates from the remaining passes of a run and the measured time of one."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._seen = _passes_seen(list(runner.places.runs().values()))
        self._pace = cache(self._measure)

    def lines(self) -> list[RunEstimate]:
        """Return a line per run, in the order in which they are made."""
        return [self._line(cell) for cell in self._runner.plan.cells]

    def seconds(self, cell: Cell) -> float:
        """Return the estimated remaining time of a run."""
        return self._line(cell).seconds

    def _line(self, cell: Cell) -> RunEstimate:
        runner = self._runner
        run = runner.places.run(cell.key)
        missing = runner.missing(cell, run)
        found = None if cell.model else runner.models.find(cell)
        if found:
            missing = [one for one in missing if not runner.is_recorded(one, found, cell)]
        unmeasured = runner.plan.study.measured and not (run and run.measures)
        origin = "given" if cell.model else found.origin if found else "to train"
        if run and not found and not cell.model and not missing and not unmeasured:
            origin = "not needed"
        training = self._training(cell.config) if origin == "to train" and cell.config else 0.0
        seconds = training + self._evaluating(cell, missing, unmeasured)
        done = len(cell.wanted) - len(missing)
        return RunEstimate(cell.label, cell.key, origin, done, len(missing), round(seconds, 1))

    def _training(self, config: TrainConfig) -> float:
        images = self._runner.images.training(config).data
        _, arguments = split_spec(config.attack or "none")
        steps = int(arguments.get("steps", 10)) if config.attack else 0
        shape = images.shape
        forward, backward = self._pace(
            config.architecture, config.activation, shape, images.classes
        )
        each = max(len(images) - config.held_out, 0) * (steps + 1)
        # Held-out images are attacked by PGD-10 after each epoch.
        held_out = 12 * config.held_out
        return config.epochs * (each + held_out) * (forward + backward)

    def _evaluating(self, cell: Cell, missing: Sequence[Wanted], unmeasured: bool) -> float:
        if not missing and not unmeasured:
            return 0.0
        images = self._runner.images.test(cell.dataset, self._runner.plan.n)
        base = cell.config or self._runner.plan.base
        forward, backward = self._pace(
            base.architecture, base.activation, images.shape, images.classes
        )
        seconds = 0.0
        for wanted in missing:
            forwards, backwards = self._passes(wanted.suite)
            seconds += len(images) * (forwards * forward + backwards * backward)
        if unmeasured:
            seconds += MEASURED_IMAGES * (PASSES[0] * forward + PASSES[1] * backward)
        return seconds

    def _passes(self, suite: tuple[str, ...]) -> tuple[float, float]:
        if _undrawn(suite) in self._seen:
            return self._seen[_undrawn(suite)]
        found = [_typical(spec, self._runner.plan.n) for spec in suite]
        return sum(one[0] for one in found), sum(one[1] for one in found)

    def _measure(
        self, architecture: str, activation: str, shape: tuple[int, int, int], classes: int
    ) -> tuple[float, float]:
        """Return the seconds of a forward and of an input-gradient backward of one image."""
        device = choose_device(self._runner.machine.device)
        with torch.random.fork_rng(devices=[]):
            network = build_network(architecture, activation, classes).eval().to(device)
            x = torch.rand(_TIMED_IMAGES, *shape, device=device)

        start = time.perf_counter()
        with torch.no_grad():
            network(x[:_FEW])
        if device.type == "cpu" and time.perf_counter() - start > _TIMED_SECONDS / 4:
            x = x[:_FEW]  # enough for a large network, where the time per image is the same

        def forward() -> None:
            with torch.no_grad():
                network(x)

        def both() -> None:
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(network(leaf).sum(), leaf)

        one, two = _seconds(forward, device), _seconds(both, device)
        return one / len(x), max(two - one, 0.0) / len(x)


def table_of(lines: Sequence[RunEstimate]) -> Table:
    """Return the runs of a study as a table for a terminal."""
    from rich.table import Table

    missing = sum(line.missing for line in lines)
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("run", footer=f"{len(lines)} runs")
    table.add_column("key", no_wrap=True)
    table.add_column("model", footer=f"{sum(line.model == 'to train' for line in lines)} to train")
    table.add_column("evaluated", justify="right", footer=f"{missing} missing")
    table.add_column("about", justify="right", footer=duration(sum(line.seconds for line in lines)))
    for line in lines:
        about = duration(line.seconds) if line.seconds else "–"
        evaluated = f"{line.done} of {line.done + line.missing}"
        table.add_row(line.run, line.key, line.model, evaluated, about)
    return table


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    """Return the shortest time of a call, among those that fit into a fraction of a second.

    On a CPU it is the process's own CPU time if that is less, so that other jobs do not count.
    """
    call()
    times: list[float] = []
    end = time.perf_counter() + _TIMED_SECONDS / 2
    while not times or time.perf_counter() < end:
        start, spent = time.perf_counter(), time.process_time()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        else:
            times.append(min(time.perf_counter() - start, time.process_time() - spent))
    return min(times)


def _passes_seen(runs: Sequence[StudyRun]) -> Mapping[tuple[str, ...], tuple[float, float]]:
    """Return the mean passes per image of each suite that was run before."""
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for run in runs:
        for one in run.outcomes:
            found.setdefault(_undrawn(one.suite), []).append(
                (one.forwards / one.n, one.backwards / one.n)
            )
    return {
        suite: (sum(f for f, _ in ones) / len(ones), sum(b for _, b in ones) / len(ones))
        for suite, ones in found.items()
    }


def _undrawn(suite: tuple[str, ...]) -> tuple[str, ...]:
    """Return a suite without the draws of its audits, which differ between runs."""
    return tuple(re.sub(r",draw=\d+", "", spec) for spec in suite)


def _typical(spec: str, n: int) -> tuple[float, float]:
    name, arguments = split_spec(spec)
    if name == "audit":  # AutoAttack on this many of n images, all survivors
        met = min(1.0, (int(arguments["sample"]) + int(arguments["weakest"])) / n)
        return met * _AUDITED[0], met * _AUDITED[1]
    if name == "pgd":
        steps = float(arguments["steps"]) * float(arguments["restarts"])
        return steps, steps
    return _TYPICAL.get(name, _UNKNOWN)
