"""One small valid file, or a few, for each reader: what the fuzzer damages."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import tifffile
import torch
from PIL import Image
from safetensors.torch import save

from dicom_by_the_book import EXAMPLES

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 20, 3), dtype=np.uint8)
DICOM = (
    "SC_rgb_small_odd_jpeg.dcm", "SC_rgb_jpeg_dcmtk.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm",
    "SC_rgb_jls_lossy_line.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm", "693_J2KI.dcm", "JPGExtended.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm", "SC_rgb_rle_2frame.dcm", "rtdose.dcm", "image_dfl.dcm",
    "MR_small.dcm", "SC_rgb_small_odd.dcm", "ExplVR_BigEnd.dcm", "GDCMJ2K_TextGBR.dcm",
)  # fmt: skip


def picture(kind: str, **options: object) -> bytes:
    """An image in a format of Pillow's."""
    stream = io.BytesIO()
    pixels = Image.fromarray(PIXELS if kind in ("JPEG", "PNG", "WEBP") else PIXELS[..., 0])
    pixels.save(stream, kind, **options)
    return stream.getvalue()


def pictures() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    deep, film = io.BytesIO(), io.BytesIO()
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200).save(deep, "PNG")
    frames = [Image.fromarray(PIXELS[..., channel]) for channel in range(3)]
    frames[0].save(film, "GIF", save_all=True, append_images=frames[1:])
    return [
        picture("PNG", exif=exif), picture("JPEG", exif=exif), picture("BMP"), picture("GIF"), picture("WEBP"),
        deep.getvalue(), film.getvalue(),
    ]  # fmt: skip


def tiffs() -> list[bytes]:
    made = []
    for options in (
        {}, {"compression": "zlib"}, {"tile": (16, 16)}, {"tile": (16, 16), "compression": "zlib"},
        {"planarconfig": "separate"}, {"bigtiff": True}, {"rowsperstrip": 5, "compression": "zlib", "byteorder": ">"},
    ):  # fmt: skip
        stream = io.BytesIO()
        planar = options.get("planarconfig") == "separate"
        data = np.moveaxis(PIXELS, -1, 0) if planar else PIXELS
        tifffile.imwrite(stream, data, photometric="rgb", **options)
        made.append(stream.getvalue())
    made.append(picture("TIFF", compression="tiff_lzw"))
    return made


def dicoms() -> list[bytes]:
    made = [(EXAMPLES / name).read_bytes() for name in DICOM]
    with tempfile.TemporaryDirectory() as folder:
        return [*made, lossless_jpeg(Path(folder))]


def lossless_jpeg(folder: Path) -> bytes:
    """A DICOM file in lossless JPEG, which GDCM alone reads and writes here."""
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(EXAMPLES / "MR_small.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(folder / "lossless.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return (folder / "lossless.dcm").read_bytes()


def volumes() -> list[bytes]:
    numbers = np.random.default_rng(0).integers(-9, 9, (6, 5, 4, 2)).astype(np.int16)
    return [nibabel.Nifti1Image(data, np.eye(4)).to_bytes() for data in (numbers, numbers[..., 0].astype(np.float32))]


def archives() -> list[bytes]:
    plain, packed = io.BytesIO(), io.BytesIO()
    arrays = {"train_images": PIXELS[None], "train_labels": np.array([[1]])}
    np.savez(plain, **arrays)
    np.savez_compressed(packed, **arrays)
    return [plain.getvalue(), packed.getvalue()]


def tables() -> list[bytes]:
    rows = "image_path,label,patient_id,split\na.png,x,1,train\nb.png,y,2,val\nc.png,x,3,test\n"
    lines = "\n".join(json.dumps({"file_name": f"{name}.png", "label": "x"}) for name in "abc")
    return [rows.encode(), rows.replace(",", ";").encode("utf-16"), ("sep=\t\n" + rows.replace(",", "\t")).encode(),
            lines.encode()]  # fmt: skip


def settings() -> list[bytes]:
    text = (
        "extends: tiny\ndataset:\n  window: none\nmodel:\n  width: 32\n  image_size: [32, 32]\npretrain:\n  epochs: 2\n"
    )
    return [text.encode(), text.replace("32", "&a 32").encode()]


def weights() -> list[bytes]:
    tensors = {"patch_embed.proj.weight": torch.zeros(8, 1, 4, 4), "pos_embed": torch.zeros(1, 5, 8)}
    return [save(tensors, {"format": "pt"})]


def checkpoints() -> list[bytes]:
    stream = io.BytesIO()
    torch.save({"epoch": 1, "state_dict": {"a": torch.zeros(3)}, "callbacks": {"x": [1, 2.0, "s"]}}, stream)
    return [stream.getvalue()]
