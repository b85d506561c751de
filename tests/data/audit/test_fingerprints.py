"""What is kept of an image: every field against another way to it, and what makes the cache's entry another one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from test_audit import different, manifest_of, save, texture

from msmae.data.audit import fingerprints, take_fingerprints
from msmae.data.audit.fingerprints import RECORD, Fingerprints, _content_key, _describe, _settle_digests
from msmae.data.audit.hashing import perceptual_hash, pixel_digest, resaving_distance
from msmae.data.audit.shortcuts import measure_traits
from msmae.data.audit.traits import _jpeg_coarseness, acquisition
from msmae.data.reading.images import WHOLE, ImageSource, Plane, Reading
from msmae.errors import UserError


def framed(seed: int) -> np.ndarray:
    """A picture with an empty frame: 12 of 48 rows at the top, 4 of 40 columns at the right."""
    pixels = texture(seed)
    pixels[:12], pixels[:, 36:] = 0, 0
    return pixels


PICTURES = {
    "grey.png": framed(1),
    "colour.png": np.stack([texture(2), texture(3), texture(4)], axis=2),
    "grey-as-colour.bmp": np.stack([texture(5)] * 3, axis=2),
    "sixteen.tif": texture(6).astype(np.uint16) * 200,
    "flat.png": np.full((20, 30), 9, np.uint8),
}


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fingerprints, Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for name, pixels in PICTURES.items():
        save(folder / name, pixels)
    save(folder / "photo.jpg", texture(7), quality=60)
    rows = [{"image_path": name, "label": "a", "site": "here"} for name in [*PICTURES, "photo.jpg"]]
    return take_fingerprints(manifest_of(rows, folder)), folder


def test_every_field_is_what_another_way_gives(taken: tuple[Fingerprints, Path]) -> None:
    record = taken[0].record
    assert record["height"].tolist() == [48, 48, 48, 48, 20, 48]
    assert record["width"].tolist() == [40, 40, 40, 40, 30, 40]
    assert record["channels"].tolist() == [1, 3, 3, 1, 1, 1]
    assert record["colour"].tolist() == [False, True, False, False, False, False]
    assert record["numbers"].tolist() == ["uint8", "uint8", "uint8", "uint16", "uint8", "uint8"]
    assert record["constant"].tolist() == [False] * 4 + [True, False]
    assert record["reduced"].tolist() == [False] * 6
    assert [text.split(" ")[0] for text in record["acquisition"]] == ["PNG", "PNG", "BMP", "TIFF", "PNG", "JPEG"]
    with Image.open(taken[1] / "photo.jpg") as photo:
        assert record["coarseness"].tolist() == [0, 0, 0, 0, 0, sum(photo.quantization[0])]
    np.testing.assert_allclose(record["borders"][0], [0.25, 0, 0, 0.1])
    assert record["borders"][4].tolist() == [1, 1, 1, 1]
    grey = [framed(1), PICTURES["sixteen.tif"]]
    for row, plane in zip((0, 3), grey, strict=True):
        corners = np.concatenate([plane[rows, columns].ravel() for rows in (slice(0, 3), slice(-3, None))
                                  for columns in (slice(0, 2), slice(-2, None))])  # fmt: skip
        assert record["corners"][row] == np.median(corners)
        assert record["hash"][row].tolist() == perceptual_hash(plane.astype(np.float32)).tolist()
        assert record["digest"][row].tobytes() == pixel_digest(plane[None])
        assert record["resaved"][row] == resaving_distance(plane.astype(np.float32)) >= 0
    colour = PICTURES["colour.png"].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    assert np.bitwise_count(record["hash"][1] ^ perceptual_hash(colour)).sum() <= 2
    assert record["digest"][1].tobytes() == pixel_digest(PICTURES["colour.png"].transpose(2, 0, 1))
    assert record["digest"][2].tobytes() == pixel_digest(texture(5)[None])
    assert record["resaved"][4] == -1


def test_traits_are_said_in_a_persons_words(taken: tuple[Fingerprints, Path]) -> None:
    prints, folder = taken
    rows = [{"image_path": name, "label": "a", "site": "here"} for name in [*PICTURES, "photo.jpg"]]
    told = {trait.name: trait for trait in measure_traits(manifest_of(rows, folder), prints)}

    def says(name: str, *images: int) -> str:
        return told[name].say(np.isin(np.arange(6), images))

    assert says("pixel format", 0) == "1 x uint8, grey"
    assert says("pixel format", 1) == "3 x uint8, colour"
    assert says("pixel format", 2) == "3 x uint8, grey"
    assert says("file format", 0, 1, 3) == "PNG"
    assert says("size", 0, 4, 5) == "48 x 40"
    assert says("border", 0) == "17.5 % empty rim"  # the mean of 25 % of the height and 10 % of the width
    assert says("site", 0) == "here"
    assert says("device", 3) == says("file format", 3) == "TIFF"
    assert says("JPEG compression", 0, 1, 5) == "quantisation sum 0"
    assert says("JPEG compression", 5) == f"quantisation sum {prints.record['coarseness'][5]}"
    assert says("brightness of the corners", 4) == "at 9"
    assert says("amount of marks at the edges", 4) == "0.00 % sharp steps"
    assert told["pixel format"].values.sum(axis=1).tolist() == [1] * 6
    assert told["border"].values.shape == (6, 4)
    assert told["size"].values[4].tolist() == [20, 30]


def test_sites_are_told_apart_up_to_fifty() -> None:
    sites = [f"site {i}" for i in range(50)] * 2 + ["a rare one", "another"]
    rows = [{"image_path": f"{i}.png", "label": "a", "site": site} for i, site in enumerate(sites)]
    (trait,) = (trait for trait in measure_traits(manifest_of(rows), different(102)) if trait.name == "site")
    assert trait.values.shape == (102, 50)
    assert trait.values.sum(axis=1).tolist() == [1] * 100 + [0, 0]
    assert trait.say(np.arange(102) >= 101) == "another"
    nowhere = manifest_of([{**row, "site": ""} for row in rows])
    (trait,) = (trait for trait in measure_traits(nowhere, different(102)) if trait.name == "site")
    assert trait.say(np.ones(102, dtype=bool)) == "(not said)"


def test_some_images_are_saved_again_and_the_last_is_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(6):
        save(tmp_path / f"{i}.png", texture(i))
    monkeypatch.setattr(fingerprints, "RESAVED", 3)
    prints = take_fingerprints(manifest_of([{"image_path": f"{i}.png", "label": "a"} for i in range(6)], tmp_path))
    assert (prints.record["resaved"] >= 0).tolist() == [True, False, True, False, False, True]


def test_a_jpeg_decoded_smaller_is_known_as_the_png_of_its_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "ENOUGH", 2_000)
    for name, seed in (("a.jpg", 1), ("other.jpg", 2)):
        save(tmp_path / name, texture(seed, size=(320, 240)), quality=95)
    save(tmp_path / "colour.jpg", np.stack([texture(seed, size=(320, 240)) for seed in (1, 2, 3)], axis=2))
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.png")
    save(tmp_path / "smaller.png", texture(1, size=(160, 120)))
    names = ["a.jpg", "other.jpg", "a.png", "smaller.png", "colour.jpg"]
    record = take_fingerprints(manifest_of([{"image_path": name, "label": "a"} for name in names], tmp_path)).record
    assert record["reduced"].tolist() == [True, True, False, False, True]
    assert record["height"].tolist() == [320, 320, 320, 160, 320]
    assert record["channels"].tolist() == [1, 1, 1, 1, 3]
    first, other, png, smaller, _ = (row.tobytes() for row in record["digest"])
    assert first == png
    assert len({first, other, smaller}) == 3


def test_only_a_large_jpeg_as_it_is_stored_is_decoded_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "ENOUGH", 2_000)
    for name in ("a.jpg", "a.JPEG", "a.jpg.old"):
        save(tmp_path / name, texture(1, size=(320, 240)), format="JPEG")

    def smaller(name: str = "a.jpg", window: str = "file", **source: Any) -> bool:
        return fingerprints.reduced(ImageSource(str(tmp_path / name), **source), Reading(window)) is not None

    assert [smaller(), smaller("a.JPEG"), smaller(window="none")] == [True] * 3
    assert not any((smaller("a.jpg.old"), smaller(window="0..100"), smaller(plane=Plane(frame=0)), smaller(offset=1.0)))
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        smaller("empty.jpg")


def test_a_jpeg_is_read_whole_for_a_picture_of_its_size_within_24_bits(tmp_path: Path) -> None:
    save(tmp_path / "a.png", texture(1))
    sources = [ImageSource(str(tmp_path / "a.png"))] * 2
    exact = pixel_digest(texture(1)[None])
    for bits, height, settled in ((24, 48, True), (25, 48, False), (24, 49, False)):
        record = np.zeros(2, RECORD)
        record["height"], record["width"], record["reduced"] = (48, height), 40, (True, False)
        record["hash"][1].view(np.uint8)[:] = np.packbits(np.arange(256) < bits)
        _settle_digests(record, sources, Reading())
        assert (record["digest"][0].tobytes() == exact) == settled
        assert record["digest"][1].tolist() == [0, 0]
    record["height"] = 48
    record["hash"] = 0
    with pytest.raises(UserError, match="pixels"):
        _settle_digests(record, sources, Reading(max_pixels=48 * 40 - 1))


def test_a_mask_is_read_under_the_limits_of_its_image(tmp_path: Path) -> None:
    save(tmp_path / "a.png", texture(0))
    save(tmp_path / "mask.png", (texture(0) > 128).astype(np.uint8))
    manifest = manifest_of([{"image_path": "a.png", "mask_path": "mask.png", "label": "a"}], tmp_path)
    assert take_fingerprints(manifest).mask_problems == {}
    save(tmp_path / "mask.png", np.repeat(np.repeat(texture(0) > 128, 2, 0), 2, 1).astype(np.uint8))
    assert take_fingerprints(manifest, reading=Reading(max_pixels=48 * 40 * 4)).mask_problems == {}
    assert list(take_fingerprints(manifest, reading=Reading(max_pixels=48 * 40)).mask_problems) == [0]
    assert list(take_fingerprints(manifest, reading=Reading(max_pixels=48 * 40 - 1)).problems) == [0]
    save(tmp_path / "mask.png", np.eye(48, 80, dtype=np.uint8))  # of other proportions
    assert list(take_fingerprints(manifest).mask_problems) == [0]


def test_a_page_is_outlined_on_the_same_page_of_its_mask(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([texture(0), texture(1)]), photometric="minisblack")
    tifffile.imwrite(tmp_path / "mask.tif", np.stack([texture(0) > 128, texture(1) > 128]).astype(np.uint8))
    rows = [{"image_path": "a.tif", "mask_path": "mask.tif", "frame": frame, "label": "a"} for frame in "012"]
    found = take_fingerprints(manifest_of(rows, tmp_path))
    assert (list(found.problems), found.mask_problems) == ([2], {})


def test_the_cache_follows_images_masks_archives_planes_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(image: str, mask: str = "", plane: Plane = WHOLE, reading: Reading | None = None) -> str:
        masks = (str(tmp_path / mask),) if mask else ()
        return _content_key([ImageSource(str(tmp_path / image), plane)], [masks], reading or Reading())

    def write(name: str, size: int) -> None:
        (tmp_path / name).write_bytes(bytes(size))

    for name in ("a.png", "mask.png", "b.npz"):
        write(name, 10)
    before = [key("a.png"), key("a.png", "mask.png"), key("b.npz#train/0")]
    assert len(set(before)) == 3
    assert before == [key("a.png"), key("a.png", "mask.png"), key("b.npz#train/0")]
    assert key("b.npz#train/1") != before[2]
    assert key("a.png", reading=Reading(max_pixels=7)) != before[0]
    assert key("a.png", plane=Plane(frame=1)) != before[0]
    write("mask.png", 11)
    assert [key("a.png"), key("b.npz#train/0")] == [before[0], before[2]]
    assert key("a.png", "mask.png") != before[1]
    write("b.npz", 11)
    assert key("b.npz#train/0") != before[2]
    write("a.png", 11)
    assert key("a.png") != before[0]
    assert key("gone.png") == key("gone.png") != key("a.png")
    now = key("a.png")
    monkeypatch.setattr(fingerprints, "version", lambda name: "99")  # of what decodes
    assert key("a.png") != now


def test_the_cache_tells_folders_apart_that_are_named_from_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = set()
    for folder in ("one", "two", "one"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "a.png").write_bytes(b"the same")
        os.utime(tmp_path / folder / "a.png", (1, 1))
        monkeypatch.chdir(tmp_path / folder)
        keys.add(_content_key([ImageSource("a.png")], [()], Reading()))
    assert len(keys) == 2


def test_a_table_of_two_bytes_is_read_in_network_order_and_a_cut_head_ends_the_search() -> None:
    def head(wide: int, table: bytes, before: bytes = b"") -> bytes:
        return b"\xff\xd8" + before + b"\xff\xdb" + (3 + len(table)).to_bytes(2, "big") + bytes([wide << 4]) + table

    assert _jpeg_coarseness(head(0, bytes([3] * 64))) == 192
    assert _jpeg_coarseness(head(1, b"\x01\x00" * 64)) == 64 * 256
    assert _jpeg_coarseness(head(0, bytes([2] * 64), before=b"\xff\xe0\x00\x06abcd")) == 128
    assert _jpeg_coarseness(b"\xff\xd8\xff\xe0\x00\x04ab") == 0
    for whole in (head(0, bytes([2] * 64), before=b"\xff\xe0\x00\x06abcd"), head(1, b"\x01\x00" * 64)):
        assert {_jpeg_coarseness(whole[:cut]) for cut in range(len(whole))} == {0}
    assert acquisition("archive.npz#train/3") == ("npz", 0)


def test_the_same_numbers_have_one_digest_whatever_holds_them() -> None:
    few = np.array([[[1, 5], [255, 0]]], np.uint16)
    assert pixel_digest(few) == pixel_digest(few.astype(np.uint8)) != pixel_digest(few + 1)
    for numbers in ([[-1, 5], [300, 2]], [[70000, 5], [300, 2]], [[0.5, 5], [3, 2]], [[np.nan, 5], [3, 2]]):
        one = np.array([numbers], np.float32)
        digest = pixel_digest(one)
        assert digest == pixel_digest(one.astype(np.float64)) != pixel_digest(one + 1)
        if (one == one.round()).all():
            assert digest == pixel_digest(one.astype(np.int32))


def test_a_mark_of_8_bits_is_of_full_contrast_and_one_of_16_of_the_images_own() -> None:
    pixels = (np.indices((1, 32, 32)).sum(axis=0) % 2 * 127).astype(np.uint8)
    bright = (255 * (pixels > 0)).astype(np.uint8)
    marks = [_describe(seen, "", 0, resave=False)["marks"] for seen in (pixels, pixels.astype(np.uint16), bright)]
    assert marks[0] == 0
    assert marks[1] == marks[2] > 0.5


def test_a_device_is_no_coarseness() -> None:
    from pydicom.data import get_testdata_file

    device, coarseness = acquisition(str(get_testdata_file("CT_small.dcm")))
    assert re.fullmatch("DICOM [0-9a-f]{12}", device)
    assert coarseness == 0


def test_data_sets_share_a_cache(tmp_path: Path) -> None:
    manifests = []
    for i in range(2):
        save(tmp_path / f"{i}.png", texture(i))
        manifests.append(manifest_of([{"image_path": f"{i}.png", "label": "a"}], tmp_path))
    cache, done = tmp_path / "not" / "there", [0]
    for taken in (1, 0):
        for manifest in manifests:
            done.clear()
            take_fingerprints(manifest, cache=cache, progress=lambda number, _: done.append(number))
            assert done == [1] * taken


def test_a_cache_whose_record_was_changed_is_not_believed(tmp_path: Path) -> None:
    save(tmp_path / "a.png", texture(1))
    manifest, cache = manifest_of([{"image_path": "a.png", "label": "a"}], tmp_path), tmp_path / "cache"
    honest = take_fingerprints(manifest, cache=cache)
    (kept,) = cache.iterdir()
    with np.load(kept) as parts:
        held = dict(parts)
    held["record"]["digest"] += 1
    np.savez(kept, **held)
    again = take_fingerprints(manifest, cache=cache)
    assert again.record["digest"].tolist() == honest.record["digest"].tolist()
