"""The images of a training run, opened as its config says, in a fair order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from satbench.core.errors import listed
from satbench.core.noise import generator_for
from satbench.data import Dataset, load_dataset, open_tree, training_rule
from satbench.recipes import TrainConfig

_ENOUGH = 10
"""From so many held-out images a class on, one that has none is worth a word."""


@dataclass(frozen=True)
class TrainingSet:
    """Images to train on, the last of them held out.

    `digest` is that of the whole set as it lies there, before any were put in order or chosen;
    `notes` say what a user should know of it.
    """

    data: Dataset
    digest: str
    notes: tuple[str, ...] = ()


def open_training_set(
    config: TrainConfig, data_dir: Path | None = None, workers: int = 0
) -> TrainingSet:
    """Open the training set of a config; `workers` processes are to read files of images.

    Raises SatbenchError for a set that is missing or corrupt, and for too large a subset.
    """
    if config.dataset.startswith("imagefolder:"):
        rule = training_rule(config.dataset, config.crop, config.resize, config.interpolation)
        data: Dataset = open_tree(config.dataset, rule, workers)
    else:
        data = load_dataset(config.dataset, "train", data_dir=data_dir)
    return fair_set(config, data)


def fair_set(config: TrainConfig, data: Dataset) -> TrainingSet:
    """Return the images of `data` that a config trains on, in a fair order.

    Those that lie sorted by class are put into one fixed random order, that of folders of images,
    for the last are held out.  With `subset` so many are chosen at random, the same for every
    seed.  Raises SatbenchError for too large a subset.
    """
    digest, notes = data.digest, []
    if bool((np.diff(data.labels) >= 0).all()) and data.labels[0] != data.labels[-1]:
        data = data.taken(generator_for("imagefolder order").permutation(len(data)))
        notes.append(
            f"the images of {data.name} lie sorted by class: they are taken in a fixed random order"
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
        f"of class {classes} no image is among the {config.held_out} held out, the last of "
        f"{data.name}: the metrics tell nothing of it; shuffle the images once"
    ]
