"""Data that cannot be used: one clear sentence, exit code 2, nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmae.cli import main


def picture(path: Path, *, size: int = 32, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def class_folders(root: Path, *, classes: tuple[str, ...] = ("a", "b"), size: int = 32) -> Path:
    for number, name in enumerate(classes):
        for i in range(12):
            picture(root / name / f"{i}.png", size=size, seed=100 * number + i)
    return root


def empty_class(root: Path) -> Path:
    (class_folders(root) / "c").mkdir()
    return root


def one_class(root: Path) -> Path:
    return class_folders(root, classes=("a",))


def unreadable_file(root: Path) -> Path:
    (class_folders(root) / "a" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    return root


def no_label_column(root: Path) -> Path:
    picture(root / "x.png")
    (root / "table.csv").write_text("image_path,diagnosis\nx.png,sick\n")
    return root / "table.csv"


def missing_files(root: Path) -> Path:
    picture(root / "x.png")
    (root / "table.csv").write_text("image_path,label\nx.png,a\ngone.png,b\nlost.png,a\n")
    return root / "table.csv"


def tiny_images(root: Path) -> Path:
    return class_folders(root, size=3)


def an_empty_folder(root: Path) -> Path:
    root.mkdir()
    return root


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (empty_class, ["c"]),
        (one_class, ["one class", "a"]),
        (unreadable_file, ["3.png"]),
        (no_label_column, ["label", "diagnosis"]),
        (missing_files, ["gone.png", "lost.png"]),
        (tiny_images, ["3 px", "patch"]),
        (an_empty_folder, ["no image"]),
    ],
)
def test_bad_data_is_named(
    make: Callable[[Path], Path],
    said: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))
    data = make(tmp_path / "data")
    with pytest.raises(SystemExit) as caught:
        main(["run", str(data), "--out", str(tmp_path / "run"), "--preset", "tiny"])
    error = capsys.readouterr().err
    assert caught.value.code == 2, error
    assert all(words in error for words in said), error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("classes", "words", "said"),
    [
        (("a",), [], "only one class"),
        (("a", "b"), ["--unit", "study"], "no column 'study'"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "compare"])
def test_what_the_table_lacks_is_told_before_an_image_is_read(
    verb: str, classes: tuple[str, ...], words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(tmp_path / "data", classes=classes)
    for file in root.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(SystemExit):
        main([verb, str(root), "--out", str(tmp_path / "out"), "--preset", "tiny", *words])
    shown = capsys.readouterr()
    assert said in shown.err
    assert "What was understood" in shown.out
    assert "auditing" not in shown.out


@pytest.mark.slow
def test_a_single_small_image_is_named_or_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))
    root = class_folders(tmp_path / "data")
    picture(root / "a" / "speck.png", size=1)
    words = ["run", str(root), "--out", str(tmp_path / "run"), "--preset", "tiny"]
    with pytest.raises(SystemExit) as caught:
        main(words)
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert "1 x 1 pixels, less than one patch" in error
    assert "speck.png" in error
    assert error.splitlines()[-1].endswith("leave them out with --on-error skip")
    with pytest.raises(SystemExit) as caught:
        main([*words, "--on-error", "skip"])
    assert caught.value.code == 0
    assert "speck" not in (tmp_path / "run" / "predictions.csv").read_text()


def test_where_nothing_can_be_read_the_first_reason_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))
    root = class_folders(tmp_path / "data")
    for file in root.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(SystemExit):
        main(["run", str(root), "--out", str(tmp_path / "run"), "--preset", "tiny"])
    assert "the first: the file is empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["check", str(root)])
    assert "no image can be read: nothing is known" in capsys.readouterr().out
