"""A validation split of one class: what cannot be fitted to it is left out, and the comparison goes on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import msmae
from msmae.errors import UserError


@pytest.mark.slow
def test_an_arm_that_needs_two_classes_in_validation_is_left_out_and_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(data, dtype=str, keep_default_na=False)
    table["image_path"] = [str(data.parent / path) for path in table["image_path"]]
    alone = table[(table["split"] != "val") | (table["label"] == "healthy")].drop(columns="mask_path")
    alone.to_csv(tmp_path / "m.csv", index=False)
    words = {"seeds": [0], "preset": "tiny"}
    plan = msmae.compare(str(tmp_path / "m.csv"), out=str(tmp_path / "c"), arms=["majority", "pca-svm"], **words)
    assert (plan["arms"], plan["missing"]) == (["majority"], [])
    assert "pca-svm is left out: the validation images are of one class" in capsys.readouterr().out
    assert (tmp_path / "c" / "report.html").is_file()
    with pytest.raises(UserError, match="pca-svm: the validation images are of one class"):
        msmae.compare(str(tmp_path / "m.csv"), out=str(tmp_path / "d"), arms=["pca-svm"], **words)
