"""Workers without access to the driver's folder, and the driver, simulated in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from satbench.core.errors import SatbenchError
from satbench.core.files import write_bytes
from satbench.engine.claims import Claims, ConcludedElsewhere
from satbench.evaluation.api import evaluate_config
from satbench.evaluation.cluster.post import Post, ThroughPost, Watching
from satbench.evaluation.cluster.ray_engine import check_address
from satbench.evaluation.cluster.tasks import Task, in_order, start_of
from satbench.evaluation.config import eval_config
from satbench.evaluation.run import Finished
from satbench.records.witnesses import witnesses_path

TINY, SMALL = "fmnist-sat-tiny-relu-s0", "fmnist-sat-small-relu-s0"
ME = "a machine 1"


def evaluated(out: Path, shared: bool | ThroughPost | Watching = False) -> Finished:
    attacks = ["pgd-2", "square(queries=5)"]
    config = eval_config(TINY, attacks=attacks, n_examples=20, batch_size=8, device="cpu", out=out)
    return evaluate_config(config, shared=shared)


def through(post: Post, out: Path) -> ThroughPost:
    return ThroughPost(out, lambda method, *given: getattr(post, method)(*given))


def units(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob(".runs/*/*.npz")}


def test_units_from_workers_give_the_same_record_as_one_process(tmp_path: Path) -> None:
    alone = evaluated(tmp_path / "alone")
    out = tmp_path / "driver"
    post, workers = Post(out), [tmp_path / "worker-1", tmp_path / "worker-2"]
    for worker in workers:
        with pytest.raises(ConcludedElsewhere):
            evaluated(worker, through(post, worker))
    made = units(out)
    done = evaluated(out, Watching(lambda: True))  # it would wait forever if a unit were missing

    assert len(made) == len(set(made)) > 6
    assert units(workers[1]) == made == units(workers[0])
    assert alone.record.to_json() == timeless(done, alone)
    assert witnesses_path(alone.path).read_bytes() == witnesses_path(done.path).read_bytes()
    assert not (out / ".runs").exists()


def timeless(done: Finished, other: Finished) -> str:
    return replace(done.record, environment=other.record.environment).to_json()


def test_a_worker_finds_the_record_of_a_run_that_the_driver_has_finished(tmp_path: Path) -> None:
    out, worker = tmp_path / "driver", tmp_path / "worker"
    evaluated(out)
    share = through(Post(out), worker)
    worker.mkdir()
    share.fetch_records()

    assert evaluated(worker, share).found
    assert not (out / ".runs").exists()


def test_units_of_a_finished_run_are_neither_claimed_nor_written(tmp_path: Path) -> None:
    post = Post(tmp_path)
    unit = ".runs/1f/001-000000000"
    assert post.take(f"{unit}.claim", ME)
    post.drop(f"{unit}.claim")
    (tmp_path / ".runs/1f").rmdir()
    post.write(f"{unit}.npz", b"late")

    assert post.take(f"{unit}.claim", ME) is None
    assert not (tmp_path / ".runs/1f").exists()
    with pytest.raises(ConcludedElsewhere), Claims(tmp_path / ".runs/1f").held("unit"):
        pass


def test_a_claim_through_the_post_has_one_holder(tmp_path: Path) -> None:
    post = Post(tmp_path)
    one, other = (
        through(post, tmp_path / name).claims(tmp_path / name / ".runs/1f") for name in "ab"
    )
    with one.held("unit") as mine, other.held("unit") as theirs:
        held = (mine, theirs)
    with other.held("unit") as again:
        held += (again,)

    assert held == (True, False, True)


def test_the_driver_claims_a_unit_if_no_worker_is_alive(tmp_path: Path) -> None:
    alive = True
    claims = Watching(lambda: alive).claims(tmp_path)
    with claims.held("unit") as while_alive:
        pass
    alive = False
    with claims.held("unit") as afterwards:
        pass

    assert (while_alive, afterwards) == (False, True)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", ".runs/../../secret"])
def test_the_post_reads_no_file_outside_the_folder_of_results(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("no")
    out = tmp_path / "out"
    write_bytes(out / ".runs/1f/unit", b"yes")
    post = Post(out)

    assert post.read(".runs/1f/unit") == b"yes"
    with pytest.raises(SatbenchError, match="expected a file inside"):
        post.read(name)


def test_the_post_reports_live_workers_nodes_and_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    post = Post(Path())
    post.sign("one", "node a")
    post.sign("two", "node b")
    post.sign("three", "node b")
    first = post.seen()
    now += 20
    post.sign("two", "node b")
    post.leave("three", "node b: no such file")
    now += 20

    assert (3, ("node a", "node b"), ()) == (first.workers, first.nodes, first.faults)
    later = post.seen()
    assert (1, ("node b",), ("node b: no such file",)) == (later.workers, later.nodes, later.faults)


def tasks(*asked: tuple[str, int]) -> list[Task]:
    configs = [eval_config(name, attacks=["pgd-2"], n_examples=n) for name, n in asked]
    return [(evaluate_config, (config,)) for config in configs]


def test_the_longest_tasks_start_first_and_get_the_most_workers() -> None:
    short, long, middle = tasks((TINY, 100), (SMALL, 1000), (TINY, 1000))
    ordered = in_order([short, long, middle])
    starts = [start_of(ordered, number, 20) for number in range(20)]

    assert [long, middle, short] == ordered
    assert starts == sorted(starts)
    assert starts.count(0) > starts.count(1) > 0
    assert [0, 1, 2] == [start_of(tasks(*[(TINY, 10)] * 3), number, 3) for number in range(3)]


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":1", "ray://head:10001", "h:99999", "h:x"]
)
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(SatbenchError, match=r"^expected --address HOST:PORT"):
        check_address(address)


def test_an_unreachable_cluster_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(where: tuple[str, int], seconds: float) -> None:
        asked.append(where)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("socket.create_connection", refuse)
    with pytest.raises(SatbenchError, match="nothing answers"):
        check_address("head:6379")
    check_address(None)
    check_address("auto")

    assert [("head", 6379)] == asked
