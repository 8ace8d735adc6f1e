"""Bounds of shipped models, next to images that a record has broken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from satbench.certification.bounding.crown import Deadline
from satbench.certification.bounding.region import Region
from satbench.certification.network import prover_of
from satbench.certification.proving import CROWN
from satbench.core.content import content_folder
from satbench.engine.judge import predict
from satbench.evaluation.config import first_examples
from satbench.models import load_model, request_model
from satbench.records.record import read_record
from satbench.records.witnesses import find_witnesses, read_witnesses

BOARD = content_folder("leaderboard") / "fashion-mnist-linf-0.1" / "records"
MODELS = ["fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0", "fmnist-pgd2-tiny-pssilu-s0"]
RADIUS = 0.0004


@pytest.mark.parametrize(
    ("name", "some"),
    [(MODELS[0], 1), *(pytest.param(name, 4, marks=pytest.mark.slow) for name in MODELS)],
)
def test_an_image_next_to_a_broken_one_is_not_certified(name: str, some: int) -> None:
    """On the line from an image to its witness, a ball that reaches a broken image is not proven.

    Balls of the same radius around the images themselves are.
    """
    path = next(iter(sorted(BOARD.glob(f"{name}-*.json"))))
    record = read_record(path)
    witnesses = read_witnesses(find_witnesses(path, record.witnesses_digest))
    images = first_examples("fashion-mnist", record.n)
    loaded = load_model(request_model(name), 10).module
    prover = prover_of(loaded, images.shape)
    proven, refuted = [], []
    for index, witness in zip(witnesses.indices[:some], witnesses.images[:some], strict=True):
        x = torch.from_numpy(images.pixels(np.array([index]))).double()
        way = torch.from_numpy(witness).unsqueeze(0).double() - x
        label = int(images.labels[index])
        low, high = 0.0, 1.0  # right at the one end, broken at the other
        while (high - low) * float(way.abs().max()) > RADIUS / 4:
            middle = (low + high) / 2
            right = int(predict(loaded, (x + middle * way).float())) == label
            low, high = (middle, high) if right else (low, middle)
        for at, found in ((low, refuted), (0.0, proven)):
            region = Region.around(x + at * way, "linf", RADIUS)
            found.append(prover.prove(region, label, CROWN, Deadline()).proof is not None)

    assert refuted == [False] * some
    assert any(proven)
