"""The workers of a study: one process per device; each claims runs."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from satbench.calling.devices import choose_device
from satbench.core.errors import SatbenchError, listed
from satbench.core.limits import whole_number
from satbench.studies.runner import Part, Runner
from satbench.studies.worker import STOPPED, Job

Say = Callable[[str], None]

_MOST = 1_024  # workers of one command at most


def parse_workers(text: str) -> tuple[str, ...]:
    """Read `cuda:all`, `cuda:0,cuda:1`, or `4`, processes on the CPU; return their devices.

    Raises SatbenchError for another text, and for a device that this machine lacks.
    """
    words = [word.strip() for word in text.split(",")]
    if words == ["cuda:all"]:
        words = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if not words:
            raise SatbenchError(
                "--workers cuda:all found no GPU that torch can use; give --workers N for N "
                "processes on the CPU"
            )
    elif len(words) == 1 and (count := whole_number(words[0])) is not None and count <= _MOST:
        words = ["cpu"] * count
    if not words or not all(word == "cpu" or word.startswith("cuda:") for word in words):
        raise SatbenchError(
            "expected --workers cuda:all, a list such as cuda:0,cuda:1, or a number of processes "
            f"on the CPU, 1 or more; got {text!r}"
        )
    return tuple(str(choose_device(word)) for word in words)


def share_out(runner: Runner, part: Part, devices: Sequence[str], say: Say, warn: Say) -> None:
    """Do the missing runs of a study with one worker process per device.

    `say` reports progress, line by line with the worker's name; `warn` reports a worker that ended
    early, while the others continue.  A Ctrl-C ends all, each at the end of its step.  Raises
    SatbenchError for failed runs, after all others are done.
    """
    total = [cell for cell in runner.plan.cells if runner.is_open(cell, part)]
    if not total:
        return
    for cell in total:  # download data once, before the workers need it
        if cell.config and not runner.models.find(cell):
            runner.images.training(cell.config)
    with TemporaryDirectory() as attempts:
        machine = runner.machine
        job = Job(
            runner.plan,
            runner.places,
            part,
            runner.images.data_dir,
            "cpu",
            machine.threads,
            machine.quiet,
            len(devices),
            Path(attempts),
        )
        _Crew([_own(job, device, devices) for device in devices], say, warn).go()
    left = [cell.label for cell in runner.plan.cells if runner.is_open(cell, part)]
    if left:
        raise SatbenchError(
            f"{len(left)} of {len(total)} runs failed: {listed(left)}; the errors are above, and "
            "the same command tries them again"
        )


def _own(job: Job, device: str, devices: Sequence[str]) -> Job:
    """Return the job for a device; processes on the CPU divide its cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shared = max(1, (cores or 1) // devices.count("cpu")) if device == "cpu" else None
    return replace(job, device=device, threads=job.threads or shared)


@dataclass
class _Crew:
    jobs: Sequence[Job]
    say: Say
    warn: Say
    stopping: bool = False

    def go(self) -> None:
        """Start all workers and wait for them.  Raises KeyboardInterrupt after all have ended."""
        started: list[subprocess.Popen[bytes]] = []
        readers: list[threading.Thread] = []
        try:
            for number, job in enumerate(self.jobs, start=1):
                process = _start()
                started.append(process)
                name = job.device if job.device != "cpu" else f"worker {number}"
                reader = threading.Thread(target=self._follow, args=(process, name, job))
                readers.append(reader)
                reader.start()
            for reader in readers:
                reader.join()
        except BaseException:
            self.stopping = True
            self._stop(started)
            raise
        finally:
            for reader in readers:
                reader.join()
            for process in started:
                _close(process)

    def _follow(self, process: subprocess.Popen[bytes], name: str, job: Job) -> None:
        if process.stdin:
            with suppress(OSError):  # it ended before it read the job: its exit code says why
                pickle.dump(job, process.stdin)
                process.stdin.flush()
        for line in process.stderr or ():
            text = line.decode(errors="replace").rstrip()
            if text and not self.stopping:
                (self.warn if " failed: " in text else self.say)(f"[{name}] {text}")
        code = process.wait()
        if code not in (0, STOPPED) and not self.stopping:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self.warn(f"[{name}] this worker {how}; the others take over its runs")

    def _stop(self, started: Sequence[subprocess.Popen[bytes]]) -> None:
        """Tell each worker to stop, and wait; a second Ctrl-C ends them at once."""
        try:
            for process in started:
                process.send_signal(signal.SIGINT)
            for process in started:
                process.wait()
        except KeyboardInterrupt:
            for process in started:
                process.kill()


def _start() -> subprocess.Popen[bytes]:
    # Its own session, so that a Ctrl-C reaches a worker only from here, and only once.
    return subprocess.Popen(
        [sys.executable, "-m", "satbench.studies.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stderr):
        if pipe:
            with suppress(OSError):  # text that an ended worker did not read
                pipe.close()
