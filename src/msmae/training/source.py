"""Where a segmenter's encoder comes from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from msmae.config import Settings
from msmae.encoders.cache import locate
from msmae.encoders.catalogue import find_known
from msmae.errors import UserError
from msmae.runs.checkpoint import read_card


@dataclass(frozen=True)
class Source:
    """An encoder's origin: a saved model (``model``) of a run (``run``), a ``file`` of weights, or nothing."""

    arm: str
    """The arm of the run; "none", or "file"."""
    model: Path | None = None
    run: Path | None = None
    file: Path | None = None

    @property
    def weights(self) -> str | None:
        """Where the weights lie; None: training starts from nothing."""
        place = self.model or self.file
        return None if place is None else str(place)

    def at_its_size(self, settings: Settings) -> Settings:
        """The settings with the image size and the channels of the saved model, where they are open."""
        if self.model is None:
            return settings
        card = read_card(self.model)
        size, channels = settings.model.image_size or card.image_size, settings.model.channels or card.channels
        return dataclasses.replace(
            settings, model=dataclasses.replace(settings.model, image_size=size, channels=channels)
        )


def find_source(given: str) -> Source:
    """What ``--from`` names: ``none``, a run's folder (its pre-trained encoder, else its model), or a file of weights.

    Raises:
        UserError: there is nothing of this name, or the run holds no model.
    """
    if given == "none":
        return Source("none")
    path = locate(given) if find_known(given) else Path(given)
    if path.is_file() and (path.parent / "config.json").is_file() and path.name == "model.safetensors":
        path = path.parent  # the weights of a saved model
    if path.is_file() or (path.is_dir() and find_own(path) is None and not (path / "config.yaml").is_file()):
        return Source("file", file=path, run=run_around(path))
    if not path.is_dir():
        raise UserError("no such run or file", where=f"--from {given}", mend="give a run's folder, a file, or none")
    model = find_own(path)
    if model is None:
        raise UserError("the run holds no model", where=given, mend="finish it first")
    return Source(read_card(model).method, model=model, run=run_around(model))


def find_own(folder: Path) -> Path | None:
    """The saved model of ours in a folder, the pre-trained one first; None where there is none."""
    for place in (folder / "pretrained", folder / "model", folder):
        card = place / "config.json"
        if card.is_file() and '"format_version"' in card.read_text(encoding="utf-8", errors="replace"):
            return place
    return None


def run_around(model: Path) -> Path | None:
    """The run in whose folder a saved model, or a file of weights, lies."""
    near = [folder for folder in model.resolve().parents[:2] if (folder / "config.yaml").is_file()]
    return next((folder for folder in near if (folder / "manifest.csv").is_file()), None)
