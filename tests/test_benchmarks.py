"""Nothing is timed here: the scripts must start, and the page must be what their results say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from benchmark_scripts import Load, scripts
from torch import nn

from satbench.data import Dataset, load_dataset
from satbench.recipes import load_recipe
from satbench.studies import load_study
from satbench.studies.images import DatasetCache
from satbench.studies.plan import StudyOptions, plan_study

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SCRIPTS = (
    *("pgd", "autoattack", "before", "peak", "memory", "train", "noise", "accumulate", "warm"),
    *("workers", "scale", "compile", "report", "early_breaks", "gpu"),
    *("rivals", "fast_development", "suites_page", "tricks", "certification", "epochs"),
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_says_how_it_is_used(
    script: str, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        load(script).main(["--help"])

    assert stopped.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_a_script_hides_no_package_of_its_name_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("autoattack")
    monkeypatch.setitem(sys.modules, "autoattack", package)
    monkeypatch.delitem(sys.modules, "pgd", raising=False)
    before = list(sys.path)
    with scripts() as load:
        files = {Path(str(load(name).__file__)).parent for name in ("autoattack", "pgd")}

    assert files == {ROOT / "benchmarks"}
    assert sys.modules["autoattack"] is package
    assert "pgd" not in sys.modules
    assert sys.path == before


def test_the_page_is_what_the_committed_results_say(load: Load) -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")

    assert load("report").page(RESULTS) == page


def test_the_page_of_epochs_is_what_the_committed_result_says(load: Load) -> None:
    script = load("epochs")
    result = json.loads(script.RESULT.read_text(encoding="utf-8"))

    assert script.page(result) == script.PAGE.read_text(encoding="utf-8")


def test_runs_by_epoch_are_told_by_arm_and_unfinished_ones_are_left_out(
    load: Load, tmp_path: Path
) -> None:
    script = load("epochs")
    config = load_study("smoothness-0.03").base
    plan = plan_study(load_study("smoothness-0.03"), StudyOptions(seeds=(200, 201)), DatasetCache())
    first, second = plan.rows["SILU, PGD-2"]
    line = {"train_accuracy": 0.5, "loss": 1.0, "learning_rate": 0.1}
    for cell, epochs in ((first, 16), (second, 15)):
        assert cell.config
        folder = tmp_path / str(cell.seed)
        folder.mkdir()
        own = {**cell.config.to_dict(), "run": {"data": cell.data_digest}}
        (folder / "config.json").write_text(json.dumps(own))
        rows = [
            {"epoch": 1 + k, "held_out_clean": 0.5 + k / 100, "held_out_pgd10": 0.4 + k / 200}
            for k in range(epochs)
        ]
        text = "".join(json.dumps({**line, **row}) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(text)
    (group,) = script.groups_of(script.collect([tmp_path / "200", tmp_path / "201"]))

    assert config["epochs"] == group.epochs == 16
    assert (group.study, group.arm, len(group.clean)) == ("smoothness-0.03", "SILU, PGD-2", 1)
    # Halfway 57.0 and 43.5, at the end 65.0 and 47.5, risen by 2.0 and 1.0 in two epochs.
    cells = "| 1 | 16 | 57.0 | 65.0 | +2.0 | 43.5 | 47.5 | +1.0 |"
    assert cells in script.page({"rows": script.collect([tmp_path / "200"])["rows"]})


@pytest.mark.parametrize(
    "pattern", ["pgd*", "autoattack*", "peak", "memory", "train", "noise", "accumulate", "warm"]
)
def test_every_benchmark_has_a_committed_result(pattern: str) -> None:
    assert list(RESULTS.glob(f"{pattern}.json"))


def test_the_counted_passes_are_those_of_the_committed_records(load: Load) -> None:
    script = load("scale")
    kept = json.loads(script.PASSES.read_text(encoding="utf-8"))

    for kind, found in script.passes(script.RECORDS).items():
        assert found == pytest.approx(kept[kind])


SCALING = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_of_scaling_is_what_the_committed_results_say(load: Load) -> None:
    assert load("scale").page(RESULTS / "workers.json") == SCALING


def test_the_page_of_scaling_is_right_apart_from_the_simulated_cluster(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = SCALING.index("## A cluster, simulated")
    simulated = SCALING[begin : SCALING.index("\n\n## ", begin)]
    monkeypatch.setattr(load("scale"), "_simulated", lambda result: [simulated])

    assert load("scale").page(RESULTS / "workers.json") == SCALING


UNITS = [[m, s, 5, 0.1 * (m + 1)] for m in range(2) for s in range(3) for _ in range(4)]


def test_simulated_workers_are_as_fast_as_their_number_but_for_what_costs(load: Load) -> None:
    work = load("scale").board(UNITS)
    alone = sum(seconds for stages in work for units in stages for seconds in units)
    makespan, costs = load("cluster").makespan, load("cluster").Costs
    ideal = [makespan(work, count, costs()) for count in (1, 2, 16)]
    dear = makespan(work, 16, costs(start_up=3, entry=1, conclude=1, latency=0.005, slow=0.1))

    assert alone == pytest.approx(ideal[0])
    assert alone / 2 <= ideal[1] < 1.01 * alone / 2
    assert alone / 16 <= ideal[2] < 1.1 * alone / 16
    assert ideal[2] + 3 + 1 + 1 < dear < ideal[0]


def test_a_stage_begins_when_the_one_before_it_is_done(load: Load) -> None:
    makespan, costs = load("cluster").makespan, load("cluster").Costs

    assert makespan([[[4.0, 1.0], [1.0, 1.0]]], 2, costs()) == 5.0
    assert makespan([[[1.0], [1.0], [1.0]]], 64, costs()) == 3.0
    assert makespan([[[2.0]], [[2.0]]], 2, costs(start_up=1.0)) == 3.0


def test_every_result_says_how_and_where_it_was_made(load: Load) -> None:
    paths = [path for section in load("report").SECTIONS for path in RESULTS.glob(section.files)]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    assert {result["environment"]["threads"] for result in results} == {1}
    assert all(result["command"].startswith("python benchmarks/") for result in results)


def test_the_aims_of_pgd_name_the_cases_that_miss_them(load: Load) -> None:
    cases = (
        ("small", "robust", 1.3, 0.8),
        ("small", "weak", 3.9, 0.5),
        ("large", "weak", 5.0, 0.9),
    )
    rows = [
        {"net": net, "kind": kind, "images": 20, "contestant": who, "cpu_ratio": ratio}
        for net, kind, peer, loop in cases
        for who, ratio in (("torchattacks", peer), ("early-stopping loop", loop))
    ]

    small, everywhere, weak, loop = load("tables").aims_of({"rows": rows})

    assert small.endswith("met.")
    assert everywhere.endswith("met.")
    assert "missed in 1 of 2 cases (small net, weak, 20 images: 3.90)" in weak
    assert "missed in 1 of 3 cases (small net, weak, 20 images: 0.50)" in loop


def test_noise_at_a_batch_of_2048_on_8_processes_is_that_of_a_share() -> None:
    result = json.loads((RESULTS / "noise.json").read_text(encoding="utf-8"))
    ratios = {row["contestant"]: row["cpu_ratio"] for row in result["rows"]}

    assert (2048, 8) == (result["batch"], result["ranks"])
    assert max(ratios["process 1 of 8"], ratios["process 8 of 8"]) <= 1.2


def test_each_round_of_a_race_begins_with_another_contestant(load: Load) -> None:
    called: list[str] = []
    runners = {name: lambda name=name: called.append(name) for name in "abc"}

    load("harness").race(runners, rounds=4)

    assert "abc bca cab abc".replace(" ", "") == "".join(called)


def test_ratios_are_the_median_of_the_rounds_own_ratios(load: Load) -> None:
    harness = load("harness")
    mine = [harness.Times(cpu, 2 * cpu) for cpu in (2.0, 8.0, 30.0)]
    base = [harness.Times(cpu, cpu) for cpu in (1.0, 2.0, 10.0)]

    found = harness.clocks(mine, base)

    assert (found["cpu_ratio"], found["cpu_ratio_range"], found["wall_ratio"]) == (3, [2, 4], 6)


def test_passes_are_counted_in_the_copies_of_a_model_too(load: Load) -> None:
    import copy

    model, passes = load("harness").counting(nn.Flatten())
    x = torch.ones(5, 4, requires_grad=True)

    copy.deepcopy(model)(x).sum().backward()

    assert (passes.forwards, passes.backwards) == (5, 5)


def test_contestants_that_disagree_stop_the_benchmark(load: Load) -> None:
    pgd, survived = load("pgd"), torch.tensor([True, True, False, False])
    verdicts = dict.fromkeys(load("contestants").CONTESTANTS, survived)
    verdicts["ART"] = ~survived

    with pytest.raises(SystemExit, match="expected ART to agree"):
        pgd.check_agreement(load("cases").CASES[0], 20, verdicts, survived)


def test_contestants_that_agree_do_not_stop_it(load: Load) -> None:
    verdicts = dict.fromkeys(load("contestants").CONTESTANTS, torch.tensor([True, False]))

    load("pgd").check_agreement(load("cases").CASES[0], 20, verdicts, torch.tensor([True, False]))


def test_training_loops_whose_losses_differ_stop_the_benchmark(load: Load) -> None:
    losses = dict.fromkeys(load("trainers").TRAINERS, 2.0)

    with pytest.raises(SystemExit, match=r"^small: expected MAIR-style to train as satbench does"):
        load("train").check_agreement("small", losses | {"MAIR-style": 2.5})


def test_training_loops_of_like_losses_do_not_stop_it(load: Load) -> None:
    losses = dict.fromkeys(load("trainers").TRAINERS, 2.0)

    load("train").check_agreement("small", losses | {"MAIR-style": 2.2})


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["satbench", "MAIR-style", "Fast-AT-style"])
def test_a_training_loop_trains(name: str, load: Load) -> None:
    config = load_recipe("fmnist-sat", architecture="tiny(width=2)", batch_size=32)
    data = load_dataset("fashion-mnist", "test", 256)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        epoch = load("trainers").TRAINERS[name](config, data)
        first, *_, last = (epoch() for _ in range(4))

    assert last < first < 2.6


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_the_pixels_that_satbench_trains_on(channels: int, load: Load) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, channels, 5, 4), np.uint8)
    data = Dataset("some", "train", images, np.array([3, 1]), 10)

    x, y = load("trainers").Pictures(data)[1]

    assert (1, data.pixels(np.array([1]))[0].tolist()) == (y, x.tolist())


def test_operations_of_training_leave_out_what_nobody_needs(load: Load) -> None:
    # Two layers of 2·4·4 operations: forward and input gradient of both, forward of both, and
    # the gradient of both layers' weights and of what is between them.
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, False), nn.Linear(4, 4, False))
    data = Dataset("some", "train", np.zeros((1, 1, 2, 2), np.uint8), np.array([3]), 4)

    assert load("train").flop_per_image(model, data) == (4 + 2 + 3) * 32


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["satbench.evaluate", "satbench.attack", "early-stopping loop"])
def test_contestants_without_a_peer_leave_the_same_images(name: str, load: Load) -> None:
    case, contestants = load("cases").CASES[0], load("contestants")
    images = case.correct(12)
    expected = contestants.evaluate(case.make(), images, case.threat, 3)

    model, counted = load("harness").counting(case.make())
    found = contestants.CONTESTANTS[name](model.eval(), images, case.threat, 3)

    assert found.tolist() == expected.tolist()
    assert 0 < int(found.sum()) < 12
    assert counted.backwards >= 12


def test_a_peer_that_attacks_nothing_leaves_what_is_right_when_clean(load: Load) -> None:
    case, contestants = load("cases").CASES[0], load("contestants")
    images = case.correct(5)
    wrong = Dataset("some", "test", images.images, np.roll(images.labels, 1), 10)
    idle = contestants.whole_job(lambda model, x, y, eps, steps: x)

    assert idle(case.make(), images, case.threat, 3).all()
    assert not idle(case.make(), wrong, case.threat, 3).all()


@pytest.mark.parametrize("name", ["resnet50-robust", "wide-robust"])
def test_a_large_network_can_be_built(name: str, load: Load) -> None:
    case = next(case for case in load("cases").CASES if case.name == name)

    with torch.device("meta"):  # without its 25 to 36 million numbers
        model = case.make()

    assert sum(weights.numel() for weights in model.parameters()) > 20_000_000


def test_the_images_of_a_case_are_right_when_clean(load: Load) -> None:
    case = next(case for case in load("cases").CASES if case.name == "large-weak")
    images = case.correct(4)
    x, y = load("contestants").tensors(images)

    assert (len(images), x.shape[1:]) == (4, (3, 32, 32))
    assert load("contestants").right(case.make(), x, y).all()
