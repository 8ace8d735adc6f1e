"""`hf:NAME`: a data set of the Hugging Face Hub, or a folder in its formats, read by `datasets`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError
from satbench.core.noise import generator_for
from satbench.data._dataset import Dataset
from satbench.data.image_files.classes import FOLDERS, Classes, ClassNumbers, wordnet_ids
from satbench.data.image_files.options import PathOptions
from satbench.data.image_files.picture import HEAD, holds_more_than_bytes, may_be_deep
from satbench.data.image_files.pixels import UNTOUCHED, WORDS
from satbench.data.image_files.stack import Source, stacked
from satbench.data.image_files.treatment import TOLD, Treatment

if TYPE_CHECKING:
    import datasets

_COLUMNS = ("config", "split", "image", "label")
_SPLITS = {"test": ("test", "validation", "valid", "val"), "train": ("train",)}
"""The names of splits, in order of preference."""

_PIECE = 1000  # rows that are read together


@dataclass(frozen=True)
class HuggingFaceData:
    """The name or folder of a data set, its treatment, and its columns.

    `columns` may say `config`, `split` and the names of the columns `image` and `label`.
    """

    place: str
    treatment: Treatment
    columns: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> HuggingFaceData:
        """Read `ORG/NAME@split=test,image=img,RULE…`.  Raises SatbenchError."""
        return cls.of(PathOptions.parse(text, WORDS))

    @classmethod
    def of(cls, options: PathOptions) -> HuggingFaceData:
        """Read a name and its options.  Raises SatbenchError."""
        options.check_keys((*TOLD, *_COLUMNS))
        found = find_spec("datasets")
        if found is None or found.origin is None:  # a folder with that name is no package
            raise SatbenchError(
                f"hf:{options.path} needs the package datasets, which is not installed: "
                "pip install 'satbench[datasets]'"
            )
        columns = {key: value for key, value in options.values.items() if key in _COLUMNS}
        return cls(os.path.expanduser(options.path), Treatment.of(options), columns)

    def __str__(self) -> str:
        """Return the text; `parse` is its inverse."""
        items = [f"{key}={value}" for key, value in self.columns.items()]
        said = ",".join(filter(None, (self.treatment.text, *items)))
        return f"{self.place}@{said}" if said else self.place

    def saying(self, values: Mapping[str, str]) -> HuggingFaceData:
        """Return the same with more options.  Raises SatbenchError for one given twice."""
        return HuggingFaceData.of(PathOptions.parse(str(self), WORDS).saying(values))

    def treated(self, treatment: Treatment) -> HuggingFaceData:
        """Return the same data set with another treatment."""
        return replace(self, treatment=treatment)

    def load(self, split: str, n_examples: int | None) -> Dataset:
        """Load the images in their order, or in a fixed random order if they are sorted by class.

        Their pixels are not changed unless the name says so.  Raises SatbenchError for an
        unavailable data set, for ambiguous columns, and for the same images as in a folder.
        """
        rule = self.treatment.rule or UNTOUCHED
        name, table = _table(self, split)
        image, label = _columns(table, self.columns, name)
        labels, numbers = _labels(table, label, self.treatment.classes, name)
        order = np.arange(len(table))
        if len(labels) > 1 and (np.diff(labels) >= 0).all():
            order = generator_for("imagefolder order").permutation(len(table))
        files = _Files(table, image, name)
        chosen = order[:n_examples]
        return Dataset(
            f"hf:{name}@{replace(self.treatment, rule=rule).name}",
            split,
            stacked(files.of(chosen), len(chosen), rule, files.hold_more_than_bytes()),
            labels[chosen],
            numbers.count,
            more_classes=numbers.more,
        )


class _Files:
    """The image files of a column, in the table or on the disk."""

    def __init__(self, table: datasets.Dataset, column: str, name: str) -> None:
        from datasets import Image

        whole = table.select_columns([column]).cast_column(column, Image(decode=False))
        self._table, self._column, self._name = whole.with_format("arrow"), column, name

    def of(self, rows: NDArray[np.int64]) -> Iterator[Source]:
        """Yield the name or the path of each image, and its bytes."""
        for row in rows.tolist():
            held = self._table[row][self._column][0].as_py()
            if held["bytes"] is None:
                yield Path(held["path"]), None
            else:
                yield Path(f"hf:{self._name}#{row}"), held["bytes"]

    def hold_more_than_bytes(self) -> bool:
        """Whether any has more than 8 bits per channel; only headers are read from the table."""
        import pyarrow.compute

        binary_slice = vars(pyarrow.compute)["binary_slice"]  # pyarrow creates them on import
        for start in range(0, len(self._table), _PIECE):
            column = self._table[start : start + _PIECE][self._column].combine_chunks()
            heads = binary_slice(column.field("bytes"), 0, HEAD).to_pylist()
            for row, head in enumerate(heads):
                if head is None:
                    deep = holds_more_than_bytes(Path(column[row]["path"].as_py()))
                else:
                    deep = may_be_deep(head) and holds_more_than_bytes(
                        Path(), column[row]["bytes"].as_py()
                    )
                if deep:
                    return True
        return False


def _table(asked: HuggingFaceData, split: str) -> tuple[str, datasets.Dataset]:
    """Return a data set's short name, and its split."""
    import datasets

    place, columns = Path(asked.place), asked.columns
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if (place / "state.json").exists() or (place / "dataset_dict.json").exists():
                found = datasets.load_from_disk(str(place))
            else:
                found = datasets.load_dataset(asked.place, columns.get("config"))
    except Exception as error:  # errors of foreign files, of the network and of its own parsers
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SatbenchError(f"cannot load the data set hf:{asked.place} ({said})") from error
    name = place.absolute().name if place.exists() else asked.place
    if isinstance(found, datasets.Dataset):
        return name, found
    wanted = (columns["split"],) if "split" in columns else _SPLITS[split]
    chosen = next((one for one in wanted if one in found), None)
    if chosen is None:
        raise SatbenchError(
            f"expected the split {' or '.join(wanted)} of hf:{asked.place}, got "
            f"{', '.join(found)}; name one, split=…"
        )
    return f"{name}/{chosen}" if "split" in columns else name, found[chosen]


def _columns(table: datasets.Dataset, said: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return the names of the columns of images and of labels."""
    from datasets import ClassLabel, Image, Value

    numbers = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    images = [key for key, kind in table.features.items() if isinstance(kind, Image)]
    labels = [key for key, kind in table.features.items() if isinstance(kind, ClassLabel)]
    whole = [
        key
        for key, kind in table.features.items()
        if isinstance(kind, Value) and kind.dtype in numbers
    ]
    return (
        _column("image", images, said, name),
        _column("label", labels + whole if "label" in said else labels or whole, said, name),
    )


def _column(what: str, found: list[str], said: Mapping[str, str], name: str) -> str:
    chosen = [key for key in found if key == said.get(what, key)]
    if len(chosen) == 1:
        return chosen[0]
    raise SatbenchError(
        f"expected one column of {what}s in hf:{name}, got {', '.join(found) or 'none'}; "
        f"name one, {what}=…"
    )


def _labels(
    table: datasets.Dataset, column: str, classes: Classes, name: str
) -> tuple[NDArray[np.int64], ClassNumbers]:
    from datasets import ClassLabel

    labels = np.asarray(table.with_format(None)[column], np.int64)
    if not len(labels):
        raise SatbenchError(f"expected at least one image in hf:{name}, got none")
    if labels.min() < 0:
        raise SatbenchError(f"expected labels that count from 0 in hf:{name}, got {labels.min()}")
    kind = table.features[column]
    if not isinstance(kind, ClassLabel) or classes.number is not None:
        return classes.of_labels(labels, f"hf:{name}")
    used = [kind.names[label] for label in np.unique(labels)]
    if classes.text == FOLDERS or not (classes.text or set(used) <= wordnet_ids().keys()):
        return labels, ClassNumbers({}, len(kind.names))
    numbers = classes.of_folders(used, [], f"hf:{name}")
    turned = np.array([numbers.by_name.get(one, -1) for one in kind.names], np.int64)
    return turned[labels], numbers
