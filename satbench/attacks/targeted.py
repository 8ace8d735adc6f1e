"""Which attacks can be aimed at a class, and how each sees the model then."""

from __future__ import annotations

from collections.abc import Mapping

from satbench.core.errors import SatbenchError
from satbench.core.specs import split_spec
from satbench.engine.toward import View

VIEWS: Mapping[str, View] = {
    "pgd": "likelihood",
    "apgd-ce": "margin",
    "cosine-pgd": "margin",
    "square": "distance",
    "fab-t": "distance",
    "foolbox.fmn": "distance",
    "foolbox.ddn": "distance",
    "foolbox.deepfool": "distance",
    "foolbox.cw": "distance",
    "foolbox.boundary": "distance",
    "foolbox.hopskipjump": "distance",
}
"""Names of attacks whose search needs only two classes, with what they see of the model."""


def view_of(spec: str) -> View:
    """Return how an attack sees the model when it is aimed at a class.

    Raises SatbenchError for one that cannot be: it chooses classes itself, compares more than two,
    or makes its images on other models.
    """
    name = split_spec(spec)[0]
    if name in VIEWS:
        return VIEWS[name]
    raise SatbenchError(
        f"{name} cannot be aimed at a class: with target= take {', '.join(list(VIEWS)[:4])} or "
        f"another of {', '.join(list(VIEWS)[4:])}"
    )
