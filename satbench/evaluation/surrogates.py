"""The surrogates of a run, by name, and the images for queries of the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from satbench.attacks import attack_spec, surrogates_in_file
from satbench.attacks.suites.suite_file import shipped_suites
from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.core.schema import read_toml_values
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.evaluation.named_in_files import request_known
from satbench.evaluation.own_code import identified
from satbench.models import load_model, request_model
from satbench.records.answers import surrogate_text

PINNED = "pinned"
"""The name of a benchmark's own surrogates in specs."""


class NamedSurrogates:
    """Surrogates that `--model` would take, and the images of the split that are not attacked."""

    def __init__(self, dataset: Dataset, data_dir: Path | None = None) -> None:
        self._dataset, self._data_dir = dataset, data_dir

    def surrogate(self, name: str) -> nn.Module:
        """Return a model by name.  Raises SatbenchError if it is unknown or does not fit."""
        return load_model(request_model(name), self._dataset.classes).module

    def pool(self, n: int) -> NDArray[np.float32]:
        """Return up to `n` images of the split after the evaluated ones, (M, C, H, W).

        None if all images are evaluated, or if the images exist only in memory.
        """
        if not self._dataset.origin:
            return self._dataset.pixels(np.empty(0, np.int64))
        start = max(len(self._dataset), self._dataset.population)
        origin = self._dataset.origin
        more = load_dataset(origin, "test", start + n, self._data_dir, or_fewer=True)
        return more.pixels(np.arange(start, len(more)))


def surrogate_digest(name: str, dataset: Dataset) -> str:
    """Return the text that identifies a surrogate: the digest of its weights from its card.

    If its code is the user's own, its answers to images of `dataset` are appended.
    """
    request = request_model(name)
    if request.card:
        return request.card.weights_digest
    loaded = load_model(request, dataset.classes)
    try:
        info = identified(loaded.info, loaded.module, dataset, torch.device("cpu"))
    except Exception as error:  # from the user's forward
        raise SatbenchError(
            f"the surrogate {name} refuses images of shape {dataset.shape} from {dataset.name}: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error
    return surrogate_text(info.weights_digest, info.answers)


def benchmark_surrogates(dataset: str, threat: Threat) -> dict[str, str]:
    """Return a benchmark's own surrogates, name to digest of weights, empty if it has none.

    Raises SatbenchError if a surrogate's weights are not those of surrogates.toml.
    """
    file = content_folder("model_zoo") / "surrogates.toml"
    known = read_toml_values(file, "list of surrogates")
    found: dict[str, str] = known.get(dataset, {}).get(str(threat), {})
    for name, digest in found.items():
        card = request_model(name).card
        if card is None or card.weights_digest != digest:
            raise SatbenchError(
                f"expected the surrogate {name} with weights {digest[:12]}…, as in "
                "surrogates.toml; its card has others"
            )
    return found


def with_surrogates(attacks: Sequence[str], dataset: str, threat: Threat) -> list[str]:
    """Replace `source=pinned` in specs by the benchmark's surrogates, `source=A+B`.

    If the benchmark has none, suites such as `fast` get `source=none`, and SatbenchError is raised
    for any other attack that needs them.  It is also raised for a suite file that names an unknown
    model: a name in a file runs no code and downloads nothing.
    """
    for text in attacks:
        for name in sorted(surrogates_in_file(text) - {PINNED}):
            way = (
                'make it a parameter of the suite, source = "pinned", and name the model '
                f"yourself, --attack '{text.partition('(')[0]}(source={name})'"
            )
            request_known(name, "", ways=way)
    return [_spelt_out(attack_spec(text), dataset, threat) for text in attacks]


def _spelt_out(spec: str, dataset: str, threat: Threat) -> str:
    wanted = f"source={PINNED}"
    if wanted not in spec:
        return spec
    names = benchmark_surrogates(dataset, threat)
    if not names and spec.partition("(")[0] not in shipped_suites():
        raise SatbenchError(
            f"the benchmark {dataset} under {threat} has no surrogates: "
            "name models to attack from, such as transfer(source=MODEL+MODEL)"
        )
    return spec.replace(wanted, f"source={'+'.join(names) or 'none'}")
