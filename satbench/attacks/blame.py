"""Which image is to blame when a batch cannot be finished."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.attacks.deadline import time_limit
from satbench.attacks.logits import ModelError, said
from satbench.core.errors import SatbenchError

_SHOWN = 3  # images that a sentence names


class Pixels(Protocol):
    """Where the images of a batch come from."""

    def pixels(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return images.  (B,) indices -> (B, C, H, W) float32 in [0, 1]."""
        ...


@contextmanager
def one_batch(
    images: Pixels, batch: NDArray[np.int64], title: str, timeout: float | None = None
) -> Iterator[None]:
    """Let a batch, (B,) indices, take at most `timeout` seconds, and end its errors in a sentence.

    `title` says what is done with it.  Raises ModelError, which names the images that the model
    failed or hung on, and SatbenchError for any other error of its code or an attack's.
    """
    try:
        with time_limit(timeout):
            yield
    except ModelError as error:
        names = images_of(error.x, torch.from_numpy(images.pixels(batch)), batch)
        raise type(error)(f"{error} ({names}, {title})", error.x) from error
    except SatbenchError:  # says already what to do
        raise
    except Exception as error:  # of a user's backward, of a plug-in
        names = images_of(None, torch.from_numpy(images.pixels(batch)), batch)
        raise SatbenchError(f"{said(error)} ({names}, {title})") from error


def images_of(points: Tensor | None, x: Tensor, batch: NDArray[np.int64]) -> str:
    """Name the images of a batch whose points a model failed on, all where that is not known.

    `x` are the images, (B, C, H, W), at the places `batch`, (B,); a point belongs to the nearest.
    """
    points = x if points is None else points.detach().to(x)
    nearest = torch.cdist(points.flatten(1), x.flatten(1)).argmin(1)
    names = [str(place) for place in sorted({int(batch[row]) for row in nearest.tolist()})]
    if len(names) > _SHOWN:
        names = [*names[:_SHOWN], f"{len(names) - _SHOWN} more"]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"image{'s' if len(names) > 1 else ''} {listed}"
