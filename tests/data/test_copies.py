"""Changed copies of a picture stay with it, by their names; one in another given split than its picture leaks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from listed_files import noted, rows, touch, write
from msmae.data.audit.columns import Columns
from msmae.data.copies import ALIKE, COPIED, with_copies
from msmae.data.manifest import Manifest, read_manifest
from msmae.data.tables.layouts import open_dataset
from msmae.errors import LeakageError
from msmae.verbs.check import check


def with_pool(manifest: Manifest, beginning: str) -> list[str]:
    """The test images whose cluster has images in the pool."""
    return manifest.table["image_path"][Columns.of(manifest).clustered_with_pool(beginning)].tolist()


def together(manifest: Manifest, *paths: str) -> bool:
    """Whether these files are of one cluster."""
    of = dict(rows(manifest, "image_path", "cluster"))
    return len({of[path] for path in paths}) == 1 and of[paths[0]] != ""


@pytest.mark.parametrize(
    "copy",
    [
        *("{}_flip", "{}_rot90", "{}_aug_2", "{}_90", "{}_180", "{}_0_1234", "{}_transformed_1", "{} - Kopie"),
        *("{}_flip_rot90", "{}_gespiegelt", "{}_fliplr", "{}_elastic"),
        *("flip_{}", "rotated_90_{}", "aug_1_{}", "hflip_{}", "rot90-{}", "Copy of {}"),
    ],
)
def test_a_copy_in_training_of_a_test_picture_leaks(copy: str, tmp_path: Path) -> None:
    names = {"a": ("scan101", "scan944"), "b": ("scan312", "scan777")}
    touch(tmp_path, *(f"test/{label}/{name}.png" for label, both in names.items() for name in both))
    touch(tmp_path, *(f"train/{label}/{copy.format(both[0])}.png" for label, both in names.items()))
    touch(tmp_path, *(f"train/{label}/scan{n}.png" for label in names for n in (5001, 5002)))
    manifest = open_dataset(tmp_path)
    assert sorted(with_pool(manifest, COPIED)) == ["test/a/scan101.png", "test/b/scan312.png"]
    assert noted(manifest, "2 images named like another")


@pytest.mark.parametrize("copy", ["{}_flip", "aug_1_{}", "{}_90"])
def test_a_copy_in_the_same_folder_leaks_where_a_table_parts_them(copy: str, tmp_path: Path) -> None:
    people = [f"scan{n}" for n in (101, 202, 303, 404)]
    touch(tmp_path, *(f"{name}.png" for one in people for name in (one, copy.format(one))))
    split = ("train", "train", "train", "test", "train", "train", "test", "test")
    files = [f"{name}.png" for one in people for name in (one, copy.format(one))]
    lines = (f"{file},{'ab'[n % 4 > 1]},{split[n]}" for n, file in enumerate(files))
    write(tmp_path, "m.csv", "image_path,label,split", *lines)
    assert with_pool(open_dataset(tmp_path / "m.csv"), COPIED) == [copy.format("scan202") + ".png"]


def test_check_stops_at_a_copy_and_the_repair_keeps_it_with_its_picture(tmp_path: Path) -> None:
    """The pixels are not compared here: every file has its own."""
    generator = np.random.default_rng(0)
    files = [f"test/{c}/scan{c}{n}.png" for c in "ab" for n in range(4)]
    files += [f"train/{c}/{name}.png" for c in "ab" for n in range(4) for name in (f"scan{c}{n}_flip", f"other{c}{n}")]
    for file in files:
        (tmp_path / "d" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (32, 32), dtype=np.uint8)).save(tmp_path / "d" / file)
    with pytest.raises(
        LeakageError, match=r"8 test images named as a changed copy, or the original, of a training or validation image"
    ):
        check(str(tmp_path / "d"))
    content = check(str(tmp_path / "d"), repair=str(tmp_path / "clean.csv"))
    assert (content["test_copies_in_pool"], content["leaking_images"], content["repair"]["leaks"]) == (8, 8, False)
    mended = read_manifest(tmp_path / "clean.csv")
    split = {Path(path).stem: split for path, split in rows(mended, "image_path", "split")}
    assert all(split[f"scan{c}{n}"] == split[f"scan{c}{n}_flip"] for c in "ab" for n in range(4))


def test_numbers_that_begin_anew_are_no_copies_of_one_another(tmp_path: Path) -> None:
    """Every split has its own 1.png, and the copies are of that."""
    for split in ("train", "test"):
        touch(tmp_path, *(f"{split}/{c}/{n}{end}.png" for c in "ab" for n in range(4) for end in ("", "_flip")))
    manifest = open_dataset(tmp_path)
    assert with_pool(manifest, COPIED) == []
    assert together(manifest, "test/a/1.png", "test/a/1_flip.png")
    assert not together(manifest, "test/a/1.png", "train/a/1.png")


def test_a_picture_of_another_label_or_patient_is_not_what_a_copy_was_made_of(tmp_path: Path) -> None:
    touch(tmp_path / "f", *(f"test/{c}/{c}{n}.png" for c in "ab" for n in range(100, 103)))
    touch(tmp_path / "f", "train/a/flip_b100.png", "train/b/b100_b101.png", "train/a/7.png", "train/b/8.png")
    assert with_pool(open_dataset(tmp_path / "f"), COPIED) == []
    touch(tmp_path / "p", *(f"{p}/{name}.png" for p in ("x", "y") for name in ("scan1", "scan2")), "z/scan1_flip.png")
    cells = ("x/scan1.png,a,p1", "x/scan2.png,b,p1", "y/scan2.png,a,p2", "z/scan1_flip.png,a,p3")
    write(tmp_path / "p", "m.csv", "image_path,label,patient_id", *cells)
    assert "cluster" not in open_dataset(tmp_path / "p" / "m.csv").table


@pytest.mark.parametrize("more", ["A", "-1", "_2", "_oblique", " (1)"])
def test_views_and_slices_of_one_name_stay_together_and_leak_nothing(more: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/img{c}{n}{end}.png" for c in "ab" for n in range(101, 105) for end in ("", more)))
    files = [f"{c}/img{c}{n}{end}.png" for c in "ab" for n in range(101, 105) for end in ("", more)]
    lines = (f"{file},{file[0]},{'test' if n in (1, 2, 3) else 'train'}" for n, file in enumerate(files))
    write(tmp_path, "m.csv", "image_path,label,split", *lines)
    manifest = open_dataset(tmp_path / "m.csv")
    assert together(manifest, "a/imga101.png", f"a/imga101{more}.png")
    kind = COPIED if more == " (1)" else ALIKE  # a computer's mark of a copy
    assert with_pool(manifest, kind) == [f"a/imga101{more}.png"]


def test_a_word_that_all_names_begin_with_joins_nobody(tmp_path: Path) -> None:
    touch(tmp_path / "one", *(f"{c}/scan{n}.png" for c in "ab" for n in ("", *(f"_{n}" for n in range(30)))))
    touch(tmp_path / "all", *(f"{c}/img_aug_{n}.png" for c in "ab" for n in range(30)))
    for folder in ("one", "all"):
        assert "cluster" not in open_dataset(tmp_path / folder).table


def test_copies_without_their_picture_are_a_warning(tmp_path: Path) -> None:
    """``scan0_noise_0`` and ``scan0_noise_1`` may be two scans of a noisy kind."""
    for base, split in (("scan{}", [1, 0, 0, 0, 0, 0, 0, 0]),):
        folder = tmp_path / base.strip("{}")
        files = [f"{base.format(n // 2)}_noise_{n}.png" for n in range(8)]
        touch(folder, *files)
        write(
            folder,
            "m.csv",
            "image_path,label,split",
            *(f"{file},{'ab'[n % 4 > 1]},{'test' if split[n] else 'train'}" for n, file in enumerate(files)),
        )
        manifest = open_dataset(folder / "m.csv")
        assert (with_pool(manifest, COPIED), with_pool(manifest, ALIKE)) == ([], files[:1])


def test_an_angle_among_other_numbers_is_a_number(tmp_path: Path) -> None:
    """Slices 88 to 92 of a scan whose overview is in the test split."""
    touch(tmp_path, *(f"test/{c}/scan{c}777.png" for c in "ab"))
    touch(tmp_path, *(f"train/{c}/scan{c}777_{n}.png" for c in "ab" for n in range(88, 93)))
    assert with_pool(open_dataset(tmp_path), COPIED) == []


def test_copies_that_bear_the_number_of_their_picture_stay_with_it(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/IMG_{n:04}.png" for c in "ab" for n in range(4)))
    touch(tmp_path, *(f"{c}/aug_{n:04}_{n + 37}{k}.jpeg" for c in "ab" for n in range(4) for k in (1, 2)))
    manifest = open_dataset(tmp_path)
    assert together(manifest, "a/IMG_0002.png", "a/aug_0002_391.jpeg", "a/aug_0002_392.jpeg")
    assert not together(manifest, "a/IMG_0002.png", "b/IMG_0002.png")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ([*(f"aug_{n}" for n in range(1, 31)), *map(str, range(1, 25))], map(str, range(25, 31))),  # a counter
        ([f"aug_0_{n * 13}" for n in range(1, 31)], [str(n * 13) for n in range(1, 8)]),  # Keras's random numbers
        (["image", *(f"image({n})" for n in range(1, 60))], (f"image({n})" for n in range(1, 25))),  # downloads
        ([f"zoom_{n}" for n in range(1, 20)], map(str, range(1, 20))),
        ([f"brain_12_{n:03}" for n in range(20)], ["brain"]),
        ([f"{n:03}_rotterdam" for n in range(20)], [f"{n:03}" for n in range(20)]),
    ],
)
def test_names_that_only_look_like_copies_leak_nothing(train: list[str], test: Iterable[str], tmp_path: Path) -> None:
    for split, names in (("train", train), ("test", test)):
        touch(
            tmp_path,
            *(f"{split}/{label}/{label if label == 'b' else ''}{name}.png" for name in names for label in "ab"),
        )
    assert with_pool(open_dataset(tmp_path), COPIED) == []


@pytest.mark.parametrize("name", ["img_{}", "no {}", "download-{}", "images({})"])
def test_names_that_count_from_one_word_are_no_views_of_one_picture(name: str, tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"{c}/{file}.png" for c in "ab" for file in (name[:-2].rstrip("(_- "), *map(name.format, range(9))))
    )
    assert "cluster" not in open_dataset(tmp_path).table


def test_many_folders_with_files_of_one_name_take_no_time(tmp_path: Path) -> None:
    """Each copy had been compared with every file of its name: 8,000 took 22 s."""
    frame = pd.DataFrame(
        {"image_path": [f"{k}/{n:05}/slice{e}.png" for n in range(4000) for k, e in (("x", ""), ("y", "_flip"))]}
    )
    manifest = Manifest.from_table(frame, root=tmp_path, layout="csv")
    began = time.process_time()
    with_copies(manifest)
    assert time.process_time() - began < 2


def test_copies_of_one_picture_by_a_program_leak_from_any_folder(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(
            f"{s}/{c}/{c}x{n}_jpg.rf.{n}{k}00000abc.jpg"
            for k, s in enumerate(("train", "test"))
            for c in "ab"
            for n in range(5)
        ),
    )
    assert len(with_pool(open_dataset(tmp_path), COPIED)) == 10
