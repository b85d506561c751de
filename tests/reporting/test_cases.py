"""Single cases of a report."""

from __future__ import annotations

from pathlib import Path

from msmae.reporting.cases import failures
from msmae.reporting.run_files import Panel
from saved_run import make_predictions


def test_a_slice_has_its_own_picture_and_says_which_it_is(tmp_path: Path) -> None:
    """Every slice of a volume had been shown with the attention map of one of them."""
    rows = make_predictions(classes=("a", "b")).head(2).assign(image_path="v.nii.gz", axis="2", index=["3", "9"])
    rows = rows.assign(label="a", predicted="b")
    name = "v.nii.gz (axis 2, index 9)"
    panel = Panel(name, "a", "b", 0.9, tmp_path / "9.png", "wrong")
    found = failures(rows, classes=("a", "b"), multilabel=False, panels=(panel,))
    assert {case.image_path: case.panel for case in found} == {"v.nii.gz (axis 2, index 3)": None, name: panel}
