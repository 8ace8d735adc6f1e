"""The one place where a model's answer becomes float32 logits, one row per image.

Search, judge, preflight and diagnosis all call a model through `ask`, so they see the same logits.
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
"""The logit that replaces -inf, a masked class, in searches: finite, and far below any other."""

LARGEST_LOGIT = -MASKED_LOGIT
"""The largest logit that is accepted: below larger ones `MASKED_LOGIT` would not be far enough."""


class ModelError(SatbenchError):
    """A model raised an error, or its answer holds no logits.

    `x` are the images of the call, (B, C, H, W).
    """

    def __init__(self, message: str, x: Tensor | None = None) -> None:
        super().__init__(message)
        self.x = x


class Late(BaseException):
    """The interrupt of a model that takes too long; the model's `except Exception` cannot catch it.

    `x` are the images of the call, if it was a call, and `again` calls the model on others.
    """

    x: Tensor | None = None
    again: Callable[[Tensor], object] | None = None


def ask(
    model: Callable[[Tensor], object], x: Tensor, copied: bool = True, read: bool = True
) -> Tensor:
    """Return a model's logits.  (B, C, H, W) -> (B, K) float32, on the device of `x`.

    The model gets a copy of `x` (`x` itself without `copied`), outside the caller's autocast and
    under the caller's defaults.  Give `read=False` if the model's answers already are such logits.
    The logit of a class that is masked for every image is still -inf.  Raises ModelError for any
    error of the model, and for an answer that is not, and does not hold, one tensor of logits.  A
    SatbenchError and an out-of-memory error pass unchanged.

    >>> ask(lambda x: x.flatten(1)[:, :2].double(), torch.zeros(1, 3, 2, 2))
    tensor([[0., 0.]])
    """
    try:
        answer = _call(model, x.clone() if copied else x)
        return in_own_memory(read_logits(answer, len(x)), x) if read else cast(Tensor, answer)
    except ModelError as error:
        error.x = _blamed(model, x) if error.x is None else error.x
        raise
    except Late as late:
        late.x, late.again = x, partial(_fails_in_mode, model, torch.is_grad_enabled())
        raise
    except SatbenchError:  # it says already what to do
        raise
    except Exception as error:  # anything that a user's forward raises
        if is_out_of_memory(error):  # not the fault of an image: the caller retries with fewer
            raise
        blamed = _blamed(model, x)
        raise ModelError(
            f"the model fails on {_count(len(blamed))} of shape {tuple(x.shape[1:])} in "
            f"{_short(x.dtype)} on {x.device}: {one_line(error)}",
            blamed,
        ) from error


def in_own_memory(logits: Tensor, x: Tensor) -> Tensor:
    """Return logits on the device of the images `x`, in memory that the model does not use.

    A model may write its next answer into the same memory.
    """
    if logits.device != x.device:
        logits = logits.to(x.device)
    return logits if logits.requires_grad else logits.clone()


def _blamed(model: Callable[[Tensor], object], x: Tensor) -> Tensor:
    """Return the first image that a model fails on by itself, (1, C, H, W).

    All images are returned if the model fails on none by itself, or on both the first and the last.
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
    except Exception:  # anything that a user's forward raises
        return True
    return False


def read_logits(answer: object, images: int) -> Tensor:
    """Return the logits in a model's answer on `images` images.  -> (images, K) float32.

    The answer on a single image may lack its batch dimension, as after squeeze().
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
            "return the scores before argmax or rounding"
        )
    return logits.float()


def place_of_logits(answer: object, images: int) -> str:
    """Return where in an answer the logits are, such as "its entry 'logits'"; "" for a tensor."""
    return "" if isinstance(answer, Tensor) else _within(answer, images)[0]


def unanswered(logits: Tensor) -> Tensor:
    """Return which images a model has no answer for.  (B, K) -> (B,) bool.

    NaN and +inf are no answers.  A column that is -inf for every image is a class that the model
    masks.  -inf in only some rows of a column is no answer, and neither is a row of masks only.
    """
    masked = (logits == -torch.inf).all(0)
    return (~logits.isfinite() & ~masked).any(1) | masked.all()


def without_masks(logits: Tensor) -> Tensor:
    """Return logits for losses and margins, with `MASKED_LOGIT` as the least; NaN stays.

    Of -inf and of the least float32, differences are NaN or overflow.
    """
    if are_all_in_play(logits):  # cheaper, as docs/decisions/0015-libraries.md measures
        return logits
    return logits.clamp_min(MASKED_LOGIT)


def are_all_in_play(logits: Tensor) -> bool:
    """Return whether the sum of all logits shows that each is finite and none is a mask."""
    total: float = (logits.detach() if logits.requires_grad else logits).sum().item()
    return MASKED_LOGIT < total < torch.inf


def classes_in_play(logits: Tensor) -> int:
    """Return how many classes are unmasked for at least one image.

    A mask is -inf or `MASKED_LOGIT`.
    """
    return int((logits > MASKED_LOGIT).any(0).sum())


def one_line(error: Exception) -> str:
    """Return an error as one line.

    >>> one_line(ValueError("no such layer"))
    'ValueError: no such layer'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _call(model: Callable[[Tensor], object], x: Tensor) -> object:
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) and are_plain():  # the usual case costs nothing
        return model(x)
    with torch.autocast(kind, enabled=False), callers_defaults():
        return model(x)


def _is_usual(answer: Tensor, images: int) -> bool:
    plain = type(answer) is Tensor and answer.dtype is torch.float32
    return plain and answer.layout is torch.strided and answer.dim() == 2 and len(answer) == images


def _within(answer: object, images: int) -> tuple[str, Tensor]:
    """Return the one tensor of logits in an answer that is not a tensor, and where it is."""
    named = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    if isinstance(named, Tensor):
        entry = isinstance(answer, Mapping) and not hasattr(answer, "logits")
        return f"its {'entry' if entry else 'attribute'} 'logits'", named
    parts = list(_parts(answer))
    tensors = [(name, one) for name, one in parts if isinstance(one, Tensor)]
    found = [(name, one) for name, one in tensors if _may_be_logits(one, images)]
    if not found and images == 1:  # squeeze() may have removed the batch dimension
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
