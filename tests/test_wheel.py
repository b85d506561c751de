"""A built wheel works in an empty environment outside the repository, with every file that it reads."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from documented import blocks

REPOSITORY = Path(__file__).resolve().parents[1]
LONG = os.environ.get("MSMAE_LONG") == "1"
ALONE = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def call(*words: str | Path, where: Path, env: dict[str, str] | None = None) -> str:
    """Run a command with nothing of this checkout in sight; its standard output."""
    done = subprocess.run(
        [str(word) for word in words], cwd=where, env=ALONE | (env or {}), capture_output=True, text=True
    )
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


def lend(python: Path) -> Path:
    """Lend an environment what is installed here; where its own packages lie."""
    own = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", where=python.parent)
    site = Path(own.strip())
    (site / "lent.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}) + "\n")
    return site


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
    site = lend(python)
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


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="half a minute: MSMAE_LONG=1")
def test_the_dockerfile_does_what_it_says_in_an_empty_environment(tmp_path: Path) -> None:
    """Its instructions in order, in a folder in the place of the image's root. The one that downloads is read, not run:
    its packages are lent. Then the commands of its page.
    """
    pytest.importorskip("hatchling", reason="the package that builds the wheel is not installed (make install)")
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    call(sys.executable, "-m", "venv", "env", where=tmp_path)
    lend(tmp_path / "env" / "bin" / "python")
    env = {"PATH": f"{tmp_path / 'env' / 'bin'}:{os.environ['PATH']}"}
    where, begins, shown = tmp_path, [], []
    for word, rest in steps:
        if word == "WORKDIR":
            where = tmp_path / rest.strip("/")
            where.mkdir(parents=True)
        elif word == "ENV":
            env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "COPY":
            for source in rest.split()[:-1]:  # each to its own name
                copy = shutil.copytree if (REPOSITORY / source).is_dir() else shutil.copyfile
                copy(REPOSITORY / source, where / source)
        elif word == "RUN" and "requirements.lock" in rest:
            (pinned,) = re.findall(r'"\$\((.+?)\)"', rest)
            assert re.fullmatch(r"torch==[\d.]+\n", call("sh", "-c", pinned, where=where))
        elif word == "RUN":
            call("sh", "-c", rest, where=where, env=env)
        elif word in ("ENTRYPOINT", "CMD"):
            begins, shown = (json.loads(rest), shown) if word == "ENTRYPOINT" else (begins, json.loads(rest))
        else:
            assert word in ("FROM", "ARG")
    env["MSMAE_CACHE"] = str(tmp_path / env["MSMAE_CACHE"].strip("/"))
    assert "msmae run DATA" in call(*begins, *shown, where=where, env=env)
    call(*begins, "demo", "--help", where=where, env=env)
    page = "\n".join(block.text for block in blocks(REPOSITORY / "docs" / "howto" / "docker.md"))
    checks = [
        line.split(" msmae ", 1)[1] for line in page.splitlines() if line.startswith("docker run") and "check" in line
    ]
    make = "from msmae.data.phantom import make_phantom; make_phantom('images', images=60, size=32)"
    call("python", "-c", make, where=where, env=env)
    assert checks
    for words in checks:
        assert "60" in call(*begins, *words.replace("/data/", f"{where}/").split(), where=where, env=env)
