"""The diagnosis: it looks for signs of masked gradients, and raises flags.

An attack that uses gradients finds nothing if they are zero, wrong or random, and a model
without robustness then looks robust (Athalye, Carlini & Wagner, 2018, arXiv:1802.00420; Carlini
et al., 2019, arXiv:1902.06705; Pintor et al., 2022, arXiv:2106.09947).  AutoAttack looks for some
of these signs on its first batch and prints a warning (Croce & Hein, 2020, arXiv:2003.01690,
`checks.py` of its code).  The diagnosis uses more images, and its signs become flags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from satbench.calling.blame import Batch
from satbench.calling.borrow import borrowed
from satbench.calling.devices import device_of
from satbench.calling.generators import own_generators
from satbench.calling.rounding import rounding_of
from satbench.core.heap import release_freed_memory
from satbench.core.threat import Threat
from satbench.diagnosis.signs import TARGETS, examine
from satbench.engine.machine.room import Room
from satbench.engine.passes import CountingModel, Passes, not_counted_on_error
from satbench.engine.runner import Images
from satbench.records.flags import Flag

EXAMINED, FEWEST = 500, 4
"""The most images that are examined, and the least if so many are right."""

PASSES = 150
"""One image is examined per this many passes of the attacks; it costs 4 to 6 passes."""

ATTACKED, OF_THEM = 64, 4
"""How many are also examined at attacked points: one in `OF_THEM`, and at most this many."""


def images_to_examine(passes: int, right: int, survivors: int) -> int:
    """Return how many of `right` images are examined after attacks with this many passes.

    So the diagnosis costs a few percent of the attacks.  If no image survives, none is examined,
    because there is no number to doubt.

    >>> [images_to_examine(passes, 900, 600) for passes in (10, 6_000, 10**6)]
    [4, 40, 500]
    """
    if not survivors:
        return 0
    return min(right, max(FEWEST, min(EXAMINED, passes // PASSES)))


@dataclass(frozen=True)
class _Diagnosis:
    """The examination as a worker; `under` is its name in errors."""

    under: str = "in the diagnosis"
    block: int | None = None


@dataclass(frozen=True)
class Findings:
    """What the diagnosis found, and what it cost.

    `places` has for each flag the places in the data set of the images that show it; `images` were
    examined.
    """

    flags: tuple[Flag, ...]
    places: Mapping[str, tuple[int, ...]]
    forwards: int
    backwards: int
    images: int


NOTHING = Findings((), {}, 0, 0, 0)
"""The result of a diagnosis that examines no image."""


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

    `most` images are examined, spread evenly; if they show a sign, `EXAMINED` images are.  Each
    costs 3 forwards and a backward: its logits twice, the gradient of the margin z_y - max z_j, and
    the logits of a nearby point.  Some cost 2 more forwards, at attacked points; answers that
    differ cost 2 forwards.  A batch may take `timeout` seconds.  `seed` is for randomised models;
    the caller's generators and the model are restored.  A model without gradients counts as one
    whose gradients are zero.
    """
    if not (most and len(indices)):
        return NOTHING
    asked = _Examined(model, images, threat, batch_size, seed, timeout)
    first, whole = _spread(indices, most), _spread(indices, EXAMINED)
    found = asked.about(first, _spread(first, min(ATTACKED, -(-len(first) // OF_THEM))))
    if all(flag.name in _OF_THE_MODEL for flag in found.flags):
        n = max(len(first), len(whole))
        return replace(found, flags=tuple(replace(f, images=n, of=n) for f in found.flags))
    if len(first) > len(whole):
        whole = first
    more = asked.about(whole, whole[:: _stride(len(whole))])
    forwards, backwards = found.forwards + more.forwards, found.backwards + more.backwards
    return replace(more, forwards=forwards, backwards=backwards)


@dataclass(frozen=True)
class _Examined:
    """A model on the images that are examined."""

    model: nn.Module
    images: Images
    threat: Threat
    batch_size: int
    seed: int
    timeout: float | None

    def about(self, examined: NDArray[np.int64], attacked: NDArray[np.int64]) -> Findings:
        """Examine the images at `examined`, (N,), and those in `attacked` at attacked points."""
        passes, room = Passes(), Room(lambda text: None)
        places: dict[str, list[int]] = {name: [] for name in _SIGNS}
        device = device_of(self.model)
        with borrowed(self.model) as judged, own_generators(device, self.seed):
            counting = CountingModel(judged, passes)
            x = torch.from_numpy(self.images.pixels(examined[:1])).to(device)
            rounding = rounding_of(judged, x)

            def take(batch: NDArray[np.int64]) -> None:
                x = torch.from_numpy(self.images.pixels(batch)).to(device)
                y = torch.from_numpy(self.images.labels[batch]).to(device)
                chosen = torch.from_numpy(np.isin(batch, attacked)).to(device)
                batched = Batch(judged, self.images, batch, _Diagnosis.under, self.timeout)
                with not_counted_on_error(passes.mark()), batched.naming_images():
                    signs = examine(counting, x, y, self.threat, rounding, chosen, True)
                for name, holds in signs.items():
                    places[name] += batch[holds.cpu().numpy()].tolist()
                release_freed_memory()

            for start in range(0, len(examined), self.batch_size):
                room.do(_Diagnosis(), examined[start : start + self.batch_size], take)
        found = {name: tuple(sorted(set(at))) for name, at in places.items() if at}
        n = len(examined)
        flags = tuple(Flag(name, len(at), n, *_SIGNS[name]) for name, at in found.items())
        return Findings(flags, found, passes.forwards, passes.backwards, n)


def looked_at(flags: Sequence[Flag], forwards: int, right: int) -> int:
    """Return how many of `right` images a diagnosis examined that does not state it.

    Such diagnoses examined `EXAMINED` images, older ones all of them; they have these flags and
    forwards.
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

_OF_THE_MODEL = {"few-classes"}
"""Signs that are of the model, so that one image shows them."""
