"""The memory of a run: what its stages found out, and its surrogates."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.core.noise import generator_for
from satbench.engine.contract import Hints, History, Informed, Surrogates
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.searched import Trial
from satbench.engine.stage import Stage


class UnitResult(Protocol):
    """The parts of a finished batch that are remembered; `BatchResult` is one."""

    @property
    def stage(self) -> int:
        """The stage's number."""
        ...

    @property
    def indices(self) -> NDArray[np.int64]:
        """Places in the data set, (B,)."""
        ...

    @property
    def broken(self) -> NDArray[np.bool_]:
        """The judge's verdicts, (B,)."""
        ...

    @property
    def margins(self) -> NDArray[np.float32]:
        """Reported margins, (B,) or empty."""
        ...

    @property
    def points(self) -> NDArray[np.float32]:
        """Reported points of the survivors, (S, C, H, W) or empty."""
        ...


class Points:
    """The point of least margin of each image, on disk, so that memory does not grow with them.

    They are in a temporary file without a name (in `TMPDIR`).  `shape` is (N, C, H, W).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape, self._size = shape[1:], 4 * int(np.prod(shape[1:]))
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self._margins = np.full(shape[0], np.inf, np.float32)
        self._stages = np.zeros(shape[0], int)

    def offer(self, result: UnitResult) -> None:
        """Keep the reported points that are better than the known ones; on a tie, the earlier."""
        survivors = ~result.broken
        rows, margins = result.indices[survivors], result.margins[survivors]
        for row, margin, point in zip(rows, margins, result.points, strict=True):
            if (margin, result.stage) < (self._margins[row], self._stages[row]):
                self._margins[row], self._stages[row] = margin, result.stage
                self._file.seek(int(row) * self._size)
                self._file.write(np.ascontiguousarray(point, np.float32).tobytes())

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the points of images, (B,) -> (B, C, H, W); undefined for an image without one."""
        points = np.zeros((len(rows), *self._shape), np.float32)
        for place, row in enumerate(rows):
            if np.isfinite(self._margins[row]):
                self._file.seek(int(row) * self._size)
                stored = np.frombuffer(self._file.read(self._size), np.float32)
                points[place] = stored.reshape(self._shape)
        return points

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class LeastMargins:
    """What the stages before one reported: the least margin of each image (N,), and its point.

    `points` is None if no attack of the suite uses them.
    """

    margins: NDArray[np.float32]
    points: Points | None

    def hints(self, batch: NDArray[np.int64], x: Tensor) -> Hints:
        """Return the hints for the images `x` with the indices `batch`."""
        margins = torch.from_numpy(self.margins[batch]).to(x.device)
        if self.points is None:
            return Hints(margins, x)
        points = torch.from_numpy(self.points.read(batch)).to(x.device)
        known = margins.isfinite().view(-1, *[1] * (x.dim() - 1))
        return Hints(margins, torch.where(known, points, x))


class Memory:
    """The results of a run, stage by stage; the inputs of a stage are fixed when it begins.

    The best point of each image is kept (`Points`) only for suites with an informed attack.  The
    point of an image that a stage has not attacked yet can only come from stages before it.
    """

    def __init__(self, shape: tuple[int, ...], suite: Sequence[Stage]) -> None:
        self._shape, self._suite = shape, suite
        informed = any(isinstance(stage.attack, Informed) for stage in suite)
        self._points = Points(shape) if informed else None
        self._reported: dict[int, list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = {}
        self._counts = np.zeros((len(suite) + 1, 2), int)  # attacked, broken

    def add(self, result: UnitResult) -> None:
        """Remember one result."""
        self._counts[result.stage] += len(result.indices), int(result.broken.sum())
        if self._points and len(result.margins):
            survivors = ~result.broken
            reported = result.indices[survivors], result.margins[survivors]
            self._reported.setdefault(result.stage, []).append(reported)
            self._points.offer(result)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._points:
            self._points.close()

    def before(self, number: int) -> LeastMargins:
        """Return what the stages before `number` reported."""
        margins = np.full(self._shape[0], np.inf, np.float32)
        for rows, reported in (
            pair for stage, pairs in self._reported.items() if stage < number for pair in pairs
        ):
            margins[rows] = np.minimum(margins[rows], reported)
        return LeastMargins(margins, self._points)

    def history(
        self, number: int, standing: Callable[[int], NDArray[np.bool_]], seed: int
    ) -> History:
        """Return what is known about every image when stage `number` begins.

        `standing` returns the images that survived until a stage began, (N,) bool.
        """
        earlier = list(enumerate(self._suite[: number - 1], 1))
        spec = self._suite[number - 1].spec
        own = {one.part: k for k, one in enumerate(self._suite[:number], 1) if one.spec == spec}

        def ranking(part: str) -> NDArray[np.float64]:
            places = np.full(self._shape[0], np.inf)
            rows = np.flatnonzero(standing(own[part]))
            order = np.argsort(self.before(own[part]).margins[rows], kind="stable")
            places[rows[order]] = np.arange(len(rows))
            return places

        share = [generator_for(seed, spec, "share", i).random() for i in range(self._shape[0])]
        return History(
            standing(number),
            standing(min(own.values())),
            self.before(number).margins,
            broken={stage.part or stage.spec: int(self._counts[k, 1]) for k, stage in earlier},
            attacked={stage.part or stage.spec: int(self._counts[k, 0]) for k, stage in earlier},
            share=np.array(share),
            ranking=ranking,
        )


class CountingSurrogates:
    """The surrogates of a run, with all passes counted; `trial` is the search that uses them."""

    def __init__(
        self,
        surrogates: Surrogates,
        passes: Passes,
        device: torch.device,
        trial: Trial | None = None,
    ) -> None:
        self._given, self._passes, self._device = surrogates, passes, device
        self._trial = trial or Trial()
        self._made: dict[str, nn.Module] = {}

    def surrogate(self, name: str) -> nn.Module:
        """Return a surrogate for searching, frozen, in eval mode, on the device."""
        if name not in self._made:
            module = self._given.surrogate(name).requires_grad_(False).to(self._device)
            module.eval()
            surrogate = self._trial.add(module)
            surrogate.get_ready()
            self._made[name] = CountingModel(surrogate, self._passes)
        return self._made[name]

    def pool(self, n: int) -> NDArray[np.float32]:
        """Return up to `n` images that are not evaluated."""
        return self._given.pool(n)

    def spent(self, forwards: int, backwards: int) -> None:
        """Add passes of a model that the attack made itself to the count."""
        self._passes.add(forwards, backwards)
