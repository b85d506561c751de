"""A trained model to use: images in the files' own units in, probabilities or attention maps out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msmae.errors import UserError
from msmae.evidence.calibration import Calibrator
from msmae.exchange.checkpoint import ModelCard, load_model
from msmae.exchange.look import load_look
from msmae.look.selectors import Draw, Look, own_draws
from msmae.method.attention import patch_maps
from msmae.method.segmenter import Segmenter
from msmae.method.transfer import Classifier
from msmae.stages.inputs import Images, in_batches, read_batch
from msmae.stages.looking import Keep, calibration_at, kept_tokens, look_with, share_and_selector
from msmae.stages.packed import packed
from msmae.stages.precision import prediction_dtype


class Model:
    """A classifier with everything it needs to be used; made by :func:`load`.

    Attributes:
        card: architecture, classes and normalisation.
        network: the torch module, in evaluation mode, its weights in the numbers that it predicts in.
        prepared: what looks at some of an image, where `msmae budget` has prepared it.
    """

    def __init__(
        self,
        network: Classifier,
        card: ModelCard,
        *,
        prepared: Look | None = None,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.device = torch.device(device)
        self.dtype = prediction_dtype(precision, self.device)
        self.network = network.to(self.device, self.dtype).eval()
        self.prepared = None if prepared is None else prepared.to(self.device, self.dtype).eval()
        self.card = card
        self.packed: tuple[Classifier, Look | None] | None = None  # both for prediction, from the first one on
        self.warned = False  # about dropping patches unprepared
        self.mean = torch.tensor(card.mean, device=device).reshape(1, -1, 1, 1)
        self.std = torch.tensor(card.std, device=device).reshape(1, -1, 1, 1)

    def look(self, selector: str) -> Look:
        """What predicts, its weights packed."""
        if self.packed is None:
            self.packed = packed(self.network), None if self.prepared is None else packed(self.prepared)
        return look_with(*self.packed, selector)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles pack their weights themselves."""
        return {**self.__dict__, "packed": None}

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

        They are calibrated on the validation images, for classes as common as those. Where training weighed rare
        classes more, the class that :meth:`classify` gives need not be the likeliest.

        Args:
            images: float [B, channels, H, W] in the files' own units, of any size (normalised and resized here), or a
                list of paths.
            keep: share of the tokens that are encoded, in (0, 1]; or "auto": what `msmae budget` chose.
            selector: what chooses them (``msmae.look.selectors``); None: the one the model was prepared with, else
                `self`, which finds the most attended patches by a pass over all of them and so saves nothing.
            calibrated: False: as the network gives them.

        Raises:
            UserError: no images, another number of channels, values that are not finite, a share that leaves no patch,
                or "auto" where nothing was chosen.
        """
        share, name = share_and_selector(self, keep, selector)
        look = self.look(name)
        kept = kept_tokens(look, share)
        logits = torch.cat([look(batch, kept, draw).float() for batch, draw in self.drawn(look, images, batch_size)])
        probabilities = (logits.sigmoid() if self.card.multilabel else logits.softmax(dim=1)).cpu()
        return self.calibrate(probabilities, share, name) if calibrated else probabilities

    def classify(
        self, images: Images, keep: Keep = 1.0, *, selector: str | None = None, batch_size: int = 256
    ) -> list[str]:
        """The class of each image, as ``predicted`` in predictions.csv; several are joined by ``;``. Images, shares and
        selectors as in :meth:`predict`.
        """
        probabilities = self.predict(images, keep, selector=selector, batch_size=batch_size, calibrated=False)
        return predicted_names(probabilities.numpy(), self.classes, multilabel=self.card.multilabel)

    def calibrate(self, probabilities: Tensor, share: float = 1.0, selector: str = "all") -> Tensor:
        """Calibrated probabilities [B, C] for the network's own, from this share of the tokens."""
        fitted = calibration_at(self.card, share, selector)
        if not fitted:
            return probabilities
        calibrator = Calibrator(**fitted)
        return torch.from_numpy(calibrator(probabilities.double().numpy())).to(probabilities.dtype)

    @torch.inference_mode()
    def attention(self, images: Images, *, batch_size: int = 256) -> Tensor:
        """Maps [B, h, w] in [0, 1]: where the class token looks in the last block. Images as in :meth:`predict`."""
        batches = self.prepared_batches(images, batch_size)
        return torch.cat([patch_maps(self.network.encoder, batch).float() for batch in batches]).cpu()

    @torch.inference_mode()
    def looked_at(self, images: Images, keep: Keep = "auto", *, selector: str | None = None) -> Tensor:
        """The positions [B, K] of the patches that :meth:`predict` encodes, in the row-by-row grid."""
        share, name = share_and_selector(self, keep, selector)
        look = self.look(name)
        parts = []
        for batch, draw in self.drawn(look, images, 256):
            positions = look.look(batch, kept_tokens(look, share), draw)[1]
            everything = torch.arange(self.network.encoder.patches).expand(len(batch), -1)
            parts.append(everything if positions is None else positions.cpu())
        return torch.cat(parts)

    def drawn(self, look: Look, images: Images, batch_size: int) -> Iterator[tuple[Tensor, Draw]]:
        """Prepared batches, and what random patches of them are drawn from: of each image its own pixels as they were
        read, so that neither its neighbours nor device and precision matter.
        """
        for batch in in_batches(images, batch_size):
            if look.selector != "random":
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


def predicted_names(probabilities: np.ndarray, classes: Sequence[str], *, multilabel: bool) -> list[str]:
    """The predicted class of each image from the network's own probabilities [n, C]; for multi-label data all classes
    above one half, joined by ``;``.
    """
    if not multilabel:
        return [classes[i] for i in probabilities.argmax(axis=1)]
    return [";".join(c for c, p in zip(classes, row, strict=True) if p > 0.5) or ";" for row in probabilities]


def check_device(device: str | torch.device) -> None:
    """Raise ``UserError`` where nothing can be computed on such a device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such name; none of it on this machine
        raise UserError(f"this machine shows no device '{device}'", where="device", mend="use cpu") from error


def load(run: str | Path, *, device: str | torch.device = "cpu", precision: str = "fp32") -> Any:
    """The model of a finished run (RUN, or its folder ``model``): a :class:`Model`, or of a segmentation run a
    ``SegmentationModel``.

    Args:
        run: folder of a finished run.
        device: cpu, cuda, ...
        precision: fp32, or bf16: up to twice as fast where the processor has it, with a few thousandths of difference.
            What a run reports was predicted in fp32. A segmentation model predicts in fp32.

    Raises:
        UserError: there is none, it cannot be read, it is a pre-trained encoder only, or no such precision.
    """
    check_device(device)
    folder = Path(run)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    network, card = load_model(folder)
    if isinstance(network, Segmenter):
        from msmae.stages.segmentation.predictor import SegmentationModel

        if precision != "fp32":
            raise UserError("outlining predicts in fp32", where="precision", mend="leave it out")
        return SegmentationModel(network, card, device=device)
    if not isinstance(network, Classifier):
        raise UserError("this is a pre-trained encoder, not a classifier", where=str(folder), mend="fine-tune it first")
    return Model(network, card, prepared=load_look(folder, card, network), device=device, precision=precision)
