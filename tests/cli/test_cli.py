"""The command line: what it says, where, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import pytest
from click import Option
from click.testing import CliRunner
from command_line import CONTEXTS, Run, Said

import satbench
from satbench.cli import cli
from satbench.cli.shell.failures import STOPPED
from satbench.core.specs import split_spec
from satbench.data import DATASETS, Dataset
from satbench.model_zoo.card import weights_path, zoo_card, zoo_names
from satbench.networks.registry import ACTIVATIONS, ARCHITECTURES
from satbench.recipes import recipe_names
from satbench.records.record import read_record

SHIPPED = "fmnist-sat-tiny-relu-s0"
COMMANDS = [path.removeprefix("satbench").strip() for path in CONTEXTS]


def evaluate(run: Run, *words: str | Path, model: str = SHIPPED) -> Said:
    few = ("--attack", "pgd-2", "--n-examples", "10", "--device", "cpu", "--out", "out")
    return run("eval", "--model", model, *few, *words)


# Help, and what needs no torch


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(command: str, option: str) -> None:
    done = CliRunner().invoke(cli, [*command.split(), option])

    assert done.exit_code == 0
    assert done.output.startswith("Usage: ")
    assert len(done.output.splitlines()) > 4


def test_the_help_names_every_command() -> None:
    listed = CliRunner().invoke(cli, ["--help"]).output.partition("Commands:")[2].split()

    assert {command.split()[0] for command in COMMANDS if command} <= set(listed)


@pytest.mark.parametrize("words", [(), ("leaderboard",), ("models",)])
def test_the_help_of_a_group_says_whole_sentences(words: tuple[str, ...]) -> None:
    context = CONTEXTS[" ".join(("satbench", *words))]
    group = cast(click.Group, context.command)
    shown = " ".join(CliRunner().invoke(cli, [*words, "--help"], terminal_width=80).output.split())

    for name in group.list_commands(context):
        one = group.get_command(context, name)
        assert one is not None
        assert f" {name} {one.get_short_help_str(1000)}" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_does(command: str) -> None:
    found = CONTEXTS[f"satbench {command}".strip()].command

    assert [one.name for one in found.params if isinstance(one, Option) and not one.help] == []


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version").out == f"satbench, version {satbench.__version__}\n"


IN_ONE_PROCESS = """
import contextlib, io, json, sys
from satbench.cli import main
told = []
for words in json.loads(sys.argv[1]):
    sys.argv, out, err = ["satbench", *words], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    told.append((code, out.getvalue(), err.getvalue(), "torch" in sys.modules))
json.dump(told, sys.stdout)
"""

RECIPE = ("train", "--recipe", "fmnist-sta")
WITHOUT_TORCH: dict[tuple[str, ...], str] = {
    ("--help",): "",
    ("eval", "--help"): "",
    ("train", "--help"): "",
    ("models", "--json"): "",
    ("datasets", "--json"): "",
    ("attacks", "--json"): "",
    ("recipes", "--json"): "",
    ("activations", "--json"): "",
    ("architectures", "--json"): "",
    (
        "eval",
        "--model",
        "fmnist-sat-tiny-rleu-s0",
    ): f"unknown model 'fmnist-sat-tiny-rleu-s0': did you mean '{SHIPPED}'?",
    ("eval", "--model", SHIPPED, "--attack", "autoatack"): "unknown attack 'autoatack': did you "
    "mean 'autoattack'?",
    ("eval", "--model", SHIPPED, "--attack", "pgf-50"): "unknown attack 'pgf': did you mean 'pgd'?",
    ("eval", "--model", SHIPPED, "--dataset", "cifar-10"): "unknown dataset 'cifar-10': did you "
    "mean 'cifar10'?",
    ("eval", "--model", SHIPPED, "--eps", "8"): "expected eps at most 1 (linf, pixels in [0, 1]), "
    "got 8; write 8/255 for eight grey levels",
    ("eval", "--model", SHIPPED, "--eps", "x"): "expected eps such as 8/255 or 0.03, got 'x'",
    ("eval", "--model", SHIPPED, "--norm", "l2"): "expected a radius for the attacks on "
    f"{SHIPPED}, such as --eps 8/255",
    ("eval", "--model", SHIPPED, "--batch-size", "0"): "expected a batch size of 1 or more, got 0",
    ("eval", "--model", SHIPPED, "--n-examples", "0"): "expected 1 example or more, got 0",
    ("eval", "--model", "none.json"): "expected a card at none.json, which is missing",
    ("eval", "--model", "w.safetensors"): "expected weights at w.safetensors, which is missing",
    (
        "eval",
        "--model",
        "mine:make",
    ): "expected a data set for mine:make, such as --dataset cifar10",
    # The last, for it imports torch: see below.
    RECIPE: "unknown recipe 'fmnist-sta': did you mean 'fmnist-sat'?",
}


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Any]:
    """Run all of `WITHOUT_TORCH` in one fresh process."""
    done = subprocess.run(
        (sys.executable, "-c", IN_ONE_PROCESS, json.dumps(list(WITHOUT_TORCH))),
        cwd=tmp_path_factory.mktemp("cli"),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(WITHOUT_TORCH, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("words", WITHOUT_TORCH, ids=" ".join)
def test_torch_is_not_imported_to_help_list_or_refuse(
    words: tuple[str, ...], without_torch: dict[tuple[str, ...], Any]
) -> None:
    assert without_torch[words][3] is False


@pytest.mark.parametrize("words", [w for w, said in WITHOUT_TORCH.items() if said], ids=" ".join)
def test_a_mistake_is_reported_in_one_line_on_stderr(
    words: tuple[str, ...], without_torch: dict[tuple[str, ...], Any]
) -> None:
    assert without_torch[words][:3] == [2, "", f"satbench: {WITHOUT_TORCH[words]}\n"]


@pytest.mark.parametrize("words", [w for w, said in WITHOUT_TORCH.items() if not said])
def test_what_is_no_mistake_exits_with_0(
    words: tuple[str, ...], without_torch: dict[tuple[str, ...], Any]
) -> None:
    assert without_torch[words][0::2][:2] == [0, ""]


def test_the_program_is_a_module_too(tmp_path: Path) -> None:
    done = subprocess.run(
        (sys.executable, "-m", "satbench", "datasets", "--json"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert [row["name"] for row in json.loads(done.stdout)] == DATASETS.names()


# Mistakes


@pytest.mark.parametrize(
    "words", [(), ("evaluate",), ("eval",), ("eval", "--model"), ("train",), ("verify",)], ids=str
)
def test_a_command_line_that_cannot_be_read_exits_with_2(words: tuple[str, ...], run: Run) -> None:
    said = run(*words)

    assert (said.code, said.out) == (2, "") or words == ()
    assert words == () or (said.err.startswith("satbench: ") and said.err.count("\n") == 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--device", "cuda:77"), "expected a device of this machine, got 'cuda:77'"),
        (("--device", "tpu"), "expected --device auto, cpu, cuda or cuda:N, got 'tpu'"),
        (("--device", "meta"), "expected --device auto, cpu, cuda or cuda:N, got 'meta'"),
        (("--n-examples", "10001"), "expected at most 10000 examples"),
        (("--attack", "pgd(steps=2)"), "the attack pgd(steps=2,"),
        (("--attack", "square(querys=3)"), "unknown parameter of square 'querys': did you mean"),
        (("--attack", "pgd-0"), "pgd: expected steps of 1 or more, got 0"),
        (("--dataset", "imagefolder:nowhere"), "expected a folder of class folders, got 'nowhere'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "said",
)
def test_a_mistake_found_later_is_one_line_too(words: tuple[str, ...], said: str, run: Run) -> None:
    done = evaluate(run, *words, "--quiet")

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"satbench: {said}")
    assert done.err.count("\n") == 1


def test_the_device_named_last_counts(run: Run) -> None:
    assert evaluate(run, "--device", "cpu", "--quiet").code == 0


def test_corrupt_weights_are_reported_in_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    done = evaluate(
        run,
        *("--arch", "tiny", "--activation", "relu", "--eps", "0.1", "--dataset", "fashion-mnist"),
        model="w.safetensors",
    )

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("satbench: the weights w.safetensors are corrupt (")


def test_weights_without_their_architecture_are_reported_in_one_line(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    done = evaluate(run, "--eps", "0.1", "--dataset", "fashion-mnist", model="w.safetensors")

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "give --arch and --activation with w.safetensors" in done.err


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def make(): raise OSError('no such file')", "my_model:make() failed: OSError: no such"),
        ("def make(): return 3", "expected my_model:make() to return a torch.nn.Module, got int"),
        ("make = 3", "expected my_model:make to be a function that returns a model"),
        ("", "expected --model PACKAGE.MODULE:FACTORY, got 'my_model:make': module"),
        ("import nothing_like_it", "expected --model PACKAGE.MODULE:FACTORY, got 'my_model:make'"),
    ],
    ids=["raises", "returns no model", "no function", "missing", "fails to import"],
)
def test_a_factory_that_makes_no_model_is_reported_in_one_line(
    body: str, said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_model.py").write_text(body)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    done = evaluate(run, "--eps", "0.1", "--dataset", "fashion-mnist", model="my_model:make")

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"satbench: {said}")


def test_a_stop_is_reported_with_how_to_continue(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("satbench.evaluation.api.evaluate_config", stop)
    done = evaluate(run)

    assert done.code == 130
    assert done.err.endswith(f"satbench: {STOPPED}\n")


# eval


def test_an_evaluation_prints_a_table_and_where_the_record_is(run: Run, tmp_path: Path) -> None:
    done = evaluate(run, "--quiet")
    (path,) = (tmp_path / "out").glob("*.json")

    assert (done.code, done.err) == (0, "")
    assert done.out.endswith(f"wrote {path.relative_to(tmp_path)}\n")
    assert "overall" in done.out


def test_progress_goes_to_stderr(run: Run) -> None:
    done = evaluate(run)

    assert [line.partition(":")[0] for line in done.err.splitlines()] == [
        f"{SHIPPED} · clean",
        f"{SHIPPED} · pgd-2",
    ]


def test_json_is_all_there_is_on_stdout(run: Run, tmp_path: Path) -> None:
    done = evaluate(run, "--json")
    (shown,) = json.loads(done.out)
    record = read_record(tmp_path / shown["record"])

    assert (shown["model"], shown["n"], shown["eps"]) == (SHIPPED, 10, "0.1")
    assert [row["correct"] for row in shown["rows"]] == [
        record.clean_correct,
        record.surviving(),
        record.surviving(),
    ]


def test_a_second_evaluation_finds_the_record(run: Run) -> None:
    first, second = evaluate(run, "--quiet"), evaluate(run, "--quiet")

    assert second.out == first.out.replace("wrote out", "found out")


def test_a_found_record_is_distinguished_from_a_new_one(run: Run, tmp_path: Path) -> None:
    first, second = evaluate(run), evaluate(run)
    made = read_record(next((tmp_path / "out").glob("*.json"))).environment.finished

    assert (made in first.out, made in second.out) == (False, True)
    assert second.err == ""


def test_several_models_are_evaluated_one_after_the_other(run: Run) -> None:
    other = next(name for name in zoo_names() if name != SHIPPED)
    done = evaluate(run, "--model", other, "--json")

    assert [shown["model"] for shown in json.loads(done.out)] == [SHIPPED, other]


def test_a_weights_file_is_evaluated(run: Run) -> None:
    card = zoo_card(SHIPPED)
    done = evaluate(
        run,
        *("--arch", card.architecture, "--activation", card.activation, "--eps", "0.1"),
        *("--dataset", "fashion-mnist", "--json"),
        model=str(weights_path(card)),
    )
    by_name = evaluate(run, "--json")

    assert json.loads(done.out)[0]["model"] == SHIPPED
    assert (
        json.loads(done.out)[0]["rows"][-1]["correct"]
        == (json.loads(by_name.out)[0]["rows"][-1]["correct"])
    )


# verify


@pytest.fixture
def record(run: Run, tmp_path: Path) -> Path:
    """Return the path of a good record."""
    evaluate(run, "--quiet")
    (path,) = (tmp_path / "out").glob("*.json")
    return path


def test_a_good_record_is_verified(record: Path, run: Run) -> None:
    done = run("verify", record)

    assert (done.code, done.err) == (0, "")
    left = read_record(record).surviving()
    assert done.out.startswith(
        f"{record}: robust accuracy {10 * left}.0 %, {left} of 10, confirmed"
    )
    assert done.out.endswith(" witnesses: all hold\n")


def test_a_changed_record_exits_with_1_and_says_what_is_wrong(record: Path, run: Run) -> None:
    record.write_text(record.read_text().replace('"seed": 0,\n "suite"', '"seed": 1,\n "suite"'))
    done = run("verify", record)

    assert (done.code, done.err) == (1, "")
    assert done.out == (
        f"{record}: the identity is not that of the inputs: one of them was changed\n"
    )


def test_the_findings_of_verify_are_json_too(record: Path, run: Run) -> None:
    (found,) = json.loads(run("verify", record, "--json").out)

    assert (found["path"], found["images"], found["faults"]) == (str(record), 10, [])


def test_a_missing_record_exits_with_2(run: Run) -> None:
    assert run("verify", "none.json") == Said(
        2, "", "satbench: expected a record at none.json, which is missing\n"
    )


# Lists


LISTS = ("models", "attacks", "activations", "architectures", "datasets", "recipes")


@pytest.mark.parametrize("command", LISTS)
def test_a_list_is_a_table_or_json(command: str, run: Run) -> None:
    rows, table = json.loads(run(command, "--json").out), run(command).out

    assert rows != []
    assert all(row["name"] in table for row in rows)


def test_the_lists_name_what_there_is(run: Run) -> None:
    names = {
        command: [row["name"] for row in json.loads(run(command, "--json").out)]
        for command in LISTS
        if command != "attacks"
    }

    assert names == {
        "models": zoo_names(),
        "activations": ACTIVATIONS.names(),
        "architectures": ARCHITECTURES.names(),
        "datasets": DATASETS.names(),
        "recipes": recipe_names(),
    }


def test_the_defaults_listed_for_attacks_are_their_canonical_specs(run: Run) -> None:
    for row in json.loads(run("attacks", "--json").out):
        assert split_spec(row["defaults"])[0] == row["name"]


# train


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1256, 1, 8, 8)).astype(np.uint8)
    toy = Dataset("fashion-mnist", "train", images, rng.integers(0, 10, 1256), 10)
    monkeypatch.setattr("satbench.training.images.training_set.load_dataset", lambda *_, **__: toy)


TRAIN = ("train", "--recipe", "fmnist-sat", "--arch", "tiny(width=1)", "--epochs", "1", "--threads")


@pytest.mark.usefixtures("_toy")
def test_a_training_ends_with_the_command_that_evaluates_it(run: Run, tmp_path: Path) -> None:
    done = run(*TRAIN, "1", "--name", "mine", "--device", "cpu", "--quiet")

    assert done.code == 0
    assert done.out.splitlines()[0].startswith("epoch 1/1  loss ")
    assert done.out.splitlines()[-1] == (
        "  satbench eval --model runs/mine/mine.json --dataset fashion-mnist --norm linf "
        "--eps 0.1 --attack pgd-50 --attack autoattack"
    )
    assert (tmp_path / "runs" / "mine" / "mine.safetensors").exists()


@pytest.mark.usefixtures("_toy")
def test_a_training_as_json_is_a_line_an_epoch(run: Run) -> None:
    done = run(*TRAIN, "1", "--device", "cpu", "--json")

    assert [json.loads(line)["epoch"] for line in done.out.splitlines()] == [1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--recipe", "fmnist-sta"), "unknown recipe 'fmnist-sta': did you mean 'fmnist-sat'?"),
        (("--activation", "sulu"), "unknown activation 'sulu': did you mean 'silu'?"),
        (("--arch", "tinny"), "unknown architecture 'tinny': did you mean 'tiny'?"),
        (("--epochs", "0"), "expected epochs of 1 or more, got 0"),
        (("--device", "cuda:77"), "expected a device of this machine, got 'cuda:77'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "said",
)
def test_a_training_that_cannot_be_is_refused_in_one_line(
    words: tuple[str, ...], said: str, run: Run
) -> None:
    done = run("train", "--recipe", "fmnist-sat", *words)

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"satbench: {said}")


def test_a_missing_training_set_is_reported_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satbench.data.fashion_mnist._DEBIAN", tmp_path / "nowhere")
    monkeypatch.setattr(
        "torchvision.datasets.FashionMNIST.download",
        lambda self: (_ for _ in ()).throw(RuntimeError("Error downloading")),
    )
    done = run("train", "--recipe", "fmnist-sat", "--data-dir", tmp_path, "--quiet")

    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("satbench: found no Fashion-MNIST training set in ")


@pytest.mark.slow
def test_the_installed_program_evaluates_and_verifies(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("satbench")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for words in (
        ("eval", "--model", SHIPPED, "--attack", "pgd-2", "--n-examples", "20", "--quiet"),
        ("verify", "results"),
    ):
        paths = [str(path) for path in tmp_path.glob("results/*.json")]
        done = subprocess.run(
            (program, *(words if words[0] == "eval" else ("verify", *paths))),
            cwd=tmp_path,
            env=environment,
            check=False,
        )
        assert done.returncode == 0
