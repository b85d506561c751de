"""What changed in a data set is said by kind, with numbers and examples; the same data is the same wherever written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from msmae.data.changes import describe_changes
from msmae.data.manifest import Manifest, read_manifest


def manifest(root: Path, **columns: list[str]) -> Manifest:
    names = {
        "image_path": [f"{n}.png" for n in range(6)],
        "label": list("ababab"),
        "split": ["train"] * 4 + ["test"] * 2,
    }
    return Manifest.from_table(pd.DataFrame({**names, **columns}, dtype=object), root=root, layout="csv")


def test_a_copy_written_elsewhere_is_the_same(tmp_path: Path) -> None:
    given = manifest(tmp_path / "data", mask_path=["m.png;n.png", "", "", "", "", ""], age=["1"] * 6)
    given.write(tmp_path / "run" / "manifest.csv")
    assert describe_changes(read_manifest(tmp_path / "run" / "manifest.csv"), given) == ""


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": list("bbabab")}, "1 image with another label (ROOT/0.png)"),
        ({"split": ["train"] * 3 + ["test"] * 3}, "1 image with another split (ROOT/3.png)"),
        ({"patient_id": ["p"] * 6}, "6 images with another patient_id (ROOT/0.png, ROOT/1.png, ROOT/2.png and 3 more)"),
        ({"age": ["", "", "", "", "", "7"]}, "1 image with another age (ROOT/5.png)"),
        ({"mask_path": ["m.png", "", "", "", "", ""]}, "1 image with another mask_path (ROOT/0.png)"),
        ({"frame": ["2", "", "", "", "", ""]}, "1 image new (ROOT/0.png 2); 1 image gone (ROOT/0.png)"),
        (
            {"image_path": ["9.png", *(f"{n}.png" for n in range(1, 6))]},
            "1 image new (ROOT/9.png); 1 image gone (ROOT/0.png)",
        ),
    ],
)
def test_every_kind_of_change_is_named(columns: dict[str, list[str]], said: str, tmp_path: Path) -> None:
    assert describe_changes(manifest(tmp_path), manifest(tmp_path, **columns)) == said.replace("ROOT", str(tmp_path))


def test_another_order_is_a_change_because_rows_are_sample_ids(tmp_path: Path) -> None:
    given = manifest(tmp_path)
    assert describe_changes(given, given.select(np.arange(6)[::-1])) == "the images are in another order"
