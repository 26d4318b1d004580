"""What all benchmarks share: the options, the table, the JSON line, and the file of record."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "arguments", "machine", "report"]

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    *("llm-proxy", "openai", "httpx", "httpx2", "diskcache", "starlette", "uvicorn", "numpy", "faiss-cpu"),
    *("onnxruntime", "onnxruntime-gpu", "tokenizers", "sentence-transformers", "torch", "litellm", "libcachesim"),
)


def arguments(name: str, doc: str | None, /, **options: tuple[Any, ...]) -> argparse.Namespace:
    """Parse the command line of ``python -m benchmarks.NAME``.

    Args:
        name: Name of the benchmark.
        doc: Its docstring; the first sentence describes it.
        **options: Of each option its type, default and help, and optionally ``nargs``; underscores become hyphens. One
            of type bool takes no value: it is true where it is given.

    Returns:
        The options, with ``json`` and ``record`` beside them.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=(doc or "").partition(":")[0])
    for option, (kind, default, text, *nargs) in options.items():
        more: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind}
        more |= {"nargs": nargs[0]} if nargs else {}
        parser.add_argument(f"--{option.replace('_', '-')}", default=default, help=text, **more)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--record", action="store_true", help=f"write benchmarks/results/{name}.json")
    return parser.parse_args()


def report(
    name: str,
    figures: dict[str, Any],
    options: argparse.Namespace,
    *,
    table: Iterable[Sequence[object]],
    entry: str = "",
) -> None:
    """Print the table; print and write the JSON object where asked to.

    Args:
        name: Name of the benchmark.
        figures: Its keys and values, as JSON takes them.
        options: From `arguments`.
        table: Rows of cells for people; numbers may come formatted.
        entry: Under which the result is kept in the file of record, beside others; empty: it is the whole file.
    """
    print(_aligned([[str(cell) for cell in row] for row in table]))
    result = {"benchmark": name, **figures, "machine": machine()}
    if options.record:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}.json"
        kept = result
        if entry:
            runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else {}
            kept = {"benchmark": name, "runs": dict(sorted({**runs, entry: result}.items()))}
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"recorded in benchmarks/results/{path.name}")
    if options.json:
        print(json.dumps(result, ensure_ascii=False))


def machine() -> dict[str, Any]:
    """What figures depend on: processor, versions, commit (with a plus sign when files differ from it), date."""
    packages = {name: found for name in _PACKAGES if (found := _version(name))}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": packages,
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _aligned(rows: list[list[str]]) -> str:
    columns = max(map(len, rows), default=0)
    rows = [row + [""] * (columns - len(row)) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(columns)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _commit() -> str:
    def git(*command: str) -> str:
        run = subprocess.run(["git", *command], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        return run.stdout.strip() if run.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--", ":!results") if commit else ""
    return f"{commit}{'+' if changed else ''}"
