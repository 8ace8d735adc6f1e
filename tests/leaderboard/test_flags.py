from __future__ import annotations

from collections.abc import Sequence

import pytest

from satbench.core.errors import SatbenchError
from satbench.leaderboard.flags import Flag, Kind, flags_from_result


def found(verdicts: Sequence[int], *kinds: Kind) -> list[tuple[str, int, int]]:
    return [(flag.name, flag.images, flag.of) for flag in flags_from_result(verdicts, kinds)]


def test_square_breaking_what_white_box_left_is_a_flag() -> None:
    verdicts = [0, 1, 2, 2, -1]

    assert found(verdicts, "white-box", "gradient-free") == [
        ("gradient-free-beats-gradients", 2, 4)
    ]


def test_transfer_breaking_what_white_box_left_is_a_flag() -> None:
    assert found([1, 2, -1], "white-box", "transfer") == [("transfer-beats-white-box", 1, 3)]


def test_white_box_breaking_what_square_left_is_no_flag() -> None:
    assert found([1, 1, 2, -1], "gradient-free", "white-box") == []


def test_square_alone_is_no_flag() -> None:
    assert found([1, 1, -1], "gradient-free") == []


def test_white_box_alone_is_no_flag() -> None:
    assert found([1, 2, -1], "white-box", "white-box") == []


def test_only_the_stages_after_a_white_box_one_are_counted() -> None:
    verdicts = [1, 1, 2, 3, -1]

    assert found(verdicts, "gradient-free", "white-box", "gradient-free") == [
        ("gradient-free-beats-gradients", 1, 5)
    ]


def test_both_flags_are_found_at_once_and_add_up_their_stages() -> None:
    verdicts = [2, 3, 3, 4, -1]

    assert found(verdicts, "white-box", "gradient-free", "transfer", "gradient-free") == [
        ("gradient-free-beats-gradients", 2, 5),
        ("transfer-beats-white-box", 2, 5),
    ]


@pytest.mark.parametrize(("broken", "flags"), [(1, 0), (2, 0), (3, 1)])
def test_up_to_a_fifth_of_a_point_of_all_images_is_no_flag(broken: int, flags: int) -> None:
    verdicts = [2] * broken + [0] * 100 + [-1] * (900 - broken)

    assert len(found(verdicts, "white-box", "gradient-free")) == flags


def test_a_record_without_images_has_no_flag() -> None:
    assert found([], "white-box", "gradient-free") == []


@pytest.mark.parametrize("verdict", [-2, 3])
def test_a_verdict_that_names_no_stage_is_refused(verdict: int) -> None:
    with pytest.raises(SatbenchError, match=rf"of -1 to 2 for 2 stages, got \[{verdict}\]"):
        flags_from_result([verdict], ["white-box", "gradient-free"])


def test_a_flag_reads_as_one_line() -> None:
    flag = Flag("zero-gradient", 3, 20, "the pixels are rounded", "run square")

    assert str(flag) == "zero-gradient (3 of 20 images): the pixels are rounded; run square"
