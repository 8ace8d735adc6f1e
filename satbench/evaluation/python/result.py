"""The result of an evaluation in Python: a record together with its model and images.

The record itself is plain data without torch (`satbench.records.record`).  Methods that need the
model, the images or a figure are here (docs/decisions/0017-result.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cached_property
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from satbench.attacks import short_spec
from satbench.calling.borrow import borrowed
from satbench.calling.devices import device_of
from satbench.calling.generators import own_generators
from satbench.calling.logits import ask
from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path, check_folder
from satbench.core.stats.intervals import wilson_interval
from satbench.data import Dataset
from satbench.data.class_names import class_names
from satbench.engine.judge import answered, in_full_precision
from satbench.evaluation.given import Given, find_images, find_model
from satbench.evaluation.report import notes_of, result_html, rows_of, shown_name
from satbench.figures.images import Broken, ModelAnswer, images_picture
from satbench.figures.picture import DrawnFigure
from satbench.figures.stages import stages_picture
from satbench.model_zoo.weights import digest_weights
from satbench.models import LoadedModel
from satbench.records.record import SURVIVED, WRONG_CLEAN, Record, read_record
from satbench.records.witnesses import Witnesses, find_witnesses, read_witnesses

if TYPE_CHECKING:
    from pandas import DataFrame

BATCH = 250


class Adversarial(NamedTuple):
    """The images that an evaluation broke; `indices` (M,) are their positions in the data set.

    `images` (M, C, H, W), float32 in [0, 1], are the adversarial images, the witnesses of the
    record; `labels` and `predictions`, (M,) int64, differ for every image.
    """

    indices: NDArray[np.int64]
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]


class Result(Record):
    """A record, with its model and images.

    `satbench.evaluate`, `satbench.load_record`, `satbench.challenge` and `satbench.merge` return
    one.  It compares equal to the plain record, and is written like it.
    """

    given: Given = Given()
    """The model and images of the record, as the caller gave them: objects or names."""

    kept: bool = True
    """Whether the files stay after the result is gone; not with `out=None`."""

    @classmethod
    def of(cls, record: Record, given: Given, kept: bool = True) -> Result:
        """Return a record together with the given model and images."""
        result = cls(**{one.name: getattr(record, one.name) for one in fields(Record)})
        object.__setattr__(result, "given", given)
        object.__setattr__(result, "kept", kept)
        return result

    @property
    def robust_accuracy(self) -> float:
        """The share of images that survive all attacks, in [0, 1]."""
        return self.surviving() / self.n

    @property
    def clean_accuracy(self) -> float:
        """The share of images that are right without an attack, in [0, 1]."""
        return self.clean_correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the robust accuracy.

        It is Wilson's interval; with `until` it is that of the confidence sequence.
        """
        if self.sequential:
            return self.sequential.low, self.sequential.high
        return wilson_interval(self.surviving(), self.n)

    def to_dataframe(self) -> DataFrame:
        """Return a table with a row per image: `index`, `label`, `predicted`, `verdict`, `attack`.

        `verdict` is `wrong` (when clean), `broken` or `survived`; `attack` is the one that broke
        it, else empty.  `predicted` is the model's answer to the adversarial image if it is broken,
        else to the image itself.  Raises SatbenchError without pandas, and as `adversarial` does.
        """
        if find_spec("pandas") is None:
            raise SatbenchError(
                "a table needs pandas, which is not installed: pip install 'satbench[pandas]'"
            )
        from pandas import DataFrame

        verdicts = np.array(self.verdicts)
        names = ["", *(_stage_name(stage.attack, stage.part) for stage in self.stages)]
        words = {WRONG_CLEAN: "wrong", SURVIVED: "survived"}
        return DataFrame(
            {
                "index": np.arange(self.n),
                "label": self._dataset.labels,
                "predicted": self._predictions,
                "verdict": [words.get(verdict, "broken") for verdict in self.verdicts],
                "attack": [names[max(verdict, 0)] for verdict in verdicts],
            }
        )

    def adversarial(self) -> Adversarial:
        """Return the broken images, with labels and predictions, as arrays.

        Raises SatbenchError if the witnesses, the model or the images are not available, or are no
        longer those of the record.
        """
        held = self._witnesses
        rows = held.indices
        return Adversarial(rows, held.images, self._dataset.labels[rows], self._predictions[rows])

    def save_adversarial(self, folder: str | PathLike[str]) -> Path:
        """Write the result of `adversarial` to `folder`/adversarial.npz, and return its path.

        Raises SatbenchError for the name of a file, and as `adversarial` does.
        """
        check_folder(Path(folder))
        path = Path(folder) / "adversarial.npz"
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **self.adversarial()._asdict())
        return path

    def show(self, n: int = 8, names: Sequence[str] = ()) -> DrawnFigure:
        """Draw up to `n` broken images: clean, perturbation and adversarial.

        The model's answer and its confidence are below each image; the perturbation is labelled
        with the factor by which it is amplified.  The first images have different labels.  `names`
        are those of the classes.  A notebook shows the picture, and `.save("NAME.png")` writes it.
        Raises SatbenchError if no image is broken, and as `adversarial` does.
        """
        return images_picture(self.broken_images(n, names), self.caption)

    def plot(self) -> DrawnFigure:
        """Draw the clean accuracy and the accuracy after each attack, with 95 % intervals."""
        rows = [
            (shown_name(row.name), row.accuracy, row.low, row.high)
            for row in rows_of(self)
            if row.name != "overall"
        ]
        return stages_picture(rows, self.caption, self.model.activation)

    def broken_images(self, n: int, names: Sequence[str] = ()) -> list[Broken]:
        """Return up to `n` broken images with the model's answers; see `show`."""
        if n < 1:
            raise SatbenchError(f"expected 1 image or more to show, got {n}")
        found = self.adversarial()
        if not len(found.indices):
            raise SatbenchError("expected a broken image to show, but this record has none")
        rows = _varied(found.labels)[:n]
        names = names or class_names(self.dataset.name)
        clean = self._dataset.pixels(found.indices[rows])
        before, after = self._answer(clean), self._answer(found.images[rows])
        return [
            Broken(
                int(found.indices[row]),
                clean[place],
                found.images[row],
                before.shown(place, names),
                after.shown(place, names),
            )
            for place, row in enumerate(rows)
        ]

    @property
    def caption(self) -> str:
        """One line that describes the record: the model, the threat model, the images."""
        threat = f"{self.norm.capitalize()}, eps {self.eps}"
        return f"{self.model.name}: {threat}, {self.n:,} images of {self.dataset.name}"

    def __repr__(self) -> str:
        low, high = self.interval
        rows = rows_of(self)[:-1]
        width = max(len(shown_name(row.name)) for row in rows)
        lines = [
            f"  {shown_name(row.name):<{width}}  {row.accuracy:6.1%}  ({row.correct} of {row.n})"
            for row in rows
        ]
        flags = [flag.name for flag in self.diagnosis.flags] if self.diagnosis else []
        return "\n".join(
            [
                f"satbench record of {self.caption}",
                *lines,
                f"robust accuracy {self.robust_accuracy:.1%}, "
                f"95 % interval {low:.1%} to {high:.1%}",
                *([f"flagged: {', '.join(flags)}"] if flags else []),
                *self._where,
            ]
        )

    def _repr_html_(self) -> str:
        return result_html(self.caption, rows_of(self), [*notes_of(self), *self._where])

    @property
    def _where(self) -> list[str]:
        """Return where the record is and, if it was found, that nothing was run for it."""
        if self.path is None:
            return []
        if self.found:
            return [f"found, made {self.environment.finished}, nothing was run: {self.path}"]
        if not self.kept:
            return ["deleted with this object; out=FOLDER keeps the record"]
        return [f"wrote {self.path}"]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return bool(_plain(self) == _plain(other))

    __hash__ = None  # type: ignore[assignment]  # like a plain record, which holds lists

    @cached_property
    def _witnesses(self) -> Witnesses:
        if self.path is None or not self.path.exists():
            raise SatbenchError(
                "expected a record file with witnesses next to it, but this record has no file"
                + (f": {self.path} is gone" if self.path else "")
            )
        if read_record(self.path) != self:
            raise SatbenchError(f"expected the record at {self.path}, but it was replaced")
        held = read_witnesses(find_witnesses(self.path, self.witnesses_digest))
        if held.digest != self.witnesses_digest:
            raise SatbenchError(f"the witnesses next to {self.path} are not those of the record")
        return held

    @cached_property
    def _dataset(self) -> Dataset:
        found = find_images(self, self.given)
        if found is None or found.digest != self.dataset.digest:
            raise SatbenchError(
                f"the images of {self.dataset.name} here are not those of the record: pass the "
                "right ones to satbench.load_record(path, model, x, y)"
            )
        return found

    @cached_property
    def _loaded(self) -> LoadedModel:
        return find_model(self, self.given)

    @cached_property
    def _predictions(self) -> NDArray[np.int64]:
        """The answer to each image, (N,): to the witness if it is broken, else to the image."""
        verdicts = np.array(self.verdicts)
        answers = self._dataset.labels.copy()
        wrong = np.flatnonzero(verdicts == WRONG_CLEAN)
        answers[wrong] = self._answer(self._dataset.pixels(wrong)).classes
        held = self._witnesses
        answers[held.indices] = self._answer(held.images).classes
        agrees = (answers == self._dataset.labels) == (verdicts == SURVIVED)
        if not agrees.all():
            raise SatbenchError(
                f"the model's answers are not those of the record (first for image "
                f"{int(np.flatnonzero(~agrees)[0])}): satbench.verify says what is wrong"
            )
        return answers

    @property
    def _weights_digest(self) -> str:
        if isinstance(self.given.model, torch.nn.Module):  # it may have been trained since
            return digest_weights(self.given.model)
        return self._loaded.info.weights_digest

    def _answer(self, images: NDArray[np.float32]) -> _Answers:
        """Return the model's answers to images, (M, C, H, W)."""
        loaded = self._loaded
        if self._weights_digest != self.model.weights_digest:
            raise SatbenchError(
                f"the weights of {self.model.name} are no longer those of the record: pass the "
                "evaluated model to satbench.load_record(path, model, x, y)"
            )
        device = device_of(loaded.module)
        parts = [_Answers(np.empty(0, np.int64), np.empty(0))]
        with (
            own_generators(device, self.seed),
            borrowed(loaded.module) as model,
            torch.no_grad(),
            in_full_precision(),
        ):
            for start in range(0, len(images), BATCH):
                x = torch.from_numpy(images[start : start + BATCH]).to(device)
                found = answered(ask(model, x), x).softmax(1).max(1)
                confidences = found.values.cpu().double().numpy()
                parts.append(_Answers(found.indices.cpu().numpy(), confidences))
        return _Answers(*(np.concatenate(kind) for kind in zip(*parts, strict=True)))


class _Answers(NamedTuple):
    """The classes that a model predicts, (M,), and their probabilities, (M,)."""

    classes: NDArray[np.int64]
    confidences: NDArray[np.float64]

    def shown(self, place: int, names: Sequence[str]) -> ModelAnswer:
        number = int(self.classes[place])
        said = names[number] if number < len(names) else str(number)
        return ModelAnswer(said, float(self.confidences[place]))


def _stage_name(attack: str, part: str) -> str:
    short = short_spec(attack)
    return f"{short}/{part}" if part else short


def _plain(record: Record) -> Record:
    return Record(**{one.name: getattr(record, one.name) for one in fields(Record)})


def _varied(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return an order with the first image of each label first, then the second, …  (M,)."""
    seen: dict[int, int] = {}
    turns = []
    for label in labels.tolist():
        seen[label] = seen.get(label, -1) + 1
        turns.append(seen[label])
    return np.argsort(np.array(turns, np.int64), kind="stable")
