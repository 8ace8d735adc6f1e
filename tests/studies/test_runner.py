"""The runner of a study uses existing results, makes missing ones, and loses none."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from satbench.core.errors import SatbenchError
from satbench.model_zoo.card import read_card, write_card
from satbench.studies import Study
from satbench.studies.design import Arm, StudyColumn
from satbench.studies.run_file import StudyRun
from satbench.studies.runner import Runner
from satbench.studies.store import Places

Make = Callable[..., Runner]


def never(*_: object, **__: object) -> None:
    raise AssertionError("nothing was left to do")


def test_each_arm_and_seed_has_a_run_with_all_evaluations_and_measures(
    done: Places, made_study: Study, make_runner: Make
) -> None:
    runs = [done.run(cell.key) for cell in make_runner(made_study, done).plan.cells]

    assert [("relu", 0), ("silu", 0), ("relu", 1), ("silu", 1)] == [
        (run.activation, run.seed) for run in runs if run
    ]
    assert {2} == {len(run.outcomes) for run in runs if run}
    assert all(run.measures for run in runs if run)


def test_a_suite_that_is_the_beginning_of_another_uses_its_record(done: Places) -> None:
    assert 4 == len(list(done.records.glob("*.json")))  # one per model, for two suites
    for run in done.runs().values():
        first, both = sorted(run.outcomes, key=lambda one: len(one.suite))
        assert first.record == both.record
        assert first.forwards < both.forwards or "o" not in first.verdicts
        pairs = zip(first.verdicts, both.verdicts, strict=True)
        assert all(a == b or (a, b) == ("o", "x") for a, b in pairs)


def test_a_finished_study_computes_nothing(
    done: Places, made_study: Study, make_runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.studies.runner.run_training", never)
    monkeypatch.setattr("satbench.studies.runner.run_evaluation", never)
    monkeypatch.setattr(Places, "write", never)

    make_runner(made_study, replace(done, store=done.store / "empty")).carry_out("all")


def test_a_run_has_the_notes_of_its_card(
    done: Places, made_study: Study, make_runner: Make, tmp_path: Path
) -> None:
    note = "catastrophic overfitting in epoch 2; the weights are of another epoch"
    cards = {path: read_card(path) for path in done.trained.glob("*/*-s[0-9]*.json")}
    for path, card in cards.items():
        assert card.training
        write_card(replace(card, training=replace(card.training, notes=[note])), path)
    new = replace(done, results=tmp_path / "new")
    make_runner(made_study, new).carry_out("evaluate")

    assert {run.notes for run in new.runs().values()} == {(note,)}
    assert all(note not in run.notes for run in done.runs().values())


@pytest.mark.slow
def test_models_in_a_folder_and_records_in_the_store_are_used(
    done: Places,
    made_study: Study,
    make_runner: Make,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("satbench.studies.runner.run_training", never)
    folder = tmp_path / "found"
    done.trained.rename(folder)
    new = replace(done, results=tmp_path / "new", models=(folder,))
    make_runner(made_study, new).carry_out("all")

    assert 4 == len(list(done.records.glob("*.json")))
    assert done.runs() == new.runs()


def test_a_new_evaluation_keeps_the_old_outcomes(
    done: Places, made_study: Study, make_runner: Make
) -> None:
    before = done.runs()
    other = replace(
        made_study,
        evaluations=(StudyColumn("wide", ("pgd-1",), eps_factor=2.0),),
        verdict="wide",
        paper_verdict="wide",
    )
    make_runner(other, done).carry_out("all")

    for key, run in done.runs().items():
        assert set(before[key].outcomes) < set(run.outcomes)
        assert ["linf:0.2"] == [o.threat for o in run.outcomes if o not in before[key].outcomes]


def test_evaluate_skips_models_that_are_not_trained(
    made_study: Study, make_runner: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.studies.runner.run_training", never)
    places = Places(tmp_path / "store", tmp_path / "results")
    make_runner(made_study, places).carry_out("evaluate")

    assert {} == places.runs()


@pytest.mark.slow
def test_a_run_that_another_process_works_on_comes_last(
    done: Places,
    made_study: Study,
    make_runner: Make,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    places = replace(done, results=tmp_path / "new")
    runner = make_runner(made_study, places)
    order: list[str] = []
    monkeypatch.setattr(Places, "write", lambda _, run: order.append(run.key))
    first, *others = (cell.key for cell in runner.plan.cells)
    with ExitStack() as held:
        assert held.enter_context(places.claimed(first))
        monkeypatch.setattr("satbench.studies.runner.time.sleep", lambda _: held.close())
        runner.carry_out("all")

    assert [*others, first] == list(dict.fromkeys(order))


def test_results_of_other_weights_are_refused(
    done: Places, made_study: Study, make_runner: Make
) -> None:
    run: StudyRun = next(iter(done.runs().values()))
    done.write(replace(run, weights_digest="0" * 64, outcomes=()))

    with pytest.raises(SatbenchError, match="those of weights 000000000000…, but the model found"):
        make_runner(made_study, done).carry_out("evaluate")


def test_a_randomised_model_is_recognised_by_its_answers(
    made_study: Study, make_runner: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "noisy_net.py").write_text(NOISY, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    noisy = replace(made_study, arms=(Arm("noisy", model="noisy_net:make"),), contrasts=())
    places = Places(tmp_path / "store", tmp_path / "results", ())
    runner = make_runner(noisy, places)
    runner.carry_out("evaluate")
    (cell, *_) = runner.plan.cells
    run = places.run(cell.key)

    assert run is not None
    assert 2 == len(run.outcomes)
    assert 1 == len(list(places.records.glob("*.json")))


def test_results_of_other_code_are_refused(
    made_study: Study, make_runner: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    own = replace(made_study, arms=(Arm("own", model="own_net:make"),), contrasts=())
    places = Places(tmp_path / "store", tmp_path / "results", ())
    for code in (NOISY, NOISY, NOISY.replace("0.7", "0.6")):
        (tmp_path / "own_net.py").write_text(code, encoding="utf-8")
        sys.modules.pop("own_net", None)
        importlib.invalidate_caches()
        runner = make_runner(own, places)
        if code == NOISY:
            runner.carry_out("evaluate")
            continue
        with pytest.raises(SatbenchError, match="are those of other code: the model found has the"):
            runner.carry_out("evaluate")
    (run,) = places.runs().values()

    assert run.answers
    places.write(replace(run, answers=""))
    assert "answers" not in (places.results / f"{run.key}.json").read_text()
    make_runner(own, places).carry_out("page")


NOISY = """
import torch
from torch import nn


class Noisy(nn.Module):
    def forward(self, x):
        means = x.mean((1, 2, 3)).unsqueeze(1) - torch.tensor([0.4, 0.5, 0.7])
        return -100 * means.abs() + torch.randn(len(x), 3)


def make():
    return Noisy()
"""
