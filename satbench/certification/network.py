"""The network that is bounded: a copy of the model in float64, compared with the model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from satbench.calling.logits import ask
from satbench.certification.bounding.bounds import interval_bounds
from satbench.certification.bounding.program import read_program
from satbench.certification.bounding.region import Region
from satbench.certification.bounding.rounding import Roundoff
from satbench.certification.proving import Prover
from satbench.core.errors import SatbenchError
from satbench.engine.judge import in_full_precision


def prover_of(model: nn.Module, shape: tuple[int, ...]) -> Prover:
    """Return the prover for images (C, H, W) of a model; it computes on the CPU in float64.

    Every float32 weight is a float64 number, so this rounds nothing.  Raises SatbenchError for
    weights of another type than float32 or float64, and for a network that cannot be read.
    """
    kinds = {one.dtype for one in model.parameters()} | {
        one.dtype for one in model.buffers() if one.is_floating_point()
    }
    if not kinds <= {torch.float32, torch.float64} or len(kinds) > 1:
        told = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise SatbenchError(f"expected weights in float32 or all in float64, got {told}")
    try:
        twin = copy.deepcopy(model).cpu().double().requires_grad_(False)
    except Exception as error:  # a user's module may raise anything
        raise SatbenchError(f"expected a model that can be copied, it raised: {error}") from error
    return Prover(read_program(twin, shape), Roundoff.of(kinds.pop() if kinds else torch.float32))


def check_answers(prover: Prover, judged: nn.Module, x: Tensor, first: int) -> None:
    """Raise SatbenchError unless a model's answers are those of its program, up to rounding.

    `x` (B, C, H, W) float32 are images from place `first` on.  This detects a forward that draws
    random numbers or does what its graph does not show.
    """
    with torch.no_grad(), in_full_precision():
        logits = ask(judged, x).double().cpu()
    region = Region.around(x.double().cpu(), "linf", 0.0)
    with torch.no_grad():
        box = interval_bounds(prover.program, region, prover.rounding).boxes[-1]
    if box.low.shape != logits.shape:
        raise SatbenchError(
            f"expected {box.low.shape[1]} logits an image, got answers of {tuple(logits.shape)}"
        )
    outside = ((logits < box.low) | (logits > box.high)).any(1).nonzero()[:, 0]
    if len(outside):
        raise SatbenchError(
            f"the model answers otherwise than its layers say, at image {first + int(outside[0])}: "
            "no bounds of it can be had"
        )
