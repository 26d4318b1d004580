"""The documentation is true: links lead somewhere, programs run, commands and settings exist, names are explained.

That the pages of settings and commands are those of the code: `scripts/docs --check`. What `curl` prints against the
proxy: `tests/faces/test_asgi_docs.py`. The table of behaviour: `tests/faces/test_matrix.py`. Pages that are done from
top to bottom: `tests/test_docs_walk.py`. Figures for Prometheus: `tests/observe/test_prometheus_docs.py`. The site:
`make site`.
"""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import llm_proxy
from llm_proxy.config import Config, environment_for_child
from llm_proxy.faces.cli.app import app
from llm_proxy.testing import FakeBackend

from .servers import serving
from .test_docs_walk import WALKED

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
}
EVERY_PAGE = pytest.mark.parametrize("name", PAGES)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")


def blocks(name: str, language: str) -> list[str]:
    """The blocks of a page in one language."""
    return [text for found, text in BLOCK.findall(PAGES[name]) if found == language]


def pages_with(language: str) -> list[str]:
    return [name for name in PAGES if blocks(name, language)]


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get."""
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@EVERY_PAGE
def test_links_lead_somewhere(name: str) -> None:
    for link in LINK.findall(PAGES[name]):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{link} leads nowhere"
        assert target.resolve().is_relative_to(ROOT), f"{link} leaves the project"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{link}: no such heading"


@EVERY_PAGE
def test_no_place_of_one_machine(name: str) -> None:
    assert re.findall(r"(?<![\w.~$}])/(?:work|tmp|root|home|Users|mnt|opt)\b[^\s`]*", PAGES[name]) == []


@EVERY_PAGE
def test_nothing_was_left_to_fill_in(name: str) -> None:
    assert re.findall(r"^[A-Z]{3,}$|\b(?:TODO|TBD|FIXME|XXX)\b", BLOCK.sub("", PAGES[name]), re.MULTILINE) == []


class TestPython:
    @pytest.mark.parametrize("name", pages_with("python"))
    def test_every_block_compiles(self, name: str) -> None:
        for block in blocks(name, "python"):
            compile(block, name, "exec")

    @pytest.mark.parametrize(
        "name", [name for name in pages_with("python") if name != "docs/behaviour.md" and Path(name).stem not in WALKED]
    )
    def test_the_page_runs_as_one_program(self, name: str, tmp_path: Path) -> None:
        """Top to bottom, blocks that leave something out excepted, against a simulated provider."""
        whole = [block for block in blocks(name, "python") if not has_gaps(block)]
        assert whole
        settings = tmp_path / "path" / "to" / "llm-proxy.toml"
        settings.parent.mkdir(parents=True)
        with serving(FakeBackend()) as provider:
            for path in (settings, tmp_path / "llm-proxy.toml"):
                path.write_text(f'[backends.simulated]\nbase_url = "{provider.url}/v1"\n')
            variables = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{provider.url}/v1"}
            run("\n".join([*whole, CALL if "client = " in "".join(whole) else ""]), tmp_path, variables)
            assert len(provider.app.requests) == ("client = " in "".join(whole))

    def test_what_leaves_out_the_question_runs_with_one(self, tmp_path: Path) -> None:
        """The blocks of docs/client.md and docs/behaviour.md that say `create(...)`."""
        gapped = [block for name in pages_with("python") for block in blocks(name, "python") if has_gaps(block)]
        assert len(gapped) == 3
        program = "\n".join(["from llm_proxy import OpenAI", "client = OpenAI()", *gapped])
        with serving(FakeBackend()) as provider:
            variables = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{provider.url}/v1"}
            run(program.replace("create(...", f"create({QUESTION}"), tmp_path, variables)
            assert len(provider.app.requests) == 1, "the first is told not to look, the others are served"


QUESTION = 'model="m", messages=[{"role": "user", "content": "?"}]'
CALL = f"client.chat.completions.create({QUESTION})"


def has_gaps(block: str) -> bool:
    """Whether a block leaves something out."""
    return any(isinstance(node, ast.Constant) and node.value is Ellipsis for node in ast.walk(ast.parse(block)))


def run(program: str, folder: Path, variables: dict[str, str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment_for_child({**variables, "XDG_CACHE_HOME": str(folder)}),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, f"{program}\n{ended.stderr}"


class TestSettings:
    @pytest.mark.parametrize("name", pages_with("toml"))
    def test_every_example_loads(self, name: str) -> None:
        for block in blocks(name, "toml"):
            Config(**tomllib.loads(block))

    @EVERY_PAGE
    def test_every_setting_that_is_named_exists(self, name: str) -> None:
        sections = {section: kind(field.annotation) for section, field in Config.model_fields.items()}
        for section, setting in re.findall(r"`([a-z]+)\.([a-z_]+)(?:`| =)", PAGES[name]):
            fields = getattr(sections.get(section), "model_fields", None)
            assert fields is None or setting in fields, f"{section}.{setting}"


def kind(annotation: Any) -> Any:
    """The class of a section; None for one with names in it."""
    return annotation if hasattr(annotation, "model_fields") else None


class TestCommands:
    @EVERY_PAGE
    def test_every_command_that_is_named_exists(self, name: str) -> None:
        for line in commands(name):
            check_command(line)

    def test_they_are_found(self) -> None:
        assert {"llm-proxy demo", "llm-proxy cache ls"} <= set(commands("README.md"))
        assert "llm-proxy run -- python app.py" in commands("docs/cli.md")

    @pytest.mark.parametrize("line", ["llm-proxy bake", "llm-proxy cache bake", "llm-proxy serve --bake"])
    def test_one_that_does_not_is_noticed(self, line: str) -> None:
        with pytest.raises(AssertionError):
            check_command(line)

    @EVERY_PAGE
    def test_other_programs_exist(self, name: str) -> None:
        said = "\n".join([*SPAN.findall(PAGES[name]), *blocks(name, "sh")])
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert set(re.findall(r"^make ([a-z-]+)", said, re.MULTILINE)) <= targets
        for module in re.findall(r"\bpython -m (?:llm_proxy|benchmarks)[\w.]*", said):
            path = ROOT / module.removeprefix("python -m ").replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
        for script in re.findall(r"\bscripts/[\w-]+", said):
            assert (ROOT / script).exists(), script


def commands(name: str) -> list[str]:
    """What a page would have people type, without comments."""
    lines = [line for block in blocks(name, "sh") for line in block.splitlines()]
    found = (line.partition(" #")[0].strip() for line in (*SPAN.findall(PAGES[name]), *lines))
    return [line for line in found if line.startswith("llm-proxy ")]


COMPLETION = ("--show-completion", "--install-completion")  # a shell's name may follow, and be left out


def check_command(line: str) -> None:
    """Walk a command line down the tree of commands; words in capitals stand for any."""
    words: Iterator[str] = iter(shlex.split(line)[1:])
    command: Any = get_command(app)
    for word in words:
        if word == "--" or word in COMPLETION:
            return
        known = {name: option for option in command.params for name in option.opts}
        if word.startswith("-"):
            assert word in known, f"{line}: no option {word}"
            if not getattr(known[word], "is_flag", False):
                next(words)
        elif hasattr(command, "commands") and not word.isupper():
            names = word.split("|")
            assert set(names) <= set(command.commands), f"{line}: no command {word}"
            command = command.commands[names[0]]


def test_every_public_name_is_explained() -> None:
    pages = "\n".join(PAGES.values())
    missing = [name for name in llm_proxy.__all__ if not re.search(rf"(?<!\w){name}(?!\w)", pages)]
    assert missing == []


def test_messages_that_are_explained_are_said() -> None:
    """The page of what can go wrong quotes messages; each is somewhere in the code."""
    source = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "llm_proxy").rglob("*.py"))
    rows = re.findall(r"^\| `([^`]+ [^`]+)` \|", PAGES["docs/what-can-go-wrong.md"], re.MULTILINE)
    assert len(rows) >= 3
    missing = [row for row in rows if not all(part.strip() in source for part in row.split("…"))]
    assert missing == []


def test_the_readme_of_a_package_index_has_no_dead_link() -> None:
    """As hatch-fancy-pypi-readme rewrites it: files are named, and nothing links into a source that is not there."""
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    text = PAGES["README.md"]
    for rule in hook["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    assert "verified hits (`docs/verified-hits.md`)" in text
    assert [link for link in LINK.findall(text) if not link.startswith("https://")] == []


def test_what_a_newcomer_types() -> None:
    commands = runpy.run_path(str(ROOT / "scripts" / "newcomer"))["commands"]
    assert list(commands(PAGES["README.md"])) == [
        'pip install "llm-proxy[cpu]"', "llm-proxy init", "llm-proxy doctor", "llm-proxy demo",
    ]  # fmt: skip


def test_a_release_tries_every_extra() -> None:
    """Those that cost too much are named with a reason; a new one is tried without being listed anywhere."""
    script = runpy.run_path(str(ROOT / "scripts" / "release-check"))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(script["environments"]()) | set(script["NOT_HERE"]) == {"core", *extras}
    assert set(script["BOUNDS_MIB"]) <= set(script["environments"]())


def test_the_site_lists_pages_that_exist() -> None:
    """Those that it does not list are found under "Use" all the same; see docs/site/hooks.py."""
    tree = ast.parse((ROOT / "docs" / "site" / "hooks.py").read_text(encoding="utf-8"))
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in {"NAV", "GENERATED"}
    }  # fmt: skip
    listed = [name for names in tables["NAV"].values() for name in names]
    there = {Path(name).name for name in PAGES if name.startswith("docs/")} | tables["GENERATED"]
    assert len(listed) == len(set(listed))
    assert set(listed) - there == set(), "docs/site/hooks.py lists pages that are not there"


def sections(model: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its path."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}", field
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if hasattr(inner, "model_fields"):
                yield from sections(inner, f"{path}{name}.")


def test_every_setting_is_described() -> None:
    found = dict(sections(Config))
    assert {"cache.budget_bytes", "server.port", "default_backend"} <= set(found)
    assert [path for path, field in found.items() if not field.description] == []
    page = PAGES["docs/settings.md"]
    absent = {path for path in found if f"`{path.rpartition('.')[2]}`" not in page and f"`[{path}" not in page}
    assert absent == set(), "run scripts/docs"


def options(command: Any, words: tuple[str, ...] = ("llm-proxy",)) -> Iterator[tuple[str, str]]:
    """Every command with every option that it takes."""
    inner = getattr(command, "commands", {})
    for name, child in inner.items():
        yield from options(child, (*words, name))
    for parameter in command.params if not inner or len(words) == 1 else ():
        yield from ((" ".join(words), name) for name in parameter.opts if name.startswith("--") and name != "--help")


def test_every_flag_is_in_the_page_of_commands() -> None:
    chapters = dict(
        re.findall(r"^## (llm-proxy[^\n]*)\n(.*?)(?=^## |\Z)", PAGES["docs/cli.md"], re.DOTALL | re.MULTILINE)
    )
    head = PAGES["docs/cli.md"].partition("\n## ")[0]
    found = list(options(get_command(app)))
    assert ("llm-proxy serve", "--workers") in found
    missing = [row for row in found if f"`{row[1]}" not in chapters.get(row[0], "") and row[1] not in head]
    assert missing == [], "run scripts/docs"
