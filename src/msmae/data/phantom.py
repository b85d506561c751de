"""The embedded default data set: generated grey "tissue" with lesions whose place is known.

Every image shows one organ on a dark ground: a cortex, vessels, calcifications, cysts, and three nodules alike in size,
contrast and brightness. In ``healthy`` images all three nodules are benign (mottled). In the others one of them is the
lesion, and nothing but its fine texture tells so: layers (``lamellar``), strands (``fibrous``) or a lattice
(``reticular``). These textures have mean zero, and a flip leaves them what they are. Calcifications are brighter and
cysts darker than lesions. The images of a patient share anatomy and disease.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit

from msmae.data.manifest import Manifest, read_manifest
from msmae.errors import UserError, count

CLASSES = ("healthy", "lamellar", "fibrous", "reticular")
NODULES = 3
TEST_SHARE, VAL_SHARE = 0.2, 0.1  # of each class's patients
FEWEST_IMAGES = 60  # leaves every class a patient in each split
SMALLEST_SIDE = 24  # pixels; below it the textures no longer fit
PIXELS_AT_ONCE = 1 << 20
SMALLEST_LESION = 0.02
FINE_LESION = 0.1
"""Share of the image under which a lesion's texture and border shrink with it."""
SETTINGS_FILE = "phantom.json"
FORMAT_VERSION = 1
DRAWN = "the images are drawn by msmae (the phantom): the figures say nothing of real patients"

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


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
            raise UserError(
                f"a phantom of {count(self.images, 'image')} is too small", mend=f"ask for {FEWEST_IMAGES} or more"
            )
        if min(self.height, self.width) < SMALLEST_SIDE:
            size = f"{self.height} x {self.width}"
            raise UserError(f"a phantom of {size} pixels is too small", mend=f"ask for {SMALLEST_SIDE} or more a side")
        if not SMALLEST_LESION <= self.lesion <= 0.3:
            mend = f"choose between {SMALLEST_LESION} and 0.3"
            raise UserError(f"a lesion cannot span {self.lesion} of the image", mend=mend)
        if self.seed < 0:
            raise UserError(f"a seed cannot be negative, and this is {self.seed}", mend="choose 0 or more")

    @property
    def scale(self) -> float:
        """Pixels here for each pixel of the design, which is 64 pixels wide."""
        return min(self.height, self.width) / 64

    @property
    def fine(self) -> float:
        """As ``scale``, for the borders of nodules."""
        return self.scale * min(1, self.lesion / FINE_LESION)

    @property
    def grain(self) -> float:
        """As ``fine``, for the textures of nodules: in small images they stay coarse enough to be seen."""
        return max(self.fine, 0.7)


@dataclass(frozen=True)
class Anatomy:
    """What the images of a patient share: row p is patient p, lengths are pixels of the 64-pixel design."""

    radii: Floats  # [P, 2] vertical and horizontal, as a share of half the image
    wobble: Floats  # [P, 4] amplitude of the outline's harmonics 2 to 5
    phase: Floats  # [P, 4] and their phase
    level: Floats  # [P] grey value of the tissue
    cortex: Floats  # [P] grey values of the rim above the tissue
    vessel_angle: Floats  # [P, 3]
    vessel_offset: Floats  # [P, 3] from the organ's centre
    vessel_bend: Floats  # [P, 3] amplitude
    vessel_phase: Floats  # [P, 3]
    vessel_contrast: Floats  # [P, 3] grey values above or below the tissue

    def of(self, patients: Ints) -> Anatomy:
        """The anatomy of these patients, in this order."""
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
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
            finished = _write(Path(folder) / out.name, settings)
            _move(finished, out, settings)
    return replace(read_manifest(out / "manifest.csv"), layout="phantom", notes=(DRAWN,))


def _holds(out: Path, settings: PhantomSettings) -> bool:
    """Whether ``out`` is a finished phantom of these settings; UserError where it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / SETTINGS_FILE).read_text())
    except (OSError, ValueError):
        mend = "name a new or empty folder"
        raise UserError("the place for the phantom holds something else", where=str(out), mend=mend) from None
    if found != asdict(settings):
        mend = "name another folder, or delete this one"
        raise UserError(f"the folder holds a phantom of other settings, {found}", where=str(out), mend=mend)
    if len(list((out / "images").glob("*.png"))) != settings.images or not (out / "manifest.csv").is_file():
        raise UserError("the phantom has lost some of its files", where=str(out), mend="delete the folder")
    return True


def _move(finished: Path, out: Path, settings: PhantomSettings) -> None:
    """Rename the finished folder to its place, unless another process was there first with the same phantom."""
    try:
        if out.is_dir():
            out.rmdir()  # refuses unless empty
        os.replace(finished, out)
    except OSError:
        if not _holds(out, settings):
            raise


def _write(out: Path, settings: PhantomSettings) -> Path:
    """Draw and write everything, a chunk of images at a time."""
    rng = np.random.default_rng(settings.seed)
    patients = _draw_patients(rng, settings.images)
    labels, splits = _label_and_split(rng, patients)
    anatomy = _draw_anatomy(rng, int(patients.max()) + 1)
    (out / "images").mkdir(parents=True)
    (out / "masks").mkdir()
    names = [f"{row:06d}.png" for row in range(settings.images)]
    chunk = max(1, PIXELS_AT_ONCE // (settings.height * settings.width))
    for first in range(0, settings.images, chunk):
        rows = np.arange(first, min(first + chunk, settings.images))
        pixels, masks = _render(rng, anatomy.of(patients[rows]), labels[rows], settings)
        for row, image, mask in zip(rows, pixels, masks, strict=True):
            Image.fromarray(image).save(out / "images" / names[row], compress_level=1)
            if mask.any():
                Image.fromarray(mask).save(out / "masks" / names[row], compress_level=1)
    table = pd.DataFrame(
        {
            "image_path": [f"images/{name}" for name in names],
            "label": [CLASSES[label] for label in labels],
            "patient_id": [f"p{patient:05d}" for patient in patients],
            "split": splits,
            "mask_path": [f"masks/{name}" if label else "" for name, label in zip(names, labels, strict=True)],
        }
    )
    Manifest.from_table(table, root=out, layout="phantom").write(out / "manifest.csv")
    (out / SETTINGS_FILE).write_text(json.dumps(asdict(settings), indent=2) + "\n")
    return out


def _draw_patients(rng: np.random.Generator, images: int) -> Ints:
    """The patient of each image, [images]: one to three images a patient."""
    return np.repeat(np.arange(images), rng.integers(1, 4, size=images))[:images]


def _label_and_split(rng: np.random.Generator, patients: Ints) -> tuple[Ints, NDArray[np.str_]]:
    """Class and split of each image, [images] each: both belong to the patient, and each class is split alike."""
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


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Floats:
    return rng.uniform(low, high, shape).astype(np.float32)


def _draw_anatomy(rng: np.random.Generator, patients: int) -> Anatomy:
    return Anatomy(
        radii=_uniform(rng, 0.78, 0.96, patients, 2),
        wobble=_uniform(rng, 0, 1, patients, 4) * np.array([0.06, 0.05, 0.03, 0.02], dtype=np.float32),
        phase=_uniform(rng, -math.pi, math.pi, patients, 4),
        level=_uniform(rng, 95, 125, patients),
        cortex=_uniform(rng, 15, 45, patients),
        vessel_angle=_uniform(rng, -math.pi, math.pi, patients, 3),
        vessel_offset=_uniform(rng, -18, 18, patients, 3),
        vessel_bend=_uniform(rng, 2, 7, patients, 3),
        vessel_phase=_uniform(rng, -math.pi, math.pi, patients, 3),
        vessel_contrast=_uniform(rng, -35, 45, patients, 3),
    )


def _render(rng: np.random.Generator, anatomy: Anatomy, labels: Ints, settings: PhantomSettings) -> tuple[Bytes, Bytes]:
    """Draw one image for each row of ``anatomy``: pixels [B, H, W] and lesion masks [B, H, W] of 0 and 255."""
    count, scale = len(labels), settings.scale
    jitter = _uniform(rng, -2 * scale, 2 * scale, 2, count, 1, 1)  # of the organ's centre
    rows, columns = np.mgrid[: settings.height, : settings.width].astype(np.float32)  # [H, W] each
    y = rows - (settings.height - 1) / 2 - jitter[0]  # [B, H, W]
    x = columns - (settings.width - 1) / 2 - jitter[1]
    depth = _depth(y, x, anatomy, settings)

    tissue = anatomy.level[:, None, None] + 12 * _texture(rng, depth.shape, _falling(20 * scale))
    tissue += anatomy.cortex[:, None, None] * np.exp(-np.square((depth / scale - 2.5) / 1.8))
    _add_vessels(tissue, y / scale, x / scale, anatomy)
    masks = _add_nodules(rng, tissue, depth, labels, settings)
    _add_spots(rng, tissue, depth, scale)

    image = 14 + expit(2 * depth / scale) * (tissue - 14) + 3 * rng.standard_normal(depth.shape, dtype=np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), masks


def _depth(y: Floats, x: Floats, anatomy: Anatomy, settings: PhantomSettings) -> Floats:
    """How far inside the organ each pixel lies, [B, H, W], roughly in pixels; negative outside."""
    half = np.array([settings.height / 2, settings.width / 2], dtype=np.float32)
    radii = anatomy.radii * half  # [B, 2]
    v, u = y / radii[:, 0, None, None], x / radii[:, 1, None, None]
    angle = np.arctan2(v, u)
    outline = np.ones_like(angle)
    for i in range(anatomy.wobble.shape[1]):
        outline += anatomy.wobble[:, i, None, None] * np.cos((i + 2) * angle + anatomy.phase[:, i, None, None])
    depth: Floats = (outline - np.hypot(u, v)) * radii.min(axis=1)[:, None, None]
    return depth


def _texture(rng: np.random.Generator, shape: tuple[int, ...], spectrum: Callable[[Floats], Floats]) -> Floats:
    """Noise of this amplitude spectrum over cycles a pixel, alike in all directions, mean 0, variance 1, [B, H, W]."""
    height, width = shape[1:]
    gain = spectrum(np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)).astype(np.float32))  # [H, W]
    gain[0, 0] = 0
    gain /= np.sqrt(np.mean(np.square(gain)))
    waves = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) * gain[:, : width // 2 + 1]
    return np.fft.irfft2(waves, s=(height, width)).astype(np.float32)


def _falling(wavelength: float) -> Callable[[Floats], Floats]:
    """The spectrum of tissue: even down to this wavelength in pixels, falling below it."""
    return lambda frequency: (1 + np.square(frequency * wavelength)) ** -0.9


def _band(wavelength: float) -> Callable[[Floats], Floats]:
    """The spectrum of grains of about this wavelength in pixels."""
    return lambda frequency: np.exp(-np.square((frequency * wavelength - 1) / 0.5))


def _add_vessels(tissue: Floats, y: Floats, x: Floats, anatomy: Anatomy) -> None:
    """Draw the winding vessels of each patient, about 2 design pixels wide; ``y`` and ``x`` are design pixels too."""
    for i in range(anatomy.vessel_angle.shape[1]):
        angle = anatomy.vessel_angle[:, i, None, None]
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        course = anatomy.vessel_bend[:, i, None, None] * np.sin(0.13 * along + anatomy.vessel_phase[:, i, None, None])
        distance = across - course - anatomy.vessel_offset[:, i, None, None]
        tissue += anatomy.vessel_contrast[:, i, None, None] * np.exp(-np.square(distance / 1.3))


def _add_nodules(
    rng: np.random.Generator, tissue: Floats, depth: Floats, labels: Ints, settings: PhantomSettings
) -> Bytes:
    """Add the nodules, the first of them a lesion where the label says so; returns the lesion masks, [B, H, W]."""
    count, scale, grain = len(labels), settings.scale, settings.grain
    radius = settings.lesion * min(settings.height, settings.width) / 2
    mottle = _texture(rng, tissue.shape, _band(10 * grain))
    warp = 0.4 * _texture(rng, tissue.shape, _band(16 * grain))
    places = _spread(rng, depth, number=NODULES, margin=radius, apart=2 * (radius + scale))
    masks = np.zeros(tissue.shape, dtype=np.uint8)
    for i in range(NODULES):
        where, v, u = _window(places[:, i], 1.5 * radius, tissue.shape)
        kind = (labels if i == 0 else np.zeros_like(labels))[:, None, None]
        inner = np.where(kind == 0, mottle[where], _stripes(rng, kind, v / grain, u / grain, warp[where]))
        squash = _uniform(rng, 0.85, 1.15, count, 1, 1)
        border = radius * _uniform(rng, 0.85, 1.15, count, 1, 1)
        inside = expit(1.6 / settings.fine * (border - np.hypot(v * squash, u / squash)))
        inner -= np.sum(inner * inside, axis=(1, 2), keepdims=True) / np.sum(inside, axis=(1, 2), keepdims=True)
        contrast, brightness = _uniform(rng, 24, 32, count, 1, 1), _uniform(rng, -12, 12, count, 1, 1)
        tissue[where] += inside * (contrast * inner + brightness)
        if i == 0:
            masks[where] = np.where((kind > 0) & (inside > 0.5), 255, 0)
    return masks


def _stripes(rng: np.random.Generator, kind: Ints, v: Floats, u: Floats, warp: Floats) -> Floats:
    """The lesions' fine textures, variance about 1, [B, w, w]: 1 layers, 2 strands, 3 a lattice."""
    count = len(kind)
    tilt = _uniform(rng, -0.15, 0.15, count, 1, 1)
    wave = 2 * np.pi / (_uniform(rng, 4.3, 5.1, count, 1, 1) * np.where(kind == 3, 1.1, 1))  # radians a design pixel
    phase = _uniform(rng, 0, 2 * np.pi, 2, count, 1, 1)
    layers = np.sqrt(2) * np.sin(wave * (v * np.cos(tilt) + u * np.sin(tilt)) + phase[0] + warp)
    strands = np.sqrt(2) * np.sin(wave * (u * np.cos(tilt) - v * np.sin(tilt)) + phase[1] + warp)
    return np.choose(kind, [0, layers, strands, layers * strands]).astype(np.float32)


def _add_spots(rng: np.random.Generator, tissue: Floats, depth: Floats, scale: float) -> None:
    """Add bright calcifications and dark cysts anywhere in the organ, the same in every class."""
    count = len(tissue)
    for number, radii, contrasts in ((4, (0.9, 1.6), (50, 110)), (3, (1.6, 2.8), (-70, -40))):
        places = _spread(rng, depth, number=number, margin=2 * scale, apart=0)
        for i in range(number):
            where, v, u = _window(places[:, i], 3 * radii[1] * scale, tissue.shape)
            radius = _uniform(rng, *radii, count, 1, 1) * scale
            contrast = _uniform(rng, *contrasts, count, 1, 1) * (_uniform(rng, 0, 1, count, 1, 1) < 0.7)
            tissue[where] += contrast * np.exp(-(np.square(v) + np.square(u)) / np.square(radius))


def _spread(rng: np.random.Generator, depth: Floats, *, number: int, margin: float, apart: float) -> Ints:
    """Random places (row, column) at least ``margin`` deep in the organ and ``apart`` from each other, [B, number, 2].

    The first of many candidates that fits is taken; where none does, the one that comes nearest to fitting.
    """
    count, height, width = depth.shape
    batch, tries = np.arange(count), 64
    places = np.empty((count, 0, 2), dtype=np.int64)
    for _ in range(number):
        candidates = rng.integers(0, (height, width), size=(count, tries, 2))
        room = depth[batch[:, None], candidates[..., 0], candidates[..., 1]] - margin  # [B, tries]
        gaps = np.linalg.norm(candidates[:, :, None] - places[:, None], axis=-1) - apart  # [B, tries, placed]
        room = np.minimum(room, gaps.min(axis=2, initial=np.inf))
        chosen = candidates[batch, np.argmax(np.minimum(room, 0), axis=1)]  # [B, 2]
        places = np.concatenate([places, chosen[:, None]], axis=1)
    return places


def _window(places: Ints, reach: float, shape: tuple[int, ...]) -> tuple[tuple[Ints, Ints, Ints], Floats, Floats]:
    """A square of ``reach`` pixels about each place, moved inside the image where it would leave it.

    Returns the index into [B, H, W] (batch [B, 1, 1], rows [B, w, 1], columns [B, 1, w]) and the distances down
    [B, w, 1] and across [B, 1, w] from the place.
    """
    half = min(math.ceil(reach), (min(shape[1:]) - 1) // 2)
    middle = np.clip(places, half, np.array(shape[1:]) - 1 - half)  # [B, 2]
    squares = middle[:, :, None] + np.arange(-half, half + 1)  # [B, 2, w]
    rows, columns = squares[:, 0, :, None], squares[:, 1, None, :]
    v, u = rows - places[:, 0, None, None], columns - places[:, 1, None, None]
    where = (np.arange(len(places))[:, None, None], rows, columns)
    return where, v.astype(np.float32), u.astype(np.float32)
