"""A user's own data on the command line and in Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

import satbench
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.data import Dataset, completed, dataset_name, load_dataset
from satbench.evaluation.config import eval_config
from satbench.evaluation.surrogates import NamedSurrogates
from satbench.records.record import Record, read_record

SHIPPED = "fmnist-sat-tiny-relu-s0"
N = 20

Run = Callable[..., Result]


@pytest.fixture
def few(fashion: Dataset, tmp_path: Path) -> Path:
    """Write the first images of Fashion-MNIST as arrays."""
    np.savez(tmp_path / "few.npz", images=fashion.images[:N], labels=fashion.labels[:N])
    return tmp_path / "few.npz"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a command, its results in a folder of their own."""

    def run(*words: object) -> Result:
        out = ["--out", str(tmp_path / "out"), "--quiet"]
        return CliRunner().invoke(cli, [*map(str, words), *out])

    return run


def record_of(done: Result) -> Record:
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)
    return read_record(Path(told["record"]))


def evaluated(run: Run, *words: object) -> Record:
    short = ("--eps", "0.1", "--norm", "linf", "--attack", "pgd-2", "--json")
    return record_of(run("eval", *words, *short))


def test_a_file_and_a_named_set_of_the_same_images_give_the_same_verdicts(
    run: Run, few: Path
) -> None:
    own = evaluated(run, "--model", SHIPPED, "--data", few)
    named = evaluated(run, "--model", SHIPPED, "--dataset", "fashion-mnist", "--n-examples", N)

    assert (own.dataset.name, own.dataset.split, own.n) == ("few", "user", N)
    assert own.dataset.digest == named.dataset.digest
    assert own.verdicts == named.verdicts


def test_a_file_may_be_given_a_name_and_a_class_count(run: Run, few: Path) -> None:
    named = ("--data-name", "my images", "--classes", "10")
    own = evaluated(run, "--model", SHIPPED, "--data", few, *named, "--n-examples", "5")

    assert (own.dataset.name, own.n, own.dataset.classes) == ("my images", 5, 10)


def test_a_given_class_count_must_equal_that_of_the_model(run: Run, few: Path) -> None:
    done = run("eval", "--model", SHIPPED, "--data", few, "--classes", "11", "--eps", "0.1")

    assert "wrong number of classes: expected 11 logits per image for few" in str(done.exception)


def test_a_file_named_like_a_data_set_is_not_taken_for_it(run: Run, few: Path) -> None:
    own = evaluated(run, "--model", SHIPPED, "--data", few.rename(few.parent / "cifar10.npz"))

    assert own.dataset.name == "cifar10.npz"


@pytest.mark.slow
def test_a_curve_is_measured_on_a_file(run: Run, few: Path) -> None:
    words = ("--data", few, "--n-examples", "3", "--attack", "foolbox.fmn(steps=3)", "--json")
    done = run("curve", "--model", SHIPPED, *words)

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[0]["dataset"] == "few"


@pytest.mark.slow
def test_a_transfer_matrix_is_measured_on_a_file(run: Run, few: Path) -> None:
    models = ("--source", SHIPPED, "--target", "fmnist-sat-tiny-silu-s0")
    done = run("transfer", *models, "--data", few, "--attack", "transfer(steps=1)", "--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["dataset"] == "few"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "x.npz", "--dataset", "cifar10"), "give --dataset cifar10 or --data x.npz"),
        (("--data-name", "mine"), "expected --data FILE and a name without commas"),
        (("--data", "x.npz", "--data-name", "a,b"), "expected --data FILE and a name without"),
        (("--data", "x.npz", "--data-name", ""), "expected --data FILE and a name without"),
        (("--data", "x.npz", "--data-name", "cifar10"), "expected a name of its own for x.npz"),
        (("--data", "x.npz", "--data-name", "cifar10@20"), "expected a name of its own"),
        (("--data", "x.npz"), "expected data at x.npz, which is missing"),
        (("--data", ""), "expected the dataset as arrays:PATH"),
        (("--data", "x.csv"), "expected data as FILE.npz, FILE.pt or X.npy,Y.npy"),
        (("--data", "x.npz", "--classes", "ten"), "expected the classes as"),
        (("--classes", "10"), "--classes numbers the classes of --data FILE and of --dataset im"),
        (("--dataset", "cifar10", "--classes", "10"), "--classes numbers .*got --dataset cifar10"),
        (("--dataset", "imagefolder:x@classes=3", "--classes", "3"), "classes is given twice"),
        (("--dataset", "imagefolder:x@none", "--data-name", "y"), "expected --data FILE and"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "curve"])
def test_options_that_contradict_each_other_are_refused_in_one_sentence(
    command: str, words: tuple[str, ...], said: str, run: Run, tmp_path: Path
) -> None:
    done = run(command, "--model", SHIPPED, *words)

    assert isinstance(done.exception, SatbenchError)
    assert said.split(".*")[-1] in str(done.exception)
    assert list(tmp_path.rglob("*.json")) == []


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ((None,), None),
        (("cifar10",), "cifar10"),
        ((None, "a.npz"), "arrays:a.npz"),
        ((None, "x.npy,y.npy", "mine", "10"), "arrays:x.npy,y.npy@name=mine,classes=10"),
        (("imagefolder:val", None, None, "m.json"), "imagefolder:val@classes=m.json"),
        (
            ("imagefolder:val@none", None, None, "imagenet"),
            "imagefolder:val@none,classes=imagenet",
        ),
    ],
)
def test_the_data_options_become_one_data_set_name(
    given: tuple[Any, ...], name: str | None
) -> None:
    assert dataset_name(*given) == name


# A model, and the pixel rule and classes of its training

RULE = "resize=40,crop=32,interpolation=bicubic"
EIGHT = "resize=8x8,interpolation=bilinear"


@pytest.mark.parametrize(
    ("dataset", "trained_on", "classes", "expected"),
    [
        ("imagefolder:v", f"imagefolder:t@{RULE}", 1000, f"imagefolder:v@{RULE}"),
        ("imagefolder:v", f"imagefolder:t@{RULE}", 10, f"imagefolder:v@{RULE},classes=folders"),
        ("imagefolder:v@none", f"imagefolder:t@{RULE}", 1000, "imagefolder:v@none"),
        (
            "imagefolder:v",
            "imagefolder:t@8,classes=m.json",
            9,
            f"imagefolder:v@{EIGHT},classes=m.json",
        ),
        ("imagefolder:v", "cifar10", 10, "imagefolder:v@classes=folders"),
        ("imagefolder:v@classes=10", "cifar10", 10, "imagefolder:v@classes=10"),
        ("imagefolder:v", None, None, "imagefolder:v"),
        ("cifar10", f"imagefolder:t@{RULE}", 10, "cifar10"),
        ("arrays:a.npz", f"imagefolder:t@{RULE}", 10, "arrays:a.npz"),
    ],
)
def test_a_folder_is_read_by_the_pixel_rule_of_the_models_training_by_default(
    dataset: str, trained_on: str | None, classes: int | None, expected: str
) -> None:
    assert completed(dataset, trained_on, classes) == expected


def thousand() -> nn.Module:
    """Return a net of 1,000 classes that recognises ImageNet's 3 and 7 by their colour."""
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].bias.fill_(-5)
        net[2].bias[[3, 7]] = 0
        net[2].weight[3] = torch.tensor([1.0, 0, 0])
        net[2].weight[7] = torch.tensor([0.0, 0, 1])
    return net


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write red images of ImageNet's class 3 and blue ones of class 7."""
    for name, colour in (("n01491361", (200, 0, 0)), ("n01514668", (0, 0, 200))):
        (tmp_path / "val" / name).mkdir(parents=True)
        for number in range(3):
            picture = Image.new("RGB", (12, 10), colour)
            picture.putpixel((0, 0), (number, number, number))
            picture.save(tmp_path / "val" / name / f"{number}.png")
    return tmp_path / "val"


def test_a_net_of_1000_classes_is_evaluated_on_a_folder_of_two(run: Run, folder: Path) -> None:
    model = ("--model", "test_own_data:thousand")
    record = evaluated(run, *model, "--dataset", f"imagefolder:{folder}@none")

    assert record.dataset.name == "imagefolder:val@none"
    assert (record.dataset.classes, record.clean_correct, record.n) == (1000, 6, 6)


def test_a_class_map_on_the_command_line_numbers_the_folders(run: Run, folder: Path) -> None:
    for old, new in (("n01491361", "shark"), ("n01514668", "cock")):
        (folder / old).rename(folder / new)
    (folder.parent / "map.json").write_text('{"shark": 3, "cock": 7}')
    words = ("--dataset", f"imagefolder:{folder}@8", "--classes", folder.parent / "map.json")
    record = evaluated(run, "--model", "test_own_data:thousand", *words)

    assert (record.clean_correct, record.dataset.classes) == (6, 8)


def test_a_class_count_that_differs_from_the_models_is_refused_with_advice(
    run: Run, folder: Path
) -> None:
    done = run(
        *("eval", "--model", "test_own_data:thousand", "--eps", "0.1"),
        *("--dataset", f"imagefolder:{folder}@none", "--classes", "folders"),
    )

    assert "expected 2 logits per image for imagefolder:val@none, got 1000" in (str(done.exception))
    assert "--classes" in str(done.exception)


def test_python_accepts_the_same_data_set_names(folder: Path, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    record = satbench.evaluate(
        thousand(), f"imagefolder:{folder}@none", attacks=["pgd-1"], eps="0.01", out=out
    )
    own = satbench.evaluate(SHIPPED, f"arrays:{few}@name=mine", attacks=["pgd-1"], out=out)

    assert (record.clean_correct, record.dataset.name) == (6, "imagefolder:val@none")
    assert (own.dataset.name, own.n) == ("mine", N)


def test_an_attack_may_query_the_rest_of_a_folder_of_images(folder: Path, tmp_path: Path) -> None:
    """The other images come from the folder, wherever it is."""
    whole = load_dataset(f"imagefolder:{folder}@none")
    two = load_dataset(f"imagefolder:{folder}@none", n_examples=2)

    np.testing.assert_array_equal(NamedSurrogates(two).pool(3), whole.pixels(np.arange(2, 5)))
    assert len(NamedSurrogates(whole).pool(3)) == 0


# Records


@pytest.fixture
def numbered(folder: Path) -> Path:
    """Rename the classes to their numbers, 3 and 7."""
    for old, new in (("n01491361", "3"), ("n01514668", "7")):
        (folder / old).rename(folder / new)
    return folder


def verified(*words: object) -> Result:
    return CliRunner().invoke(cli, ["verify", *map(str, words), "--quiet"])


@pytest.mark.parametrize(
    "given", ["", "@none", "@none,classes=1000", "@classes=1000"], ids=["", "rule", "both", "count"]
)
def test_a_record_of_a_folder_is_verified_after_the_folder_has_moved(
    given: str, run: Run, numbered: Path, tmp_path: Path
) -> None:
    model = ("--model", "test_own_data:thousand")
    evaluated(run, *model, "--dataset", f"imagefolder:{numbered}@none", "--classes", "1000")
    (path,) = (tmp_path / "out").glob("*.json")
    moved = numbered.rename(tmp_path / "elsewhere")
    done = verified(path, *model, "--dataset", f"imagefolder:{moved}{given}")

    assert done.exit_code == 0, done.output


def test_verify_asks_for_the_folder_of_a_record_with_the_option_to_give(
    run: Run, numbered: Path, tmp_path: Path
) -> None:
    model = ("--model", "test_own_data:thousand")
    evaluated(run, *model, "--dataset", f"imagefolder:{numbered}@none", "--classes", "1000")
    (path,) = (tmp_path / "out").glob("*.json")
    done = verified(path)

    assert "say where imagefolder:val@none,classes=1000 is, --dataset" in str(done.exception)


# Training


def test_a_network_is_trained_on_a_file_with_a_given_name(few: Path, tmp_path: Path) -> None:
    small = ("--recipe", "fmnist-sat", "--arch", "tiny(width=1)", "--epochs", "1", "--quiet")
    sets = ("--set", "batch_size=5", "--set", "held_out=5", "--out", str(tmp_path), "--name", "m")
    data = ("--data", str(few), "--data-name", "mine", "--classes", "10")
    done = CliRunner().invoke(cli, ["train", *small, *sets, *data])

    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "m" / "m.json").read_text())
    assert card["classes"] == 10
    assert card["training"]["dataset"] == f"arrays:{few}@name=mine,classes=10"
    assert card["training"]["data_digest"] == load_dataset(f"arrays:{few}").digest


def test_a_model_trained_on_a_folder_is_evaluated_at_its_size(folder: Path, tmp_path: Path) -> None:
    small = ("--recipe", "standard-cifar10", "--arch", "wide-resnet(depth=10,widen=1)")
    sets = ("crop=10", "batch_size=2", "held_out=2", "schedule=one-cycle", "milestones=")
    words = (*small, *(word for one in sets for word in ("--set", one)), "--epochs", "1")
    trained = ("--dataset", f"imagefolder:{folder}", "--activation", "relu", "--workers", "0")
    done = CliRunner().invoke(
        cli, ["train", *words, *trained, "--quiet", "--out", str(tmp_path), "--name", "m"]
    )
    assert done.exit_code == 0, done.output
    rule = "resize=11,crop=10,interpolation=bicubic"
    card = json.loads((tmp_path / "m" / "m.json").read_text())
    assert card["training"]["dataset"] == f"imagefolder:{folder}@{rule}"

    config = eval_config(str(tmp_path / "m" / "m.json"), dataset=f"imagefolder:{folder}", eps="0.1")
    assert config.dataset == f"imagefolder:{folder}@{rule},classes=folders"
    data = load_dataset(config.dataset)
    assert (data.shape, data.classes) == ((3, 10, 10), 2)


def test_training_data_given_twice_is_refused(few: Path) -> None:
    words = ("--recipe", "fmnist-sat", "--data", str(few), "--set", "dataset=cifar10")
    done = CliRunner().invoke(cli, ["train", *words])

    assert "dataset is given twice" in str(done.exception)
