"""Kinds of tampering with a record and its witnesses; each is found and named in one sentence.

A forger may be careful: in tests with `resealed` in their names, every digest, the identity and the
sums match the change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.evaluation.run import Evaluation, run_evaluation
from satbench.models import load_model, request_model
from satbench.proofs.challenging import Challenge, run_challenge
from satbench.proofs.verification import verify_record
from satbench.records.record import (
    Record,
    StageResult,
    identity_of,
    inputs_of,
    read_record,
    write_record,
)
from satbench.records.witnesses import (
    Witnesses,
    read_witnesses,
    witnesses_path,
    write_witnesses,
)

N = 30


@dataclass
class Forgery:
    """A record and its witnesses, to be changed and written again."""

    path: Path

    def __post_init__(self) -> None:
        self.record = read_record(self.path)
        self.witnesses = read_witnesses(witnesses_path(self.path))

    def index(self, verdict: int) -> int:
        """Return the first image with a verdict."""
        return self.record.verdicts.index(verdict)

    def change(self, **values: Any) -> None:
        self.record = replace(self.record, **values)

    def change_stage(self, number: int, change: Callable[[StageResult], StageResult]) -> None:
        stages = list(self.record.stages)
        stages[number - 1] = change(stages[number - 1])
        self.change(stages=stages)

    def give_verdict(self, index: int, verdict: int) -> None:
        """Change one verdict, and the sums of all stages with it."""
        verdicts = list(self.record.verdicts)
        verdicts[index] = verdict
        stages, left = [], sum(v != 0 for v in verdicts)
        for number, stage in enumerate(self.record.stages, 1):
            broken = verdicts.count(number)
            stages.append(replace(stage, attacked=left, broken=broken))
            left -= broken
        self.change(verdicts=verdicts, stages=stages)

    def paint(self, row: int, image: Any) -> None:
        """Replace a witness by another image."""
        images = self.witnesses.images.copy()
        images[row] = image
        self.witnesses = Witnesses(self.witnesses.indices, images)

    def faults(self, resealed: bool = True) -> list[str]:
        """Write all files, and return the faults that verify finds."""
        if resealed:
            record = replace(self.record, witnesses_digest=self.witnesses.digest)
            self.record = replace(record, identity=identity_of(inputs_of(record)))
        write_witnesses(self.witnesses, witnesses_path(self.path))
        write_record(self.record, self.path)
        return verify_record(self.path).faults


@pytest.fixture(autouse=True)
def _read_the_images_once(monkeypatch: pytest.MonkeyPatch, fashion: Dataset) -> None:
    monkeypatch.setattr("satbench.evaluation.given.load_dataset", lambda *_, **__: fashion)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the record of an evaluation, and that of a challenge of it."""
    model = load_model(request_model("fmnist-sat-tiny-relu-s0"), 10)
    images = load_dataset("fashion-mnist", "test", N)
    evaluation = Evaluation(images, Threat.parse("linf:0.1"), ["pgd-1"])
    cpu, out = torch.device("cpu"), tmp_path_factory.mktemp("originals")
    first = run_evaluation(model.module, model.info, evaluation, cpu, out).path
    return first, run_challenge(Challenge(first, ("pgd-10",), by="someone", seed=3)).path


@pytest.fixture
def forgery(originals: tuple[Path, Path], tmp_path: Path) -> Forgery:
    """A copy of the challenged record, to be changed."""
    path = originals[1]
    for one in (path, witnesses_path(path)):
        (tmp_path / one.name).write_bytes(one.read_bytes())
    return Forgery(tmp_path / path.name)


IDENTITY = "the identity is not that of the inputs: one of them was changed"


def test_an_unchanged_record_verifies(forgery: Forgery) -> None:
    assert {-1, 0, 1, 2} == set(forgery.record.verdicts)
    assert forgery.faults() == []


# 1 and 2: verdicts


def test_a_resealed_survivor_that_was_broken_is_found(forgery: Forgery) -> None:
    index = forgery.index(2)
    forgery.give_verdict(index, -1)

    assert forgery.faults() == [
        "the witnesses do not match the broken verdicts: 0 verdicts have no witness, "
        f"1 witnesses have no verdict (first: image {index})"
    ]


def test_a_broken_image_hidden_with_its_witness_changes_the_digest(
    forgery: Forgery,
) -> None:
    index = forgery.index(2)
    forgery.give_verdict(index, -1)
    keep = forgery.witnesses.indices != index
    forgery.witnesses = Witnesses(forgery.witnesses.indices[keep], forgery.witnesses.images[keep])

    assert "the witnesses are not the record's: their digest differs" in forgery.faults(
        resealed=False
    )


def test_a_resealed_break_of_a_survivor_is_found(forgery: Forgery) -> None:
    index = forgery.index(-1)
    forgery.give_verdict(index, 2)

    assert forgery.faults() == [
        "the witnesses do not match the broken verdicts: 1 verdicts have no witness, "
        f"0 witnesses have no verdict (first: image {index})"
    ]


def test_a_resealed_clean_error_of_a_survivor_is_found(forgery: Forgery) -> None:
    index = forgery.index(-1)
    forgery.give_verdict(index, 0)

    assert forgery.faults() == [
        f"image {index}: the record says wrong when clean, the model says otherwise"
    ]


def test_a_break_moved_to_another_stage_contradicts_the_sums(forgery: Forgery) -> None:
    verdicts = list(forgery.record.verdicts)
    verdicts[forgery.index(2)] = 1
    forgery.change(verdicts=verdicts)

    assert any(" broke " in fault and "verdicts say so" in fault for fault in forgery.faults())


# 3 to 7: witnesses


def test_a_resealed_witness_outside_the_ball_is_found(forgery: Forgery) -> None:
    image = forgery.witnesses.images[0].copy()
    image[0, 0, 0] = 0.5  # a corner of the image is black
    forgery.paint(0, image)
    index = forgery.witnesses.indices[0]

    (fault,) = forgery.faults()
    assert fault.startswith(f"image {index}: its witness is not allowed: expected perturbations")


def test_a_resealed_witness_outside_0_to_1_is_found(forgery: Forgery) -> None:
    image = forgery.witnesses.images[0].copy()
    image[0, 0, 0] = -0.01
    forgery.paint(0, image)
    index = forgery.witnesses.indices[0]

    (fault,) = forgery.faults()
    assert fault.startswith(
        f"image {index}: its witness is not allowed: expected adversarial pixels in [0, 1]"
    )


def test_resealed_witnesses_in_exchanged_places_are_found(forgery: Forgery) -> None:
    first, second = forgery.witnesses.images[:2].copy()
    forgery.paint(0, second)
    forgery.paint(1, first)
    faults = forgery.faults()

    assert [fault.partition(":")[0] for fault in faults] == [
        f"image {index}" for index in forgery.witnesses.indices[:2]
    ]
    assert all("its witness is not allowed" in fault for fault in faults)


def test_a_resealed_clean_image_as_a_witness_is_found(forgery: Forgery, fashion: Dataset) -> None:
    index = forgery.witnesses.indices[0]
    forgery.paint(0, fashion.pixels(np.array([index]))[0])

    assert forgery.faults() == [
        f"image {index}: the model is right about its witness, so it is not broken"
    ]


def test_witnesses_of_another_record_are_found(
    forgery: Forgery, originals: tuple[Path, Path]
) -> None:
    forgery.witnesses = read_witnesses(witnesses_path(originals[0]))
    faults = forgery.faults(resealed=False)

    assert faults[0] == "the witnesses are not the record's: their digest differs"
    assert faults[1].startswith("the witnesses do not match the broken verdicts: ")


# 8 to 12: inputs


def test_a_resealed_digest_of_other_weights_is_found(forgery: Forgery) -> None:
    forgery.change(model=replace(forgery.record.model, weights_digest="0" * 64))

    (fault,) = forgery.faults()
    assert fault.startswith("the weights are not the record's: ")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"activation": "silu"}, "its activation here is 'relu', in the record 'silu'"),
        ({"training": {"recipe": "mine"}}, "in the record {'recipe': 'mine'}"),
        ({"parameters": 1}, "its parameters here is 15682, in the record 1"),
    ],
    ids=["activation", "training", "parameters"],
)
def test_a_resealed_wrong_description_of_the_model_is_found(
    values: dict[str, Any], said: str, forgery: Forgery
) -> None:
    forgery.change(model=replace(forgery.record.model, **values))

    (fault,) = forgery.faults()
    assert fault.startswith("the model is not as in the record: ")
    assert said in fault


def test_a_resealed_name_of_another_model_is_found(forgery: Forgery) -> None:
    forgery.change(model=replace(forgery.record.model, name="fmnist-sat-tiny-relu-s1"))

    (fault,) = forgery.faults()
    assert fault.startswith("the weights are not the record's: fmnist-sat-tiny-relu-s1 here")


def test_a_resealed_digest_of_other_images_is_found(forgery: Forgery) -> None:
    forgery.change(dataset=replace(forgery.record.dataset, digest="0" * 64))

    (fault,) = forgery.faults()
    assert fault.startswith("the images are not the record's: ")


def test_a_data_set_with_one_changed_label_is_found(
    forgery: Forgery, fashion: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = fashion.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    changed = replace(fashion, labels=labels)
    monkeypatch.setattr("satbench.evaluation.given.load_dataset", lambda *_, **__: changed)

    (fault,) = forgery.faults()
    assert fault.startswith("the images are not the record's: ")


def test_a_resealed_wrong_number_of_images_is_found(forgery: Forgery) -> None:
    forgery.change(dataset=replace(forgery.record.dataset, n=N + 1))

    assert forgery.faults()[0] == f"there are {N} verdicts for {N + 1} images"


def test_a_resealed_smaller_eps_is_found(forgery: Forgery) -> None:
    forgery.change(eps="0.05")
    faults = forgery.faults()

    assert faults
    assert all("its witness is not allowed: expected perturbations" in fault for fault in faults)


@pytest.mark.parametrize(
    "values",
    [{"eps": "0.2"}, {"norm": "l2"}, {"seed": 4}, {"suite": ["pgd-1"]}, {"sources": {"a": "b"}}],
    ids=str,
)
def test_a_changed_input_does_not_match_the_identity(
    values: dict[str, Any], forgery: Forgery
) -> None:
    forgery.change(**values)

    assert IDENTITY in forgery.faults(resealed=False)


def test_a_resealed_changed_suite_is_found(forgery: Forgery) -> None:
    first, last = forgery.record.suite
    forgery.change(suite=[first, last.replace("steps=10", "steps=1000")])

    assert forgery.faults() == ["the stages are not those of the suite"]


# 13 and 14: stages


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("field", ["attacked", "broken", "passed_over"])
def test_a_resealed_changed_sum_is_found(field: str, number: int, forgery: Forgery) -> None:
    more: Any = {field: getattr(forgery.record.stages[number - 1], field) + 1}
    forgery.change_stage(number, lambda stage: replace(stage, **more))

    (fault,) = forgery.faults()
    assert fault.startswith(forgery.record.suite[number - 1])


@pytest.mark.parametrize(
    "values",
    [{"by": "me"}, {"seed": 9}, {"origin": "0" * 64}, {"protocol": 1}, {"apart": True}],
    ids=str,
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_changed_origin_of_a_stage_does_not_match_the_identity(
    values: dict[str, Any], number: int, forgery: Forgery
) -> None:
    forgery.change_stage(number, lambda stage: replace(stage, **values))

    assert IDENTITY in forgery.faults(resealed=False)


# 15: surrogates


def test_resealed_other_weights_of_a_surrogate_are_found(forgery: Forgery) -> None:
    forgery.change(sources={"fmnist-sat-tiny-relu-s1": "0" * 64})

    (fault,) = forgery.faults()
    assert fault.startswith("the surrogate fmnist-sat-tiny-relu-s1 here has weights ")


def test_an_unknown_surrogate_is_named(forgery: Forgery) -> None:
    forgery.change(sources={"none-such": "0" * 64})

    (fault,) = forgery.faults()
    assert fault.startswith("the surrogate none-such cannot be checked: unknown model")


def test_an_unchanged_record_with_another_file_name_verifies(forgery: Forgery) -> None:
    record: Record = forgery.record
    forgery.path = forgery.path.with_name("renamed.json")

    assert (forgery.faults(), forgery.record) == ([], record)
