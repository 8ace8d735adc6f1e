"""`make gpu`, rehearsed on the processor: its limits of time, its steps, its page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_scripts import Load

ROOT = Path(__file__).parents[1]


def test_the_page_and_the_default_ways_are_those_of_the_committed_result(load: Load) -> None:
    gpu = load("gpu")

    assert gpu.committed_page() == gpu.PAGE.read_text(encoding="utf-8")
    assert gpu.committed_ways() == gpu.ALLOWED.read_text(encoding="utf-8")


def test_the_page_says_that_it_has_not_been_run_as_long_as_no_result_is_committed(
    load: Load,
) -> None:
    gpu, said = load("gpu"), "has been run on a GPU yet"

    assert (said in gpu.committed_page()) == (not gpu.RESULT.exists())


def test_all_steps_together_take_eight_minutes_at_most(load: Load) -> None:
    gpu = load("gpu")
    limits = gpu.limits_of(list(gpu.SHARES), 8 * 60 - gpu.LAST)

    assert sum(limits.values()) + gpu.LAST == pytest.approx(480)
    assert list(gpu.SHARES) == list(load("gpu_page").ABOUT) == list(load("gpu_steps").STEPS)


SAYS = "import json, sys; json.dump({'tests': [{'collected': 7}]}, open(sys.argv[1], 'w'));"


def test_a_step_that_fails_or_hangs_is_reported_and_the_others_run(
    load: Load, tmp_path: Path
) -> None:
    gpu = load("gpu")
    rows = {name: str(gpu.rows_file(tmp_path, name)) for name in ("tests", "ways", "peers")}
    commands = {
        "tests": [sys.executable, "-c", SAYS + "print('broke'); sys.exit(3)", rows["tests"]],
        "ways": [sys.executable, "-c", "import time; time.sleep(60)"],
        "peers": [sys.executable, "-c", SAYS, rows["peers"]],
    }
    limits = {"tests": 20.0, "ways": 0.5, "peers": 20.0}
    *_, steps = gpu.drive(
        {"tests": commands["tests"], "peers": commands["peers"]}, limits, tmp_path
    )
    *_, hung = gpu.drive({"ways": commands["ways"]}, limits, tmp_path)
    page = gpu.page({"device": "cpu", "size": "tiny", "seconds": 1, "steps": {**steps, **hung}})

    assert ["failed", "done", "out of time"] == [
        one["status"] for one in (steps["tests"], steps["peers"], hung["ways"])
    ]
    assert hung["ways"]["seconds"] < 10
    assert 20 < steps["peers"]["limit"] <= 40
    assert steps["tests"]["told"] == "broke"
    assert "7 tests need a GPU" in page
    assert "1 of 3 steps ended well" in page


def test_a_step_that_has_not_begun_is_on_the_page(load: Load, tmp_path: Path) -> None:
    gpu = load("gpu")
    commands = {name: [sys.executable, "-c", ""] for name in ("tests", "ways")}
    first = next(gpu.drive(commands, {"tests": 20.0, "ways": 20.0}, tmp_path))

    assert ["done", "not begun"] == [step["status"] for step in first.values()]


def way(name: str, seconds: float, **more: Any) -> dict[str, Any]:
    row = {"net": "n", "way": name, "images": 9, "survive": 5, "weaker": [], "stronger": [3]}
    return {**row, "searched": [name.split("+")[0]], "seconds": seconds, "ratio": 1.0, **more}


BASE = way("float32", 10.0, searched=["folded"])


def result(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    steps = {
        "tests": {"status": "done", "rows": {"machine": [{"gpu": "A Fast GPU"}]}},
        "ways": {"status": "done", "rows": {"ways": [BASE, *rows]}},
    }
    return {"device": "cuda", "size": "full", "seconds": 9.0, "steps": steps, **more}


def test_the_fastest_way_that_loses_no_image_is_the_default(load: Load) -> None:
    rows = [way("bfloat16", 5.0), way("float16", 2.0, weaker=[4]), way("tf32", 8.0)]

    assert load("gpu_page").allowed(result(*rows)) == {"A Fast GPU": "bfloat16"}


@pytest.mark.parametrize(
    "row",
    [
        way("bfloat16", 9.5),
        way("bfloat16", 1.0, weaker=[2]),
        way("bfloat16", 1.0, searched=["bfloat16", "folded"]),
        {"net": "n", "way": "bfloat16", "images": 9, "error": "RuntimeError: no"},
    ],
)
def test_a_way_that_is_slow_loses_an_image_or_was_given_up_is_no_default(
    row: dict[str, Any], load: Load
) -> None:
    assert load("gpu_page").allowed(result(row)) == {}


def test_one_net_is_enough_to_forbid_a_way(load: Load) -> None:
    rows = [way("bfloat16", 1.0), {**BASE, "net": "m"}, way("bfloat16", 1.0, net="m", weaker=[0])]

    assert load("gpu_page").allowed(result(*rows)) == {}


@pytest.mark.parametrize("more", [{"device": "cpu"}, {"size": "tiny"}])
def test_a_rehearsal_allows_nothing(more: dict[str, str], load: Load) -> None:
    assert load("gpu_page").allowed(result(way("bfloat16", 1.0), **more)) == {}


def test_ways_that_were_not_all_tried_allow_nothing(load: Load) -> None:
    made = result(way("bfloat16", 1.0))
    made["steps"]["ways"]["status"] = "out of time"

    assert load("gpu_page").allowed(made) == {}


@pytest.fixture
def rows(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that runs a step on six images of one net, on the processor."""
    steps = load("gpu_steps")
    one = next(steps.nets(steps.SIZES["tiny"]))
    monkeypatch.setattr(steps, "nets", lambda size: iter([steps.some(one, 6)]))
    monkeypatch.setattr(steps, "WAYS", ("float32", "bfloat16+graph"))

    def run(name: str) -> dict[str, list[dict[str, Any]]]:
        kept: dict[str, list[dict[str, Any]]] = {}
        setting = steps.Setting(
            torch.device("cpu"),
            steps.SIZES["tiny"],
            tmp_path,
            lambda table, row: kept.setdefault(table, []).append(row),
        )
        steps.STEPS[name](setting)
        json.dumps(kept)
        return kept

    return run


def test_verdicts_are_compared_image_by_image(rows: Callable[..., Any], load: Load) -> None:
    kept = rows("agreement")
    steps = load("gpu_steps")
    cpu = steps.Outcome([-1, -1, 1, 0, 2], "", [], 1.0)
    gpu = steps.Outcome([-1, 1, -1, 0, 1], "", [], 1.0)

    assert {"weaker": [2], "stronger": [1], "other_stage": 1} == steps.differences(cpu, gpu)
    (row,) = kept["agreement"]
    assert ([], [], 0, 6) == (row["weaker"], row["stronger"], row["other_stage"], row["images"])


def test_each_way_of_searching_has_a_row_that_says_what_was_searched(
    rows: Callable[..., Any],
) -> None:
    first, second = rows("ways")["ways"]

    assert (["folded"], ["bfloat16"]) == (first["searched"], second["searched"])
    assert first["ratio"] == 1


@pytest.mark.slow
def test_two_equal_evaluations_on_a_processor_are_the_same(rows: Callable[..., Any]) -> None:
    made = rows("deterministic")["deterministic"]

    assert {False, True} == {row["deterministic"] for row in made}
    assert all(row["same_verdicts"] and row["same_witnesses"] for row in made)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_peers_leave_the_same_images(rows: Callable[..., Any]) -> None:
    made = rows("peers")["peers"]

    assert {"PGD-2", "apgd-ce"} == {row["attack"] for row in made}
    assert [0] * len(made) == [row["differ"] for row in made]


@pytest.mark.slow
def test_the_whole_command_is_rehearsed_on_the_processor(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "gpu.py"
    asked = ["--device", "cpu", "--size", "tiny", "--minutes", "60", "--out", str(tmp_path)]
    subprocess.run([sys.executable, str(script), *asked], check=True, capture_output=True)
    made = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    steps = made["steps"]

    assert {"done"} == {step["status"] for step in steps.values()}
    assert 2 == len(steps["agreement"]["rows"]["agreement"])
    assert 0 == steps["training"]["rows"]["weights"][0]["distance"]
    assert 10 <= steps["tests"]["rows"]["tests"][0]["collected"]
    assert "This is a rehearsal" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


def test_without_a_gpu_the_command_ends_in_one_sentence(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        load("gpu").main(["--out", str(tmp_path / "out")])

    assert (2, 1) == (stopped.value.code, len(capsys.readouterr().err.splitlines()))
    assert not (tmp_path / "out").exists()
