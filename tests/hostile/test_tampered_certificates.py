"""Certificates with one kind of tampering each, with every digest adapted: `verify` finds it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import satbench
from satbench.core.errors import SatbenchError
from satbench.core.limits import MOST_VALUES
from satbench.core.schema import convert
from satbench.records.certificates import (
    Certificate,
    Proofs,
    certificate_identity,
    is_certificate,
    proofs_path,
    read_certificate,
    read_proofs,
    write_certificate,
    write_proofs,
)
from satbench.records.certified import countable_certificates
from satbench.records.witnesses import read_witnesses

SHIPPED = "fmnist-sat-tiny-relu-s0"
Change = Callable[[dict[str, Any]], None]


def into(part: str, **values: object) -> Change:
    def change(certificate: dict[str, Any]) -> None:
        (certificate[part] if part else certificate).update(values)

    return change


LIMITS: dict[str, Change] = {
    "no split": into("dataset", split=""),
    "no classes": into("dataset", classes=0),
    "a digest that is none": into("", proofs_digest="../x"),
    "answers of a shipped model": into("model", answers_digest="a" * 64),
    "code of its own without answers": into("model", source="python"),
    "finished in 1999": into("environment", finished="1999-12-31T23:59:59+00:00"),
    "finished at no time": into("environment", finished="just now"),
    "a platform of control characters": into("environment", platform="\x1b[31m"),
    "a formula as a version": into("environment", torch="=cmd|x"),
    "negative times": into("environment", clean_seconds=-1.0),
    "no threads": into("environment", threads=0),
    "eps written otherwise": into("", eps="0.00010"),
}
"""Tampering that is found without the model."""

FOUND: dict[str, Change] = {
    "another split": into("dataset", split="train"),
    "another number of classes": into("dataset", classes=100),
    "a larger eps": into("", eps="8/255"),
    "another norm": into("", norm="l1"),
    "a cheaper method": into("", method="ibp"),
    "a larger margin": into("", margins=[9.0, 9.0]),
    "another name": into("model", name="best-model"),
    "another shipped model": into("model", name="fmnist-sat-tiny-silu-s0"),
    "another activation": into("model", activation="silu"),
    "other weights": into("model", weights_digest="f" * 64),
    "other images": into("dataset", digest="f" * 64),
    "other proofs": into("", proofs_digest="f" * 64),
}
"""Tampering that needs the model, the images or the proofs."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("certified")
    return satbench.certify(SHIPPED, eps="0.0001", method="crown-ibp", n_examples=2, out=out).path


def forged(honest: Path, change: Change, folder: Path) -> Path:
    values = json.loads(honest.read_text())
    change(values)
    told = convert(values, Certificate, "certificate", "a test")
    inputs = (told.model, told.dataset, told.threat, told.method, told.seconds)
    path = folder / "forged.json"
    write_certificate(replace(told, identity=certificate_identity(*inputs)), path)
    proofs = read_proofs(proofs_path(honest), told.n)
    if told.method == "ibp":  # a proof of the cheaper method shows a smaller margin
        proofs = replace(proofs, methods=np.ones(2, np.uint8))
        write_certificate(replace(read_certificate(path), proofs_digest=proofs.digest), path)
    write_proofs(proofs, proofs_path(path))
    return path


def test_an_honest_certificate_is_confirmed(honest: Path) -> None:
    assert satbench.verify(honest).faults == []


@pytest.mark.parametrize("kind", LIMITS | FOUND)
def test_tampering_is_found(kind: str, honest: Path, tmp_path: Path) -> None:
    assert satbench.verify(forged(honest, (LIMITS | FOUND)[kind], tmp_path)).faults


def test_a_sentence_about_a_certificate_does_not_call_it_a_record(
    honest: Path, tmp_path: Path
) -> None:
    (fault,) = satbench.verify(forged(honest, FOUND["another activation"], tmp_path)).faults

    assert "the model is not as in the certificate: its activation here is" in fault
    assert "record" not in fault


@pytest.mark.parametrize("kind", LIMITS)
def test_a_board_counts_no_certificate_that_no_run_would_have_written(
    kind: str, honest: Path, tmp_path: Path
) -> None:
    found, faults = countable_certificates(
        [read_certificate(forged(honest, LIMITS[kind], tmp_path))], []
    )
    assert (found, len(faults)) == ([], 1)


def test_a_certificate_of_other_code_with_the_same_weights_is_not_confirmed(tmp_path: Path) -> None:
    x, y = torch.full((4, 1, 2, 2), 0.75), torch.zeros(4, dtype=torch.int64)
    first, last = nn.Linear(4, 3), nn.Linear(3, 2)
    nn.init.constant_(first.weight, -1.0)
    last.bias.data = torch.tensor([9.0, 0.0])
    mine, other = (
        nn.Sequential(nn.Flatten(), first, activation, last)
        for activation in (nn.ReLU(), nn.LeakyReLU(0.2))
    )
    path = satbench.certify(mine, x, y, eps=0.001, method="crown-ibp", out=tmp_path).path
    told = read_certificate(path)
    write_certificate(replace(told, margins=[0.0] * 4), path)

    assert satbench.verify(path, mine, x, y).confirmed
    assert not satbench.verify(path, other, x, y).confirmed


def test_whether_a_text_is_a_certificate_is_asked_within_the_limits() -> None:
    lists = "[]," * (MOST_VALUES // 2 + 1)
    assert not is_certificate(f'{{"kind": "certificate", "a": [{lists}[]]}}')
    assert is_certificate('{"kind": "certificate"}')


def test_ends_of_trees_that_overflow_are_refused(honest: Path, tmp_path: Path) -> None:
    proofs = read_proofs(proofs_path(honest), 2)
    wrapped: Proofs = replace(
        proofs,
        tree_of=np.array([[0, 1], [0, 2], [0, 3], [0, 4]]),
        tree_ends=np.array([[2**63 - 1, 0], [-(2**63), 0], [-1, 0], [0, 0]]),
    )
    write_proofs(wrapped, tmp_path / "wrapped.npz")
    with pytest.raises(SatbenchError, match="corrupt"):
        read_proofs(tmp_path / "wrapped.npz", 2)


@pytest.mark.parametrize("read", [read_witnesses, lambda path: read_proofs(path, 2)])
def test_a_pipe_in_the_place_of_arrays_is_not_waited_for(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    writer = os.open(tmp_path / "pipe.npz", os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(SatbenchError, match="not a plain file"):
            read(tmp_path / "pipe.npz")
    finally:
        os.close(writer)
