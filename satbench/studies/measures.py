"""The gradient measures of a model, as means over the first images of its test set."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from satbench.calling.devices import moved
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.diagnosis.gradient_quality import MEASURES, gradient_measures
from satbench.studies.plan import EVALUATION_SEED

MEASURED_IMAGES = 500
"""How many images are measured, for any number of attacked images."""

PASSES = (28, 25)
"""Forwards and backwards per image that the measures cost."""

_BATCH = 250


def measure_model(
    module: nn.Module, dataset: Dataset, threat: Threat, device: torch.device
) -> dict[str, float]:
    """Return the mean of each gradient measure over the images of `dataset`."""
    indices = np.arange(len(dataset))
    with moved([module], device):
        return gradient_measures(
            module,
            dataset.pixels(indices),
            dataset.labels,
            indices,
            threat,
            EVALUATION_SEED,
            _BATCH,
        )


__all__ = ["MEASURED_IMAGES", "MEASURES", "PASSES", "measure_model"]
