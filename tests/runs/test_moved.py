"""A run whose images were moved since: told, and found again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from listed_files import touch
from msmae.data.manifest import read_manifest
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError
from msmae.runs.moved import locate_images
from msmae.verbs.evaluate import evaluate


@pytest.mark.parametrize("told", ["the folder", "a table in it", "phantom"])
def test_images_that_were_moved_are_found_again_with_their_masks(told: str, tmp_path: Path) -> None:
    old, run = touch(tmp_path / "old", "a/1.png", "a/1_mask.png", "b/c/#2.png"), tmp_path / "run"
    data = {"the folder": old, "a table in it": old / "m.csv", "phantom": "phantom"}[told]
    run.mkdir()
    open_dataset(old).write(run / "manifest.csv", record=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"data": str(data), "settings": {}}))
    before = (run / "manifest.csv").read_bytes()
    locate_images(run, None)
    shutil.move(old, tmp_path / "new")
    with pytest.raises(UserError, match=r"are gone, the first is .*old/a/1\.png.*--root DIR"):
        locate_images(run, None)
    with pytest.raises(UserError, match=r"3 files missing.*takes the place of .*old"):
        locate_images(run, str(tmp_path))
    assert (run / "manifest.csv").read_bytes() == before
    locate_images(run, str(tmp_path / "new"))
    found = read_manifest(run / "manifest.csv")
    assert [found.path(row) for row in range(2)] == [tmp_path / "new/a/1.png", tmp_path / "new/b/c/#2.png"]
    assert found.mask_paths(0) == [tmp_path / "new/a/1_mask.png"]
    locate_images(run, None)


def test_rows_of_an_archive_are_looked_for_in_their_file(tmp_path: Path) -> None:
    old, run = tmp_path / "old", tmp_path / "run"
    old.mkdir()
    run.mkdir()
    np.savez(old / "x.npz", train_images=np.zeros((4, 8, 8), np.uint8), train_labels=np.arange(4) % 2)
    open_dataset(old / "x.npz").write(run / "manifest.csv", record=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"data": str(old / "x.npz"), "settings": {}}))
    locate_images(run, None)
    shutil.move(old, tmp_path / "new")
    with pytest.raises(UserError, match="are gone"):
        locate_images(run, None)
    locate_images(run, str(tmp_path / "new"))
    assert read_manifest(run / "manifest.csv").path(2) == tmp_path / "new/x.npz#train/2"


@pytest.mark.slow
def test_a_run_is_evaluated_where_its_images_lie_now(finished: Path, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    moved = shutil.copytree(data.parent, tmp_path / "moved")
    config = yaml.safe_load((run / "config.yaml").read_text())
    gone = (run / "manifest.csv").read_text().replace(str(data.parent), "/gone")
    (run / "manifest.csv").write_text(gone)
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"data": "/gone/manifest.csv"}))
    (run / "record.json").unlink()
    with pytest.raises(UserError, match="--root DIR"):
        evaluate(str(run))
    before = (run / "predictions.csv").read_text()
    evaluate(str(run), root=str(moved))
    assert str(moved) in (run / "manifest.csv").read_text()
    assert (run / "predictions.csv").read_text() == before, "the images are called as the data calls them"
