"""`imagefolder:PATH`: a tree PATH/CLASS/IMAGE of any images, such as ImageNet's validation set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from satbench.data._class_folders import list_images
from satbench.data._classes import BY_NAME, BY_PLACE, Classes
from satbench.data._dataset import Dataset
from satbench.data._options import Options
from satbench.data._picture import holds_more_than_bytes
from satbench.data._pixels import KEYS, STANDARD, WORDS, Pixels
from satbench.data._stack import stacked


@dataclass(frozen=True)
class ImageFolder:
    """A folder of class folders, what is done to the pixels, and how the classes are numbered.

    `rule` is None where the text does not say: then it is for others to choose, else STANDARD.
    """

    folder: Path
    rule: Pixels | None = None
    classes: Classes = BY_NAME

    @classmethod
    def parse(cls, text: str) -> ImageFolder:
        """Read `PATH@resize=256,crop=224,classes=FILE.json`.  Raises SatbenchError."""
        return cls.of(Options.parse(text, WORDS))

    @classmethod
    def of(cls, options: Options) -> ImageFolder:
        """Read a path and its options.  Raises SatbenchError."""
        options.check_keys((*KEYS, "classes"))
        told = options.word or options.values.keys() & set(KEYS)
        rule = Pixels.of(options) if told else None
        return cls(Path(options.path), rule, Classes(options.values.get("classes", "")))

    def __str__(self) -> str:
        """Return the text; `parse` is its inverse."""
        classes = f"classes={self.classes.text}" if self.classes.text else ""
        said = ",".join(filter(None, (str(self.rule or ""), classes)))
        return f"{self.folder}@{said}" if said else str(self.folder)

    def saying(self, values: Mapping[str, str]) -> ImageFolder:
        """Return the same with more options.  Raises SatbenchError for one given twice."""
        return ImageFolder.of(Options.parse(str(self), WORDS).saying(values))

    def like(self, other: ImageFolder) -> ImageFolder:
        """Return the same folder with what `other` says where this one says nothing."""
        classes = self.classes if self.classes.text else other.classes
        return replace(self, rule=self.rule or other.rule, classes=classes)

    def numbered_by_place(self) -> ImageFolder:
        """Return the same, its classes numbered by the places of folders unless it says how."""
        return self if self.classes.text else replace(self, classes=BY_PLACE)

    def load(self, split: Literal["test", "train"], n_examples: int | None) -> Dataset:
        """Load the images, the first n of one fixed random order that is a fair sample of all.

        They are bytes, or floats where any of the folder has more than 8 bits.  Raises
        SatbenchError, naming the file, for an image that cannot be taken.
        """
        rule = self.rule or STANDARD
        found = list_images(self.folder, self.classes)
        paths = [self.folder / file for file in found.files]
        deep = any(map(holds_more_than_bytes, paths))
        chosen = paths[:n_examples]
        images = stacked(((path, None) for path in chosen), len(chosen), rule, deep)
        return Dataset(
            f"imagefolder:{self.folder.absolute().name}@{rule}",
            split,
            images,
            found.labels[:n_examples],
            found.classes,
            more_classes=found.more_classes,
        )
