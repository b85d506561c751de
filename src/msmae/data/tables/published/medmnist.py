"""The 2-D sets of MedMNIST v2 (Yang et al., Scientific Data 2023), one ``.npz`` each, 28 to 224 px."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from msmae.data.manifest import NO_FINDING, SEPARATOR, SPLITS, Manifest
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
    names = CLASS_NAMES.get(re.sub(r"_\d+$", "", source.stem.lower()))
    rows: list[tuple[str, str, str]] = []
    with np.load(source, allow_pickle=False) as archive:
        for split in splits:
            shape = shapes[f"{split}_images"]
            if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] > 4):
                raise UserError(f"{split}_images is {list(shape)}, not a stack of 2-D images", where=str(source))
            labels = _labels(archive[f"{split}_labels"], names, where=f"{source}, {split}_labels")
            if len(labels) != shape[0]:
                raise UserError(f"{shape[0]} {split} images, but {len(labels)} labels", where=str(source))
            rows += [(f"{source.name}#{split}/{row}", label, split) for row, label in enumerate(labels)]
    table = pd.DataFrame(rows, columns=["image_path", "label", "split"], dtype=object)
    known = f"with the class names of {source.stem}" if names else "classes known by number only"
    note = f"{count(len(table), 'image')} in {', '.join(splits)}, {known}"
    return Manifest.from_table(table, root=source.parent, layout="medmnist", notes=[note])


def _shapes(source: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every array in the archive, from its header alone."""
    shapes = {}
    try:
        with zipfile.ZipFile(source) as archive:
            for member in archive.namelist():
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shapes[member.removesuffix(".npy")] = read(stream)[0]
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise UserError(
            f"this is no readable .npz archive: {error}", where=str(source), mend="download it again"
        ) from error
    return shapes


def _labels(labels: np.ndarray, names: tuple[str, ...] | None, *, where: str) -> list[str]:
    if labels.dtype.kind not in "iub" or labels.ndim > 2:
        raise UserError(f"labels are {labels.dtype} of shape {list(labels.shape)}, not class numbers", where=where)
    labels = labels.reshape(len(labels), -1)
    classes = labels.shape[1] if labels.shape[1] > 1 else int(labels.max(initial=0)) + 1
    names = names if names is not None and len(names) >= classes else tuple(str(number) for number in range(classes))
    if labels.shape[1] == 1:
        return [names[number] for number in labels[:, 0]]
    return [SEPARATOR.join(sorted(names[number] for number in np.flatnonzero(row))) or NO_FINDING for row in labels]
