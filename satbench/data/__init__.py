"""Data sets: named, ordered images with a digest. A new one is one module and one registry line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol, Self, cast

from satbench.core.errors import SatbenchError
from satbench.core.limits import whole_number
from satbench.data._arrays import load_arrays
from satbench.data._dataset import USER, Dataset
from satbench.data._image_tree import ImageTree, open_tree, same_images
from satbench.data._imagefolder import ImageFolder
from satbench.data._plugins import load_plugin
from satbench.data._registry import AT_A_PATH, DATASETS
from satbench.data.folders import data_folder
from satbench.data.image_files.options import SIDES
from satbench.data.image_files.pairs import beside, side_of
from satbench.data.image_files.pixels import Interpolation, ResizeCrop
from satbench.data.image_files.training_rule import training_rule
from satbench.data.image_files.treatment import Treatment

Split = Literal["test", "train"]


class DatasetSource(Protocol):
    """A data set at a path, KIND:PATH: its text, parsed without reading a file."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text behind `KIND:`.  Raises SatbenchError."""
        ...

    def saying(self, values: Mapping[str, str]) -> Self:
        """Return the same with more options.  Raises SatbenchError for one given twice."""
        ...

    def load(self, split: Split, n_examples: int | None) -> Dataset:
        """Load the first images, as many as there are up to `n_examples`.  Raises SatbenchError."""
        ...


class Treated(DatasetSource, Protocol):
    """A source whose text says how its pixels and classes are treated."""

    @property
    def treatment(self) -> Treatment: ...

    def treated(self, treatment: Treatment) -> Self:
        """Return the same images with another treatment."""
        ...


def check_name(name: str) -> None:
    """Raise SatbenchError unless `name` names a data set: NAME, NAME@SIDE or KIND:PATH."""
    base, side, path = _parse(name)
    entry = DATASETS[base]
    if side and entry.name in AT_A_PATH:
        raise SatbenchError(
            f"expected {entry.name}:PATH, with what is done to the pixels behind the path, "
            f"{entry.name}:PATH@RULE, got {name!r}"
        )
    if (entry.name in AT_A_PATH) != bool(path):
        wanted = f"{entry.name}:PATH" if entry.name in AT_A_PATH else entry.name
        raise SatbenchError(f"expected the dataset as {wanted}, got {name!r}")
    if path:
        _source(base, path)


def load_dataset(
    name: str,
    split: Split = "test",
    n_examples: int | None = None,
    data_dir: Path | None = None,
    *,
    or_fewer: bool = False,
) -> Dataset:
    """Load the first `n_examples` images of a split (None for all), and check the digest.

    The name may have a side in pixels, `fashion-mnist@20`, to which the images are resized; a data
    set at a path may have options, `imagefolder:PATH@RULE`.  `data_dir` is the folder of the files
    and of downloads; None means `$SATBENCH_DATA`, else `~/.cache/satbench/data`.  Raises
    SatbenchError for an unknown name, for missing or corrupt files, and for `n_examples` below 1,
    or above the size of the split unless `or_fewer` is set.

    >>> images = load_dataset("fashion-mnist", n_examples=100)
    >>> images.name, len(images), images.shape, images.classes
    ('fashion-mnist', 100, (1, 28, 28), 10)
    """
    check_name(name)
    if n_examples is not None and n_examples < 1:
        raise SatbenchError(f"expected at least 1 example, got {n_examples}")
    base, side, path = _parse(name)
    if path:
        dataset = _source(base, path).load(split, n_examples)
    elif (entry := DATASETS[base]).plugin:
        dataset = load_plugin(entry, data_folder(data_dir), split, n_examples)
    else:
        load = cast(Callable[[Path, Split, int | None], Dataset], entry.load())
        dataset = load(data_folder(data_dir), split, n_examples)
    if n_examples is not None:
        dataset = dataset.first(min(n_examples, len(dataset)) if or_fewer else n_examples)
    dataset = replace(dataset, origin=name)
    if side is None:
        return dataset
    from satbench.data._resized import resized

    return resized(dataset, side)


def dataset_name(
    dataset: str | None,
    data: str | None = None,
    name: str | None = None,
    classes: str | None = None,
) -> str | None:
    """Return the name of the data set that --dataset, --data, --data-name and --classes specify.

    Raises SatbenchError for options that exclude each other.
    """
    if dataset and data:
        raise SatbenchError(f"give --dataset {dataset} or --data {data}, not both")
    if name is not None and (data is None or not name or "," in name):
        raise SatbenchError(
            f"expected --data FILE and a name without commas for it, got --data-name {name!r}"
        )
    if data is not None:
        dataset = f"arrays:{data}"
    if classes is None and name is None:
        return dataset
    base, _, path = (dataset or "").partition(":")
    if base not in AT_A_PATH:
        raise SatbenchError(
            "--classes numbers the classes of --data FILE and of --dataset imagefolder:PATH, got "
            f"{f'--dataset {dataset}' if dataset else 'neither'}"
        )
    source = _source(base, path)
    changes = {"name": name, "classes": classes}
    return f"{base}:{source.saying({k: v for k, v in changes.items() if v is not None})}"


def completed(dataset: str, trained_on: str | None, classes: int | None) -> str:
    """Complete the name of a folder of images with the settings of the model's training.

    `trained_on` is the data set in the card, `classes` its number of classes.  The rule for pixels
    is that of training; a network of other classes than ImageNet's numbers folders by place.
    """
    base, _, path = dataset.partition(":")
    if base not in ("imagefolder", "hf") or classes is None:
        return dataset
    source = cast(Treated, _source(base, path))
    like, _, where = (trained_on or "").partition(":")
    if like in ("imagefolder", "hf"):
        treatment = source.treatment.like(cast(Treated, _source(like, where)).treatment)
    else:
        treatment = source.treatment
    return (
        f"{base}:{source.treated(treatment if classes == 1000 else treatment.numbered_by_place())}"
    )


def evaluation_set_of(dataset: str) -> str | None:
    """Return the data set on which a model trained on `dataset` is evaluated by default.

    That is the test split if there is one, or the folder val/ or test/ next to train/; None for a
    user's own images without such a pair.
    """
    base, _, path = dataset.partition(":")
    if not path:
        return dataset if base.partition("@")[0] in DATASETS else None
    if base == "hf" and "split=" not in path:
        return dataset  # its test split is loaded
    if base != "imagefolder":
        return None
    source = ImageFolder.parse(path)
    if side_of(source.folder, "test") != source.folder:  # it has both
        return dataset
    other = beside(source.folder)
    return f"{base}:{replace(source, folder=other)}" if other else None


def _source(base: str, path: str) -> DatasetSource:
    return cast(type[DatasetSource], DATASETS[base].load()).parse(path)


def _parse(name: str) -> tuple[str, int | None, str]:
    # NAME, NAME@SIDE or NAME:PATH -> name, side, path; a path may contain an @.
    base, _, path = name.partition(":")
    base, at, text = base.partition("@")
    if not at:
        return base, None, path
    side = whole_number(text) or 0
    if side not in SIDES:
        raise SatbenchError(
            f"expected the dataset as {base}@SIDE with a side from {SIDES[0]} to {SIDES[-1]} "
            f"pixels, got {name!r}"
        )
    return base, side, path


__all__ = [
    "AT_A_PATH",
    "DATASETS",
    "SIDES",
    "USER",
    "Dataset",
    "ImageTree",
    "Interpolation",
    "ResizeCrop",
    "Split",
    "check_name",
    "completed",
    "dataset_name",
    "evaluation_set_of",
    "load_arrays",
    "load_dataset",
    "open_tree",
    "same_images",
    "training_rule",
]
