"""The audit finds what was planted, and only that; the repair leaks nothing, whatever the data."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from msmae.data.audit import (
    audit,
    describe_leakage,
    draw_worst_pairs,
    find_duplicates,
    list_warnings,
    stop_on_leakage,
    take_fingerprints,
)
from msmae.data.audit.fingerprints import RECORD, Fingerprints
from msmae.data.audit.hashing import bits_apart, perceptual_hash, pixel_digest
from msmae.data.audit.neighbours import CROWD, FARTHEST, near_pairs
from msmae.data.audit.threshold import choose_threshold
from msmae.data.manifest import Manifest
from msmae.data.tables.layouts import open_dataset
from msmae.errors import LeakageError, UserError


def texture(seed: int, *, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    """A picture of its own for every seed: smooth random blobs, uint8 [H, W]."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (12, 10)).astype(np.float32)
    return (
        np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)).clip(0, 255).astype(np.uint8)
    )


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def manifest_of(rows: list[dict[str, str]], root: Path = Path()) -> Manifest:
    return Manifest.from_table(pd.DataFrame(rows, dtype=object), root=root, layout="csv")


def different(number: int) -> Fingerprints:
    """Fingerprints of pictures that have nothing in common, not even files."""
    generator = np.random.default_rng(0)
    record = np.zeros(number, RECORD)
    record["digest"] = generator.integers(0, 2**63, (number, 2))
    record["hash"] = generator.integers(0, 2**16, (number, 16))
    record["resaved"] = -1
    return Fingerprints(record, {}, {})


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 24 training and 8 test pictures, all different, with one fault of every kind planted."""
    root = tmp_path_factory.mktemp("planted")
    for split, first, number in (("train", 0, 24), ("test", 100, 8)):
        for label in ("a", "b"):
            for i in range(number):
                save(root / split / label / f"{i:02}.png", texture(first + i + 1000 * (label == "b")))
    save(root / "test/a/copy.bmp", texture(3))  # the pixels of train/a/03.png in another format
    save(root / "test/b/saved-again.jpg", texture(1004), quality=80)  # nearly train/b/04.png
    save(root / "train/b/conflict.png", texture(5))  # the pixels of train/a/05.png under another label
    save(root / "train/a/blank.png", np.full((48, 40), 7, np.uint8))
    whole = (root / "train/a/00.png").read_bytes()
    (root / "train/a/truncated.png").write_bytes(whole[: len(whole) // 2])
    (root / "train/b/empty.png").write_bytes(b"")
    return root


def test_every_planted_fault_is_found_and_nothing_else(planted: Path) -> None:
    found = audit(open_dataset(planted))
    counts = {
        **{"images": 70, "classes": 2, "patients": 0, "masks": 0, "unreadable": 2, "constant": 1},
        **{"identical_pairs": 2, "label_conflicts": 1, "near_pairs": 1, "near_clusters": 1, "largest_cluster": 2},
        **{"test_identical_to_pool": 1, "test_near_pool": 1, "near_conflicts": 0, "patients_crossing": 0},
    }
    assert {name: getattr(found, name) for name in counts} == counts
    assert found.leaking_classes == {"a": 1}
    assert found.near_classes == {"b": 1}
    assert found.details["test_identical_to_pool"] == ["test/a/copy.bmp"]
    assert found.details["test_near_pool"] == ["test/b/saved-again.jpg"]
    assert found.details["label_conflicts"] == [[["train/a/05.png", "a"], ["train/b/conflict.png", "b"]]]
    assert [name for name, _ in found.details["unreadable"]] == ["train/a/truncated.png", "train/b/empty.png"]
    assert found.splits == {"a": {"test": 9, "train": 26}, "b": {"test": 9, "train": 26}}


def test_leakage_stops_with_the_numbers_the_classes_and_the_command(planted: Path) -> None:
    found = audit(open_dataset(planted), source="my data")
    with pytest.raises(LeakageError) as stopped:
        stop_on_leakage(found)
    assert stopped.value.exit_code == 3
    for piece in ("1 test image ", "1 a", "msmae check 'my data' --repair clean.csv"):
        assert piece in str(stopped.value)


def test_allowed_leakage_is_said_aloud(planted: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = audit(open_dataset(planted))
    with caplog.at_level(logging.WARNING, logger="msmae"):
        sentence = stop_on_leakage(found, allow=True)
    assert sentence == describe_leakage(found) != ""
    assert sentence in caplog.text


def test_near_duplicates_warn_with_their_count_and_the_reason_and_do_not_stop(tmp_path: Path) -> None:
    for i in range(12):
        save(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", texture(i))
        save(tmp_path / "test" / "ab"[i % 2] / f"{i}.png", texture(50 + i))
    save(tmp_path / "test/a/again.jpg", texture(4), quality=70)
    found = audit(open_dataset(tmp_path))
    assert stop_on_leakage(found) == ""
    warning = next(line for line in list_warnings(found) if "nearly identical" in line)
    assert warning.startswith("1 test image nearly")
    assert f"256-bit hashes differ in at most {found.threshold.bits} bits" in found.threshold.reason


def test_patients_on_both_sides_are_leakage_but_between_training_and_validation_a_warning() -> None:
    def shared(one: str, other: str) -> Any:
        rows = [{"image_path": f"{i}.png", "label": "ab"[i % 2], "split": one, "patient_id": f"p{i}"} for i in range(8)]
        rows += [{**row, "image_path": f"x{row['image_path']}", "split": other} for row in rows[:3]]
        manifest = manifest_of(rows)
        return audit(manifest, prints=different(len(manifest)))

    between = shared("train", "val")
    assert (between.patients_crossing, between.test_patients_in_pool, between.leaks) == (3, 0, False)
    assert stop_on_leakage(between) == ""
    assert any("3 patients both in training and in validation" in line for line in list_warnings(between))
    for pool in ("train", "val", ""):
        leaking = shared("test", pool)
        assert (leaking.test_patients_in_pool, leaking.leaking_images) == (3, 3)
        with pytest.raises(LeakageError, match="3 patients with images in test and in training or validation"):
            stop_on_leakage(leaking)


def test_an_unlabelled_folder_and_an_npz_are_audited_too(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / "loose" / f"{i}.png", texture(min(i, 3)))
    loose = audit(open_dataset(tmp_path / "loose"))
    assert (loose.images, loose.classes, loose.identical_pairs, loose.leaks) == (5, 0, 1, False)
    pictures = np.stack([texture(i, size=(28, 28)) for i in range(30)])
    pictures[25] = pictures[2]
    labels = (np.arange(30) % 2)[:, None]
    arrays = {"train": slice(0, 20), "val": slice(20, 24), "test": slice(24, 30)}
    content = {f"{split}_images": pictures[rows] for split, rows in arrays.items()}
    content |= {f"{split}_labels": labels[rows] for split, rows in arrays.items()}
    np.savez(tmp_path / "set.npz", **content)
    found = audit(open_dataset(tmp_path / "set.npz", layout="medmnist"))
    assert (found.images, found.test_identical_to_pool, found.near_pairs) == (30, 1, 0)
    assert found.details["test_identical_to_pool"] == ["set.npz#test/1"]


def test_a_mask_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    rows = []
    for i in range(4):
        save(tmp_path / f"{i}.png", texture(i))
        save(tmp_path / f"mask{i}.png", (texture(i) > 128).astype(np.uint8))
        rows.append({"image_path": f"{i}.png", "mask_path": f"mask{i}.png", "label": "ab"[i % 2]})
    (tmp_path / "mask2.png").write_bytes(b"")
    found = audit(manifest_of(rows, tmp_path))
    assert (found.masks, found.mask_problems, found.unreadable) == (4, 1, 0)
    assert found.details["mask_problems"][0][0] == "2.png"


def test_fingerprints_are_kept_until_a_file_changes(tmp_path: Path) -> None:
    save(tmp_path / "data/a.png", texture(1))
    save(tmp_path / "data/b.png", texture(2))
    (tmp_path / "data/c.png").write_bytes(b"no picture")
    manifest, cache = open_dataset(tmp_path / "data"), tmp_path / "cache"
    done: list[int] = []

    def take() -> Fingerprints:
        done.clear()
        return take_fingerprints(manifest, cache=cache, progress=lambda number, _: done.append(number))

    first = take()
    assert done == [3]
    again = take()
    assert done == []
    assert np.array_equal(first.record, again.record)
    assert first.problems == again.problems
    assert list(first.problems) == [2]
    save(tmp_path / "data/b.png", texture(1))
    changed = take()
    assert done == [3]
    assert np.array_equal(changed.record["digest"][0], changed.record["digest"][1])
    assert not np.array_equal(first.record["digest"][0], first.record["digest"][1])


small_images = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4), elements=st.integers(0, 3))


@given(small_images, small_images)
def test_images_share_a_digest_exactly_when_their_numbers_are_equal(one: np.ndarray, other: np.ndarray) -> None:
    def grey(pixels: np.ndarray) -> np.ndarray:
        return pixels[:1] if (pixels == pixels[:1]).all() else pixels

    assert (pixel_digest(one) == pixel_digest(other)) == np.array_equal(grey(one), grey(other))


@given(small_images, st.sampled_from([np.uint16, np.int16, np.float32]))
def test_neither_number_type_nor_repeated_channels_change_a_digest(pixels: np.ndarray, kind: type) -> None:
    assert pixel_digest(pixels.astype(kind)) == pixel_digest(pixels)
    assert pixel_digest(pixels.astype(np.float32) + 0.5) != pixel_digest(pixels)
    assert pixel_digest(np.repeat(pixels[:1], 3, axis=0)) == pixel_digest(pixels[:1])
    assert pixel_digest(pixels.astype(np.uint16) + 300) == pixel_digest(pixels.astype(np.float32) + 300)


def hashes_with_neighbours(seed: int, number: int) -> np.ndarray:
    """Random hashes, and copies of them with 0 to 20 bits turned, uint16 [n, 16]."""
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 2, (number, 256), dtype=np.uint8)
    for row in range(1, number):
        if generator.random() < 0.7:
            bits[row] = bits[generator.integers(row)]
            bits[row, generator.choice(256, generator.integers(21), replace=False)] ^= 1
    return np.packbits(bits, axis=1).view(np.uint16)


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(0, FARTHEST))
def test_the_search_finds_exactly_what_comparing_all_pairs_finds(seed: int, number: int, within: int) -> None:
    hashes = hashes_with_neighbours(seed, number)
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).astype(int)
    apart = (bits[:, None] != bits[None]).sum(axis=2)  # [n, n], all pairs
    expected = [(i, j, apart[i, j]) for i in range(number) for j in range(i + 1, number) if apart[i, j] <= within]
    pairs, crowded = near_pairs(hashes, within=within)
    assert [tuple(pair) for pair in pairs.tolist()] == expected
    assert not crowded


@pytest.mark.parametrize("whole", range(16))
def test_fifteen_bits_spread_over_fifteen_words_are_found(whole: int) -> None:
    one = np.random.default_rng(0).integers(0, 2**16, 16).astype(np.uint16)
    other = one ^ np.where(np.arange(16) == whole, 0, 1 << 7).astype(np.uint16)
    assert near_pairs(np.stack([one, other]), within=15)[0].tolist() == [[0, 1, 15]]
    assert len(near_pairs(np.stack([one, other]), within=14)[0]) == 0
    for within in (-1, 16):
        with pytest.raises(ValueError, match="exact from 0 to 15 bits"):
            near_pairs(np.stack([one, other]), within=within)


@pytest.mark.parametrize(("number", "crowd"), [(CROWD + 1, False), (CROWD + 2, True)])
def test_hashes_with_a_word_in_common_are_a_crowd_where_not_all_are_compared(number: int, crowd: bool) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**16, (number, 16)).astype(np.uint16)
    hashes[:, 3] = 7
    pairs, crowded = near_pairs(hashes, within=15)
    assert (len(pairs), crowded) == (0, crowd)
    hashes[:, 3] = np.arange(number)
    assert not near_pairs(hashes, within=15)[1]


def test_a_crowd_is_said_to_be_one_and_costs_no_more_than_its_share() -> None:
    generator = np.random.default_rng(0)
    base = generator.integers(0, 2**16, 16).astype(np.uint16)
    hashes = np.tile(base, (4 * CROWD, 1))
    turned = generator.integers(0, 256, (len(hashes), 4))
    for bit in turned.T:
        hashes[np.arange(len(hashes)), bit // 16] ^= (1 << (bit % 16)).astype(np.uint16)
    pairs, crowded = near_pairs(hashes, within=FARTHEST)
    assert crowded
    assert len(pairs) <= 16 * CROWD * len(hashes)
    assert len(np.unique(pairs[:, :2])) == len(hashes)  # nobody stands alone
    prints = different(len(hashes))
    prints.record["hash"] = hashes
    told = list_warnings(audit(manifest_of([{"image_path": f"{i}.png"} for i in range(len(hashes))]), prints=prints,
                               duplicates=find_duplicates(prints, near_bits=FARTHEST)))  # fmt: skip
    assert any("not all pairs" in line for line in told)


@pytest.mark.parametrize(
    "again",
    [
        lambda picture: Image.open(io.BytesIO(encoded(picture, "JPEG", quality=75))),
        lambda picture: Image.open(io.BytesIO(encoded(picture, "WEBP", quality=80))).convert("L"),
        lambda picture: picture.resize((30, 36), Image.Resampling.LANCZOS),
        lambda picture: picture.point([round(20 + 0.8 * level) for level in range(256)]),
        lambda picture: picture.point([round(255 * (level / 255) ** 0.85) for level in range(256)]),
    ],
    ids=["JPEG", "WebP", "three quarters", "less contrast", "brighter"],
)
def test_a_picture_saved_again_stays_near_and_another_one_far(again: Any) -> None:
    pictures = [Image.fromarray(texture(seed)) for seed in range(20)]
    plain = np.stack([perceptual_hash(np.asarray(picture, np.float32)) for picture in pictures])
    saved = np.stack([perceptual_hash(np.asarray(again(picture), np.float32)) for picture in pictures])
    apart = bits_apart(plain[:, None], saved[None])  # [20, 20]
    same = np.eye(20, dtype=bool)
    assert np.quantile(apart[same], 0.9) <= FARTHEST
    assert apart[~same].min() > 2 * FARTHEST


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_a_smooth_picture_has_no_noise_for_bits() -> None:
    rows, columns = np.mgrid[:64, :64]
    smooth = (columns * 2.5 + 60 * np.exp(-((rows - 20) ** 2 + (columns - 30) ** 2) / 300)).clip(0, 255)
    noisy = smooth + np.random.default_rng(0).normal(0, 1, smooth.shape)
    apart = bits_apart(perceptual_hash(smooth.astype(np.float32)), perceptual_hash(noisy.astype(np.float32)))
    assert apart <= 8


def test_images_that_are_alike_by_nature_get_a_stricter_threshold() -> None:
    generator = np.random.default_rng(0)
    resaved = np.full(50, 9)
    varied = np.packbits(generator.integers(0, 2, (300, 256), dtype=np.uint8), axis=1).view(np.uint16)
    loose = choose_threshold(varied, resaved)
    assert (loose.bits, loose.resaved, loose.chance) == (9, 9, FARTHEST)
    assert 120 <= loose.typical <= 136
    few = np.zeros((300, 256), np.uint8)  # only 40 of the bits tell these pictures apart
    few[:, :40] = generator.integers(0, 2, (300, 40))
    strict = choose_threshold(np.packbits(few, axis=1).view(np.uint16), resaved)
    assert strict.bits == strict.chance
    assert (
        4 <= strict.chance <= 5
    )  # 40 coins show at most 4 heads once in 10 million tosses, and there are 44,850 pairs
    assert strict.widest == strict.chance + 1
    assert "not found" in strict.reason
    same = choose_threshold(np.packbits(few[:, :1] * np.ones((1, 256), np.uint8), axis=1).view(np.uint16), resaved)
    assert same.bits == -1
    assert "as alike here as copies" in same.reason


def test_the_threshold_can_be_given_within_what_the_search_can_do() -> None:
    prints = different(20)
    prints.record["hash"][1] = prints.record["hash"][0]
    prints.record["hash"][1, :4] ^= 1
    assert len(find_duplicates(prints, near_bits=3).near) == 0
    assert find_duplicates(prints, near_bits=4).near[:, 2].tolist() == [4]
    prints.record["hash"][2] = prints.record["hash"][3]
    assert find_duplicates(prints, near_bits=0).near[:, 2].tolist() == [0]
    for bits in (-1, 16):
        with pytest.raises(UserError, match="near_bits"):
            find_duplicates(prints, near_bits=bits)


def test_the_contact_sheet_shows_the_worst_first_and_goes_when_nothing_is_wrong(planted: Path, tmp_path: Path) -> None:
    from msmae.data.audit.columns import Columns
    from msmae.data.audit.sheet import worst_pairs

    manifest = open_dataset(planted)
    duplicates = find_duplicates(take_fingerprints(manifest))
    pairs = worst_pairs(Columns.of(manifest), duplicates, at_most=9)
    assert [pair.kind for pair in pairs] == [
        "identical, two labels",
        "identical, in test and in the pool",
        "near, in test and in the pool",
    ]
    assert draw_worst_pairs(manifest, duplicates, tmp_path / "sheet.png") == 3
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert len(np.unique(np.asarray(sheet))) > 50
    clean = manifest.select(duplicates.first[:3])
    assert draw_worst_pairs(clean, find_duplicates(take_fingerprints(clean)), tmp_path / "sheet.png") == 0
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.slow
def test_brain_tumour_mri_leaks_what_an_independent_count_says(real_data: Path) -> None:
    """Counted in another way: Pillow's RGB pixels, compared with each other where the sizes agree; no hashes."""
    folder = real_data / "brain-tumor-mri"
    training: dict[Any, list[tuple[int, Path]]] = {}
    for path in sorted((folder / "Training").rglob("*.jpg")):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        training.setdefault(pixels.shape, []).append((int(pixels[::7, ::5].sum()), path))
    leaking = []
    for path in sorted((folder / "Testing").rglob("*.jpg")):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        total = int(pixels[::7, ::5].sum())
        likely = (other for sum_, other in training.get(pixels.shape, []) if sum_ == total)
        if any(np.array_equal(pixels, np.asarray(Image.open(other).convert("RGB"))) for other in likely):
            leaking.append(path.relative_to(folder).as_posix())
    found = audit(open_dataset(folder))
    assert found.details["test_identical_to_pool"] == sorted(leaking)
    assert found.test_identical_to_pool == 251
    assert found.leaking_classes == {
        "glioma_tumor": 18,
        "meningioma_tumor": 106,
        "no_tumor": 105,
        "pituitary_tumor": 22,
    }
    assert found.test_near_pool == 8
    with pytest.raises(LeakageError, match="251 test images"):
        stop_on_leakage(found)
