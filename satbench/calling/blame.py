"""Error messages that name the image on which a batch failed."""

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
from satbench.calling.logits import ModelError, ask, one_line
from satbench.calling.shortage import is_out_of_memory
from satbench.core.errors import SatbenchError

_SHOWN = 3  # images that a message names


class HasPixels(Protocol):
    """A source of images, by index."""

    def pixels(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return images.  (B,) indices -> (B, C, H, W) float32 in [0, 1]."""
        ...


@dataclass(frozen=True)
class Batch:
    """A batch of work: `model` is called on the images at `indices`, (B,).

    `model` is None if several models are called.  `title` names the work.  The batch may take
    `timeout` seconds; None is no limit.
    """

    model: nn.Module | None
    images: HasPixels
    indices: NDArray[np.int64]
    title: str
    timeout: float | None = None

    @contextmanager
    def naming_images(self) -> Iterator[None]:
        """Turn an error within the block into one that names the image.

        Raises ModelError if the model failed or hung, and SatbenchError for any other error of the
        model's or an attack's code.  An out-of-memory error passes unchanged.
        """
        try:
            with time_limit(self.timeout):
                yield
        except ModelError as error:
            raise type(error)(f"{error} ({self._place(error.x)})", error.x) from error
        except SatbenchError:  # it says already what to do
            raise
        except Exception as error:  # raised by a user's backward or a plug-in
            if is_out_of_memory(error):
                raise
            raise SatbenchError(f"{one_line(error)} ({self._place(None)})") from error

    def _place(self, points: Tensor | None) -> str:
        x = torch.from_numpy(self.images.pixels(self.indices))
        if points is None:
            points = x if self.model is None else self._first_failing(self.model, x)
        return f"{images_of(points, x, self.indices)}, {self.title}"

    def _first_failing(self, model: nn.Module, x: Tensor) -> Tensor:
        return next((one for one in torch.split(x, 1) if self._fails(model, one)), x)

    def _fails(self, model: nn.Module, x: Tensor) -> bool:
        """Return whether the gradient of an image's logits fails or takes too long."""
        device = next((tensor.device for tensor in model.parameters()), x.device)
        leaf = x.to(device, copy=True).requires_grad_()
        try:
            with time_limit(self.timeout), torch.enable_grad():
                torch.autograd.grad(ask(model, leaf).sum(), leaf, allow_unused=True)
        except RuntimeError as error:  # a model without gradients is not a failure of this image
            return "does not require grad" not in str(error)
        except Exception:
            return True
        return False


def images_of(points: Tensor, x: Tensor, batch: NDArray[np.int64]) -> str:
    """Name the images of a batch for the `points`, (P, C, H, W), that a model failed on.

    `x`, (B, C, H, W), are the images with the indices `batch`, (B,).  A point belongs to the
    nearest image.
    """
    nearest = torch.cdist(points.detach().to(x).flatten(1), x.flatten(1)).argmin(1)
    names = [str(place) for place in sorted({int(batch[row]) for row in nearest.tolist()})]
    if len(names) > _SHOWN:
        names = [*names[:_SHOWN], f"{len(names) - _SHOWN} more"]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"image{'s' if len(names) > 1 else ''} {listed}"
