"""Every entry of RobustBench, as RobustBench's own loader and satbench load it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from robustbench_entries import RESULTS, names, page, run_one

PAGE = Path(__file__).parents[2] / "docs" / "robustbench.md"


def test_every_entry_has_a_result_and_none_differs() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    cannot = {name for name, told in results.items() if told["result"] == "cannot be built"}

    assert list(results) == names()
    assert len(results) == 206
    assert {told["result"] for told in results.values()} == {"equal", "cannot be built"}
    assert {name.split("/")[2].split("_")[0] for name in cannot} == {"Bai2023Improving"}


def test_the_page_shows_the_results() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))

    assert PAGE.read_text(encoding="utf-8") == page(results)


UNLIKE = (
    "cifar10/Linf/Wong2020Fast",  # constants left out
    "cifar10/Linf/Chen2020Adversarial",  # three files
    "cifar10/Linf/Debenedetti2022Light_XCiT-S12",  # by timm, from an address
    "cifar10/corruptions/Kireev2021Effectiveness_RLAT",  # the last of two sets
    "cifar100/Linf/Rade2021Helper_R18_ddpm",
    "imagenet/Linf/Salman2020Do_R18",
    "imagenet/Linf/Singh2023Revisiting_ViT-S-ConvStem",
    "imagenet/corruptions/AlexNet",  # by torchvision's address
)


@pytest.mark.slow
@pytest.mark.parametrize("name", UNLIKE)
def test_an_entry_gives_the_same_logits_as_robustbenchs_own_loader(name: str) -> None:
    told = run_one(name, limit=600)
    wanted = json.loads(RESULTS.read_text(encoding="utf-8"))[name]

    same = ("result", "classes", "files", "parameters", "images")
    assert {key: told.get(key) for key in same} == {key: wanted[key] for key in same}
