"""Answers as DICOM objects that refer to their source images (extra ``dicom-out``, highdicom).

A classifier's answer: a structured report (TID 1500) with the probability of each class, and a secondary capture of the
attention over the image. A segmenter's: a segmentation object, and a secondary capture of the outlines. Patient and
study are those of the source; nothing of them is printed. The same answer has the same UIDs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from msmae import __version__
from msmae.data.reading.images import ImageSource, Reading, read_source
from msmae.errors import UserError, installing
from msmae.files import own_folder, whole
from msmae.statistics.predictions import PREFIX

MAKER = "msmae"
SERIES = {"report": 9001, "overlay": 9002, "segmentation": 9003}
"""Object -> the number of its series."""
SCHEME = "99MSMAE"
"""Coding scheme of the classes, which have no code of a standard."""


NEEDED = ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")
"""What a reference to a source image is made of."""
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


@contextmanager
def made_of(source: Dataset, what: str) -> Iterator[None]:
    """What highdicom says of a header that lacks something is said in our words: its own may quote the header."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        lacks = "" if source.get("FrameOfReferenceUID") else ": it lacks FrameOfReferenceUID"
        mend = "give the file as it comes from the archive, or leave --dicom out"
        raise UserError(f"no {what} can refer to this header{lacks}", where=str(source.filename), mend=mend) from error


@dataclass(frozen=True)
class Origin:
    """The model behind an object: its run's name and the SHA-256 of its weights."""

    name: str
    sha256: str


def import_highdicom() -> Any:
    """highdicom; ``UserError`` where it is not installed."""
    try:
        import highdicom
        import highdicom.sr
    except ImportError as error:
        raise UserError("DICOM output needs highdicom", where="--dicom", mend=installing("dicom-out")) from error
    return highdicom


def check_sources(paths: Sequence[str]) -> None:
    """Raise ``UserError`` unless every file is DICOM with one frame, and each study one patient's: the objects refer to
    their sources, and are filed with their study."""
    owners: dict[str, tuple[str, str]] = {}
    for path in paths:
        try:
            header = dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError) as error:
            mend = "name DICOM files only, or leave --dicom out"
            raise UserError("not a DICOM file: no DICOM object can refer to it", where=path, mend=mend) from error
        if lacking := [name for name in NEEDED if not header.get(name)]:
            mend = "give files as they come from the archive, or leave --dicom out"
            raise UserError(f"the header lacks {' and '.join(lacking)}", where=path, mend=mend)
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise UserError("a film of several frames", where=path, mend="leave --dicom out, or name single images")
        owner, first = owners.setdefault(str(header.StudyInstanceUID), (str(header.get("PatientID", "")), path))
        if owner != str(header.get("PatientID", "")):
            mend = "export each patient's study anew, or leave --dicom out"
            raise UserError(f"the study has images of two patients, this one and {first}", where=path, mend=mend)


def read(path: str) -> Dataset:
    """The source; what every object must name and may leave empty is there."""
    source = dcmread(path)
    for name in MAY_BE_EMPTY:
        if name not in source:
            setattr(source, name, "")
    return source


def write_report(
    source: Dataset, folder: Path, probabilities: dict[str, float], answer: str, origin: Origin, *, number: int
) -> Path:
    """A comprehensive SR: the answer, and each class with its calibrated probability."""
    hd = import_highdicom()
    sr = hd.sr
    algorithm = sr.AlgorithmIdentification(
        name=f"{MAKER} {origin.name}", version=__version__, parameters=[f"weights sha256 {origin.sha256}"]
    )
    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid_of(origin, source, "device"), name=MAKER, model_name=origin.name[:64]
        ),
    )
    measured = [
        sr.Measurement(
            name=sr.CodedConcept(f"PROB{k}", SCHEME, f"Probability of {name}"[:64]),
            value=round(value, 6),
            unit=codes.UCUM.NoUnits,
            algorithm_id=algorithm,
        )
        for k, (name, value) in enumerate(probabilities.items())
    ]
    said = [
        sr.QualitativeEvaluation(
            name=sr.CodedConcept("ANSWER", SCHEME, "Answer of the model"),
            value=sr.CodedConcept(f"CLASS{k}", SCHEME, name[:64]),
        )
        for k, name in enumerate(probabilities)
        if name in answer.split(";")
    ]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=uid_of(origin, source, "tracking"), identifier="image"),
        source_images=[sr.SourceImageForMeasurementGroup.from_source_image(source)],
        algorithm_id=algorithm,
        measurements=measured,
        qualitative_evaluations=said,
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=sr.CodedConcept("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    with made_of(source, "structured report"):
        made = sr.ComprehensiveSR(
            evidence=[source], content=content[0], manufacturer=MAKER, **series(origin, source, "report", number)
        )
    return save(made, folder, "report", number)


def write_segmentation(
    source: Dataset, folder: Path, layers: np.ndarray, classes: Sequence[str], origin: Origin, *, number: int
) -> Path:
    """A segmentation object, a segment a class: layers bool [C, H, W] at the image's own size."""
    hd = import_highdicom()
    if layers.shape[1:] != (source.Rows, source.Columns):
        raise UserError("the outline has another size than the image", where=folder.name, mend="leave --dicom out")
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"{MAKER} {origin.name}"[:64], family=codes.DCM.ArtificialIntelligence, version=__version__,
        parameters={"weights sha256": origin.sha256},
    )  # fmt: skip
    segments = [
        hd.seg.SegmentDescription(
            segment_number=k + 1,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for k, name in enumerate(classes)
    ]
    with made_of(source, "segmentation object"):
        made = hd.seg.Segmentation(
            source_images=[source],
            pixel_array=np.moveaxis(layers, 0, -1)[None].astype(np.uint8),  # [1, H, W, C]
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            manufacturer=MAKER,
            manufacturer_model_name=origin.name[:64],
            software_versions=__version__,
            device_serial_number=origin.sha256[:16],
            omit_empty_frames=bool(layers.any()),
            **series(origin, source, "segmentation", number),
        )
    if "ImageOrientationPatient" not in source:
        made.PatientOrientation = source.get("PatientOrientation", "")  # may be empty, and may not be missing
    return save(made, folder, "segmentation", number)


def write_overlay(source: Dataset, folder: Path, picture: np.ndarray, origin: Origin, *, number: int) -> Path:
    """A secondary capture of a picture uint8 [H, W, 3]."""
    hd = import_highdicom()
    with made_of(source, "overlay"):
        made = hd.sc.SCImage.from_ref_dataset(
            ref_dataset=source,
            pixel_array=picture,
            photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
            bits_allocated=8,
            coordinate_system=hd.CoordinateSystemNames.PATIENT,
            patient_orientation=("L", "P"),  # asked for; the source's own takes its place below
            manufacturer=MAKER,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            **series(origin, source, "overlay", number),
        )
    made.SeriesDescription = f"{MAKER} overlay, not for diagnosis"
    made.DerivationDescription = f"{origin.name}, weights sha256 {origin.sha256}"[:1024]
    made.SourceImageSequence = [reference_to(source)]
    made.PatientOrientation = source.get("PatientOrientation", "")
    made.BurnedInAnnotation, made.Laterality = "NO", ""
    return save(made, folder, "overlay", number)


def heat(path: str, attention: np.ndarray, reading: Reading) -> np.ndarray:
    """The attention map [h, w] in red over the image in grey, uint8 [H, W, 3], at the image's own size."""
    pixels = read_source(ImageSource(path), reading=reading).astype(np.float64).mean(axis=0)  # [H, W]
    low, high = float(pixels.min()), float(pixels.max())
    grey = (pixels - low) / max(high - low, 1e-12)
    size = (pixels.shape[1], pixels.shape[0])
    weight = np.asarray(Image.fromarray(attention.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    weight = 0.6 * np.clip(weight, 0, 1)
    colours = np.stack([grey * (1 - weight) + weight, grey * (1 - weight), grey * (1 - weight)], axis=-1)
    return np.asarray(np.rint(255 * colours), dtype=np.uint8)


def write_answers(model: Any, frame: pd.DataFrame, folder: Path, origin: Origin, *, numbers: Sequence[int]) -> None:
    """Report and overlay of every row of a classifier's predictions, named by the rows' numbers."""
    reading = Reading(**model.card.reading)
    for number, row in zip(numbers, frame.to_dict("records"), strict=True):
        path = str(row["image_path"])
        source = read(path)
        chances = {name: float(row[PREFIX + name]) for name in model.classes}
        write_report(source, folder, chances, str(row["predicted"]), origin, number=number)
        attention = model.attention([path])[0].numpy()  # [h, w]
        write_overlay(source, folder, heat(path, attention, reading), origin, number=number)


def write_outlines(
    model: Any, frame: pd.DataFrame, out: Path, folder: Path, origin: Origin, *, numbers: Sequence[int]
) -> None:
    """Segmentation and overlay of every row of a segmenter's predictions, from OUT/masks and OUT/overlays."""
    for number, row in zip(numbers, frame.to_dict("records"), strict=True):
        source = read(str(row["image_path"]))
        masks = [piece.rpartition("=")[2] for piece in str(row["mask"]).split(";")]
        arrays = [np.asarray(Image.open(out / mask)) for mask in masks]
        if len(arrays) == 1 and len(model.classes) > 1 and not model.card.multilabel:  # numbers of classes
            arrays = [arrays[0] == k + 1 for k in range(len(model.classes))]
        layers = np.stack([array > 0 for array in arrays])  # [C, H, W]
        write_segmentation(source, folder, layers, model.classes, origin, number=number)
        name = Path(masks[0]).name.removesuffix("-1.png") if model.card.multilabel else Path(masks[0]).stem
        picture = np.asarray(Image.open(out / "overlays" / f"{name}.png").convert("RGB"))
        write_overlay(source, folder, picture, origin, number=number)


def series(origin: Origin, source: Dataset, kind: str, number: int) -> dict[str, Any]:
    """Series and instance of an object: one series a kind and study."""
    return {
        "series_instance_uid": generate_uid(entropy_srcs=[origin.sha256, source.StudyInstanceUID, kind, "series"]),
        "series_number": SERIES[kind],
        "sop_instance_uid": uid_of(origin, source, kind),
        "instance_number": number + 1,
    }


def uid_of(origin: Origin, source: Dataset, kind: str) -> str:
    return str(generate_uid(entropy_srcs=[origin.sha256, source.SOPInstanceUID, kind]))


def reference_to(source: Dataset) -> Dataset:
    found = Dataset()
    found.ReferencedSOPClassUID, found.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    return found


def save(made: Any, folder: Path, kind: str, number: int) -> Path:
    """Write FOLDER/<number>-<kind>.dcm, whole or not at all."""
    own_folder(folder)
    path = folder / f"{number:05d}-{kind}.dcm"
    with whole(path) as unfinished:
        made.save_as(unfinished)
    return path
