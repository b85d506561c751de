"""The 2-D sets of MedMNIST v2 (Yang et al., Scientific Data 2023), one ``.npz`` each, 28 to 224 px."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from msmae.data.manifest import NO_FINDING, SEPARATOR, SPLITS, Manifest
from msmae.data.reading.arrays import member_header, read_member
from msmae.data.reading.door import door
from msmae.data.tables.listing import count
from msmae.errors import UserError

ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right"),
    *("liver", "lung-left", "lung-right", "pancreas", "spleen"),
)
CLASS_NAMES: dict[str, tuple[str, ...]] = {  # by their number in the file; retinamnist's grades 0 to 4 are their names
    "bloodmnist": (
        *("basophil", "eosinophil", "erythroblast"),
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
        *("lymphocyte", "monocyte", "neutrophil", "platelet"),
    ),
    "breastmnist": ("malignant", "normal, benign"),
    "chestmnist": (
        *("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia"),
        *("pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia"),
    ),
    "dermamnist": (
        *("actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesions"),
        *("dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions"),
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "organamnist": ORGANS,
    "organcmnist": ORGANS,
    "organsmnist": ORGANS,
    "pathmnist": (
        *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle"),
        *("normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
    ),
    "pneumoniamnist": ("normal", "pneumonia"),
    "tissuemnist": (
        *("Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells"),
        *("Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments"),
        "Thick Ascending Limb",
    ),
}


MOST_LABELS = 100_000_000
"""Bytes of labels that need not be held against their packed size."""


def read_medmnist(source: Path) -> Manifest:
    """Read ``{train,val,test}_images`` (uint8 ``[n, h, w]`` or ``[n, h, w, 3]``) and ``_labels`` (``[n, 1]``, ``[n]``,
    or 0/1 ``[n, C]`` for multi-label sets) without decoding the images.

    Row 17 of ``train_images`` is named ``<file>.npz#train/17``. Classes carry their names where the file name tells the
    set, else their numbers. Raises ``UserError`` for a file that is no such archive, or holds 3-D volumes.
    """
    shapes = _shapes(source)
    splits = [split for split in SPLITS if f"{split}_images" in shapes]
    if not splits or any(f"{split}_labels" not in shapes for split in splits):
        raise UserError(
            f"this archive holds {', '.join(sorted(shapes)) or 'no arrays'}",
            where=str(source),
            mend="a MedMNIST file holds train_images with train_labels, and the same for val and test",
        )
    names = published = CLASS_NAMES.get(re.sub(r"_\d+$", "", source.stem.lower()))
    rows: list[tuple[str, str, str]] = []
    numbers: dict[str, np.ndarray] = {}
    for split in splits:
        shape = shapes[f"{split}_images"]
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] > 4):
            raise UserError(f"{split}_images is {list(shape)}, not a stack of 2-D images", where=str(source))
        numbers[split] = read_member(source, f"{split}_labels", limit=MOST_LABELS)
    names, told = _names(numbers, names, where=str(source))
    for split in splits:
        shape = shapes[f"{split}_images"]
        labels = _labels(numbers[split], names)
        if len(labels) != shape[0]:
            raise UserError(
                f"{count(shape[0], f'{split} image')}, but {count(len(labels), 'label')}", where=str(source)
            )
        rows += [(f"{source.name}#{split}/{row}", label, split) for row, label in enumerate(labels)]
    table = pd.DataFrame(rows, columns=["image_path", "label", "split"], dtype=object)
    known = f"with the class names of {source.stem}" if published else "classes known by number only"
    note = f"{count(len(table), 'image')} in {', '.join(splits)}, {known}"
    rules = {"label": f"the arrays of labels, {known}", "split": "the arrays' names"}
    return Manifest.from_table(table, root=source.parent, layout="medmnist", notes=[note, *told], rules=rules)


def _shapes(source: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every array in the archive, from its header alone."""
    with door(source, what=".npz archive", mend="download it again"), zipfile.ZipFile(source) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    return {name: member_header(source, name)[0] for name in names}


def _names(
    labels: dict[str, np.ndarray], names: tuple[str, ...] | None, *, where: str
) -> tuple[tuple[str, ...], list[str]]:
    """The name of every class, over all splits, and what a person should know of the numbers.

    Raises ``UserError`` for labels that are no class numbers. One column of ``[n, C]`` for each class, of which every
    row has exactly one, is one class an image and not several.
    """
    for split, numbers in labels.items():
        if numbers.dtype.kind not in "iub" or not 1 <= numbers.ndim <= 2:
            raise UserError(
                f"labels are {numbers.dtype} of shape {list(numbers.shape)}, not class numbers",
                where=f"{where}, {split}_labels",
                mend="save the labels as whole numbers: 0 for the first class",
            )
    columns = {split: numbers.reshape(len(numbers), -1) for split, numbers in labels.items()}
    widths = {numbers.shape[1] for numbers in columns.values()}
    if len(widths) > 1:
        raise UserError(f"the splits have labels of {sorted(widths)} columns", where=where, mend="write them alike")
    everything = np.concatenate(list(columns.values()))
    told: list[str] = []
    if everything.shape[1] > 1:
        if not np.isin(everything, (0, 1)).all():
            raise UserError("several columns of labels hold more than 0 and 1", where=where, mend="give one column")
        if (everything.sum(axis=1) == 1).all():
            labels |= {split: np.argmax(numbers, axis=1) for split, numbers in columns.items()}
            told.append("labels are one-hot (one column a class, one 1 in every row): one class an image")
        classes = everything.shape[1]
    else:
        unlabelled = int((everything < 0).sum())
        if (everything < -1).any():
            raise UserError(f"there is a label {everything.min()}", where=where, mend="count from 0; -1 is unlabelled")
        told += [f"{count(unlabelled, 'image')} with the label -1: taken for unlabelled"] if unlabelled else []
        classes = int(everything.max(initial=0)) + 1
    known = names is not None and len(names) >= classes
    return (names if known and names else tuple(str(number) for number in range(classes))), told


def _labels(labels: np.ndarray, names: tuple[str, ...]) -> list[str]:
    """The label of each image, ``""`` for -1."""
    labels = labels.reshape(len(labels), -1)
    if labels.shape[1] == 1:
        return [names[number] if number >= 0 else "" for number in labels[:, 0].tolist()]
    return [SEPARATOR.join(sorted(names[number] for number in np.flatnonzero(row))) or NO_FINDING for row in labels]
