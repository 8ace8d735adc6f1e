"""Identities of a user's own code: models by their answers, attacks by the digest of their code.

This module decides whether a model is the same as before, for records, curves, transfer matrices,
challenges, studies and surrogates.  It also names attacks that are passed as functions or objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.attacks.registry import give_attack, spec_of_object
from satbench.calling.borrow import borrowed
from satbench.calling.code_digest import code_digest
from satbench.calling.devices import device_of, moved
from satbench.calling.generators import own_generators
from satbench.calling.shortage import with_fewer
from satbench.data import Dataset
from satbench.engine.bpda import Replaced
from satbench.engine.own_attack import own_attack
from satbench.evaluation.replacements import IDENTITY, Replacement
from satbench.models import is_of_own_code
from satbench.preflight.first_look import (
    FirstLook,
    as_they_are_and_moved,
    directions,
    first_look,
)
from satbench.records.answers import (
    digest_answers,
    known_again,
    show_answers,
    surrogate_text,
)
from satbench.records.record import ModelInfo


def identified(
    info: ModelInfo,
    module: nn.Module,
    dataset: Dataset,
    device: torch.device,
    known: Iterable[ModelInfo] = (),
    look: FirstLook | None = None,
) -> ModelInfo:
    """Return `info`, with the model's answers if its code is the user's own.

    If one of `known` is the same model up to rounding, its answers are used, so that another
    machine or number of threads does not make it a different model.  `module` is on `device` and
    does not change.  If preflight passes its `look` at the model, the model is not called again.
    """
    if info.answers_digest or not is_of_own_code(info.source):
        return info
    answers = shown(look) if look else answers_of(module, dataset, device)
    answered = replace(info, answers=answers, answers_digest=digest_answers(answers))
    return known_again(answered, known)


def answers_of(module: nn.Module, dataset: Dataset, device: torch.device) -> str:
    """Return a model's answers to the first images of a data set, in the form of a record.

    The model is called on each image, unchanged and with noise.  The answers are projections of the
    logits, computed as the judge does, and of the gradient of a projection of the logits, computed
    as a search does.  The random generators are seeded first, so that a randomised model has one
    answer.
    """
    x = torch.from_numpy(as_they_are_and_moved(dataset)).to(device)
    return with_fewer(len(x), partial(_answers_of, module, x, device), "for its identity")


def _answers_of(module: nn.Module, x: Tensor, device: torch.device, at_once: int) -> str:
    """Return the answers to the images `x`, (N, C, H, W), in batches of `at_once`."""
    with own_generators(device, 0), borrowed(module) as model:
        return shown(first_look(model, x, at_once))


def shown(look: FirstLook) -> str:
    """Return the answers of a first look in the form of a record."""
    return show_answers(np.hstack([_projected(_centred(look.logits)), _projected(look.gradient)]))


def with_effect(
    replacements: Mapping[str, Replacement], module: nn.Module, dataset: Dataset
) -> dict[str, Replacement]:
    """Return replacements of layers whose texts include their effect on the gradients of `module`.

    A replacement is the user's code, too; `identity` needs no such text.
    """
    if all(one.text == IDENTITY for one in replacements.values()):
        return dict(replacements)
    stand_ins = {name: one.module for name, one in replacements.items()}
    with moved([module, *stand_ins.values()], device_of(module)):
        answers = answers_of(Replaced(module, stand_ins), dataset, device_of(module))
    return {
        name: one if one.text == IDENTITY else replace(one, text=surrogate_text(one.text, answers))
        for name, one in replacements.items()
    }


def attack_text(attack: object) -> str:
    """Return the text that represents an attack: a spec unchanged, an object by its code.

    An object of a named attack becomes its spec.  Any other object, and a function, becomes
    `own.NAME(code=DIGEST)`, with the digest of its code and its values, so that identity and record
    show that it is the user's own.  Raises SatbenchError for anything that is not an attack.
    """
    if isinstance(attack, str):
        return attack
    if known := spec_of_object(attack):
        return known
    name = re.sub(r"[^\w.-]", "-", str(getattr(attack, "__name__", type(attack).__name__)))
    text = f"own.{name}(code={code_digest(attack)[:16]})"
    give_attack(text, own_attack(attack))
    return text


def _centred(logits: Tensor) -> Tensor:
    """Subtract the mean logit of each image, which changes no prediction; -inf becomes 0."""
    values = logits.detach().double()
    finite = values.isfinite()
    values = values.where(finite, 0)
    return (values - values.sum(1, keepdim=True) / finite.sum(1, keepdim=True)).where(finite, 0)


def _projected(values: Tensor) -> NDArray[np.float64]:
    """Project the values of each image.  (N, …) -> (N, PROBES)."""
    flat = values.detach().flatten(1).cpu().double().numpy()
    found: NDArray[np.float64] = flat @ directions(flat.shape[1], "answers")
    found /= np.sqrt(flat.shape[1])
    return found
