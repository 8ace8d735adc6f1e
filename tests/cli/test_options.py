"""Options that commands share: models by position, a file of options, threads, a zoo."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import pytest
import torch
from command_line import Run

from satbench.cli import options
from satbench.cli.shell.commands import Command

SHIPPED = "fmnist-sat-tiny-relu-s0"
OTHER = "fmnist-sat-tiny-silu-s0"
FEW = ("--attack", "pgd-1", "--limit", "5", "--device", "cpu", "--json", "--quiet")


def results(run: Run, *words: str | Path) -> list[dict[str, object]]:
    said = run("eval", *words)
    assert (said.code, said.err) == (0, "")
    found: list[dict[str, object]] = json.loads(said.out)
    return found


def test_models_are_named_by_position_and_by_option(run: Run) -> None:
    found = results(run, SHIPPED, *FEW, "--model", OTHER)

    assert [one["model"] for one in found] == [SHIPPED, OTHER]


def test_limit_is_another_name_of_n_examples(run: Run) -> None:
    assert [one["n"] for one in results(run, SHIPPED, *FEW)] == [5]
    assert [one["n"] for one in results(run, SHIPPED, *FEW, "--n-examples", "4")] == [4]


def test_an_instance_in_a_module_and_a_function_of_images_are_models(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "instances.py").write_text(
        "from torch import nn\n"
        "net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
        "def ask(images): return images.flatten(1)[:, :10]\n"
    )
    of = ("--dataset", "fashion-mnist", "--eps", "0.1", *FEW)
    found = results(run, "instances:net", *of) + results(run, "instances:ask", *of)

    assert [one["model"] for one in found] == ["instances:net", "instances:ask"]


def test_the_folder_of_a_run_is_a_model(run: Run, tmp_path: Path) -> None:
    from satbench.model_zoo.card import find_card

    card, weights = find_card(SHIPPED)
    folder = tmp_path / "runs" / SHIPPED
    folder.mkdir(parents=True)
    (folder / f"{SHIPPED}.json").write_text(json.dumps(card.to_dict()))
    (folder / card.weights).write_bytes(weights.read_bytes())

    (one,) = results(run, folder, *FEW)
    assert one["model"] == SHIPPED


# A file of options

FILE = f"""
model = ["{OTHER}"]
attack = "pgd-1"
n_examples = 4
device = "cpu"
json = true
quiet = true
"""


def test_a_file_says_what_the_command_line_does_not(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(FILE)
    (one,) = results(run, "--config", "lab.toml")
    (other,) = results(run, SHIPPED, "--config", "lab.toml", "--limit", "3")

    assert (one["model"], one["n"]) == (OTHER, 4)
    assert (other["model"], other["n"]) == (SHIPPED, 3)


def test_a_file_gives_the_same_record_as_the_same_words(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(FILE)
    (one,) = results(run, "--config", "lab.toml", "--out", "a")
    (other,) = results(run, OTHER, *FEW, "--limit", "4", "--out", "b")

    assert Path(str(one["record"])).name == Path(str(other["record"])).name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("atack = 'pgd-1'", "unknown option 'atack': did you mean 'attack'?"),
        ("config = 'other.toml'", "unknown option 'config'"),
        ("limit = 'many'", "limit: 'many' is not a valid integer"),
        ("limit = [1, 2]", "expected one value for limit, got [1, 2]"),
        ("json = 'yes'", "expected true or false for json, got 'yes'"),
        ("attack = {name = 'pgd'}", "expected a list for attack, got"),
        ("out = ''", "out: expected a path"),
        ("limit = ", "lab.toml is not TOML"),
    ],
)
def test_a_file_with_a_mistake_is_refused_in_a_sentence(
    text: str, said: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "lab.toml").write_text(text)
    done = run("eval", SHIPPED, "--config", "lab.toml")

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "lab.toml" in done.err
    assert said in done.err


def test_a_missing_file_of_options_is_named(run: Run) -> None:
    done = run("eval", SHIPPED, "--config", "none.toml")

    assert (done.code, "none.toml" in done.err, done.err.count("\n")) == (2, True, 1)


# Threads and a zoo


def test_threads_hold_as_long_as_the_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = []

    @click.command(cls=Command)
    @options.threads
    def look() -> None:
        seen.append((torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]))

    before = torch.get_num_threads()
    look.main(["--threads", "3"], standalone_mode=False)

    assert seen == [(3, "3")]
    assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (before, "1")


def test_a_zoo_holds_as_long_as_the_command_runs(run: Run, tmp_path: Path) -> None:
    before = os.environ["SATBENCH_ZOO"]
    run("models", "--zoo", tmp_path / "mine")

    assert os.environ["SATBENCH_ZOO"] == before


def test_a_zoo_is_looked_in_by_every_command_on_records(run: Run, tmp_path: Path) -> None:
    for name in ("verify", "recheck", "challenge", "images", "merge"):
        assert run(name, "none.json", "none.json", "--zoo", tmp_path, "--help").code == 0
