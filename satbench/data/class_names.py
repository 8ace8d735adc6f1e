"""The names of the classes of data sets that have them, for pictures."""

from __future__ import annotations

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    # Xiao, Rasul, Vollgraf, 2017, arXiv:1708.07747, table 2.
    "fashion-mnist": (
        "T-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    # Krizhevsky, 2009, "Learning multiple layers of features from tiny images".
    "cifar10": (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
}


def class_names(dataset: str) -> tuple[str, ...]:
    """Return the names of a data set's classes, `fashion-mnist@20` too; empty if unknown."""
    return CLASS_NAMES.get(dataset.partition(":")[0].partition("@")[0], ())
