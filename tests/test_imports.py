"""Imports go one way, down the list of rooms in ORDER, and method, data and statistics know nothing of each other.

Read from the source with `ast`, imports inside functions included.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import msmae

PACKAGE = Path(msmae.__file__).parent
ORDER = (
    "errors",
    "version",
    "files",
    "records",
    "progress",
    "machine",
    "config",
    "statistics",
    "method",
    "selection",
    "encoders",
    "data",
    "reporting",
    "evidence",
    "runs",
    "inference",
    "training",
    "evaluation",
    "comparison",
    "bench",
    "serve",
    "verbs",
    "options",
    "cli",
    "__main__",
    "__init__",
)
"""The rooms from the lowest to the highest: a room imports itself and what stands before it; "version" is the package's
own `__version__`."""

ALONE = {
    "errors": set(),
    "files": {"errors"},
    "records": {"errors", "files"},
    "progress": {"errors"},
    "config": {"errors", "files"},
    "statistics": {"errors", "files", "records", "config"},
    "method": set(),
    "selection": {"method"},
    "data": {"errors", "files", "records", "progress", "config"},
}
"""Rooms that may import these others only."""

MAY_IMPORT = {room: {room} | ALONE.get(room, set(ORDER[:i])) for i, room in enumerate(ORDER)}

TORCH_ONLY = ("method", "selection")
NO_TORCH_ROOMS = ("statistics", "reporting")
NO_TORCH = ("torch", "pytorch_lightning", "lightning", "kornia", "safetensors.torch")


def part_of(module: str) -> str:
    """`msmae.data.reading.images` -> `data`; the package itself -> `__init__`."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else "__init__"


def imported(source: str, module: str, *, package: bool = False) -> set[str]:
    """Full names of what a module imports: modules, and names from them where they may be modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".") if package else module.split(".")[:-1]
            base = above[: len(above) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" if origin == "msmae" else origin for alias in node.names}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return {name.replace("msmae.__version__", "msmae.version") for name in found}


def violations(source: str, module: str, *, package: bool = False) -> list[str]:
    """Imports of a module that its part of the package must not have."""
    part = part_of(module)
    wrong = []
    for name in sorted(imported(source, module, package=package)):
        top = name.split(".")[0]
        ours = top == "msmae"
        if ours and part_of(name) not in MAY_IMPORT[part]:
            wrong.append(f"{module} imports {name}")
        if part in TORCH_ONLY and not ours and top != "torch" and top not in sys.stdlib_module_names:
            wrong.append(f"{module} imports {name}: {part} knows torch and the standard library only")
        if part in NO_TORCH_ROOMS and any(name == heavy or name.startswith(f"{heavy}.") for heavy in NO_TORCH):
            wrong.append(f"{module} imports {name}: {part} works without torch")
    return wrong


def modules() -> list[tuple[str, Path]]:
    """Every module of the package and its file."""
    result = []
    for file in sorted(PACKAGE.rglob("*.py")):
        pieces = ("msmae", *file.relative_to(PACKAGE).with_suffix("").parts)
        result.append((".".join(p for p in pieces if p != "__init__"), file))
    return result


def test_no_module_imports_upwards_or_sideways():
    found = modules()
    assert len(found) > 40
    assert {part_of(name) for name, _ in found} <= set(MAY_IMPORT), "a new part of the package needs its place here"
    wrong = {v for name, f in found for v in violations(f.read_text("utf-8"), name, package=f.stem == "__init__")}
    assert not wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("msmae.data.store", "from msmae.method.vit import patchify"),
        ("msmae.data.store", "from msmae import method"),
        ("msmae.data.store", "from ..method import vit"),
        ("msmae.data.store", "from .. import verbs"),
        ("msmae.data.store", "def f():\n    import msmae.statistics.metrics"),
        ("msmae.data.store", "importlib.import_module('msmae.encoders.weights')"),
        ("msmae.method.vit", "import numpy as np"),
        ("msmae.method.vit", "import pytorch_lightning"),
        ("msmae.method.vit", "from msmae.errors import UserError"),
        ("msmae.method.msmae", "from msmae.selection.selectors import Look"),
        ("msmae.selection.selectors", "from msmae.runs.checkpoint import load_selection"),
        ("msmae.selection.selectors", "from msmae.config import Settings"),
        ("msmae.selection.cost", "import numpy as np"),
        ("msmae.statistics.metrics", "import torch"),
        ("msmae.statistics.metrics", "from torch.nn import functional"),
        ("msmae.statistics.metrics", "from msmae.data.manifest import Manifest"),
        ("msmae.encoders.weights", "from msmae.runs.folder import write_json"),
        ("msmae.verbs.run", "from msmae.cli import main"),
        ("msmae.config", "from msmae.data.reading.images import read_image"),
        ("msmae.errors", "from msmae.config import Settings"),
    ],
)
def test_a_wrong_import_would_be_seen(module: str, source: str):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("msmae.method.msmae", "import math\nimport torch\nfrom torch import nn\nfrom msmae.method.vit import Block"),
        ("msmae.data.store", "import numpy\nfrom msmae.errors import UserError\nfrom . import images"),
        ("msmae.selection.selectors", "import torch\nfrom msmae.method.vit import VisionTransformer"),
        ("msmae.runs.checkpoint", "from msmae.selection.selectors import Look"),
        ("msmae.runs.folder", "from msmae import __version__\nfrom msmae.data.store import open_store"),
        ("msmae.cli", "from msmae.verbs.run import run"),
    ],
)
def test_a_right_import_is_left_in_peace(module: str, source: str):
    assert violations(source, module) == []


def loaded_by(*names: str) -> set[str]:
    """Top-level packages in memory after importing these modules in a fresh interpreter."""
    code = f"import sys, {', '.join(names)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_statistics_and_reporting_run_without_torch():
    names = [name for name, _ in modules() if name.startswith(("msmae.statistics", "msmae.reporting"))]
    assert len(names) > 5
    assert not loaded_by(*names) & {"torch", "pytorch_lightning", "kornia"}


def test_the_command_line_starts_without_heavy_libraries():
    heavy = {"torch", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "pytorch_lightning", "jsonargparse"}
    assert not loaded_by("msmae", "msmae.cli", "msmae.config", "msmae.errors") & heavy
