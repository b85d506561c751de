"""Decoded images in shards: the same images, drawn shard by shard, in less memory than they take."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmae.data import shards
from msmae.data.loader import Batches
from msmae.data.manifest import Manifest
from msmae.data.shards import Shards
from msmae.data.store import ImageStore, open_store
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError

IMAGES, SIZE = 50, (8, 8)
ROWS = 6  # in a shard: nine shards, the last with two images


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Images with masks, sorted by class."""
    for number in range(IMAGES):
        folder = tmp_path / "data" / "ab"[number >= IMAGES // 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, SIZE, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        Image.fromarray((pixels > 100).astype(np.uint8) * 255).save(folder / f"{number:02d}_mask.png")
    return open_dataset(tmp_path / "data")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "WHOLE", 100)
    monkeypatch.setattr(shards, "SHARD", ROWS * 64 + 5)


def opened(manifest: Manifest, cache: Path, **options: str) -> ImageStore:
    return open_store(manifest, size=SIZE, cache=cache, **options)  # type: ignore[arg-type]


def fetched(store: ImageStore) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(0).permutation(len(store.images))
    return store.fetch(ids), store.fetch_masks(ids)


def test_shards_hold_what_one_file_holds(manifest: Manifest, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    one = opened(manifest, tmp_path / "one")
    request.getfixturevalue("small")
    for _ in range(2):  # decoded, then found in the cache
        many = opened(manifest, tmp_path / "many")
        assert isinstance(many.images, Shards)
        for told, seen in zip(fetched(one), fetched(many), strict=True):
            np.testing.assert_array_equal(seen, told)
        np.testing.assert_array_equal(many.images[3:40], one.images[3:40])
        np.testing.assert_allclose(many.mean_std(range(IMAGES)), one.mean_std(range(IMAGES)), rtol=1e-12)
    assert len(list((tmp_path / "many").rglob("images-*.bin"))) == -(-IMAGES // ROWS)


@pytest.mark.usefixtures("small")
def test_check_sums_are_of_the_pixels_and_not_of_where_they_lie(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(manifest, tmp_path / "first").images
    monkeypatch.setattr(shards, "SHARD", 3 * ROWS * 64)
    second = opened(manifest, tmp_path / "second").images
    assert isinstance(first, Shards)
    assert isinstance(second, Shards)
    assert first.plan.rows != second.plan.rows
    assert (first.sums == second.sums).all()
    assert len(set(first.sums.tolist())) == IMAGES


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("room", [0, 0.5])
def test_where_the_disk_has_room_for_a_part_the_rest_is_decoded_each_time(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: float
) -> None:
    whole = fetched(opened(manifest, tmp_path / "whole"))
    free = int(room * IMAGES * 128 / shards.ROOM)
    usage = namedtuple("usage", "total used free")  # as shutil names it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, free))
    for _ in range(2):
        part = opened(manifest, tmp_path / "part")
        for told, seen in zip(whole, fetched(part), strict=True):
            np.testing.assert_array_equal(seen, told)
    assert len(list((tmp_path / "part").rglob("images-*.bin"))) == int(room * IMAGES) // ROWS


@pytest.mark.usefixtures("small")
def test_an_unreadable_image_is_left_out_of_shards_too(manifest: Manifest, tmp_path: Path) -> None:
    manifest.path(7).write_bytes(b"no image")
    store = opened(manifest, tmp_path / "cache", on_error="skip")
    assert list(store.excluded) == [7]
    assert not np.asarray(store.images[7:8]).any()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("chances", [None, "uneven"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_reads_few_shards_at_a_time_and_every_image(
    manifest: Manifest, tmp_path: Path, world: int, chances: str | None
) -> None:
    store = opened(manifest, tmp_path / "cache")
    assert isinstance(store.images, Shards)
    shard, ids = store.images.plan.shards, np.arange(IMAGES)
    weights = None if chances is None else np.linspace(1, 3, IMAGES) / np.linspace(1, 3, IMAGES).sum()
    orders = []
    for epoch in range(2):
        ranks = [
            np.concatenate(
                [
                    batch.ids.numpy()
                    for batch in Batches(
                        store,
                        np.zeros(IMAGES),
                        ids,
                        4,
                        shuffle=True,
                        chances=weights,
                        epoch=epoch,
                        rank=rank,
                        world=world,
                    )
                ]
            )
            for rank in range(world)
        ]
        if chances is None:
            assert set(np.concatenate(ranks)) == set(ids), "every image, whatever the number of processes"
            assert len(np.concatenate(ranks)) < IMAGES + world
        order = np.stack(ranks, axis=1).ravel()[:IMAGES]
        seen = [set(shard[order[: at + 1]]) - set(shard[order[at:]]) for at in range(IMAGES)]  # left behind
        begun = [set(shard[order[: at + 1]]) for at in range(IMAGES)]
        assert max(len(now - gone) for now, gone in zip(begun, seen, strict=True)) <= shards.TOGETHER
        orders.append(order.tolist())
    assert orders[0] != orders[1]


@pytest.mark.usefixtures("small")
def test_a_shard_is_a_fair_sample_of_the_classes(manifest: Manifest, tmp_path: Path) -> None:
    store = opened(manifest, tmp_path / "cache")
    assert isinstance(store.images, Shards)
    second = np.array([label == "b" for label in manifest.table["label"]])
    for shard in range(IMAGES // ROWS):
        assert 0 < second[store.images.plan.shards == shard].mean() < 1, "files lie sorted by class, shards do not"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_shard_is_named_and_decoded_again(manifest: Manifest, tmp_path: Path, damage: str) -> None:
    whole = fetched(opened(manifest, tmp_path / "cache"))
    (file,) = (tmp_path / "cache").rglob("images-00002.bin")
    content = bytearray(file.read_bytes())
    content[70] ^= 4
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flip" else content[:-1])
    with pytest.raises(UserError, match="damaged") as raised:
        fetched(opened(manifest, tmp_path / "cache"))
    assert raised.value.where == str(file)
    for told, seen in zip(whole, fetched(opened(manifest, tmp_path / "cache")), strict=True):
        np.testing.assert_array_equal(seen, told)


READ = """
import resource, sys
from pathlib import Path
import numpy as np
from msmae.data import shards
from msmae.data.loader import Batches
from msmae.data.reading.decoding import Job
from msmae.data.reading.images import ImageSource, Reading
from msmae.data.store import ImageStore

folder, count, side = Path(sys.argv[1]), 4096, 256
shards.SHARD = 8 << 20
job = Job([ImageSource("x.png")] * count, [[]] * count, (side, side), 1, Reading(), 1)
rows = ((np.full((1, side, side), number % 251, np.uint8), np.zeros((side, side), np.uint8)) for number in range(count))
told = shards.write_shards(folder, job, np.dtype(np.uint8), rows)
images, _ = shards.open_shards(folder, told["shards"], job, excluded={})
store = ImageStore(images, None)

def epoch(number):
    ids = np.arange(count)
    for batch in Batches(store, np.zeros(count), ids, 64, shuffle=True, epoch=number):
        assert (batch.images[:, 0, 0, 0].numpy() == batch.ids.numpy() % 251).all()

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
epoch(0)
epoch(1)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_two_epochs_of_256_mb_need_a_part_of_that_memory(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64
