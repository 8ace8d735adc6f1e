"""The names of activations and architectures."""

from __future__ import annotations

from satbench.core.registry import Entry, Registry

ACTIVATIONS = Registry(
    "activation",
    (
        Entry("relu", "satbench.model_zoo._activations:ReLU", "max(0, x): the baseline"),
        Entry(
            "silu",
            "satbench.model_zoo._activations:SiLU",
            "x σ(x), also called Swish",
            "Xie et al., 2020, arXiv:2006.14536, section 4.1",
        ),
        Entry(
            "gelu",
            "satbench.model_zoo._activations:GELU",
            "x Φ(x), in the tanh form of the paper's code",
            "Xie et al., 2020, arXiv:2006.14536, section 4.1",
        ),
        Entry(
            "parametric-softplus",
            "satbench.model_zoo._activations:ParametricSoftplus",
            "(1/α) log(1 + exp(αx)), α = 10",
            "Xie et al., 2020, arXiv:2006.14536, section 3.2",
        ),
    ),
)

ARCHITECTURES = Registry(
    "architecture",
    (
        Entry(
            "tiny",
            "satbench.model_zoo._tiny:Tiny",
            "four convolutions for small grey images; at width 8: 15,682 parameters, 0.94 MMAC",
        ),
    ),
)
