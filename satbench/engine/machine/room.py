"""Batches that fit into the device's memory: after a failure, batches of half the size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from satbench.calling.shortage import NoRoomError, catch_out_of_memory

Part = NDArray[np.int64]


class Worker(Protocol):
    """A stage of a run that works on images."""

    @property
    def under(self) -> str:
        """What is done to an image, for errors: `under pgd-20`."""
        ...

    @property
    def block(self) -> int | None:
        """The number of images that must be seen together."""
        ...


@runtime_checkable
class Narrowing(Protocol):
    """A stage that can call its model on fewer images at once than it attacks together."""

    def narrow(self, images: int) -> int:
        """Halve the images of one model call; return how many, 0 if it cannot be fewer.

        `images` is how many were attacked together when memory ran out.
        """
        ...


class Room:
    """The memory for the images of a run; `say` is called with a text when it was too small."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._most: int | None = None  # images at once

    def do(self, worker: Worker, unit: Part, work: Callable[[Part], None]) -> None:
        """Do `work` on a unit, in parts if its images do not fit into memory together.

        Raises NoRoomError if a single image does not fit.
        """
        todo = _cut(unit, self._most) if self._most and not worker.block else [unit]
        while todo:
            part, messages = todo.pop(0), list[str]()
            with catch_out_of_memory(messages):
                work(part)
            if messages:
                self._halve(worker, part, messages[-1])
                todo = [part, *todo]
                if not worker.block and self._most:
                    todo = [piece for one in todo for piece in _cut(one, self._most)]

    def _halve(self, worker: Worker, part: Part, message: str) -> None:
        """Halve the number of images at once, after memory ran out."""
        if worker.block:  # the attack must see them together; the model need not
            most = worker.narrow(len(part)) if isinstance(worker, Narrowing) else 0
        else:
            most = -(-len(part) // 2) if len(part) > 1 else 0
            self._most = most or self._most
        if not most:
            raise NoRoomError(f"1 image {worker.under}", message)
        self._say(
            f"not enough memory for {len(part)} images at once {worker.under}: continuing with "
            f"{most}; "
            "no verdict depends on it"
        )


def _cut(unit: Part, most: int) -> list[Part]:
    return [unit[start : start + most] for start in range(0, len(unit), most)]
