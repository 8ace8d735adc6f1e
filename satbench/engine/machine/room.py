"""How many images a device has room for at once: where there was none, half as many go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from satbench.calling.shortage import NoRoomError, room_left

Part = NDArray[np.int64]


class Worker(Protocol):
    """What is at work on images: a stage of a run."""

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
    """A stage that can ask its model about fewer images at once than are attacked together."""

    def narrow(self, images: int) -> int:
        """Ask about half as many at once; return how many, 0 where it cannot be fewer.

        `images` is how many were attacked together when there was no room.
        """
        ...


class Room:
    """The room for the images of a run; `say` is told where it was too little."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._most: int | None = None  # images at once

    def do(self, worker: Worker, unit: Part, work: Callable[[Part], None]) -> None:
        """Do `work` on a unit; in parts where there is no room for all of its images at once.

        Raises NoRoomError where there is none for a single image.
        """
        todo = _cut(unit, self._most) if self._most and not worker.block else [unit]
        while todo:
            part, lack = todo.pop(0), list[str]()
            with room_left(lack):
                work(part)
            if lack:
                self._halve(worker, part, lack[-1])
                todo = [part, *todo]
                if not worker.block and self._most:
                    todo = [piece for one in todo for piece in _cut(one, self._most)]

    def _halve(self, worker: Worker, part: Part, said: str) -> None:
        """Go on with half as many images at once as there was no room for."""
        if worker.block:  # the attack must see them together; the model need not
            most = worker.narrow(len(part)) if isinstance(worker, Narrowing) else 0
        else:
            most = -(-len(part) // 2) if len(part) > 1 else 0
            self._most = most or self._most
        if not most:
            raise NoRoomError(f"1 image {worker.under}", said)
        self._say(
            f"no memory left for {len(part)} images at once {worker.under}: going on with {most}; "
            "no verdict depends on it"
        )


def _cut(unit: Part, most: int) -> list[Part]:
    return [unit[start : start + most] for start in range(0, len(unit), most)]
