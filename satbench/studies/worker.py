"""A worker process of `satbench study --workers`, which reads its job from stdin.

It claims runs until none is left.  Its stdin stays open as long as the command that started it
lives; at the end of stdin it stops as after a Ctrl-C.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from satbench.core.stopping import stop_at_the_end_of_stdin
from satbench.core.text.terminal import tell

if TYPE_CHECKING:
    from satbench.studies.plan import StudyPlan
    from satbench.studies.runner import Part
    from satbench.studies.store import Places

STOPPED, FAILED = 130, 1
"""Exit codes other than 0."""


@dataclass(frozen=True)
class Job:
    """The job of a worker: all runs of a plan that no other of the `workers` does.

    `attempts` is the folder of failed runs (`satbench.studies.attempts`).
    """

    plan: StudyPlan
    places: Places
    part: Part
    data_dir: Path | None
    device: str
    threads: int | None
    quiet: bool
    workers: int
    attempts: Path


def main() -> None:
    """Do the job on stdin; print one line if it ends early."""
    try:
        job = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the command that started it
        stop_at_the_end_of_stdin()
        _work(job)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except Exception as error:  # any error; the other workers continue
        _say(f"{type(error).__name__}: {' '.join(str(error).split())}")
        sys.exit(FAILED)


def _work(job: Job) -> None:
    import torch

    from satbench.studies.attempts import Attempts
    from satbench.studies.estimate import Estimate
    from satbench.studies.images import DatasetCache
    from satbench.studies.runner import Machine, Runner

    if job.device.startswith("cuda"):
        torch.cuda.set_device(torch.device(job.device))
    say = (lambda text: None) if job.quiet else _say
    machine = Machine(job.device, job.threads, job.quiet, say)
    runner = Runner(job.plan, job.places, DatasetCache(job.data_dir), machine)
    estimate = Estimate(runner)
    runner.carry_out(
        job.part,
        lambda cell: estimate.seconds(cell) / job.workers,
        Attempts(job.attempts, _say),
    )


def _say(text: str) -> None:
    tell(text, err=True)


if __name__ == "__main__":
    main()
