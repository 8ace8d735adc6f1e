from __future__ import annotations

from collections.abc import Sequence

import pytest

from satbench.core.errors import SatbenchError
from satbench.records.flags import Flag, Kind, flags_from_result


def found(verdicts: Sequence[int], *kinds: Kind) -> list[tuple[str, int, int]]:
    return [(flag.name, flag.images, flag.of) for flag in flags_from_result(verdicts, kinds)]


def test_square_breaking_what_white_box_left_is_a_flag() -> None:
    verdicts = [0, 1, *[2] * 40, *[-1] * 40]

    assert found(verdicts, "white-box", "gradient-free") == [
        ("gradient-free-beats-gradients", 40, 81)
    ]


def test_transfer_breaking_what_white_box_left_is_a_flag() -> None:
    verdicts = [1, *[2] * 40, *[-1] * 40]

    assert found(verdicts, "white-box", "transfer") == [("transfer-beats-white-box", 40, 81)]


def test_white_box_breaking_what_square_left_is_no_flag() -> None:
    assert found([*[1] * 40, 2, *[-1] * 40], "gradient-free", "white-box") == []


def test_square_without_white_box_attacks_is_no_flag() -> None:
    assert found([1] * 40 + [-1] * 40, "gradient-free") == []


def test_white_box_attacks_without_others_are_no_flag() -> None:
    assert found([1, *[2] * 40, *[-1] * 40], "white-box", "white-box") == []


def test_only_the_stages_after_a_white_box_one_are_counted() -> None:
    verdicts = [1, 1, 2, *[3] * 40, *[-1] * 40]

    assert found(verdicts, "gradient-free", "white-box", "gradient-free") == [
        ("gradient-free-beats-gradients", 40, 83)
    ]


def test_both_flags_are_found_at_once_and_add_up_their_stages() -> None:
    verdicts = [2, 3, 3, 4, -1]

    assert found(verdicts, "white-box", "gradient-free", "transfer", "gradient-free") == [
        ("gradient-free-beats-gradients", 2, 5),
        ("transfer-beats-white-box", 2, 5),
    ]


# Half the width of Wilson's interval of 300 of 500 is 21.4 images, of 50 of 100,000 14.0.
@pytest.mark.parametrize(
    ("broken", "survivors", "n", "flags"),
    [(21, 300, 500, 0), (22, 300, 500, 1), (200, 50, 100_000, 0), (201, 50, 100_000, 1)],
)
def test_up_to_the_interval_or_a_fifth_of_a_point_is_no_flag(
    broken: int, survivors: int, n: int, flags: int
) -> None:
    verdicts = [2] * broken + [-1] * survivors + [0] * (n - broken - survivors)

    assert len(found(verdicts, "white-box", "gradient-free")) == flags


def test_a_number_without_survivors_cannot_be_too_high() -> None:
    assert found([1, 2, 2, 2], "white-box", "gradient-free") == []


def test_a_sign_in_a_record_is_counted_however_small() -> None:
    verdicts = [2] * 2 + [-1] * 498
    names = ["gradient-free-beats-gradients", "transfer-beats-white-box"]
    flags = flags_from_result(verdicts, ["white-box", "gradient-free"], also=names)

    assert [(flag.name, flag.images) for flag in flags] == [(names[0], 2)]


def test_a_record_without_images_has_no_flag() -> None:
    assert found([], "white-box", "gradient-free") == []


# Clean accuracy


@pytest.mark.parametrize(
    ("right", "n", "classes", "flagged"),
    [
        # No better than guessing, on enough images to tell a model that works.
        *((0, 5, 10, True), (2, 20, 10, True), (100, 1000, 10, True), (0, 20, 1000, True)),
        *((120, 1000, 10, True), (500, 1000, 2, True), (4, 1000, 1000, True)),
        # Worse than guessing.
        *((0, 1000, 10, True), (30, 1000, 10, True), (10, 100, 2, True)),
        # Better than guessing, even if bad.
        *((130, 1000, 10, False), (560, 1000, 2, False), (9, 1000, 1000, False)),
        *((7, 20, 10, False), (20, 20, 10, False), (20, 20, 2, False)),
        # Too few images to tell.
        *((0, 3, 10, False), (1, 3, 3, False), (2, 4, 2, False), (0, 1, 10, False)),
        *((0, 0, 10, False), (1, 1, 10, False), (3, 3, 2, False)),
        # No guessing.
        *((0, 100, 1, False), (100, 100, 1, False), (0, 100, 0, False)),
    ],
)
def test_a_clean_accuracy_that_guessing_reaches_is_a_flag(
    right: int, n: int, classes: int, flagged: bool
) -> None:
    verdicts = [0] * (n - right) + [-1] * right
    flags = flags_from_result(verdicts, ["white-box"], classes)

    expected = [("clean-at-chance", n - right, n)] if flagged else []
    assert [(flag.name, flag.images, flag.of) for flag in flags] == expected


def test_an_attack_does_not_change_the_clean_accuracy() -> None:
    flags = flags_from_result([1] * 90 + [0] * 10, ["white-box"], 10)

    assert flags == []


@pytest.mark.parametrize("verdict", [-2, 3])
def test_a_verdict_that_names_no_stage_is_refused(verdict: int) -> None:
    with pytest.raises(SatbenchError, match=rf"of -1 to 2 for 2 stages, got \[{verdict}\]"):
        flags_from_result([verdict], ["white-box", "gradient-free"])


def test_a_flag_reads_as_one_line() -> None:
    flag = Flag("zero-gradient", 3, 20, "the pixels are rounded", "run square")

    assert str(flag) == "zero-gradient (3 of 20 images): the pixels are rounded; run square"
