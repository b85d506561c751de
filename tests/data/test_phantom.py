"""The embedded data set: lesions are told by texture alone, patients stay whole, equal settings give equal bytes."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from msmae.data.manifest import COLUMNS, Manifest
from msmae.data.phantom import CLASSES, FEWEST_IMAGES, make_phantom
from msmae.errors import UserError

SIDE, PATCH = 64, 8


@dataclass(frozen=True)
class Drawn:
    """A phantom read back from its files."""

    manifest: Manifest
    images: np.ndarray  # [n, H, W] uint8
    masks: np.ndarray  # [n, H, W] uint8 of 0 and 1


def read(manifest: Manifest) -> Drawn:
    images = np.stack([np.asarray(Image.open(manifest.path(i))) for i in range(len(manifest))])
    masks = np.zeros_like(images)
    for i in range(len(manifest)):
        for path in manifest.mask_paths(i):
            masks[i] = np.asarray(Image.open(path)) > 0
    return Drawn(manifest, images, masks)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Drawn:
    return read(make_phantom(tmp_path_factory.mktemp("phantom"), images=1600, seed=7))


def patches(images: np.ndarray) -> np.ndarray:
    """The pixels of each patch, [n, patches, pixels]."""
    n, height, width = images.shape
    grid = images.reshape(n, height // PATCH, PATCH, width // PATCH, PATCH)
    return grid.transpose(0, 1, 3, 2, 4).reshape(n, -1, PATCH * PATCH)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What makes it more than a toy


@pytest.mark.slow
def test_pixels_do_not_give_the_class_away(phantom: Drawn):
    """PCA and a support vector machine on the pixels stay at or below 0.60 balanced accuracy."""
    from sklearn.decomposition import PCA
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    pixels = phantom.images.reshape(len(phantom.images), -1).astype(np.float32)
    targets, train, test = phantom.manifest.targets(), phantom.manifest.ids("train"), phantom.manifest.ids("test")
    model = make_pipeline(StandardScaler(), PCA(100, random_state=0), StandardScaler(), SVC(kernel="rbf"))
    model.fit(pixels[train], targets[train])
    assert balanced_accuracy_score(targets[test], model.predict(pixels[test])) <= 0.60


@pytest.mark.slow
def test_mean_brightness_of_a_lesion_is_that_of_its_surroundings(phantom: Drawn):
    """The texture has mean zero: over many images a lesion is neither brighter nor darker than benign nodules."""
    from scipy.ndimage import binary_dilation

    differences = []
    for image, mask in zip(phantom.images, phantom.masks, strict=True):
        if mask.any():
            ring = binary_dilation(mask, iterations=4) & ~binary_dilation(mask, iterations=1)
            differences.append(image[mask > 0].mean() - image[ring].mean())
    assert len(differences) > 1000
    assert abs(np.median(differences)) < 4  # grey values; a texture's amplitude is about 28


CONSPICUOUS = {
    "brightest": lambda pixels, median: pixels.mean(2),
    "darkest": lambda pixels, median: -pixels.mean(2),
    "most deviating": lambda pixels, median: np.abs(pixels.mean(2) - median),
    "most varied": lambda pixels, median: pixels.std(2),
}


@pytest.mark.slow
@pytest.mark.parametrize("inside", [False, True], ids=["anywhere", "inside the organ"])
@pytest.mark.parametrize("measure", CONSPICUOUS)
def test_the_conspicuous_patch_is_rarely_the_lesion(phantom: Drawn, measure: str, inside: bool):
    """It touches the lesion in at most 40 % of the images that have one, with or without the organ's edge."""
    from scipy.ndimage import uniform_filter

    ill = phantom.masks.any(axis=(1, 2))
    images = phantom.images[ill].astype(np.float64)
    median = np.median(images, axis=(1, 2))[:, None]
    score = CONSPICUOUS[measure](patches(images), median)
    if inside:
        deep = patches(uniform_filter(images, (0, 9, 9))).min(2) > 75
        score = np.where(deep, score, -np.inf)
    touched = patches(phantom.masks[ill]).any(2)
    assert touched[np.arange(len(score)), score.argmax(1)].mean() <= 0.40


@pytest.mark.slow
def test_local_texture_tells_the_class(phantom: Drawn):
    """The energies of an 8-pixel window, at their maximum over the image, are enough for a linear model."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    windows = sliding_window_view(phantom.images, (PATCH, PATCH), axis=(1, 2))[:, ::4, ::4].astype(np.float32)
    hann = np.outer(np.hanning(PATCH + 2)[1:-1], np.hanning(PATCH + 2)[1:-1])
    spectra = np.abs(np.fft.rfft2((windows - windows.mean(axis=(-2, -1), keepdims=True)) * hann))  # [n, 15, 15, 8, 5]
    features = np.log(spectra.max(axis=(1, 2)).reshape(len(windows), -1) + 1)
    targets, train, test = phantom.manifest.targets(), phantom.manifest.ids("train"), phantom.manifest.ids("test")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(features[train], targets[train])
    assert balanced_accuracy_score(targets[test], model.predict(features[test])) >= 0.85


# Manifest and files


def test_manifest_and_masks_agree_with_the_class(phantom: Drawn):
    table = phantom.manifest.table
    assert set(COLUMNS) <= set(table.columns)
    assert phantom.manifest.layout == "phantom"
    assert phantom.manifest.classes == tuple(sorted(CLASSES))
    assert phantom.images.shape == (1600, SIDE, SIDE)
    assert phantom.images.dtype == np.uint8
    healthy = (table["label"] == "healthy").to_numpy()
    assert ((table["mask_path"] == "").to_numpy() == healthy).all()
    assert (phantom.masks.any(axis=(1, 2)) == ~healthy).all()
    assert sorted(path.name for path in (phantom.manifest.root / "masks").iterdir()) == sorted(
        Path(name).name for name in table["mask_path"] if name
    )


def test_lesions_span_two_to_four_patches_anywhere(phantom: Drawn):
    masks = phantom.masks[phantom.masks.any(axis=(1, 2))]
    areas = masks.sum(axis=(1, 2)) / PATCH**2
    assert 2 <= areas.mean() <= 4
    assert (areas > 1.5).mean() > 0.99
    middle = masks.mean(axis=0)[24:40, 24:40]
    assert middle.min() > 0.6 * middle.max()  # no favourite place


@settings(max_examples=10)
@given(images=st.integers(FEWEST_IMAGES, 150), seed=st.integers(0, 2**31))
def test_patients_stay_whole_and_every_split_has_every_class(tmp_path_factory, images: int, seed: int):
    table = make_phantom(tmp_path_factory.mktemp("small"), images=images, size=24, seed=seed).table
    assert len(table) == images
    patients = table.groupby("patient_id")
    assert patients.size().between(1, 3).all()
    assert (patients["split"].nunique() == 1).all()
    assert (patients["label"].nunique() == 1).all()
    assert set(zip(table["split"], table["label"], strict=True)) == {
        (split, label) for split in ("train", "val", "test") for label in CLASSES
    }


def test_splits_are_stratified(phantom: Drawn):
    shares = phantom.manifest.table.groupby("label")["split"].value_counts(normalize=True).unstack()
    assert shares["test"].between(0.15, 0.25).all()
    assert shares["val"].between(0.06, 0.14).all()


@pytest.mark.parametrize("size", [24, (40, 72), (96, 48), 224])
def test_any_size(tmp_path: Path, size: int | tuple[int, int]):
    drawn = read(make_phantom(tmp_path / "out", images=FEWEST_IMAGES, size=size))
    height, width = (size, size) if isinstance(size, int) else size
    assert drawn.images.shape[1:] == (height, width)
    ill = (drawn.manifest.table["label"] != "healthy").to_numpy()
    assert (drawn.masks.any(axis=(1, 2)) == ill).all()
    organ = (drawn.images > 60).mean()
    assert 0.4 < organ < 0.8


@pytest.mark.parametrize("lesion", [0.1, 0.2, 0.3])
def test_lesion_is_the_diameter(tmp_path: Path, lesion: float):
    masks = read(make_phantom(tmp_path / "out", images=100, lesion=lesion)).masks
    area = masks.sum(axis=(1, 2))[masks.any(axis=(1, 2))].mean()
    assert area == pytest.approx(math.pi / 4 * (lesion * SIDE) ** 2, rel=0.15)


# One phantom a setting


def test_same_seed_same_bytes(tmp_path: Path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_phantom(tmp_path / name, images=FEWEST_IMAGES, size=32, seed=seed)
    first, second, other = (folder_bytes(tmp_path / name) for name in "abc")
    assert first == second
    shared = [name for name in first if name.startswith("images/")]
    assert all(first[name] != other[name] for name in shared)


def test_a_finished_phantom_is_reused(tmp_path: Path):
    out = tmp_path / "deep" / "out"
    first = make_phantom(out, images=FEWEST_IMAGES, size=24)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = make_phantom(out, images=FEWEST_IMAGES, size=(24, 24))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    assert again.table.equals(first.table)
    assert [path.name for path in out.parent.iterdir()] == ["out"]  # nothing unfinished is left beside it


def test_other_settings_do_not_overwrite(tmp_path: Path):
    make_phantom(tmp_path / "out", images=FEWEST_IMAGES, size=24)
    before = folder_bytes(tmp_path / "out")
    with pytest.raises(UserError, match="other settings"):
        make_phantom(tmp_path / "out", images=FEWEST_IMAGES, size=24, seed=1)
    assert folder_bytes(tmp_path / "out") == before


def test_a_foreign_folder_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        make_phantom(tmp_path)
    assert folder_bytes(tmp_path) == {"thesis.txt": b"mine"}


def test_a_file_in_the_way(tmp_path: Path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        make_phantom(tmp_path / "out")


@pytest.mark.parametrize("lost", ["images/000007.png", "manifest.csv"])
def test_a_phantom_that_lost_files_is_not_reused(tmp_path: Path, lost: str):
    make_phantom(tmp_path / "out", images=FEWEST_IMAGES, size=24)
    (tmp_path / "out" / lost).unlink()
    with pytest.raises(UserError, match="lost some of its files"):
        make_phantom(tmp_path / "out", images=FEWEST_IMAGES, size=24)


def test_settings_are_beside_the_images(tmp_path: Path):
    make_phantom(tmp_path / "out", images=FEWEST_IMAGES, size=(24, 32), lesion=0.2, seed=5)
    assert json.loads((tmp_path / "out" / "phantom.json").read_text()) == {
        "images": FEWEST_IMAGES,
        "height": 24,
        "width": 32,
        "lesion": 0.2,
        "seed": 5,
        "format_version": 1,
    }


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"images": FEWEST_IMAGES - 1}, "59 images is too small"),
        ({"size": 23}, "23 x 23 pixels is too small"),
        ({"size": (64, 10)}, "64 x 10 pixels"),
        ({"lesion": 0.01}, "0.01 of the image"),
        ({"lesion": 0.31}, "0.31 of the image"),
        ({"seed": -1}, "negative"),
    ],
)
def test_settings_that_cannot_be_drawn(tmp_path: Path, wrong: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        make_phantom(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_four_thousand_images_in_fifteen_seconds(tmp_path: Path):
    started = time.process_time()
    make_phantom(tmp_path / "out", images=400)
    assert (time.process_time() - started) * 10 < 15
