"""`imagefolder:PATH`: a tree PATH/CLASS/IMAGE of any images, such as ImageNet's validation set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from satbench.data._dataset import Dataset
from satbench.data.image_files.class_folders import list_images
from satbench.data.image_files.options import PathOptions
from satbench.data.image_files.pairs import side_of
from satbench.data.image_files.picture import holds_more_than_bytes
from satbench.data.image_files.pixels import STANDARD, WORDS
from satbench.data.image_files.stack import stacked
from satbench.data.image_files.treatment import TOLD, Treatment


@dataclass(frozen=True)
class ImageFolder:
    """A folder of class folders, with a rule for pixels and a numbering of classes."""

    folder: Path
    treatment: Treatment

    @classmethod
    def parse(cls, text: str) -> ImageFolder:
        """Read `PATH@resize=256,crop=224,classes=FILE.json`.  Raises SatbenchError."""
        return cls.of(PathOptions.parse(text, WORDS))

    @classmethod
    def of(cls, options: PathOptions) -> ImageFolder:
        """Read a path and its options.  Raises SatbenchError."""
        options.check_keys(TOLD)
        return cls(Path(options.path).expanduser(), Treatment.of(options))

    def __str__(self) -> str:
        """Return the text; `parse` is its inverse."""
        return f"{self.folder}@{self.treatment.text}" if self.treatment.text else str(self.folder)

    def saying(self, values: Mapping[str, str]) -> ImageFolder:
        """Return the same with more options.  Raises SatbenchError for one given twice."""
        return ImageFolder.of(PathOptions.parse(str(self), WORDS).saying(values))

    def treated(self, treatment: Treatment) -> ImageFolder:
        """Return the same folder with another treatment."""
        return replace(self, treatment=treatment)

    def load(self, split: str, n_examples: int | None) -> Dataset:
        """Load the images: the first n of one fixed random order, a fair sample of all.

        If the folder has train/ and val/ or test/, they are those of the split.  They are bytes, or
        floats if any image of the folder has more than 8 bits.  Raises SatbenchError, naming the
        file, for an image that is refused.
        """
        rule = self.treatment.rule or STANDARD
        folder = side_of(self.folder, split)
        found = list_images(folder, self.treatment.classes)
        paths = [folder / file for file in found.files]
        deep = any(map(holds_more_than_bytes, paths))
        chosen = paths[:n_examples]
        images = stacked(((path, None) for path in chosen), len(chosen), rule, deep)
        return Dataset(
            f"imagefolder:{folder.absolute().name}@{replace(self.treatment, rule=rule).name}",
            split,
            images,
            found.labels[:n_examples],
            found.classes,
            more_classes=found.more_classes,
        )
