"""Reading image files and fitting them to a size: what the numbers are, and what is refused."""

from __future__ import annotations

import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from msmae.data.reading.images import (
    ImageSource,
    Plane,
    Reading,
    count_channels,
    load_images,
    read_image,
    read_source,
)
from msmae.errors import UserError


def noise(*shape: int, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)


def save(array: np.ndarray, path: Path, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def png(array: np.ndarray, path: Path) -> Path:
    """A 16-bit PNG [H, W, C] of 1 to 4 channels, rows filtered in all five ways, written without any library."""
    height, width, channels = array.shape
    wide = array.astype(">u2").tobytes()
    stride, step = width * channels * 2, channels * 2
    rows = [np.zeros(stride, np.uint8), *np.frombuffer(wide, np.uint8).reshape(height, stride)]
    content = b""
    for at in range(1, height + 1):
        here, above = rows[at].astype(int), rows[at - 1].astype(int)
        left, corner = (np.concatenate([np.zeros(step, int), row[:-step]]) for row in (here, above))
        guess = left + above - corner
        paeth = np.select(
            [
                (abs(guess - left) <= abs(guess - above)) & (abs(guess - left) <= abs(guess - corner)),
                abs(guess - above) <= abs(guess - corner),
            ],
            [left, above],
            corner,
        )
        kind = at % 5
        predicted = (0 * here, left, above, (left + above) // 2, paeth)[kind]
        content += bytes([kind]) + ((here - predicted) % 256).astype(np.uint8).tobytes()

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_grey_and_colour_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    colour = read_image(save(noise(7, 5, 3), tmp_path / f"rgb.{suffix}", **options))
    np.testing.assert_array_equal(colour, noise(7, 5, 3).transpose(2, 0, 1))
    if suffix != "webp":  # which has no grey
        np.testing.assert_array_equal(read_image(save(noise(7, 5), tmp_path / f"grey.{suffix}")), noise(7, 5)[None])


def test_jpeg_is_decoded_as_grey_or_rgb_to_within_its_loss(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(40), np.arange(40)).astype(np.uint8)
    grey = read_image(save(smooth, tmp_path / "grey.jpg", quality=95))
    assert grey.shape == (1, 40, 40)
    assert np.abs(grey[0].astype(int) - smooth).max() <= 3
    colour = np.stack([smooth, 200 - smooth, 0 * smooth + 90], axis=-1)
    for mode in ("RGB", "CMYK"):
        read = read_image(save(colour, tmp_path / f"{mode}.jpg", mode, quality=95))
        assert np.abs(read.transpose(1, 2, 0).astype(int) - colour).max() <= 8


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = save(noise(7, 5), tmp_path / "grey.png").rename(tmp_path / "grey.jpg")
    np.testing.assert_array_equal(read_image(path)[0], noise(7, 5))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_is_dropped_and_the_colour_under_it_kept(tmp_path: Path, suffix: str) -> None:
    pixels = noise(4, 6, 4)
    pixels[..., 3] = 0
    np.testing.assert_array_equal(
        read_image(save(pixels, tmp_path / f"rgba.{suffix}")), pixels[..., :3].transpose(2, 0, 1)
    )
    grey = Image.merge("LA", [Image.fromarray(noise(4, 6)), Image.new("L", (6, 4))])
    grey.save(tmp_path / f"la.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"la.{suffix}")[0], noise(4, 6))


@pytest.mark.parametrize("name", ["palette.png", "palette.gif", "palette.tif", "palette.bmp", "see-through.png"])
def test_a_palette_is_looked_up(tmp_path: Path, name: str) -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2, 1])
    image.save(tmp_path / name, **({"transparency": b"\x00\x80\xff"} if name.startswith("see") else {}))
    read = read_image(tmp_path / name)
    assert read.transpose(1, 2, 0).tolist() == [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    assert count_channels(ImageSource(str(tmp_path / name))) == 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_one_bit_is_black_and_white(tmp_path: Path, suffix: str) -> None:
    inside = noise(9, 11) > 127
    np.testing.assert_array_equal(read_image(save(inside, tmp_path / f"bits.{suffix}"))[0], inside * 255)


UPRIGHT = {  # orientation tag -> the picture as it is to be seen, from the picture as it is stored
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["turned.png", "plain.tif", "lzw.tif", "deep.tif"])
def test_the_orientation_is_applied(tmp_path: Path, name: str, orientation: int) -> None:
    pixels = noise(8, 16, kind=np.uint16 if name.startswith("deep") else np.uint8)
    if name.endswith("png"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(pixels, tmp_path / name, exif=exif)
    else:
        compression = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
        save(pixels, tmp_path / name, tiffinfo={0x0112: orientation}, **compression)
    np.testing.assert_array_equal(read_image(tmp_path / name)[0], UPRIGHT[orientation](pixels))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_of_png_are_kept(tmp_path: Path, channels: int) -> None:
    pixels = noise(11, 6, channels, kind=np.uint16)
    read = read_image(png(pixels, tmp_path / "deep.png"))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels[..., :3].transpose(2, 0, 1))


def test_an_animation_needs_a_frame(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    first.save(tmp_path / "film.webp", save_all=True, append_images=[second], lossless=True)
    with pytest.raises(UserError, match="2 images where one was expected"):
        read_image(tmp_path / "film.webp")
    assert read_image(tmp_path / "film.webp", plane=Plane(frame=1))[:, 0, 0].tolist() == [0, 0, 255]


# --- TIFF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_keeps_every_depth(tmp_path: Path, kind: type, compression: str | None) -> None:
    pixels = (noise(9, 7, kind=np.uint16) % 200).astype(kind)
    tifffile.imwrite(tmp_path / "deep.tif", pixels, compression=compression, bigtiff=compression is None)
    read = read_image(tmp_path / "deep.tif")
    assert read.dtype == kind
    np.testing.assert_array_equal(read[0], pixels)


@pytest.mark.parametrize("kind", [np.uint32, np.float64, np.int8])
def test_other_number_types_become_float(tmp_path: Path, kind: type) -> None:
    tifffile.imwrite(tmp_path / "other.tif", np.arange(12, dtype=kind).reshape(3, 4))
    read = read_image(tmp_path / "other.tif")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read[0], np.arange(12).reshape(3, 4))


def test_pages_are_frames_and_named_channels_are_channels(tmp_path: Path) -> None:
    stack = noise(5, 9, 7, kind=np.uint16)
    tifffile.imwrite(tmp_path / "pages.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal(read_image(tmp_path / "pages.tif", plane=Plane(frame=3))[0], stack[3])
    with pytest.raises(UserError, match="5 images where one was expected"):
        read_image(tmp_path / "pages.tif")
    tifffile.imwrite(tmp_path / "stains.tif", stack, imagej=True, metadata={"axes": "CYX"})
    np.testing.assert_array_equal(read_image(tmp_path / "stains.tif"), stack)
    assert count_channels(ImageSource(str(tmp_path / "stains.tif"))) == 5
    film = noise(2, 3, 9, 7, kind=np.uint16)
    tifffile.imwrite(tmp_path / "film.ome.tif", film, metadata={"axes": "TCYX"}, photometric="minisblack")
    np.testing.assert_array_equal(read_image(tmp_path / "film.ome.tif", plane=Plane(frame=1)), film[1])


@pytest.mark.parametrize("layout", ["contig", "separate"])
def test_samples_of_a_pixel_are_channels(tmp_path: Path, layout: str) -> None:
    pixels = noise(9, 7, 5, kind=np.uint16)
    stored = pixels if layout == "contig" else pixels.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "many.tif", stored, photometric="minisblack", planarconfig=layout)
    np.testing.assert_array_equal(read_image(tmp_path / "many.tif"), pixels.transpose(2, 0, 1))
    assert count_channels(ImageSource(str(tmp_path / "many.tif"))) == 5


def test_pages_of_different_sizes_are_frames(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        for side in (8, 4):
            file.write(noise(side, side))
    assert read_image(tmp_path / "mixed.tif", plane=Plane(frame=1)).shape == (1, 4, 4)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, bool])
def test_minimum_is_white_is_inverted(tmp_path: Path, kind: type) -> None:
    pixels = noise(9, 8) > 100 if kind is bool else noise(9, 8, kind=kind)
    tifffile.imwrite(tmp_path / "white.tif", pixels, photometric="miniswhite")
    highest = 255 if kind is bool else np.iinfo(kind).max
    np.testing.assert_array_equal(
        read_image(tmp_path / "white.tif")[0], highest - pixels * (255 if kind is bool else 1)
    )


def test_cmyk_tiff_becomes_rgb(tmp_path: Path) -> None:
    save(noise(6, 6, 3), tmp_path / "print.tif", "CMYK")
    np.testing.assert_array_equal(read_image(tmp_path / "print.tif"), noise(6, 6, 3).transpose(2, 0, 1))


def test_compressions_that_only_pillow_knows(tmp_path: Path) -> None:
    deep = noise(9, 7, kind=np.uint16)
    np.testing.assert_array_equal(read_image(save(deep, tmp_path / "deep.tif", compression="tiff_lzw"))[0], deep)
    smooth = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    read = read_image(save(smooth, tmp_path / "photo.tif", compression="jpeg"))
    assert np.abs(read.transpose(1, 2, 0).astype(int) - smooth).max() <= 3


# --- npz, offset, window ----------------------------------------------------------------------------------------------


def test_npz_references(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "set.npz", train_images=noise(5, 6, 7), val_images=noise(2, 6, 7, 3))
    np.testing.assert_array_equal(read_image(f"{tmp_path}/set.npz#train/3"), noise(5, 6, 7)[3][None])
    assert count_channels(ImageSource(f"{tmp_path}/set.npz#val/1")) == 3
    for reference, why in (("train/5", "no row 5"), ("test/0", "no array test_images or test; the file holds train")):
        with pytest.raises(UserError, match=why):
            read_image(f"{tmp_path}/set.npz#{reference}")


def test_a_changed_npz_is_read_anew(tmp_path: Path) -> None:
    for value in (1, 2):
        np.savez(tmp_path / "set.npz", train_images=np.full((1, 2, 2 + value), value, np.uint8))
        assert read_image(f"{tmp_path}/set.npz#train/0").max() == value


def test_an_offset_gives_the_numbers_their_units_and_a_window_their_brightness(tmp_path: Path) -> None:
    hounsfield = noise(6, 8, kind=np.uint16) % 3000 - 1000.0
    path = png((hounsfield + 32768).astype(np.uint16)[..., None], tmp_path / "lesion.png")
    source = ImageSource(str(path), offset=-32768, window="-175.0..275.0")
    np.testing.assert_array_equal(read_source(source)[0], hounsfield)
    lung = read_source(source, reading=Reading(window="lung"))[0]
    np.testing.assert_allclose(lung, np.clip((hounsfield + 1350) / 1499, 0, 1), atol=1e-6)
    own = read_source(source, reading=Reading(window="manifest"))[0]
    np.testing.assert_allclose(own, np.clip((hounsfield + 175) / 450, 0, 1), atol=1e-6)


def test_a_window_needs_units(tmp_path: Path) -> None:
    path = save(noise(4, 4), tmp_path / "grey.png")
    with pytest.raises(UserError, match="of 8 bits"):
        read_image(path, reading=Reading(window="lung"))
    with pytest.raises(UserError, match="gives no window for this image"):
        read_image(path, reading=Reading(window="manifest"))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif", "gif"])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    content = save(noise(64, 64), tmp_path / f"whole.{suffix}").read_bytes()
    for length in (0, 3, 20, len(content) // 2):
        (tmp_path / "cut.img").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"cut\.img"):
            read_image(tmp_path / "cut.img")


def test_what_is_not_an_image_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html>not found</html>")
    (tmp_path / "empty.png").touch()
    (tmp_path / "scan.dcm").write_text("not DICOM at all")
    (tmp_path / "set.npz").write_bytes(b"PK but no archive")
    for name, why in (
        ("page.png", "not an image in a format"),
        ("empty.png", "0 bytes"),
        ("gone.png", "no such image"),
        (".", "a folder"),
        ("scan.dcm", "DICOM file"),
        ("set.npz#train/0", ".npz file cannot be read"),
    ):
        with pytest.raises(UserError, match=why):
            read_image(tmp_path / name)


def test_paths_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "file").touch()
    for path in (tmp_path / "loop.png", tmp_path / ("x" * 300), tmp_path / "file" / "a.png", "zero\0byte.png"):
        with pytest.raises(UserError, match="the path leads to no image"):
            read_image(path)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_decompression_bomb_is_refused_before_it_unfolds(tmp_path: Path, suffix: str) -> None:
    path = save(np.zeros((3000, 2000), bool if suffix != "jpg" else np.uint8), tmp_path / f"bomb.{suffix}")
    with pytest.raises(UserError, match=r"3000 x 2000 pixels, more than the limit of 5,999,999 .*max_pixels"):
        read_image(path, reading=Reading(max_pixels=5_999_999))
    assert read_image(path, reading=Reading(max_pixels=6_000_000)).shape == (1, 3000, 2000)


def test_pillow_s_own_limit_is_neither_used_nor_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_image(save(noise(20, 20), tmp_path / "grey.png")).shape == (1, 20, 20)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("name", ["a b.png", 'it\'s "so".png', "line\nbreak.png", "ключ.png", "hash#1.png"])
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(read_image(save(noise(3, 3), tmp_path / name))[0], noise(3, 3))


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(str(tmp_path) + "/caf\udce9.png")
    save(noise(3, 3), path)
    np.testing.assert_array_equal(read_image(path)[0], noise(3, 3))


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    path = save(noise(1, 1), tmp_path / "dot.png")
    assert (load_images([path], size=(4, 6), channels=3) == noise(1, 1)[0, 0]).all()


@pytest.mark.slow
def test_twenty_thousand_pixels_square_are_refused_by_default_and_read_when_asked(tmp_path: Path) -> None:
    path = save(np.zeros((20_000, 20_000), bool), tmp_path / "slide.png")
    with pytest.raises(UserError, match="20000 x 20000 pixels"):
        read_image(path)
    small = load_images([path], size=(8, 8), channels=1, reading=Reading(max_pixels=10**9))
    assert small.shape == (1, 1, 8, 8)


# --- masks ------------------------------------------------------------------------------------------------------------


# --- fit and load -----------------------------------------------------------------------------------------------------


def test_loading_names_every_file_that_cannot_be_read(tmp_path: Path) -> None:
    good, bad = save(noise(4, 4), tmp_path / "good.png"), tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    with pytest.raises(UserError, match="2 of 3 images") as caught:
        load_images([bad, good, tmp_path / "gone.png"], size=(4, 4), channels=1)
    assert "bad.png" in str(caught.value)
    assert "gone.png" in str(caught.value)


def test_loading_refuses_to_mix_depths(tmp_path: Path) -> None:
    paths = [save(noise(4, 4), tmp_path / "a.png"), png(noise(4, 4, 1, kind=np.uint16), tmp_path / "b.png")]
    with pytest.raises(UserError, match=r"different kinds \(uint16, uint8\)"):
        load_images(paths, size=(4, 4), channels=1)


def test_threads_share_one_decompressed_array(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "set.npz", train_images=noise(50, 8, 8))
    start, read = threading.Barrier(4), []

    def work() -> None:
        start.wait()
        read.extend(read_image(f"{tmp_path}/set.npz#train/{row}") for row in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 200
    assert {id(image.base) for image in read} == {id(read[0].base)}


def test_real_scans_of_every_mode_and_size(real_data: Path) -> None:
    paths = sorted((real_data / "brain-tumor-mri" / "Testing").rglob("*.jpg"))[::60]
    loaded = load_images(paths, size=(64, 64), channels=1)
    assert loaded.shape == (len(paths), 1, 64, 64)
    assert (loaded.reshape(len(paths), -1).std(axis=1) > 5).all()
