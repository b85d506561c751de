"""A trained model to use: images in the files' own units in, probabilities or attention maps out."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from msmae.errors import UserError
from msmae.inference.inputs import Images, in_batches, read_batch
from msmae.inference.packed import packed
from msmae.machine import prediction_dtype
from msmae.method.attention import patch_maps
from msmae.method.classifier import Classifier
from msmae.method.ensemble import Ensemble
from msmae.method.segmenter import Segmenter
from msmae.runs.cards import ModelCard
from msmae.runs.checkpoint import joined, load_model, load_selection
from msmae.selection.selectors import SELECTORS, WHOLE, Draw, Selection, own_draws, share_for
from msmae.statistics.answers import DEFAULT, RULES, Rule, name_classes
from msmae.statistics.calibration import Calibrator


class Model:
    """A classifier with everything it needs to be used; made by :func:`load`.

    Attributes:
        card: architecture, classes and normalisation.
        network: the torch module, in evaluation mode, its weights in the numbers that it predicts in.
        prepared: what encodes a share of the tokens, where `msmae budget` has prepared it.
    """

    def __init__(
        self,
        network: Classifier,
        card: ModelCard,
        *,
        prepared: Selection | None = None,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.device = torch.device(device)
        self.dtype = prediction_dtype(precision, self.device)
        self.network = network.to(self.device, self.dtype).eval()
        self.prepared = None if prepared is None else prepared.to(self.device, self.dtype).eval()
        self.card = card
        self.packed: tuple[Classifier, Selection | None] | None = None  # both for prediction, from the first one on
        self.warned = False  # about dropping patches unprepared
        self.mean = torch.tensor(card.mean, device=device).reshape(1, -1, 1, 1)
        self.std = torch.tensor(card.std, device=device).reshape(1, -1, 1, 1)

    def selection(self, selector: str) -> Selection:
        """What predicts, its weights packed."""
        if self.packed is None:
            self.packed = packed(self.network), None if self.prepared is None else packed(self.prepared)
        return selection_with(*self.packed, selector)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles pack their weights themselves."""
        return {**self.__dict__, "packed": None}

    def members(self) -> list[Model]:
        """The models that answer together, each alone; itself, where it is one."""
        if len(self.networks) == 1:
            return [self]
        card, precision = replace(self.card, members=1), "bf16" if self.dtype == torch.bfloat16 else "fp32"
        alone = [joined([network], card) if card.mirrored else network for network in self.networks]
        return [Model(network, card, device=self.device, precision=precision) for network in alone]

    @property
    def networks(self) -> list[Classifier]:
        """The classifiers that answer together; one, where it is one."""
        return self.network.members() if isinstance(self.network, Ensemble) else [self.network]

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities' columns."""
        return self.card.classes

    @torch.inference_mode()
    def predict(
        self,
        images: Images,
        keep: Keep = 1.0,
        *,
        selector: str | None = None,
        batch_size: int = 256,
        calibrated: bool = True,
    ) -> Tensor:
        """Class probabilities [B, C].

        They are calibrated on the validation images, for classes as common as those.

        Args:
            images: float [B, channels, H, W] in the files' own units, of any size (normalised and resized here), or a
                list of paths.
            keep: share of the tokens that are encoded, in (0, 1]; or "auto": what `msmae budget` chose. 1: as the model
                was fine-tuned; one that sees coarse and fine keeps its own share.
            selector: what chooses them (``msmae.selection.selectors``); None: the one the model was prepared with, else
                `self`, which finds the most attended patches by a pass over all of them and so saves nothing.
            calibrated: False: as the network gives them.

        Raises:
            UserError: no images, another number of channels, values that are not finite, a share that leaves no patch,
                or "auto" where nothing was chosen.
        """
        share, name = share_and_selector(self, keep, selector)
        selection = self.selection(name)
        kept = kept_tokens(selection, share)
        logits = torch.cat(
            [selection(batch, kept, draw).float() for batch, draw in self.drawn(selection, images, batch_size)]
        )
        probabilities = (logits.sigmoid() if self.card.multilabel else logits.softmax(dim=1)).cpu()
        return self.calibrate(probabilities, share, name) if calibrated else probabilities

    def classify(
        self,
        images: Images,
        keep: Keep = 1.0,
        *,
        selector: str | None = None,
        batch_size: int = 256,
        answers: Rule = DEFAULT,
    ) -> list[str]:
        """The class of each image; several are joined by ``;``. Images, shares and selectors as in :meth:`predict`.

        ``answers``: "plain", the largest calibrated probability (or the model's thresholds); "balanced", the largest
        probability as trained, which finds more of rare classes (``msmae.statistics.answers``).
        """
        share, name = share_and_selector(self, keep, selector)
        own = self.predict(images, keep, selector=selector, batch_size=batch_size, calibrated=False)
        return self.answer(own, share, name, answers=answers)

    def answer(self, own: Tensor, share: float = 1.0, selector: str = "all", *, answers: Rule = DEFAULT) -> list[str]:
        """The class of each image from the network's own probabilities [B, C], from this share of the tokens."""
        if answers not in RULES:
            raise UserError(f"no rule '{answers}'", where="answers", mend=f"say {' or '.join(RULES)}")
        multilabel = self.card.multilabel
        if answers == "balanced":
            return name_classes(own.numpy(), self.classes, multilabel=multilabel)
        calibrated = self.calibrate(own, share, selector).double().numpy()
        return name_classes(calibrated, self.classes, multilabel=multilabel, thresholds=self.card.thresholds)

    def calibrate(self, probabilities: Tensor, share: float = 1.0, selector: str = "all") -> Tensor:
        """Calibrated probabilities [B, C] for the network's own, from this share of the tokens."""
        fitted = calibration_at(self.card, share, selector)
        if not fitted:
            return probabilities
        calibrator = Calibrator(**fitted)
        return torch.from_numpy(calibrator(probabilities.double().numpy())).to(probabilities.dtype)

    @torch.inference_mode()
    def attention(self, images: Images, *, batch_size: int = 256) -> Tensor:
        """Maps [B, h, w] in [0, 1]: where the class token looks in the last block; of an ensemble the mean of them.
        Images as in :meth:`predict`."""
        encoders = [network.encoder for network in self.networks]
        maps = [
            torch.stack([patch_maps(encoder, batch).float() for encoder in encoders]).mean(dim=0)
            for batch in self.prepared_batches(images, batch_size)
        ]
        return torch.cat(maps).cpu()

    @torch.inference_mode()
    def looked_at(self, images: Images, keep: Keep = "auto", *, selector: str | None = None) -> Tensor:
        """The positions [B, K] of the patches that :meth:`predict` encodes, in the row-by-row grid."""
        share, name = share_and_selector(self, keep, selector)
        selection = self.selection(name)
        parts = []
        for batch, draw in self.drawn(selection, images, 256):
            positions = selection.answer(batch, kept_tokens(selection, share), draw)[1]
            everything = torch.arange(self.network.encoder.patches).expand(len(batch), -1)
            parts.append(everything if positions is None else positions.cpu())
        return torch.cat(parts)

    def drawn(self, selection: Selection, images: Images, batch_size: int) -> Iterator[tuple[Tensor, Draw]]:
        """Prepared batches, and what random patches of them are drawn from: of each image its own pixels as they were
        read, so that neither its neighbours nor device and precision matter.
        """
        for batch in in_batches(images, batch_size):
            if selection.selector != "random":
                yield self.to_scale(batch), None
                continue
            pixels = read_batch(batch, self.card, size=self.card.image_size)
            yield self.to_scale(pixels), own_draws(pixels)

    def prepared_batches(self, images: Images, batch_size: int) -> Iterator[Tensor]:
        """Batches on the device, of the model's size, scale and numbers."""
        for batch in in_batches(images, batch_size):
            yield self.to_scale(batch)

    def to_scale(self, images: Images) -> Tensor:
        """One batch: read if it is a list of paths, resize, normalise."""
        batch = read_batch(images, self.card, size=self.card.image_size).to(self.device)
        if tuple(batch.shape[2:]) != self.card.image_size:
            batch = F.interpolate(batch, self.card.image_size, mode="bilinear", antialias=True, align_corners=False)
        return ((batch - self.mean) / self.std).to(self.dtype)


def check_device(device: str | torch.device) -> None:
    """Raise ``UserError`` where nothing can be computed on such a device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such name; none of it on this machine
        raise UserError(f"this machine shows no device '{device}'", where="device", mend="use cpu") from error


def load(run: str | Path, *, device: str | torch.device = "cpu", precision: str = "fp32") -> Any:
    """The model of a finished run (RUN, or its folder ``model``), or of a folder that ``msmae export --format hub``
    wrote: a :class:`Model`, or of a segmentation run a ``SegmentationModel``.

    Args:
        run: folder of a finished run or model; or ``hf://owner/name``, with ``@revision`` where one is meant: a model
            on the Hugging Face hub, which is fetched into the cache the first time (extra ``hub``).
        device: cpu, cuda, ...
        precision: fp32, or bf16: up to twice as fast where the processor has it, with a few thousandths of difference.
            What a run reports was predicted in fp32. A segmentation model predicts in fp32.

    Raises:
        UserError: there is none, it cannot be read, it is a pre-trained encoder only, or no such precision.
    """
    check_device(device)
    if str(run).startswith("hf:"):
        from msmae.inference.hub_folder import fetch_model

        run = fetch_model(str(run))
    folder = Path(run)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    network, card = load_model(folder)
    if isinstance(network, Segmenter):
        from msmae.inference.segmentation import SegmentationModel

        if precision != "fp32":
            raise UserError("outlining predicts in fp32", where="precision", mend="leave it out")
        return SegmentationModel(network, card, device=device)
    if not isinstance(network, Classifier):
        raise UserError("this is a pre-trained encoder, not a classifier", where=str(folder), mend="fine-tune it first")
    return Model(network, card, prepared=load_selection(folder, card, network), device=device, precision=precision)


Keep = float | Literal["auto"]
log = logging.getLogger("msmae")
SINGLE = "leave it out; of an ensemble one of RUN/folds takes it, of a mirrored model `msmae evaluate RUN --mirror off`"
PREPARE = "`msmae budget RUN` prepares a model, measures what it loses, and chooses"


def share_and_selector(model: Model, keep: Keep, selector: str | None) -> tuple[float, str]:
    """The share of the tokens to encode, in (0, 1], and what chooses them.

    Warns where patches are dropped by a model that was never prepared for it (one fine-tuned with ``draw=own`` saw
    others: the least attended).

    Raises:
        UserError: a share outside (0, 1], "auto" without a choice, or a selector that is unknown or not prepared.
    """
    if selector is not None and selector not in SELECTORS:
        raise UserError(f"no selector '{selector}'", where="selector", mend=f"choose one of {', '.join(SELECTORS)}")
    asked = selector is not None
    if keep == 1 and not asked:
        return own_way(model.card)
    if isinstance(model.network, Ensemble) and (keep, selector) == (1, "all"):
        return 1.0, "all"
    if isinstance(model.network, Ensemble):
        what = "selector" if keep == 1 else "keep"
        raise UserError("averaged answers are of whole images", where=what, mend=SINGLE)
    if keep == "auto":
        choice = model.card.keep.get("choice")
        if not choice:
            raise UserError("keep is auto, and nothing was chosen for this model", where="keep", mend=PREPARE)
        keep, selector = choice["keep"], selector or choice["selector"]
    if not isinstance(keep, (int, float)) or not 0 < keep <= 1:
        raise UserError(f"keep is {keep}", where="keep", mend="give a share above 0, at most 1")
    if keep == 1 and asked and selector != "all":
        raise UserError(
            f"the selector {selector} has no effect where all tokens are kept",
            where="selector",
            mend="give a share to keep, for instance 0.25, or leave the selector out",
        )
    if keep == 1 or selector == "all":
        return 1.0, "all"
    if model.prepared is None:
        if selector == "locator":
            raise UserError("this model has no locator", where="selector", mend=PREPARE)
        if not model.warned:
            log.warning("this model was never prepared for dropping patches: expect it to lose; %s", PREPARE)
        model.warned = True
    return float(keep), selector or (model.prepared.selector if model.prepared else "self")


def own_way(card: ModelCard) -> tuple[float, str]:
    """How a model looks unless told otherwise, as it was fine-tuned: share of the tokens and selector; at all of them,
    or coarse and fine (``training.selecting.coarse``)."""
    way = card.keep.get("own")
    return (way["keep"], way["selector"]) if way else (1.0, "all")


def calibration_at(card: ModelCard, share: float, selector: str) -> dict[str, Any]:
    """What calibrates the answers from a share of the tokens: what was fitted to them (the card's own calibration to
    the model's own way); at a share that was not measured, to the nearest of the same selector; else to the model's own
    way. Empty: nothing was fitted.
    """
    own, by = own_way(card)
    points = [{"keep": own, "selector": by, "calibration": card.calibration}, *card.keep.get("calibrations", [])]
    fitted = [point for point in points if point["selector"] == selector] or points[:1]
    nearest: dict[str, Any] = min(fitted, key=lambda point: abs(point["keep"] - share))["calibration"]
    return nearest


def selection_with(network: Classifier, prepared: Selection | None, selector: str) -> Selection:
    """The selection of a selector: around the prepared weights where patches are never embedded, around the model's own
    where all patches pass the first blocks."""
    if selector in WHOLE or prepared is None:
        return Selection(network, selector=selector).eval()
    if selector == prepared.selector:
        return prepared
    return Selection(prepared.model, selector=selector, glance=prepared.glance, guide=network).eval()


def kept_tokens(selection: Selection, share: float) -> int:
    """How many tokens a share keeps. Raises ``UserError`` where no patch is left."""
    patches = selection.model.encoder.patches
    kept = math.floor(share * patches + 1e-9)
    if kept <= selection.coarse:
        coarse = f", and the glance takes {selection.coarse}" if selection.coarse else ""
        raise UserError(
            f"keep {share} of {patches} patches is {kept or 'none'}{coarse}",
            where="keep",
            mend=f"at least {share_for(selection.coarse + 1, patches):.4f}",
        )
    return kept
