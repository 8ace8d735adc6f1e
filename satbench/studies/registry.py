"""The registry of studies, with a line for each."""

from __future__ import annotations

from satbench.core.registry import Entry, Registry

_PAPER = "Xie et al., 2020, arXiv:2006.14536"

STUDIES = Registry(
    "study",
    (
        Entry(
            "gradient-quality",
            "satbench.studies.definitions.gradient_quality:study",
            "a smooth gradient for ReLU in the attack, in the update, or both; other remedies",
            f"{_PAPER}, section 3.2, table 1, figure 1",
        ),
        Entry(
            "activations",
            "satbench.studies.definitions.activations:study",
            "ten activations, forward and backward: accuracy against robustness",
            f"{_PAPER}, section 4.1, figure 2",
        ),
        Entry(
            "negative-inputs",
            "satbench.studies.definitions.negative_inputs:study",
            "SmoothReLU against ReLU: smooth, and still 0 for all x < 0",
            f"{_PAPER}, section 4.2, figure 3",
        ),
        Entry(
            "elu-celu",
            "satbench.studies.definitions.elu_celu:study",
            "ELU against CELU: the same shape with and without a kink",
            f"{_PAPER}, section 4.3, table 2",
        ),
        Entry(
            "scaling",
            "satbench.studies.definitions.scaling:study",
            "depth, width, resolution and all three, with ReLU and with SILU",
            f"{_PAPER}, section 5",
        ),
        Entry(
            "gradient-masking",
            "satbench.studies.definitions.gradient_masking:study",
            "white-box, transfer, distilled and black-box attacks on honest and masked models",
        ),
        Entry(
            "attack-convergence",
            "satbench.studies.definitions.attack_convergence:study",
            "robust accuracy against PGD's steps, and against eps up to where nothing survives",
        ),
        Entry(
            "recipe-sensitivity",
            "satbench.studies.definitions.recipe_sensitivity:study",
            "does the effect of a smooth activation survive another recipe?",
        ),
        Entry(
            "smoothness-0.03",
            "satbench.studies.definitions.smoothness:small_radius",
            "pre-registered: smooth activations at eps 0.03, PGD-1 and PGD-2, ten seeds",
            f"{_PAPER}, sections 3.2 and 4.1",
        ),
        Entry(
            "smoothness-0.1",
            "satbench.studies.definitions.smoothness:large_radius",
            "pre-registered: SILU and ReLU at eps 0.1, PGD-1 and PGD-2, ten seeds",
            f"{_PAPER}, sections 3.2 and 4.1",
        ),
        Entry(
            "smoothness-longer",
            "satbench.studies.definitions.smoothness:longer_training",
            "pre-registered: SILU and ReLU with 32 epochs instead of 16, ten seeds",
            f"{_PAPER}, sections 3.2 and 4.1",
        ),
        Entry(
            "smoothness-larger",
            "satbench.studies.definitions.smoothness:larger_network",
            "pre-registered: SILU and ReLU in a network of 308,586 parameters, five seeds",
            f"{_PAPER}, sections 3.2 and 4.1",
        ),
    ),
)
"""Each target maps the name of a recipe to its `Study`."""
