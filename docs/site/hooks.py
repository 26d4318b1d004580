"""What the site adds to the pages: their order, the reference of public names, the changelog, links into the source.

A page that no list below names is found all the same, under "More"; so nobody who adds one has to come here.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent.parent
NAV = {
    "Start": ["index.md", "tutorial.md", "how-to.md", "what-can-go-wrong.md"],
    "Use": [
        "client.md", "notebooks.md", "frameworks.md", "proxy.md", "keys.md", "deploy.md", "dashboard.md",
        "observability.md", "queues-and-budgets.md", "routing-own-traffic.md",
        "migrate-from-gptcache.md", "migrate-from-litellm.md",
    ],
    "Understand": [
        "behaviour.md", "cache.md", "verified-hits.md", "eviction.md", "routing.md", "cascades.md",
        "near-misses.md", "reliability.md",
        "encoder.md", "vector-index.md", "comparison.md", "architecture.md",
    ],
    "Reference": ["cli.md", "settings.md", "errors.md", "reference.md", "testing-reference.md", "changelog.md"],
}  # fmt: skip
MORE = "Use"
GENERATED = {"reference.md", "testing-reference.md", "changelog.md"}
_OUTSIDE = re.compile(r"!?\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)\s]*)?\)")
_CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_config(config: Any) -> Any:
    """Sort the pages: those that are listed where they are listed, all others at the end of "Use"."""
    there = {path.name for path in (ROOT / "docs").glob("*.md")} | GENERATED
    sorted_in = {name for names in NAV.values() for name in names}
    nav = {title: [name for name in names if name in there] for title, names in NAV.items()}
    nav[MORE] += sorted(there - sorted_in)
    config["nav"] = [{title: names} for title, names in nav.items()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from the code and from the changelog."""
    names = {
        "reference.md": reference("llm_proxy", "The Python interface"),
        "testing-reference.md": reference("llm_proxy.testing", "For your tests"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "]("),
    }
    for name, text in names.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Name what lies outside of the documentation, such as a model's card, instead of linking to it."""
    parts = _CODE.split(markdown)
    return "".join(part if part.startswith("```") else _OUTSIDE.sub(_named, part) for part in parts)


def reference(module: str, title: str) -> str:
    """A page with the docstring of every public name of a module.

    Raises:
        ValueError: A name's home can't be found.
    """
    path = ROOT.joinpath(*module.split("."))
    source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    homes = {
        alias.name: f"{module}.{node.module}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    (public,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    parts = [f"# {title}\n\nEvery public name of `{module}`, from its docstring.\n"]
    parts += [f"::: {homes.get(name, module)}.{name}\n" for name in public if name != "__version__"]
    return "\n".join(parts)


def _named(match: re.Match[str]) -> str:
    text, path = match.groups()
    place = path.removeprefix("../")
    if not (ROOT / place).exists():
        raise ValueError(f"{path} leads nowhere")
    return text if f"`{place}`" in text else f"{text} (`{place}` of the source)"
