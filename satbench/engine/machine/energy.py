"""The energy that the machine reports, in joules.

Processors report it by RAPL (Intel and AMD, the files of Linux's powercap), NVIDIA GPUs by NVML, if
its Python package is installed.  The numbers are for the whole processor and GPU, with everything
that ran on them in that time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """A counter of joules that restarts from 0 after `span`."""

    read: Callable[[], float]
    span: float = math.inf


@dataclass(frozen=True)
class Meter:
    """The energy counters of a machine; empty if it has none."""

    counters: tuple[Counter, ...]

    def read(self) -> list[float]:
        """Return the values of the counters."""
        return [counter.read() for counter in self.counters]

    def since(self, before: Sequence[float]) -> float:
        """Return the joules since `read` returned `before`; NaN if the machine has no counters.

        >>> shown = iter([10.0, 13.5])
        >>> meter = Meter((Counter(lambda: next(shown)),))
        >>> meter.since(meter.read())
        3.5
        """
        if not self.counters:
            return math.nan
        shown = zip(self.counters, before, self.read(), strict=True)
        return sum(now - then if now >= then else now - then + one.span for one, then, now in shown)


def meter_of(device: torch.device) -> Meter:
    """Return the meter of this machine's processors, and of `device` if it is a GPU."""
    index = (device.index or 0) if device.type == "cuda" else None
    return _meter(index, POWERCAP)


@cache
def _meter(gpu: int | None, powercap: Path) -> Meter:
    """Return the readable counters; on many machines only root may read those of RAPL."""
    found = [] if gpu is None else _gpu_counters(gpu)
    if gpu is not None and not found:
        return Meter(())  # without the GPU, which takes most, the sum would mislead
    return Meter(tuple(_readable([*found, *_package_counters(powercap)])))


def _package_counters(powercap: Path) -> list[Counter]:
    """Return a counter for each processor package; its sub-counters are parts of it."""
    packages = sorted(powercap.glob("intel-rapl:[0-9]*"))
    return [
        Counter(_joules_in(zone / "energy_uj"), _joules_in(zone / "max_energy_range_uj")())
        for zone in packages
        if zone.name.count(":") == 1 and (zone / "max_energy_range_uj").is_file()
    ]


def _joules_in(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text()) / 1e6


def _gpu_counters(gpu: int) -> list[Counter]:
    try:
        nvml: Any = import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(gpu)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no package, no driver, or a GPU without a counter
        return []
    return [Counter(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)]


def _readable(counters: Sequence[Counter]) -> list[Counter]:
    readable = []
    for counter in counters:
        try:
            counter.read()
        except (OSError, ValueError):
            continue
        readable.append(counter)
    return readable
