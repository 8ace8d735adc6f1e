"""Records of a user's own model and images can be checked, challenged and merged with these."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import satbench
from satbench.cli import main
from satbench.core.errors import SatbenchError
from satbench.proofs.verification import Verified
from satbench.records.record import Record, read_record, write_record
from satbench.records.witnesses import witnesses_path

GREY = np.random.default_rng(0).integers(0, 256, (20, 1, 6, 6), np.uint8)
X = torch.from_numpy(GREY).float() / 255
WEIGHT = torch.randn(3, 36, generator=torch.Generator().manual_seed(1))
Y = (X.flatten(1) @ WEIGHT.T).argmax(1)
WEAK, STRONG = "pgd(steps=1,start=clean)", "pgd(steps=20,start=clean)"

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 36, generator=torch.Generator().manual_seed(1)))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T
"""


class Net(nn.Module):
    def __init__(self, weight: torch.Tensor = WEIGHT) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight.T


def evaluate(out: Path | None, x: Any = X, **changes: Any) -> Record:
    given = {"attacks": WEAK, "eps": "0.06", "out": out} | changes
    return satbench.evaluate(Net(), x, Y, **given)


# In Python


def test_a_record_of_tensors_is_verified_with_these_tensors(tmp_path: Path) -> None:
    record = evaluate(tmp_path)
    verified = satbench.verify(record, Net(), X, Y)

    assert isinstance(verified, Verified)
    assert verified.path == record.path
    assert verified.witnesses == record.clean_correct - record.surviving()
    assert verified.clean_correct == record.clean_correct
    assert (verified.images, verified.surviving) == (20, record.surviving())
    assert (verified.confirmed, verified.robust_accuracy) == (True, record.surviving() / 20)
    left = record.surviving()
    assert verified.broken == 20 - left
    assert str(verified) == (
        f"robust accuracy {5 * left}.0 %, {left} of 20, confirmed as an upper bound: {20 - left} "
        f"of {20 - left} broken images proven broken; {left} survivors are claimed, "
        "not proven"
    )


WAYS: dict[str, Callable[[Record], Any]] = {
    "a record": lambda record: record,
    "a path": lambda record: record.path,
    "a text": lambda record: str(record.path),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("out", [True, False], ids=["in a folder", "in no folder"])
def test_a_record_can_be_given_as_an_object_or_a_path(way: str, out: bool, tmp_path: Path) -> None:
    record = evaluate(tmp_path if out else None)

    assert satbench.verify(WAYS[way](record), Net(), X, Y).confirmed


OWN_IMAGES: dict[str, tuple[Any, Any]] = {
    "arrays": (X.numpy(), Y.numpy()),
    "images that require a gradient": (X.clone().requires_grad_(), Y),
    "channels last in memory": (X.repeat(1, 1, 1, 1).to(memory_format=torch.channels_last), Y),
    "more images than were evaluated": (torch.cat([X, X.flip(0)]), torch.cat([Y, Y.flip(0)])),
}


@pytest.mark.parametrize("name", OWN_IMAGES)
def test_the_same_images_are_recognised_in_any_form(name: str, tmp_path: Path) -> None:
    assert satbench.verify(evaluate(tmp_path), Net(), *OWN_IMAGES[name]).confirmed


@pytest.mark.parametrize(
    "changes", [{"n_examples": 7}, {"until": 0.9}, {"until": 0.9, "n_examples": 12}], ids=str
)
def test_a_record_of_some_images_is_verified_with_all_images(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    assert satbench.verify(evaluate(tmp_path, **changes), Net(), X, Y).confirmed


WRONG: dict[str, tuple[Any, Any, Any, str]] = {
    "other images": (Net(), X.flip(0), Y.flip(0), "the images are not the record's"),
    "one other label": (Net(), X, Y.index_fill(0, torch.tensor([3]), 0), "the images are not"),
    "fewer images": (Net(), X[:9], Y[:9], "the images are not the record's"),
    "other weights": (Net(-WEIGHT), X, Y, "the weights are not the record's"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_model_or_wrong_images_are_named_and_no_number_is_confirmed(
    name: str, tmp_path: Path
) -> None:
    model, x, y, said = WRONG[name]
    verified = satbench.verify(evaluate(tmp_path), model, x, y)

    assert (verified.confirmed, verified.robust_accuracy) == (False, None)
    assert verified.faults[0].startswith(said)
    assert str(verified).startswith(f"not confirmed: {said}")


def test_a_changed_verdict_is_not_confirmed(tmp_path: Path) -> None:
    path = evaluate(tmp_path).path
    assert path is not None
    record = read_record(path)
    write_record(replace(record, verdicts=[*record.verdicts[1:], record.verdicts[0]]), path)

    assert not satbench.verify(path, Net(), X, Y).confirmed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), r"^the record is of a user's own images \(tensors\): give them with --data FILE"),
        ((Net(),), r"^the record is of a user's own images"),
        ((None, X, Y), r"^the record is of 'Net', .* given as a python: name it with --model"),
        ((Net(), X), r"^expected images x together with their labels y$"),
        ((Net(), X * 255, Y), r"^expected pixels in \[0, 1\]"),
        ((5, X, Y), r"^expected model as a torch.nn.Module, a function or a name, got 5$"),
        ((nn.Linear(2, 2), X, Y), r"weights|refuses|fails"),
    ],
)
def test_a_missing_or_wrong_argument_is_refused_in_one_sentence(
    given: tuple[Any, ...], said: str, tmp_path: Path
) -> None:
    record = evaluate(tmp_path)
    try:
        faults = satbench.verify(record.path, *given).faults
    except SatbenchError as error:
        faults = [str(error)]

    assert any(re.search(said, fault) for fault in faults)


def test_a_record_without_its_file_cannot_be_verified(tmp_path: Path) -> None:
    record = evaluate(tmp_path)
    with pytest.raises(SatbenchError, match="got a record without a file"):
        satbench.verify(replace(record, path=None), Net(), X, Y)
    with pytest.raises(SatbenchError, match=r"but the file was replaced$"):
        satbench.verify(replace(record, seed=5), Net(), X, Y)
    with pytest.raises(SatbenchError, match="expected record as a Record or the path"):
        satbench.verify(5, Net(), X, Y)  # type: ignore[arg-type]


def test_the_model_is_unchanged(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 3)).train()
    record = satbench.evaluate(net, X, Y, attacks=WEAK, eps="0.06", out=tmp_path)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    satbench.verify(record, net, X, Y)
    if record.surviving():
        satbench.challenge(record, net, X, Y, attacks=STRONG)

    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_a_challenge_of_a_users_own_record_lowers_it_and_verifies(tmp_path: Path) -> None:
    weak = evaluate(tmp_path)
    strong = satbench.challenge(weak, Net(), X, Y, attacks=STRONG, by="me", seed=3)
    alone = evaluate(tmp_path / "alone", attacks=STRONG, seed=3)

    assert weak.clean_correct > weak.surviving() > strong.surviving() == alone.surviving()
    assert strong.stages[-1].by == "me"
    assert satbench.verify(strong, Net(), X, Y).robust_accuracy == strong.surviving() / 20


def test_a_challenge_is_found_and_can_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = evaluate(tmp_path)
    done = [
        satbench.challenge(weak, Net(), X, Y, attacks=STRONG, fresh=fresh)
        for fresh in (False, False, True)
    ]

    assert [one.found for one in done] == [False, True, False]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_challenge_needs_attacks_or_images(tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match="give attacks or a file of images"):
        satbench.challenge(evaluate(tmp_path), Net(), X, Y)


def test_images_from_a_file_can_challenge_a_record_of_tensors(tmp_path: Path) -> None:
    weak, strong = evaluate(tmp_path), evaluate(tmp_path, attacks=STRONG)
    assert strong.path is not None
    from satbench.records.witnesses import read_witnesses

    images = X.numpy().copy()
    found = read_witnesses(witnesses_path(strong.path))
    images[found.indices] = found.images
    np.save(tmp_path / "made.npy", images)

    done = satbench.challenge(weak, Net(), X, Y, images=tmp_path / "made.npy")
    assert done.surviving() == strong.surviving()


def test_a_challenge_of_a_temporary_record_outlives_it(tmp_path: Path) -> None:
    weak = evaluate(None)
    strong = satbench.challenge(weak, Net(), X, Y, attacks=STRONG)
    del weak

    assert satbench.verify(strong, Net(), X, Y).confirmed


def test_a_record_with_a_relative_path_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weak = evaluate(Path("out"))
    strong = satbench.challenge(weak, Net(), X, Y, attacks=STRONG)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert satbench.verify(weak, Net(), X, Y).confirmed
    assert satbench.verify(strong, Net(), X, Y).confirmed


def test_a_users_own_records_are_merged(tmp_path: Path) -> None:
    one, other = evaluate(tmp_path), evaluate(tmp_path, attacks=STRONG)
    merged = satbench.merge([one, str(other.path)], Net(), X, Y)

    assert merged.surviving() == min(one.surviving(), other.surviving())
    assert satbench.verify(merged, Net(), X, Y).confirmed
    with pytest.raises(SatbenchError, match="two records or more"):
        satbench.merge([one], Net(), X, Y)
    with pytest.raises(SatbenchError, match="expected records as a list"):
        satbench.merge(one, Net(), X, Y)  # type: ignore[arg-type]


def test_dir_lists_the_public_functions() -> None:
    assert {"evaluate", "verify", "challenge", "merge"} <= set(dir(satbench))


# On the command line

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """A function that runs a command line among the user's files: -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_net.py").write_text(CODE, encoding="utf-8")
    np.savez("x.npz", x=X.numpy(), y=Y.numpy())
    np.savez("grey.npz", images=GREY, labels=Y.numpy())
    torch.save({"x": X, "y": Y}, "x.pt")
    torch.save((X, Y), "pair.pt")
    np.save("x.npy", X.numpy())
    np.save("y.npy", Y.numpy())

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["satbench", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    yield run
    sys.modules.pop("own_net", None)


MODEL = ("--model", "own_net:Net")


@pytest.mark.parametrize("data", ["x.npz", "grey.npz", "x.pt", "pair.pt", "x.npy,y.npy"])
def test_verify_prints_the_number_that_it_confirms(data: str, run: Run, tmp_path: Path) -> None:
    record = evaluate(tmp_path / "out")
    left = record.surviving()

    assert run("verify", record.path or "", *MODEL, "--data", data, "--quiet") == (
        0,
        f"{record.path}: robust accuracy {5 * left}.0 %, {left} of 20, confirmed as an upper "
        f"bound: {20 - left} of {20 - left} broken images proven broken; {left} survivors "
        f"are claimed, not proven; 20 verdicts, {20 - left} witnesses: all hold\n",
        "",
    )


def test_a_record_made_on_the_command_line_is_verified_in_python(run: Run) -> None:
    words = (*MODEL, "--data", "grey.npz", "--attack", WEAK, "--eps", "0.06", "--json", "--quiet")
    code, out, _ = run("eval", *words)
    (told,) = json.loads(out)
    verified = satbench.verify(told["record"], Net(), X, Y)

    assert code == 0
    assert verified.surviving == told["rows"][-1]["correct"]
    assert verified.confirmed


def test_verify_prints_the_number_as_json(run: Run, tmp_path: Path) -> None:
    record = evaluate(tmp_path / "out")
    words = (record.path or "", *MODEL, "--json", "--quiet")
    _, right, _ = run("verify", *words, "--data", "x.npz")
    np.savez("other.npz", x=1 - X.numpy(), y=Y.numpy())
    code, wrong, _ = run("verify", *words, "--data", "other.npz")
    (good,), (bad,) = json.loads(right), json.loads(wrong)

    assert (good["confirmed"], good["robust_accuracy"]) == (True, record.surviving() / 20)
    assert (code, bad["confirmed"], bad["robust_accuracy"]) == (1, False, None)


def test_verify_without_the_images_says_how_to_give_them(run: Run, tmp_path: Path) -> None:
    record = evaluate(tmp_path / "out")
    code, out, err = run("verify", record.path or "", *MODEL)

    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "--data FILE" in err


def test_challenge_and_merge_accept_images(run: Run, tmp_path: Path) -> None:
    weak = evaluate(tmp_path / "out").path or Path()
    given = (*MODEL, "--data", "x.npy,y.npy", "--json")
    code, out, _ = run("challenge", weak, "--attack", STRONG, *given, "--quiet")
    told = json.loads(out)
    assert (code, told["found"]) == (0, False)
    assert told["survivors"] < told["survivors_before"]

    anew = json.loads(run("challenge", weak, "--attack", STRONG, *given, "--quiet", "--again")[1])
    assert anew["found"] is False

    code, out, _ = run("merge", weak, told["record"], *given)
    assert (code, json.loads(out)["survivors"]) == (0, told["survivors"])
