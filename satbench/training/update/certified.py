"""Certified training: the loss at the worst logits that bounds of the network allow.

The bounds are those of `satbench.certification`, in the type of the weights, and rounding is not
subtracted: they are a loss, not a proof.  Batch-norm normalises by the statistics of the clean
batch, in the clean pass and in the bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satbench.attacks.gradient.losses import wide
from satbench.certification.bounding.bounds import Bounds, Box, lower_bounds
from satbench.certification.bounding.lines import Lines, chosen_lines, lines_of
from satbench.certification.bounding.program import (
    Program,
    ProgramStep,
    Signed,
    Source,
    read_program,
)
from satbench.certification.bounding.region import Region
from satbench.certification.bounding.rounding import Roundoff
from satbench.certification.bounding.shapes import ActivationShape
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.recipes.config import TrainConfig

_TANGENTS, _HALVINGS = 2, 10
"""For the lines of smooth activations: fewer than for a proof, because each step needs new ones."""


class CertifiedLoss:
    """The cross-entropy at the worst logits within eps, by intervals or by lines.

    Objective `ibp` is interval bound propagation (Gowal et al., 2018, arXiv:1810.12715), without
    their share of the clean loss.  Objective `crown-ibp` mixes the margins of `ibp` with those of
    lines that go back to the image, whose share falls from 1 to 0 while eps rises (Zhang et al.,
    2019, arXiv:1906.06316).  Differs from the paper: only the least margin of each image is mixed,
    because lines for the margins of all classes take much longer.  eps rises linearly from 0 over
    the share `ramp` of the run.
    """

    def __init__(self, config: TrainConfig, network: nn.Module) -> None:
        self._config, self._network = config, network
        self._threat = Threat.parse(config.threat)
        self._program: Program | None = None
        self._grown = 1.0

    def begin_step(self, shape: tuple[int, ...], progress: float) -> None:
        """Prepare for images (C, H, W) of a shape, after the share `progress` of the run."""
        if self._program is None:
            self._program = trainable_program(self._network, shape)
        ramp = self._config.ramp
        self._grown = min(1.0, progress / ramp) if ramp else 1.0

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss and the worst logits.

        (B, C, H, W), (B,) -> (), (B, K).  The worst logits are relative to the label's, so that the
        label's is 0.
        """
        grown = self._grown
        program, clean = self._with_batch_statistics(x)
        region = Region.around(x, self._threat.norm, grown * self._threat.radius)
        bounds = interval_boxes(program, region)
        classes = clean.shape[1]
        rows = _margin_rows(y, classes).to(x)
        last = len(program.steps) - 1
        margins = lower_bounds(bounds, last, rows, until=program.steps[last].takes[0])
        if self._config.objective == "crown-ibp" and grown < 1:
            with_lines(bounds)
            worst_row = margins.detach().argmin(1).view(-1, 1)
            row = rows.gather(1, worst_row.unsqueeze(2).expand(-1, 1, classes))
            by_lines = lower_bounds(bounds, last, row)
            mixed = grown * margins.gather(1, worst_row) + (1 - grown) * by_lines
            margins = margins.scatter(1, worst_row, mixed)
        worst = torch.zeros_like(clean).scatter(1, _others(y, classes), -wide(margins))
        return F.cross_entropy(worst, y), worst

    def _with_batch_statistics(self, x: Tensor) -> tuple[Program, Tensor]:
        """Pass the clean batch, and return the program by its statistics, and the logits."""
        if self._program is None:
            raise AssertionError("begin_step comes before the loss")
        norms = {
            number: step.norm
            for number, step in enumerate(self._program.steps)
            if step.norm is not None
        }
        with _seen_by(norms) as seen:
            clean = self._network(x)
        known = {number: _mean_and_variance(one) for number, one in seen.items()}
        return self._program.with_statistics(known), clean


def trainable_program(network: nn.Module, shape: tuple[int, ...]) -> Program:
    """Return the program of a network for training; it follows the weights as they change.

    Raises SatbenchError for a network of which no bounds are known, and for an activation with
    trained parameters, because the curve of a program does not follow these.
    """
    program = read_program(network, shape)
    names = {program.steps[site].name for site in program.sites}
    for name, module in network.named_modules():
        if name in names and any(one.requires_grad for one in module.parameters()):
            raise SatbenchError(
                "expected an activation without trained parameters for the objectives ibp and "
                f"crown-ibp, got {type(module).__name__} at {name}"
            )
    return program


def interval_boxes(program: Program, region: Region) -> Bounds:
    """Send the box of a region through all steps; rounding is not taken into account."""
    bounds = Bounds(program, region, Roundoff(0.0, 0.0))
    for step in program.steps:
        low, high = _interval(step, bounds)
        bounds.boxes.append(Box(low, high, low.new_zeros(1, *low.shape[1:])))
    return bounds


def with_lines(bounds: Bounds) -> None:
    """Choose the lines of all activations of `bounds`, in the way that is cheap enough to train.

    The gradient goes through the intercepts; the slopes are constants.
    """
    for site in bounds.program.sites:
        box, shape = (
            bounds.boxes[bounds.program.steps[site].takes[0]],
            bounds.program.shape_at(site),
        )
        with torch.no_grad():
            rule = chosen_lines(shape, box.low, box.high, _TANGENTS, _HALVINGS)
        made = lines_of(shape, rule.low_slope, rule.high_slope, box.low, box.high, _HALVINGS)
        bounds.lines[site] = Lines(*(one.unsqueeze(1) for one in vars(made).values()))


def _interval(step: ProgramStep, bounds: Bounds) -> tuple[Tensor, Tensor]:
    does, boxes = step.does, [bounds.boxes[place] for place in step.takes]
    if isinstance(does, Source):
        return bounds.region.low, bounds.region.high
    if isinstance(does, ActivationShape):
        return does.interval(boxes[0].low, boxes[0].high)
    if isinstance(does, Signed):
        pairs = list(zip(does.signs, boxes, strict=True))
        low = torch.stack([box.low if sign > 0 else -box.high for sign, box in pairs]).sum(0)
        high = torch.stack([box.high if sign > 0 else -box.low for sign, box in pairs]).sum(0)
        return low, high
    box = boxes[0]
    centre, reach = does.apply((box.low + box.high) / 2), does.apply_abs((box.high - box.low) / 2)
    offset = does.offset()
    centre = centre if offset is None else centre + offset
    return centre - reach, centre + reach


@contextmanager
def _seen_by(norms: Mapping[int, nn.Module]) -> Iterator[dict[int, Tensor]]:
    """Collect what goes into batch-norms during the block."""
    seen: dict[int, Tensor] = {}
    handles = [
        norm.register_forward_pre_hook(
            lambda module, given, number=number: seen.__setitem__(number, given[0])
        )
        for number, norm in norms.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    return mean, variance


def _others(y: Tensor, classes: int) -> Tensor:
    """Return the classes that are not the label's, ascending.  (B,) -> (B, K - 1)."""
    places = torch.arange(classes - 1, device=y.device).expand(len(y), -1)
    return places + (places >= y.view(-1, 1))


def _margin_rows(y: Tensor, classes: int) -> Tensor:
    """Return the rows that subtract each other logit from the label's.  (B,) -> (B, K - 1, K)."""
    eye = torch.eye(classes, device=y.device)
    return eye[y].unsqueeze(1) - eye[_others(y, classes)]
