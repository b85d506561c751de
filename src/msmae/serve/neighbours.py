"""The training images that look most like an upload, by the cosine of the classifier's features.

They show training patients, so the server has them only where it was told to.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msmae.data.manifest import Manifest, read_manifest
from msmae.data.reading.decoding import image_sources
from msmae.data.reading.images import Reading, load_image, read_source
from msmae.errors import UserError
from msmae.progress import ProgressBar
from msmae.serve.decode import shown
from msmae.serve.engine import Engine, Question

BATCH = 64
SIDE = 192


@dataclass
class Neighbours:
    """Features of the training images, and where their pixels are."""

    engine: Engine
    features: np.ndarray
    """[n, D], each row of length 1."""
    rows: list[int]
    manifest: Manifest

    @classmethod
    def of(cls, run: str, engine: Engine) -> Neighbours:
        """Read every training image of RUN/manifest.csv once.

        Raises:
            UserError: a segmentation run, no manifest, or none of its training images can be read.
        """
        if engine.segmenter:
            raise UserError("a segmentation run has no nearest cases", where="--neighbours", mend="leave it out")
        path = Path(run) / "manifest.csv"
        if not path.is_file():
            raise UserError("the run has no manifest.csv", where=run, mend="leave --neighbours out")
        manifest = read_manifest(path)
        split = manifest.table["split"].to_numpy()
        sources, reading = image_sources(manifest), Reading(**engine.card.reading)
        rows, parts = [], []
        batch: list[Question] = []
        wanted = [i for i in range(len(manifest)) if split[i] == "train"]
        with ProgressBar("reading training images") as progress:
            for done, i in enumerate(wanted):
                try:
                    array = load_image(
                        sources[i], size=engine.card.image_size, channels=engine.card.channels, reading=reading
                    )
                except UserError:
                    continue
                rows.append(i)
                batch.append(Question(array, map=False, features=True))
                if len(batch) == BATCH:
                    parts += [answer.features for answer in engine.answers(batch)]
                    batch = []
                    progress(done + 1, len(wanted))
            progress(len(wanted), len(wanted))
        parts += [answer.features for answer in engine.answers(batch)]
        if not rows:
            raise UserError(
                "none of the training images is where the manifest says", where=run, mend="leave --neighbours out"
            )
        return cls(engine, unit(np.stack([np.asarray(part) for part in parts])), rows, manifest)

    def nearest(self, features: np.ndarray, count: int = 4) -> list[dict[str, object]]:
        """Label, cosine and a small picture of the nearest training images; no path, name or patient."""
        cosines = self.features @ unit(features[None])[0]
        best = np.argsort(-cosines)[:count]
        sources, reading = image_sources(self.manifest), Reading(**self.engine.card.reading)
        found: list[dict[str, object]] = []
        for place in best:
            row = self.rows[int(place)]
            try:
                picture = small(shown(read_source(sources[row], reading=reading)))
            except UserError:  # it was moved since the server started
                picture = ""
            label = str(self.manifest.table.at[row, "label"])
            found.append({"label": label, "cosine": round(float(cosines[place]), 4), "picture": picture})
        return found


def unit(rows: np.ndarray) -> np.ndarray:
    """[n, D], each row brought to length 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def small(pixels: np.ndarray) -> str:
    """A thumbnail: base64 of a PNG."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
