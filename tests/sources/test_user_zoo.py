"""The user's own zoo: which models it accepts, and how they are found by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from serving import Server

from satbench.cli import cli
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.model_zoo.card import (
    Card,
    find_card,
    read_card,
    user_names,
    user_zoo,
    write_card,
    zoo_names,
)
from satbench.model_zoo.weights import digest_weights, save_weights
from satbench.models import load_model, request_model
from satbench.models.user_zoo import add_model
from satbench.networks.build import build_network

SHIPPED = "fmnist-sat-tiny-relu-s0"

MakeCard = Callable[..., Path]


@pytest.fixture
def make_card(tmp_path: Path) -> MakeCard:
    """A function that writes weights and a card, with changes, and returns the card's path."""

    def make(**changes: Any) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build_network("tiny(width=2)", "silu", 3)
        save_weights(model, tmp_path / "w.safetensors")
        card = Card(
            name="mine",
            architecture="tiny(width=2)",
            activation="silu",
            parameters=sum(p.numel() for p in model.parameters()),
            input_shape=(1, 28, 28),
            classes=3,
            weights="w.safetensors",
            weights_digest=digest_weights(model),
            licence="MIT",
            training=None,
        )
        write_card(replace(card, **changes), tmp_path / "card.json")
        return tmp_path / "card.json"

    return make


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["models", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


# Adding


def test_an_added_model_is_found_by_its_name(make_card: MakeCard) -> None:
    card = add_model(make_card())
    loaded = load_model(request_model("mine"), 3)

    assert user_names() == ["mine"]
    assert loaded.card == card
    assert (loaded.info.name, loaded.info.source) == ("mine", "user-zoo")
    assert digest_weights(loaded.module) == card.weights_digest


def test_an_added_model_no_longer_needs_its_original_folder(make_card: MakeCard) -> None:
    path = make_card()
    add_model(path)
    path.unlink()
    (path.parent / "w.safetensors").unlink()

    assert load_model(request_model("mine"), 3).info.name == "mine"


def test_the_suggested_name_may_come_from_the_users_zoo(make_card: MakeCard) -> None:
    add_model(make_card(name="my-robust-net"))
    with pytest.raises(UnknownNameError, match=r"did you mean 'my-robust-net'\?$"):
        request_model("my-robust-nett")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "shipped name": ({"name": SHIPPED}, r"is the name of a model that ships with satbench"),
    "no name": ({"name": ""}, r"^expected a name of letters, digits"),
    "path as name": ({"name": "../mine"}, r"^expected a name of letters, digits"),
    "source as name": ({"name": "timm"}, r"^expected a name of letters, digits"),
    "digest": ({"weights_digest": "0" * 64}, r"^expected weights with digest 0{12}… in"),
    "architecture": ({"architecture": "tinny"}, r"^unknown architecture 'tinny': did you mean"),
    "width": ({"architecture": "tiny(width=3)"}, r"do not fit the model .*in another size"),
    "activation": ({"activation": "sulu"}, r"^unknown activation 'sulu': did you mean 'silu'"),
    "classes": ({"classes": 4}, r"likely weights for 3 classes"),
    "parameters": ({"parameters": 5}, r"says 5 parameters, the network has 1\d\d\d: correct"),
    "shape": ({"input_shape": (3, 28, 28)}, r"mine.*\(3, 28, 28\)|expected images of shape"),
    "missing weights": ({"weights": "none.pt"}, r"^expected weights at .*none\.pt, which is miss"),
    "weights elsewhere": ({"weights": "../w.safetensors"}, r"^expected the name of a file next to"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_card_is_refused_and_the_zoo_stays_unchanged(
    fault: str, make_card: MakeCard
) -> None:
    changes, said = FAULTS[fault]
    with pytest.raises(SatbenchError, match=said):
        add_model(make_card(**changes))
    assert list(user_zoo().glob("*")) == []


def test_a_name_that_is_already_in_the_users_zoo_is_refused(make_card: MakeCard) -> None:
    add_model(make_card())
    with pytest.raises(SatbenchError, match=r"already has a model 'mine': rename the card"):
        add_model(make_card())


def test_two_models_with_the_same_weights_file_name_are_refused(make_card: MakeCard) -> None:
    add_model(make_card())
    with pytest.raises(
        SatbenchError, match=r"the weights of 'mine' in .* are also called w\.safet"
    ):
        add_model(make_card(name="other"))


def test_a_model_with_a_nan_is_refused(make_card: MakeCard, tmp_path: Path) -> None:
    path = make_card()
    model = load_model(request_model(str(path)), 3).module
    with torch.no_grad():
        model[1].weight[0, 0, 0, 0] = float("nan")
    save_weights(model, tmp_path / "w.safetensors")
    write_card(replace(read_card(path), weights_digest=digest_weights(model)), path)
    with pytest.raises(SatbenchError, match=r"^expected 3 finite logits .* with NaN or infinity$"):
        add_model(path)


# Weights at an address


def test_weights_are_downloaded_once_from_the_address_in_the_card(
    make_card: MakeCard, server: Server, tmp_path: Path
) -> None:
    path = make_card(url=server.url("w"))
    server.files["w"] = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").unlink()

    loaded = [load_model(request_model(str(path)), 3) for _ in range(2)]

    assert {digest_weights(one.module) for one in loaded} == {read_card(path).weights_digest}
    assert server.asked == [""]


def test_downloaded_weights_with_a_wrong_digest_are_not_kept(
    make_card: MakeCard, server: Server, tmp_path: Path
) -> None:
    path = make_card(url=server.url("w"), weights_digest="0" * 64)
    server.files["w"] = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").unlink()
    for _ in range(2):
        with pytest.raises(SatbenchError, match=r"^expected weights with digest 0{12}…"):
            load_model(request_model(str(path)), 3)

    assert server.asked == ["", ""]


def test_a_model_is_added_with_the_weights_from_its_address(
    make_card: MakeCard, server: Server, tmp_path: Path
) -> None:
    path = make_card(url=server.url("w"))
    server.files["w"] = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").unlink()

    add_model(path)

    assert (user_zoo() / "w.safetensors").read_bytes() == server.files["w"]


def test_an_address_is_written_to_the_card_and_read_back(make_card: MakeCard) -> None:
    assert read_card(make_card(url="https://host/w")).url == "https://host/w"


def test_a_card_without_an_address_has_no_url_field(make_card: MakeCard) -> None:
    assert "url" not in json.loads(make_card().read_text())


# The folder


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SATBENCH_ZOO": "/a", "XDG_DATA_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_DATA_HOME": "/b", "HOME": "/c"}, "/b/satbench/zoo"),
        ({"HOME": "/c"}, "/c/.local/share/satbench/zoo"),
    ],
)
def test_the_environment_sets_the_folder_of_the_zoo(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SATBENCH_ZOO", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert user_zoo() == Path(expected)


# The command


def test_the_command_adds_a_model_and_says_how_to_evaluate_it(make_card: MakeCard) -> None:
    assert run("add", str(make_card())).splitlines() == [
        f"added mine to {user_zoo()}",
        "satbench eval --model mine --dataset NAME --eps 8/255",
    ]


def test_the_zoo_option_applies_to_one_command_only(make_card: MakeCard, tmp_path: Path) -> None:
    folder, default = tmp_path / "zoo", user_zoo()
    run("add", str(make_card()), "--zoo", str(folder))

    assert (folder / "mine.json").is_file()
    assert run("--zoo", str(folder), "--names").splitlines() == [*zoo_names(), "mine"]
    assert run("list", "--zoo", str(folder), "--names").splitlines() == [*zoo_names(), "mine"]
    assert user_zoo() == default
    assert user_names() == []


def test_a_bad_card_in_the_zoo_is_reported_and_does_not_hide_the_others(
    make_card: MakeCard,
) -> None:
    add_model(make_card())
    (user_zoo() / "bad.json").write_text("{")
    done = CliRunner().invoke(cli, ["models", "--json"])

    assert [card["name"] for card in json.loads(done.stdout)] == [*zoo_names(), "mine"]
    assert "bad.json is not JSON" in done.stderr


def test_a_card_whose_name_differs_from_its_file_is_refused(make_card: MakeCard) -> None:
    add_model(make_card())
    (user_zoo() / "mine.json").rename(user_zoo() / "yours.json")
    with pytest.raises(
        SatbenchError, match=r"^expected the card of yours in .*, got that of mine$"
    ):
        request_model("yours")


def test_show_prints_a_card_unchanged_as_json() -> None:
    assert run("show", SHIPPED, "--json") == find_card(SHIPPED)[0].to_json()


def test_show_says_how_a_model_was_trained_and_how_to_evaluate_it() -> None:
    told = dict(line.split(maxsplit=1) for line in run("show", SHIPPED).splitlines())

    assert told["parameters"] == "15,682"
    assert told["recipe"] == "fmnist-sat, seed 0"
    assert told["evaluate"] == f"satbench eval --model {SHIPPED}"


def test_an_unknown_card_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match=rf"did you mean '{SHIPPED}'"):
        run("show", "fmnist-sat-tiny-rleu-s0")
