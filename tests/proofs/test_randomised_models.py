"""Verification asks a randomised model many times, and a deterministic model once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.core.threat import Threat
from satbench.data import load_dataset
from satbench.evaluation.given import Given
from satbench.evaluation.run import Evaluation, run_evaluation
from satbench.models import load_model, request_model
from satbench.proofs.checking import DRAWS, check_verdicts
from satbench.proofs.verification import Subject, open_record

FLAGS = Path(__file__).parents[2] / "leaderboard" / "flags"
RECORD = next(FLAGS.glob("*masked-robust_noisy-*.json"))
GIVEN = Given(trust=("satbench.model_zoo.masked:robust_noisy",))


class Answering(nn.Module):
    """Predicts the labels, except in each `every`-th pass, in which it predicts class 0 or 1."""

    def __init__(self, labels: dict[bytes, int], every: int) -> None:
        super().__init__()
        self.labels, self.every, self.passes = labels, every, 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, 10) logits."""
        self.passes += 1
        label = torch.tensor([self.labels[one.numpy().tobytes()] for one in x])
        if self.passes % self.every == 0:
            label = (label == 0).long()
        return nn.functional.one_hot(label, 10).float() + self.passes / 1000


class Constant(nn.Module):
    """Always predicts class 0, and counts its passes."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 10) logits."""
        self.passes += 1
        return nn.functional.one_hot(torch.zeros(len(x), dtype=torch.long), 10).float()


@pytest.fixture(scope="module")
def subject() -> Subject:
    """Open a record whose witnesses fool one of many predictions; raise if a fault is found."""
    return open_record(RECORD, GIVEN)


def test_one_fooled_prediction_of_many_is_enough(subject: Subject) -> None:
    assert len(subject.witnesses.indices) > 10


@pytest.mark.parametrize(("every", "contradicted"), [(DRAWS // 2, False), (10 * DRAWS, True)])
def test_a_witness_that_fools_no_prediction_of_many_is_named(
    every: int, contradicted: bool, subject: Subject
) -> None:
    record, dataset, witnesses = subject.record, subject.dataset, subject.witnesses
    pixels = dataset.pixels(np.arange(record.n))
    labels = {x.tobytes(): int(y) for x, y in zip(pixels, dataset.labels, strict=True)}
    for image, index in zip(witnesses.images, witnesses.indices, strict=True):
        labels[image.tobytes()] = int(dataset.labels[index])
    faults = check_verdicts(record, dataset, witnesses, Answering(labels, every))
    wrong = record.n - record.surviving()
    assert len(faults) == (wrong if contradicted else 0)


def test_a_deterministic_model_gets_two_extra_calls_per_contradiction(subject: Subject) -> None:
    model = Constant()
    check_verdicts(subject.record, subject.dataset, subject.witnesses, model)
    assert model.passes == 6  # clean images, witnesses, and two for each contradiction


def test_an_evaluation_of_a_randomised_model_is_verified(tmp_path: Path) -> None:
    images = load_dataset("fashion-mnist", "test", 30)
    model = load_model(request_model("satbench.model_zoo.masked:robust_noisy"), 10)
    evaluation = Evaluation(images, Threat.parse("linf:0.1"), ["pgd-5"])
    run = run_evaluation(model.module, model.info, evaluation, torch.device("cpu"), tmp_path)
    assert open_record(run.path, GIVEN).record.n == 30
