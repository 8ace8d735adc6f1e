"""A local Ray cluster of two nodes: lost work is done again, and the record does not change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs satbench[ray]"),
]

MODELS = ("fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0")
WORDS = (
    *("eval", *MODELS, "--attack", "pgd-20", "--attack", "square(queries=200)"),
    *("--n-examples", "80", "--batch-size", "5", "--device", "cpu"),
)
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

quiet = {"num_cpus": 1, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=quiet)
other = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "kill":
        cluster.remove_node(other, allow_graceful=False)
    else:
        other = cluster.add_node(num_cpus=1)
    print("done", flush=True)
cluster.shutdown()
"""
PATIENT = """
from satbench.cli import main
from satbench.evaluation.cluster import ray_engine

ray_engine._ALONE = 600.0  # on a busy machine a worker starts late; the driver would do its units
main()
"""
UNSEEN = """
import sys
from pathlib import Path
from satbench.cli import main
from satbench.evaluation.cluster import ray_engine

start = ray_engine._Foreman.start

def blindly(self):
    self.mark = self.mark.with_name("nowhere") / self.mark.name  # no worker sees this
    post = self.mark.parents[1]
    assert post.is_dir()
    start(self)

ray_engine._Foreman.start = blindly
ray_engine._ALONE = 600.0
main()
"""
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "SATBENCH_WORKERS": "auto",
    # On a busy machine workers start slowly, and at their usual niceness of 15 they get no time.
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_worker_niceness": "0",
}


class Nodes:
    """Two nodes as processes; the second can be killed and replaced."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=ENVIRONMENT,
        )
        self.address = self._line()

    def tell(self, what: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        assert self._line() == "done"

    def end(self) -> None:
        assert self._process.stdin
        self._process.communicate(timeout=60)

    def _line(self) -> str:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.strip() == "done" or line.strip().rpartition(":")[2].isdecimal():
                return line.strip()
        raise AssertionError("the cluster ended")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    made = Nodes()
    yield made
    made.end()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The files that one process writes."""
    out = tmp_path_factory.mktemp("whole")
    done = subprocess.run(
        [*satbench(), *WORDS, "--workers", "1", "--quiet", "--out", str(out)],
        check=True,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
    )
    assert done.returncode == 0
    return written(out)


def satbench() -> list[str]:
    return [sys.executable, "-m", "satbench"]


def start(nodes: Nodes, out: Path, *more: str, by: list[str] | None = None) -> Driver:
    return Driver(
        [
            *(by or [sys.executable, "-c", PATIENT]),
            *WORDS,
            "--engine",
            "ray",
            "--address",
            nodes.address,
            "--out",
            str(out),
            *more,
        ],
        out,
    )


class Driver:
    """The running command on the cluster."""

    def __init__(self, command: list[str], out: Path) -> None:
        self.out = out
        out.mkdir(exist_ok=True)
        self.said = out.parent / f"{out.name}.stderr"
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=said, env=ENVIRONMENT
            )

    def wait_for(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 500
        while not condition():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.05)

    def units(self) -> int:
        return len(list(self.out.glob(".runs/*/*.npz")))

    def owners(self) -> set[int]:
        """The processes that hold a unit now."""
        found = set()
        for claim in self.out.glob(".runs/*/*.claim"):
            try:
                found.add(int(claim.read_text().rpartition(" ")[2]))
            except (OSError, ValueError):  # released meanwhile
                continue
        return found

    def finish(self) -> dict[str, Any]:
        assert self.process.wait(900) == 0, self.said.read_text()
        assert [path.name for path in self.out.iterdir() if path.name.startswith(".")] == []
        return written(self.out)


def written(out: Path) -> dict[str, Any]:
    """Return records without place and time, and the bytes of the witnesses."""
    told: dict[str, Any] = {path.name: path.read_bytes() for path in out.glob("*.npz")}
    for path in out.glob("*.json"):
        told[path.name] = json.loads(path.read_text())
        told[path.name].pop("environment")
    return told


def test_two_nodes_write_the_same_record_as_one_process(
    nodes: Nodes, whole: dict[str, Any], tmp_path: Path
) -> None:
    driver = start(nodes, tmp_path / "out")

    assert driver.finish() == whole
    assert len(whole) == 4
    assert "2 workers on 2 nodes" in driver.said.read_text()


def test_units_go_through_the_driver_if_workers_cannot_read_its_folder(
    nodes: Nodes, whole: dict[str, Any], tmp_path: Path
) -> None:
    script = tmp_path / "unseen.py"
    script.write_text(UNSEEN)
    driver = start(nodes, tmp_path / "out", by=[sys.executable, str(script)])

    assert driver.finish() == whole
    assert "2 workers on 2 nodes" in driver.said.read_text()


def test_a_killed_worker_is_started_again(
    nodes: Nodes, whole: dict[str, Any], tmp_path: Path
) -> None:
    driver = start(nodes, tmp_path / "out")
    driver.wait_for(lambda: driver.units() > 3 and driver.owners())
    victim = min(driver.owners() - {driver.process.pid})
    os.kill(victim, signal.SIGKILL)

    assert driver.finish() == whole


def test_a_killed_node_and_a_new_node_do_not_change_the_record(
    nodes: Nodes, whole: dict[str, Any], tmp_path: Path
) -> None:
    driver = start(nodes, tmp_path / "out")
    driver.wait_for(lambda: len(driver.owners() - {driver.process.pid}) > 1)
    before = driver.units()
    nodes.tell("kill")
    driver.wait_for(lambda: driver.units() > before)
    nodes.tell("add")

    assert driver.finish() == whole


def test_a_killed_driver_continues_where_it_stopped(
    nodes: Nodes, whole: dict[str, Any], tmp_path: Path
) -> None:
    driver = start(nodes, tmp_path / "out")
    driver.wait_for(lambda: driver.units() > 5 and driver.owners())
    workers = driver.owners()
    driver.process.kill()
    driver.process.wait()
    ended_by = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < ended_by:
        time.sleep(0.1)
    left = {path.name: path.stat().st_mtime_ns for path in driver.out.glob(".runs/*/*.npz")}
    again = start(nodes, tmp_path / "out")
    again.wait_for(lambda: again.units() > len(left))
    kept = {path.name: path.stat().st_mtime_ns for path in driver.out.glob(".runs/*/*.npz")}

    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []
    assert len(left) > 5
    assert left == {name: kept[name] for name in left if name in kept}
    assert again.finish() == whole
