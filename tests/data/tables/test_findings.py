"""One column per finding, as CheXpert has them: what is not known of one finding is known of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from listed_files import noted, touch, write
from msmae.config import DatasetSettings, Settings
from msmae.data.manifest import Manifest, read_manifest
from msmae.data.opening import open_data
from msmae.data.tables.layouts import open_dataset
from msmae.data.understood import understand
from msmae.errors import UserError

NAMES = "Edema;Mass;Nodule"
ROWS = ("1.0,0.0,0.0", "0.0,1.0,1.0", "-1.0,0.0,1.0", ",,", "0,0,0", "0,,0", "1,-1,")


def table(root: Path, *rows: str) -> Path:
    touch(root, *(f"{n}.png" for n in range(len(rows))))
    lines = ["image_path,Edema,Mass,Nodule", *(f"{n}.png,{row}" for n, row in enumerate(rows))]
    (root / "m.csv").write_text("\n".join(lines) + "\n")
    return root / "m.csv"


def read(data: Path, unknown: str = "") -> Manifest:
    column = f"{NAMES};unknown={unknown}" if unknown else NAMES
    return open_data(data, Settings(dataset=DatasetSettings(label_column=column)))


@pytest.mark.parametrize(
    ("policy", "labels"),
    [
        ("ignore", ["Edema", "Mass;Nodule", "?Edema;Nodule", "", ";", "?Mass;", "?Mass;?Nodule;Edema"]),
        ("empty_zeros", ["Edema", "Mass;Nodule", "?Edema;Nodule", ";", ";", ";", "?Mass;Edema"]),
        ("zeros", ["Edema", "Mass;Nodule", "Nodule", ";", ";", ";", "Edema"]),
        ("ones", ["Edema", "Mass;Nodule", "Edema;Nodule", ";", ";", ";", "Edema;Mass"]),
    ],
)
def test_what_is_not_known_of_one_finding_alone(policy: str, labels: list[str], tmp_path: Path) -> None:
    manifest = read(table(tmp_path, *ROWS), unknown=policy)
    assert list(manifest.table["label"]) == labels
    assert manifest.classes == ("Edema", "Mass", "Nodule")
    (fact,) = [fact for fact in understand(manifest).about("classes") if "unknown=" in fact.option]
    assert ("not known" in fact.said) == (policy in ("ignore", "empty_zeros"))
    assert manifest.rules["unknown"] == fact.rule


def test_targets_hold_nan_where_it_is_not_known_and_survive_a_file(tmp_path: Path) -> None:
    manifest = read(table(tmp_path, *ROWS))
    nan = np.nan
    expected = [[1, 0, 0], [0, 1, 1], [nan, 0, 1], [nan] * 3, [0, 0, 0], [0, nan, 0], [1, nan, nan]]
    np.testing.assert_array_equal(manifest.targets(), expected)
    manifest.write(tmp_path / "again.csv")
    np.testing.assert_array_equal(read_manifest(tmp_path / "again.csv").targets(), expected)
    np.testing.assert_array_equal(open_data(tmp_path / "again.csv", Settings()).targets(), expected)


def test_a_policy_where_all_is_known_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown=zeros has no effect"):
        read(table(tmp_path, *ROWS[:2]), unknown="zeros")
    with pytest.raises(UserError, match="unknown=zeroes is not known"):
        read(table(tmp_path, *ROWS), unknown="zeroes")


def test_a_finding_that_is_only_ever_present_or_not_known_is_said(tmp_path: Path) -> None:
    rows = ("1,,0", ",1,", "0,1,1")
    assert any("known to be without Mass" in note for note in read(table(tmp_path, *rows)).notes)
    assert not any("to be without" in note for note in read(table(tmp_path, *rows), "empty_zeros").notes)


@pytest.mark.parametrize("given", ["", "t.csv"])
def test_crosses_mark_what_is_there(given: str, tmp_path: Path) -> None:
    """They were refused, and nothing said how to have them read."""
    touch(tmp_path, *(f"{n}.png" for n in range(8)))
    lines = [f"{n}.png;{';'.join('x' if n >> k & 1 else '' for k in range(3))}" for n in range(8)]
    write(tmp_path, "t.csv", "image_path;Edema;Mass;Node", *lines)
    manifest = open_dataset(tmp_path / given, label_column="Edema;Mass;Node" if given else "label")
    assert manifest.table["label"].tolist()[:4] == [";", "Edema", "Mass", "Edema;Mass"]
    assert noted(manifest, "a cross is 1 and an empty cell 0")


@pytest.mark.parametrize("code", ["99", "9", "u"])
def test_a_finding_with_a_code_in_some_rows_is_asked_about_never_dropped(tmp_path: Path, code: str) -> None:
    touch(tmp_path, *(f"films/{n}.png" for n in range(12)))
    rows = (
        f"{n}.png,{40 + n},{code if n % 5 == 0 else n % 2},{n % 3 % 2},{-1 if n == 2 else n % 2},{n // 9}"
        for n in range(12)
    )
    write(tmp_path, "labels.csv", "file,age,Effusion,Edema,Mass,Device", *rows)
    with pytest.raises(UserError, match=rf"Effusion \({code}\).* leave Effusion out: --label-column 'Edema;Mass"):
        open_dataset(tmp_path)
    named = open_dataset(tmp_path, label_column="Edema;Mass")
    assert named.classes == ("Edema", "Mass")


def test_a_count_beside_findings_is_none_of_them(tmp_path: Path) -> None:
    touch(tmp_path, *(f"films/{n}.png" for n in range(12)))
    rows = (f"{n}.png,{(0, 1, 3)[n % 3]},{n % 2},{n % 3 % 2},{-1 if n == 2 else n // 6}" for n in range(12))
    write(tmp_path, "labels.csv", "file,n_nodules,Effusion,Edema,Mass", *rows)
    assert open_dataset(tmp_path).classes == ("Edema", "Effusion", "Mass")
