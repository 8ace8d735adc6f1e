"""Several processes at the same evaluations: helpers that do what the caller does, beside it.

Each goes through all tasks and shares each run with whoever is at it.  `python -m
satbench.evaluation.workers` is a helper: its tasks come on stdin, which stays open as long as the
command lives that started it.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from satbench.core.errors import SatbenchError

Task = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of a module and its arguments, both picklable; it takes `shared=True` as well."""

_PATIENCE = 10.0  # seconds that a helper has to end


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers: int, again: bool = False) -> int:
    """Return a number of processes.  Raises SatbenchError for less than 1, and where run anew."""
    if workers < 1:
        raise SatbenchError(f"expected --workers of 1 or more, got {workers}")
    if workers > 1 and again:
        raise SatbenchError(
            "--workers shares a run that is under way, which --again would begin anew: give one "
            "of the two, or another --out"
        )
    return workers


@contextmanager
def helped(tasks: Sequence[Task], workers: int) -> Iterator[bool]:
    """Let `workers` - 1 helpers do `tasks` meanwhile; yield whether there are any.

    Whoever is in the block does the tasks too, with `shared`; when it is through, all are done.
    The threads of this process are shared out among all.
    """
    if workers <= 1:
        yield False
        return
    import torch

    threads = torch.get_num_threads()
    share = max(1, threads // workers)
    torch.set_num_threads(share)
    helpers: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(1, workers):
            start = number * len(tasks) // workers  # each begins with another task
            helpers.append(_start([*tasks[start:], *tasks[:start]], share))
        yield True
    finally:
        torch.set_num_threads(threads)
        for helper in helpers:
            _end(helper)


def _start(tasks: Sequence[Task], threads: int) -> subprocess.Popen[bytes]:
    # A session of its own: a Ctrl-C reaches a helper from here only, and only once.
    helper = subprocess.Popen(
        [sys.executable, "-m", "satbench.evaluation.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": str(threads),
        },
        start_new_session=True,
    )
    if helper.stdin:
        with suppress(OSError):  # it ended before it heard of the tasks: the others do them
            pickle.dump(list(tasks), helper.stdin)
            helper.stdin.flush()
    return helper


def _end(helper: subprocess.Popen[bytes]) -> None:
    """Close the stdin of a helper, at which it stops, and wait for it."""
    if helper.stdin:
        with suppress(OSError):
            helper.stdin.close()
    try:
        helper.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        helper.kill()
        helper.wait()


def main() -> None:
    """Do the tasks on stdin.  Whoever started them meets the same errors, and says them."""
    try:
        tasks: list[Task] = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the command that started it
        threading.Thread(target=_stop_at_the_end_of_stdin, daemon=True).start()
        for function, arguments in tasks:
            with suppress(Exception):
                function(*arguments, shared=True)
    except KeyboardInterrupt:
        sys.exit(130)


def _stop_at_the_end_of_stdin() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through the buffer, whose lock would hang at the exit
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
