"""`satbench models cards`: a page for each model, from cards and records only."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from satbench.board.definition import board_definition
from satbench.board.model_pages import INDEX, PICTURES, page, pages, pictured
from satbench.cli import cli
from satbench.model_zoo.card import Card, zoo_card, zoo_names
from satbench.networks.registry import ACTIVATIONS, ARCHITECTURES
from satbench.records.flags import Flag
from satbench.records.record import Diagnosis, Record, read_records

pytestmark = pytest.mark.sampled(2)

ROBUST, CONTROL = "fmnist-sat-tiny-silu-s0", "fmnist-standard-tiny-relu-s0"
SURROGATE = "fmnist-standard-tiny-relu-s100"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of the published records of two models."""
    chosen = tmp_path_factory.mktemp("records")
    for name in (ROBUST, CONTROL):
        for path in board_definition("fashion-mnist-linf-0.1").records.glob(
            f"{name}-fashion*.json"
        ):
            shutil.copy(path, chosen)
    return chosen


@pytest.fixture(scope="module")
def records(folder: Path) -> Sequence[Record]:
    """Return the published records of two models."""
    return read_records(folder)


@pytest.fixture(scope="module")
def written(records: Sequence[Record]) -> dict[str, str]:
    """Return the pages of three models, of which a surrogate has no records."""
    cards = [zoo_card(name) for name in (ROBUST, CONTROL, SURROGATE)]
    return pages(cards, [SURROGATE], records)


def cards_command(folder: Path, out: Path, *options: str) -> Result:
    """Run `satbench models cards`."""
    places = ["--records", str(folder), "--out", str(out)]
    return CliRunner().invoke(cli, ["models", "cards", *places, *options])


def facts_of(text: str) -> dict[str, str]:
    """Return the rows of two cells of a page."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    return {row[0].strip(): row[1].strip() for row in rows if len(row) == 2}


# What a page says


def test_a_page_tells_of_network_and_weights(written: dict[str, str]) -> None:
    card, facts = zoo_card(ROBUST), facts_of(written[f"{ROBUST}.md"])

    assert facts["parameters"] == "15,682"
    assert facts["network"].startswith("Four convolutions with batch-norm and activation, ")
    assert facts["activation"] == (
        "x σ(x), also called Swish (Xie et al., 2020, arXiv:2006.14536, section 4.1)"
    )
    assert facts["images"] == "1×28×28, pixels in [0, 1] (the net normalises), 10 classes"
    assert facts["weights"] == (
        f"`{ROBUST}.safetensors`, SHA-256 of the tensors `{card.weights_digest}`"
    )
    assert facts["licence"] == "MIT"


def test_a_page_tells_of_the_training(written: dict[str, str]) -> None:
    text = written[f"{ROBUST}.md"]
    facts, told = facts_of(text), zoo_card(ROBUST).training

    assert told is not None
    assert facts["recipe"].startswith("`fmnist-sat`: single-step adversarial training ")
    assert facts["threat model"] == "`linf:0.1`"
    assert facts["attacker"] == f"`{told.attack}`, batch-norm in train mode"
    assert facts["seed"] == "0"
    assert facts["data"] == f"fashion-mnist, training split, SHA-256 `{told.data_digest}`"
    assert facts["kept"] == "last epoch, as the recipe says"
    assert facts["held out"] == (
        "clean 84.4 %, pgd-10 67.7 %, of 1,000 training images that no step saw"
    )
    assert f"```sh\n{told.command}\n```" in text


def test_best_known_counts_what_no_record_broke(
    written: dict[str, str], records: Sequence[Record]
) -> None:
    verdicts = [record.verdicts for record in records if record.model.name == ROBUST]
    right = sum(set(image) == {-1} for image in zip(*verdicts, strict=True))

    assert len(verdicts) == 5  # fast in two versions, and strongest
    assert f"| Best known | {right} of 500 | {right / 5:.1f} | " in written[f"{ROBUST}.md"]


def test_a_page_has_the_columns_of_the_leaderboard(written: dict[str, str]) -> None:
    numbers = re.findall(r"^\| (.+?) \| \d+ of 500 \|", written[f"{ROBUST}.md"], re.MULTILINE)

    assert numbers == ["Clean", "Transfer", "PGD-50", "AutoAttack", "Fast", "Best known"]


def test_a_flag_of_the_row_is_on_the_page(records: Sequence[Record]) -> None:
    sign = Flag("zero-gradient", 424, 424, "the gradient is 0", "run square")
    told = [replace(one, diagnosis=Diagnosis([sign], 0, 0)) for one in records]
    text = pages([zoo_card(ROBUST)], [], told)[f"{ROBUST}.md"]

    assert text.count("\n\n† zero-gradient (424 of 424 images): the gradient is 0; run square") == 1


def test_a_model_without_records_says_so(written: dict[str, str]) -> None:
    assert "\nThere is no committed record of this model.\n" in written[f"{SURROGATE}.md"]
    assert "No committed record" not in written[f"{CONTROL}.md"]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("- A control: ", [CONTROL, SURROGATE]),
        ("- A surrogate: ", [SURROGATE]),
        ("- Trained for linf:0.1 on fashion-mnist.", [ROBUST]),
    ],
)
def test_limits_are_those_of_the_model(
    line: str, names: list[str], written: dict[str, str]
) -> None:
    of_models = {name: text for name, text in written.items() if name != INDEX}

    assert [f"{name}.md" for name in names] == [n for n, text in of_models.items() if line in text]


def test_the_list_names_every_model(written: dict[str, str]) -> None:
    linked = re.findall(r"\]\((fmnist-.*?)\.md\)", written[INDEX])

    assert sorted([ROBUST, CONTROL, SURROGATE]) == linked


def test_the_order_of_cards_and_records_does_not_matter(
    written: dict[str, str], records: Sequence[Record]
) -> None:
    cards = [zoo_card(name) for name in (SURROGATE, CONTROL, ROBUST)]

    assert written == pages(cards, [SURROGATE], records[::-1])


@pytest.fixture
def card() -> Card:
    return zoo_card(ROBUST)


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_every_architecture_has_its_details(name: str, card: Card) -> None:
    facts = facts_of(page(replace(card, architecture=name), [], False))

    assert len(facts["network"]) > 80


@pytest.mark.slow
def test_the_page_of_a_resnet_tells_what_the_papers_code_has(card: Card) -> None:
    network = facts_of(page(replace(card, architecture="resnet(depth=50)"), [], False))["network"]

    assert "the 3×3 convolution of a bottleneck strides" in network
    assert "the last γ of each block starts at 0" in network


@pytest.mark.parametrize("name", ACTIVATIONS.names())
def test_every_activation_has_its_formula(name: str, card: Card) -> None:
    entry = ACTIVATIONS[name]
    facts = facts_of(page(replace(card, activation=name), [], False))

    assert facts["activation"].replace("\\", "").startswith(entry.summary)


def test_a_card_without_training_has_a_page(card: Card) -> None:
    text = page(replace(card, training=None, url="https://example.org/x"), [], False)

    assert "## Training" not in text
    assert facts_of(text)["from"] == "https://example.org/x"


# The command


def test_a_page_is_written_for_each_shipped_model(folder: Path, tmp_path: Path) -> None:
    assert cards_command(folder, tmp_path).exit_code == 0
    assert sorted([INDEX, *(f"{name}.md" for name in zoo_names())]) == sorted(
        path.name for path in tmp_path.glob("*.md")
    )


@pytest.fixture
def out(
    written: dict[str, str],
    records: Sequence[Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Return a folder of the pages of three models, which are all that ship."""
    names = sorted([ROBUST, CONTROL, SURROGATE])
    monkeypatch.setattr("satbench.model_zoo.card.zoo_names", lambda: names)
    made = tmp_path / "pages"
    (made / PICTURES).mkdir(parents=True)  # what they hold is not compared
    for name, text in written.items():
        (made / name).write_text(text, encoding="utf-8")
    for name in pictured([zoo_card(name) for name in names], records):
        (made / PICTURES / f"{name}.png").touch()
    return made


def test_fresh_pages_pass_the_check(folder: Path, out: Path) -> None:
    done = cards_command(folder, out, "--check", "--json")

    assert (done.exit_code, json.loads(done.output)) == (0, {"pages": 4, "stale": []})


@pytest.mark.slow
@pytest.mark.parametrize("change", ["missing", "of no model"])
def test_stale_pictures_fail_the_check(change: str, folder: Path, out: Path) -> None:
    path = out / PICTURES / ("gone.png" if change == "of no model" else f"{ROBUST}.png")
    path.unlink() if change == "missing" else path.touch()

    done = cards_command(folder, out, "--check")

    assert done.exit_code == 1
    assert f"satbench: out of date: {path.name}; run " in done.output


def test_a_page_shows_the_record_that_leaves_fewest(records: Sequence[Record]) -> None:
    placed = [replace(record, path=Path(f"a/b/c/{k}.json")) for k, record in enumerate(records)]
    shown = pictured([zoo_card(ROBUST)], placed)[ROBUST]
    mine = [r for r in placed if r.model.weights_digest == shown.model.weights_digest]

    assert shown.surviving() == min(record.surviving() for record in mine)
    assert (
        f"--figure docs/models/pictures/{ROBUST}.png"
        in pages([zoo_card(ROBUST)], [], placed)[f"{ROBUST}.md"]
    )


@pytest.mark.sampled(1)
@pytest.mark.parametrize("change", ["edited", "missing", "of no model"])
def test_stale_pages_fail_the_check_and_stay(change: str, folder: Path, out: Path) -> None:
    path = out / ("gone.md" if change == "of no model" else f"{ROBUST}.md")
    path.unlink() if change == "missing" else path.write_text("edited")
    before = {file.name: file.read_bytes() for file in out.glob("*.md")}

    done = cards_command(folder, out, "--check")

    assert done.exit_code == 1
    assert f"satbench: out of date: {path.name}; run satbench models cards --out " in done.output
    assert before == {file.name: file.read_bytes() for file in out.glob("*.md")}
