"""Clicking through the dashboard in headless Chromium: every control, wide and narrow, dark and light."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_proxy import runtime as runtime_module
from llm_proxy.faces.dashboard import board as board_module
from llm_proxy.faces.keys import add
from llm_proxy.holders import Holder
from llm_proxy.observe.events import CheckEvent
from tests.faces.asgi_kit import until
from tests.faces.dashboard.kit import KEY, TWICE, Shown, shown
from tests.observe.events_kit import bypass, exact, miss

pytestmark = pytest.mark.browser
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
HOUR_S = 3_600.0


class Browser:
    """Chromium on the page; notes what was pressed."""

    def __init__(self, profile: Path, shots: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        for argument in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
            "--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.shots, self.pressed = shots, set[str]()

    def look(self, size: str, scheme: str) -> None:
        width, height = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "narrow"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        until(lambda: [found for found in self.all(selector) if found.is_displayed()], 20)
        return next(found for found in self.all(selector) if found.is_displayed())

    def press(self, selector: str) -> Any:
        """Click as a person does: an element that something covers is an error."""
        found = self.one(selector)
        self.script("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()
        self.pressed.add(selector)
        return found

    def script(self, text: str, *values: Any) -> Any:
        return self.driver.execute_script(text, *values)

    def text(self, selector: str) -> str:
        return str(self.script("return document.querySelector(arguments[0])?.innerText || ''", selector))

    def fits(self, name: str) -> None:
        """Keep a picture, and fail where the page, or text in it, is wider than the window or its box."""
        self.driver.save_screenshot(str(self.shots / f"{name}.png"))
        wide = self.script("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], f"{name}: {wide[0]} pixels in a window of {wide[1]}"
        cut = self.script(
            "return [...document.querySelectorAll('.card, .tile, dialog[open]')]"
            ".filter((node) => node.scrollWidth > node.clientWidth + 1).map((node) => node.innerText.slice(0, 40))"
        )
        assert cut == [], name

    def complaints(self) -> list[str]:
        """What the browser logged, but for refusals of the proxy that the test asked for."""
        rows = self.driver.get_log("browser")
        return [row["message"] for row in rows if "status of 401" not in row["message"]]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    pytest.importorskip("selenium")
    if shutil.which("chromedriver") is None:
        pytest.skip("needs Chromium and chromedriver")
    found = Browser(tmp_path / "profile", tmp_path)
    yield found
    found.driver.quit()


def with_calls(page: Shown) -> None:
    """Fill a proxy: calls of some days, and hits with checks."""
    now_s = page.runtime.clock.time()
    for number in range(120):
        at_s = now_s - (number % 60) * 3 * HOUR_S - number
        for event in (exact(at_s), miss(at_s), bypass(at_s), bypass(at_s, 502)):
            page.runtime.emit(event)
    for _ in range(300):
        page.runtime.ledger(CheckEvent(now_s, "shadow", "k", "a", "s", "auto", "m", 0.9, 0.01, True))
    page.ask("Why?", "Why?", "A question of more words than one line of a telephone can hold, " * 3, model="auto")
    page.ask(*TWICE)
    page.runtime.ledger.flush()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    for module in (runtime_module, board_module):
        monkeypatch.setattr(module, "may_show_questions", lambda config: True)
    with shown(tmp_path / "cache", keys=(KEY,)) as found:
        with_calls(found)
        yield found


def sign_in(browser: Browser, page: Shown) -> None:
    browser.driver.get(page.url)
    for key in ("not the key", KEY):
        browser.one("#key").send_keys(key)
        browser.press("#key-form button")
        if key != KEY:
            until(lambda: "not one of them" in browser.text("#wrong"), 20)
    until(lambda: browser.text("#live") == "live", 20)
    until(lambda: "of" in browser.text("[data-sum=all] .sub"), 20)


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", SIZES)
def test_every_control(browser: Browser, page: Shown, size: str, scheme: str):
    browser.look(size, scheme)
    sign_in(browser, page)
    name = f"{size}-{scheme}"
    browser.fits(f"{name}-top")
    for part in (ranges_and_scale, themes, chart_by_keys, list_of_calls, one_call):
        part(browser, page)
        browser.fits(f"{name}-{part.__name__}")
    browser.press("#leave")
    assert browser.one("#login").is_displayed()
    assert browser.complaints() == []
    assert everything(browser) - browser.pressed == set(), "controls that were not pressed"


def everything(browser: Browser) -> set[str]:
    """A selector for each control of the markup."""
    return set(
        browser.script(
            "return [...document.querySelectorAll('button, select, input[type=search]')]"
            ".filter((node) => !node.closest('#list') && !node.closest('#facts')).map((node) =>"
            " node.dataset.range ? `[data-range=${node.dataset.range}]` : node.dataset.scale ?"
            " `[data-scale=${node.dataset.scale}]` : node.id ? `#${node.id}` : `#${node.closest('dialog').id} button`)"
        )
    ) - {"#login button"}  # pressed as `#key-form button`


def ranges_and_scale(browser: Browser, page: Shown) -> None:
    labels = set()
    for name in ("hour", "week", "all", "day"):
        browser.press(f"[data-range={name}]")
        word = {"hour": "last hour", "week": "7 days", "all": "all time", "day": "today"}[name]
        until(lambda word=word: word in browser.one("#chart").get_attribute("aria-label"), 20)
        labels.add(browser.one("#chart").get_attribute("aria-label"))
        assert browser.one(f"[data-range={name}]").get_attribute("aria-pressed") == "true"
    assert len(labels) == 4
    browser.press("[data-range=week]")
    browser.press("[data-scale=share]")
    assert "100 %" in browser.text("#chart") or browser.script("return chart.textContent.includes('100 %')")
    browser.press("[data-scale=count]")


def themes(browser: Browser, page: Shown) -> None:
    seen = []
    for _ in range(3):
        browser.press("#theme")
        seen.append(browser.script("return [theme.ariaLabel, getComputedStyle(document.body).backgroundColor]"))
    assert [row[0] for row in seen] == ["Theme: light", "Theme: dark", "Theme: automatic"]
    assert seen[0][1] != seen[1][1]


def chart_by_keys(browser: Browser, page: Shown) -> None:
    from selenium.webdriver.common.keys import Keys

    chart = browser.one("#chart")
    browser.script("arguments[0].focus()", chart)
    chart.send_keys(Keys.ARROW_LEFT)
    last = browser.text("#tip")
    chart.send_keys(Keys.ARROW_LEFT)
    assert "saved" in last
    assert browser.text("#tip") != last
    chart.send_keys(Keys.ESCAPE)
    assert not browser.driver.find_element("id", "tip").is_displayed()


def list_of_calls(browser: Browser, page: Shown) -> None:
    from selenium.webdriver.support.select import Select

    kinds = Select(browser.press("#kind"))
    for option in ("exact", "semantic", "miss", "bypass", "error", ""):
        kinds.select_by_value(option)
        assert browser.all("#list tbody tr")
    find = browser.press("#find")
    find.send_keys("no such model")
    assert "No call" in browser.text("#list")
    find.clear()
    find.send_keys("telephone")
    assert len(browser.all("#list tbody tr")) == 1
    browser.script("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", find)
    browser.press("#more")
    assert len(browser.all("#list tbody tr")) > 100
    before = page.calls()[-1]["id"]
    browser.press("#pause")
    page.ask("While it rests")
    until(lambda: page.calls()[-1]["id"] != before, 20)
    assert "While it rests" not in browser.text("#list")
    browser.press("#pause")
    until(lambda: "While it rests" in browser.text("#list"), 20)


def one_call(browser: Browser, page: Shown) -> None:
    from selenium.webdriver.common.keys import Keys

    row = next(row for row in page.calls() if row["route"] == "auto" and row["reason"])
    browser.press(f'[data-of="{row["id"]}"]')
    until(lambda: "Why this model" in browser.text("#facts"), 20)
    assert row["reason"] in browser.text("#facts")
    assert "main/small" in browser.text("#facts")
    browser.press("#detail button")
    assert not browser.driver.find_element("id", "detail").is_displayed()
    hit = next(row for row in page.calls() if row["kind"] == "semantic")
    browser.press(f'[data-of="{hit["id"]} undo"]')
    until(lambda: TWICE[0] in browser.text("#facts"), 20)
    for word in ("Undo this hit", "Yes, take it back"):
        assert browser.text("#undo") == word
        browser.press("#undo")
    until(lambda: "Taken back" in browser.text("#facts"), 20)
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    until(lambda: not browser.driver.find_element("id", "detail").is_displayed(), 20)
    assert next(row for row in page.calls() if row["id"] == hit["id"])["is_undone"]
    until(lambda: "taken back" in browser.text("#list"), 20)


@pytest.mark.parametrize(("size", "scheme"), [("wide", "light"), ("narrow", "dark")])
def test_issued_keys(browser: Browser, tmp_path: Path, size: str, scheme: str):
    """Who asked is told to a key that may watch, and to no other; names as long as they may be fit in."""
    path, long = tmp_path / "keys.json", "n" * 64
    holders = Holder("", "ci", "builds"), Holder("", long, long), Holder("", "eye", "office", may_watch=True)
    ci, other, eye = (add(path, holder, now_s=1.0)[0] for holder in holders)
    browser.look(size, scheme)
    with shown(tmp_path / "cache", server={"keys_file": str(path)}) as page:
        for key in (ci, other):
            replace(page, key=key).ask("Why?")
        browser.driver.get(page.url)
        for key, said in (("lp-wrong", "not one of them"), (ci, "may not see"), (eye, "")):
            browser.one("#key").send_keys(key)
            browser.press("#key-form button")
            until(lambda said=said: said in browser.text("#wrong"), 20)
            if said:
                browser.fits(f"{size}-key-{said.split()[0]}")
        until(lambda: len(browser.all("#list tbody tr")) == 2, 20)
        for name, tenant in (("ci", "builds"), (long, long)):
            find = browser.press("#find")
            find.clear()
            find.send_keys(tenant)
            assert len(browser.all("#list tbody tr")) == 1
            browser.press("#list tbody tr button.open")
            rows = browser.text("#facts").split("\n")
            assert (rows[rows.index("key") + 1], rows[rows.index("tenant") + 1]) == (name, tenant)
            browser.fits(f"{size}-{scheme}-key-{tenant[:6]}")
            browser.press("#detail button")
        browser.press("#leave")
        assert browser.one("#login").is_displayed()
    assert [text for text in browser.complaints() if "status of 403" not in text] == []


def test_nothing_was_asked_yet(browser: Browser, tmp_path: Path):
    browser.look("narrow", "light")
    with shown(tmp_path / "cache") as page:
        browser.driver.get(page.url)
        until(lambda: "OPENAI_BASE_URL" in browser.text("#list"), 20)
        until(lambda: browser.text("#live") == "live", 20)
        until(lambda: browser.text("[data-sum=all] .sub") == "no calls", 20)
        browser.fits("empty")
        page.ask("the first")
        until(lambda: len(browser.all("#list tbody tr")) == 1, 20)
    until(lambda: browser.text("#live") == "no connection", 30)
    assert [
        text for text in browser.complaints() if "ERR_CONNECTION" not in text and "ERR_INCOMPLETE" not in text
    ] == []


def test_what_callers_send_stays_text(browser: Browser, tmp_path: Path):
    with shown(tmp_path / "cache") as page:
        page.ask("one", model="<img src=x onerror=alert(1)>")
        browser.driver.get(page.url)
        until(lambda: "<img src=x" in browser.text("#list"), 20)
        assert browser.all("#list img") == []
        assert browser.complaints() == []
