"""Where a segmenter's encoder comes from, and what became of each of its weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from msmae.config import Settings
from msmae.encoders.weights import LoadReport, copy_encoder, load_encoder
from msmae.errors import UserError
from msmae.method.vit import VisionTransformer
from msmae.runs.checkpoint import load_model, read_card


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

    def fill(self, encoder: VisionTransformer) -> tuple[str, LoadReport | None]:
        """Load the weights; where from, and what became of each. Raises ``UserError`` naming those that do not fit."""
        if self.file is not None:
            return f"encoder weights from {self.file}", load_encoder(encoder, self.file)
        if self.model is None:
            return "encoder weights: none, training starts from nothing", None
        model, _ = load_model(self.model)
        others = [name for name in model.state_dict() if not name.startswith("encoder.")]
        return f"encoder weights from {self.model}", copy_encoder(model.encoder, encoder, others=others)


def find_source(given: str) -> Source:
    """What ``--from`` names: ``none``, a run's folder (its pre-trained encoder, else its model), or a file of weights.

    Raises:
        UserError: there is nothing of this name, or the run holds no model.
    """
    if given == "none":
        return Source("none")
    path = Path(given)
    if path.is_file() and (path.parent / "config.json").is_file() and path.name == "model.safetensors":
        path = path.parent  # the weights of a saved model
    if path.is_file():
        return Source("file", file=path, run=run_around(path))
    if not path.is_dir():
        raise UserError("no such run or file", where=f"--from {given}", mend="give a run's folder, a file, or none")
    models = [folder for folder in (path / "pretrained", path / "model", path) if (folder / "config.json").is_file()]
    if not models:
        if not (path / "config.yaml").is_file():
            raise UserError(
                "this folder is no run", where=f"--from {given}", mend="give a run's folder, a file, or none"
            )
        raise UserError("the run holds no model", where=given, mend="finish it first")
    return Source(read_card(models[0]).method, model=models[0], run=run_around(models[0]))


def run_around(model: Path) -> Path | None:
    """The run in whose folder a saved model, or a file of weights, lies."""
    near = [folder for folder in model.resolve().parents[:2] if (folder / "config.yaml").is_file()]
    return next((folder for folder in near if (folder / "manifest.csv").is_file()), None)
