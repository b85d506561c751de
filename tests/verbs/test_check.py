"""`msmae check` as a person types it: exit codes, files, the repair and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from msmae.cli import main
from msmae.data.manifest import read_manifest
from msmae.errors import LeakageError, UserError
from msmae.verbs.check import check


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).uniform(0, 255, (12, 12)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC))
    return Image.fromarray(smooth.clip(0, 255).astype(np.uint8))


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """30 + 12 pictures of two classes, of which two test pictures are training pictures in another format."""
    root = tmp_path / "my data"
    for split, first, number in (("train", 0, 30), ("test", 100, 12)):
        for i in range(number):
            (root / split / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            picture(first + i).save(root / split / "ab"[i % 2] / f"{i:02}.png")
    picture(4).save(root / "test/a/copy.bmp")
    picture(6).save(root / "test/a/copy.tif")
    return root


def exit_code(*words: str | Path) -> Any:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code


def test_leakage_exits_with_3_after_writing_what_was_found(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("check", leaking, "--out", tmp_path / "audit") == 3
    said = capsys.readouterr()
    assert "2 test images with exactly the pixels" in said.err
    assert f"msmae check '{leaking}' --repair clean.csv" in said.err
    assert said.out.startswith("What was understood\n  layout    folder: ")
    assert json.loads((tmp_path / "audit/audit.json").read_text())["understood"]["layout"] == "folder"
    content = json.loads((tmp_path / "audit/audit.json").read_text())
    assert content["format_version"] == 1
    wanted = {
        **{"images": 44, "patients": 0, "classes": 2, "masks": 0, "unreadable": 0, "identical_pairs": 2},
        **{"test_identical_to_pool": 2, "test_near_pool": 0, "label_conflicts": 0, "patients_crossing": 0},
    }
    assert {name: content[name] for name in wanted} == wanted
    with Image.open(tmp_path / "audit/worst_pairs.png") as sheet:
        assert sheet.width > sheet.height


def test_allowed_leakage_exits_with_0_and_is_said(leaking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("check", leaking, "--allow-leakage") == 0
    said = capsys.readouterr().out
    assert "leaks into the test split" in said
    assert "with identical pixels" in said
    assert "images with a mask" not in said, "rows of zeros are not printed"


def test_the_repaired_manifest_is_clean_and_can_be_checked_in_turn(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = tmp_path / "clean.csv"
    assert exit_code("check", leaking, "--repair", clean, "--out", tmp_path / "audit") == 0
    assert "left out: 2 the same pixels as another image" in capsys.readouterr().out
    table = read_manifest(clean).table
    assert len(table) == 42
    assert set(table["split"]) == {"train", "val", "test"}
    left_out = pd.read_csv(tmp_path / "clean.left-out.csv")
    assert len(left_out) == 2
    assert set(left_out["reason"]) == {"the same pixels as another image"}
    assert exit_code("check", clean) == 0
    assert "no image (patients are not known) of the test split" in capsys.readouterr().out
    content = json.loads((tmp_path / "audit/audit.json").read_text())
    assert (content["test_identical_to_pool"], content["repair"]["test_identical_to_pool"]) == (2, 0)


def test_a_table_of_the_users_own_is_not_replaced_unasked(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("image_path\n")
    assert exit_code("check", leaking, "--repair", mine) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert mine.read_text() == "image_path\n"
    assert exit_code("check", leaking, "--repair", mine, "--overwrite") == 0
    assert len(read_manifest(mine)) == 42


@pytest.mark.parametrize("name", ["NA", "none"])
def test_a_class_called_like_an_empty_cell_outlives_the_repair(name: str, tmp_path: Path) -> None:
    for i in range(24):
        (tmp_path / "data" / (name, "ill")[i % 2]).mkdir(parents=True, exist_ok=True)
        picture(i).save(tmp_path / "data" / (name, "ill")[i % 2] / f"{i}.png")
    check(str(tmp_path / "data"), repair=str(tmp_path / "clean.csv"))
    again = check(str(tmp_path / "clean.csv"))
    assert (again["classes"], sorted(again["splits"])) == (2, sorted([name, "ill"]))


def test_splits_that_check_cuts_itself_part_no_copies(tmp_path: Path) -> None:
    for i in range(60):
        for copy in range(1 + (i < 40)):
            (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
            picture(i).save(tmp_path / "ab"[i % 2] / f"{i:02}-{copy}.{('png', 'bmp')[copy]}")
    content = check(str(tmp_path))
    assert (content["identical_pairs"], content["test_identical_to_pool"]) == (40, 0)
    assert sum(row.get("test", 0) for row in content["splits"].values()) >= 10


def test_an_unlabelled_folder_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(5):
        picture(min(i, 3)).save(tmp_path / f"{i}.png")
    content = check(str(tmp_path))
    assert (content["images"], content["classes"], content["identical_pairs"]) == (5, 0, 1)
    said = capsys.readouterr().out
    assert "msmae run       no: no training image has a label" in said
    assert "msmae segment   no: the data has no masks" in said
    assert "msmae pretrain  yes, with --method mae or" in said
    (tmp_path / "damaged.png").write_bytes(b"")
    assert exit_code("check", tmp_path, "--out", tmp_path / "audit") == 2
    assert "1 image cannot be used" in capsys.readouterr().err
    assert json.loads((tmp_path / "audit/audit.json").read_text())["unreadable"] == 1


@pytest.mark.slow
def test_the_phantom_passes() -> None:
    content = check("phantom")
    assert not content["leaks"]
    assert content["masks"] > 0
    assert content["near_pairs"] == 0


def test_bad_options_are_one_sentence(leaking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("--near-bits", "40"), ("--layout", "nonsense"), ("--val-fraction", "1.5")):
        assert exit_code("check", leaking, *words) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert exit_code("check", leaking / "nowhere") == 2


def test_an_odd_name_reaches_the_audit_whole(tmp_path: Path) -> None:
    odd = ["[red]a.png", "b c.png", "d\n'e.png", "f\udcff.png"]
    rows = []
    for i, name in enumerate(odd):
        picture(min(i, 2)).save(tmp_path / name)
        rows.append(f'"{name}",{"ab"[i % 2]}')
    for i in range(10, 20):
        picture(i).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'ab'[i % 2]}")
    table = "\n".join(["image_path,label", *rows])
    (tmp_path / "list.csv").write_text(table, encoding="utf-8", errors="surrogateescape")
    content = check(str(tmp_path / "list.csv"), out=str(tmp_path / "audit"), repair=str(tmp_path / "clean.csv"))
    assert content["details"]["identical"] == [["d\n'e.png", "f\\xff.png"]]
    assert len(read_manifest(tmp_path / "clean.csv")) == 12  # the two copies have two labels, so neither stays


def test_as_a_function_it_raises(leaking: Path) -> None:
    with pytest.raises(LeakageError):
        check(str(leaking))


def test_folds_test_every_image_once_and_none_of_them_leaks(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folds"
    assert exit_code("check", leaking, "--folds", "3", "--repeats", "2", "--out", out) == 0
    assert f"{out}/repeat-2-fold-3.csv" in capsys.readouterr().out
    for repeat in (1, 2):
        manifests = [read_manifest(out / f"repeat-{repeat}-fold-{fold}.csv") for fold in (1, 2, 3)]
        tested = [manifest.table["image_path"][manifest.ids("test")] for manifest in manifests]
        assert sorted(pd.concat(tested)) == sorted(manifests[0].table["image_path"])
        assert all(len(manifest.ids("val")) > 0 for manifest in manifests)
    assert len(manifests[0]) == 44
    assert exit_code("check", out / "repeat-1-fold-1.csv") == 0
    folds = json.loads((out / "audit.json").read_text())["folds"]
    assert [fold["train"] + fold["val"] + fold["test"] for fold in folds] == [44] * 6


def test_folds_of_repaired_data_hold_what_the_repair_kept(leaking: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean.csv"
    assert exit_code("check", leaking, "--repair", clean, "--folds", "2", "--out", tmp_path / "folds") == 0
    fold = read_manifest(tmp_path / "folds/fold-2.csv")
    images = {fold.path(sample).resolve() for sample in range(len(fold))}
    kept = read_manifest(clean)
    assert images == {kept.path(sample).resolve() for sample in range(len(kept))}


def test_folds_that_cannot_be_written_are_refused_before_the_audit(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (["--folds", "3"], "--out"),
        (["--folds", "1", "--out", tmp_path], "at least 2 folds"),
        (["--folds", "2", "--repeats", "0", "--out", tmp_path], "1 repeat"),
    ):
        assert exit_code("check", leaking, *words) == 2
        shown = capsys.readouterr()
        assert said in shown.err
        assert "read as" not in shown.out
    (tmp_path / "fold-2.csv").write_text("mine")
    assert exit_code("check", leaking, "--folds", "2", "--out", tmp_path) == 2
    assert (tmp_path / "fold-2.csv").read_text() == "mine"
    assert exit_code("check", leaking, "--folds", "2", "--out", tmp_path, "--overwrite") == 0


def test_the_terminal_names_some_of_what_cannot_be_read_and_the_json_all(
    leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(9):
        (leaking / f"train/a/empty{i}.png").touch()
    exit_code("check", leaking, "--out", tmp_path / "audit")
    shown = capsys.readouterr().out
    assert sum("empty" in line and line.startswith("  ") for line in shown.splitlines()) == 5
    assert "and 4 more" in shown
    assert len(json.loads((tmp_path / "audit/audit.json").read_text())["details"]["unreadable"]) == 9


def test_a_picture_under_two_labels_is_a_warning_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(24):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        picture(i).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    assert exit_code("check", tmp_path) == 0
    assert "labels" not in capsys.readouterr().out
    picture(0).save(tmp_path / "b" / "again.png")
    assert exit_code("check", tmp_path) == 0
    said = capsys.readouterr().out
    assert "warning: 1 image present more than once, with different labels" in said
    assert "a/0.png is a" in said
    assert "b/again.png is b" in said


def test_what_stops_the_check_is_said_once(leaking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code("check", leaking)
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("leaks into the test split") == 1


def table_of(folder: Path, rows: list[tuple[str, str]]) -> pd.DataFrame:
    """Labels and splits of pictures that lie in a folder."""
    for i in range(len(rows)):
        picture(i).save(folder / f"{i}.png")
    labels, splits = zip(*rows, strict=True)
    return pd.DataFrame({"image_path": [f"{i}.png" for i in range(len(rows))], "label": labels, "split": splits})


FEW = [("a", "train"), ("b", "train"), ("a", "val"), ("b", "val"), ("a", "test"), ("b", "test")] * 4
"""Rows that a run takes."""
REFUSED: dict[str, Callable[[Path, pd.DataFrame], pd.DataFrame]] = {
    "only one class": lambda folder, table: table[table["label"] == "a"],
    "no training image of rare": lambda folder, table: table.assign(
        label=table["label"].where(table.index != 4, "rare")
    ),
    "no image of the test split has a label": lambda folder, table: table.assign(
        label=table["label"].where(table["split"] != "test", "")
    ),
    "no training image has a label": lambda folder, table: table.assign(
        label=table["label"].where(table["split"] != "train", "")
    ),
    "too few images": lambda folder, table: table.assign(
        split="", label=table["label"].where(table.index != 4, "rare")
    ),
    "3.png": lambda folder, table: [(folder / "3.png").write_bytes(b""), table][1],  # type: ignore[return-value]
    "uint16": lambda folder, table: [deep(folder / "3.png"), table][1],  # type: ignore[return-value]
    "channels": lambda folder, table: table.assign(
        image_path=table["image_path"].where(table.index != 3, five_channels(folder))
    ),
    "mask": lambda folder, table: table.assign(mask_path=np.where(table.index == 3, mask(folder), "")),
}  # fmt: skip
"""What a run says -> what is done to pictures and table so that it does."""


def deep(path: Path) -> None:
    Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40)).save(path)


def five_channels(folder: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 40, 40), dtype=np.uint8)
    tifffile.imwrite(folder / "five.tif", pixels, photometric="minisblack", planarconfig="separate")
    return "five.tif"


def mask(folder: Path) -> str:
    Image.new("L", (7, 40)).save(folder / "mask.tif")
    return "mask.tif"


@pytest.mark.parametrize("said", REFUSED)
def test_check_refuses_what_a_run_refuses(said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of(tmp_path, FEW)
    data = tmp_path / "m.csv"
    table.to_csv(data, index=False)
    assert exit_code("check", data) == 0
    REFUSED[said](tmp_path, table).to_csv(data, index=False)
    capsys.readouterr()
    assert exit_code("run", data, "--out", tmp_path / "run", "--preset", "tiny") == 2
    assert said in capsys.readouterr().err
    assert exit_code("check", data, "--out", tmp_path / "audit") == 2
    assert said in capsys.readouterr().err
    assert said in json.loads((tmp_path / "audit/audit.json").read_text())["obstacles"][0]


def test_that_no_image_can_be_read_is_the_one_reason(tmp_path: Path) -> None:
    """Labels and classes lack nothing because files are, say, volumes that were not cut into slices."""
    table = table_of(tmp_path, FEW)
    for name in table["image_path"]:
        (tmp_path / name).write_bytes(b"")
    table.to_csv(tmp_path / "m.csv", index=False)
    assert exit_code("check", tmp_path / "m.csv", "--out", tmp_path / "audit") == 2
    (reason,) = json.loads((tmp_path / "audit/audit.json").read_text())["trains"]["run"]
    assert "0.png" in reason


def test_everything_that_a_run_would_refuse_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of(tmp_path, FEW)
    (tmp_path / "0.png").write_bytes(b"")
    table[table["label"] == "a"].to_csv(tmp_path / "m.csv", index=False)
    assert exit_code("check", tmp_path / "m.csv") == 2
    said = capsys.readouterr().err
    assert "0.png" in said
    assert "only one class" in said
    assert exit_code("check", tmp_path / "m.csv", "--repair", tmp_path / "clean.csv") == 0
    assert "only one class" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "masks", "code", "stopped"),
    [
        ("ab", 24, 0, ""),
        ("ab", 12, 0, "segment"),
        ("a", 24, 0, "run pretrain"),
        ("a", 0, 2, "run segment pretrain"),
        ("", 24, 0, "run"),
        ("", 12, 2, "run segment"),
        ("", 0, 0, "run segment"),
    ],
)
def test_check_says_which_verbs_can_train_and_ends_as_the_one_that_the_data_is_for(
    labels: str, masks: int, code: int, stopped: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of(tmp_path, FEW).assign(label=[labels[i % len(labels)] if labels else "" for i in range(len(FEW))])
    Image.new("L", (40, 40)).save(tmp_path / "mask.tif")
    table.assign(mask_path=["mask.tif" if i < masks else "" for i in range(len(FEW))]).to_csv(tmp_path / "m.csv")
    words = [tmp_path / "m.csv", *([] if labels else ["--label-column", ""])]
    assert exit_code("check", *words, "--out", tmp_path / "audit") == code
    trains = json.loads((tmp_path / "audit/audit.json").read_text())["trains"]
    assert " ".join(verb for verb, found in trains.items() if found) == stopped
    said = capsys.readouterr().out
    assert [f"msmae {verb:8}  no: " in said for verb in trains] == [bool(found) for found in trains.values()]
    if (labels, masks) == ("", 12):
        assert exit_code("check", *words, "--on-error", "skip") == 0, "training leaves them out"


def test_masks_whose_numbers_segment_refuses_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for n in range(6):
        Image.fromarray(random.integers(0, 255, (32, 32), dtype=np.uint8)).save(tmp_path / f"data/images/{n}.png")
        Image.fromarray(random.integers(0, 4, (32, 32), dtype=np.uint8)).save(tmp_path / f"data/masks/{n}.png")
    with pytest.raises(UserError, match=r"values 0, 1, 2, 3.*--segment\.classes"):
        check(str(tmp_path / "data"))
    assert "msmae segment   no: the mask holds" in capsys.readouterr().out
