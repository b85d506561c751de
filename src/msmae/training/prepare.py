"""From DATA to what training needs: a manifest with splits, a store of decoded images, settings without gaps."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from msmae.config import Arm, DatasetSettings, Settings, arm_of_run
from msmae.config.contradictions import none_guided
from msmae.data.loader import Batches
from msmae.data.manifest import SPLITS, Manifest, read_manifest
from msmae.data.obstacles import WITHOUT_LABELS, Labelled, class_obstacles, label_obstacles, stop_on
from msmae.data.opening import cache_folder, reading_of
from msmae.data.reading.masks import MaskRule
from msmae.data.shards import Shards
from msmae.data.store import ImageStore, open_store
from msmae.data.tables.listing import some
from msmae.encoders.weights import Weights
from msmae.errors import UserError
from msmae.files import read_mapping
from msmae.method.masking import Draw
from msmae.progress import ProgressBar
from msmae.runs.checkpoint import read_card
from msmae.runs.folder import read_run
from msmae.statistics.units import check_unit
from msmae.training.decide import decide_model, decide_order
from msmae.training.start import scale_of


@dataclass(frozen=True)
class Prepared:
    """Everything a training stage starts from.

    ``settings`` are complete but for ``model.channels``, which stays as it was given (``channels`` is what the files
    have); ``mean`` and ``std`` are per channel, in the file's own units: those of the pretrained start, else over the
    training split.
    """

    manifest: Manifest
    store: ImageStore
    settings: Settings
    method: str
    seed: int
    mean: list[float]
    std: list[float]
    start: Weights | None = None
    """The pretrained encoder that training begins with."""
    parts: dict[str, Any] = field(default_factory=dict)
    """What its architecture has that a plain one has not (``EncoderSpec.parts``)."""
    origin: dict[str, Any] = field(default_factory=dict)
    """Where it came from, for the model's card; empty: nowhere."""
    folds: int = 0
    """Models that are trained to answer together, each validated on a fold of its own (``training.ensemble``); 0: one
    model is trained."""

    @property
    def arm(self) -> Arm:
        return arm_of_run(self.method)

    @property
    def draw(self) -> Draw:
        """How pre-training draws its plans, once random masking at the start is over."""
        pretrain, arm = self.settings.pretrain, self.arm
        return Draw(
            *pretrain.ratios(arm),
            hints=pretrain.hints if arm.guided else 0.0,
            map=arm.map,
        )

    @property
    def image_size(self) -> tuple[int, int]:
        size = self.settings.model.image_size
        assert isinstance(size, tuple)
        return size

    @property
    def channels(self) -> int:
        return int(self.store.images.shape[1])

    @cached_property
    def targets(self) -> np.ndarray:
        return self.manifest.targets()

    def ids(self, split: str, *, labelled: bool = True) -> np.ndarray:
        """Sample ids of a split, without those that could not be read and, if asked, those without a label."""
        ids = self.manifest.ids(split)
        if labelled:
            known = self.targets >= 0 if self.targets.ndim == 1 else ~np.isnan(self.targets).all(axis=1)
            ids = ids[known[ids]]
        return ids[~np.isin(ids, list(self.store.excluded))]

    def batches(
        self,
        ids: np.ndarray,
        batch_size: int,
        *,
        epoch: int | None = None,
        first: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Batches:
        """Batches over ids, from the ``first`` on; shuffled if an epoch is given, else in order."""
        return Batches(
            store=self.store,
            targets=self.targets,
            ids=ids,
            batch_size=batch_size,
            shuffle=epoch is not None,
            drop_last=epoch is not None,
            seed=self.seed,
            epoch=epoch or 0,
            first=first,
            rank=rank,
            world=world,
        )


def prepare(
    manifest: Manifest,
    *,
    settings: Settings,
    method: str = "msmae",
    seed: int = 0,
    pretrain_only: bool = False,
    start: Weights | None = None,
) -> Prepared:
    """Decide open settings and decode every image once. ``pretrain_only``: nothing is fine-tuned afterwards, so an arm
    that learns from the pixels alone needs no labels.

    Raises:
        UserError: whatever is wrong with the data or the settings, before anything is written to the run's folder.
    """
    check_unit(settings.dataset.unit, manifest.table)
    prepared = decode(manifest, settings=settings, method=method, seed=seed, start=start)
    check_labels(prepared, pretrain_only=pretrain_only)
    return dataclasses.replace(prepared, settings=decide_schedules(prepared))


def decode(
    manifest: Manifest,
    *,
    settings: Settings,
    method: str,
    seed: int,
    rule: MaskRule | None = None,
    start: Weights | None = None,
) -> Prepared:
    """Decide the model's size, and decode every image (under a ``rule`` also what its mask says) once."""
    settings = decide_model(decide_order(settings, manifest), manifest, start=start)
    size = settings.model.image_size
    assert isinstance(size, tuple)
    store = open_store(
        manifest,
        size=size,
        channels=settings.model.channels,
        cache=cache_folder() / "stores",
        reading=reading_of(settings),
        rule=rule,
        smallest=settings.model.patch_size or 1,
        on_error=settings.dataset.on_error,
        progress=ProgressBar("decoding images"),
    )
    readable = manifest.ids("train")
    readable = readable[~np.isin(readable, list(store.excluded))]
    scale = None if start is None else scale_of(start.spec, store, readable)
    mean, std = store.mean_std(readable) if scale is None else scale[:2]
    prepared = Prepared(manifest, store, settings, method, seed, mean, std)
    if start is None:
        return prepared
    said = "the training images' own mean and deviation" if scale is None else scale[2]
    origin = {**start.origin(), "scale": said}
    with suppress(UserError):  # of a constant channel: it has no deviation, and the encoder's own serves
        origin["seen"] = store.mean_std(readable)
    return dataclasses.replace(prepared, start=start, parts=start.spec.parts, origin=origin)


def prepare_again(run: Path, *, pretrain_only: bool = False, unit: str | None = None) -> Prepared:
    """What a run started from, from its own manifest and settings: same images, same splits; ``unit``: another column
    than the run's whose images get one answer together.
    """
    config, settings = read_run(run)
    settings = as_own_manifest(settings)
    if unit is not None:
        settings = dataclasses.replace(settings, dataset=dataclasses.replace(settings.dataset, unit=unit))
    manifest = _own_order(read_manifest(run / "manifest.csv"), run, settings)
    prepared = prepare(
        manifest, settings=settings, method=config["method"], seed=config["seed"], pretrain_only=pretrain_only
    )
    return as_started(dataclasses.replace(prepared, folds=config.get("folds", 0)), run)


def as_started(prepared: Prepared, run: Path) -> Prepared:
    """What a run prepares again with the scale and the architecture of the pretrained encoder that it began with."""
    saved = [folder for folder in (run / "model", run / "pretrained") if (folder / "config.json").is_file()]
    card = read_card(saved[0]) if saved else None
    if card is None or not card.start:
        return prepared
    return dataclasses.replace(prepared, mean=card.mean, std=card.std, parts=card.encoder, origin=card.start)


def _own_order(manifest: Manifest, run: Path, settings: Settings) -> Manifest:
    """The run's manifest with its classes in the order its model was trained with, whatever today's order is."""
    cards = [run / part / "config.json" for part in ("model", "pretrained")]
    card = next((file for file in cards if file.is_file()), None)
    given = [name.strip() for name in settings.dataset.class_order.split(";") if name.strip()]
    names = given if card is None else read_mapping(card, mend="copy the run again").get("classes", [])
    return manifest.with_order([name for name in names if name in manifest.classes])


def as_own_manifest(settings: Settings) -> Settings:
    """The settings under which a manifest that this library wrote is read."""
    given = settings.dataset
    plain = DatasetSettings(
        ordinal=given.ordinal,
        class_order=given.class_order,
        unit=given.unit,
        on_error=given.on_error,
        window=given.window,
        replace_nonfinite=given.replace_nonfinite,
        max_pixels=given.max_pixels,
    )
    return dataclasses.replace(settings, dataset=plain)


def decide_schedules(prepared: Prepared) -> Settings:
    """Fill in epochs, warm-up and refresh intervals where they are open (paper: 40 and 40 of 300; 20 of 100)."""
    settings = prepared.settings
    pool, labelled = len(prepared.ids("train", labelled=False)), len(prepared.ids("train"))
    pre, fine = settings.pretrain, settings.finetune
    epochs = pre.epochs or max(1, round(pre.presentations / pool))
    share = max(1, round(epochs * 40 / 300))
    uniform = min(share, epochs - 1)  # at least one epoch is guided
    pre = dataclasses.replace(
        pre,
        epochs=epochs,
        uniform_epochs=uniform if pre.uniform_epochs is None else pre.uniform_epochs,
        refresh_every=pre.refresh_every or share,
    )
    if prepared.arm.guided and (pre.uniform_epochs or 0) >= epochs:
        raise none_guided(epochs, pre.uniform_epochs)
    if labelled == 0:  # nothing to fine-tune on
        return dataclasses.replace(settings, pretrain=pre)
    epochs = fine.epochs or max(1, round(fine.presentations / labelled))
    every = max(1, round(epochs / 5)) if fine.draw in ("all", "own") else -(-epochs // 2)
    fine = dataclasses.replace(fine, epochs=epochs, refresh_every=fine.refresh_every or every)
    return dataclasses.replace(settings, pretrain=pre, finetune=fine)


def check_labels(prepared: Prepared, *, pretrain_only: bool) -> None:
    """Raise ``UserError`` where the labels do not do for what is asked (``data.obstacles``); tell of a class that
    validation or test lacks."""
    labelled = Labelled(prepared.manifest, prepared.targets, {split: prepared.ids(split) for split in SPLITS})
    if not pretrain_only:
        stop_on(label_obstacles(labelled))
    elif not len(labelled.ids["train"]) and prepared.settings.pretrain.weight_of_labels(prepared.arm):
        raise UserError(
            f"no training image has a label, and the arm {prepared.method} learns from labels in pre-training",
            where=prepared.manifest.where,
            mend=f"add labels; {WITHOUT_LABELS}",
        )
    stop_on(class_obstacles(labelled))
    for split in ("val", "test"):
        if absent := labelled.lacks(split):
            print(f"- the split {split} has no image of {some(absent)}: its figures say nothing of them")


def data_fingerprint(prepared: Prepared) -> str:
    """SHA-256 over the manifest's rows and the decoded pixels: the same data and split give the same figure."""
    digest = hashlib.sha256()
    digest.update(prepared.manifest.table.to_csv(index=False).encode("utf-8", "surrogateescape"))
    digest.update(json.dumps([list(prepared.store.images.shape), str(prepared.store.images.dtype)]).encode())
    images = prepared.store.images
    if isinstance(images, Shards):  # its check sums stand for the pixels, which are more than a memory holds
        digest.update(images.sums.tobytes())
        return digest.hexdigest()
    for start in range(0, len(images), 1024):
        digest.update(np.ascontiguousarray(images[start : start + 1024]).tobytes())
    return digest.hexdigest()
