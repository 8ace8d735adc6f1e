"""Evaluations on a Ray cluster: workers on its nodes do the units; the driver writes the records.

A worker is a Ray task that does all tasks of the command, as a local worker does.  If its process
or its node dies, Ray restarts it elsewhere; finished units are kept.  When nodes join the cluster,
more workers start on them.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from satbench.core.console import say
from satbench.core.errors import SatbenchError
from satbench.core.files import is_alive
from satbench.core.limits import whole_number
from satbench.engine.claims import ConcludedElsewhere, Member
from satbench.evaluation.cluster.post import Asking, InCrew, Post, Seen, ThroughPost, Watching
from satbench.evaluation.cluster.tasks import Task, changed, configs_of, in_order, start_of

_ALONE = 60.0  # seconds without a worker after which the driver does units itself
_LOOK = 1.0  # seconds between two checks of the cluster
_BEAT = 5.0  # seconds between two heartbeats of a worker
_REACH = 10.0  # seconds within which the cluster must answer
_MOST = 4_096  # workers of one command at most


@contextmanager
def on_cluster(
    tasks: Sequence[Task],
    count: int | None = None,
    address: str | None = None,
    quiet: bool = False,
) -> Iterator[Member]:
    """Let a Ray cluster do `tasks` while the block runs; yield the driver's part in them.

    `count` is the number of workers; None means one for each CPU, or for each GPU if GPUs compute.
    `address` is that of the cluster; None means the one that this machine is part of, else a new
    one on this machine while the block runs.  Workers that see the folder of results write to it;
    the others send their units to the driver's node.  Raises SatbenchError if Ray is not installed
    or the cluster cannot be reached.
    """
    ray = _connected(address)
    (out,) = {config.out for config in configs_of(tasks)}
    out.mkdir(parents=True, exist_ok=True)
    mark = _mark(out)
    try:
        foreman = _Foreman(ray, in_order(tasks), mark.absolute(), count, quiet)
        try:
            foreman.start()
            yield Watching(foreman.workers_live)
        finally:
            foreman.stop()
    finally:
        mark.unlink(missing_ok=True)
        ray.shutdown()


def _mark(out: Path) -> Path:
    """Make a file by which workers recognise the folder of results; remove old ones.

    Old ones are those of drivers that were killed.
    """
    for left in out.glob(".ray-*"):
        pid = left.name.split("-")[1]
        if pid.isdecimal() and not is_alive(int(pid)):
            left.unlink(missing_ok=True)
    mark = out / f".ray-{os.getpid()}-{uuid.uuid4().hex}"
    mark.touch()
    return mark


def _connected(address: str | None) -> Any:
    check_address(address)
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise SatbenchError("--engine ray needs Ray: pip install 'satbench[ray]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(
            address=address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=None if address else False,
            runtime_env={"env_vars": _environment()},
        )
    except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SatbenchError(
            f"expected a Ray cluster at {address or 'this machine'}: {reason}"
        ) from None
    return ray


def check_address(address: str | None) -> None:
    """Raise SatbenchError unless something listens at `HOST:PORT`; Ray itself tries for minutes.

    For None and `auto` Ray finds the address, so nothing is checked.
    """
    if address in (None, "auto"):
        return
    host, colon, port = str(address).rpartition(":")
    number = whole_number(port)
    if not colon or not host or "/" in host or number is None or not 0 < number < 65_536:
        raise SatbenchError(
            f"expected --address HOST:PORT, got {address!r}: run the command on a node of the "
            "cluster, for example with ray job submit, so that its results are stored there"
        )
    try:
        socket.create_connection((host.strip("[]"), number), _REACH).close()
    except OSError as error:
        raise SatbenchError(
            f"expected a Ray cluster at {address}, but nothing answers there: "
            f"{error.strerror or error}; `ray start --head` prints the address"
        ) from None


def _environment() -> dict[str, str]:
    """Return the environment variables of a worker: where modules and the user's zoo are."""
    own = {name: text for name, text in os.environ.items() if name.startswith("SATBENCH_")}
    return {**own, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class _Foreman:
    """The driver's side: it starts workers, more when nodes join, and reports their errors."""

    def __init__(
        self, ray: Any, tasks: Sequence[Task], mark: Path, count: int | None, quiet: bool
    ) -> None:
        self.ray, self.tasks, self.mark, self.count, self.quiet = ray, tasks, mark, count, quiet
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        kept: dict[str, Any] = {
            "num_cpus": 0,
            "max_restarts": -1,
            "max_task_retries": -1,
            "scheduling_strategy": here,
        }
        self.post = ray.remote(Post).options(**kept).remote(mark.parent)
        self.gpu = any(_on_gpu(config.device) for config in configs_of(tasks))
        self.given = ray.put(list(tasks))
        self.refs: list[Any] = []
        self._seen = Seen(0, (), ())
        self._last_alive = time.monotonic()
        self._said: set[str] = set()
        self._last = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_after, daemon=True)

    def start(self) -> None:
        """Start the workers."""
        self._add()
        self._thread.start()

    def stop(self) -> None:
        """End the workers."""
        self._over.set()
        self._thread.join()
        for ref in self.refs:
            with suppress(Exception):  # it has ended, or its node has
                self.ray.cancel(ref, force=True)

    def workers_live(self) -> bool:
        """Return whether workers live or have lived in the last minute."""
        return time.monotonic() - self._last_alive < _ALONE

    def _look_after(self) -> None:
        while not self._over.wait(_LOOK):
            with suppress(Exception):  # the cluster is changing: wait for the next check
                self._look()

    def _look(self) -> None:
        self._seen = self.ray.get(self.post.seen.remote(), timeout=10)
        if self._seen.workers:
            self._last_alive = time.monotonic()
        self._tell(f"Ray: {self._seen.workers} workers on {len(self._seen.nodes)} nodes")
        for fault in self._seen.faults:
            if fault not in self._said:
                self._said.add(fault)
                say(f"satbench: {fault}; the other workers continue")
        self._add()

    def _tell(self, text: str) -> None:
        if text != self._last and not self.quiet:
            self._last = text
            say(f"satbench: {text}")

    def _add(self) -> None:
        """Start more workers, so that each CPU or GPU of the cluster has one."""
        what = "GPU" if self.gpu else "CPU"
        wanted = self.count or int(self.ray.cluster_resources().get(what, 0))
        for number in range(len(self.refs), min(wanted, _MOST)):
            work = self.ray.remote(_work).options(
                num_cpus=0 if self.gpu else 1, num_gpus=1 if self.gpu else 0, max_retries=-1
            )
            first = start_of(self.tasks, number, max(wanted, 1))
            self.refs.append(
                work.remote(self.given, first, self.post, self.mark, Path.cwd(), self.gpu)
            )


def _on_gpu(device: str) -> bool:
    if device == "auto":
        import torch

        return torch.cuda.is_available()
    return device.startswith("cuda")


def _work(tasks: list[Task], first: int, post: Any, mark: Path, cwd: Path, gpu: bool) -> None:
    """Run a worker: do all units that no other worker does, beginning with task number `first`."""
    import ray
    import torch

    torch.set_num_threads(1)
    with suppress(OSError):  # the node does not have this folder
        os.chdir(cwd)  # paths in the command may be relative
    me = uuid.uuid4().hex
    node = f"{socket.gethostname()} {ray.get_runtime_context().get_node_id()[:8]}"

    def ask(method: str, *arguments: object) -> Any:
        return ray.get(getattr(post, method).remote(*arguments))

    over = threading.Event()
    beat = threading.Thread(target=_give_signs, args=(ask, me, node, over), daemon=True)
    beat.start()
    fault = ""
    try:
        with TemporaryDirectory() as folder:
            sees = mark.exists()
            place = mark.parent if sees else Path(folder)
            share = InCrew() if sees else ThroughPost(place, ask)
            device = {"device": "cuda:0"} if gpu else {}
            mine = [changed(task, out=place, **device) for task in tasks]
            for task in [*mine[first:], *mine[:first]]:
                fault = _do(task, share) or fault
    finally:
        over.set()
        ask("leave", me, f"{node}: {fault}" if fault else "")


def _do(task: Task, share: Member) -> str:
    """Do one task; return the error, or an empty text."""
    function, arguments = task
    if isinstance(share, ThroughPost):
        share.fetch_records()
    try:
        function(*arguments, shared=share)
    except ConcludedElsewhere:
        pass
    except Exception as error:  # the driver gets the same error, or does the rest
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return ""


def _give_signs(ask: Asking, me: str, node: str, over: threading.Event) -> None:
    ask("sign", me, node)
    while not over.wait(_BEAT):
        with suppress(Exception):  # the post is being restarted
            ask("sign", me, node)
