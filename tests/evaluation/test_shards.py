"""Shards of a command: independent parts that are merged into the record of one process."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from satbench.attacks.suites.suite import parse_suite
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.evaluation.api import evaluate_config
from satbench.evaluation.cluster.shards import InShard, Shard, merge_shards, run_shard
from satbench.evaluation.config import EvalConfig, eval_config
from satbench.evaluation.workers import Workers
from satbench.records.witnesses import witnesses_path

RELU, SILU = "fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0"
ATTACKS = ("pgd-2", "square(queries=5,block=10)")
ONE = Workers(1)


def configs(out: Path, *attacks: str, **more: Any) -> list[EvalConfig]:
    given = {"n_examples": 25, "batch_size": 20, "device": "cpu", **more}
    return [
        eval_config(name, attacks=attacks or ATTACKS, out=out, **given) for name in (RELU, SILU)
    ]


def alone(out: Path, *attacks: str) -> dict[str, bytes]:
    for config in configs(out, *attacks):
        evaluate_config(config)
    return written(out)


def written(out: Path) -> dict[str, bytes]:
    """Return the bytes of records, without place and time, and of witnesses."""
    told = {path.name: path.read_bytes() for path in out.glob("*.npz")}
    for path in out.glob("*.json"):
        record = json.loads(path.read_text())
        record.pop("environment")
        told[path.name] = json.dumps(record).encode()
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    return told


def test_shards_in_separate_folders_merge_into_the_records_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = alone(tmp_path / "alone")
    folders = [tmp_path / f"shard-{number}" for number in (1, 2, 3)]
    for number, folder in enumerate(folders, 1):
        run_shard(configs(folder), Shard(number, 3))
        assert list(folder.glob("*.json")) == []
    for name in ("CleanPass", "_Attacking"):
        monkeypatch.setattr(f"satbench.engine.suite_run.{name}.run", None)  # no unit runs again
    merged = merge_shards(folders, tmp_path / "out", ONE, quiet=True)

    assert whole == written(tmp_path / "out")
    assert [RELU, SILU] == [done.record.model.name for done in merged]
    assert all(list(folder.glob(".runs/*/*.npz")) for folder in folders)
    assert all(witnesses_path(done.path).is_file() for done in merged)


@pytest.mark.slow
def test_shards_in_one_folder_are_merged_there(tmp_path: Path) -> None:
    for number in (2, 1):
        run_shard(configs(tmp_path / "out"), Shard(number, 2))
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.npz")}
    run_shard(configs(tmp_path / "out"), Shard(2, 2))  # the same shard again has nothing to do
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.npz")}
    merge_shards([tmp_path / "out"], workers=ONE, quiet=True)

    assert made == kept
    assert alone(tmp_path / "alone") == written(tmp_path / "out")


@pytest.mark.slow
def test_stages_that_select_among_all_images_run_when_shards_are_merged(
    tmp_path: Path,
) -> None:
    attacks = ("pgd-2", "fast(source=none)")
    for number in (1, 2):
        run_shard(configs(tmp_path / "out", *attacks), Shard(number, 2))
    stages = {path.name[:3] for path in (tmp_path / "out").glob(".runs/*/*.npz")}
    merge_shards([tmp_path / "out"], workers=ONE, quiet=True)

    suite = parse_suite(attacks)
    first = next(k for k, stage in enumerate(suite, 1) if hasattr(stage.attack, "selects"))
    assert stages == {f"{number:03d}" for number in range(first)}
    assert alone(tmp_path / "alone", *attacks) == written(tmp_path / "out")


@pytest.mark.parametrize(("n", "count"), [(45, 3), (1000, 64), (7, 2), (500, 1)])
def test_every_image_of_every_model_is_in_one_shard(n: int, count: int) -> None:
    suite = parse_suite(["apgd-ce(block=20)", "square(block=30)"])
    for place in range(3):
        pieces = sorted(
            (span.start, span.stop)
            for number in range(1, count + 1)
            for span in InShard(Shard(number, count), place, 250).spans(suite, n)
        )
        assert [start for start, _ in pieces] == list(range(0, n, 60))
        assert [stop for _, stop in pieces] == [min(start + 60, n) for start, _ in pieces]


def test_the_first_images_of_each_model_go_to_different_shards() -> None:
    suite = parse_suite(["pgd-2"])
    firsts = [list(InShard(Shard(2, 4), place, 10).spans(suite, 20)) for place in range(4)]

    assert [[slice(10, 20)], [], [slice(10, 20)], []] == firsts


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/4", "1/999999"])
def test_an_invalid_shard_is_refused(text: str) -> None:
    with pytest.raises(SatbenchError, match=r"^expected --shard K/N"):
        Shard.parse(text)


@pytest.mark.parametrize("more", [{"until": "2%", "n_examples": None}, {"fresh": True}])
def test_a_run_that_cannot_be_divided_is_refused(more: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"^--shard cuts the images"):
        run_shard(configs(tmp_path, **more), Shard(1, 2))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    run_shard(configs(out, "pgd(steps=1)", n_examples=2), Shard(1, 2))
    return out


@pytest.fixture
def half(made: Path, tmp_path: Path) -> Path:
    """A folder with the first of two very small shards."""
    return Path(shutil.copytree(made, tmp_path / "half"))


def files(out: Path) -> set[Path]:
    return set(out.rglob("*"))


def test_a_missing_shard_is_named_and_no_file_changes(half: Path) -> None:
    before = files(half)
    with pytest.raises(SatbenchError, match=r"^1 of 2 shards are missing, 2: .*--shard 2/2"):
        merge_shards([half], workers=ONE)
    assert before == files(half)


def test_shards_of_two_commands_are_refused(half: Path, tmp_path: Path) -> None:
    run_shard(configs(tmp_path / "other", "pgd(steps=2)", n_examples=2), Shard(2, 2))
    with pytest.raises(SatbenchError, match=r"^expected shards of one command"):
        merge_shards([half, tmp_path / "other"], workers=ONE)


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"^expected folders of"):
        merge_shards([tmp_path], workers=ONE)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "evil:make"},
        {"dataset": "hf:somebody/images"},
        {"bpda": ["0=evil:make"]},
    ],
)
def test_names_in_a_shard_run_no_untrusted_code(change: dict[str, Any], half: Path) -> None:
    path = next((half / ".shards").iterdir())
    told = json.loads(path.read_text())
    for number in (1, 2):
        models = [{**model, **change} for model in told["models"]]
        changed = {**told, "number": number, "models": models}
        (half / ".shards" / f"{number}.json").write_text(json.dumps(changed))
    path.unlink()

    with pytest.raises(SatbenchError, match="--trust"):
        merge_shards([half], workers=ONE)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 2}', "\x00"])
def test_a_broken_shard_is_refused_in_one_sentence(text: str, half: Path) -> None:
    path = next((half / ".shards").iterdir())
    path.write_text(text)

    with pytest.raises(SatbenchError) as raised:
        merge_shards([half], workers=ONE)
    assert path.name in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.slow
def test_a_partly_copied_unit_is_copied_again(half: Path, tmp_path: Path) -> None:
    run_shard(configs(half, "pgd(steps=1)", n_examples=2), Shard(2, 2))
    unit = next(half.glob(".runs/*/001-*.npz"))
    place = tmp_path / "out" / unit.parent.relative_to(half)
    place.mkdir(parents=True)
    (place / f".{unit.name}.copy.part").write_bytes(unit.read_bytes()[:50])
    (done, _) = merge_shards([half], tmp_path / "out", ONE, quiet=True)

    again = merge_shards([half], tmp_path / "again", ONE, quiet=True)[0]
    assert replace(again.record, environment=done.record.environment) == done.record
    assert list((tmp_path / "out").rglob("*.part")) == []


def test_the_command_line_runs_and_merges_shards(tmp_path: Path) -> None:
    words = ["eval", RELU, "--attack", "pgd(steps=1)", "--limit", "10", "--out", str(tmp_path)]
    first = CliRunner().invoke(cli, [*words, "--shard", "1/2", "--json", "--quiet"])
    too_early = CliRunner().invoke(cli, ["merge-shards", str(tmp_path)])
    second = CliRunner().invoke(cli, [*words, "--shard", "2/2", "--quiet"])
    merged = CliRunner().invoke(cli, ["merge-shards", str(tmp_path), "--json", "--quiet"])

    assert (0, 0, 0) == (first.exit_code, second.exit_code, merged.exit_code)
    assert (1, 2) == tuple(json.loads(first.stdout)[key] for key in ("shard", "of"))
    assert isinstance(too_early.exception, SatbenchError)
    (told,) = json.loads(merged.stdout)
    assert (RELU, 10) == (told["model"], told["n"])
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".npz"]
