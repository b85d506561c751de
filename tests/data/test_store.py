"""The decode-once store: what it holds, when it is built anew, and what is left behind when something goes wrong."""

from __future__ import annotations

import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from PIL import Image

from msmae.data.loader import Batches
from msmae.data.manifest import Manifest
from msmae.data.reading.decoding import OnDemand, image_sources
from msmae.data.reading.images import Reading, load_images
from msmae.data.store import ImageStore, open_store
from msmae.errors import UserError
from msmae.training.trainer import StageModule


def write_images(folder: Path, count: int, *, mode: str = "L", side: int = 20) -> list[str]:
    draw = np.random.default_rng(count)
    kind = np.uint16 if mode == "I;16" else np.uint8
    names = [f"{mode[0]}{i}.png" for i in range(count)]
    for name in names:
        shape = (side, side + 3, 3) if mode == "RGB" else (side, side + 3)
        Image.fromarray(draw.integers(0, np.iinfo(kind).max, shape, dtype=kind)).save(folder / name)
    return names


def manifest_of(folder: Path, names: list[str], **columns: list[str]) -> Manifest:
    return Manifest.from_table(pd.DataFrame({"image_path": names, **columns}), root=folder, layout="csv")


def opened(manifest: Manifest, folder: Path, **options: object) -> ImageStore:
    return open_store(manifest, **{"size": (16, 12), "cache": folder / "cache", **options})


def left_in_cache(folder: Path) -> list[str]:
    return [path.name for path in (folder / "cache").iterdir() if path.suffix != ".lock"]


# --- what it holds ----------------------------------------------------------------------------------------------------


def test_rows_are_the_images_as_they_would_be_loaded(tmp_path: Path) -> None:
    names = write_images(tmp_path, 5) + write_images(tmp_path, 4, mode="RGB")
    store = opened(manifest_of(tmp_path, names), tmp_path)
    fresh = load_images([tmp_path / name for name in names], size=(16, 12), channels=3)
    assert isinstance(store.images, np.memmap)
    assert store.images.shape == (9, 3, 16, 12)
    np.testing.assert_array_equal(store.images, fresh)
    batch = store.fetch([7, 0, 7])
    np.testing.assert_array_equal(batch, fresh[[7, 0, 7]])
    batch[:] = 0  # a copy: the store is as it was
    np.testing.assert_array_equal(store.images, fresh)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("I;16", 1)])
def test_channels_and_depth_are_those_of_the_files(tmp_path: Path, mode: str, channels: int) -> None:
    store = opened(manifest_of(tmp_path, write_images(tmp_path, 3, mode=mode)), tmp_path)
    assert store.images.shape[1] == channels
    assert store.images.dtype == ("uint16" if mode == "I;16" else "uint8")
    assert opened(manifest_of(tmp_path, ["I0.png"] if mode == "I;16" else [f"{mode[0]}0.png"]), tmp_path).masks is None


def test_a_colour_image_among_grey_ones_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = write_images(tmp_path, 5) + write_images(tmp_path, 1, mode="RGB")
    opened(manifest_of(tmp_path, names), tmp_path)
    assert re.search(r"1 image is stored in colour, the others in grey \(the first: .*R0\.png\)", caplog.text)
    caplog.clear()
    opened(manifest_of(tmp_path, names[:5]), tmp_path)
    opened(manifest_of(tmp_path, names), tmp_path, channels=1)  # asked for
    assert "stored in" not in caplog.text


def test_dicom_keeps_its_units_and_its_depth(tmp_path: Path) -> None:
    examples = Path(pydicom.__file__).parent / "data" / "test_files"
    manifest = manifest_of(examples, ["CT_small.dcm", "693_J2KI.dcm"])
    store = opened(manifest, tmp_path, size=(128, 128), reading=Reading(window="none"))
    assert store.images.dtype == np.float32
    np.testing.assert_array_equal(store.images[0, 0], pydicom.dcmread(manifest.path(0)).pixel_array - 1024.0)
    assert opened(manifest, tmp_path, reading=Reading(window="soft-tissue")).images.max() <= 1


def test_masks_follow_their_images_and_rows_without_one_are_empty(tmp_path: Path) -> None:
    names = write_images(tmp_path, 2)
    for at, name in enumerate(("a.png", "b.png")):
        mask = np.zeros((20, 23), np.uint8)
        mask[10 * at : 10 * at + 10] = 255
        Image.fromarray(mask).save(tmp_path / name)
    store = opened(manifest_of(tmp_path, names * 2, mask_path=["a.png", "b.png", "a.png;b.png", ""]), tmp_path)
    masks = store.fetch_masks([0, 1, 2, 3])
    assert masks.shape == (4, 16, 12)
    np.testing.assert_array_equal(masks.mean(axis=(1, 2)), [0.5, 0.5, 1, 0])
    assert masks[0, 0, 0] == masks[1, -1, -1] == 1


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    names = write_images(tmp_path, 1)
    Image.new("L", (5, 5)).save(tmp_path / "small.png")
    with pytest.raises(UserError, match=r"the mask is 5 x 5 pixels .* its image 20 x 23 .*small\.png"):
        opened(manifest_of(tmp_path, names, mask_path=["small.png"]), tmp_path)


def test_mean_and_standard_deviation_are_numpy_s(tmp_path: Path) -> None:
    store = opened(manifest_of(tmp_path, write_images(tmp_path, 150, mode="RGB", side=8)), tmp_path)
    ids = np.random.default_rng(0).permutation(150)[:140]  # more than two chunks, the last one short
    mean, std = store.mean_std(ids)
    pixels = np.asarray(store.images[ids]).astype(np.float64)
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), rtol=1e-12)
    with pytest.raises(UserError, match="no images"):
        store.mean_std([])


def test_a_constant_channel_has_no_scale(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "flat.png")
    with pytest.raises(UserError, match="channel 0 has the same value"):
        opened(manifest_of(tmp_path, ["flat.png"]), tmp_path).mean_std([0])


def test_columns_of_the_manifest_choose_planes_and_units(tmp_path: Path) -> None:
    columns = {"frame": ["3", ""], "axis": ["", "2"], "index": ["", "7"]}
    units = {"intensity_offset": ["-32768", ""], "window": ["-175, 275", ""]}
    first, second = image_sources(manifest_of(tmp_path, ["a.png", "b.nii"], **columns, **units))
    assert (*astuple(first.plane), first.offset, first.window) == (
        3,
        None,
        None,
        -32768,
        "-175.0..275.0",
    )
    assert (*astuple(second.plane), second.offset, second.window) == (
        None,
        2,
        7,
        0,
        "",
    )
    with pytest.raises(UserError, match="column index holds something else than numbers"):
        image_sources(manifest_of(tmp_path, ["a.png"], index=["third"]))


# --- when it is built anew --------------------------------------------------------------------------------------------


def test_a_second_opening_decodes_nothing_and_a_change_decodes_anew(tmp_path: Path) -> None:
    names = write_images(tmp_path, 3)
    calls: list[tuple[int, int]] = []

    def decoded(**options: object) -> bool:
        calls.clear()
        opened(manifest_of(tmp_path, names), tmp_path, progress=lambda *call: calls.append(call), **options)
        return calls == [(3, 3)]

    assert decoded()
    assert not decoded()
    assert not decoded(on_error="skip")
    assert decoded(size=(8, 8))
    assert decoded(channels=3)
    assert decoded(reading=Reading(max_pixels=10**6))
    status = (tmp_path / names[1]).stat()
    os.utime(tmp_path / names[1], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert decoded()
    assert not decoded()


def test_the_bytes_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, write_images(tmp_path, 100, side=6))
    files = []
    for workers in (1, 4):
        open_store(manifest, size=(4, 4), cache=tmp_path / str(workers), workers=workers)
        files.append([path.read_bytes() for path in sorted((tmp_path / str(workers)).rglob("*.npy"))])
    assert files[0] == files[1]


# --- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Manifest:
    """Five images, of which 1 is empty, 3 is text and 4 is missing."""
    names = [*write_images(tmp_path, 4), "gone.png"]
    (tmp_path / names[1]).write_bytes(b"")
    (tmp_path / names[3]).write_bytes(b"not an image")
    return manifest_of(tmp_path, names)


def test_every_unreadable_file_is_named_and_nothing_is_left(tmp_path: Path, damaged: Manifest) -> None:
    with pytest.raises(UserError, match="3 of 5 images") as caught:
        opened(damaged, tmp_path)
    assert [name for name in ("L0", "L1", "L2", "L3", "gone") if f"{name}.png" in str(caught.value)] == [
        "L1",
        "L3",
        "gone",
    ]
    assert left_in_cache(tmp_path) == []


def test_skipping_keeps_the_row_numbers_and_reports_each(
    tmp_path: Path, damaged: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(damaged, tmp_path, on_error="skip")
    assert sorted(store.excluded) == [1, 3, 4]
    assert "0 bytes" in store.excluded[1]
    np.testing.assert_array_equal(
        store.fetch([2, 0]), load_images([damaged.path(2), damaged.path(0)], size=(16, 12), channels=1)
    )
    assert "3 of 5 images cannot be used" in caplog.text
    with pytest.raises(UserError, match="sample 3 was left out: not an image"):
        store.fetch([0, 3])
    with pytest.raises(UserError, match="3 of 5 images"):  # the store is there now, and the rule is asked again
        opened(damaged, tmp_path, on_error="stop")


def test_a_long_list_is_in_a_file(tmp_path: Path) -> None:
    names = [*write_images(tmp_path, 1), *(f"gone{i}.png" for i in range(150))]
    with pytest.raises(UserError, match="and 130 more, all named in") as caught:
        opened(manifest_of(tmp_path, names), tmp_path)
    assert str(caught.value).count("gone") == 20
    assert (tmp_path / "cache" / "unreadable.txt").read_text().count("gone") == 150


def test_nothing_readable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 of 2 images"):
        opened(manifest_of(tmp_path, ["a.png", "b.png"]), tmp_path, on_error="skip")
    assert left_in_cache(tmp_path) == []


def test_one_image_of_another_depth_does_not_exclude_the_others(tmp_path: Path) -> None:
    names = [*write_images(tmp_path, 1, mode="I;16"), *write_images(tmp_path, 20)]
    with pytest.raises(UserError, match=r"1 of 21 .*\n.*holds uint16 numbers where most hold uint8 .*I0\.png"):
        opened(manifest_of(tmp_path, names), tmp_path)
    assert sorted(opened(manifest_of(tmp_path, names), tmp_path, on_error="skip").excluded) == [0]


def test_wrong_words_and_empty_data_are_refused(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, write_images(tmp_path, 1))
    with pytest.raises(UserError, match='say "stop" or "skip"'):
        opened(manifest, tmp_path, on_error="ignore")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the cache cannot be written"):
        open_store(manifest, size=(4, 4), cache=tmp_path / "file" / "cache")


# --- killed, shared, full ---------------------------------------------------------------------------------------------

PROGRAM = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    import pandas as pd
    from msmae.data.manifest import Manifest
    from msmae.data.store import open_store

    folder, names = Path(sys.argv[1]), sys.argv[2].split(",")
    manifest = Manifest.from_table(pd.DataFrame({"image_path": names}), root=folder, layout="csv")

    def progress(done, count):
        print("decoded", done, flush=True)
        time.sleep(float(sys.argv[3]))

    store = open_store(manifest, size=(16, 12), cache=folder / "cache", progress=progress)
    print("sum", int(store.images.sum()), flush=True)
    """
)


def started(folder: Path, names: list[str], *, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(folder), ",".join(names), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_leaves_nothing_that_is_taken_for_a_store(tmp_path: Path) -> None:
    names = write_images(tmp_path, 100, side=5)
    with started(tmp_path, names, pause=60) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "decoded 64\n"
        run.send_signal(signal.SIGKILL)
    assert [name for name in left_in_cache(tmp_path) if not name.endswith(".partial")] == []
    store = opened(manifest_of(tmp_path, names), tmp_path)
    np.testing.assert_array_equal(
        store.images, load_images([tmp_path / name for name in names], size=(16, 12), channels=1)
    )
    assert len(left_in_cache(tmp_path)) == 1


@pytest.mark.slow
def test_of_two_runs_at_once_one_decodes_and_the_other_waits(tmp_path: Path) -> None:
    names = write_images(tmp_path, 70, side=5)
    runs = [started(tmp_path, names, pause=1.5) for _ in range(2)]
    outputs = [run.communicate(timeout=120) for run in runs]
    printed = sorted((out.splitlines() for out, _ in outputs), key=len)
    assert [len(lines) for lines in printed] == [1, 3]
    assert printed[0] == printed[1][-1:]


@contextmanager
def small_files() -> Iterator[None]:
    """The system refuses to let a file grow beyond 10 kB, as a full disk would refuse any growth. It refuses pytest's
    own log, too: the limit must be lifted before a test ends.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_images_are_decoded_when_fetched_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [*write_images(tmp_path, 90, side=5), "gone.png"]
    masks = {"mask_path": [*names[:90], ""]}
    with small_files(), caplog.at_level(logging.WARNING):
        store = opened(manifest_of(tmp_path, names, **masks), tmp_path, on_error="skip")
    assert "no room for the decoded images" in caplog.text
    assert isinstance(store.images, OnDemand)
    assert left_in_cache(tmp_path) == []
    fresh = load_images([tmp_path / name for name in names[:90]], size=(16, 12), channels=1)
    np.testing.assert_array_equal(store.fetch([89, 3]), fresh[[89, 3]])
    np.testing.assert_array_equal(store.images[10:20], fresh[10:20])
    assert (len(store.images), store.images.shape, store.images.dtype) == (91, (91, 1, 16, 12), np.uint8)
    assert store.fetch_masks([5]).max() == 1
    assert sorted(store.excluded) == [90]
    np.testing.assert_allclose(store.mean_std(range(90))[0], fresh.mean())


def test_the_room_is_asked_for_before_the_disk_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = write_images(tmp_path, 5)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 5 * 16 * 12 - 1))
    assert isinstance(opened(manifest_of(tmp_path, names), tmp_path).images, OnDemand)
    assert "No space left on device" in caplog.text
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 5 * 16 * 12))
    assert isinstance(opened(manifest_of(tmp_path, names), tmp_path).images, np.memmap)


# --- real data --------------------------------------------------------------------------------------------------------


def test_real_images_of_mixed_sizes_and_modes(tmp_path: Path, real_data: Path) -> None:
    scans = sorted((real_data / "brain-tumor-mri" / "Testing").rglob("*.jpg"))[::25]
    names = [path.relative_to(real_data).as_posix() for path in scans]
    store = open_store(manifest_of(real_data, names), size=(64, 64), channels=1, cache=tmp_path)
    np.testing.assert_array_equal(store.fetch([0, 5]), load_images([scans[0], scans[5]], size=(64, 64), channels=1))
    rows = [f"pneumoniamnist/pneumoniamnist.npz#test/{row}" for row in range(624)]
    store = open_store(manifest_of(real_data, rows), size=(28, 28), cache=tmp_path)
    with np.load(real_data / "pneumoniamnist" / "pneumoniamnist.npz") as file:
        np.testing.assert_array_equal(store.images[:, 0], file["test_images"])


# --- batches of it


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32])
def test_batches_carry_the_numbers_of_the_store_and_normalising_leaves_them_alone(kind: type) -> None:
    images = (np.arange(4 * 2 * 3 * 3).reshape(4, 2, 3, 3) * 3).astype(kind)
    mean, std = [90.0, 120.0], [50.0, 70.0]
    (batch,) = Batches(ImageStore(images, None), np.zeros(4, np.int64), np.arange(4), 4)
    assert batch.images.numpy().dtype == kind
    module: Any = SimpleNamespace(
        device=torch.device("cpu"),
        **{n: torch.tensor(v).reshape(1, 2, 1, 1) for n, v in (("mean", mean), ("std", std))},
    )
    shown = StageModule.normalise(module, batch.images)
    expected = (images.astype(np.float64) - np.reshape(mean, (2, 1, 1))) / np.reshape(std, (2, 1, 1))
    assert shown.dtype == torch.float32
    np.testing.assert_allclose(shown.numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(batch.images.numpy(), images)
