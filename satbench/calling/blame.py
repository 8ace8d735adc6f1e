"""Which image is to blame when a batch cannot be finished."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.deadline import time_limit
from satbench.calling.logits import ModelError, ask, said
from satbench.calling.shortage import is_out_of_memory
from satbench.core.errors import SatbenchError

_SHOWN = 3  # images that a sentence names


class HasPixels(Protocol):
    """Where the images of a batch come from."""

    def pixels(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return images.  (B,) indices -> (B, C, H, W) float32 in [0, 1]."""
        ...


@dataclass(frozen=True)
class Batch:
    """A batch of work: `model` is asked about the images at the places `indices`, (B,).

    It is None where several are.  `title` says what for; it may take `timeout` seconds, None for as
    many as it needs.
    """

    model: nn.Module | None
    images: HasPixels
    indices: NDArray[np.int64]
    title: str
    timeout: float | None = None

    @contextmanager
    def in_a_sentence(self) -> Iterator[None]:
        """End what goes wrong meanwhile in a sentence that names the image.

        Raises ModelError where the model failed or hung, and SatbenchError for any other error of
        its code or an attack's.  One that says that there is no memory left passes.
        """
        try:
            with time_limit(self.timeout):
                yield
        except ModelError as error:
            raise type(error)(f"{error} ({self._place(error.x)})", error.x) from error
        except SatbenchError:  # says already what to do
            raise
        except Exception as error:  # of a user's backward, of a plug-in
            if is_out_of_memory(error):
                raise
            raise SatbenchError(f"{said(error)} ({self._place(None)})") from error

    def _place(self, points: Tensor | None) -> str:
        x = torch.from_numpy(self.images.pixels(self.indices))
        if points is None:
            points = x if self.model is None else self._first_failing(self.model, x)
        return f"{images_of(points, x, self.indices)}, {self.title}"

    def _first_failing(self, model: nn.Module, x: Tensor) -> Tensor:
        return next((one for one in torch.split(x, 1) if self._fails(model, one)), x)

    def _fails(self, model: nn.Module, x: Tensor) -> bool:
        """Say whether the gradient of an image's logits cannot be had, or not in time."""
        device = next((tensor.device for tensor in model.parameters()), x.device)
        leaf = x.to(device, copy=True).requires_grad_()
        try:
            with time_limit(self.timeout), torch.enable_grad():
                torch.autograd.grad(ask(model, leaf).sum(), leaf, allow_unused=True)
        except RuntimeError as error:  # no gradient at all is no failure of this image
            return "does not require grad" not in str(error)
        except Exception:
            return True
        return False


def images_of(points: Tensor, x: Tensor, batch: NDArray[np.int64]) -> str:
    """Name the images of a batch whose points, (P, C, H, W), a model failed on.

    `x` are the images, (B, C, H, W), at the places `batch`, (B,); a point belongs to the nearest.
    """
    nearest = torch.cdist(points.detach().to(x).flatten(1), x.flatten(1)).argmin(1)
    names = [str(place) for place in sorted({int(batch[row]) for row in nearest.tolist()})]
    if len(names) > _SHOWN:
        names = [*names[:_SHOWN], f"{len(names) - _SHOWN} more"]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"image{'s' if len(names) > 1 else ''} {listed}"
