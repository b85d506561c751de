"""Published layouts with masks, from the folder to the figures: nnU-Net (files and volumes) and BUSI, made up here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import msmae
from msmae.errors import UserError
from msmae.verbs.segment import segment

pytestmark = pytest.mark.slow


def scan(generator: np.random.Generator, *, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright square (class 1) and a dark one (class 2): image and class numbers, uint8 [size, size]."""
    image = generator.normal(100, 20, (size, size))
    classes = np.zeros((size, size), dtype=np.uint8)
    for number, left in ((1, 2), (2, size // 2 + 1)):
        top, side = generator.integers(2, size // 2), generator.integers(6, 10)
        classes[top : top + side, left : left + side] = number
        image[classes == number] += (-70, 90)[number == 1]
    return image.clip(0, 255).astype(np.uint8), classes


def test_nnunet_with_its_own_test_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    for part, count in (("Tr", 24), ("Ts", 8)):
        for folder in (f"images{part}", f"labels{part}"):
            (tmp_path / "task" / folder).mkdir(parents=True)
        for number in range(count):
            image, classes = scan(generator)
            Image.fromarray(image).save(tmp_path / "task" / f"images{part}" / f"{part}{number:03}_0000.png")
            Image.fromarray(classes).save(tmp_path / "task" / f"labels{part}" / f"{part}{number:03}.png")
    words: dict[str, Any] = {"from_": "none", "preset": "tiny"}
    with pytest.raises(UserError, match="holds the values 0, 1, 2, and one class needs one value"):
        segment(str(tmp_path / "task"), out=str(tmp_path / "x"), **words)
    metrics = segment(
        str(tmp_path / "task"), out=str(tmp_path / "run"), segment={"classes": "bright,dark", "presentations": 1500},
        **words,
    )  # fmt: skip
    assert "nnunet" in capsys.readouterr().out
    test = metrics["splits"]["test"]
    assert test["n"] == test["patients"] == 8
    for name in ("bright", "dark"):
        assert test["per_class"][name]["dice"]["value"] > 0.3, name
        assert test["per_class"][name]["n"] == 8
    for name in ("dice", "iou", "hd95", "nsd"):
        assert test["metrics"][name]["value"] is not None
    assert (tmp_path / "run" / "report.html").is_file()
    msmae.predict(str(tmp_path / "run"), [str(tmp_path / "task" / "imagesTs")], out=str(tmp_path / "out"))
    masks = sorted((tmp_path / "out" / "masks").iterdir())
    assert len(masks) == 8
    with Image.open(masks[0]) as mask:
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}


def test_nnunet_volumes_cut_into_slices(tmp_path: Path) -> None:
    import nibabel

    generator = np.random.default_rng(1)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "task" / folder).mkdir(parents=True)
    for case in range(10):
        slices = [scan(generator) for _ in range(4)]
        for folder, name, part in (("imagesTr", f"c{case}_0000", 0), ("labelsTr", f"c{case}", 1)):
            volume = np.stack([one[part] for one in slices], axis=2).astype(np.int16)  # [x, y, z]
            file = tmp_path / "task" / folder / f"{name}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), file)
    metrics = segment(
        str(tmp_path / "task"), from_="none", out=str(tmp_path / "run"), preset="tiny",
        dataset={"slices": "axial"}, segment={"classes": "bright,dark", "epochs": 2},
    )  # fmt: skip
    frame = pd.read_csv(tmp_path / "run" / "segmentation.csv", dtype={"patient_id": str})
    test = frame[frame["split"] == "test"]
    assert len(test) == 2 * metrics["splits"]["test"]["n"] == 2 * 4 * test["patient_id"].nunique()
    assert set(test["patient_id"]).isdisjoint(frame.loc[frame["split"] == "val", "patient_id"])
    assert (test["reference"] > 0).all(), "every slice has both squares"


def test_busi_with_several_masks_an_image_and_normal_ones_without(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    for kind in ("benign", "malignant", "normal"):
        (tmp_path / "busi" / kind).mkdir(parents=True)
        for number in range(1, 21):
            image, classes = scan(generator)
            stem = tmp_path / "busi" / kind / f"{kind} ({number})"
            Image.fromarray(image).save(f"{stem}.png")
            lesions = (
                {"_mask": classes == 1, "_mask_1": classes == 2} if kind == "malignant" else {"_mask": classes == 1}
            )
            for suffix, inside in lesions.items():  # BUSI's normal images have an empty mask, some have none
                if kind != "normal" or number > 10:
                    shown = inside & (kind != "normal")
                    Image.fromarray(shown.astype(np.uint8) * 255).save(f"{stem}{suffix}.png")
    metrics = segment(
        str(tmp_path / "busi"), from_="none", out=str(tmp_path / "run"), preset="tiny", segment={"epochs": 2}
    )  # fmt: skip
    manifest = msmae.open_dataset(tmp_path / "run" / "manifest.csv")
    assert len(manifest) == 60
    frame = pd.read_csv(tmp_path / "run" / "segmentation.csv")
    label = dict(zip(manifest.table["image_path"], manifest.table["label"], strict=True))
    names = frame["image_path"].map(lambda path: next(label[key] for key in label if key.endswith(Path(path).name)))
    assert (frame.loc[names == "normal", "reference"] == 0).all()
    assert (frame.loc[names == "benign", "lesions"] == 1).all()
    assert (frame.loc[names == "malignant", "lesions"] == 2).all(), "both masks of an image count"
    counts = metrics["splits"]["test"]["counts"]["lesion"]
    normal = ((frame["split"] == "test") & (names == "normal")).sum()
    assert counts["both_empty"] + counts["false_alarms"] == normal > 0
