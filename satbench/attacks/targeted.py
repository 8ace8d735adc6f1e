"""The attacks that can be aimed at a class, and the function of the logits that each uses."""

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
"""Names of attacks whose search needs only two classes, with the function that they use."""


def view_of(spec: str) -> View:
    """Return the function of the logits that an attack uses when it is aimed at a class.

    Raises SatbenchError for an attack that chooses classes itself, compares more than two, or makes
    its images on other models.
    """
    name = split_spec(spec)[0]
    if name in VIEWS:
        return VIEWS[name]
    raise SatbenchError(
        f"{name} cannot be aimed at a class: with target= use {', '.join(list(VIEWS)[:4])} or "
        f"another of {', '.join(list(VIEWS)[4:])}"
    )
