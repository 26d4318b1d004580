"""The notebooks of examples: kept without outputs, and run for real, cell by cell, in a kernel of Jupyter."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parent.parent.parent / "examples" / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
MOST_S = 60

# What each shows when it has run: texts of its outputs, and how many pictures.
SHOWN: dict[str, tuple[tuple[str, ...], int]] = {
    "quickstart": (
        (
            "exact hit",
            "semantic hit (similarity 0.99",
            "refused=negation",
            "Taken back",
            "<svg",
            "at simulated, stored",
        ),
        0,
    ),
    "train_a_router": (
        ("The head beats the length of the prompt and chance", "(simulated small)", "(simulated large)"),
        1,
    ),
    "what_the_cache_refused": (("negation", "numbers", "direction", "other words"), 1),
    "cost_by_cache_size": (("gdsf", "saved"), 1),
}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    return found


def test_all_are_in_the_table() -> None:
    assert sorted(SHOWN) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_nothing_was_left_of_a_run(name: str) -> None:
    cells = [cell for cell in read(name)["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"] is not None] == []


@pytest.mark.parametrize("name", NAMES)
def test_it_says_that_nothing_is_asked(name: str) -> None:
    text = "".join("".join(cell["source"]) for cell in read(name)["cells"] if cell["cell_type"] == "markdown")
    assert "**simulated**" in text


@pytest.mark.notebooks
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the libraries that drive the kernel
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for one another spin where others work, too
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    book = nbformat.reads(json.dumps(read(name)), as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=MOST_S, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    started = time.monotonic()
    client.execute()
    took_s = time.monotonic() - started
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = json.dumps([[output.get("text", ""), output.get("data", {})] for output in outputs])
    wanted, pictures = SHOWN[name]
    assert [text for text in wanted if json.dumps(text)[1:-1] not in texts] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == pictures
    assert "Traceback" not in texts
    assert took_s < MOST_S
