"""Preflight: it refuses a wrong set-up in one sentence, before an attack runs.

The model is called as attacks and judge will call it: on many images and one, with gradients and
without, with its passes counted, and on the same image in another batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from satbench.calling.blame import images_of
from satbench.calling.borrow import borrowed
from satbench.calling.deadline import time_limit
from satbench.calling.devices import device_of
from satbench.calling.generators import own_generators
from satbench.calling.logits import ModelError, without_masks
from satbench.calling.modules import check_module, kind_of
from satbench.calling.shortage import with_fewer
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.bpda import Replaced
from satbench.engine.machine.checkpointing import Checkpointed
from satbench.preflight.answer_checks import (
    Learnt,
    Needs,
    check_answers,
    check_counted,
    check_gradient,
    check_independence,
    check_one_image,
)
from satbench.preflight.first_look import as_they_are_and_moved, first_look
from satbench.preflight.image_checks import check_dataset
from satbench.preflight.independence import agree

__all__ = ["ASKED", "Learnt", "Needs", "check_set_up"]

ASKED = 32
"""How many images the model is run on; pixels and labels are checked on all images."""

COMPANY = 4
"""The least number, for any batch size: an image must be compared with itself among others."""


def check_set_up(
    model: nn.Module,
    images: Dataset,
    threat: Threat,
    needs: Needs | None = None,
    timeout: float | None = None,
    batch_size: int = ASKED,
) -> Learnt:
    """Raise SatbenchError if the evaluation of `model` on `images` would be meaningless.

    Pixels and labels are checked on all images.  The model runs on the first `ASKED` or
    `batch_size` of them, fewer if memory is short; `needs` is what the attacks need.  Each of four
    such checks may take `timeout` seconds.  The model and the global random generators do not
    change.
    """
    check_module(model)
    if not isinstance(images, Dataset):
        raise SatbenchError(
            f"expected the images as a Dataset, got {kind_of(images)}: "
            "make one with dataset_from_tensors(x, y)"
        )
    if not isinstance(threat, Threat):
        raise SatbenchError(
            f"expected the threat model as a Threat, got {kind_of(threat)}: "
            "write Threat.parse('linf:8/255')"
        )
    if torch.is_inference_mode_enabled():
        raise SatbenchError(
            "expected to run outside torch.inference_mode(), which has no gradients: leave it"
        )
    check_dataset(images)
    count = min(ASKED, len(images), max(batch_size, COMPANY))
    asked = partial(_ask_about, model, images, needs or Needs(), timeout)
    return with_fewer(count, asked, "before any attack")


def _ask_about(
    model: nn.Module, images: Dataset, needs: Needs, timeout: float | None, count: int
) -> Learnt:
    """Call the model as attacks and judge will, on the first `count` images."""
    pixels = torch.from_numpy(images.pixels(np.arange(count)))
    looked = torch.from_numpy(as_they_are_and_moved(images))
    with borrowed(model) as judged, own_generators(device_of(model), 0):
        x, z = pixels.to(device_of(model)), looked.to(device_of(model))
        with _named(x), time_limit(timeout):
            logits, learnt = check_answers(judged, x, images, needs)
        with time_limit(timeout):
            alone = check_one_image(judged, x[-1:])
        known = logits[: len(z) // 2] if len(z) // 2 <= count else None
        with _named(z), time_limit(timeout):
            look = first_look(judged, z, count, known)
        check_gradient(look, needs)
        flops = None
        if not isinstance(model, Replaced):
            with torch.enable_grad(), time_limit(timeout):
                flops = check_counted(judged, x[:1], needs)
        company = look.searched[::2] if count > 1 else logits
        steady = agree(*map(without_masks, (logits, alone, company)))
        if not steady:
            with _named(x), time_limit(timeout):
                check_independence(judged, x)
    if isinstance(model, Replaced):
        return learnt
    predictions = logits.argmax(1).cpu().numpy() if steady else None
    flops = None if isinstance(model, Checkpointed) else flops  # some would count twice
    return replace(learnt, look=look, predictions=predictions, flops=flops)


@contextmanager
def _named(x: Tensor) -> Iterator[None]:
    """Name the first images that a model fails on, if it does not fail on all of `x`."""
    try:
        yield
    except ModelError as error:
        if error.x is None or len(error.x) == len(x):
            raise
        names = images_of(error.x, x, np.arange(len(x)))
        raise type(error)(f"{error} ({names}, before any attack)", error.x) from error
