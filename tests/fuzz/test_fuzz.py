"""Damaged files at every reader's door: each is read, or refused with a ``UserError``; nothing else ever comes out.

A few hundred cases a reader; ``MSMAE_LONG=1`` asks for 100,000, MSMAE_FUZZ for another number. A case that failed once
is named by its number: `python tests/fuzz/test_fuzz.py png 1234`.
"""

from __future__ import annotations

import gzip
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import seeds
from mutations import BINARY, TEXT, Mutation, mutate, with_sums

from msmae.config.layers import make_settings
from msmae.data.audit.traits import acquisition
from msmae.data.reading.decoding import count_channels
from msmae.data.reading.headers import read_headers
from msmae.data.reading.images import ImageSource, Plane, Reading, read_source
from msmae.data.reading.masks import MaskRule, read_mask
from msmae.data.tables.published.medmnist import read_medmnist
from msmae.data.tables.tables import read_csv_manifest
from msmae.encoders.weights import open_weights
from msmae.errors import UserError
from msmae.runs.checkpoint import read_checkpoint

CASES = int(os.environ.get("MSMAE_FUZZ", 100_000 if os.environ.get("MSMAE_LONG") else 120))
SECONDS = 5.0  # of the processor: machines may be busy
MEMORY = 1 << 30


def read_picture(path: Path) -> None:
    source = ImageSource(str(path))
    count_channels(source)
    read_source(source, reading=Reading(replace_nonfinite=0.0))
    acquisition(str(path))


def read_mask_file(path: Path) -> None:
    read_mask([path], MaskRule(classes=3))


def read_dicom(path: Path) -> None:
    source = ImageSource(str(path), Plane(frame=0))
    read_headers([path])
    count_channels(source)
    read_source(source)
    acquisition(str(path))


def read_volume(path: Path) -> None:
    read_source(ImageSource(str(path), Plane(axis=2, index=1, frame=0)), reading=Reading(replace_nonfinite=0.0))


def read_archive(path: Path) -> None:
    read_source(ImageSource(f"{path}#train/0"))
    read_medmnist(path)


def read_settings(path: Path) -> None:
    make_settings("tiny", path)


def nothing(data: bytes, number: int) -> bytes:
    return data


@dataclass(frozen=True)
class Target:
    """A reader, the seeds it is tried on, and how they are damaged."""

    suffix: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    mutations: tuple[Mutation, ...] = BINARY
    head: int = 0
    after: Callable[[bytes, int], bytes] = nothing


def sums_in_half(data: bytes, number: int) -> bytes:
    return with_sums(data) if number % 2 and data[:4] == b"\x89PNG" else data


def zipped(data: bytes, number: int) -> bytes:
    return gzip.compress(data, 1)


TARGETS = {
    "picture": Target(".png", seeds.pictures, read_picture, after=sums_in_half),
    "mask": Target(".png", seeds.pictures, read_mask_file, after=sums_in_half),
    "tiff": Target(".tif", seeds.tiffs, read_picture, head=400),
    "dicom": Target(".dcm", seeds.dicoms, read_dicom, head=2500),
    "nifti": Target(".nii", seeds.volumes, read_volume, head=352),
    "nifti-gz": Target(".nii.gz", seeds.volumes, read_volume, head=352, after=zipped),
    "npz": Target(".npz", seeds.archives, read_archive),
    "csv": Target(".csv", seeds.tables, read_csv_manifest, TEXT),
    "yaml": Target(".yaml", seeds.settings, read_settings, TEXT),
    "weights": Target(".safetensors", seeds.weights, open_weights),
    "checkpoint": Target(".ckpt", seeds.checkpoints, read_checkpoint),
}


def case(target: Target, files: list[bytes], number: int, folder: Path) -> None:
    """Write the case of this number, and read it."""
    seed = files[number % len(files)]
    path = folder / f"case{target.suffix}"
    path.write_bytes(target.after(mutate(seed, number, mutations=target.mutations, head=target.head), number))
    try:
        target.read(path)
    except UserError as error:
        str(error).encode("utf-8", "backslashreplace")


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = TARGETS[name]
    files = target.seeds()
    for letter in "abc":
        (tmp_path / f"{letter}.png").write_bytes(b"x")
    start = int(os.environ.get("MSMAE_FUZZ_START", 0))
    for number in range(start, start + CASES):
        began = time.process_time()
        try:
            case(target, files, number, tmp_path)
            assert time.process_time() - began < SECONDS
        except BaseException as error:
            error.add_note(f"case {number} of {name}") if hasattr(error, "add_note") else None
            raise
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if "PYTEST_XDIST_WORKER" not in os.environ and CASES > 1000:  # this process did nothing else
        assert peak < 2 * MEMORY


if __name__ == "__main__":  # every failure of a range of cases, one line each
    import collections
    import tempfile
    import traceback

    warnings.simplefilter("error")
    name, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3] if len(sys.argv) > 3 else sys.argv[2])
    found: collections.Counter[str] = collections.Counter()
    example: dict[str, int] = {}
    slow: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        for letter in "abc":
            Path(folder, f"{letter}.png").write_bytes(b"x")
        files = TARGETS[name].seeds()
        began = time.monotonic()
        for number in range(first, last + 1):
            if os.environ.get("TRACE"):
                Path(os.environ["TRACE"]).write_text(str(number))
            at = time.monotonic()
            try:
                case(TARGETS[name], files, number, Path(folder))
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)
                ours = (
                    next(f for f in reversed(place) if "/src/msmae/" in f.filename)
                    if any("/src/msmae/" in f.filename for f in place)
                    else place[-1]
                )
                key = f"{type(error).__name__} at {Path(ours.filename).name}:{ours.lineno} {str(error)[:60]!r}"
                key = f"{type(error).__name__} at {Path(ours.filename).name}:{ours.lineno}"
                found[key] += 1
                example.setdefault(key, number)
            slow.append((time.monotonic() - at, number))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        name,
        last - first + 1,
        "cases",
        f"{time.monotonic() - began:.1f} s, peak {peak:.0f} MB, slowest",
        sorted(slow)[-2:],
    )
    for key, count in found.most_common():
        print("  ", count, key, "e.g.", example[key])
