"""Shared code of the benchmarks: rounds in rotating order, clocks, passes, the environment."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.runner import CLEAN, SURVIVED, BatchResult, Context
from satbench.engine.stage import Stage
from satbench.engine.suite_run import run_suite

BATCH = 250  # satbench's own default

Call = TypeVar("Call", bound=Callable[[], object])


@dataclass(frozen=True)
class Times:
    """The process CPU time and wall time of one call, in seconds."""

    cpu: float
    wall: float


def measure(call: Callable[[], object]) -> Times:
    """Call once and return the times."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Times(time.process_time() - cpu, time.perf_counter() - wall)


def race(
    contestants: Mapping[str, Call], rounds: int, clock: Callable[[Call], Times] = measure
) -> dict[str, list[Times]]:
    """Time every contestant once per round by `clock`; each round starts with the next contestant.

    So no contestant always runs first, or always after the same other one.
    """
    names = list(contestants)
    times: dict[str, list[Times]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(clock(contestants[name]))
            log(f"round {number + 1}/{rounds}: {name} {times[name][-1].cpu:.2f} CPU s")
    return times


def clocks(times: list[Times], base: list[Times]) -> dict[str, Any]:
    """Return medians in seconds, and per-round ratios to `base` (above 1: `base` is faster)."""
    cpu = [mine.cpu / other.cpu for mine, other in zip(times, base, strict=True)]
    wall = [mine.wall / other.wall for mine, other in zip(times, base, strict=True)]
    return {
        "cpu_seconds": short(np.median([t.cpu for t in times])),
        "wall_seconds": short(np.median([t.wall for t in times])),
        "cpu_ratio": short(np.median(cpu)),
        "cpu_ratio_range": [short(min(cpu)), short(max(cpu))],
        "wall_ratio": short(np.median(wall)),
    }


class Counted(nn.Module):
    """A layer that counts the images which pass through it, forward and backward.

    What is made of a model goes on counting: a copy of this is this, and fast copies share it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forwards = self.backwards = 0

    def __deepcopy__(self, memo: object) -> Counted:
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        self.forwards += len(x)
        seen: Tensor = _CountBackward.apply(x, self)
        return seen


class _CountBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counted: Counted) -> Tensor:
        ctx.counted = counted
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.counted.backwards += len(grad)
        return grad, None


def counting(model: nn.Module) -> tuple[nn.Module, Counted]:
    """Put a layer in front of `model` that counts its passes, and those of its copies."""
    counted = Counted()
    return nn.Sequential(counted, model), counted


class Memory:
    """The engine's journal, kept in memory."""

    def __init__(self) -> None:
        self.results: list[BatchResult] = []

    def finished(self) -> Iterable[BatchResult]:
        """Nothing is finished when a run starts."""
        return ()

    def write(self, result: BatchResult) -> None:
        """Keep one batch."""
        self.results.append(result)

    def search_passes(self) -> tuple[int, int]:
        """Return the forwards and backwards of the searches, as a record counts them."""
        searches = [result for result in self.results if result.stage != CLEAN]
        return sum(r.forwards for r in searches), sum(r.backwards for r in searches)

    def judged(self) -> int:
        """Return how many images went through the clean pass and the judge."""
        return sum(len(result.indices) for result in self.results)


def run_engine(
    model: nn.Module, dataset: Dataset, threat: Threat, suite: tuple[Stage, ...]
) -> tuple[NDArray[np.bool_], Memory]:
    """Run the inner engine of `satbench.evaluate` alone: clean pass, fast copy, suite, judge.

    No user calls it: it is timed beside itself only.  Returns which images survive, (N,), and the
    journal.
    """
    journal = Memory()
    verdicts = run_suite(model, suite, Context(dataset, threat, journal, batch_size=BATCH))
    return verdicts == SURVIVED, journal


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the result there")
    return made


def finish(rows: list[dict[str, Any]], to: Path | None, **more: object) -> dict[str, Any]:
    """Return the whole result, with its command and environment; write it to the file `to`."""
    command = shlex.join(["python", "benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    result = {"command": command, "environment": environment(), **more, "rows": rows}
    if to:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def environment() -> dict[str, Any]:
    """Return the environment of a measurement: processor, load, threads, versions."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "load": [short(load) for load in os.getloadavg()],
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "satbench": _version("satbench"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each package, `-` for a missing one."""
    return {package: _version(package) for package in packages}


def log(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def short(value: float) -> float:
    """Round to four digits."""
    return float(f"{float(value):.4g}")
