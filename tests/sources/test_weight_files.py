"""The model of a weights file is read, recognised or given; an assumption is always reported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import satbench
from satbench.cli import cli, main
from satbench.core.errors import AssumptionWarning, SatbenchError
from satbench.data import Dataset
from satbench.model_zoo.card import card_within, read_card, weights_path, write_card, zoo_card
from satbench.model_zoo.weights import digest_weights, save_weights
from satbench.models import LoadedModel, load_model, request_model
from satbench.models.user_zoo import add_model
from satbench.networks.build import build_network
from satbench.recipes import TrainConfig
from satbench.records.record import Record
from satbench.training.images.training_set import TrainingSet

SHIPPED = "fmnist-sat-tiny-silu-s0"
COLOUR = "wide-resnet(depth=10,widen=1)"


@pytest.fixture
def shipped_file(tmp_path: Path) -> Path:
    """Return a copy of a shipped model's weights, under another name and without a card."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(weights_path(zoo_card(SHIPPED)).read_bytes())
    return path


def network(spec: str = COLOUR, activation: str = "relu", classes: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(spec, activation, classes).eval()


def without_constants(model: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if not k.startswith("normalize.")}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Return a file of a colour net's weights without the normalisation of pixels."""
    torch.save({"net": without_constants(network())}, tmp_path / "foreign.pth")
    return tmp_path / "foreign.pth"


TINY = "tiny(width=2)"
Images = tuple[Tensor, Tensor]


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    """Return a file of a grey net's weights without the normalisation of pixels."""
    state = network(TINY).state_dict()
    return saved({k: v for k, v in state.items() if not k.startswith("0.")}, tmp_path)


def load(path: Path | str, *said: str, classes: int = 4, **options: Any) -> LoadedModel:
    return load_model(request_model(str(path), *said, **options), classes)


# Known weights


WRAPPED: dict[str, Callable[[Path, Path], Path]] = {
    "safetensors": lambda file, folder: file,
    "no suffix": lambda file, folder: file.rename(folder / "mine"),
    "state dict": lambda file, folder: saved(load_file(file), folder),
    "checkpoint": lambda file, folder: saved({"state_dict": load_file(file), "epoch": 3}, folder),
    "parallel": lambda file, folder: saved(
        {f"module.{name}": tensor for name, tensor in load_file(file).items()}, folder
    ),
}


def saved(thing: object, folder: Path) -> Path:
    torch.save(thing, folder / "mine.pt")
    return folder / "mine.pt"


@pytest.mark.parametrize("way", WRAPPED)
def test_weights_of_a_shipped_model_are_recognised_by_their_digest(
    way: str, shipped_file: Path, tmp_path: Path
) -> None:
    path = WRAPPED[way](shipped_file, tmp_path)
    request = request_model(str(path))
    loaded = load_model(request, 10)

    assert request.dataset == "fashion-mnist"
    assert loaded.info == replace(load(SHIPPED, classes=10).info, source="file")


@pytest.mark.parametrize("way", WRAPPED)
@pytest.mark.parametrize(
    "said", [("tiny", "relu"), ("tiny", "gelu"), ("small", "silu"), ("tiny", "parametric-softplus")]
)
def test_known_weights_are_not_evaluated_as_another_network(
    way: str, said: tuple[str, str], shipped_file: Path, tmp_path: Path
) -> None:
    path = WRAPPED[way](shipped_file, tmp_path)
    expected = (
        rf"the weights of {SHIPPED}, which was trained as tiny\(width=8\) with silu, not with|fit"
    )
    with pytest.raises(SatbenchError, match=expected) as refused:
        load(path, *said, classes=10)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [SHIPPED, "card", "run"])
def test_options_that_contradict_a_card_are_refused(
    name: str, tmp_path: Path, shipped_file: Path
) -> None:
    card = zoo_card(SHIPPED)
    (tmp_path / "run").mkdir()
    write_card(card, tmp_path / "run" / "run.json")
    shipped_file.rename(tmp_path / "run" / card.weights)
    text = {"card": str(tmp_path / "run" / "run.json"), "run": str(tmp_path / "run")}.get(
        name, name
    )

    assert load(text, "tiny(width=8)", "silu", classes=10).info.activation == "silu"
    with pytest.raises(SatbenchError, match=r"trained as .* with silu, not with relu"):
        load(text, activation="relu", classes=10)


@pytest.mark.parametrize("way", WRAPPED)
def test_options_that_agree_with_known_weights_change_nothing(
    way: str, shipped_file: Path, tmp_path: Path
) -> None:
    loaded = load(WRAPPED[way](shipped_file, tmp_path), "tiny", "silu", classes=10)

    assert loaded.info == replace(load(SHIPPED, classes=10).info, source="file")
    assert loaded.card == zoo_card(SHIPPED)


@pytest.mark.parametrize("text", ["runs/none", "./w", "/no/such/w.model"])
def test_a_path_to_a_missing_file_is_not_taken_for_a_name(text: str) -> None:
    with pytest.raises(SatbenchError, match=rf"^expected a model at {text}, found neither"):
        request_model(text)


def test_weights_of_the_users_zoo_are_recognised_too(tmp_path: Path) -> None:
    model = network("tiny(width=2)", "silu", 3)
    save_weights(model, tmp_path / "w.safetensors")
    card = replace(
        zoo_card(SHIPPED),
        name="mine",
        architecture="tiny(width=2)",
        parameters=sum(p.numel() for p in model.parameters()),
        classes=3,
        weights="w.safetensors",
        weights_digest=digest_weights(model),
    )
    write_card(card, tmp_path / "w.json")
    add_model(tmp_path / "w.json")
    (tmp_path / "w.json").unlink()

    assert load(tmp_path / "w.safetensors", classes=3).card == card
    with pytest.raises(SatbenchError, match=r"holds the weights of mine"):
        load(tmp_path / "w.safetensors", "tiny(width=2)", "relu", classes=3)


def test_slightly_changed_weights_are_not_taken_for_known_ones(shipped_file: Path) -> None:
    state = load_file(shipped_file)
    state["1.weight"] = state["1.weight"] + 1e-6
    save_file(state, shipped_file)
    with pytest.raises(SatbenchError, match=r"weights alone do not say"):
        request_model(str(shipped_file))

    assert load(shipped_file, "tiny", "relu", classes=10).info.activation == "relu"


def test_bfloat16_weights_are_not_taken_for_known_ones(tmp_path: Path) -> None:
    state = {name: tensor.bfloat16() for name, tensor in without_constants(network()).items()}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SatbenchError, match=r"weights alone do not say"):
        request_model(str(tmp_path / "w.safetensors"))


# Files that carry their card


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run of two epochs on a toy set."""
    from satbench.training.ranks import ALONE
    from satbench.training.saved.facts import facts_of
    from satbench.training.saved.run_card import run_card
    from satbench.training.watch import EpochMetrics

    folder = tmp_path_factory.mktemp("runs") / "mine"
    model = network("tiny(width=2)", "silu", 3)
    config = TrainConfig(
        recipe="toy",
        dataset="fashion-mnist",
        architecture="tiny(width=2)",
        activation="silu",
        threat="linf:0.1",
        attack="pgd(steps=1)",
        epochs=2,
        batch_size=8,
        learning_rate=0.1,
        weight_decay=5e-4,
        attack_mode="train",
        held_out=8,
        warm_up=0.25,
    )
    data = Dataset("toy", "train", np.zeros((8, 1, 28, 28), np.uint8), np.arange(8) % 3, 3)
    facts = facts_of(TrainingSet(data, data.digest), torch.device("cpu"), ALONE)
    metrics = EpochMetrics(2, 1.0, 0.5, 0.5, 0.25, 0.1, 100.0)
    for name, file in (("mine", "mine.safetensors"), ("mine-best", "best.safetensors")):
        kept = ("last epoch", metrics)
        card = run_card(name, file, model, config, data, facts, kept, "satbench train")
        save_weights(model, folder / file, card)
        if name == "mine":
            write_card(card, folder / "mine.json")
    (folder / "config.json").write_text("{}")
    return folder


def test_a_file_that_carries_its_card_needs_no_options(trained: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.write_bytes((trained / "mine.safetensors").read_bytes())
    request = request_model(str(alone))
    loaded = load_model(request, 3)

    assert (request.dataset, request.threat) == ("fashion-mnist", "linf:0.1")
    assert loaded.card == card_within(alone) == read_card(trained / "mine.json")
    assert (loaded.info.name, loaded.info.activation) == ("mine", "silu")
    assert loaded.info.training["recipe"] == "toy"
    assert load(trained / "best.safetensors", classes=3).info.name == "mine-best"


def test_options_that_contradict_the_card_in_a_file_are_refused(trained: Path) -> None:
    assert load(trained / "mine.safetensors", "tiny(width=2)", "silu", classes=3).card
    with pytest.raises(SatbenchError, match=r"trained as tiny\(width=2\) with silu, not with relu"):
        load(trained / "mine.safetensors", "tiny(width=2)", "relu", classes=3)
    with pytest.raises(SatbenchError, match=r"not with wide-resnet.* and relu"):
        load(trained / "mine.safetensors", preset="trades", classes=3)


def test_changed_weights_in_a_file_with_a_card_are_refused(trained: Path, tmp_path: Path) -> None:
    card = card_within(trained / "mine.safetensors")
    save_weights(network("tiny(width=2)", "silu", 3).apply(shift), tmp_path / "w", card)
    with pytest.raises(SatbenchError, match=r"expected weights with digest"):
        load(tmp_path / "w", classes=3)


def shift(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.data.add_(1)


@pytest.mark.parametrize("told", ["{", "[]", '{"schema": 9}'])
def test_an_invalid_card_in_a_file_is_refused(told: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(network().state_dict(), path, {"satbench.card": told})
    with pytest.raises(SatbenchError, match=r"card .*within .*w\.safetensors"):
        request_model(str(path))


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b'\x11\0\0\0\0\0\0\0{"__metadata__":1}']
)
def test_no_card_is_read_from_a_file_that_is_not_safetensors(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "w").write_bytes(content)

    assert card_within(tmp_path / "w") is None


def test_a_card_in_a_file_does_not_change_the_digest_of_its_weights(
    trained: Path, tmp_path: Path
) -> None:
    model = load(trained / "mine.safetensors", classes=3).module
    save_weights(model, tmp_path / "w.safetensors")

    digests = {
        digest_weights(load(path, "tiny(width=2)", "silu", classes=3).module)
        for path in (trained / "mine.safetensors", tmp_path / "w.safetensors")
    }
    assert len(digests) == 1


def test_recognising_a_file_does_not_import_torch(trained: Path, shipped_file: Path) -> None:
    program = (
        "import sys; from satbench.models import request_model\n"
        "assert all(request_model(path).card for path in sys.argv[1:])\n"
        "assert 'torch' not in sys.modules"
    )
    paths = [trained, trained / "mine.safetensors", shipped_file]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, paths)], capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")


# The folder of a run


def test_the_folder_of_a_run_loads_the_final_model_of_the_run(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load(trained / "mine.json", classes=3).info

    assert load(trained, classes=3).info == load(f"{trained}/", classes=3).info == expected
    monkeypatch.chdir(trained)
    assert load(".", classes=3).info == expected


def test_a_renamed_run_folder_is_loaded_by_its_only_card(trained: Path, tmp_path: Path) -> None:
    for name in ("mine.json", "mine.safetensors", "config.json"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())

    assert load(tmp_path, classes=3).info.name == "mine"


def test_folders_without_a_finished_run_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"expected the folder of a run of `satbench train`"):
        request_model(str(tmp_path))
    (tmp_path / "best.safetensors").write_bytes((trained / "best.safetensors").read_bytes())
    with pytest.raises(SatbenchError, match=r"is not finished: .*/best\.safetensors$"):
        request_model(str(tmp_path))
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_bytes((trained / "mine.json").read_bytes())
    with pytest.raises(SatbenchError, match=r"several cards \(a\.json, b\.json\)"):
        request_model(str(tmp_path))


@pytest.mark.parametrize("what", ["", "mine.safetensors", "mine.json"])
def test_a_run_a_card_and_a_file_with_its_card_can_be_shown_and_added(
    what: str, trained: Path
) -> None:
    shown = CliRunner().invoke(cli, ["models", "show", str(trained / what), "--json"])
    added = CliRunner().invoke(cli, ["models", "add", str(trained / what), "--json"])

    assert json.loads(shown.stdout)["name"] == json.loads(added.stdout)["name"] == "mine"
    assert load("mine", classes=3).info.activation == "silu"


# Normalisation


def test_a_file_without_constants_gives_a_warning_of_the_assumed_ones(foreign: Path) -> None:
    with pytest.warns(
        AssumptionWarning, match=r"foreign\.pth: .* its normalisation, and cifar10 was assumed; .*"
    ):
        loaded = load(foreign, COLOUR, "relu")

    assert loaded.info.assumed == "normalize=cifar10"


SAID: dict[str, tuple[dict[str, Any], str, tuple[float, float]]] = {
    "name": ({"normalize": "imagenet"}, "statistics=imagenet", (0.485, 0.229)),
    "nothing is done": ({"normalize": "none"}, "statistics=none", (0, 1)),
    "numbers": (
        {"normalize": "0.1,0.2,0.3;0.5"},
        "normalised by 0.1,0.2,0.3;0.5,0.5,0.5",
        (0.1, 0.5),
    ),
    "numbers of a name": (
        {"normalize": "0.4914,0.4822,0.4465;0.2471,0.2435,0.2616"},
        "statistics=cifar10",
        (0.4914, 0.2471),
    ),
    "statistics of the architecture": (
        {"architecture": "wide-resnet(depth=10,widen=1,statistics=sat)"},
        "statistics=sat",
        (0.5, 0.5),
    ),
    "preset": (
        {"architecture": None, "activation": None, "preset": "trades(depth=10,widen=1)"},
        "statistics=none",
        (0, 1),
    ),
}


@pytest.mark.parametrize("way", SAID)
def test_a_given_normalisation_is_applied_and_recorded(way: str, foreign: Path) -> None:
    options, expected, (mean, std) = SAID[way]
    loaded = load(foreign, **{"architecture": COLOUR, "activation": "relu", **options})
    layer: Any = loaded.module.get_submodule("normalize")

    assert loaded.info.architecture.endswith(expected) or f"{expected})" in loaded.info.architecture
    assert (layer.mean[0].item(), layer.std[0].item()) == pytest.approx((mean, std))
    assert loaded.info.assumed == ""


def test_constants_in_the_file_override_those_of_the_architecture(tmp_path: Path) -> None:
    torch.save(network(f"{COLOUR[:-1]},statistics=imagenet)").state_dict(), tmp_path / "w.pt")
    loaded = load(tmp_path / "w.pt", COLOUR, "relu")

    assert "statistics=imagenet" in loaded.info.architecture
    assert loaded.info.assumed == ""
    assert load(tmp_path / "w.pt", COLOUR, "relu", normalize="imagenet").info == loaded.info


@pytest.mark.parametrize(
    "said",
    [
        {"normalize": "cifar10"},
        {"normalize": "none"},
        {"architecture": f"{COLOUR[:-1]},statistics=cifar10)"},
    ],
)
def test_options_that_contradict_constants_in_the_file_are_refused(
    said: dict[str, str], tmp_path: Path
) -> None:
    torch.save(network(f"{COLOUR[:-1]},statistics=imagenet)").state_dict(), tmp_path / "w.pt")
    with pytest.raises(SatbenchError, match=r"include the normalisation .* imagenet, which is not"):
        load(tmp_path / "w.pt", **{"architecture": COLOUR, "activation": "relu", **said})


@pytest.mark.parametrize(
    "text", ["cifar", "0.5", "0.5;0", "0.5;-1", "a;b", "0.5;nan", "1;2;3", "0.5,0.4;0.5"]
)
def test_a_malformed_normalisation_is_refused(text: str, foreign: Path) -> None:
    with pytest.raises(SatbenchError, match=r"^expected a normalisation"):
        load(foreign, COLOUR, "relu", normalize=text)


@pytest.mark.parametrize(
    ("text", "expected"), [("none", (0, 1)), ("sat", (0.5, 0.5)), ("0.5,0.5,0.5;1", (0.5, 1))]
)
def test_constants_that_are_equal_in_all_channels_suit_grey_images_too(
    text: str, expected: tuple[float, float], grey: Path
) -> None:
    loaded = load(grey, TINY, "relu", normalize=text)
    layer: Any = loaded.module[0]  # type: ignore[index]

    assert (layer.mean.item(), layer.std.item()) == expected


def test_constants_for_colour_images_are_refused_for_grey_images(grey: Path) -> None:
    with pytest.raises(SatbenchError, match=r"of 1 channel for this architecture, got 'imagenet'"):
        load(grey, TINY, "relu", normalize="imagenet")


def test_a_setting_that_weights_do_not_show_is_assumed_with_a_warning(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = build_network("preact-resnet", "relu", 4).state_dict()
    state = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in shapes.items()}
    path = saved({k: v for k, v in state.items() if not k.startswith("normalize.")}, tmp_path)
    with pytest.warns(AssumptionWarning) as told:
        assumed = load(path, "preact-resnet", "relu")

    assert assumed.info.assumed == "normalize=cifar10 shortcut=activated"
    assert ["normalisation" in str(one.message) for one in told] == [True, False]
    assert "its shortcut, and activated was assumed" in str(told[1].message)


@pytest.mark.slow
@pytest.mark.parametrize("shortcut", ["activated", "raw"])
def test_a_given_setting_is_not_assumed(shortcut: str, tmp_path: Path) -> None:
    torch.save(network("preact-resnet").state_dict(), tmp_path / "w.pt")
    loaded = load(tmp_path / "w.pt", f"preact-resnet(shortcut={shortcut})", "relu")

    assert (loaded.info.assumed, shortcut in loaded.info.architecture) == ("", True)


# Assumptions in the record


@pytest.fixture
def greys() -> Images:
    x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return x, network(TINY)(x).argmax(1)


def evaluate(path: Path, images: Images, out: Path, **options: Any) -> Record:
    return satbench.evaluate(
        *(str(path), *images),
        attacks=["pgd-1"],
        eps="1/255",
        out=out,
        architecture=TINY,
        activation="relu",
        **options,
    )


def test_an_assumption_is_a_flag_and_part_of_the_identity(
    grey: Path, greys: Images, tmp_path: Path
) -> None:
    with pytest.warns(AssumptionWarning):
        assumed = evaluate(grey, greys, tmp_path / "out")
    said = evaluate(grey, greys, tmp_path / "out", normalize="fashion-mnist")
    other = evaluate(grey, greys, tmp_path / "out", normalize="none")

    def flags(record: Record) -> list[tuple[str, int, int]]:
        assert record.diagnosis is not None
        return [(f.name, f.images, f.of) for f in record.diagnosis.flags if "assumed" in f.name]

    assert flags(assumed) == [("assumed-normalisation", 8, 8)]
    assert flags(said) == flags(other) == []
    assert assumed.model.assumed == "normalize=fashion-mnist"
    assert assumed.model.weights_digest == said.model.weights_digest != other.model.weights_digest
    assert len({record.identity for record in (assumed, said, other)}) == 3
    assert assumed.verdicts == said.verdicts


@pytest.mark.filterwarnings("always")
def test_the_command_says_what_it_assumed_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = network(TINY, classes=10).state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.startswith("0.")}
    options = [
        *("--model", str(saved(state, tmp_path)), "--arch", TINY, "--activation", "relu"),
        *("--dataset", "fashion-mnist", "--eps", "0.1", "--attack", "pgd-1", "--n-examples", "2"),
        *("--quiet", "--out", str(tmp_path / "out")),
    ]
    monkeypatch.setattr(sys, "argv", ["satbench", "eval", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()

    assert ended.value.code == 0
    assert len(told.err.splitlines()) == 1
    assert told.err.startswith("satbench: ")
    assert "fashion-mnist was assumed" in told.err
    assert "flag assumed-normalisation (2 of 2 images)" in told.out


def test_missing_classes_in_the_labels_do_not_limit_the_classes_of_a_file(
    grey: Path, greys: Images, tmp_path: Path
) -> None:
    record = evaluate(
        grey, (greys[0], torch.arange(8) % 2), tmp_path / "out", normalize="fashion-mnist"
    )

    assert record.dataset.classes == 2
    with pytest.raises(SatbenchError, match=r"likely weights for 4 classes"):
        load(grey, TINY, "relu", normalize="none", classes=2)


# Where these options are allowed


OPTIONS = {
    "normalize": "none",
    "keys": "a",
    "drop_keys": ["a"],
    "preset": "trades",
    "architecture": "tiny",
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ["torchvision:resnet18@IMAGENET1K_V1", "package.module:factory"])
def test_options_for_files_are_refused_for_names_and_factories(option: str, name: str) -> None:
    shown = option.replace("_", "-").replace("architecture", "arch")
    with pytest.raises(SatbenchError, match=rf"^--{shown}: only for files of weights that do not"):
        request_model(name, **{option: OPTIONS[option]})  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["normalize", "keys", "drop_keys"])
def test_options_that_would_override_a_card_are_refused(option: str, shipped_file: Path) -> None:
    for name in (SHIPPED, str(shipped_file)):
        with pytest.raises(SatbenchError, match=r"for files of weights that do not name"):
            request_model(name, **{option: OPTIONS[option]})  # type: ignore[arg-type]


def test_options_for_files_are_refused_for_a_module(mean_model: nn.Module) -> None:
    with pytest.raises(SatbenchError, match=r"^preset: these options describe a file of weights"):
        satbench.evaluate(
            mean_model, torch.rand(1, 1, 2, 2), torch.tensor([0]), eps="0.1", preset="trades"
        )


def test_keys_select_a_part_of_a_larger_model(tmp_path: Path) -> None:
    state = network().state_dict()
    whole = {f"teacher.{name}": tensor + 1 for name, tensor in state.items()}
    whole |= {f"student.net.{name}": tensor for name, tensor in state.items()}
    torch.save({**whole, "student.queue": torch.ones(2, 2)}, tmp_path / "w.pt")
    with pytest.raises(SatbenchError, match=r"'teacher\.' and 'student\.net\.', and they differ"):
        load(tmp_path / "w.pt", COLOUR, "relu")
    by_keys = load(tmp_path / "w.pt", COLOUR, "relu", keys="student.net")
    by_drop = load(tmp_path / "w.pt", COLOUR, "relu", drop_keys=["teacher", "student.queue"])

    assert by_keys.info == by_drop.info
    assert by_keys.info.weights_digest == digest_weights(network())


def test_the_command_lists_every_preset() -> None:
    listed = CliRunner().invoke(cli, ["models", "presets"]).stdout
    values = json.loads(CliRunner().invoke(cli, ["models", "presets", "--json"]).stdout)

    assert len(listed.splitlines()) == len(values) >= 13
    assert [line.split()[0] for line in listed.splitlines()] == [one["name"] for one in values]


def test_a_misspelt_keyword_is_refused(mean_model: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'attakcs'"):
        satbench.evaluate(mean_model, torch.rand(1, 1, 2, 2), torch.tensor([0]), attakcs=[])  # type: ignore[call-arg]


def test_one_prefix_to_drop_may_be_given_as_a_text(tmp_path: Path) -> None:
    state = {**network().state_dict(), "extra.w": torch.ones(2, 2)}
    torch.save(state, tmp_path / "w.pt")

    assert load(tmp_path / "w.pt", COLOUR, "relu", drop_keys="extra").info.assumed == ""


@pytest.mark.slow
def test_a_record_of_a_foreign_file_is_verified_and_challenged_with_the_file(
    grey: Path, greys: Images, tmp_path: Path
) -> None:
    np.savez(tmp_path / "d.npz", x=greys[0].numpy(), y=greys[1].numpy())
    of = ["--model", str(grey), "--arch", TINY, "--activation", "relu", "--normalize", "none"]
    of += ["--data", str(tmp_path / "d.npz"), "--quiet"]
    made = ["--eps", "0.02", "--attack", "pgd-1", "--out", str(tmp_path / "out")]
    CliRunner().invoke(cli, ["eval", *of, *made], catch_exceptions=False)
    (record,) = (tmp_path / "out").glob("*.json")

    verified = CliRunner().invoke(cli, ["verify", str(record), *of], catch_exceptions=False)
    assert verified.exit_code == 0
    assert "confirmed" in verified.stdout
    other = ["sat" if word == "none" else word for word in of]
    refused = CliRunner().invoke(cli, ["verify", str(record), *other], catch_exceptions=False)
    assert refused.exit_code == 1
    assert "the weights are not the record's" in refused.stdout
    challenged = CliRunner().invoke(
        cli, ["challenge", str(record), *of, "--attack", "pgd-5"], catch_exceptions=False
    )
    assert challenged.exit_code == 0
