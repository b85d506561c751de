"""What keeps the house small: the README's tree, the sizes of files, folders and pages."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FILES_IN_A_FOLDER, LINES_OF_A_FILE, WORKING_TREE = 20, 400, 25e6


def tracked() -> list[Path]:
    """Every file that git knows here; a test without git has nothing to hold."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to the repository")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [path for name in names.split("\0") if name and (path := REPOSITORY / name).is_file()]


def length(path: Path) -> int:
    """Lines of a text file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_readme_names_every_folder_of_the_package_once() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"```\nsrc/msmae/\n(.*?)```", text, re.DOTALL)
    named = re.findall(r"^  (\w+)/ +\S", tree, re.MULTILINE)
    package = REPOSITORY / "src" / "msmae"
    there = [path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert named == sorted(there)
    others = {name for line in tree.splitlines() if not line.startswith(" ") for name in re.findall(r"(\w+)/", line)}
    assert len(others) >= 4
    assert all((REPOSITORY / name).is_dir() for name in others)


def test_no_folder_has_more_than_twenty_python_files() -> None:
    folders = Counter(path.parent for path in tracked() if path.suffix == ".py")
    crowded = {str(folder.relative_to(REPOSITORY)): n for folder, n in folders.items() if n > FILES_IN_A_FOLDER}
    assert not crowded


def test_no_python_file_is_longer_than_400_lines() -> None:
    python = [path for path in tracked() if path.suffix == ".py"]
    assert len(python) > 100
    long = {str(path.relative_to(REPOSITORY)): n for path in python if (n := length(path)) > LINES_OF_A_FILE}
    assert not long


@pytest.mark.parametrize(("name", "most"), [("README.md", 110), ("RESULTS.md", 150)])
def test_a_page_for_everybody_is_short(name: str, most: int) -> None:
    assert 20 < length(REPOSITORY / name) <= most


def test_no_paragraph_of_the_readme_is_longer_than_four_lines() -> None:
    text = re.sub(r"```.*?```", "", (REPOSITORY / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    paragraphs = [part for part in text.split("\n\n") if not part.lstrip().startswith(("|", "-", "#"))]
    assert len(paragraphs) > 5
    assert not [part for part in paragraphs if len(part.strip().splitlines()) > 4]


def test_a_clone_is_small() -> None:
    assert sum(path.stat().st_size for path in tracked()) <= WORKING_TREE
