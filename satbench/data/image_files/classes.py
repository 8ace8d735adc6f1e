"""The numbering of classes: from class folders and labels to the indices of a model's logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError
from satbench.core.limits import MOST_CLASSES
from satbench.core.schema import parse_json, read_text

FOLDERS, IMAGENET = "folders", "imagenet"

FORMS = f"a number, {FOLDERS}, {IMAGENET} or FILE.json"


@dataclass(frozen=True)
class ClassNumbers:
    """The numbers of classes by name, and how many classes there are.

    With `more` the count is only what these names need, and a model may have more classes.
    """

    by_name: Mapping[str, int]
    count: int
    more: bool = False


@dataclass(frozen=True)
class Classes:
    """A way to number classes.

    Empty: ImageNet's numbers if all folders are named by its WordNet IDs, else the place of a
    folder in the sorted list.  `folders`: always the place.  `imagenet`: its 1000 WordNet IDs.  A
    number N: that many classes, and a folder named by a whole number has that number.  FILE.json:
    {"NAME": NUMBER, …}, {"NUMBER": "NAME" or ["NAME", …], …} or ["NAME", …] in order.
    """

    text: str = ""

    def __post_init__(self) -> None:
        known = self.text in ("", FOLDERS, IMAGENET) or self.text.endswith(".json")
        if not known and self.number is None:
            raise SatbenchError(f"expected the classes as {FORMS}, got {self.text!r}")
        if self.number is not None and not 1 <= self.number <= MOST_CLASSES:
            raise SatbenchError(f"expected 1 to {MOST_CLASSES:,} classes, got {self.text[:40]}")

    @property
    def number(self) -> int | None:
        """The stated number of classes; None if it is not stated."""
        is_number = self.text.isascii() and self.text.isdecimal()
        return int(self.text[:40]) if is_number else None

    def of_folders(
        self, full: Sequence[str], empty: Sequence[str], where: Path | str
    ) -> ClassNumbers:
        """Number the class folders that are `full`; those without an image are `empty`.

        Raises SatbenchError for a name without a number, and for empty folders if they change the
        numbers of others.
        """
        wordnet = wordnet_ids()
        if self.text.endswith(".json"):
            return _of_all(full, read_map(Path(self.text)), self.text, where)
        if self.text == IMAGENET or (not self.text and set(full) <= wordnet.keys()):
            return _of_all(
                full, ClassNumbers(wordnet, len(wordnet)), "ImageNet's WordNet IDs", where
            )
        if self.number is not None and _are_numbers(full):
            found = {name: int(name) for name in full}
            if len(full) != self.number:  # N folders may be numbered from 1
                _check_below(max(found.values()), self.number, where)
            if max(found.values()) < self.number:
                return ClassNumbers(found, self.number)
        if empty:
            raise SatbenchError(
                f"expected images in class folders below {where}: there are none in {empty[0]}; "
                "remove it, or say how classes are numbered, --classes FILE.json"
            )
        if self.number is not None and len(full) != self.number:
            raise SatbenchError(
                f"expected {self.number} class folders in {where}, got {len(full)}, whose names "
                "do not tell their numbers; give a map instead, --classes FILE.json"
            )
        places = {name: place for place, name in enumerate(class_order(full))}
        return ClassNumbers(places, len(full))

    def of_labels(
        self, labels: NDArray[np.int64], where: str
    ) -> tuple[NDArray[np.int64], ClassNumbers]:
        """Number labels.  Raises SatbenchError for a label without a number."""
        if self.text == FOLDERS:
            raise SatbenchError(f"--classes {FOLDERS} is for folders of images, got {where}")
        names = [str(label) for label in np.unique(labels)]
        if self.text.endswith(".json"):
            numbers = _of_all(names, read_map(Path(self.text)), self.text, where)
            turned = np.array([numbers.by_name[str(label)] for label in labels.tolist()], np.int64)
            return turned, numbers
        needed = int(labels.max()) + 1
        count = 1000 if self.text == IMAGENET else self.number
        _check_below(needed - 1, count or needed, where)
        return labels, ClassNumbers(
            {name: int(name) for name in names}, count or needed, count is None
        )


BY_NAME = Classes()
"""ImageNet's numbers if the folders' names are its IDs, else places."""

BY_PLACE = Classes(FOLDERS)
"""Always the places of folders in the sorted list, as in training."""


def class_order(names: Sequence[str]) -> list[str]:
    """Sort the names of class folders: as numbers if all are whole numbers, else as text.

    So folders named by their label, such as 0…999 in ImageNet-V2, keep it: as text, 10 comes before
    2.
    """
    return (
        sorted(names, key=lambda name: (int(name), name)) if _are_numbers(names) else sorted(names)
    )


@cache
def wordnet_ids() -> dict[str, int]:
    """Return the WordNet IDs of ImageNet's 1000 classes (ILSVRC 2012), each with its number.

    The number is the place in the sorted list of IDs, as in all common networks.
    """
    text = (files("satbench.data") / "files" / "imagenet-wnids.txt").read_text(encoding="ascii")
    return {name: number for number, name in enumerate(text.split())}


def read_map(path: Path) -> ClassNumbers:
    """Read a map of classes.  Raises SatbenchError, naming the file, for another form."""
    found = parse_json(read_text(path, "map of classes"), "map of classes", str(path))
    if isinstance(found, list) and all(isinstance(name, str) for name in found) and found:
        return ClassNumbers({name: number for number, name in enumerate(found)}, len(found))
    if isinstance(found, dict) and found:
        if all(type(value) is int and 0 <= value < MOST_CLASSES for value in found.values()):
            return ClassNumbers(found, max(found.values()) + 1, more=True)
        names = {key: _first_name(value) for key, value in found.items()}
        if _are_numbers(list(names)) and all(names.values()):
            by_name = {name: int(key) for key, name in names.items()}
            return ClassNumbers(by_name, max(by_name.values()) + 1)
    raise SatbenchError(
        f"expected a map of classes in {path}: "
        '{"NAME": NUMBER, …}, {"NUMBER": "NAME", …} or ["NAME", …], with numbers from 0 on'
    )


def _first_name(value: object) -> str:
    """Return the name in a value of `{"0": "tench"}` or `{"0": ["n01440764", "tench"]}`."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) else ""


def _of_all(
    names: Sequence[str], known: ClassNumbers, what: str, where: Path | str
) -> ClassNumbers:
    strange = [name for name in names if name not in known.by_name]
    if strange:
        shown = ", ".join(strange[:3]) + (", …" if len(strange) > 3 else "")
        raise SatbenchError(
            f"expected a number in {what} for every class in {where}, got none for {shown}"
        )
    return known


def _check_below(highest: int, count: int, where: Path | str) -> None:
    if highest >= count:
        raise SatbenchError(
            f"expected labels in 0…{count - 1} for {count} classes in {where}, got {highest}"
        )


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isascii() and name.isdigit() for name in names)
