"""A sweep chooses a value of a setting for each arm by held-out accuracy, then evaluates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.studies import Study
from satbench.studies.design import Arm, Sweep
from satbench.studies.images import DatasetCache
from satbench.studies.plan import StudyOptions
from satbench.studies.store import Places
from satbench.studies.sweep import outlook, parse_sweep, plan_sweep, plan_swept
from satbench.training.run import run_training

pytest.importorskip("matplotlib")
# The page binds load_study when it is imported; it must not bind the one of a test below.
import_module("satbench.studies.pages.build")

VALUES = LOW, HIGH = (5e-4, 0.05)
SWEEP = Sweep("weight_decay", VALUES)
OPTIONS = StudyOptions(n_examples=12, sweep=SWEEP)


def sweep(*words: str) -> Result:
    """Call the command with folders `s`, `r` and `pages` in the current folder."""
    given = ("study", "made", "--n-examples", "12", "--device", "cpu", "--docs", "pages")
    values = ("--sweep", "weight_decay=5e-4,0.05", "--quiet")
    return CliRunner().invoke(cli, (*given, "--store", "s", "--results", "r", *values, *words))


@pytest.fixture(scope="session")
def plain_study(made_study: Study) -> Study:
    return replace(made_study, measured=False)


class Trained(list[tuple[str, float, int]]):
    """The trainings in order: activation, weight decay, seed.  It can stop before one of them."""

    stop_before = -1

    def count(self, config: Any, *rest: Any) -> Any:
        if len(self) == self.stop_before:
            raise KeyboardInterrupt
        self.append((config.activation, config.weight_decay, config.seed))
        return run_training(config, *rest)


def serve(study: Study, patch: pytest.MonkeyPatch, folder: Path) -> Trained:
    """Replace every study by this one, without figures, in an empty folder."""
    patch.setattr("satbench.studies.load_study", lambda *_: study)
    patch.setattr("satbench.studies.pages.build.pictures_of", lambda _: {})
    patch.setattr("satbench.studies.pages.build.write_figures", lambda *_: [])
    patch.setattr("satbench.studies.estimate.Estimate._measure", lambda *_: (1e-3, 1e-3))
    patch.chdir(folder)
    trained = Trained()
    patch.setattr("satbench.studies.runner.run_training", trained.count)
    return trained


@pytest.fixture(scope="session")
def made_sweep(
    plain_study: Study,
    serve_noise: Callable[[pytest.MonkeyPatch], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Trained, list[int]]:
    """Run a sweep that is stopped after three trainings, and run it again; -> the exit codes."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        serve_noise(patch)
        trained = serve(plain_study, patch, folder)
        trained.stop_before = 3
        codes = [sweep().exit_code]
        trained.stop_before = -1
        codes.append(sweep().exit_code)
    return folder, trained, codes


@pytest.fixture
def swept(
    made_sweep: tuple[Path, Trained, list[int]],
    plain_study: Study,
    noise_images: DatasetCache,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Places:
    """Return the places of the sweep: a copy that a test may change."""
    shutil.copytree(made_sweep[0], tmp_path / "copy")
    serve(plain_study, monkeypatch, tmp_path / "copy").stop_before = 0
    return Places(Path("s"), Path("r"))


@pytest.fixture
def trained(
    plain_study: Study, noise_images: DatasetCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Trained:
    """Serve the study in an empty folder; return the list of trainings."""
    return serve(plain_study, monkeypatch, tmp_path)


def with_scores(places: Places, scores: dict[tuple[str, float], list[float]]) -> None:
    """Replace the held-out accuracies in run files, by activation and value, one per seed."""
    for run in places.runs().values():
        score = scores[run.activation, run.training["weight_decay"]][run.seed]
        places.write(replace(run, held_out={**run.held_out, "pgd-10": score}))


def test_a_stopped_sweep_continues_and_trains_each_value_once(
    made_sweep: tuple[Path, Trained, list[int]],
) -> None:
    _, trained, codes = made_sweep
    wanted = {(a, v, seed) for a in ("relu", "silu") for v in VALUES for seed in (0, 1)}

    assert (8, wanted) == (len(trained), set(trained))
    assert [True, False] == [code != 0 for code in codes]


def test_a_finished_sweep_trains_nothing(swept: Places) -> None:
    assert 0 == sweep().exit_code  # a training would be stopped


def test_each_arm_is_evaluated_at_the_value_with_the_best_held_out_accuracy(
    swept: Places, plain_study: Study, noise_images: DatasetCache
) -> None:
    plan = plan_swept(plain_study, OPTIONS, noise_images, swept)
    for choice, cells in zip(plan.choices, plan.rows.values(), strict=True):
        activation = {"ReLU": "relu", "SILU": "silu"}[choice.arm]
        runs = [r for r in swept.runs().values() if r.activation == activation]
        means = {
            v: np.mean([r.held_out["pgd-10"] for r in runs if r.training["weight_decay"] == v])
            for v in VALUES
        }
        assert choice.scores == pytest.approx([means[v] for v in VALUES])
        assert means[choice.value] == max(means.values())
        assert {choice.value} == {cell.config.weight_decay for cell in cells if cell.config}
    chosen = {cell.key for cell in plan.cells}
    assert chosen == {key for key, run in swept.runs().items() if run.outcomes}
    assert 8 == len(swept.runs())


def test_each_arms_value_is_chosen_by_the_mean_over_seeds(
    swept: Places, plain_study: Study, noise_images: DatasetCache
) -> None:
    scores = {
        ("relu", LOW): [0.5, 0.1],
        ("relu", HIGH): [0.4, 0.4],
        ("silu", LOW): [0.3, 0.3],
        ("silu", HIGH): [0.2, 0.4],  # a tie: the first value wins
    }
    with_scores(swept, scores)
    plan = plan_swept(plain_study, OPTIONS, noise_images, swept)

    assert {"ReLU": HIGH, "SILU": LOW} == {one.arm: one.value for one in plan.choices}
    assert [pytest.approx((0.3, 0.4)), pytest.approx((0.3, 0.3))] == [
        one.scores for one in plan.choices
    ]


@pytest.mark.slow
def test_the_page_shows_the_choice_and_check_repeats_it(swept: Places) -> None:
    choices = json.loads(sweep("--json").stdout)["choices"]
    page = Path("pages/made.md").read_text()

    assert ["ReLU", "SILU"] == [one["arm"] for one in choices]
    for one in choices:
        row = next(line for line in page.splitlines() if line.startswith(f"| {one['arm']} | `w"))
        assert f"`{one['setting']}`" in row
        assert f"**{100 * max(one['scores']):.1f}**" in row
        assert 1 == row.count("**") // 2
    assert "--sweep weight_decay=0.0005,0.05" in page
    assert 0 == sweep("--check").exit_code

    other = 1.0 if choices[0]["value"] == HIGH else 0.0
    with_scores(
        swept,
        {(a, v): [other if v == LOW else 1 - other] * 2 for a in ("relu", "silu") for v in VALUES},
    )
    assert 1 == sweep("--check").exit_code


def test_a_sweep_can_use_other_seeds_than_the_study(
    plain_study: Study, noise_images: DatasetCache
) -> None:
    plan = plan_sweep(plain_study, replace(SWEEP, seeds=(7,)), OPTIONS, noise_images)

    assert [7] * 4 == [cell.seed for cell in plan.cells]


@pytest.mark.slow
def test_a_dry_run_counts_each_training_once_and_writes_nothing(
    trained: Trained, tmp_path: Path
) -> None:
    lines = json.loads(sweep("--dry-run", "--json").stdout)
    assert (8, 8) == (len(lines), len({line["key"] for line in lines}))
    assert {"to train"} == {line["model"] for line in lines}
    assert (4, 4) == tuple(sum(line["missing"] == n for line in lines) for n in (0, 2))
    assert all(line["seconds"] > 0 for line in lines)
    assert [] == trained
    assert [] == list(tmp_path.iterdir())


def test_after_the_sweep_a_dry_run_uses_the_chosen_values(
    swept: Places, plain_study: Study, noise_images: DatasetCache
) -> None:
    said: list[str] = []
    places = replace(swept, results=Path("none"))
    before = outlook(plain_study, OPTIONS, noise_images, places, said.append)
    after = outlook(plain_study, OPTIONS, noise_images, swept, said.append)

    assert (0, 2, 1) == (len(before[1].choices), len(after[1].choices), len(said))


@pytest.mark.sampled(1)
@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("words", [("--check",), ("--only", "page"), ("--only", "evaluate")])
def test_the_page_of_an_unfinished_sweep_is_refused(words: tuple[str, ...]) -> None:
    error = sweep(*words).exception

    assert isinstance(error, SatbenchError)
    assert "lacks 8 of 8 trainings" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        *("weight_decay", "weight_decay=", "weight_decay=1e-4", "weight_decay=1e-4,0.0001"),
        *("weight_decay=a,b", "decay=1,2", "activation=relu,silu", "nesterov=true,false"),
        *("milestones=1,2", "seed=0,1", "held_out=8,16", ""),
    ],
)
def test_an_invalid_sweep_is_refused(text: str) -> None:
    with pytest.raises(SatbenchError):
        parse_sweep(text)


def test_a_setting_in_a_sweep_cannot_be_set_elsewhere(
    plain_study: Study, noise_images: DatasetCache
) -> None:
    own = replace(
        plain_study,
        arms=(*plain_study.arms, Arm("own", {"activation": "elu", "weight_decay": 0.0})),
    )
    with pytest.raises(SatbenchError, match="the arm own of made sets it"):
        plan_sweep(own, SWEEP, OPTIONS, noise_images)
    both = replace(OPTIONS, overrides={"weight_decay": 0.1})
    with pytest.raises(SatbenchError, match="given twice"):
        plan_sweep(plain_study, SWEEP, both, noise_images)
    given = replace(plain_study, arms=(Arm("given", model="x"),), contrasts=())
    with pytest.raises(SatbenchError, match="made trains nothing"):
        plan_sweep(given, SWEEP, OPTIONS, noise_images)


def test_sweep_seeds_need_a_sweep() -> None:
    done = CliRunner().invoke(cli, ("study", "activations", "--sweep-seeds", "0"))

    assert isinstance(done.exception, SatbenchError)


def test_a_value_out_of_range_is_refused_before_anything_is_trained(
    plain_study: Study, noise_images: DatasetCache
) -> None:
    with pytest.raises(SatbenchError, match="expected weight_decay of 0 or more"):
        plan_sweep(plain_study, replace(SWEEP, values=(0.1, -0.1)), OPTIONS, noise_images)


@pytest.mark.slow
def test_workers_share_a_sweep(
    made_study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        labels = rng.integers(0, 3, 40)
        images = rng.integers(0, 86, (40, 1, 8, 8)) + 80 * labels.reshape(-1, 1, 1, 1)
        np.savez(tmp_path / f"{name}.npz", images=images.astype(np.uint8), labels=labels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("satbench.studies.pages.figures.FORMATS", (".svg",))
    base = {**made_study.base, "dataset": f"arrays:{tmp_path / 'train.npz'}"}
    own = replace(made_study, base=base, seeds=1)
    monkeypatch.setattr("satbench.studies.load_study", lambda *_: own)
    words = ("study", "made", "--n-examples", "12", "--docs", "pages", "--workers", "2")
    places = ("--store", "s", "--results", "r", "--eval-dataset", f"arrays:{tmp_path / 'test.npz'}")
    done = CliRunner().invoke(
        cli, (*words, *places, "--sweep", "weight_decay=5e-4,0.05", "--threads", "1")
    )

    assert 0 == done.exit_code, done.stderr
    assert {"[worker 1]", "[worker 2]"} <= {line[:10] for line in done.stderr.splitlines()}
    runs = Places(Path("s"), Path("r")).runs().values()
    assert (4, 2) == (len(runs), sum(bool(run.outcomes) for run in runs))
