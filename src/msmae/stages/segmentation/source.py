"""Where a segmenter's encoder comes from, what became of each of its weights, and what it must not be tested on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msmae.config import Settings
from msmae.data.audit import take_fingerprints
from msmae.data.manifest import Manifest, read_manifest
from msmae.errors import LeakageError, UserError
from msmae.exchange.checkpoint import load_model, read_card
from msmae.exchange.weights import copy_encoder, load_encoder
from msmae.method.vit import VisionTransformer
from msmae.stages.folder import read_run
from msmae.stages.prepare import cache_folder, progress_bar, reading_of


@dataclass(frozen=True)
class Source:
    """An encoder's origin: a saved model (``model``) of a run (``run``), a ``file`` of weights, or nothing."""

    arm: str
    """The arm of the run; "none", or "file"."""
    model: Path | None = None
    run: Path | None = None
    file: Path | None = None

    def architecture(self, settings: Settings) -> Settings:
        """The settings with the saved encoder's own architecture; the image size may be another."""
        if self.model is None:
            return settings
        card = read_card(self.model)
        model = dataclasses.replace(
            settings.model,
            image_size=settings.model.image_size or card.image_size,
            patch_size=card.patch_size,
            channels=card.channels,
            width=card.width,
            depth=card.depth,
            heads=card.heads,
        )
        return dataclasses.replace(settings, model=model)

    def fill(self, encoder: VisionTransformer) -> str:
        """Load the weights; what became of each, in lines. Raises ``UserError`` naming those that do not fit."""
        if self.file is not None:
            return f"encoder weights from {self.file}\n{load_encoder(encoder, self.file)}"
        if self.model is None:
            return "encoder weights: none, training starts from nothing"
        model, _ = load_model(self.model)
        others = [name for name in model.state_dict() if not name.startswith("encoder.")]
        return f"encoder weights from {self.model}\n{copy_encoder(model.encoder, encoder, others=others)}"


def find_source(given: str) -> Source:
    """What ``--from`` names: ``none``, a run's folder (its pre-trained encoder, else its model), or a file of weights.

    Raises:
        UserError: there is nothing of this name, or the run holds no model.
    """
    if given == "none":
        return Source("none")
    path = Path(given)
    if path.is_file():
        return Source("file", file=path)
    if not path.is_dir():
        raise UserError("no such run or file", where=f"--from {given}", mend="give a run's folder, a file, or none")
    models = [folder for folder in (path / "pretrained", path / "model", path) if (folder / "config.json").is_file()]
    if not models:
        raise UserError("the run holds no model", where=given, mend="finish it first")
    run = path.parent if models[0] == path else path
    return Source(read_card(models[0]).method, model=models[0], run=run if (run / "manifest.csv").is_file() else None)


def refuse_leakage(manifest: Manifest, source: Source, settings: Settings, *, allow: bool) -> None:
    """Stop where test images, or test patients, are among those that the encoder's run learned from.

    Pictures are compared by their decoded pixels. Patients' names are compared where the two data sets share pictures
    or a folder: in unrelated data the same name is another person.

    Raises:
        LeakageError: there are such images, and ``allow`` is False.
    """
    if source.run is None:
        if source.model is not None or source.file is not None:
            print("- it is not known what the encoder was trained on: whether test images were among it is not checked")
        return
    learned = read_manifest(source.run / "manifest.csv")
    digests, before = digests_of(manifest, settings), digests_of(learned, read_run(source.run)[1])
    test, pool = (manifest.table["split"] == "test").to_numpy(), (learned.table["split"] != "test").to_numpy()
    seen = set(before[pool]) - {b""}
    identical = test & np.array([digest in seen for digest in digests])
    related = bool((set(digests) & set(before)) - {b""})
    patients = set(learned.table["patient_id"][pool]) - {""} if related else set()
    known = test & manifest.table["patient_id"].isin(patients).to_numpy()
    if not (identical | known).any():
        return
    what = (
        f"{(identical | known).sum()} of {test.sum()} test images ({identical.sum()} by their pixels, {known.sum()} by "
        "their patient) are among those the encoder was trained on"
    )
    if not allow:
        raise LeakageError(
            what,
            where=str(source.run),
            mend=f"use its own split, {source.run / 'manifest.csv'}, as DATA, or add --allow-leakage",
        )
    print(f"- {what}: the test figures cannot be trusted (--allow-leakage)")


def digests_of(manifest: Manifest, settings: Settings) -> np.ndarray:
    """What names each image's decoded pixels, bytes [n]; empty where it cannot be read."""
    prints = take_fingerprints(
        manifest,
        reading=reading_of(settings),
        cache=cache_folder() / "audits",
        progress=progress_bar("comparing images"),
    )
    names = [row.tobytes() if fine else b"" for row, fine in zip(prints.record["digest"], prints.readable, strict=True)]
    return np.array(names, dtype=object)
