from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from made_study import COLUMNS, FAST, letters, made_outcome, made_run, made_sheet, with_study
from scipy.stats import ttest_1samp

from satbench.core.errors import SatbenchError
from satbench.core.stats.shown import Effect, least_t, two_way_effect
from satbench.studies.design import Pair, Pool
from satbench.studies.effects import (
    Spread,
    accuracies,
    clean_accuracies,
    collapse_of,
    collapsed,
    effects_of,
    findings_of,
    gap_of,
    measure_difference,
    pooled_effect,
    primary_of,
    spread,
)
from satbench.studies.run_file import StudyRun
from satbench.studies.sheet import ArmRuns, verdicts_of

T1, T2 = 12.7062047, 4.30265273  # Student's t at 0.975 for 1 and 2 degrees of freedom

FELL = "catastrophic overfitting in epoch 2; the weights are of another epoch"


def test_the_variance_is_never_below_that_of_the_seeds() -> None:
    # Row means 0 and 1/2, mean 1/4: V_seed = (1/8) / 2 = 1/16.  Column means 0, 1/2, 0, 1/2, of
    # variance (4/16) / 3 = 1/12: V_image = 1/48.  Cells: squares 2 in 8 less 8/16, by 7: 3/14,
    # V_cell = 3/112, so that the sum lies below V_seed.
    differences = np.array([[0.0, 0, 0, 0], [0, 1, 0, 1]])
    assert 1 / 16 + 1 / 48 - 3 / 112 < 1 / 16
    expected = (0.25 - T1 / 4, 0.25 + T1 / 4)

    effect = two_way_effect(differences)

    assert expected == pytest.approx(effect.interval, rel=1e-6)


def test_the_variance_is_that_of_seeds_plus_images_minus_cells() -> None:
    # Rows 0, 1, 2 above columns 0, 2, 0, 2, 0, 2: V_seed = 1 / 3, V_image = (6 / 5) / 6, and
    # the squares of the 18 cells about their mean 2 sum to 6 · 2 + 3 · 6 = 30.
    differences = np.add.outer([0.0, 1, 2], [0.0, 2, 0, 2, 0, 2])
    half = T2 * sqrt(1 / 3 + 1 / 5 - 30 / 17 / 18)

    effect = two_way_effect(differences)

    assert (2 - half, 2 + half) == pytest.approx(effect.interval, rel=1e-6)


def test_the_variance_is_never_below_that_of_the_images() -> None:
    # All seeds are equal: V_seed = 0 and V_cell > 0, but the images differ.
    differences = np.tile([0.0, 1, 0, 1], (3, 1))
    half = T2 * sqrt((4 / 4 / 3) / 4)

    effect = two_way_effect(differences)

    assert (0.5 - half, 0.5 + half) == pytest.approx(effect.interval, rel=1e-6)


def test_with_equal_images_p_and_interval_are_those_of_a_t_test_over_seeds() -> None:
    means = np.array([0.2, 0.5, 0.1, 0.4])
    expected = ttest_1samp(means, 0.0)
    interval = expected.confidence_interval(0.95)

    effect = two_way_effect(np.repeat(means[:, None], 6, axis=1))

    # V_image is 0; V_seed − V_cell < V_seed, which is the lower limit.
    assert expected.pvalue == pytest.approx(effect.p, rel=1e-9)
    assert (interval.low, interval.high) == pytest.approx(effect.interval, rel=1e-9)
    assert effect.by_seed == pytest.approx(effect.interval, rel=1e-9)


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (1.0, 0.0)])
def test_p_of_equal_differences_is_1_if_they_are_0_and_otherwise_0(value: float, p: float) -> None:
    assert p == two_way_effect(np.full((3, 4), value)).p


def test_one_seed_gives_no_interval_and_no_verdict() -> None:
    effect = two_way_effect(np.ones((1, 9)))

    assert (1.0, None, None, "too few seeds") == (
        effect.mean,
        effect.interval,
        effect.p,
        effect.verdict,
    )


@pytest.mark.parametrize("shape", [(0, 4), (2, 1), (4,)])
def test_a_matrix_without_seeds_or_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SatbenchError, match="expected a seed or more and two images"):
        two_way_effect(np.zeros(shape))


@pytest.mark.parametrize("seed_noise", [0.0, 0.015, 0.03])
def test_only_the_two_way_interval_covers_the_truth_in_95_of_100_cases(
    seed_noise: float,
) -> None:
    rng = np.random.default_rng(0)
    both = alone = 0
    for _ in range(200):
        effect = two_way_effect(
            0.02
            + seed_noise * rng.standard_normal((5, 1))
            + 0.3 * rng.standard_normal((1, 300))
            + 0.5 * rng.standard_normal((5, 300))
        )
        both += effect.interval[0] <= 0.02 <= effect.interval[1]
        alone += effect.by_seed[0] <= 0.02 <= effect.by_seed[1]

    assert both >= 190 > alone


@pytest.mark.parametrize(
    ("interval", "adjusted", "expected"),
    [
        ((0.01, 0.05), 0.04, "more robust"),
        ((-0.05, -0.01), 0.04, "less robust"),
        ((0.01, 0.05), 0.05, "not shown to differ"),
        ((-0.01, 0.05), 0.01, "not shown to differ"),
        ((0.0, 0.05), 0.01, "not shown to differ"),
        (None, None, "too few seeds"),
    ],
)
def test_a_difference_is_shown_only_if_interval_and_adjusted_p_agree(
    interval, adjusted, expected
) -> None:
    assert expected == Effect(0.0, 3, interval, interval, adjusted, adjusted).verdict


def _arms(**texts: list[str]):
    return {
        name: [made_run(name, seed, text) for seed, text in enumerate(lines)]
        for name, lines in texts.items()
    }


def test_differences_are_paired_by_seed_and_image() -> None:
    arms = _arms(relu=["oxxx", "ooxx", "oooo"], silu=["ooox", "ooxo"])
    arms["silu"][0], arms["silu"][1] = arms["silu"][1], arms["silu"][0]  # the order does not matter
    sheet = made_sheet(arms, [("silu", "relu")])
    expected = two_way_effect(np.array([[0.0, 1, 1, 0], [0, 0, 0, 1]]))

    (effect,) = effects_of(sheet, "PGD-50")

    assert (0.375, 2) == (effect.mean, effect.seeds)
    assert expected.interval == pytest.approx(effect.interval)


def test_p_values_are_corrected_for_the_number_of_contrasts() -> None:
    arms = _arms(
        relu=[letters(4, 6)] * 3,
        silu=[letters(6, 4), letters(7, 3), letters(6, 4)],
        gelu=[letters(5, 5), letters(3, 7), letters(4, 6)],
    )
    one = effects_of(made_sheet(arms, [("silu", "relu")]), "PGD-50")[0]
    first, second = effects_of(made_sheet(arms, [("silu", "relu"), ("gelu", "relu")]), "PGD-50")

    assert (one.p, 2 * one.p, second.p) == pytest.approx(
        (one.adjusted, first.adjusted, second.adjusted)
    )


def test_contrasts_that_are_not_evaluated_yet_count_in_the_correction() -> None:
    runs = {"relu": [letters(4, 6)] * 3, "silu": [letters(6, 4), letters(7, 3), letters(6, 4)]}
    arms = {**_arms(**runs), "gelu": [], "elu": []}
    asked = [("gelu", "relu"), ("silu", "relu"), ("elu", "relu")]
    first, second, third = effects_of(made_sheet(arms, asked), "PGD-50")

    assert first is third is None
    assert second.adjusted == pytest.approx(3 * second.p)


def test_a_contrast_of_arms_without_a_common_seed_has_no_effect() -> None:
    sheet = made_sheet(
        {"a": [made_run("a", 0, "oox")], "b": [made_run("b", 1, "oox")]}, [("a", "b")]
    )

    assert [None] == effects_of(sheet, "worse")


def test_in_a_worst_of_column_an_image_survives_if_it_survives_in_all_parts() -> None:
    sheet = made_sheet({"a": [made_run("a", 0, "ooxx-", "oxox-")]})
    row = sheet.rows[0]

    assert "oxxx-" == verdicts_of(sheet, row, row.runs[0], "worse")


def test_evaluations_that_disagree_on_clean_verdicts_are_refused() -> None:
    sheet = made_sheet({"a": [made_run("a", 0, "oo-", "oox")]})

    with pytest.raises(SatbenchError, match="disagree on which images are wrong when clean"):
        verdicts_of(sheet, sheet.rows[0], sheet.rows[0].runs[0], "worse")


def test_arms_on_different_images_are_not_compared() -> None:
    other = made_run("b", 0, "oox")
    outcomes = (replace(other.outcomes[0], data_digest="others"), *other.outcomes[1:])
    sheet = made_sheet(
        {"a": [made_run("a", 0, "oox")], "b": [replace(other, outcomes=outcomes)]}, [("a", "b")]
    )

    with pytest.raises(SatbenchError, match="expected a and b on the same images"):
        effects_of(sheet, "PGD-50")


def test_arms_at_two_resolutions_of_the_same_images_are_compared() -> None:
    large = replace(made_outcome(COLUMNS[0].suite, "ooo", "large"), dataset="shapes@20")
    sheet = made_sheet({"a": [made_run("a", 0, "oox")], "b": []}, [("b", "a")])
    row = ArmRuns("b", "20 px", (made_run("b", 0, "oox", outcomes=(large,)),), 3, "shapes@20")

    (effect,) = effects_of(replace(sheet, rows=(sheet.rows[0], row)), "PGD-50")

    assert 1 / 3 == pytest.approx(effect.mean)


def test_a_run_without_an_evaluation_is_left_out_of_that_column_only() -> None:
    run = made_run("a", 1, "ooxx")
    half = replace(run, outcomes=run.outcomes[:1])
    sheet = made_sheet({"a": [made_run("a", 0, "oxx-"), half]})
    row = sheet.rows[0]

    found = [accuracies(sheet, row, name) for name in ("PGD-50", "fast", "worse")]

    assert [{0: 0.25, 1: 0.5}, {0: 0.25}, {0: 0.25}] == found
    assert {0: 0.75, 1: 1.0} == clean_accuracies(sheet, row)


def test_the_gap_is_the_accuracy_under_the_papers_evaluation_minus_the_verdict() -> None:
    runs = [made_run("a", 0, "ooxx", "oxxx"), made_run("a", 1, "ooox", "oxxx")]
    sheet = made_sheet({"a": runs})
    expected = two_way_effect(np.array([[0.0, 1, 0, 0], [0, 1, 1, 0]]))

    assert expected == gap_of(sheet, sheet.rows[0])


def test_a_finding_holds_the_differences_by_verdict_by_the_papers_evaluation_and_clean() -> None:
    arms = {
        "a": [made_run("a", 0, "ooox", "oxxx"), made_run("a", 1, "oo--", "oo--")],
        "b": [made_run("b", 0, "ooxx"), made_run("b", 1, "ox--")],
    }
    (found,) = findings_of(made_sheet(arms, [("a", "b")]))

    assert (0.0, 0.25, 0.0) == (found.robust.mean, found.paper.mean, found.clean.mean)


def _pool(*arms: str) -> Pool:
    return Pool("together", "relu", tuple(Pair(arm, "relu") for arm in arms))


def test_a_pool_averages_its_pairs_by_image_and_seed() -> None:
    # silu − relu: 0 1 0 0 and 0 0 1 1; gelu − relu: 0 1 0 0 and −1 0 1 0.  The means over both:
    # 0 1 0 0 and −1/2 0 1 1/2.  The row means are 1/4 and 1/4, so V_seed is 0.  The column means
    # −1/4, 1/2, 1/2 and 1/4 have squares about 1/4 that sum to 3/8: V_image = (3/8) / 3 / 4.
    arms = _arms(relu=["xxoo", "oxxx"], silu=["xooo", "oxoo"], gelu=["xooo", "xxox"])

    effect = pooled_effect(made_sheet(arms), _pool("silu", "gelu"), "PGD-50")

    half = T1 * sqrt((3 / 8) / 3 / 4)
    assert (0.25, 2) == (effect.mean, effect.seeds)
    assert (0.25 - half, 0.25 + half) == pytest.approx(effect.interval, rel=1e-6)


@pytest.mark.parametrize("column", ["PGD-50", "worse"])
def test_a_pool_of_one_pair_has_the_effect_of_the_pair(column: str) -> None:
    arms = _arms(relu=["oxxx", "ooxx", "xxxx"], silu=["ooox", "ooxo", "oxxx"])
    sheet = made_sheet(arms, [("silu", "relu")])

    assert effects_of(sheet, column) == [
        replace(pooled := pooled_effect(sheet, _pool("silu"), column), adjusted=pooled.p)
    ]


def test_a_pool_uses_only_seeds_that_all_its_pairs_have() -> None:
    arms = _arms(
        relu=["xxxx"] * 3, silu=["ooxx", "oooo", "oooo"], gelu=["oooo"] * 3, elu=["ooxx"] * 3
    )
    bare = replace(arms["gelu"][1], outcomes=arms["gelu"][1].outcomes[:1])
    arms["gelu"] = [arms["gelu"][0], bare]
    sheet = made_sheet(arms)
    pool = _pool("silu", "gelu", "elu")
    pgd, worse = (pooled_effect(sheet, pool, name) for name in ("PGD-50", "worse"))

    assert (0.75, 2 / 3) == pytest.approx((pgd.mean, worse.mean))
    assert (2, 1) == (pgd.seeds, worse.seeds)


def test_a_pool_without_a_common_seed_has_no_effect() -> None:
    arms = _arms(relu=["xxxx"] * 2, silu=["ooxx"])
    arms["gelu"] = [made_run("gelu", 1, "oooo")]

    assert pooled_effect(made_sheet(arms), _pool("silu", "gelu"), "PGD-50") is None


def test_the_pairs_of_a_pool_must_use_the_same_images() -> None:
    arms = _arms(a=["oox"], b=["oxx"])
    for name in "cd":
        run = made_run(name, 0, "oox")
        outcomes = tuple(replace(one, data_digest="others") for one in run.outcomes)
        arms[name] = [replace(run, outcomes=outcomes)]
    pool = Pool("p", "each", (Pair("a", "b"), Pair("c", "d")))

    with pytest.raises(SatbenchError, match="expected a and b and c and d on the same images"):
        pooled_effect(made_sheet(arms), pool, "PGD-50")


def test_the_primary_question_has_three_differences_without_adjusted_p() -> None:
    arms = {
        "relu": [made_run("relu", s, "oxx-", "xxx-") for s in (0, 1)],
        "silu": [made_run("silu", 0, "ooo-", "oxx-"), made_run("silu", 1, "ooxx", "oxxx")],
    }

    found = primary_of(made_sheet(arms, primary=_pool("silu")))

    assert (0.25, 0.375, 0.125) == (found.robust.mean, found.paper.mean, found.clean.mean)
    assert (None, None, None) == tuple(
        one.adjusted for one in (found.robust, found.paper, found.clean)
    )


def test_the_primary_question_does_not_change_the_correction_of_the_contrasts() -> None:
    arms = _arms(relu=["oxxx", "ooxx"], silu=["ooox", "ooxo"], gelu=["oxox", "oooo"])
    sheet = made_sheet(arms, [("silu", "relu"), ("gelu", "relu")])

    assert findings_of(sheet) == findings_of(with_study(sheet, primary=_pool("silu", "gelu")))


def test_a_sheet_without_a_primary_question_has_no_primary_finding() -> None:
    assert primary_of(made_sheet(_arms(relu=["ox"]))) is None


@pytest.mark.parametrize("arms", [(), ("silu", "silu")])
def test_a_pool_without_pairs_or_with_a_repeated_pair_is_refused(arms: tuple[str, ...]) -> None:
    with pytest.raises(SatbenchError, match="'together' one or more pairs, each once"):
        _pool(*arms)


def test_a_measure_is_compared_by_a_paired_t_test_over_seeds() -> None:
    values = {"a": (3.0, 5.0, 9.0), "b": (1.0, 2.0)}
    arms = {
        name: [made_run(name, s, "oox", measures={"m": value}) for s, value in enumerate(numbers)]
        for name, numbers in values.items()
    }
    effect = measure_difference(made_sheet(arms), Pair("a", "b"), "m")

    half = T1 * sqrt(0.5) / sqrt(2)  # for the differences 2 and 3
    assert (2.5, 2) == (effect.mean, effect.seeds)
    assert (2.5 - half, 2.5 + half) == pytest.approx(effect.interval, rel=1e-6)


def test_spread_gives_the_mean_and_the_deviation_with_n_minus_1() -> None:
    assert [None, Spread(2.0, None, 1), Spread(2.0, sqrt(2), 2)] == [
        spread(values) for values in ([], [2.0], [1.0, 3.0])
    ]


def test_a_collapsed_run_is_named_with_its_reason_and_kept() -> None:
    runs = [
        made_run("a", 0, letters(6, 4)),
        made_run("a", 1, letters(1, 9)),
        made_run("a", 2, letters(5, 5), notes=("the loss was at chance level", FELL)),
        made_run("a", 3, letters(3, 7)),  # 20 points below the median: not far enough
        made_run("a", 4, letters(5, 5)),
    ]
    sheet = made_sheet({"a": runs})

    found = [(run.seed, reason) for run, reason in collapsed(sheet, sheet.rows[0])]

    assert [
        (1, "robust accuracy 10.0 %, the median of the arm 50.0 %"),
        (2, FELL),
    ] == found
    assert 5 == len(accuracies(sheet, sheet.rows[0], "worse"))


def test_least_t_is_students_quantile_for_the_first_step_of_holm() -> None:
    # From a t table: 2.776 for 4 degrees of freedom at 0.975; 4.604 at 0.995, for five contrasts.
    assert (2.776, 4.604) == (round(least_t(5, 1), 3), round(least_t(5, 5), 3))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"verdict": "none"}, "expected one of the columns PGD-50, fast, worse; got 'none'"),
        ({"contrasts": (Pair("a", "none"),)}, "expected one of the arms a; got 'none'"),
        ({"masked": ("none",)}, "expected one of the arms a; got 'none'"),
        (
            {"primary": Pool("p", "a", (Pair("none", "a"),))},
            "expected one of the arms a; got 'none'",
        ),
        ({"primary": Pool("a", "a", (Pair("a", "a"),))}, "expected a different name"),
        ({"columns": (*COLUMNS, COLUMNS[0])}, "expected columns of different names"),
    ],
)
def test_a_sheet_with_unknown_or_repeated_names_is_refused(changes, match) -> None:
    with pytest.raises(SatbenchError, match=match):
        made_sheet({"a": [made_run("a", 0, "oox")]}, **changes)


def test_the_made_up_columns_and_runs_have_the_same_suites() -> None:
    assert FAST == made_run("a", 0, "oox").outcomes[1].suite


def test_collapses_are_counted_by_arm_and_compared_exactly_in_a_registered_study() -> None:
    def arm(name: str, collapses: int, runs: int = 5) -> list[StudyRun]:
        return [
            made_run(name, seed, letters(6, 4), notes=(FELL,) if seed < collapses else ())
            for seed in range(runs)
        ]

    arms = {"silu": arm("silu", 0), "elu": arm("elu", 1), "relu": arm("relu", 4)}
    pool = Pool("smooth", "relu", (Pair("silu", "relu"), Pair("elu", "relu")))
    sheet = made_sheet({**arms, "later": []}, [("silu", "relu")], primary=pool)
    registered = replace(sheet, study=replace(sheet.study, registered=True))
    found = collapse_of(registered)

    assert collapse_of(sheet) is None
    assert found
    assert (1, 10, 4, 5) == (
        *(found.collapsed, found.runs),
        *(found.baseline_collapsed, found.baseline_runs),
    )
    # Of the 3,003 ways to place 5 collapses in 15 runs, 4 or 5 of them in the last 5: 51.
    assert 51 / 3003 == pytest.approx(found.p)
    assert (("silu", 0, 5), ("elu", 1, 5), ("relu", 4, 5)) == found.by_arm
