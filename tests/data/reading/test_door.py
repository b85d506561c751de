"""The readers' door: bombs are refused before room is made for them, and what a header holds never comes out."""

from __future__ import annotations

import io
import resource
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_by_the_book import EXAMPLES
from msmae.cli import main
from msmae.data.audit.traits import acquisition
from msmae.data.reading.headers import read_headers
from msmae.data.reading.images import ImageSource, Plane, Reading, count_channels, read_source
from msmae.data.reading.masks import read_mask
from msmae.data.tables.published.medmnist import read_medmnist
from msmae.errors import UserError

SMALL = Reading(max_pixels=10**6)
ZEROS = 100_000_000
"""Bytes that the bombs unfold to: a hundred times what is allowed here."""


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def npz(path: Path) -> ImageSource:
    np.savez_compressed(path / "bomb.npz", train_images=np.zeros((ZEROS // 10000, 100, 100), np.uint8))
    return ImageSource(f"{path}/bomb.npz#train/0")


def npz_row(path: Path) -> ImageSource:
    np.savez_compressed(path / "bomb.npz", train_images=np.zeros((1, ZEROS // 10000, 10000), np.uint8))
    return ImageSource(f"{path}/bomb.npz#train/0")


def nifti(path: Path) -> ImageSource:
    nibabel.save(nibabel.Nifti1Image(np.zeros((1000, 1000, ZEROS // 10**6), np.uint8), np.eye(4)), path / "a.nii.gz")
    return ImageSource(str(path / "a.nii.gz"), Plane(axis=2, index=0))


def tiff_samples(path: Path) -> ImageSource:
    tifffile.imwrite(path / "a.tif", np.zeros((100, 100, ZEROS // 10000), np.uint8), compression="zlib",
                     photometric="minisblack", planarconfig="contig")  # fmt: skip
    return ImageSource(str(path / "a.tif"))


def tiff_tiles(path: Path) -> ImageSource:
    tifffile.imwrite(path / "a.tif", np.zeros((16, 16), np.uint8), tile=(9984, 9984), compression="zlib")
    return ImageSource(str(path / "a.tif"))


def tiff_strip(path: Path) -> ImageSource:
    """A strip that holds more than it announces."""
    tifffile.imwrite(path / "a.tif", np.zeros((16, 16), np.uint8), compression="zlib", metadata=None)
    with tifffile.TiffFile(path / "a.tif") as file:
        tags = file.pages[0].tags
        at, count = tags["StripOffsets"].valueoffset, tags["StripByteCounts"].valueoffset
    content = bytearray((path / "a.tif").read_bytes())
    bomb = zlib.compress(bytes(ZEROS), 1)
    content[at : at + 4] = len(content).to_bytes(4, "little")
    content[count : count + 4] = len(bomb).to_bytes(4, "little")
    (path / "a.tif").write_bytes(bytes(content) + bomb)
    return ImageSource(str(path / "a.tif"))


def deflated_dicom(path: Path) -> ImageSource:
    small = pydicom.dcmread(EXAMPLES / "MR_small.dcm")
    small.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    stream = io.BytesIO()
    small.save_as(stream)
    begin = 144 + int.from_bytes(stream.getvalue()[140:144], "little")
    pack = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    block = pack.compress(bytes(10**6)) + pack.flush(zlib.Z_FULL_FLUSH)  # may be repeated
    (path / "a.dcm").write_bytes(stream.getvalue()[:begin] + 400 * block + pack.flush())
    return ImageSource(str(path / "a.dcm"))


def png(path: Path) -> ImageSource:
    Image.new("L", (10**4, ZEROS // 10**4)).save(path / "a.png")
    return ImageSource(str(path / "a.png"))


@pytest.mark.parametrize("make", [npz, npz_row, nifti, tiff_samples, tiff_tiles, tiff_strip, deflated_dicom, png])
def test_bombs_are_refused_before_room_is_made(tmp_path: Path, make: Callable[[Path], ImageSource]) -> None:
    bomb = make(tmp_path)
    before = peak()
    with pytest.raises(UserError) as caught:
        read_source(bomb, reading=SMALL)
    assert caught.value.where is not None
    assert "cannot be read" not in caught.value.what  # refused for what it announces, not for what came of it
    assert peak() - before < ZEROS // 2


def test_a_mask_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (5000, 5000)).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match="more than the limit"):
        read_mask([tmp_path / "mask.png"], reading=SMALL)


def test_volumes_beside_the_one_asked_for_are_not_unpacked(tmp_path: Path) -> None:
    """A file that announces 30,000 volumes and holds one is read, and one of none of them refused."""
    numbers = np.arange(60, dtype=np.int16).reshape(5, 4, 3, 1)
    content = bytearray(nibabel.Nifti1Image(numbers, np.eye(4)).to_bytes())
    content[40 + 8 : 40 + 10] = (30_000).to_bytes(2, "little")
    (tmp_path / "a.nii").write_bytes(content)
    first = read_source(ImageSource(str(tmp_path / "a.nii"), Plane(axis=2, index=1, frame=0)))
    np.testing.assert_array_equal(first[0], numbers[:, :, 1, 0].T[::-1, ::-1])
    with pytest.raises(UserError, match=r"a\.nii"):
        read_source(ImageSource(str(tmp_path / "a.nii"), Plane(axis=2, index=1, frame=29_999)))


def test_pages_in_a_circle_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack", metadata=None)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first, last = file.pages[0].offset, file.pages[2]
        end = last.offset + 2 + 12 * int.from_bytes(content[last.offset : last.offset + 2], "little")
    content[end : end + 4] = first.to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UserError, match="circle"):
        read_source(ImageSource(str(tmp_path / "a.tif"), Plane(frame=0)))


# --- headers that contradict what follows -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("SC_rgb_jpeg_dcmtk.dcm", {"BitsStored": 7, "HighBit": 6}),
        ("JPGExtended.dcm", {"BitsStored": 8, "BitsAllocated": 8, "HighBit": 7}),
        ("MR_small_jpeg_ls_lossless.dcm", {"Rows": 4096, "Columns": 4096}),
        ("MR_small_jp2klossless.dcm", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}),
    ],
)
def test_a_header_that_contradicts_its_stream_is_refused(tmp_path: Path, name: str, changes: dict[str, object]) -> None:
    wrong = pydicom.dcmread(EXAMPLES / name)
    for keyword, value in changes.items():
        setattr(wrong, keyword, value)
    wrong.PlanarConfiguration = 0
    wrong.save_as(tmp_path / "wrong.dcm")
    with pytest.raises(UserError, match=r"by its header and .*compressed pixels"):
        read_source(ImageSource(str(tmp_path / "wrong.dcm")))


def test_a_decoder_that_ends_its_process_costs_one_image(tmp_path: Path) -> None:
    """GDCM calls std::terminate over some lossless JPEG streams; here its process is ended in its place."""
    from msmae.data.reading import apart

    good = str(EXAMPLES / "MR_small_jp2klossless.dcm")
    first = read_source(ImageSource(good))
    child = apart.CHILDREN.take()
    child.process.kill()
    child.process.wait()
    apart.CHILDREN.give_back(child)
    with pytest.raises(UserError, match="breaks down"):
        read_source(ImageSource(good))
    np.testing.assert_array_equal(read_source(ImageSource(good)), first)


# --- nothing of a header comes out ------------------------------------------------------------------------------------

SECRETS = ("Doe", "Jane", "19510203", "MRN-77")


def named_dicom(number: int = 0) -> bytes:
    """A small CT image of Jane Doe's."""
    image = pydicom.dcmread(EXAMPLES / "MR_small.dcm")
    image.PatientName, image.PatientID, image.PatientBirthDate = "Doe^Jane", "MRN-77", "19510203"
    image.PatientComments = "Doe^Jane MRN-77 19510203"
    pixels = np.random.default_rng(number).integers(0, 1000, (64, 64)).astype(np.int16)
    image.PixelData = pixels.tobytes()
    stream = io.BytesIO()
    image.save_as(stream)
    return stream.getvalue()


def test_no_damage_to_a_header_lets_a_name_out(tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog) -> None:
    """Bytes all over the header set to two values: sentences, warnings, logs and both outputs are searched."""
    content, path = named_dicom(), tmp_path / "a.dcm"
    end = content.index(b"\xe0\x7f\x10\x00")
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for at in range(132, end, 23):
            for value in (0, 0xFF):
                damaged = bytearray(content)
                damaged[at] = value
                path.write_bytes(damaged)
                for read in (read_source, count_channels):
                    try:
                        read(ImageSource(str(path)))
                    except UserError as error:
                        said.append(str(error))
                said += [value for column in read_headers([path]).values() for value in column]
                try:
                    said.append(acquisition(str(path))[0])
                except UserError as error:
                    said.append(str(error))
    out, err = capfd.readouterr()
    everything = "\n".join([*said, *(str(warning.message) for warning in caught), caplog.text, out, err])
    assert len(said) > 50
    assert not any(secret in everything for secret in SECRETS)


def test_a_name_in_a_damaged_file_is_nowhere_in_what_a_check_prints_or_keeps(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))
    for number in range(8):
        content = bytearray(named_dicom(number))
        at = content.index(b"\x28\x00\x08\x00") if b"\x28\x00\x08\x00" in content else content.index(b"Doe^Jane") - 2
        if number == 3:
            content[content.index(b"Doe^Jane") - 2] ^= 0x40
        if number == 4:
            content[content.index(b"MRN-77") - 2] = 200
        if number == 5:
            content[at] ^= 1
        folder = tmp_path / "data" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.dcm").write_bytes(content)
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path / "data")])
    kept = [file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    out, err = capfd.readouterr()
    assert out
    for secret in SECRETS:
        assert secret not in out + err
        assert not any(secret.encode() in content for content in kept)


def test_labels_that_are_a_bomb_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(
        tmp_path / "a.npz", train_images=np.zeros((1, 8, 8), np.uint8), train_labels=np.zeros((ZEROS, 2), np.uint8)
    )
    with pytest.raises(UserError, match="times its size"):
        read_medmnist(tmp_path / "a.npz")


def test_a_small_file_that_claims_a_huge_picture_is_refused_before_room_is_made(tmp_path: Path) -> None:
    path = tmp_path / "claims.png"
    Image.new("L", (20, 20)).save(path)
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", 20_000, 12_000) + data[24:29]
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
    with pytest.raises(UserError, match=r"bytes cannot hold a picture of 12000 x 20000 pixels"):
        read_source(ImageSource(str(path)))
    tifffile.imwrite(tmp_path / "claims.tif", np.zeros((16, 16), np.uint8), compression="zlib")
    with tifffile.TiffFile(tmp_path / "claims.tif", mode="r+b") as file:
        for name, side in (("ImageLength", 12_000), ("ImageWidth", 20_000), ("RowsPerStrip", 12_000)):
            file.pages[0].tags[name].overwrite(side)
    with pytest.raises(UserError, match=r"bytes cannot hold a picture of 12000 x 20000 pixels"):
        read_source(ImageSource(str(tmp_path / "claims.tif")))
    flat = tmp_path / "flat.png"
    Image.new("1", (8_000, 8_000)).save(flat)
    assert read_source(ImageSource(str(flat))).shape == (1, 8_000, 8_000)
