"""One name for an image: predictions.csv calls it what the data called it, and a run's manifest.csv says that too."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from listed_files import touch
from msmae.data.changes import describe_changes
from msmae.data.manifest import read_manifest
from msmae.data.tables.layouts import open_dataset


def test_a_runs_manifest_keeps_the_paths_as_they_were_given(tmp_path: Path) -> None:
    manifest = open_dataset(touch(tmp_path / "data", "a/1.png", "b/1.png"))
    manifest.write(tmp_path / "run/manifest.csv", record=True)
    again = read_manifest(tmp_path / "run/manifest.csv")
    assert list(again.names) == list(manifest.names) == ["a/1.png", "b/1.png"]
    assert again.path(0) == tmp_path / "data/a/1.png"
    assert describe_changes(again, manifest) == ""
    opened = open_dataset(tmp_path / "run/manifest.csv")
    opened.write(tmp_path / "second/manifest.csv", record=True)
    assert list(read_manifest(tmp_path / "second/manifest.csv").names) == ["a/1.png", "b/1.png"]
    manifest.write(tmp_path / "clean.csv")
    assert "as_given" not in read_manifest(tmp_path / "clean.csv").table, "of a table for people there is one path"
    alike = again.with_columns({"as_given": ["1.png", "1.png"]})
    assert list(alike.names) == list(again.table["image_path"]), "names that tell nobody apart are not used"


@pytest.mark.slow
def test_predictions_join_the_manifest_of_their_run(finished: Path) -> None:
    manifest = pd.read_csv(finished / "manifest.csv", dtype=str, keep_default_na=False)
    predictions = pd.read_csv(finished / "predictions.csv", dtype=str, keep_default_na=False)
    key = "as_given" if "as_given" in manifest else "image_path"
    joined = predictions.merge(manifest, left_on="image_path", right_on=key)
    assert len(joined) == len(predictions) == (manifest["split"] != "train").sum()
    assert (joined["label_x"] == joined["label_y"]).all()
