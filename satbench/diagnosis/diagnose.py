"""The diagnosis: it looks for signs of masked gradients, and raises flags.

An attack that uses gradients finds nothing if they are zero, wrong or random, and a model
without robustness then looks robust (Athalye, Carlini & Wagner, 2018, arXiv:1802.00420; Carlini
et al., 2019, arXiv:1902.06705; Pintor et al., 2022, arXiv:2106.09947).  AutoAttack looks for some
of these signs on its first batch and prints a warning (Croce & Hein, 2020, arXiv:2003.01690,
`checks.py` of its code).  The diagnosis uses more images, and its signs become flags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.blame import Batch
from satbench.calling.borrow import borrowed
from satbench.calling.devices import device_of
from satbench.calling.generators import own_generators
from satbench.calling.rounding import FLOAT32, rounding_of
from satbench.core.heap import release_freed_memory
from satbench.core.threat import Threat
from satbench.diagnosis.signs import TARGETS, examine, examine_modes
from satbench.engine.contract import Model
from satbench.engine.machine.room import Room
from satbench.engine.passes import CountingModel, Passes, not_counted_on_error
from satbench.engine.runner import Images
from satbench.records.flags import Flag

EXAMINED = 500
"""How many images are examined, unless the caller wants more or none."""

ATTACKED = 64
"""How many of them are also examined at attacked points."""


class _Question(Protocol):
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, rounding: float
    ) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class _Diagnosis:
    """The worker's name in errors."""

    under: str = "in the diagnosis"
    block: int | None = None


@dataclass(frozen=True)
class Findings:
    """What the diagnosis found, and what it cost.

    `places` has for each flag the indices of its images in the data set.
    """

    flags: tuple[Flag, ...]
    places: Mapping[str, tuple[int, ...]]
    forwards: int
    backwards: int


def probe(
    model: nn.Module,
    images: Images,
    threat: Threat,
    indices: NDArray[np.int64],
    batch_size: int = 250,
    seed: int = 0,
    timeout: float | None = None,
    most: int = EXAMINED,
) -> Findings:
    """Look for signs of masked gradients on the images at `indices`, those right when clean.

    At most `most` images are examined, evenly spread.  Each costs 3 forwards and 2 backwards: its
    logits twice, the gradients of the cross-entropy and of the margin z_y - max z_j, and the logits
    of a nearby point.  `ATTACKED` of them cost 3 forwards and a backward more, at attacked points;
    answers that differ cost 2 more forwards.  A batch may take `timeout` seconds.  `seed` is for
    randomised models; the model and the caller's random generators do not change.  A model without
    gradients counts as one with zero gradients.
    """
    if not most:
        return Findings((), {}, 0, 0)
    passes, names, room = Passes(), tuple(_SIGNS), Room(lambda text: None)
    places: dict[str, list[int]] = {name: [] for name in names}
    with borrowed(model) as judged, own_generators(device_of(model), seed):
        counting = CountingModel(judged, passes)
        rounding = _rounding(judged, images, indices)
        examined = _spread(indices, most)
        some = examined[:: _stride(len(examined))]
        for look, chosen in ((examine, examined), (examine_modes, some)):

            def take(batch: NDArray[np.int64], look: _Question = look) -> None:
                x = torch.from_numpy(images.pixels(batch)).to(device_of(model))
                y = torch.from_numpy(images.labels[batch]).to(x.device)
                before = passes.mark()
                with (
                    not_counted_on_error(before),
                    Batch(judged, images, batch, _Diagnosis.under, timeout).naming_images(),
                ):
                    signs = look(counting, x, y, threat, rounding)
                for name, holds in signs.items():
                    places[name] += batch[holds.cpu().numpy()].tolist()
                release_freed_memory()

            for start in range(0, len(chosen), batch_size):
                room.do(_Diagnosis(), chosen[start : start + batch_size], take)
    found = {name: tuple(sorted(set(places[name]))) for name in names if places[name]}
    flags = tuple(Flag(name, len(at), len(examined), *_SIGNS[name]) for name, at in found.items())
    return Findings(flags, found, passes.forwards, passes.backwards)


def looked_at(flags: Sequence[Flag], forwards: int, right: int) -> int:
    """Return how many of `right` images a diagnosis with these flags and forwards examined.

    Older diagnoses, without `EXAMINED`, examined all of them.
    """
    seen = [flag.of for flag in flags if flag.name in _SIGNS]
    if seen:
        return max(seen)
    # No answer differed: each image cost 3 forwards, and each attacked one 3 more.
    attacked = -(-right // _stride(right))
    return right if forwards >= 3 * (right + attacked) else min(right, EXAMINED)


def _stride(examined: int) -> int:
    return max(1, -(-examined // ATTACKED))


def _spread(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return `most` evenly spread indices; if there are fewer, all of them."""
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).astype(np.int64)]


def _rounding(judged: nn.Module, images: Images, indices: NDArray[np.int64]) -> float:
    if not len(indices):
        return FLOAT32
    return rounding_of(judged, torch.from_numpy(images.pixels(indices[:1])).to(device_of(judged)))


_SIGNS: dict[str, tuple[str, str]] = {
    "randomised": (
        "two forwards of the same image differ, so that an answer seen by an attack need not "
        "come again",
        "run autoattack-rand, or white-box attacks on the mean of many draws (EOT)",
    ),
    "batch-dependent": (
        "the answer to an image hangs on the others of its batch, as with batch-norm without "
        "running statistics, so that the same image may stand or fall with its company",
        "let the model ask itself image by image, and evaluate that",
    ),
    "gradient-mode": (
        "the model answers otherwise where gradients are recorded, as it does for attacks and not "
        "for the judge",
        "run square and distilled, which record none, and attack the model without that switch",
    ),
    "softmax-output": (
        "the logits are probabilities, whose second softmax flattens every loss on logits",
        "return the logits from before the softmax, and evaluate that",
    ),
    "zero-gradient": (
        "the gradient of every loss is exactly 0, as behind rounding or hard labels",
        "run square and distilled, or give the layer a differentiable backward (BPDA)",
    ),
    "vanishing-loss-gradient": (
        "the cross-entropy is so small that its gradient is lost in float32, while the logits "
        "still have one: they are too large",
        "run attacks whose loss does not depend on the scale of the logits, such as apgd-t",
    ),
    "negligible-gradient": (
        "the gradient is so small that by it no change of the pixels could matter, so what "
        "decides has none, as behind hard labels, a detached part or a saturated softmax",
        "run square and distilled, or give what decides a differentiable backward (BPDA)",
    ),
    "unstable-gradient": (
        "the gradient does not foretell how the logits change nearby, as behind a detached "
        "part, a replaced backward or a shattered surface",
        "run square and distilled, and white-box attacks on the model without that part",
    ),
    "dynamic-gradient": (
        "the model differentiates in its own forward, so that its answer may hang on how it "
        "is attacked",
        "run square and distilled, and attack the model without that step",
    ),
    "few-classes": (
        f"there are fewer than {TARGETS + 1} classes, so that apgd-t and fab-t have fewer targets "
        f"than {TARGETS}, all classes but the label, and the targeted DLR loss needs 4 classes",
        "run apgd-ce, fab-t and square, and from 4 classes on apgd-t",
    ),
}
"""Each sign: its name, its cause, and what to run against it, in the order of the flags."""
