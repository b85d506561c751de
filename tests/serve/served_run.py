"""Runs to serve, written without training, and files to send them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from msmae.runs.cards import ModelCard
from msmae.runs.checkpoint import build_model, save_model
from msmae.statistics.predictions import write_predictions
from saved_run import make_predictions

CLASSES = ["benign", "malignant", "normal"]
CARD = ModelCard(
    kind="classifier",
    method="msmae",
    classes=CLASSES,
    multilabel=False,
    image_size=(32, 32),
    patch_size=4,
    channels=1,
    width=32,
    depth=2,
    heads=2,
    pool="cls",
    mean=[80.0],
    std=[50.0],
    reading={"window": "file", "replace_nonfinite": None, "max_pixels": 300_000_000},
    calibration={"method": "temperature", "scale": [2.0] * 3, "bias": [0.0] * 3, "multilabel": False, "images": 80},
    numbers="uint8",
)
SECRETS = ("SECRET^NAME", "SECRET-ID", "SECRET-VENDOR")


def write_run(folder: Path, *, kind: str = "classifier", numbers: str = "uint8") -> Path:
    """A run with random weights, a pre-trained part, validation predictions and a few training images."""
    torch.manual_seed(0)
    scale = 1 / 255 if numbers == "float32" else 1.0
    card = replace(CARD, kind=kind, numbers=numbers, mean=[80 * scale], std=[50 * scale])
    if kind == "segmenter":
        decoder = {"decoder": "light", "width": 32, "deep_supervision": False}
        card = replace(card, classes=["lesion"], decoder=decoder, calibration={})
    folder.mkdir(parents=True)
    save_model(folder / "model", build_model(card), card)
    if kind == "segmenter":
        return folder
    decoder = {"width": 32, "depth": 1, "heads": 2}
    pretrained = replace(card, kind="pretrained", decoder=decoder, calibration={})
    save_model(folder / "pretrained", build_model(pretrained), pretrained)
    write_predictions(make_predictions(classes=CLASSES), folder / "predictions.csv")
    write_training_images(folder)
    return folder


def write_training_images(folder: Path) -> None:
    """Six images and the manifest that names them."""
    (folder / "images").mkdir()
    lines = ["image_path,label,patient_id,split"]
    for i in range(6):
        (folder / "images" / f"{i}.png").write_bytes(png(i))
        lines.append(f"images/{i}.png,{CLASSES[i % 3]},secret-patient-{i},train")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def pixels(seed: int = 0, size: tuple[int, int] = (48, 48)) -> np.ndarray:
    """A soft blob on noise, uint8."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    centre = draw.uniform(0.3, 0.7, 2)
    blob = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 0.03)
    return (170 * blob + draw.normal(50, 12, size)).clip(0, 255).astype(np.uint8)


def encoded(image: np.ndarray, kind: str) -> bytes:
    """An array as a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def png(seed: int = 0, size: tuple[int, int] = (48, 48)) -> bytes:
    """A PNG of 8 bits."""
    return encoded(pixels(seed, size), "PNG")


def dicom(seed: int = 0, size: tuple[int, int] = (48, 48), **changes: object) -> bytes:
    """A CT slice with secrets in its header; ``changes``: attributes to set otherwise."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.Manufacturer = SECRETS
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "CT", "MONOCHROME2", 1
    data.Rows, data.Columns = size
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept = "1", "-1024"
    data.WindowCenter, data.WindowWidth = "100", "600"
    data.PixelData = (pixels(seed, size).astype("<u2") * 2 + 824).tobytes()
    for name, value in changes.items():
        setattr(data, name, value)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
