"""The labels of neighbours stay with their neighbours where an image has several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from msmae.data.manifest import Manifest
from msmae.inference import reference
from msmae.inference.reference import reference_of
from msmae.inference.rows import Rows


def test_the_labels_of_several_neighbours_are_as_many_as_they(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = ["edema;mass", ";", "?edema;mass", "mass", ""]
    names = [f"{row}.png" for row in range(len(labels))]
    table = pd.DataFrame({"image_path": names, "label": labels, "split": "train"}, dtype=object)
    Manifest.from_table(table, root=tmp_path, layout="csv").write(tmp_path / "manifest.csv")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    features = np.eye(len(labels), dtype=np.float32)
    monkeypatch.setattr(reference, "cached", lambda *_, **__: features)
    found = reference_of(tmp_path, model=None)  # type: ignore[arg-type]
    frame = pd.DataFrame({"image_path": ["new.png"]})
    rows = Rows(None, 1.0, None, "plain", reference=found, neighbours=5)  # type: ignore[arg-type]
    rows.add_neighbours(frame, np.array([[5.0, 4.0, 3.0, 2.0, 1.0]]))
    assert frame["neighbours"][0].split(";") == names
    assert frame["neighbour_labels"][0].split(";") == ["edema, mass", "none", "?edema, mass", "mass", ""]
