"""A built wheel works in an empty environment outside the repository, with every file that it reads."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LONG = os.environ.get("MSMAE_LONG") == "1"
ALONE = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def call(*words: str | Path, where: Path) -> str:
    """Run a command with nothing of this checkout in sight; its standard output."""
    done = subprocess.run([str(word) for word in words], cwd=where, env=ALONE, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout without the network."""
    pytest.importorskip("hatchling", reason="the package that builds the wheel is not installed (make install)")
    folder = tmp_path_factory.mktemp("dist")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    call(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, REPOSITORY, where=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    package = REPOSITORY / "src" / "msmae"
    there = {
        f"msmae/{file.relative_to(package).as_posix()}"
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == there
    assert any(name.endswith(".yaml") for name in names)
    assert any(name.endswith(".html") for name in names)


@pytest.mark.slow
def test_the_wheel_trains_and_reports_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """What it depends on is lent from here by a path; msmae itself is only what the wheel brought."""
    call(sys.executable, "-m", "venv", "--without-pip", "env", where=tmp_path)
    python, msmae = tmp_path / "env" / "bin" / "python", tmp_path / "env" / "bin" / "msmae"
    call(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        wheel,
        where=tmp_path,
    )
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", where=tmp_path).strip())
    (site / "lent.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}) + "\n")
    place = call(python, "-c", "import msmae; print(msmae.__file__)", where=tmp_path).strip()
    assert Path(place).is_relative_to(site)
    assert "msmae run DATA" in call(msmae, "--help", where=tmp_path)
    if LONG:
        call(msmae, "demo", "--out", "x", where=tmp_path)
    else:
        make = "from msmae.data.phantom import make_phantom; make_phantom('data', images=60, size=32)"
        call(python, "-c", make, where=tmp_path)
        call(msmae, "run", "data", "--out", "x", "--preset", "tiny", where=tmp_path)
    assert (tmp_path / "x" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "x" / "tripod_ai.md").stat().st_size > 1_000
