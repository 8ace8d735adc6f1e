"""The demo evaluates three models, and reports progress and the remaining time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from satbench.core.errors import SatbenchError
from satbench.evaluation import demo
from satbench.evaluation.demo_time import Clock, Work, known_passes
from satbench.records.record import Record, read_records

SAT = "fmnist-sat-tiny-relu-s0"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "THREE_ATTACKS", ("pgd-3", "pgd-5"))
    monkeypatch.setattr(demo, "THREE_EXAMPLES", 8)


@pytest.mark.usefixtures("small")
def test_the_demo_evaluates_three_models_and_numbers_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(2)

    records = demo.run_demo(tmp_path / "demo", "cpu", quiet=False)

    out, err = capsys.readouterr()
    assert [record.model.name for record in records] == list(demo.THREE)
    assert sorted(r.identity for r in read_records(tmp_path / "demo")) == sorted(
        r.identity for r in records
    )
    told = [line for line in err.splitlines() if line.startswith("model ")]
    assert [line.split(":")[0] for line in told] == [f"model {k} of 3" for k in (1, 2, 3)]
    assert all("to go" in line for line in told)
    for record in records:
        line = next(line for line in out.splitlines() if record.model.name in line)
        assert f"{record.surviving() / record.n:.1%}" in line
    missed = sum(record.surviving(1) - record.surviving() for record in records)
    assert f"pgd-5 broke {missed} images that pgd-3 did not" in out
    assert torch.get_num_threads() == 2
    assert (tmp_path / "demo" / demo.PICTURE).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_quiet_demo_prints_nothing_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.run_demo(tmp_path, "cpu", quiet=True)

    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_whole_demo_evaluates_every_model_of_the_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "board_names", lambda: [SAT])
    monkeypatch.setattr(demo, "AUTOATTACK_MODELS", ())
    monkeypatch.setattr(demo, "PGD", "pgd-3")
    monkeypatch.setattr(demo, "PGD_EXAMPLES", 20)

    records = demo.run_whole_demo(tmp_path, "cpu", quiet=False)

    page = (tmp_path / "LEADERBOARD.md").read_text(encoding="utf-8")
    assert [record.model.name for record in records] == [SAT]
    assert page.count("## fashion-mnist, Linf, eps 0.1") == 2
    assert "model 1 of 1" in capsys.readouterr().err


def test_the_expected_passes_come_from_the_records(published: list[Record]) -> None:
    of_model = [r for r in published if r.model.name == SAT and r.suite[0].startswith("pgd")]
    record = of_model[0]
    numbers = record.attack_stages()[0][1]
    stages = [record.stages[k - 1] for k in numbers]
    expected = sum(stage.forwards + stage.backwards for stage in stages)

    assert known_passes(Work(SAT, ("pgd-50",), record.n)) == [pytest.approx(expected)]
    assert known_passes(Work(SAT, ("pgd-20",), record.n)) == [pytest.approx(0.4 * expected)]


@pytest.fixture
def published() -> list[Record]:
    from satbench.board.definition import board_definition

    return board_definition("fashion-mnist-linf-0.1").read_records()


def test_the_remaining_time_falls_after_each_evaluation() -> None:
    jobs = [Work(SAT, ("pgd-50",), 100), Work(SAT, ("pgd-50",), 200)]
    clock = Clock(jobs, "cpu")
    before = clock.seconds_left()
    with clock.working(jobs[0]):
        pass
    between = clock.seconds_left()
    with clock.working(jobs[1]):
        pass

    assert before > between > clock.seconds_left() == 0


def test_an_unknown_device_ends_the_demo_with_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError):
        demo.run_demo(tmp_path, "nowhere", quiet=True)
