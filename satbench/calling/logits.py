"""What a model's answer says: the one place where it becomes float32 logits, one row an image.

Search, judge, preflight and diagnosis all ask a model through `ask`, so that they see the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from satbench.calling.defaults import are_plain, callers_defaults
from satbench.calling.shortage import is_out_of_memory
from satbench.core.errors import SatbenchError

MASKED_LOGIT = -1e9
"""The logit that searches see of a class masked with -inf: finite, and far below any other."""

LARGEST_LOGIT = -MASKED_LOGIT
"""The largest logit of a model that can be measured: of larger ones a mask is not far below."""


class ModelError(SatbenchError):
    """A model failed to answer, or answered with what are no logits.

    `x` are the images that it was asked about, (B, C, H, W).
    """

    def __init__(self, message: str, x: Tensor | None = None) -> None:
        super().__init__(message)
        self.x = x


class Late(BaseException):
    """What interrupts a model that takes too long; no `except Exception` of its own stops it.

    `x` are the images that it was asked about, where it was asked, and `again` asks about others.
    """

    x: Tensor | None = None
    again: Callable[[Tensor], object] | None = None


def ask(
    model: Callable[[Tensor], object], x: Tensor, copied: bool = True, read: bool = True
) -> Tensor:
    """Return a model's logits.  (B, C, H, W) -> (B, K) float32, on the device of `x`.

    The model works on a copy of `x` (on `x` itself where it is not to be `copied`), outside the
    caller's autocast and under the caller's defaults.  The answers of a model that has read them
    itself are not to be `read`.
    A class masked for every image stays -inf.  Raises ModelError for whatever error the model
    raises, and for an answer that is not, or does not hold, one tensor of logits; a SatbenchError,
    and an error that says that there is no memory left, passes as it is.
    """
    try:
        answer = _call(model, x.clone() if copied else x)
        return kept(read_logits(answer, len(x)), x) if read else cast(Tensor, answer)
    except ModelError as error:
        error.x = _blamed(model, x) if error.x is None else error.x
        raise
    except Late as late:
        late.x, late.again = x, partial(_fails_in_mode, model, torch.is_grad_enabled())
        raise
    except SatbenchError:  # says already what to do
        raise
    except Exception as error:  # whatever a user's forward raises
        if is_out_of_memory(error):  # no fault of an image: whoever asks goes on with fewer
            raise
        blamed = _blamed(model, x)
        raise ModelError(
            f"the model fails on {_count(len(blamed))} of shape {tuple(x.shape[1:])} in "
            f"{_short(x.dtype)} on {x.device}: {said(error)}",
            blamed,
        ) from error


def kept(logits: Tensor, x: Tensor) -> Tensor:
    """Return logits on the device of their images and in memory of their own.

    A model may answer in memory that its next answer overwrites.
    """
    if logits.device != x.device:
        logits = logits.to(x.device)
    return logits if logits.requires_grad else logits.clone()


def _blamed(model: Callable[[Tensor], object], x: Tensor) -> Tensor:
    """Return the first image that a model fails on alone, (1, C, H, W).

    All are returned where it fails on none alone, or on the first and the last.
    """
    fails = (one for one in torch.split(x, 1) if _fails(model, one))
    first = next(fails, x)
    return x if first.data_ptr() == x.data_ptr() and _fails(model, x[-1:]) else first


def _fails_in_mode(model: Callable[[Tensor], object], recording: bool, x: Tensor) -> bool:
    with torch.set_grad_enabled(recording):
        return _fails(model, x)


def _fails(model: Callable[[Tensor], object], x: Tensor) -> bool:
    try:
        read_logits(_call(model, x.detach().clone().requires_grad_(x.requires_grad)), len(x))
    except Exception:  # whatever a user's forward raises
        return True
    return False


def read_logits(answer: object, images: int) -> Tensor:
    """Take the logits out of what a model answered about so many images.  -> (images, K) float32.

    A row without its batch dimension, as squeeze() leaves of a single image, gets it back.
    Raises ModelError.
    """
    if isinstance(answer, Tensor) and _is_usual(answer, images):
        return answer
    logits = answer if isinstance(answer, Tensor) else _within(answer, images)[1]
    if type(logits) is not Tensor:  # a subclass may have operators of its own
        logits = logits.as_subclass(Tensor)
    if logits.layout != torch.strided:
        logits = logits.to_dense()
    if logits.is_quantized:
        logits = logits.dequantize()
    if images == 1 and logits.dim() == 1 and len(logits) > 1:
        logits = logits[None]
    if logits.dim() != 2 or len(logits) != images:
        raise ModelError(
            f"expected logits of shape ({images}, classes) for {_count(images)}, "
            f"got shape {tuple(logits.shape)}: return one row of scores an image"
        )
    if not logits.is_floating_point():
        raise ModelError(
            f"expected logits of a floating dtype, got {_short(logits.dtype)}: "
            "return the scores from before argmax or rounding"
        )
    return logits.float()


def place_of_logits(answer: object, images: int) -> str:
    """Say where in an answer the logits are, such as "its entry 'logits'"; empty for a tensor."""
    return "" if isinstance(answer, Tensor) else _within(answer, images)[0]


def unanswered(logits: Tensor) -> Tensor:
    """Return the images that a model has no answer for.  (B, K) -> (B,) bool.

    NaN and +inf are no answers.  A column of -inf, for every image, is a class that the model
    masks; -inf in some rows of a column is no answer, and neither is a row without another logit.
    """
    masked = (logits == -torch.inf).all(0)
    return (~logits.isfinite() & ~masked).any(1) | masked.all()


def without_masks(logits: Tensor) -> Tensor:
    """Return logits for losses and margins: what is below `MASKED_LOGIT` becomes that; NaN stays.

    So -inf does, and the least float32, whose differences overflow.
    """
    if are_all_in_play(logits):  # cheaper than to change nothing
        return logits
    return logits.clamp_min(MASKED_LOGIT)


def are_all_in_play(logits: Tensor) -> bool:
    """Whether the sum of all logits shows that each is finite and none so low as a mask."""
    total: float = (logits.detach() if logits.requires_grad else logits).sum().item()
    return MASKED_LOGIT < total < torch.inf


def classes_in_play(logits: Tensor) -> int:
    """Return how many classes are not masked, with -inf or `MASKED_LOGIT`, for every image."""
    return int((logits > MASKED_LOGIT).any(0).sum())


def said(error: Exception) -> str:
    """Return an error as one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _call(model: Callable[[Tensor], object], x: Tensor) -> object:
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) and are_plain():  # the usual case, at no cost
        return model(x)
    with torch.autocast(kind, enabled=False), callers_defaults():
        return model(x)


def _is_usual(answer: Tensor, images: int) -> bool:
    plain = type(answer) is Tensor and answer.dtype is torch.float32
    return plain and answer.layout is torch.strided and answer.dim() == 2 and len(answer) == images


def _within(answer: object, images: int) -> tuple[str, Tensor]:
    """Return the one tensor of logits in an answer that is no tensor, and where it is."""
    named = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    if isinstance(named, Tensor):
        entry = isinstance(answer, Mapping) and not hasattr(answer, "logits")
        return f"its {'entry' if entry else 'attribute'} 'logits'", named
    parts = list(_parts(answer))
    tensors = [(name, one) for name, one in parts if isinstance(one, Tensor)]
    found = [(name, one) for name, one in tensors if _may_be_logits(one, images)]
    if not found and images == 1:  # squeeze() took the dimension of the batch away
        found = [(name, one) for name, one in tensors if _may_be_logits(one[None], images)]
    if len(found) == 1:
        return found[0]
    kind = type(answer).__qualname__
    held = f" with {len(found)} that could be logits" if parts else ""
    raise ModelError(
        f"expected the model to return one tensor of logits, got {kind}{held}: "
        "wrap it in a Module that returns the logits only"
    )


def _parts(answer: object) -> Iterator[tuple[str, object]]:
    if isinstance(answer, Mapping):
        yield from ((f"its entry {key!r}", value) for key, value in answer.items())
    elif isinstance(answer, Sequence) and not isinstance(answer, str | bytes):
        yield from ((f"its part {place}", value) for place, value in enumerate(answer))


def _may_be_logits(thing: Tensor, images: int) -> bool:
    of_rows = thing.dim() == 2 and len(thing) == images and thing.shape[1] > 1
    return of_rows and (thing.is_floating_point() or thing.is_quantized)


def _count(images: int) -> str:
    return "1 image" if images == 1 else f"{images} images"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
