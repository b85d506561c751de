"""Grades whose order follows from their names are told, with the option that gives another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmae.config import DatasetSettings, Settings
from msmae.data.opening import open_data


def notes_of(folder: Path, labels: list[str], **dataset: object) -> str:
    rows = []
    for number, label in enumerate(labels):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{label}")
    (folder / "t.csv").write_text("\n".join(["image_path,label", *rows]))
    settings = Settings(dataset=DatasetSettings(**dataset))  # type: ignore[arg-type]
    return "\n".join(open_data(folder / "t.csv", settings).notes)


def test_the_order_of_grades_that_is_taken_from_their_names_is_told(tmp_path: Path) -> None:
    said = notes_of(tmp_path, ["none", "mild", "severe"], ordinal=True)
    assert "mild < none < severe" in said
    assert "--class-order" in said


@pytest.mark.parametrize(
    ("labels", "dataset"),
    [
        (["none", "mild", "severe"], {"ordinal": True, "class_order": "none;mild;severe"}),
        (["grade 2", "grade 10", "grade 1"], {"ordinal": True}),
        (["none", "mild", "severe"], {}),
    ],
)
def test_an_order_that_is_given_numbered_or_not_asked_for_is_not_told(
    labels: list[str], dataset: dict[str, object], tmp_path: Path
) -> None:
    assert "<" not in notes_of(tmp_path, labels, **dataset)
