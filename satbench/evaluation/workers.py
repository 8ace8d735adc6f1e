"""Worker processes on this machine, which share the evaluations of a command.

Each process goes through all tasks and shares each run with the others.  `python -m
satbench.evaluation.workers` is a helper process: it reads its tasks from stdin, which stays open as
long as the command that started it lives.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from satbench.core.errors import SatbenchError
from satbench.core.stopping import stop_at_the_end_of_stdin
from satbench.engine.claims import Leading, Member
from satbench.evaluation.cluster.tasks import Task, changed, configs_of, default_count

LATE = 10.0
"""Seconds after which the default helpers start: a short command does not need them."""

_PATIENCE = 10.0  # seconds within which a helper must end
_MOST = 4_096  # workers of one command at most
_ALL_GPUS = "cuda:all"


@dataclass(frozen=True)
class Workers:
    """How many processes do the work, and where.

    `count` None means `satbench.evaluation.cluster.tasks.default_count`, or all of a cluster.
    `address` is that of a Ray cluster, None for the one of this machine.
    """

    count: int | None = 1
    engine: Literal["local", "ray"] = "local"
    address: str | None = None

    def checked(self, again: bool = False) -> Workers:
        """Return self.  Raises SatbenchError for a bad count, and with --again."""
        if self.count is not None and self.count < 1:
            raise SatbenchError(f"expected --workers of 1 or more, got {self.count}")
        if self.count is not None and self.count > _MOST:
            raise SatbenchError(f"expected --workers of at most {_MOST:,}, got {self.count:,}")
        if self.address is not None and self.engine != "ray":
            raise SatbenchError("--address needs --engine ray: it is the address of a Ray cluster")
        several = self.engine == "ray" or (self.count or 1) > 1
        if several and again:
            raise SatbenchError(
                "--workers and --engine ray share a run, but --again would start it over in each "
                "process: leave out one of them, or give another --out"
            )
        return Workers(1) if again else self


ALONE = Workers()


def cores() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextmanager
def helped(tasks: Sequence[Task], workers: Workers, quiet: bool = False) -> Iterator[bool | Member]:
    """Let other processes share `tasks` while the block runs; yield this one's part, or False.

    The caller does the tasks too, with `shared`; when it has finished, all are done.  The cores and
    threads of this process are divided among all processes.
    """
    if workers.engine == "ray":
        from satbench.evaluation.cluster.ray_engine import on_cluster

        with on_cluster(tasks, workers.count, workers.address, quiet) as share:
            yield share
        return
    devices = _gpus(tasks)
    count = workers.count or len(devices) or default_count(configs_of(tasks), len(cores()))
    if count <= 1:
        yield False
        return
    import torch

    threads = torch.get_num_threads()
    # From the start, even if no helper starts: sums may depend on the number of threads.
    torch.set_num_threads(max(1, threads // count))
    by_default = workers.count is None and not devices
    crew = _Helpers(tasks, count, devices, late=by_default)
    try:
        crew.start()
        yield Leading() if by_default else True
    finally:
        crew.end()
        torch.set_num_threads(threads)


class _Helpers:
    """The helpers of a command: all but one of `count` processes, with their devices and cores."""

    def __init__(
        self, tasks: Sequence[Task], count: int, devices: Sequence[str], late: bool
    ) -> None:
        self.tasks, self.count, self.devices, self.late = tasks, count, devices, late
        self.helpers: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(LATE, self._start_what_fits)
        self._over = False
        self._main, self._cores = threading.get_native_id(), cores()

    def start(self) -> None:
        """Start the helpers; the default ones only after the command has run for a while."""
        if self.late:
            self._timer.daemon = True
            self._timer.start()
        else:
            self._start(self.count)

    def end(self) -> None:
        """End the helpers and wait for them."""
        self._timer.cancel()
        with self._lock:
            self._over = True
        _pin(self._main, self._cores)
        for helper in self.helpers:
            _end(helper)

    def _start_what_fits(self) -> None:
        self._start(min(self.count, 1 + _more_that_fit()))

    def _start(self, count: int) -> None:
        with self._lock:
            if self._over or count < 2:
                return
            shares = shares_of(self._cores, count)
            _pin(self._main, shares[0])
            for number in range(1, count):
                start = number * len(self.tasks) // count  # each begins with a different task
                tasks = [*self.tasks[start:], *self.tasks[:start]]
                if self.devices:
                    device = self.devices[number % len(self.devices)]
                    tasks = [changed(task, device=device) for task in tasks]
                self.helpers.append(_start(tasks, shares[number]))


def shares_of(places: Sequence[int], count: int) -> list[list[int]]:
    """Divide cores among processes: equal parts, or one each, reused, if there are too few.

    >>> shares_of([0, 1, 2, 3], 2), shares_of([4, 6], 3)
    ([[0, 1], [2, 3]], [[4], [6], [4]])
    """
    if count > len(places):
        return [[places[number % len(places)]] for number in range(count)]
    ends = [number * len(places) // count for number in range(count + 1)]
    return [list(places[start:end]) for start, end in pairwise(ends)]


def _pin(thread: int, places: Sequence[int]) -> None:
    """Pin a thread, and those that it starts from now on, to cores, if the system can do it."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(thread, places)


def _gpus(tasks: Sequence[Task]) -> list[str]:
    """Return the GPUs of `--device cuda:all`; empty for another device."""
    if not any(config.device == _ALL_GPUS for config in configs_of(tasks)):
        return []
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def _more_that_fit() -> int:
    """Return how many more processes like this one fit into the free memory."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            machine = dict(line.split(":", 1) for line in file)
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            mine = dict(line.split(":", 1) for line in file)
        return int(machine["MemAvailable"].split()[0]) // int(mine["VmHWM"].split()[0])
    except (OSError, KeyError, ValueError):  # the system does not say
        return 0


def _start(tasks: Sequence[Task], places: Sequence[int]) -> subprocess.Popen[bytes]:
    import torch

    # Its own session, so that a Ctrl-C reaches a helper only from here, and only once.
    helper = subprocess.Popen(
        [sys.executable, "-m", "satbench.evaluation.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        },
        start_new_session=True,
    )
    if helper.stdin:
        with suppress(OSError):  # it ended before it read its tasks: the others do them
            pickle.dump((list(places), list(tasks)), helper.stdin)
            helper.stdin.flush()
    return helper


def _end(helper: subprocess.Popen[bytes]) -> None:
    """Close the stdin of a helper, which stops it, and wait for it."""
    if helper.stdin:
        with suppress(OSError):
            helper.stdin.close()
    try:
        helper.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        helper.kill()
        helper.wait()


def main() -> None:
    """Do the tasks on stdin.  The process that started this one reports the errors."""
    try:
        places: list[int]
        tasks: list[Task]
        places, tasks = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the command that started it
        _pin(0, places)
        stop_at_the_end_of_stdin()
        for function, arguments in tasks:
            with suppress(Exception):
                function(*arguments, shared=True)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
