"""Machines that an evaluation may run on: named GPUs, and the machines of records.

The rates of named GPUs are their makers' published peaks in float32.  No network reaches them, so
the time at the peak is a lower bound.  If a record has its FLOPs, the rate of its machine is
measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from satbench.records.record import Record


@dataclass(frozen=True)
class RatedMachine:
    """A machine and its FLOPs a second.

    `basis` says where the rate is from.  If `is_peak`, it is a published peak, which bounds the
    time from below.
    """

    name: str
    rate: float
    basis: str
    is_peak: bool = False


@dataclass(frozen=True)
class _Sheet:
    """A line of a data sheet: teraFLOPs a second in float32, in which models are searched."""

    name: str
    float32: float
    source: str


_SHEETS = (
    _Sheet("T4", 8.1, "NVIDIA T4 data sheet, 2019"),
    _Sheet("V100", 15.7, "NVIDIA V100 SXM2 data sheet, 2020"),
    _Sheet("RTX-4090", 82.6, "NVIDIA Ada GPU architecture paper, 2022"),
    _Sheet("L4", 30.3, "NVIDIA L4 data sheet, 2023"),
    _Sheet("A100", 19.5, "NVIDIA A100 data sheet, 2020"),
    _Sheet("H100", 67.0, "NVIDIA H100 SXM data sheet, 2023"),
    _Sheet("H200", 67.0, "NVIDIA H200 SXM data sheet, 2024"),
)

HERE = "here"
"""The name of this machine in a price."""


def machine_names() -> list[str]:
    """Return the names that can have a price."""
    return [HERE, *(sheet.name for sheet in _SHEETS)]


def named_machines() -> list[RatedMachine]:
    """Return the named GPUs, with their published peaks in float32 without tensor cores.

    >>> [one.rate for one in named_machines() if one.name == "A100"]
    [19500000000000.0]
    """
    return [
        RatedMachine(sheet.name, 1e12 * sheet.float32, "published float32 peak", is_peak=True)
        for sheet in _SHEETS
    ]


def with_threads(device: str, threads: int) -> str:
    """Return the name of a machine.

    >>> with_threads("cpu", 1), with_threads("cpu", 2), with_threads("NVIDIA H200", 8)
    ('cpu, 1 thread', 'cpu, 2 threads', 'NVIDIA H200')
    """
    if device != "cpu":
        return device
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"


def measured_machines(records: Iterable[Record]) -> list[RatedMachine]:
    """Return the machines of records that have their FLOPs, with the measured rates."""
    flops: dict[str, list[float]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    for record in records:
        environment = record.environment
        spent = float(environment.clean_seconds) + sum(map(float, environment.stage_seconds))
        others = any(stage.source_forwards or stage.source_backwards for stage in record.stages)
        # In a shorter run the start dominates; the FLOPs of surrogates are not in the record.
        if environment.flops and spent > 1.0 and not others:
            name = with_threads(environment.device, environment.threads)
            flops[name].append(float(environment.flops))
            seconds[name].append(spent)
    return [
        RatedMachine(
            name, sum(flops[name]) / sum(seconds[name]), f"measured in {_records(flops[name])}"
        )
        for name in sorted(flops)
    ]


def _records(found: list[float]) -> str:
    return "1 record" if len(found) == 1 else f"{len(found)} records"
