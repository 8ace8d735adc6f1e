"""Kinds of tampering with a shipped record: one function each, in groups by the cheat's aim.

A cheat is careful: except in `raw` kinds, the digest of the witnesses and the identity match the
change.  `satbench verify` or the board finds the kinds in `CAUGHT` without an attack.  They do not
find those in `TRUSTED`, and docs/trust.md says so.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satbench.records.record import identity_of, inputs_of, parse_record
from satbench.records.witnesses import Witnesses, witnesses_path, write_witnesses

Values = dict[str, Any]


@dataclass
class Forged:
    """A record as JSON values, its witnesses, and the clean images; to be changed in place."""

    values: Values
    witnesses: Witnesses
    clean: np.ndarray
    raw: bool = False
    is_written: bool = True

    def write(self, path: Path) -> None:
        """Write record and witnesses, sealed again unless `raw`."""
        import json

        if not self.raw:
            self.values["witnesses_digest"] = self.witnesses.digest
            try:
                record = parse_record(json.dumps(self.values), "a test")
                self.values["identity"] = identity_of(inputs_of(record))
            except ValueError:
                pass
        path.write_text(json.dumps(self.values))
        if self.is_written:
            write_witnesses(self.witnesses, witnesses_path(path))

    def place(self, verdict: int) -> int:
        """Return the first image with a verdict."""
        found: int = self.values["verdicts"].index(verdict)
        return found

    def judge(self, index: int, verdict: int) -> None:
        """Give an image another verdict, and adjust all sums."""
        self.values["verdicts"][index] = verdict
        self.add_up()

    def add_up(self) -> None:
        verdicts = self.values["verdicts"]
        left = sum(one != 0 for one in verdicts)
        for number, stage in enumerate(self.values["stages"], 1):
            stage["attacked"], stage["broken"] = left, verdicts.count(number)
            left -= stage["broken"]

    def paint(self, row: int, image: np.ndarray) -> None:
        images = self.witnesses.images.copy()
        images[row] = image
        self.witnesses = Witnesses(self.witnesses.indices, images)

    def push(self, by: float) -> None:
        """Move a pixel of the first witness out of the ball."""
        image = self.witnesses.images[0].copy()
        clean = self.clean[self.witnesses.indices[0]]
        up = clean < 0.5
        at = tuple(np.argwhere(up)[0])
        image[at] = clean[at] + np.float32(0.1) + np.float32(by)
        self.paint(0, image)

    def drop(self, keep: np.ndarray) -> None:
        self.witnesses = Witnesses(self.witnesses.indices[keep], self.witnesses.images[keep])


Kind = Callable[[Forged], None]
CAUGHT: dict[str, Kind] = {}
TRUSTED: dict[str, Kind] = {}


def caught(kind: Kind) -> Kind:
    CAUGHT[kind.__name__] = kind
    return kind


def trusted(kind: Kind) -> Kind:
    TRUSTED[kind.__name__] = kind
    return kind


def _stage(forged: Forged, part: str) -> Values:
    found: Values = next(one for one in forged.values["stages"] if one["part"] == part)
    return found


# Verdicts and witnesses


@caught
def a_broken_image_survives(f: Forged) -> None:
    f.judge(f.place(1), -1)


@caught
def a_survivor_is_broken(f: Forged) -> None:
    f.judge(f.place(-1), 1)


@caught
def a_wrong_image_is_right(f: Forged) -> None:
    f.judge(f.place(0), -1)


@caught
def a_right_image_is_wrong(f: Forged) -> None:
    f.judge(f.place(-1), 0)


@caught
def a_verdict_is_changed_and_nothing_else(f: Forged) -> None:
    f.values["verdicts"][f.place(1)] = -1


@caught
def a_verdict_names_no_stage(f: Forged) -> None:
    f.values["verdicts"][f.place(-1)] = 99


@caught
def a_verdict_is_left_out(f: Forged) -> None:
    f.values["verdicts"].pop()


@caught
def a_witness_is_out_by_a_thousandth(f: Forged) -> None:
    f.push(1e-3)


@caught
def a_witness_is_out_by_a_ten_thousandth(f: Forged) -> None:
    f.push(1e-4)


@caught
def a_witness_is_out_by_two_millionths(f: Forged) -> None:
    f.push(2e-6)


@caught
def a_witness_is_not_a_number(f: Forged) -> None:
    f.paint(0, np.full_like(f.witnesses.images[0], np.nan))


@caught
def a_witness_has_negative_pixels(f: Forged) -> None:
    f.paint(0, f.clean[f.witnesses.indices[0]] - np.float32(0.05))


@caught
def a_witness_is_the_clean_image(f: Forged) -> None:
    f.paint(0, f.clean[f.witnesses.indices[0]])


@caught
def witnesses_are_swapped(f: Forged) -> None:
    first, second = f.witnesses.images[0].copy(), f.witnesses.images[1].copy()
    f.paint(0, second)
    f.paint(1, first)


@caught
def a_witness_is_there_twice(f: Forged) -> None:
    f.paint(1, f.witnesses.images[0])


@caught
def a_witness_has_another_place(f: Forged) -> None:
    indices = f.witnesses.indices.copy()
    indices[0] = f.place(-1)
    f.witnesses = Witnesses(np.sort(indices), f.witnesses.images)


@caught
def witnesses_are_out_of_order(f: Forged) -> None:
    f.witnesses = Witnesses(f.witnesses.indices[::-1].copy(), f.witnesses.images[::-1].copy())


@caught
def a_witness_is_missing(f: Forged) -> None:
    f.drop(np.arange(len(f.witnesses.indices)) > 0)


@caught
def the_file_of_witnesses_is_missing(f: Forged) -> None:
    f.is_written = False


@caught
def the_digest_of_the_witnesses_is_another(f: Forged) -> None:
    f.values["witnesses_digest"], f.raw = "0" * 64, True


@caught
def a_broken_image_is_hidden_with_its_witness_but_not_the_digest(f: Forged) -> None:
    index = f.place(1)
    f.judge(index, -1)
    f.drop(f.witnesses.indices != index)
    f.raw = True


# The threat model


@caught
def eps_is_raised(f: Forged) -> None:
    f.values["eps"] = "0.2"


@caught
def eps_is_raised_by_little(f: Forged) -> None:
    f.values["eps"] = "0.105"


@caught
def eps_is_lowered(f: Forged) -> None:
    f.values["eps"] = "0.05"


@caught
def eps_is_written_otherwise(f: Forged) -> None:
    f.values["eps"] = "0.10"


@caught
def the_norm_is_changed(f: Forged) -> None:
    f.values |= {"norm": "l2", "eps": "3"}


@caught
def an_input_is_changed_and_not_the_identity(f: Forged) -> None:
    f.values["seed"], f.raw = 7, True


# The suite and its stages


@caught
def steps_are_inflated(f: Forged) -> None:
    spec = f.values["suite"][0].replace("steps=50", "steps=500")
    f.values["suite"][0] = f.values["stages"][0]["attack"] = spec


@caught
def an_attack_is_named_that_does_not_exist(f: Forged) -> None:
    spec = "super-attack(steps=1000000)"
    f.values["suite"][0] = f.values["stages"][0]["attack"] = spec


@caught
def an_attack_has_a_parameter_that_does_not_exist(f: Forged) -> None:
    spec = f.values["suite"][0].replace("steps=50", "steps=50,power=9")
    f.values["suite"][0] = f.values["stages"][0]["attack"] = spec


@caught
def a_part_of_a_suite_is_left_out(f: Forged) -> None:
    gone = [k for k, verdict in enumerate(f.values["verdicts"]) if verdict == 5]
    for index in gone:
        f.values["verdicts"][index] = -1
    f.drop(~np.isin(f.witnesses.indices, gone))
    f.values["stages"].pop()
    f.values["environment"]["stage_seconds"].pop()


@caught
def an_attack_is_added_to_the_suite_only(f: Forged) -> None:
    f.values["suite"].append("pgd(steps=100,step=eps/4,restarts=1,start=uniform,keep=any)")


@caught
def an_attack_is_added_that_cost_nothing(f: Forged) -> None:
    spec = "pgd(steps=100,step=eps/4,restarts=1,start=uniform,keep=any)"
    f.values["suite"].append(spec)
    last = {**f.values["stages"][-1], "attack": spec, "part": "", "forwards": 0, "backwards": 0}
    f.values["stages"].append(last)
    f.values["environment"]["stage_seconds"].append(0.0)
    f.add_up()


@caught
def square_passes_images_over(f: Forged) -> None:
    stage = _stage(f, "square")
    stage["passed_over"], stage["attacked"] = 100, stage["attacked"] - 100


@caught
def passes_are_a_tenth(f: Forged) -> None:
    for stage in f.values["stages"]:
        stage["forwards"] //= 10
        stage["backwards"] //= 10


@caught
def passes_are_none(f: Forged) -> None:
    for stage in f.values["stages"]:
        stage["forwards"] = stage["backwards"] = 0


@caught
def passes_are_absurd(f: Forged) -> None:
    f.values["stages"][0]["forwards"] = 10**30


@caught
def passes_are_ten_times_as_many(f: Forged) -> None:
    f.values["stages"][0]["backwards"] *= 10


@caught
def a_stage_attacked_more(f: Forged) -> None:
    f.values["stages"][0]["attacked"] += 1


@caught
def a_stage_broke_less(f: Forged) -> None:
    f.values["stages"][0]["broken"] -= 1


@caught
def a_suite_file_is_another(f: Forged) -> None:
    f.values["suites"] = {"autoattack": "0" * 64}


@caught
def a_suite_file_is_named_that_was_not_run(f: Forged) -> None:
    f.values["suites"] = {"none-such": "0" * 64}


# The diagnosis


@caught
def flags_are_removed(f: Forged) -> None:
    assert f.values["diagnosis"]["flags"]
    f.values["diagnosis"]["flags"] = []


@caught
def a_flag_is_belittled(f: Forged) -> None:
    f.values["diagnosis"]["flags"][0]["images"] = 1


@caught
def a_flag_is_invented(f: Forged) -> None:
    flag = {"name": "zero-gradient", "images": 500, "of": 500, "cause": "c", "run": "r"}
    f.values["diagnosis"]["flags"].append(flag)


@caught
def the_diagnosis_is_removed(f: Forged) -> None:
    f.values["diagnosis"] = None


# The model and the images


@caught
def the_weights_are_others(f: Forged) -> None:
    f.values["model"]["weights_digest"] = "0" * 64


@caught
def the_name_is_another_models(f: Forged) -> None:
    f.values["model"]["name"] = "fmnist-sat-tiny-relu-s2"


@caught
def the_name_is_an_invented_one(f: Forged) -> None:
    f.values["model"]["name"] = "super-robust"


@caught
def the_parameters_are_fewer(f: Forged) -> None:
    f.values["model"]["parameters"] //= 2


@caught
def the_parameters_of_a_file_are_fewer(f: Forged) -> None:
    f.values["model"] |= {"source": "file", "parameters": 1}


@caught
def the_recipe_is_another(f: Forged) -> None:
    f.values["model"]["training"]["recipe"] = "standard"


@caught
def the_activation_is_another(f: Forged) -> None:
    f.values["model"]["activation"] = "silu"


@caught
def answers_are_invented(f: Forged) -> None:
    f.values["model"]["answers_digest"] = "1" * 64


@caught
def a_replacement_is_of_no_layer(f: Forged) -> None:
    f.values["replacements"] = {"none.such": "identity"}


@caught
def a_source_is_invented(f: Forged) -> None:
    f.values["sources"] = {"none-such": "0" * 64}


@caught
def the_weights_of_a_source_are_others(f: Forged) -> None:
    f.values["sources"] = {"fmnist-standard-tiny-relu-s100": "0" * 64}


@caught
def there_are_more_images(f: Forged) -> None:
    f.values["dataset"]["n"] += 1


@caught
def the_images_are_others(f: Forged) -> None:
    f.values["dataset"]["digest"] = "0" * 64


@caught
def the_classes_are_fewer(f: Forged) -> None:
    f.values["dataset"]["classes"] = 9


@caught
def the_split_is_that_of_training(f: Forged) -> None:
    f.values["dataset"]["split"] = "train"


@caught
def the_split_is_none(f: Forged) -> None:
    f.values["dataset"]["split"] = "x"


@caught
def the_images_have_another_name(f: Forged) -> None:
    f.values["dataset"]["name"] = "fashion-mnist@28"


@caught
def a_sequence_is_invented(f: Forged) -> None:
    f.values["sequential"] = {"width": 0.01, "low": 0.9, "high": 0.91}


# Author, time, environment


@caught
def somebody_is_credited_with_the_evaluation(f: Forged) -> None:
    f.values["stages"][0]["by"] = "a famous group"


@caught
def a_stage_says_it_had_another_seed(f: Forged) -> None:
    f.values["stages"][0]["seed"] = 5


@caught
def a_stage_says_it_comes_from_elsewhere(f: Forged) -> None:
    f.values["stages"][0]["origin"] = "elsewhere"


@caught
def the_protocol_is_lowered(f: Forged) -> None:
    f.values["protocol"] = 1


@caught
def the_schema_is_lowered(f: Forged) -> None:
    f.values["schema"] = 1


@caught
def protocol_and_schema_are_lowered(f: Forged) -> None:
    f.values |= {"protocol": 1, "schema": 1, "diagnosis": None}


@caught
def the_protocol_is_to_come(f: Forged) -> None:
    f.values["protocol"] = 99


@caught
def a_field_is_added(f: Forged) -> None:
    f.values["certified"] = True


@caught
def it_was_finished_in_1999(f: Forged) -> None:
    f.values["environment"]["finished"] = "1999-12-31T23:59:59+00:00"


@caught
def it_was_finished_at_no_time(f: Forged) -> None:
    f.values["environment"]["finished"] = "just now"


@caught
def it_was_finished_in_the_future(f: Forged) -> None:
    f.values["environment"]["finished"] = "9999-01-01T00:00:00+00:00"


@caught
def times_are_negative(f: Forged) -> None:
    f.values["environment"]["clean_seconds"] = -1.0


@caught
def there_were_no_threads(f: Forged) -> None:
    f.values["environment"]["threads"] = 0


@caught
def a_version_is_a_sentence(f: Forged) -> None:
    f.values["environment"]["satbench"] = "verified by the authors"


# Kinds that only a new attack can find, or nothing


@trusted
def all_witnesses_are_hidden(f: Forged) -> None:
    f.values["verdicts"] = [min(one, 0) if one == 0 else -1 for one in f.values["verdicts"]]
    f.add_up()
    for stage, name in ((one, n) for one in f.values["stages"] for n in ("forwards", "backwards")):
        stage[name] = _matching(f, stage, name)
    f.drop(np.zeros(len(f.witnesses.indices), bool))
    f.values["diagnosis"]["flags"] = []


@trusted
def what_autoattack_broke_is_hidden(f: Forged) -> None:
    gone = [k for k, verdict in enumerate(f.values["verdicts"]) if verdict > 1]
    for index in gone:
        f.values["verdicts"][index] = -1
    f.add_up()
    f.drop(~np.isin(f.witnesses.indices, gone))
    f.values["diagnosis"]["flags"] = []


@trusted
def steps_and_passes_are_inflated_together(f: Forged) -> None:
    steps_are_inflated(f)
    for name in ("forwards", "backwards"):
        f.values["stages"][0][name] *= 10


@trusted
def the_seed_is_another(f: Forged) -> None:
    f.values["seed"] = 7


@trusted
def a_break_is_credited_to_another_stage(f: Forged) -> None:
    f.judge(f.place(2), 1)


@trusted
def a_replacement_is_invented_on_a_layer_that_is_there(f: Forged) -> None:
    f.values["replacements"] = {"2": "identity"}


@trusted
def the_environment_is_another_likely_one(f: Forged) -> None:
    f.values["environment"] |= {"device": "NVIDIA H100", "torch": "2.9.1"}


@trusted
def it_pretends_to_be_of_the_first_day(f: Forged) -> None:
    protocol_and_schema_are_lowered(f)
    f.values["environment"]["finished"] = "2026-11-24T01:00:00+00:00"


@trusted
def passes_are_a_fifth_fewer(f: Forged) -> None:
    for stage in f.values["stages"]:
        stage["forwards"] = stage["forwards"] * 4 // 5


def _matching(forged: Forged, stage: Values, name: str) -> int:
    """Return the number of passes of the stage if no image were broken."""
    each = {"": 50, "apgd-ce": 101, "apgd-t": 905, "fab-t": 900, "square": 0}[stage["part"]]
    if name == "forwards":
        each = {"fab-t": 1800, "square": 5003}.get(stage["part"], each)
    total: int = each * stage["attacked"]
    return total


def copy_of(original: Forged) -> Forged:
    """Return a copy that may be changed."""
    return deepcopy(original)
