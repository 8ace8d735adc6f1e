"""Files of weights by their path, with an architecture and an activation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from satbench.models._loaded import LoadedModel, describe_module


def load_file(text: str, architecture: str, activation: str, classes: int) -> LoadedModel:
    """Build a network and load `PATH` or `PATH#COPY` into it, strictly.

    `COPY` is the key of one of several sets of weights in a checkpoint.  Raises SatbenchError
    for unknown parts, and weights that are missing, corrupt, unsafe, or that do not fit.
    """
    from satbench.model_zoo.build import (
        build_network,
        canonical_activation,
        canonical_architecture,
    )
    from satbench.model_zoo.weights import load_weights

    module = build_network(architecture, activation, classes).eval()
    place, _, copy = text.partition("#")
    load_weights(module, Path(place), copy)
    name = Path(place).stem + (f"#{copy}" if copy else "")
    info = replace(
        describe_module(module, name, "file"),
        architecture=canonical_architecture(architecture),
        activation=canonical_activation(activation),
    )
    return LoadedModel(module, info, None)
