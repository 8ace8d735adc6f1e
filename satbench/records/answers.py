"""Answers: numbers that identify a model of a user's own code.  No torch.

Weights do not identify such a model: other code may use the same weights, and code may have weights
that no module registers.  So a record keeps a few numbers for each of the first images, unchanged
and moved: projections of the logits and of an input gradient (`evaluation.own_code`).  Two models
are the same if these agree up to rounding, which differs between machines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from satbench.records.record import ModelInfo

PROBES = 4
"""How many numbers an image has for its logits, and how many for its gradient."""

LOGITS = 1e-4
"""The largest relative difference of an image's logit answers between machines.

Float32 sums in another order change them by up to 6e-6 (docs/decisions/0011-own-code.md).
"""

GRADIENTS, KINKS = 1e-2, 1e-1
"""The same for gradients: the first bound for half of the images, the second for each image.

Rounding moves a ReLU unit that is near its kink to the other side.  This changes the gradient of a
few images by up to 5.3e-2 (same file), and of the others by 3e-5.
"""

Difference = Literal["", "logits", "gradients"]


def show_answers(values: NDArray[np.float64]) -> str:
    """Return answers as text.  (N, 2 * PROBES), the logits first."""
    return " ".join(f"{value:.6g}" for value in np.nan_to_num(values).ravel())


def digest_answers(answers: str) -> str:
    """Return the SHA-256 of answers as text."""
    return hashlib.sha256(answers.encode()).hexdigest()


def difference(recorded: str, here: str) -> Difference:
    """Return in what two models' answers differ by more than rounding; logits are compared first.

    If one has answers for fewer images, only those are compared.  A text without answers differs in
    the logits from all others.
    """
    if recorded == here:
        return ""
    mine, theirs = _parse(recorded), _parse(here)
    if mine is None or theirs is None:
        return "logits"
    both = min(len(mine), len(theirs))
    mine, theirs = mine[:both], theirs[:both]
    if _apart(mine[:, :PROBES], theirs[:, :PROBES]).max() > LOGITS:
        return "logits"
    apart = _apart(mine[:, PROBES:], theirs[:, PROBES:])
    return "gradients" if np.median(apart) > GRADIENTS or apart.max() > KINKS else ""


def same_model(one: ModelInfo, other: ModelInfo) -> bool:
    """Whether two models have the same weights and, if weights do not decide, the same answers."""
    if one.weights_digest != other.weights_digest:
        return False
    if one.answers and other.answers:
        return not difference(one.answers, other.answers)
    return one.answers_digest == other.answers_digest


def known_again(info: ModelInfo, known: Iterable[ModelInfo]) -> ModelInfo:
    """Return `info` with the answers of the first of `known` that is the same model, if any.

    So rounding does not make it a different model.  A model without answers does not change.
    """
    if not info.answers:
        return info
    again = next((one for one in known if same_model(one, info)), info)
    return replace(info, answers=again.answers, answers_digest=again.answers_digest)


def surrogate_text(weights_digest: str, answers: str) -> str:
    """Return the description of a surrogate for a record."""
    return f"{weights_digest} {answers}".strip()


def same_surrogate(recorded: str, here: str) -> bool:
    """Whether two such texts are of the same model."""
    (mine, _, mine_answers), (theirs, _, their_answers) = (
        recorded.partition(" "),
        here.partition(" "),
    )
    return mine == theirs and not difference(mine_answers, their_answers)


def _parse(answers: str) -> NDArray[np.float64] | None:
    try:
        values = np.array([float(word) for word in answers.split()])
    except ValueError:
        return None
    if not values.size or values.size % (2 * PROBES) or not np.isfinite(values).all():
        return None
    return values.reshape(-1, 2 * PROBES)


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the difference of the answers for each image, relative to the larger one."""
    sizes = np.maximum(np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1))
    apart: NDArray[np.float64] = np.linalg.norm(one - other, axis=1)
    apart[sizes > 0] /= sizes[sizes > 0]
    return apart
