"""The notebook runs from its first cell to its last, and carries no output of an earlier run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from documented import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "notebooks" / "first-model.ipynb"


def run_cells(notebook: dict[str, Any], small: dict[str, str]) -> dict[str, Any]:
    """The names that the code cells have made, run in order."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            text = "".join(cell["source"])
            for word, instead in small.items():
                text = text.replace(word, instead)
            exec(compile(text, cell["id"], "exec"), names)
    return names


def test_the_notebook_is_whole_and_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 6
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names = run_cells(json.loads(NOTEBOOK.read_text(encoding="utf-8")), {"images=300": "images=100"})
    names["plt"].close("all")
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()
    assert names["maps"].shape[0] == 4
    assert names["audit"]["warnings"] == []
