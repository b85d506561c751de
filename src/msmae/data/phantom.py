"""The embedded default data set: generated grey "tissue" with lesions whose place is known.

Every image shows one organ on a dark ground: a cortex, vessels, calcifications, cysts, and three nodules alike in size,
contrast and brightness. In ``healthy`` images all three nodules are benign (mottled). In the others one of them is the
lesion, and nothing but its fine texture tells so: layers (``lamellar``), strands (``fibrous``) or a lattice
(``reticular``). The textures have mean zero and a flip leaves them what they are. Calcifications and cysts are brighter
and darker than lesions. The images of a patient share anatomy and disease.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from msmae.data.manifest import Manifest, read_manifest
from msmae.errors import UserError

CLASSES = ("healthy", "lamellar", "fibrous", "reticular")
SETTINGS_FILE = "phantom.json"
FORMAT_VERSION = 1

FEWEST_IMAGES = 60  # leaves every class a patient in each split
SMALLEST_SIDE = 24  # pixels; below it the textures no longer fit
NODULES = 3
TEST_SHARE, VAL_SHARE = 0.2, 0.1  # of each class's patients
PIXELS_AT_ONCE = 1 << 20

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PhantomSettings:
    """What decides every byte of a phantom."""

    images: int
    height: int  # pixels
    width: int  # pixels
    lesion: float  # diameter as a share of the shorter side
    seed: int
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Raise UserError for settings that cannot be drawn."""
        if self.images < FEWEST_IMAGES:
            raise UserError(f"a phantom of {self.images} images", mend=f"ask for at least {FEWEST_IMAGES}")
        if min(self.height, self.width) < SMALLEST_SIDE:
            raise UserError(
                f"a phantom of {self.height} x {self.width} pixels", mend=f"at least {SMALLEST_SIDE} a side"
            )
        if not 0.1 <= self.lesion <= 0.3:
            raise UserError(f"a lesion of {self.lesion} of the image's shorter side", mend="choose between 0.1 and 0.3")

    @property
    def scale(self) -> float:
        """Pixels for each pixel of the 64-pixel design."""
        return min(self.height, self.width) / 64


@dataclass(frozen=True)
class Anatomy:
    """What the images of one patient share; row p is patient p. Lengths are in pixels of the 64-pixel design."""

    radii: Floats  # [P, 2] vertical and horizontal, as a share of the half image
    wobble: Floats  # [P, 4] amplitude of the outline's harmonics 2..5
    phase: Floats  # [P, 4]
    level: Floats  # [P] grey value of the tissue
    cortex: Floats  # [P] brightness of the rim above the tissue
    vessel_angle: Floats  # [P, 3]
    vessel_offset: Floats  # [P, 3]
    vessel_bend: Floats  # [P, 3]
    vessel_phase: Floats  # [P, 3]
    vessel_contrast: Floats  # [P, 3]

    def of(self, patients: Ints) -> Anatomy:
        """The rows of these patients, in this order."""
        return Anatomy(**{field.name: getattr(self, field.name)[patients] for field in fields(self)})


def make_phantom(
    out: Path | str, *, images: int = 3000, size: int | tuple[int, int] = 64, lesion: float = 0.25, seed: int = 0
) -> Manifest:
    """Write a phantom under ``out`` and return its manifest; a phantom of the same settings is reused.

    ``size`` is the side or ``(height, width)`` in pixels, ``lesion`` the diameter of lesions and benign nodules as a
    share of the shorter side. Writes ``images/*.png`` (8 bit, grey), ``masks/*.png`` (0 or 255; healthy images have
    none), ``manifest.csv`` with patient-wise splits stratified by class, and the settings, ``phantom.json``. The same
    settings give the same bytes.

    Raises UserError where ``out`` holds anything else, or the settings cannot be drawn.
    """
    height, width = (size, size) if isinstance(size, int) else size
    settings = PhantomSettings(images=images, height=height, width=width, lesion=lesion, seed=seed)
    out = Path(out)
    if not _holds(out, settings):
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = out.parent / f".{out.name}-{os.getpid()}"
        unfinished.mkdir()
        try:
            _write(unfinished, settings)
            _move(unfinished, out, settings)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return replace(read_manifest(out / "manifest.csv"), layout="phantom")


def _holds(out: Path, settings: PhantomSettings) -> bool:
    """Whether ``out`` is a finished phantom of these settings; UserError where it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    mend = "choose another folder, or delete this one"
    try:
        found = json.loads((out / SETTINGS_FILE).read_text())
    except (OSError, ValueError):
        raise UserError("the folder for the phantom holds something else", where=str(out), mend=mend) from None
    if found != asdict(settings):
        raise UserError(f"the folder holds a phantom of other settings ({found})", where=str(out), mend=mend)
    if len(list((out / "images").glob("*.png"))) != settings.images or not (out / "manifest.csv").is_file():
        raise UserError("the phantom here is no longer complete", where=str(out), mend="delete the folder")
    return True


def _move(unfinished: Path, out: Path, settings: PhantomSettings) -> None:
    """Rename the finished folder to its place, unless another process was there first with the same phantom."""
    try:
        os.replace(unfinished, out)
    except OSError:
        if not _holds(out, settings):
            raise


def _write(out: Path, settings: PhantomSettings) -> None:
    rng = np.random.default_rng([settings.seed, FORMAT_VERSION])
    patients = _draw_patients(rng, settings.images)
    anatomy = _draw_anatomy(rng, int(patients.max()) + 1)
    labels, splits = _label_and_split(rng, patients)
    (out / "images").mkdir()
    (out / "masks").mkdir()
    chunk = max(1, PIXELS_AT_ONCE // (settings.height * settings.width))
    for first in range(0, settings.images, chunk):
        rows = np.arange(first, min(first + chunk, settings.images))
        pixels, masks = render(rng, anatomy.of(patients[rows]), labels[rows], settings)
        for row, image, mask in zip(rows, pixels, masks, strict=True):
            Image.fromarray(image).save(out / _image_path(row), compress_level=1)
            if labels[row]:
                Image.fromarray(mask * np.uint8(255)).save(out / _mask_path(row), compress_level=1)
    table = pd.DataFrame(
        {
            "image_path": [_image_path(row) for row in range(settings.images)],
            "label": [CLASSES[label] for label in labels],
            "patient_id": [f"p{patient:05d}" for patient in patients],
            "split": splits,
            "mask_path": [_mask_path(row) if labels[row] else "" for row in range(settings.images)],
        }
    )
    Manifest.from_table(table, root=out, layout="phantom").write(out / "manifest.csv")
    (out / SETTINGS_FILE).write_text(json.dumps(asdict(settings), indent=2) + "\n")


def _image_path(row: int | np.integer) -> str:
    return f"images/{row:06d}.png"


def _mask_path(row: int | np.integer) -> str:
    return f"masks/{row:06d}.png"


def _draw_patients(rng: np.random.Generator, images: int) -> Ints:
    """The patient of each image, [images]: one to three images a patient."""
    counts = rng.integers(1, 4, size=images)
    return np.repeat(np.arange(images), counts)[:images]


def _label_and_split(rng: np.random.Generator, patients: Ints) -> tuple[Ints, NDArray[np.str_]]:
    """Class and split of each image, [images] each: drawn patient by patient, each class shared out alike."""
    count = int(patients.max()) + 1
    labels = rng.permutation(np.arange(count) % len(CLASSES))
    splits = np.full(count, "train", dtype="<U5")
    for label in range(len(CLASSES)):
        members = rng.permutation(np.flatnonzero(labels == label))
        test = max(1, round(TEST_SHARE * len(members)))
        val = max(1, round(VAL_SHARE * len(members)))
        splits[members[:test]] = "test"
        splits[members[test : test + val]] = "val"
    return labels[patients], splits[patients]


def _draw_anatomy(rng: np.random.Generator, patients: int) -> Anatomy:
    def draw(low: float, high: float, *shape: int) -> Floats:
        return rng.uniform(low, high, size=(patients, *shape)).astype(np.float32)

    return Anatomy(
        radii=draw(0.78, 0.96, 2),
        wobble=draw(0.0, 1.0, 4) * np.array([0.06, 0.05, 0.03, 0.02], dtype=np.float32),
        phase=draw(-math.pi, math.pi, 4),
        level=draw(95, 125),
        cortex=draw(15, 45),
        vessel_angle=draw(-math.pi, math.pi, 3),
        vessel_offset=draw(-18, 18, 3),
        vessel_bend=draw(2, 7, 3),
        vessel_phase=draw(-math.pi, math.pi, 3),
        vessel_contrast=draw(-35, 45, 3),
    )


def render(
    rng: np.random.Generator, anatomy: Anatomy, labels: Ints, settings: PhantomSettings
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one image for each row of ``anatomy``: pixels [B, H, W] in 0..255 and lesion masks [B, H, W] of 0 and 1."""
    count, scale = len(labels), settings.scale
    y, x = np.mgrid[: settings.height, : settings.width].astype(np.float32)  # [H, W] each
    centre = np.float32([settings.height - 1, settings.width - 1]) / 2 + rng.uniform(-2, 2, (count, 2)) * scale
    y, x = (axis - centre[:, i, None, None].astype(np.float32) for i, axis in enumerate((y, x)))  # [B, H, W] each
    depth = _depth(y, x, anatomy, settings)

    tissue = anatomy.level[:, None, None] + 12 * _texture(rng, depth.shape, _falling(20 * scale))
    tissue += anatomy.cortex[:, None, None] * np.exp(-np.square((depth / scale - 2.5) / 1.8))
    _add_vessels(tissue, y, x, anatomy, scale)
    mask = _add_nodules(rng, tissue, depth, labels, settings)
    _add_spots(rng, tissue, depth, scale)

    organ = 1 / (1 + np.exp(-np.clip(2 * depth / scale, -30, 30)))
    image = 14 + organ * (tissue - 14) + rng.normal(0, 3, depth.shape).astype(np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask


def _depth(y: Floats, x: Floats, anatomy: Anatomy, settings: PhantomSettings) -> Floats:
    """How far inside the organ each pixel lies, [B, H, W], about in pixels; negative outside."""
    radii = anatomy.radii * np.float32([settings.height / 2, settings.width / 2])  # [B, 2]
    v, u = y / radii[:, 0, None, None], x / radii[:, 1, None, None]
    angle = np.arctan2(v, u)
    outline = np.ones_like(angle)
    for harmonic in range(4):
        amplitude, phase = anatomy.wobble[:, harmonic, None, None], anatomy.phase[:, harmonic, None, None]
        outline += amplitude * np.cos((harmonic + 2) * angle + phase)
    return (outline - np.hypot(u, v)) * radii.min(axis=1)[:, None, None]


def _texture(rng: np.random.Generator, shape: tuple[int, ...], spectrum) -> Floats:
    """Isotropic noise of this amplitude spectrum, mean 0 and variance 1, [B, H, W]."""
    height, width = shape[1:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))  # [H, W] cycles a pixel
    gain = spectrum(frequency).astype(np.float32)
    gain[0, 0] = 0
    gain /= np.sqrt(np.mean(np.square(gain)))
    noise = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    return np.fft.irfft2(noise * gain[:, : width // 2 + 1], s=(height, width)).astype(np.float32)


def _falling(wavelength: float):
    """An amplitude spectrum that falls with frequency beyond this wavelength, as in living tissue."""
    return lambda frequency: (1 + np.square(frequency * wavelength)) ** -0.9


def _band(wavelength: float):
    """An amplitude spectrum around this wavelength."""
    return lambda frequency: np.exp(-np.square((frequency * wavelength - 1) / 0.5))


def _add_vessels(tissue: Floats, y: Floats, x: Floats, anatomy: Anatomy, scale: float) -> None:
    for i in range(anatomy.vessel_angle.shape[1]):
        angle, offset, bend, phase, contrast = (
            getattr(anatomy, f"vessel_{name}")[:, i, None, None]
            for name in ("angle", "offset", "bend", "phase", "contrast")
        )
        along = (x * np.cos(angle) + y * np.sin(angle)) / scale
        across = (y * np.cos(angle) - x * np.sin(angle)) / scale
        distance = across - offset - bend * np.sin(0.13 * along + phase)
        tissue += contrast * np.exp(-np.square(distance / 1.3))


def _add_nodules(
    rng: np.random.Generator, tissue: Floats, depth: Floats, labels: Ints, settings: PhantomSettings
) -> NDArray[np.uint8]:
    """Add the nodules, the first of them a lesion where the label says so; returns the lesion masks, [B, H, W]."""
    count, scale = len(labels), settings.scale
    mask = np.zeros(tissue.shape, dtype=np.uint8)
    radius = settings.lesion * 64 * scale / 2
    mottle = _texture(rng, tissue.shape, _band(10 * scale))
    warp = 0.4 * _texture(rng, tissue.shape, _band(16 * scale))
    places = _spread(rng, depth, number=NODULES, margin=radius, apart=2 * radius + 2 * scale)
    for i in range(NODULES):
        kind = labels if i == 0 else np.zeros_like(labels)
        rows, columns, v, u = _window(places[:, i], 1.4 * radius, tissue.shape)
        size = radius * rng.uniform(0.85, 1.15, (count, 1, 1)).astype(np.float32)
        squash = rng.uniform(0.85, 1.15, (count, 1, 1)).astype(np.float32)
        inside = 1 / (1 + np.exp(np.clip((np.hypot(v * squash, u / squash) - size) * (1.6 / scale), -30, 30)))
        batch = np.arange(count)[:, None, None]
        inner = np.where(
            (kind == 0)[:, None, None],
            mottle[batch, rows, columns],
            _stripes(rng, kind, v, u, warp[batch, rows, columns], scale),
        )
        inner -= np.sum(inner * inside, axis=(1, 2), keepdims=True) / np.sum(inside, axis=(1, 2), keepdims=True)
        offset = rng.uniform(-12, 12, (count, 1, 1)).astype(np.float32)
        contrast = rng.uniform(24, 32, (count, 1, 1)).astype(np.float32)
        tissue[batch, rows, columns] += inside * (contrast * inner + offset)
        if i == 0:
            mask[batch, rows, columns] = (inside > 0.5) & (kind > 0)[:, None, None]
    return mask


def _stripes(rng: np.random.Generator, kind: Ints, v: Floats, u: Floats, warp: Floats, scale: float) -> Floats:
    """The lesions' fine textures, variance about 1, [B, w, w]: 1 layers, 2 strands, 3 a lattice of both diagonals."""
    count = len(kind)
    tilt, wave = (rng.uniform(low, high, (count, 1, 1)).astype(np.float32) for low, high in ((-0.15, 0.15), (4.3, 5.1)))
    wave = 2 * np.pi / (wave * scale * np.where(kind == 3, 1.1, 1)[:, None, None])
    down = (
        wave * (v * np.cos(tilt) + u * np.sin(tilt))
        + rng.uniform(0, 2 * np.pi, (count, 1, 1)).astype(np.float32)
        + warp
    )
    over = (
        wave * (u * np.cos(tilt) - v * np.sin(tilt))
        + rng.uniform(0, 2 * np.pi, (count, 1, 1)).astype(np.float32)
        + warp
    )
    layers, strands = np.sqrt(2) * np.sin(down), np.sqrt(2) * np.sin(over)
    kind = kind[:, None, None]
    return np.where(kind == 1, layers, np.where(kind == 2, strands, layers * strands)).astype(np.float32)


def _add_spots(rng: np.random.Generator, tissue: Floats, depth: Floats, scale: float) -> None:
    """Add bright calcifications and dark cysts, anywhere in the organ, the same in every class."""
    count = len(tissue)
    batch = np.arange(count)[:, None, None]
    for number, sizes, contrasts in ((4, (0.9, 1.6), (50, 110)), (3, (1.6, 2.8), (-70, -40))):
        places = _spread(rng, depth, number=number, margin=2 * scale, apart=0)
        for i in range(number):
            rows, columns, v, u = _window(places[:, i], 3 * sizes[1] * scale, tissue.shape)
            size = rng.uniform(*sizes, (count, 1, 1)).astype(np.float32) * scale
            contrast = (rng.uniform(*contrasts, count) * (rng.random(count) < 0.7)).astype(np.float32)[:, None, None]
            tissue[batch, rows, columns] += contrast * np.exp(-(np.square(v) + np.square(u)) / np.square(size))


def _spread(rng: np.random.Generator, depth: Floats, *, number: int, margin: float, apart: float) -> Floats:
    """Random places (row, column) at least ``margin`` deep in the organ and ``apart`` from each other, [B, number, 2].

    The first of many candidates that fits is taken; where none does, the one that comes nearest to fitting.
    """
    count, height, width = depth.shape
    batch, tries = np.arange(count), 64
    places = np.empty((count, 0, 2), dtype=np.float32)
    for _ in range(number):
        candidates = rng.integers(0, (height, width), size=(count, tries, 2))
        room = depth[batch[:, None], candidates[..., 0], candidates[..., 1]] - margin  # [B, tries]
        gaps = np.linalg.norm(candidates[:, :, None] - places[:, None], axis=-1) - apart  # [B, tries, placed]
        room = np.minimum(room, gaps.min(axis=2, initial=np.inf))
        chosen = candidates[batch, np.argmax(np.minimum(room, 0), axis=1)]  # [B, 2]
        places = np.concatenate([places, chosen[:, None].astype(np.float32)], axis=1)
    return places


def _window(places: Floats, reach: float, shape: tuple[int, ...]) -> tuple[Ints, Ints, Floats, Floats]:
    """Rows [B, w, 1] and columns [B, 1, w] of a square around each place, and the distances from it in pixels."""
    half = min(math.ceil(reach), (min(shape[1:]) - 1) // 2)
    steps = np.arange(-half, half + 1)
    middle = np.clip(places.astype(np.int64), half, np.array(shape[1:]) - 1 - half)
    rows, columns = middle[:, 0, None] + steps, middle[:, 1, None] + steps
    v, u = rows - places[:, 0, None], columns - places[:, 1, None]
    return rows[:, :, None], columns[:, None, :], v[:, :, None].astype(np.float32), u[:, None, :].astype(np.float32)
