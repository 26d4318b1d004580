"""The page itself: one document that loads nothing, whose parts have names, and whose script knows its markup."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from base64 import b64encode
from html.parser import HTMLParser

import pytest

from llm_proxy.faces.dashboard import page as module
from llm_proxy.faces.dashboard.page import page

VOID = {"meta", "link", "input", "path", "rect", "br"}


class Parsed(HTMLParser):
    """Tags with their attributes, in order; every one that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in {"script", "style"}:
            self.texts[self._open[-1]] = data


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return Parsed(page()[0].decode())


def test_style_and_script_are_those_of_the_policy(parsed: Parsed):
    policy = page()[1]
    for name in ("style", "script"):
        digest = b64encode(hashlib.sha256(parsed.texts[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert [tag for tag, _ in parsed.tags].count("script") == [tag for tag, _ in parsed.tags].count("style") == 1


def test_nothing_is_loaded_from_elsewhere(parsed: Parsed):
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/svg+xml,")), (tag, name, value)
        assert "style" not in attributes, "the policy refuses it"
        assert not any(name.startswith("on") for name in attributes), "the policy refuses it"
    without_names = page()[0].decode().replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://", without_names) == []
    assert "@import" not in parsed.texts["style"]
    assert "url(" not in parsed.texts["style"]


def test_text_of_calls_never_becomes_markup(parsed: Parsed):
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert way not in parsed.texts["script"]


def test_the_script_knows_the_markup(parsed: Parsed):
    there = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    script = parsed.texts["script"]
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= there
    labels = {name for _, attributes in parsed.tags for name in attributes.get("aria-labelledby", "").split()}
    assert labels <= there
    assert len(there) == sum("id" in attributes for _, attributes in parsed.tags), "an id twice"


def test_what_can_be_pressed_has_a_name():
    text = page()[0].decode()
    for button in re.findall(r"<button(.*?)</button>", text, re.DOTALL):
        attributes, _, inside = button.partition(">")
        assert "aria-label" in attributes or re.sub(r"<.*?>", "", inside, flags=re.DOTALL).strip()
    assert text.count("<label") == text.count("<input") + text.count("<select")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_is_javascript():
    path = module._FOLDER / "page.js"
    subprocess.run(["node", "--check", str(path)], check=True, timeout=60)
