"""Ways of searching: rounding, memory layout and CUDA graphs.  The judge always uses float32."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import torch

from satbench.calling.devices import device_name
from satbench.core.errors import SatbenchError

Form = Literal["channels-last", "channels-first", "plain"]
"""The forms of a model in searches: a fast copy in one of two memory layouts, or unchanged."""

FORMS: tuple[Form, ...] = ("channels-last", "channels-first", "plain")
"""All forms in the order in which they are tried; if a copy fails, the next one is tried."""

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
"""The rounding of passes in a search; `tf32` is for convolutions and products on a GPU."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

VARIABLE = "SATBENCH_SEARCH"
"""The environment variable that sets the way of searching."""

ALLOWED = Path(__file__).with_name("allowed.json")
"""The ways of searching that lost no image in the measurements, by the name of a GPU."""

_GRAPH = "graph"


@dataclass(frozen=True)
class Way:
    """How searches compute.

    Passes are rounded as `precision` says.  Only `form` of the model is tried; for None, all forms
    are.  With `graph`, gradients of a fast copy are CUDA graphs.
    """

    precision: Precision = "float32"
    form: Form | None = None
    graph: bool = False

    @classmethod
    def parse(cls, text: str) -> Way:
        """Read a way: a precision, a form and `graph`, joined by `+`.

        Raises SatbenchError for anything else.

        >>> Way.parse("bfloat16+channels-last+graph")
        Way(precision='bfloat16', form='channels-last', graph=True)
        """
        parts = text.split("+")
        precisions = [part for part in parts if part in PRECISIONS]
        forms = [part for part in parts if part in FORMS]
        graphs = parts.count(_GRAPH)
        known = len(precisions) + len(forms) + graphs == len(parts)
        twice = max(len(precisions), len(forms), graphs) > 1
        if not known or twice or (graphs and "plain" in forms):
            raise SatbenchError(
                f"expected {VARIABLE} to join a precision ({', '.join(PRECISIONS)}), a form "
                f"({', '.join(FORMS)}) and graph by +, graph without plain, such as "
                f"bfloat16+graph, got {text!r}"
            )
        return cls(
            precisions[0] if precisions else "float32",
            forms[0] if forms else None,
            bool(graphs),
        )

    def __str__(self) -> str:
        parts = (self.precision, self.form, _GRAPH if self.graph else None)
        return "+".join(part for part in parts if part)

    @property
    def is_reduced(self) -> bool:
        """Whether passes have less precision than float32."""
        return self.precision != "float32"

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype that replaces float32 in passes; None if none does."""
        return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.precision)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set how torch rounds float32 passes on a GPU within the block."""
        coarse = self.precision == "tf32"
        products = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if coarse else "highest")
        try:
            with torch.backends.cudnn.flags(
                enabled=torch.backends.cudnn.enabled,
                benchmark=torch.backends.cudnn.benchmark,
                deterministic=torch.backends.cudnn.deterministic,
                allow_tf32=coarse,
            ):
                yield
        finally:
            torch.set_float32_matmul_precision(products)


WAYS: tuple[Way, ...] = tuple(
    Way(precision, form, graph)
    for precision, form, graph in product(PRECISIONS, (None, *FORMS), (False, True))
    if not (graph and form == "plain")
)
"""All ways; the first is float32 in any form."""


def chosen_way(device: torch.device) -> Way:
    """Return the way of searching on a device.

    It is `$SATBENCH_SEARCH`, else what `allowed.json` has for the GPU, else float32.
    """
    if text := os.environ.get(VARIABLE):
        return Way.parse(text)
    if device.type != "cuda":
        return WAYS[0]
    return Way.parse(allowed_ways().get(device_name(device), "float32"))


@cache
def allowed_ways() -> dict[str, str]:
    """Return the contents of `allowed.json`."""
    found: dict[str, str] = json.loads(ALLOWED.read_text(encoding="utf-8"))
    return found
