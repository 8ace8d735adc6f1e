"""`satbench plot`: the course of a training run as a figure."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.figures import picture
from satbench.figures.styles import ACTIVATION_COLOURS, PALETTE
from satbench.figures.training import Epoch, TrainingCurve, read_training, training_figure
from satbench.training.watch import EpochMetrics

EPOCHS = (
    EpochMetrics(1, 1.5, 0.4, 0.7, 0.5, 0.2, 1000.0),
    EpochMetrics(2, 1.25, 0.5, 0.8, 0.625, 0.1, 1000.0),
    EpochMetrics(3, 1.0, 0.6, 0.75, 0.125, 0.05, 1000.0, "PGD-10 accuracy fell"),
)
CURVE = TrainingCurve(
    "mine",
    "linf:0.1",
    "fashion-mnist",
    1000,
    (Epoch(1, 1.5, 0.4, 0.7, 0.5, 0.2), Epoch(2, 1.25, 0.5, 0.8, 0.625, 0.1)),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run of three epochs, of which the last collapsed."""
    return write_run(tmp_path / "mine")


def write_run(folder: Path) -> Path:
    folder.mkdir()
    lines = (json.dumps(asdict(epoch)) + "\n" for epoch in EPOCHS)
    (folder / "metrics.jsonl").write_text("".join(lines))
    config = {"threat": "linf:0.1", "dataset": "fashion-mnist", "held_out": 1000, "seed": 3}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def said_in(svg: Path) -> set[str]:
    """Return the texts of a figure, which are comments next to their outlines."""
    return set(re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8")))


def dots_in(svg: Path, colour: str) -> int:
    """Return how many markers of a colour a figure has."""
    return len(re.findall(rf"<use [^>]*fill: {colour}", svg.read_text(encoding="utf-8")))


# Reading


def test_the_metrics_that_training_writes_are_read(run: Path) -> None:
    known = {field.name for field in fields(Epoch)}
    drawn = [{k: v for k, v in asdict(e).items() if k in known} for e in EPOCHS]

    assert TrainingCurve(
        "mine", "linf:0.1", "fashion-mnist", 1000, tuple(Epoch(**epoch) for epoch in drawn)
    ) == read_training(run)


def test_metrics_from_before_there_were_warnings_are_read(run: Path) -> None:
    old = {key: value for key, value in asdict(EPOCHS[0]).items() if key != "warning"}
    (run / "metrics.jsonl").write_text(json.dumps(old) + "\n")

    assert (CURVE.epochs[0],) == read_training(run).epochs


def test_the_best_epoch_is_the_first_of_equals() -> None:
    again = replace(CURVE.epochs[1], epoch=3)

    assert replace(CURVE, epochs=(*CURVE.epochs, again)).best.epoch == 2


def test_a_folder_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"^expected the folder of a training run .* give a"):
        read_training(tmp_path)


@pytest.mark.parametrize("line", ["{", "[]", '{"epoch": 1}', '{"epoch": "one"}'])
def test_a_line_that_is_no_epoch_is_named(line: str, run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")

    with pytest.raises(SatbenchError, match=r"^expected epoch, loss, .*metrics\.jsonl, line 4$"):
        read_training(run)


def test_metrics_without_an_epoch_are_refused(run: Path) -> None:
    (run / "metrics.jsonl").write_text("")

    with pytest.raises(SatbenchError, match=r"^expected at least one epoch in "):
        read_training(run)


@pytest.mark.parametrize("text", ["", "[]", '{"threat": "linf:0.1"}'])
def test_an_invalid_config_is_refused(text: str, run: Path) -> None:
    (run / "config.json").write_text(text)

    with pytest.raises(SatbenchError, match=r"^expected threat, dataset and held_out in "):
        read_training(run)


# Drawing


def test_the_figure_of_a_run_says_what_is_drawn(run: Path, tmp_path: Path) -> None:
    training_figure([read_training(run)], tmp_path / "one.svg")

    assert said_in(tmp_path / "one.svg") >= {
        "mine",
        "held-out, clean",
        "held-out, PGD-10",
        "training images, as trained on",
        "training loss,",
        "lower is better",
        "learning rate",
        "accuracy (%), higher is better",
        "Held out: the last 1,000 training images of fashion-mnist, PGD-10 in linf:0.1.",
    }


@pytest.mark.slow
def test_a_collapse_is_marked(run: Path, tmp_path: Path) -> None:
    training_figure([read_training(run)], tmp_path / "collapsed.svg")
    training_figure([CURVE], tmp_path / "sound.svg")

    assert "robustness collapsed" in said_in(tmp_path / "collapsed.svg")
    assert "robustness collapsed" not in said_in(tmp_path / "sound.svg")


@pytest.mark.slow
def test_of_several_runs_each_has_a_colour(tmp_path: Path) -> None:
    training_figure([CURVE, replace(CURVE, name="other")], tmp_path / "two.svg")
    svg = tmp_path / "two.svg"

    assert said_in(svg) >= {"2 training runs", "mine", "other", "held-out, PGD-10"}
    # Two epochs in three accuracies, the loss and the rate, and a line of the legend.
    assert [11, 11, 0] == [dots_in(svg, colour.lower()) for colour in PALETTE[:3]]


def test_of_one_run_every_line_has_the_colour_of_its_activation(tmp_path: Path) -> None:
    svg = tmp_path / "one.svg"
    training_figure([replace(CURVE, activation="silu")], svg)

    others = [colour for name, colour in ACTIVATION_COLOURS.items() if name != "silu"]
    assert dots_in(svg, ACTIVATION_COLOURS["silu"].lower()) == 10
    assert [0] * len(others) == [dots_in(svg, colour.lower()) for colour in others]


@pytest.mark.slow
def test_runs_with_other_threat_models_are_distinguished(tmp_path: Path) -> None:
    training_figure([CURVE, replace(CURVE, threat="linf:0.2")], tmp_path / "two.svg")

    assert (
        "Held out: the last 1,000 training images of fashion-mnist, PGD-10 in linf:0.1; "
        "the last 1,000 training images of fashion-mnist, PGD-10 in linf:0.2."
    ) in said_in(tmp_path / "two.svg")


@pytest.mark.parametrize("n", [0, 8])
def test_as_many_runs_as_can_be_told_apart(n: int, tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=rf"^expected 1 to 7 runs .* got {n}$"):
        training_figure([CURVE] * n, tmp_path / "many.svg")


# The command


def plotted(*arguments: object) -> Any:
    """Return what `satbench plot --json` says."""
    done = CliRunner().invoke(cli, ["plot", "--json", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


@pytest.fixture(scope="module")
def plotted_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return the folder of a run with its figures, and what the command said."""
    run = write_run(tmp_path_factory.mktemp("plotted") / "mine")
    return run, plotted(run)


def test_the_figures_of_a_run_lie_in_its_folder(plotted_run: tuple[Path, Any]) -> None:
    run, said = plotted_run
    drawn = [str(run / "training.png"), str(run / "training.svg")]

    assert {"runs": [read_training(run).summary()], "figures": drawn} == said
    assert (run / "training.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "training.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_the_same_metrics_give_the_same_bytes(
    plotted_run: tuple[Path, Any], tmp_path: Path
) -> None:
    first = plotted_run[0]
    plotted(first, "--out", tmp_path)

    for name in ("training.png", "training.svg"):
        assert (first / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_summary_of_a_run(run: Path) -> None:
    assert [
        {
            "run": "mine",
            "epochs": 3,
            "held_out_clean": 0.75,
            "held_out_pgd10": 0.125,
            "best_epoch": 2,
            "best_held_out_pgd10": 0.625,
            "warnings": ["PGD-10 accuracy fell"],
        }
    ] == [read_training(run).summary()]


def test_the_text_has_the_best_epoch_and_warnings(run: Path) -> None:
    said = CliRunner().invoke(cli, ["plot", str(run)]).output.splitlines()

    assert [
        "mine: epoch 3, held-out clean 75.0%, PGD-10 12.5% (best 62.5%, epoch 2)",
        "warning: PGD-10 accuracy fell",
        f"drew {run / 'training.png'} and {run / 'training.svg'}",
    ] == said


def test_without_matplotlib_it_says_what_to_install(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "find_spec", lambda name: None)

    error = CliRunner().invoke(cli, ["plot", str(run)]).exception

    assert isinstance(error, SatbenchError)
    assert "pip install 'satbench[plots]'" in str(error)


def test_one_epoch_has_one_whole_number_on_the_axis(tmp_path: Path) -> None:
    svg = tmp_path / "a.svg"
    training_figure([replace(CURVE, epochs=CURVE.epochs[:1])], svg)

    assert {text for text in said_in(svg) if re.fullmatch(r"1|[01]\.9\d*|1\.0\d+", text)} == {"1"}


@pytest.mark.slow
def test_of_runs_with_two_activations_a_colour_is_the_activation(tmp_path: Path) -> None:
    svg = tmp_path / "a.svg"
    names = {"a": "relu", "b": "silu", "c": "relu"}
    runs = [replace(CURVE, name=name, activation=kind) for name, kind in names.items()]
    training_figure(runs, svg)

    assert dots_in(svg, ACTIVATION_COLOURS["relu"].lower()) == 2 * dots_in(
        svg, ACTIVATION_COLOURS["silu"].lower()
    )


def test_no_title_of_an_axis_is_longer_than_the_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    save = picture.DrawnFigure.save
    monkeypatch.setattr(
        picture.DrawnFigure, "save", lambda one, path: kept.append(one.figure) or save(one, path)
    )
    training_figure([CURVE], tmp_path / "a.svg")

    (figure,) = kept
    figure.draw_without_rendering()
    assert [
        axes.get_ylabel()
        for axes in figure.axes
        if axes.yaxis.label.get_window_extent().height > axes.get_window_extent().height + 8
    ] == []
