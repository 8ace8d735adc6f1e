"""The environment of a record: the machine, the versions, and the time."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime

import torch

import satbench
from satbench.calling.devices import device_name
from satbench.records.record import Environment


def measured_environment(
    device: torch.device,
    batch_size: int,
    clean_seconds: float,
    seconds: Sequence[float],
    flops: float | None = None,
    joules: float | None = None,
) -> Environment:
    """Return the environment for a record: where it was computed, how long, and what it took."""
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
        flops=None if flops is None else round(flops),
        joules=None if joules is None else round(joules, 1),
    )
