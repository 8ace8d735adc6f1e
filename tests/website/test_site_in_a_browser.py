"""The site in a browser: sorting, search, filters, and addresses that keep them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from browser import Browser

MODELS = "models"
BOARD = "boards/board-1.html"  # the page with the most models


def column(browser: Browser, key: str, table: str = MODELS) -> list[str]:
    """Return the texts of a column in the shown rows, top to bottom, without the small text."""
    return browser.run(
        """const [name, key] = arguments, table = document.getElementById(name);
        const k = [...table.tHead.rows[0].cells].findIndex((one) => one.dataset.key === key);
        return [...table.tBodies[0].rows].map((row) => row.cells[k]?.firstChild?.textContent);""",
        table,
        key,
    )


def head(browser: Browser, key: str) -> Any:
    return browser.driver.find_element("css selector", f"#{MODELS} thead th[data-key='{key}']")


def sort(
    browser: Browser, key: str, act: Callable[[Any], None] = lambda head: head.click()
) -> None:
    """Click on the head of a column, and wait until the table is in another order."""
    from selenium.webdriver.support.ui import WebDriverWait

    before = head(browser, key).get_attribute("aria-sort")
    act(head(browser, key))
    WebDriverWait(browser.driver, 20).until(
        lambda _: head(browser, key).get_attribute("aria-sort") not in (before, None)
    )


def tool(browser: Browser, selector: str) -> Any:
    return browser.driver.find_element("css selector", f"#{MODELS}-part {selector}")


def chosen(browser: Browser, key: str, text: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(tool(browser, f"[data-choice='{key}']")).select_by_visible_text(text)


def query(browser: Browser) -> str:
    return unquote(browser.driver.current_url.partition("?")[2])


@pytest.fixture
def page(browser: Browser, site: Path) -> Browser:
    browser.open(site / BOARD)
    return browser


def test_a_click_on_a_column_head_sorts_by_the_full_numbers(page: Browser) -> None:
    by_number = [float(text) for text in column(page, "best_known")]
    sort(page, "clean")
    falling = [float(text) for text in column(page, "clean")]
    sort(page, "clean")
    rising = [float(text) for text in column(page, "clean")]

    assert by_number == sorted(by_number, reverse=True)  # in the order of the board
    assert falling == sorted(falling, reverse=True) == rising[::-1]
    assert len(set(falling)) > 1
    assert head(page, "clean").get_attribute("aria-sort") == "ascending"
    assert query(page) == "models.sort=clean"


@pytest.mark.slow
def test_rows_without_a_number_are_sorted_last(page: Browser) -> None:
    sort(page, "gap")
    found = column(page, "gap")

    assert found[-1] == "–"
    assert found[0] != "–"


@pytest.mark.slow
def test_column_heads_can_be_sorted_by_the_keyboard(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    def press_enter(head: Any) -> None:
        head.find_element("css selector", "[tabindex='0']").send_keys(Keys.ENTER)

    sort(page, "activation", press_enter)

    assert column(page, "activation") == sorted(column(page, "activation"))
    assert query(page) == "models.sort=activation"


def test_a_search_shows_only_the_rows_that_contain_the_text(page: Browser) -> None:
    all_rows = column(page, "model")
    tool(page, "[data-search]").send_keys("silu")

    assert 0 < len(column(page, "model")) < len(all_rows)
    assert set(column(page, "activation")) == {"silu"}
    assert query(page) == "models.q=silu"
    assert tool(page, ".found").text == f"3 of {len(all_rows)} rows"


def test_a_filter_matches_the_whole_text_of_a_cell(page: Browser) -> None:
    chosen(page, "activation", "elu")  # silu and relu contain letters of it

    assert column(page, "activation") == ["elu"]
    assert query(page) == "models.activation=elu"


@pytest.mark.slow
def test_chosen_columns_are_kept_in_the_address(page: Browser, site: Path) -> None:
    assert column(page, "seed")[0] is None
    tool(page, ".chooser summary").click()
    tool(page, "[data-column='seed']").click()
    tool(page, "[data-column='clean']").click()
    address = page.driver.current_url
    page.driver.get("about:blank")
    page.driver.get(address)

    assert sorted(column(page, "seed"))[0] in "012–"
    assert column(page, "clean")[0] is None
    assert "seed" in query(page)
    assert "clean" not in query(page)


def test_an_address_restores_filter_search_sort_and_columns(browser: Browser, site: Path) -> None:
    told = "models.q=sat-&models.sort=-seed&models.activation=relu"
    told += "&models.columns=model,activation,seed"
    browser.open(site / BOARD, f"?{told}#kinds")

    assert column(browser, "seed") == ["2", "1", "0"]
    assert set(column(browser, "activation")) == {"relu"}
    assert sorted(query(browser).partition("#")[0].split("&")) == sorted(told.split("&"))
    assert browser.driver.current_url.endswith("#kinds")


@pytest.mark.slow
@pytest.mark.parametrize(
    "told", ["models.activation=gone", "models.sort=gone", "models.columns=gone", "x=1", "%ff=%00"]
)
def test_a_malformed_address_shows_the_whole_page(browser: Browser, site: Path, told: str) -> None:
    browser.open(site / BOARD, f"?{told}")

    assert len(column(browser, "model")) == 8
    assert browser.said() == []


@pytest.mark.slow
def test_reset_shows_all_rows_again(page: Browser) -> None:
    before = column(page, "model")
    chosen(page, "activation", "silu")
    sort(page, "clean")
    tool(page, "[data-reset]").click()

    assert column(page, "model") == before
    assert query(page) == ""


@pytest.mark.slow
def test_two_tables_on_a_page_are_independent(page: Browser) -> None:
    before = column(page, "model")
    search = page.driver.find_element("css selector", "#kinds-table-part [data-search]")
    search.send_keys("silu")

    assert set(column(page, "activation", "kinds-table")) == {"silu"}
    assert column(page, "model") == before
    assert query(page) == "kinds-table.q=silu"


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_download_holds_the_filtered_rows_in_their_order(page: Browser, kind: str) -> None:
    page.run(
        """window.kept = [];
        URL.createObjectURL = (blob) => { window.kept.push(blob); return "data:,"; };
        HTMLAnchorElement.prototype.click = () => {};"""
    )
    chosen(page, "activation", "silu")
    sort(page, "clean")
    tool(page, f"[data-download='{kind}']").click()
    text = page.driver.execute_async_script(
        """const done = arguments[0], kept = window.kept;
        const look = () => kept.length ? kept[0].text().then(done) : setTimeout(look, 20);
        look();"""
    )
    names = column(page, "model")
    held = json.loads(text) if kind == "json" else text.splitlines()[1:]

    assert len(names) == 3
    assert [one["model"] if kind == "json" else one.split(",")[8] for one in held] == names


@pytest.mark.slow
def test_1000_rows_are_loaded_sorted_and_searched_in_less_than_a_second_each(
    browser: Browser, many_rows: Path
) -> None:
    started = browser.seconds()
    browser.open(many_rows)
    opened = browser.seconds()
    sort(browser, "clean")
    sorted_at = browser.seconds()
    browser.run(
        """const search = document.querySelector("#models-part [data-search]");
        search.value = "0123"; search.dispatchEvent(new Event("input"));"""
    )
    searched = browser.seconds()

    assert column(browser, "model") == ["model 0123"]
    assert opened - started < 1
    assert sorted_at - opened < 1
    assert searched - sorted_at < 1


def pages_of(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def kinds_of(site: Path) -> list[Path]:
    """Return a page of each kind; models are on two boards, on one, or have a hostile name."""
    models = sorted((site / "models").glob("*.html"), key=lambda path: path.stat().st_size)
    hostile = next(path for path in models if path.name.startswith("img"))
    return [site / "index.html", site / BOARD, models[-1], models[0], hostile]


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_page_is_wider_than_its_window(browser: Browser, site: Path, width: int) -> None:
    for page in kinds_of(site):
        browser.open(page, width=width)
        assert browser.run("return document.documentElement.scrollWidth") <= width, page


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(360, False), (1280, True)])
def test_axe_finds_no_violation_of_wcag_aa(
    browser: Browser, site: Path, width: int, dark: bool
) -> None:
    for page in kinds_of(site):
        browser.open(page, width=width, dark=dark)
        browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
        assert browser.faults() == [], page.name


def test_axe_finds_no_violation_on_the_page_of_a_board(page: Browser) -> None:
    assert page.faults() == []


@pytest.mark.slow
def test_text_in_charts_has_enough_contrast_in_both_colour_schemes(
    browser: Browser, site: Path
) -> None:
    for dark in (False, True):
        browser.open(site / BOARD, dark=dark)
        pairs = browser.run(
            """const shown = (one, field) => getComputedStyle(one)[field];
            const page = shown(document.body, "backgroundColor");
            const texts = [...document.querySelectorAll("svg text")];
            return texts.map((one) => [shown(one, "fill"), page]);"""
        )
        assert len(pairs) > 10
        assert min(contrast(*pair) for pair in pairs) >= 4.5


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours `rgb(r, g, b)` (WCAG 2.1)."""

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
        linear = [
            part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.slow
def test_the_arrow_keys_move_between_points_and_show_their_numbers(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    points = page.driver.find_elements("css selector", "#clean-robust [data-point]")
    assert [one.get_attribute("tabindex") for one in points] == ["0"] + ["-1"] * (len(points) - 1)
    page.run("arguments[0].focus()", points[0])
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    tip = page.driver.find_element("css selector", ".tip")

    assert page.driver.switch_to.active_element == points[1]
    assert tip.is_displayed()
    assert tip.text == points[1].get_attribute("aria-label")
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert page.driver.switch_to.active_element == points[-1]
    assert points[-1].get_attribute("tabindex") == "0"


@pytest.mark.slow
def test_the_pointer_shows_the_numbers_of_a_point(page: Browser) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    point = page.driver.find_element("css selector", "#clean-robust [data-point]")
    page.run("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(page.driver).move_to_element(point).perform()

    told = page.driver.find_element("css selector", ".tip").text
    assert "best known" in told
    assert told.split(":")[0] in column(page, "model")


@pytest.mark.slow
def test_the_tab_key_reaches_every_control_with_a_visible_outline(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    page.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    seen = []
    page.driver.find_element("tag name", "body").send_keys(Keys.TAB)
    for _ in range(40):
        at = page.driver.switch_to.active_element
        seen.append(at.get_attribute("data-choice") or at.tag_name)
        outline = page.run("return getComputedStyle(arguments[0]).outlineStyle", at)
        assert outline != "none" or at.get_attribute("data-point") is not None
        at.send_keys(Keys.TAB)

    assert seen[0] == "a"  # a link in the head of the page
    assert {"input", "activation", "training", "summary", "button"} <= set(seen)


@pytest.mark.slow
def test_escape_closes_the_list_of_columns(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    summary = tool(page, ".chooser summary")
    summary.send_keys(Keys.ENTER)
    assert tool(page, ".chooser").get_attribute("open") is not None
    tool(page, "[data-column='seed']").send_keys(Keys.ESCAPE)

    assert tool(page, ".chooser").get_attribute("open") is None
    assert page.driver.switch_to.active_element == summary


@pytest.mark.slow
def test_a_page_without_its_script_shows_all_rows(browser: Browser, many_rows: Path) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(many_rows)
        shown = browser.driver.find_elements("css selector", "#models tbody tr:nth-child(n+990)")
        assert len(shown) == 11
        assert shown[-1].is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.slow
def test_no_page_writes_to_the_console_or_requests_an_outside_address(
    browser: Browser, site: Path
) -> None:
    for page in pages_of(site):
        browser.open(page)
        assert browser.said() == [], page
        asked = browser.asked()
        assert {one for one in asked if not one.startswith(("file:///", "data:", "blob:"))} == set()
        assert page.as_uri() in asked


def test_the_security_policy_of_a_page_blocks_outside_addresses(page: Browser) -> None:
    found = page.driver.execute_async_script(
        """const done = arguments[0];
        document.addEventListener("securitypolicyviolation", (event) => done(event.blockedURI));
        document.body.append(Object.assign(new Image(), { src: "https://example.org/x.png" }));"""
    )

    assert found == "https://example.org/x.png"
    assert page.said() != []  # the browser reports it and sends no request


@pytest.mark.slow
def test_every_link_leads_to_an_existing_file_or_part_of_a_page(
    browser: Browser, site: Path
) -> None:
    for page in pages_of(site):
        browser.open(page)
        links = browser.run(
            """return [...document.querySelectorAll("a[href]")].map(
                (one) => new URL(one.getAttribute("href"), document.baseURI).href)"""
        )
        assert len(links) > 1
        for link in links:
            place, _, part = link.partition("#")
            assert place.startswith(site.as_uri()), link
            target = Path(unquote(place.removeprefix("file://")))
            assert target.is_file(), link
            assert not part or f'id="{part}"' in target.read_text(encoding="utf-8"), link


def test_a_hostile_name_is_shown_as_text(browser: Browser, site: Path) -> None:
    for page in kinds_of(site):
        browser.open(page)
        assert browser.run("return document.querySelectorAll('img[src=x]').length") == 0
        assert browser.run("return document.scripts.length") == 2
