"""What the audit says of numbers: of images in other ones than most, and of labels that measure something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_audit import manifest_of, save, texture

from msmae.data.audit import audit, list_warnings
from msmae.verbs.show import show_audit


def test_images_of_another_number_type_are_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(5):
        picture = texture(i).astype(np.uint16) * 257 if i == 3 else texture(i)
        save(tmp_path / f"{i}.png", picture)
    (tmp_path / "broken.png").write_bytes(b"")
    names = [*(f"{i}.png" for i in range(5)), "broken.png"]
    found = audit(manifest_of([{"image_path": name, "label": "ab"[i % 2]} for i, name in enumerate(names)], tmp_path))
    assert (found.other_numbers, found.unreadable) == (1, 1)
    assert found.details["other_numbers"] == [["3.png", "uint16 numbers where most images hold uint8"]]
    assert any("1 image whose pixel type differs from most" in warning for warning in list_warnings(found))
    show_audit(found)
    assert "3.png holds uint16 numbers where most images hold uint8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([f"{60 + i / 2}" for i in range(45)], 45),
        ([f"{i % 21}" for i in range(45)], 21),
        ([f"{i % 20}" for i in range(45)], 0),
        ([f"finding {i}" for i in range(45)], 0),
        ([*(f"{i}" for i in range(44)), "unclear"], 0),
        (["", *(f"{i % 20}" for i in range(44))], 0),
    ],
)
def test_labels_that_are_many_numbers_may_be_a_measurement(
    labels: list[str], told: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(45):
        save(tmp_path / f"{i}.png", texture(i))
    found = audit(manifest_of([{"image_path": f"{i}.png", "label": name} for i, name in enumerate(labels)], tmp_path))
    show_audit(found)
    sentence = f"the labels are {told} different numbers: if they measure something, cut them into classes first"
    assert [warning for warning in list_warnings(found) if "measure" in warning] == [sentence] * bool(told)
    assert ("and 5 more" in capsys.readouterr().out) == (len(set(labels)) == 45)


def test_images_that_name_no_patient_are_not_said_to_be_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for i in range(6):
        save(tmp_path / f"{i}.png", texture(i))
        split, patient = ("train", f"p{i}") if i < 4 else ("test", "")
        rows.append({"image_path": f"{i}.png", "label": "ab"[i % 2], "split": split, "patient_id": patient})
    show_audit(audit(manifest_of(rows, tmp_path)))
    assert "no image and no patient that is named (of 2 images none is) of the test split" in capsys.readouterr().out
    show_audit(audit(manifest_of([{**row, "patient_id": row["image_path"]} for row in rows], tmp_path)))
    assert "no image and no patient of the test split" in capsys.readouterr().out
