"""`satbench.certify`, `satbench certify`, and the check of what they wrote."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bounded_nets import perceptron
from torch import nn

import satbench
from satbench.certification.run import Certified
from satbench.cli import main
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.engine.judge import broken
from satbench.records.certificates import (
    Certificate,
    Proofs,
    proofs_path,
    read_certificate,
    read_proofs,
    write_certificate,
    write_proofs,
)

SHIPPED = "fmnist-sat-tiny-relu-s0"
EPS = 0.15
PLACES = [0, 2, 1, 4, 9, 20, 23, 53, 51, 126, 26, 37, 8, 12, 285, 3]
"""Of 300 random images of two pixels: those that need different methods, and four broken ones."""

PIXELS = np.random.default_rng(1).integers(0, 256, (300, 1, 1, 2), np.uint8)[PLACES]
X = torch.from_numpy(PIXELS).float() / 255


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process; it returns the code, and what it printed."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["satbench", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def net() -> nn.Sequential:
    """Two hidden layers of 6 ReLU, for images of two pixels."""
    made = perceptron("relu", 2, 6, 6, 3, seed=5).float()
    assert isinstance(made, nn.Sequential)
    for layer in made[1::2]:
        layer.weight.mul_(2.5)
    return made


NET = net()
Y = NET(X).argmax(1)
Y[0] = (Y[0] + 1) % 3  # one image is wrong when clean


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    """A certificate of 16 images with every verdict and every method in it."""
    out = tmp_path_factory.mktemp("certified")
    return satbench.certify(NET, X, Y, eps=EPS, method="bab", seconds=None, out=out)


def test_a_certificate_tells_of_each_image(certified: Certified) -> None:
    told = certified.certificate
    assert set(told.verdicts) == {0, 1, -1}
    assert told.verdicts[0] == 0
    assert certified.images.sum() == told.certified == told.verdicts.count(1)
    assert certified.clean_accuracy == 15 / 16
    assert certified.certified_accuracy == told.certified / 16
    assert set(read_proofs(proofs_path(certified.path), 16).methods.tolist()) == {0, 1, 2, 3, 4}
    for verdict, margin in zip(told.verdicts, told.margins, strict=True):
        assert (
            (margin is None) if verdict == 0 else margin is None or (margin >= 0) == (verdict > 0)
        )
    assert read_certificate(certified.path) == told


def test_certified_is_what_cannot_be_broken(certified: Certified) -> None:
    """Branch and bound of a ReLU net has no limit here: every other image can be broken.

    The oracle tries 201 × 201 images of each ball.
    """
    steps = torch.linspace(-1, 1, 201, dtype=torch.float64)
    grid = (EPS * torch.cartesian_prod(steps, steps)).view(-1, 1, 1, 2)
    seen = [
        broken(
            NET,
            x.expand(len(grid), -1, -1, -1),
            (x + grid).clamp(0, 1).float(),
            y.expand(len(grid)),
            Threat.of("linf", EPS),
        ).any()
        for x, y in zip(X, Y, strict=True)
    ]

    assert certified.images.tolist() == [not one for one in seen]
    assert sum(seen) == 5


def test_what_was_certified_is_found_again_and_made_again(tmp_path: Path) -> None:
    given: dict[str, Any] = {"eps": EPS, "method": "crown", "out": tmp_path}
    first = satbench.certify(NET, X[:4], Y[:4], **given)
    again = satbench.certify(NET, X[:4], Y[:4], **given)
    fresh = satbench.certify(NET, X[:4], Y[:4], fresh=True, **given)

    assert [one.found for one in (first, again, fresh)] == [False, True, False]
    assert again.certificate == first.certificate
    assert fresh.certificate.verdicts == first.certificate.verdicts
    assert fresh.certificate.proofs_digest == first.certificate.proofs_digest
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".npz"]


def test_a_stopped_certification_goes_on_after_its_last_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from satbench.certification.proving import Prover

    done: list[int] = []
    prove = Prover.prove

    def stopping(self: Prover, region: Any, label: int, *rest: Any) -> Any:
        if len(done) == 3:
            done.append(-1)
            raise KeyboardInterrupt
        done.append(label)
        return prove(self, region, label, *rest)

    monkeypatch.setattr(Prover, "prove", stopping)
    given: dict[str, Any] = {"eps": EPS, "method": "alpha-crown", "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        satbench.certify(NET, X[1:7], Y[1:7], **given)
    went_on = satbench.certify(NET, X[1:7], Y[1:7], **given)

    assert len(done) == 3 + 1 + 3
    whole = satbench.certify(NET, X[1:7], Y[1:7], **{**given, "out": tmp_path / "whole"})
    assert went_on.certificate.verdicts == whole.certificate.verdicts
    assert went_on.certificate.proofs_digest == whole.certificate.proofs_digest


def test_a_certificate_verifies(certified: Certified) -> None:
    for given in (certified, certified.path, str(certified.path)):
        verified = satbench.verify(given, NET, X, Y)  # type: ignore[call-overload]
        assert verified.faults == []
        assert verified.certified_accuracy == certified.certified_accuracy
        assert verified.proofs == certified.certificate.certified


def tampered(folder: Path, certified: Certified, **fields: Any) -> Path:
    """Write the certificate with other fields, those of its proofs among them."""
    told, proofs = certified.certificate, read_proofs(proofs_path(certified.path), 16)
    of_proofs = {name: fields.pop(name) for name in vars(proofs) if name in fields}
    proofs = replace(proofs, **of_proofs)
    path = folder / "tampered.json"
    write_proofs(proofs, proofs_path(path))
    write_certificate(replace(told, **{"proofs_digest": proofs.digest, **fields}), path)
    return path


def one_more(told: Certificate, proofs: Proofs) -> dict[str, Any]:
    """An image that is open is said to be certified, with the proof of another."""
    index = told.verdicts.index(-1)
    at = int(np.searchsorted(proofs.indices, index))
    return {
        "verdicts": [1 if i == index else v for i, v in enumerate(told.verdicts)],
        "margins": [0.5 if i == index else m for i, m in enumerate(told.margins)],
        "indices": np.insert(proofs.indices, at, index),
        "methods": np.insert(proofs.methods, at, 1),
    }


def other_slopes(told: Certificate, proofs: Proofs) -> dict[str, Any]:
    assert len(proofs.slopes) > 1
    return {"slopes": np.float16(1) - proofs.slopes}


def weaker_method(told: Certificate, proofs: Proofs) -> dict[str, Any]:
    at = int(np.flatnonzero(proofs.methods == 1)[0])
    return {
        "methods": np.where(np.arange(len(proofs.methods)) == at, 0, proofs.methods).astype("u1")
    }


TAMPERING: dict[str, Callable[[Certificate, Proofs], dict[str, Any]]] = {
    "an open image called certified": one_more,
    "a larger margin": lambda told, proofs: {
        "margins": [m and m + 0.001 * (m > 0) for m in told.margins]
    },
    "other slopes": other_slopes,
    "a proof of a weaker method": weaker_method,
    "a proof beyond the method": lambda told, proofs: {"method": "crown"},
    "a larger eps": lambda told, proofs: {"eps": "0.2"},
    "another norm": lambda told, proofs: {"norm": "l2"},
    "a wrong image called right": lambda told, proofs: {"verdicts": [-1, *told.verdicts[1:]]},
    "a proof left out": lambda told, proofs: {
        "indices": proofs.indices[1:], "methods": proofs.methods[1:]
    },
    "multipliers that are gone": lambda told, proofs: {"betas": proofs.betas * 0},
    "the proofs of another certificate": lambda told, proofs: {"proofs_digest": "0" * 64},
    "a verdict of another kind": lambda told, proofs: {"verdicts": [2, *told.verdicts[1:]]},
    "a margin that is missing": lambda told, proofs: {"margins": [None] * 16},
    "fewer images": lambda told, proofs: {"verdicts": told.verdicts[1:]},
    "no time": lambda told, proofs: {"seconds": 0},
}  # fmt: skip


@pytest.mark.parametrize("kind", TAMPERING)
def test_a_certificate_that_was_changed_is_refused(
    kind: str, certified: Certified, tmp_path: Path
) -> None:
    proofs = read_proofs(proofs_path(certified.path), 16)
    changes = TAMPERING[kind](certified.certificate, proofs)
    try:
        path = tampered(tmp_path, certified, **changes)
        faults = satbench.verify(path, NET, X, Y).faults
    except SatbenchError:
        return
    assert faults


def test_a_changed_identity_does_not_hide_a_larger_eps(
    certified: Certified, tmp_path: Path
) -> None:
    from satbench.records.certificates import certificate_identity

    told = replace(certified.certificate, eps="0.2")
    identity = certificate_identity(
        told.model, told.dataset, told.threat, told.method, told.seconds
    )
    path = tampered(tmp_path, certified, eps="0.2", identity=identity)
    verified = satbench.verify(path, NET, X, Y)

    assert any("shows a margin" in fault for fault in verified.faults)


def test_another_net_or_other_images_are_none_of_the_certificates(certified: Certified) -> None:
    other = net()
    with torch.no_grad():
        other[5].weight[0, 0] += 1e-3
    assert satbench.verify(certified, other, X, Y).faults
    assert satbench.verify(certified, NET, X.flip(0), Y).faults
    assert satbench.verify(certified, NET, X, Y.flip(0)).faults


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:100],
        lambda data: bytes(255 - byte if 40 < k < 400 else byte for k, byte in enumerate(data)),
        lambda data: b"",
    ],
    ids=["cut", "other bytes", "empty"],
)
def test_proofs_that_are_corrupt_are_refused(
    change: Callable[[bytes], bytes], certified: Certified, tmp_path: Path
) -> None:
    path = tmp_path / certified.path.name
    shutil.copy(certified.path, path)
    proofs_path(path).write_bytes(change(proofs_path(certified.path).read_bytes()))

    assert satbench.verify(path, NET, X, Y).faults


def test_proofs_of_the_wrong_shape_are_refused_before_they_are_read(
    certified: Certified, tmp_path: Path
) -> None:
    honest = read_proofs(proofs_path(certified.path), 16)
    path = tmp_path / "p.proofs.npz"
    for change in (
        {"indices": honest.indices[::-1]},
        {"indices": honest.indices + 16},
        {"methods": honest.methods.astype(np.int64)},
        {"slopes": honest.slopes[..., 0]},
        {"slope_of": honest.slope_of + np.array([[50, 0]])},
        {"slope_of": honest.slope_of[[0] * len(honest.slope_of)]},
        {"tree_ends": honest.tree_ends + 1},
        {"tree_ends": honest.tree_ends[::-1]},
        {"points": honest.points[1:]},
    ):
        write_proofs(replace(honest, **change), path)  # type: ignore[arg-type]
        with pytest.raises(SatbenchError, match="corrupt"):
            read_proofs(path, 16)
    with pytest.raises(SatbenchError, match="missing"):
        read_proofs(tmp_path / "none.npz", 16)


class Drawing(nn.Module):
    """A net that draws a number at each pass, which no graph shows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1)) + self.shift

    @property
    def shift(self) -> torch.Tensor:
        return torch.rand(3)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Drawing(), "(otherwise than its layers|draws|randomised|differ)"),
        (nn.Sequential(nn.Conv2d(1, 3, 1), nn.MaxPool2d((1, 2)), nn.Flatten()), "MaxPool2d"),
        (nn.Sequential(nn.Flatten(), nn.Linear(2, 3).bfloat16()), "(float32|bfloat16|BFloat16)"),
    ],
    ids=["draws numbers", "max-pooling", "half"],
)
def test_a_net_that_cannot_be_bounded_is_refused(
    model: nn.Module, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SatbenchError, match=said):
        satbench.certify(model, X, Y, eps=0.01, out=tmp_path)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "magic"}, "crown-ibp"),
        ({"seconds": 0}, "above 0"),
        ({"seconds": "long"}, "seconds"),
        ({"eps": None}, "eps"),
        ({"eps": 3}, "at most 1"),
        ({"norm": "l7"}, "linf"),
        ({"n_examples": 0}, "1"),
    ],
    ids=["method", "no time", "a text", "no eps", "eps of 3", "norm", "no image"],
)
def test_a_wrong_argument_is_one_sentence(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=said):
        satbench.certify(NET, X, Y, **{"eps": 0.1, "out": tmp_path, **given})


def test_the_command_certifies_attacks_draws_and_verifies(run: Run, tmp_path: Path) -> None:
    """Both bounds of three images at two eps, from shipped weights."""
    words = ["--eps", "0.0005", "--eps", "0.1", "--method", "crown-ibp", "--limit", "3"]
    code, out, _ = run("certify", SHIPPED, *words, "--attack", "pgd-2", "--out", tmp_path, "--json")
    assert code == 0
    small, large = json.loads(out)
    assert (small["certified"], large["certified"]) == (3, 0)
    assert small["surviving"] == 3 > large["surviving"]
    assert small["open"] == 0
    assert {Path(figure).suffix for figure in small["figures"]} == {".png", ".svg"}
    assert all(Path(figure).stat().st_size > 1000 for figure in small["figures"])

    code, out, _ = run("verify", small["path"], "--json")
    assert code == 0
    (one,) = json.loads(out)
    assert (one["confirmed"], one["certified"], one["proofs"]) == (True, 3, 3)

    path = Path(small["path"])
    path.write_text(path.read_text().replace('"eps": "0.0005"', '"eps": "0.05"'))
    code, _, err = run("verify", path)
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        (SHIPPED, "--eps", "many"),
        (SHIPPED, "--seconds", "-1"),
        (SHIPPED, "--method", "magic"),
        ("no-such-model", "--eps", "0.1"),
        (),
    ],
    ids=["eps", "seconds", "method", "model", "nothing"],
)
def test_bad_input_ends_with_one_sentence(words: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    code, _, err = run("certify", *words, "--out", tmp_path)

    assert code == 2
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
