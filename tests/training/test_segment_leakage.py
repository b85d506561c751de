"""A segmenter is not tested on what its encoder has learned from, in any run, under any name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import msmae
from msmae.data.audit.against import folders_of
from msmae.data.phantom import make_phantom
from msmae.errors import LeakageError
from msmae.verbs.segment import segment


@pytest.mark.slow
def test_testing_on_what_the_encoder_has_seen_is_refused(data: Path, pretrained: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    table["split"] = table["split"].map({"train": "test", "test": "train", "val": "val"})
    table["patient_id"] = ""
    table.to_csv(data.parent / "swapped.csv", index=False)
    words = {"from_": str(pretrained), "out": str(tmp_path / "run"), "preset": "tiny"}
    with pytest.raises(LeakageError, match=r"by their pixels.*manifest\.csv") as caught:
        segment(str(data.parent / "swapped.csv"), **words)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "run").exists()


def swapped(data: Path, target: Path) -> Path:
    """The same images without patients' names, training and test exchanged."""
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    table["split"] = table["split"].map({"train": "test", "test": "train", "val": "val"})
    table["patient_id"] = ""
    for column in ("image_path", "mask_path"):
        table[column] = [str(data.parent / name) if name else "" for name in table[column]]
    table.to_csv(target, index=False)
    return target


@pytest.mark.slow
def test_leakage_is_found_by_a_file_within_the_run(data: Path, pretrained: Path, tmp_path: Path) -> None:
    weights = pretrained / "pretrained" / "model.safetensors"
    shutil.copy(weights, pretrained / "pretrained" / "mine.safetensors")
    for file in (weights, pretrained / "pretrained" / "mine.safetensors"):
        with pytest.raises(LeakageError, match="by their pixels"):
            segment(str(swapped(data, tmp_path / "a.csv")), from_=str(file), out=str(tmp_path / "run"), preset="tiny")


@pytest.mark.slow
def test_leakage_is_found_through_a_chain_of_runs_and_is_in_the_report(
    data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pretrained.parent)
    make_phantom(tmp_path / "other", images=60, size=32, seed=9)
    words: dict[str, Any] = {"preset": "tiny", "segment": {"epochs": 1}}
    segment(str(tmp_path / "other" / "manifest.csv"), from_=pretrained.name, out=str(tmp_path / "between"), **words)
    monkeypatch.chdir(tmp_path)  # from here the first run has another name
    again = {"from_": str(tmp_path / "between"), "out": str(tmp_path / "run"), **words}
    with pytest.raises(LeakageError, match="by their pixels"):
        segment(str(swapped(data, tmp_path / "a.csv")), **again)
    segment(str(swapped(data, tmp_path / "a.csv")), **again, allow_leakage=True)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Data leakage into the test split" in page
    assert "that the encoder was trained on before" in page


@pytest.mark.slow
def test_a_patient_of_the_encoder_is_no_test_patient_though_no_picture_is_shared(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    for name, first in (("a", 0), ("b", 1)):
        half = table.iloc[first::2].reset_index(drop=True)
        half["patient_id"] = [f"p{row % 20}" for row in range(len(half))]
        tested = 0 if name == "a" else 1  # patients p0, p3, ... are tested there, p1, p4, ... here
        half["split"] = [("test", "train", "val")[(row % 20 - tested) % 3] for row in range(len(half))]
        half.to_csv(data.parent / f"half-{name}.csv", index=False)
    msmae.pretrain(str(data.parent / "half-a.csv"), out=str(tmp_path / "before"), method="mae", preset="tiny")
    with pytest.raises(LeakageError, match=r"\(0 by their pixels, \d+ by their patient"):
        segment(
            str(data.parent / "half-b.csv"), from_=str(tmp_path / "before"), out=str(tmp_path / "run"), preset="tiny"
        )


@pytest.mark.slow
def test_weights_of_unknown_origin_are_told_in_the_report(data: Path, pretrained: Path, tmp_path: Path) -> None:
    shutil.copy(pretrained / "pretrained" / "model.safetensors", tmp_path / "weights.safetensors")
    segment(
        str(data), from_=str(tmp_path / "weights.safetensors"), out=str(tmp_path / "run"), preset="tiny",
        segment={"epochs": 1}, model={"width": 32, "depth": 2, "heads": 2},
    )  # fmt: skip
    assert "is not known: " in (tmp_path / "run" / "report.html").read_text()
    names = (tmp_path / "run" / "loading.txt").read_text()
    assert "..." not in names
    assert "blocks.1.mlp.fc2.bias" in names


def test_the_folders_of_images_are_those_that_links_lead_to(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "4.png").symlink_to(tmp_path / "b" / "3.png")
    rows = "".join(f"{path},x,train\n" for path in ("linked/1.png", "a/2.png", "c/4.png"))
    (tmp_path / "manifest.csv").write_text(f"image_path,label,split\n{rows}")
    assert folders_of(msmae.open_dataset(tmp_path / "manifest.csv")) == {tmp_path / "a", tmp_path / "b"}
