"""The training set of a run, opened by its config and put into a fair order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from satbench.core.errors import listed
from satbench.core.noise import generator_for
from satbench.data import Dataset, load_dataset, open_tree, training_rule
from satbench.recipes import TrainConfig

_ENOUGH = 10
"""With at least this many held-out images per class on average, a class without any is noted."""


@dataclass(frozen=True)
class TrainingSet:
    """Images to train on, the last of them held out.

    `digest` is that of the whole set as stored, before ordering and selection; `notes` are for the
    user.
    """

    data: Dataset
    digest: str
    notes: tuple[str, ...] = ()


def open_training_set(
    config: TrainConfig, data_dir: Path | None = None, workers: int = 0
) -> TrainingSet:
    """Open the training set of a config; `workers` processes read files of images.

    Raises SatbenchError for a set that is missing or corrupt, and for a subset that is too large.
    """
    if config.dataset.startswith("imagefolder:"):
        rule = training_rule(config.dataset, config.crop, config.resize, config.interpolation)
        data: Dataset = open_tree(config.dataset, rule, workers)
    else:
        data = load_dataset(config.dataset, "train", data_dir=data_dir)
    return fair_set(config, data)


def fair_set(config: TrainConfig, data: Dataset) -> TrainingSet:
    """Return the images of `data` that a config trains on, in a fair order.

    Images that are sorted by class get one fixed random order, as for folders of images, because
    the last ones are held out.  With `subset`, that many are chosen at random, the same for every
    seed.  Raises SatbenchError for a subset that is too large.
    """
    digest, notes = data.digest, []
    if bool((np.diff(data.labels) >= 0).all()) and data.labels[0] != data.labels[-1]:
        data = data.taken(generator_for("imagefolder order").permutation(len(data)))
        notes.append(
            f"the images of {data.name} are sorted by class: they are used in a fixed random order"
        )
    if config.subset:
        order = generator_for("subset", digest).permutation(len(data))
        data = data.taken(order).first(config.subset)
    return TrainingSet(data, digest, (*notes, *_classes_not_held_out(config, data)))


def _classes_not_held_out(config: TrainConfig, data: Dataset) -> list[str]:
    held, trained = data.labels[-config.held_out :], data.labels[: -config.held_out]
    missing = sorted(set(trained.tolist()) - set(held.tolist()))
    if config.held_out < _ENOUGH * data.classes or not missing:
        return []
    classes = listed([str(label) for label in missing])
    return [
        f"the {config.held_out} held-out images, the last of {data.name}, have none of class "
        f"{classes}: the metrics do not cover it; shuffle the images once"
    ]
