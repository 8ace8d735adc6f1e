from __future__ import annotations

import pytest

from satbench.studies import STUDIES, Study, load_study

SCALES = [
    ("scaling", name)
    for name in ("sat-cifar10", "sat-imagenet-resnet50", "sat-imagenet-efficientnet")
]


@pytest.fixture(params=[*((name, None) for name in STUDIES.names()), *SCALES])
def study(request: pytest.FixtureRequest) -> Study:
    return load_study(*request.param)


def test_the_primary_question_of_each_study_is_about_its_contrasts(study: Study) -> None:
    assert study.primary is not None
    assert set(study.primary.pairs) <= set(study.contrasts)


def test_the_masked_arms_of_a_study_exist(study: Study) -> None:
    assert set(study.masked) <= {arm.name for arm in study.arms}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gradient-quality", [("both", "ReLU")]),
        (
            "activations",
            [
                (name, "ReLU")
                for name in ["softplus", "parametric softplus", "SILU", "GELU", "ELU", "SmoothReLU"]
            ],
        ),
        ("elu-celu", [(f"CELU({a})", f"ELU({a})") for a in ("1.2", "1.4", "1.6", "1.8", "2")]),
    ],
)
def test_the_primary_questions_are_those_of_the_paper(name, expected) -> None:
    primary = load_study(name).primary

    assert expected == [(one.arm, one.baseline) for one in primary.pairs]
