"""The progress of a run: its course in passes, and the lines of a pipe."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

import pytest
from rich.console import Console
from rich.file_proxy import FileProxy

from satbench.core.console import EVERY, BarProgress, progress_bar
from satbench.core.progress.course import Course, StageCost
from satbench.core.progress.words import progress_text
from satbench.core.text.terminal import tell


@dataclass
class Clock:
    """A clock that a test turns."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


COSTS = (StageCost(1), StageCost(100), StageCost(1000, share=0.5))


def after_the_clean_pass(clock: Clock) -> Course:
    """Return the course of 20 images, 16 of them right, when the first attack begins."""
    course = Course(clock)
    course.expect(COSTS)
    course.stage("clean", 20, 0)
    clock.now += 1
    course.passed(20)
    course.advance(20, 16)
    course.stage("pgd-50", 16, 0)
    return course


def test_what_is_left_is_the_known_cost_of_each_stage_on_those_who_survive() -> None:
    course = after_the_clean_pass(Clock())

    assert course.done == 20
    assert course.left == 16 * 100 + 16 * 1000 * 0.5
    assert course.share == 20 / (20 + 9600)


def test_it_moves_within_a_batch() -> None:
    course = after_the_clean_pass(Clock())
    before = course.left
    course.passed(300)

    assert course.left == before - 300
    assert course.taken == 0


def test_a_batch_that_takes_longer_than_thought_never_sets_the_bar_back() -> None:
    course = after_the_clean_pass(Clock())
    shares = []
    for _ in range(40):
        course.passed(100)
        shares.append(course.share)

    assert shares == sorted(shares)
    assert course.left > 16 * 1000 * 0.5


def test_after_a_batch_what_it_took_and_who_survived_foretell_the_rest() -> None:
    course = after_the_clean_pass(Clock())
    course.passed(8 * 10)  # images that break early
    course.advance(8, 16 - 6)

    # 8 images at 10 passes; of these 6 in 8 break, so that 10 - 6 are left for the last stage.
    assert course.left == pytest.approx(8 * 10 + 4 * 1000 * 0.5)


def test_the_time_left_is_what_is_left_by_the_rate_of_this_stage() -> None:
    clock = Clock()
    course = after_the_clean_pass(clock)
    clock.now += 10
    course.passed(500)

    assert course.rate == 50
    assert course.seconds_left == pytest.approx((9600 - 500) / 50)


def test_the_rate_follows_many_short_stages() -> None:
    clock = Clock()
    course = after_the_clean_pass(clock)  # 20 passes a second
    rates = []
    for number in range(40):
        clock.now += 0.5
        course.passed(100)
        course.advance(10, 10)
        rates.append(course.rate)
        course.stage(f"stage {number}", 10, 0)

    assert rates == sorted(rates)
    assert rates[0] == (100 + 1.5 * 20) / 2
    assert course.rate == pytest.approx(200, rel=0.01)


def test_the_rate_is_that_of_the_last_while() -> None:
    clock = Clock()
    course = after_the_clean_pass(clock)
    for passes in [1] * 100 + [5] * 100:
        clock.now += 1
        course.passed(passes)

    assert course.rate == pytest.approx(5, rel=0.05)


def test_a_stage_of_unknown_cost_counts_like_the_mean_of_the_others() -> None:
    course = Course(Clock())
    course.expect((StageCost(1), StageCost(0), StageCost(40), StageCost(20)))
    course.stage("clean", 10, 0)

    assert course.left == 10 * (1 + 30 + 40 + 20)


def test_images_of_an_earlier_start_are_not_left_and_no_passes_of_this_one() -> None:
    course = Course(Clock())
    course.expect((StageCost(1), StageCost(100)))
    course.stage("clean", 10, 10)
    course.stage("pgd-50", 10, 6)

    assert (course.done, course.left) == (0, 4 * 100)


def test_at_the_end_no_time_is_left() -> None:
    clock = Clock()
    course = after_the_clean_pass(clock)
    clock.now += 1
    course.passed(100)
    course.advance(16, 10)
    before = progress_text(course)
    course.stage("square", 10, 0)
    course.passed(100)
    course.advance(10, 10)

    assert " left" in before
    assert " left" not in progress_text(course)


def test_where_no_cost_is_known_the_bar_is_that_of_images() -> None:
    course = Course(Clock())
    course.stage("on a", 10, 2)
    course.passed(30)
    course.advance(3, 10)
    course.passed(15)

    assert course.share == pytest.approx((2 + 3 + 1.5) / 10)


Capture = pytest.CaptureFixture[str]


def test_a_pipe_gets_a_line_an_attack_and_one_every_30_seconds(capsys: Capture) -> None:
    clock = Clock()
    with BarProgress(clock=clock) as progress:
        progress.model("net")
        progress.expect((StageCost(1), StageCost(100)))
        progress.stage("clean", 10, 0)
        progress.passed(10)
        progress.advance(10, 10)
        progress.stage("pgd-50", 10, 0)
        for _ in range(100):
            clock.now += 1
            progress.passed(4)
    lines = capsys.readouterr().err.splitlines()

    assert [line.partition(":")[0] for line in lines] == ["net · clean"] + ["net · pgd-50"] * 4
    assert "130 passes, 4/s, 10 survive, about 4 min left" in lines[2]
    assert EVERY == 30.0


def test_a_name_of_a_model_is_not_cut(capsys: Capture) -> None:
    titles = [f"images made on fmnist-sat-tiny-parametric-softplus-s{seed}" for seed in (0, 1)]
    with BarProgress(clock=Clock()) as progress:
        progress.model("transfer")
        for title in titles:
            progress.stage(title, 10, 0)
    lines = capsys.readouterr().err.splitlines()

    assert [line.partition(": ")[0] for line in lines] == [
        f"transfer · {title}" for title in titles
    ]


def test_a_pipe_gets_one_line_for_the_parts_of_an_attack_and_none_without_images(
    capsys: Capture,
) -> None:
    with BarProgress(clock=Clock()) as progress:
        for model in ("one", "two"):
            progress.model(model)
            for part in ("a", "b", "b/others"):
                progress.stage(f"suite(version=2,source=pinned)/{part}", 10, 0)
            progress.stage("square", 10, 10)
            progress.stage("transfer", 0, 0)
    lines = capsys.readouterr().err.splitlines()

    assert [line.partition(":")[0] for line in lines] == ["one · suite/a", "two · suite/a"]


def test_a_script_on_a_pipe_gets_no_line_an_attack(capsys: Capture) -> None:
    clock = Clock()
    with BarProgress(announce=False, clock=clock) as progress:
        progress.model("net")
        progress.stage("clean", 10, 0)
        clock.now += 31
        progress.passed(5)

    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_terminal_shows_the_stage_and_the_bar_on_two_lines_of_80_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80, _environ={"TERM": "xterm"})
    monkeypatch.setattr("satbench.core.console._console", lambda **_: terminal)
    clock = Clock()
    with BarProgress(clock=clock) as progress:
        progress.model("a-network-whose-name-is-rather-long-and-goes-on-for-a-while-s0")
        progress.expect((StageCost(1), StageCost(10_000), StageCost(9)))
        progress.stage("clean", 1000, 0)
        clock.now += 1
        progress.passed(1000)
        progress.advance(1000, 812)
        progress.stage("pgd(steps=50,restarts=100)", 812, 0)
        clock.now += 40
        progress.passed(1_234_567)
        progress.note("no memory left")
        lines = terminal.render_lines(progress._drawn())
    shown = ["".join(part.text for part in line).rstrip() for line in lines]

    assert len(shown) == 2
    assert "pgd(steps=50" in shown[0]
    assert "1.24 M passes, 30.9 k/s, 812 survive, about 4 min left" in shown[1]
    assert len(shown[1]) == 77  # `^C` fits behind it
    assert "no memory left" in screen.getvalue()


def test_a_key_that_the_terminal_shows_fits_behind_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=60)
    monkeypatch.setattr("satbench.core.console._console", lambda **_: terminal)
    bar = progress_bar()
    bar.add_task("the name of a training run", total=10, note="epoch 1/2")
    (line,) = terminal.render_lines(bar, pad=False)

    assert sum(part.cell_length for part in line) == 60 - len("^C ")


def test_a_quiet_one_says_nothing(capsys: Capture) -> None:
    clock = Clock()
    with BarProgress(quiet=True, clock=clock) as progress:
        progress.stage("clean", 10, 0)
        clock.now += 100
        progress.passed(5)
        progress.note("something")

    assert capsys.readouterr().err == ""


def test_a_text_that_is_told_while_a_bar_is_shown_goes_through_the_bar(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    shown = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(sys, "stderr", FileProxy(shown, sys.__stderr__))
    tell("the next model", err=True)

    assert isinstance(shown.file, io.StringIO)
    assert shown.file.getvalue() == "the next model\n"
    assert capfdbinary.readouterr().err == b""
