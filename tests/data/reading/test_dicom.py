"""DICOM: every example file of pydicom against values worked out another way, and arrays that come back as written."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, FileDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

from dicom_by_the_book import EXAMPLES, by_the_book, expected_display, expected_modality, expected_numbers
from msmae.data.reading.dicom import WINDOWS, parse_window, read_dicom
from msmae.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

NAMES = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.is_file())
NO_IMAGE = "(holds|describes) no image"
REFUSED = {  # example file, or the beginning of its name -> why
    "ExplVR_BigEndNoMeta.dcm": "it is RT Ion Plan Storage",
    "ExplVR_LitEndNoMeta.dcm": "it is RT Ion Plan Storage",
    "JPEG2000-embedded-sequence-delimiter.dcm": "by its header and .* by its compressed pixels",
    "MR_truncated.dcm": "fewer pixels than its header announces",
    "badVR.dcm": "number of frames is no number",
    "waveform_ecg.dcm": "it is 12-lead ECG Waveform Storage",
    "rtstruct": NO_IMAGE,
    "rtplan": NO_IMAGE,
    "dicomdirtests/DICOMDIR": "it is Media Storage Directory Storage",
    "dicomdirtests/TINY_ALPHA/DICOMDIR": "it is Media Storage Directory Storage",
    "dicomdirtests/TINY_ALPHA/PT": "it is CT Image Storage",
    **dict.fromkeys(("UN_sequence", "empty_charset", "meta_missing", "nested_priv", "no_meta", "priv_SQ"), NO_IMAGE),
    **dict.fromkeys(("reportsi", "test-SR", "README", "crayons", "test1", "test_PN", "zipMR"), NO_IMAGE),
    **dict.fromkeys(("dicomdirtests/README", "dicomdirtests/TINY_ALPHA/README"), NO_IMAGE),
}
APART = (
    "GDCMJ2K_TextGBR.dcm",
    "JPGExtended.dcm",
    "JPEG-lossy.dcm",
)  # no second decoder at hand: tested by what they show


def refusal(name: str) -> str | None:
    return next((why for start, why in REFUSED.items() if name.startswith(start)), None)


def read(path: Path, **options: object) -> np.ndarray:
    return read_dicom(path, **{"max_pixels": 10**8, **options})


# --- the example files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if refusal(name)])
def test_what_is_no_image_is_refused_by_name_with_the_reason(name: str) -> None:
    with pytest.raises(UserError, match=refusal(name)) as caught:
        read(EXAMPLES / name, frame=0)
    assert caught.value.where == str(EXAMPLES / name)


@pytest.mark.parametrize("name", [name for name in NAMES if not refusal(name) and name not in APART])
def test_every_example_reads_to_the_values_worked_out_from_its_bytes(name: str) -> None:
    ds = pydicom.dcmread(EXAMPLES / name)
    stored, tolerance = expected_numbers(name)
    image = read(EXAMPLES / name, frame=0)
    expected = expected_display(ds, stored)
    assert image.dtype == np.float32
    assert image.shape == (3 if expected.ndim == 3 else 1, ds.Rows, ds.Columns)
    np.testing.assert_allclose(
        image, np.moveaxis(np.atleast_3d(expected), -1, 0), rtol=1e-6, atol=tolerance / (2.0**ds.BitsStored - 1) + 1e-7
    )
    if stored.ndim == 2 and ds.PhotometricInterpretation != "PALETTE COLOR":
        values, low, high = expected_modality(ds, stored)
        upright = low + high - values if ds.PhotometricInterpretation == "MONOCHROME1" else values
        np.testing.assert_allclose(read(EXAMPLES / name, frame=0, window="none")[0], upright, rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_twelve_bit_jpeg_shows_the_bone_scan_of_the_other_files(name: str) -> None:
    image = read(EXAMPLES / name, window="none")[0]
    assert (image[420, 140], image[230, 120]) == (244, 95)  # as every other 12-bit decoder finds them
    other = read(EXAMPLES / "JPEG2000.dcm", window="none")[0]  # the same scan after another lossy compression
    assert np.corrcoef(image.ravel(), other.ravel())[0, 1] > 0.95


def test_reversible_colour_transform_gives_back_the_pure_colours_of_the_test_picture() -> None:
    image = np.rint(read(EXAMPLES / "GDCMJ2K_TextGBR.dcm") * 255).astype(int)
    rows = []
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):  # three words below each other, on grey
        here = (image == np.reshape(colour, (3, 1, 1))).all(axis=0)
        assert here.sum() > 2000
        rows.append(np.nonzero(here)[0].mean())
    assert rows == sorted(rows)
    assert (image == 128).all(axis=0).mean() > 0.9


def test_the_frame_asked_for_is_read_and_one_must_be_asked_for() -> None:
    path = EXAMPLES / "examples_ybr_color.dcm"
    frames = list(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=30))
    for at in (0, 29):
        with Image.open(io.BytesIO(frames[at])) as image:
            expected = np.asarray(image).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(read(path, frame=at), expected, atol=1.01 / 255)
    with pytest.raises(UserError, match=r"30 images where one was expected .* column frame \(0 to 29\)"):
        read(path)
    with pytest.raises(UserError, match="frame 30 is not among 0 to 29"):
        read(path, frame=30)


# --- arrays written and read back -------------------------------------------------------------------------------------


def dataset(pixels: np.ndarray, *, bits: int, **attributes: object) -> FileDataset:
    """A CT file in memory that holds ``pixels`` [H, W] or [frames, H, W], ``bits`` of them stored."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.SamplesPerPixel, ds.PhotometricInterpretation = "CT", 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = pixels.dtype.itemsize * 8, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        ds.NumberOfFrames = len(pixels)
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds


def written(folder: Path, ds: FileDataset) -> Path:
    ds.save_as(folder / "image.dcm", enforce_file_format=True)
    return folder / "image.dcm"


@settings(max_examples=40)
@given(
    bits=st.sampled_from([8, 12, 16]),
    signed=st.booleans(),
    slope=st.sampled_from(["1", "0.684", "2.5"]),
    intercept=st.sampled_from(["0", "-1024", "200.5"]),
    centre=st.sampled_from(["40", "-600.5", "1600"]),
    width=st.sampled_from(["1", "80", "1500.5"]),
    function=st.sampled_from([None, "LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    inverted=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_an_array_comes_back_as_meant(
    tmp_path_factory, seed: int, bits: int, signed: bool, inverted: bool, **given
) -> None:
    """Slope and intercept, window and MONOCHROME1 at 8, 12 and 16 bits, against pydicom's own functions."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    kind = np.dtype(("i" if signed else "u") + ("1" if bits == 8 else "2"))
    stored = np.random.default_rng(seed).integers(low, high, (9, 7), endpoint=True).astype(kind)
    ds = dataset(stored, bits=bits, RescaleSlope=given["slope"], RescaleIntercept=given["intercept"])
    ds.WindowCenter, ds.WindowWidth = given["centre"], given["width"]
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    if given["function"]:
        ds.VOILUTFunction = given["function"]
    path = written(tmp_path_factory.mktemp("dicom"), ds)

    slope, intercept = float(given["slope"]), float(given["intercept"])
    darkest, brightest = low * slope + intercept, high * slope + intercept
    units = apply_modality_lut(stored, ds)
    np.testing.assert_allclose(units, stored * slope + intercept)
    np.testing.assert_allclose(
        read(path, window="none")[0], darkest + brightest - units if inverted else units, rtol=1e-6, atol=1e-2
    )
    with np.errstate(over="ignore"):
        shown = (apply_voi_lut(units, ds) - darkest) / (brightest - darkest)
    np.testing.assert_allclose(read(path)[0], 1 - shown if inverted else shown, atol=1e-6)


def lookup_table(entries: np.ndarray, *, first: int, bits: int) -> Dataset:
    table = Dataset()
    table.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return table


def test_lookup_tables_are_applied_as_pydicom_applies_them(tmp_path: Path) -> None:
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    draw = np.random.default_rng(0)
    modality = lookup_table(np.sort(draw.integers(0, 65536, 4000)), first=50, bits=16)
    voi = lookup_table(draw.integers(0, 4096, 60000), first=1000, bits=12)
    ds = dataset(
        stored, bits=12, ModalityLUTSequence=[modality], VOILUTSequence=[voi], WindowCenter="1", WindowWidth="2"
    )
    path = written(tmp_path, ds)
    units = apply_modality_lut(stored, ds)
    np.testing.assert_array_equal(read(path, window="none")[0], units)
    np.testing.assert_allclose(read(path)[0], apply_voi_lut(units, ds) / 4095, rtol=1e-6)


def test_a_lookup_table_with_eight_bit_entries_does_not_wrap_around(tmp_path: Path) -> None:
    stored = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    ds = dataset(stored, bits=10, VOILUTSequence=[lookup_table(np.arange(1024) // 4, first=0, bits=8)])
    np.testing.assert_allclose(read(written(tmp_path, ds))[0], stored // 4 / 255, rtol=1e-6)


def test_rle_of_sixteen_bits_loses_nothing(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 65536, (33, 17), dtype=np.uint16)
    ds = dataset(stored, bits=16)
    ds.compress(RLELossless)
    np.testing.assert_array_equal(read(written(tmp_path, ds), window="none")[0], stored)


def test_overlay_bits_above_the_stored_ones_do_not_change_the_image(tmp_path: Path) -> None:
    signed = np.random.default_rng(0).integers(-2048, 2048, (8, 8)).astype(np.int16)
    dirty = (signed & 0x0FFF) | np.int16(0x7000)
    np.testing.assert_array_equal(read(written(tmp_path, dataset(dirty, bits=12)), window="none")[0], signed)


def test_frames_of_an_enhanced_file_have_their_own_scale_and_window(tmp_path: Path) -> None:
    def item(**attributes: object) -> Dataset:
        made = Dataset()
        for name, value in attributes.items():
            setattr(made, name, value)
        return made

    stored = np.random.default_rng(0).integers(0, 4096, (2, 6, 5), dtype=np.uint16)
    ds = dataset(stored, bits=12)
    ds.SharedFunctionalGroupsSequence = [item(FrameVOILUTSequence=[item(WindowCenter="50", WindowWidth="400")])]
    ds.PerFrameFunctionalGroupsSequence = [
        item(PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept="-1000")])
        for slope in ("1", "0.5")
    ]
    path = written(tmp_path, ds)
    for frame, slope in ((0, 1.0), (1, 0.5)):
        units = stored[frame] * slope - 1000
        np.testing.assert_array_equal(read(path, frame=frame, window="none")[0], units)
        np.testing.assert_allclose(read(path, frame=frame)[0], by_the_book(units, 50, 400), atol=1e-6)


def test_floating_point_pixels_keep_their_values_and_need_a_window(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    ds = dataset(values.view(np.uint32), bits=32)
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    ds.FloatPixelData = values.tobytes()
    path = written(tmp_path, ds)
    np.testing.assert_array_equal(read(path, window="none")[0], values)
    np.testing.assert_allclose(read(path, window="-1..1")[0], np.clip((values + 1) / 2, 0, 1), atol=1e-6)
    with pytest.raises(UserError, match="without a window"):
        read(path)


# --- windows and refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [*WINDOWS, "300,2000"])
def test_a_window_asked_for_takes_the_place_of_the_file_s(window: str) -> None:
    name = "693_J2KI.dcm"
    units = read(EXAMPLES / name, window="none")[0].astype(float)
    centre, width = WINDOWS.get(window, (300, 2000))
    np.testing.assert_allclose(read(EXAMPLES / name, window=window)[0], by_the_book(units, centre, width), atol=1e-6)


def test_a_window_in_hounsfield_units_is_refused_for_anything_but_ct() -> None:
    with pytest.raises(UserError, match="Hounsfield units and the image is MR"):
        read(EXAMPLES / "MR_small.dcm", window="brain")


def test_windows_are_parsed_or_refused() -> None:
    assert parse_window("-1350..150") == (-1350, 150)
    assert parse_window("40,80") == parse_window("brain") == (0, 79)
    assert parse_window("none") is parse_window("file") is None
    for text in ("lungs", "40", "40,0", "40,-5", "1..0", "1,2,3", "", "nan,1"):
        with pytest.raises(UserError, match="is not known"):
            parse_window(text)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    content = (EXAMPLES / "CT_small.dcm").read_bytes()
    for length in (140, 2000, len(content) - 5000):
        (tmp_path / "cut.dcm").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"cut\.dcm"):
            read(tmp_path / "cut.dcm")


def test_the_size_is_checked_before_the_pixels_are_unpacked() -> None:
    with pytest.raises(UserError, match="128 x 128 pixels, more than the limit of 16,383"):
        read(EXAMPLES / "CT_small.dcm", max_pixels=128 * 128 - 1)


WIDTHS = [("0", "LINEAR"), ("-80", "LINEAR"), ("0.4", "LINEAR"), ("0", "SIGMOID")]


@pytest.mark.parametrize(("width", "function"), WIDTHS)
def test_a_window_that_cannot_be_applied_names_the_way_out(width: str, function: str, tmp_path: Path) -> None:
    ds = dataset(np.arange(64, dtype=np.uint16).reshape(8, 8), bits=12, WindowCenter="40", WindowWidth=width)
    ds.VOILUTFunction = function
    path = written(tmp_path, ds)
    with pytest.raises(UserError, match=r"image\.dcm.*--window: none") as caught:
        read(path)
    assert caught.value.where == str(path)
    assert read(path, window="none").max() == 63


def test_the_names_of_window_functions_are_read_in_small_letters(tmp_path: Path) -> None:
    ds = dataset(np.arange(64, dtype=np.uint16).reshape(8, 8), bits=12, WindowCenter="40", WindowWidth="20")
    expected = read(written(tmp_path, ds))
    ds.VOILUTFunction = "linear"
    np.testing.assert_array_equal(read(written(tmp_path, ds)), expected)


def test_a_slope_of_0_is_said(tmp_path: Path) -> None:
    ds = dataset(np.ones((8, 8), np.uint16), bits=12, RescaleSlope="0", RescaleIntercept="7")
    with pytest.raises(UserError, match="the rescale slope is 0"):
        read(written(tmp_path, ds))
