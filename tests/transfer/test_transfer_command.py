"""`satbench transfer`: the matrix, its files, and refused inputs."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from in_memory import Journal, Quiet
from torch import Tensor, nn

from satbench.attacks import parse_attack
from satbench.attacks.transfer.surrogates import Transfer, Transferred
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.data import load_dataset
from satbench.engine.judge import broken, predict
from satbench.engine.runner import BatchResult, Context, run_stages
from satbench.evaluation.surrogates import benchmark_surrogates
from satbench.figures import picture
from satbench.model_zoo.card import zoo_names
from satbench.models import load_model, request_model
from satbench.records.transfers import parse_matrix, read_matrix
from satbench.transfer.config import transfer_config
from satbench.transfer.matrix_run import MatrixRun
from satbench.transfer.report import WORST, matrix_markdown, matrix_rows, matrix_summary
from satbench.transfer.run import MeasuredTransfer, measure_transfer

RELU, SILU = "fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0"
STANDARD = "fmnist-standard-tiny-relu-s0"
N = 12
LINF = Threat.parse("linf:0.1")

WORDS = ["--source", SILU, "--source", STANDARD, "--target", RELU, "--target", SILU]
WORDS += ["--attack", "transfer(method=mi,steps=4,step=eps/2)", "--n-examples", str(N), "--quiet"]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["transfer", *map(str, words)], standalone_mode=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one matrix that the command measured."""
    folder = tmp_path_factory.mktemp("transfer")
    torch.set_num_threads(1)
    result = run(*WORDS, "--json", "--out", folder)
    assert result.exception is None
    (folder / "said.json").write_text(result.stdout)
    return folder


@pytest.fixture
def said(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((folder / "said.json").read_text())
    return said


def matrix_path(folder: Path) -> Path:
    (path,) = folder.glob("transfer-fashion-mnist-*.json")
    return path


def made_on(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make the images of the matrix on a source, with its own weights and without a copy."""
    data = load_dataset("fashion-mnist", "test", N)
    x = torch.from_numpy(data.pixels(np.arange(N)))
    y = torch.from_numpy(data.labels)
    source = load_model(request_model(name), 10).module.requires_grad_(False)
    attack = parse_attack("transfer(method=mi,steps=4,step=eps/2)")
    assert isinstance(attack, Transfer)
    x_adv = Transferred((source,), attack)(nn.Identity(), x, y, LINF, Noise(0, name, (*range(N),)))
    return x, x_adv, y


def test_the_counts_equal_the_verdicts_of_the_judge_on_each_target(said: dict[str, Any]) -> None:
    images = {name: made_on(name) for name in (SILU, STANDARD)}
    for target in said["targets"]:
        module = load_model(request_model(target["model"]), 10).module
        x, _, y = images[SILU]
        right = predict(module, x) == y
        survivors = {
            name: right & ~broken(module, x, x_adv, y, LINF)
            for name, (x, x_adv, y) in images.items()
        }
        assert target["clean_accuracy"] == int(right.sum()) / N
        assert {cell["source"]: cell["accuracy"] for cell in target["robust_accuracy"]} == {
            name: int(kept.sum()) / N for name, kept in survivors.items()
        }
        others = [kept for name, kept in survivors.items() if name != target["model"]]
        assert target["worst_case"] == int(torch.stack(others).all(0).sum()) / N


def made_already(x_adv: Tensor) -> BatchResult:
    every = np.arange(N)
    return BatchResult(1, every, every >= 0, x_adv.numpy(), 0, 0, 0.0)


def test_an_image_that_is_wrong_when_clean_is_wrong_under_every_source() -> None:
    x, x_adv, _ = made_on(SILU)
    loaded = load_model(request_model(SILU), 10)
    # With these labels the attacked images are right, and some clean images are wrong.
    y = predict(loaded.module, x_adv)
    clean = int((predict(loaded.module, x) == y).sum())
    data = replace(load_dataset("fashion-mnist", "test", N), labels=y.numpy())
    attack = Transfer(source=STANDARD)
    context = Context(data, LINF, Journal([made_already(x_adv)]))
    infos = {STANDARD: load_model(request_model(STANDARD), 10).info}
    run = MatrixRun(attack, infos, [loaded], context, torch.device("cpu"))

    run_stages(run, context)
    (target,) = run.judged()

    assert clean < N
    assert target.clean_correct == clean
    assert target.correct == [clean]


def test_a_cell_is_white_box_if_the_source_is_the_target(said: dict[str, Any]) -> None:
    marked = [
        (target["model"], cell["source"])
        for target in said["targets"]
        for cell in target["robust_accuracy"]
        if cell["white_box"]
    ]

    assert marked == [(SILU, SILU)]


def test_adversarial_images_are_made_once_for_all_targets(said: dict[str, Any]) -> None:
    assert said["sources"] == [
        {"name": name, "forwards": 4 * N, "backwards": 4 * N} for name in (SILU, STANDARD)
    ]
    assert [target["forwards"] for target in said["targets"]] == [3 * N, 3 * N]


def test_images_are_counted_by_the_number_of_sources_that_broke_them(said: dict[str, Any]) -> None:
    for target in said["targets"]:
        broken_by = target["broken_by"]
        assert sum(broken_by) == round(N * target["clean_accuracy"])
        assert broken_by[0] == round(N * target["worst_case"])
    assert [len(target["broken_by"]) for target in said["targets"]] == [3, 2]


def test_the_files_of_a_matrix_hold_the_same_numbers(folder: Path, said: dict[str, Any]) -> None:
    matrix = read_matrix(matrix_path(folder))

    assert [t.clean_correct / N for t in matrix.targets] == [
        t["clean_accuracy"] for t in said["targets"]
    ]
    assert matrix_path(folder).with_suffix(".md").read_text() == matrix_markdown(matrix)
    assert sorted(said["files"]) == sorted(
        str(path) for path in folder.iterdir() if path.name != "said.json"
    )


def test_a_matrix_is_read_and_written_back_unchanged(folder: Path) -> None:
    text = matrix_path(folder).read_text()

    assert parse_matrix(text, "here").to_json() == text


def test_a_matrix_records_that_searches_used_fast_copies_of_its_sources(folder: Path) -> None:
    assert {one.search for one in read_matrix(matrix_path(folder)).sources} == {"folded"}


def test_the_worst_case_over_sources_has_its_own_row(folder: Path) -> None:
    matrix = read_matrix(matrix_path(folder))
    label, cells = matrix_rows(matrix)[-1]

    assert label == WORST
    assert cells == [f"{100 * (target.worst or 0) / N:.1f}" for target in matrix.targets]
    assert f"| **{WORST}** |" in matrix_markdown(matrix)


def again(out: Path, batch_size: int = 250) -> MeasuredTransfer:
    """Measure the matrix of `WORDS`."""
    attack = "transfer(method=mi,steps=4,step=eps/2)"
    config = transfer_config(
        (SILU, STANDARD), (RELU, SILU), attack, n_examples=N, batch_size=batch_size, out=out
    )
    return measure_transfer(config)


def test_the_matrix_of_the_same_inputs_is_found_again(folder: Path) -> None:
    measured = again(folder)

    assert measured.found
    assert measured.path == matrix_path(folder)


def test_all_batch_sizes_give_the_same_matrix(folder: Path, tmp_path: Path) -> None:
    measured, one = again(tmp_path, batch_size=5), read_matrix(matrix_path(folder))

    assert not measured.found
    assert one.targets == measured.matrix.targets
    assert one.sources == measured.matrix.sources


def test_without_matplotlib_all_files_except_the_heat_map_are_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        picture, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )

    result = run(*WORDS, "--json", "--out", folder)

    assert result.exception is None
    assert "no heat map: figures need matplotlib" in result.stderr
    assert [Path(file).suffix for file in json.loads(result.stdout)["files"]] == [".json", ".md"]


def test_by_default_the_benchmarks_surrogates_attack_all_other_zoo_models() -> None:
    config = transfer_config((), ())
    own = benchmark_surrogates("fashion-mnist", LINF)

    assert config.sources == tuple(own)
    assert [target.text for target in config.targets] == [
        name for name in zoo_names() if name not in own
    ]
    assert (config.base.dataset, str(config.base.threat)) == ("fashion-mnist", "linf:0.1")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--source", "fmnist-sat-tiny-relu-s00"], "unknown model 'fmnist-sat-tiny-relu-s00'"),
        (["--target", "nobody"], "unknown model 'nobody'"),
        (["--source", RELU, "--source", RELU], f"the source {RELU} is given twice"),
        (["--target", RELU, "--target", RELU], f"the target {RELU} is given twice"),
        (["--attack", "pgd-50"], "expected --attack 'transfer(…)' for a transfer matrix"),
        (["--attack", f"transfer(source={RELU})"], "with --source, not in --attack"),
        (["--attack", "transfer(metod=mi)", "--n-examples", "2"], "did you mean 'method'"),
        (["--n-examples", "0"], "expected 1 example or more, got 0"),
        (["--eps", "0.2"], "benchmark fashion-mnist under linf:0.2 has no surrogates"),
        (["--dataset", "cifar10"], "no model of the zoo was trained on cifar10"),
    ],
)
def test_invalid_options_are_refused_in_one_sentence(
    words: list[str], sentence: str, tmp_path: Path
) -> None:
    result = run(*words, "--out", tmp_path)

    assert isinstance(result.exception, SatbenchError)
    assert sentence in str(result.exception)
    assert "\n" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"schema": 1', '"schema": 9', "expected a transfer matrix of schema 1"),
        ('"kind": "transfer"', '"kind": "curve"', "JSON of another kind"),
        ('"seed": 0,', "", "missing field seed"),
        ('"white_box": [', '"white_box": [true,', "2 counts for each target"),
        ("{", "", "is not JSON"),
    ],
)
def test_a_changed_matrix_file_is_refused(old: str, new: str, sentence: str, folder: Path) -> None:
    text = matrix_path(folder).read_text()
    assert old in text

    with pytest.raises(SatbenchError, match=sentence):
        parse_matrix(text.replace(old, new, 1), "here")


def test_a_stopped_matrix_is_resumed_with_the_same_result(
    said: dict[str, Any], tmp_path: Path
) -> None:
    attack = "transfer(method=mi,steps=4,step=eps/2)"
    targets = (RELU, SILU)
    config = transfer_config(
        (SILU, STANDARD), targets, attack, n_examples=N, batch_size=N // 2, out=tmp_path
    )
    for stop in (1, 3, 6):
        with pytest.raises(KeyboardInterrupt):
            measure_transfer(config, Quiet(stop_after=stop))

    kept = len(list(tmp_path.rglob("*.npz")))
    made = measure_transfer(config)
    told = json.loads(json.dumps(matrix_summary(made.matrix, [])))

    assert kept == 12  # including two preparations of the sources
    assert told["sources"] == said["sources"]
    assert told["targets"] == said["targets"]
    assert list(tmp_path.glob(".runs/*")) == []
