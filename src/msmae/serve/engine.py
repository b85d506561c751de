"""A loaded model and what it says of decoded images: the one place of the server that knows the inference API."""

from __future__ import annotations

import base64
import io
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msmae.errors import UserError
from msmae.inference.model import kept_tokens, load, own_way, share_and_selector
from msmae.inference.reference import own_tokens
from msmae.inference.segmentation import SegmentationModel
from msmae.method.classifier import Classifier
from msmae.selection.selectors import share_for
from msmae.serve.batches import sizes_of_batches
from msmae.serve.decode import Task, png
from msmae.serve.reconstruction import Reconstructor
from msmae.serve.uncertainty import Uncertainty, read_uncertainty


@dataclass(frozen=True)
class Question:
    """One image [C, H, W] and what is asked of it."""

    array: np.ndarray
    keep: float = 1.0
    map: bool = True
    reconstruction: bool = False
    features: bool = False

    @property
    def alike(self) -> tuple[Any, ...]:
        """Questions that are alike can be answered in one batch."""
        return self.array.shape, self.keep, self.map, self.reconstruction, self.features


@dataclass
class Answer:
    """What the model says of one image."""

    probabilities: np.ndarray | None = None
    """[C], calibrated."""
    predicted: str = ""
    map: np.ndarray | None = None
    """[h, w] in [0, 1]."""
    kept: list[int] | None = None
    """Positions in the row-by-row grid; None: all patches."""
    own: bool = True
    """The model looked as it was fine-tuned, which is how it answered for the validation images."""
    milliseconds: float = 0.0
    """Of the prediction, an image's share of its batch."""
    reconstruction: str | None = None
    """Base64 of a PNG of the model's size."""
    features: np.ndarray | None = None
    layers: np.ndarray | None = field(default=None, repr=False)
    """Of a segmenter: bool [C, H, W]."""


class Engine:
    """Answers questions in batches; made of a RUN folder once, and not changed by what happens to its files after."""

    def __init__(self, run: str, *, device: str = "cpu") -> None:
        folder = Path(run)
        self.model = load(folder, device=device)
        self.card = self.model.card
        self.segmenter = isinstance(self.model, SegmentationModel)
        if self.card.reading.get("window") == "manifest":
            raise UserError(
                "each training image had a window of its own, which an uploaded file does not name",
                where=run,
                mend="train with one window for all images",
            )
        self.uncertainty = Uncertainty()
        self.reconstructor: Reconstructor | None = None
        if not self.segmenter:
            self.uncertainty = read_uncertainty(folder, self.classes, multilabel=self.card.multilabel)
            self.reconstructor = Reconstructor.of(folder, self.card, device=device)

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the probabilities."""
        return list(self.model.classes)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.card.image_size
        return height // self.card.patch_size, width // self.card.patch_size

    def task(self, *, pixels: int) -> Task:
        """What decoding has to deliver."""
        reading = {**self.card.reading, "max_pixels": min(pixels, self.card.reading.get("max_pixels", pixels))}
        size = None if self.segmenter else tuple(self.card.image_size)
        return Task(size, self.card.channels, self.card.patch_size, self.card.numbers, reading)

    def check_keep(self, keep: float) -> None:
        """Raise UserError where this share of the patches cannot be kept."""
        if self.segmenter:
            if keep != 1:
                raise UserError("outlining needs every patch", mend="leave keep out")
            return
        share, selector = share_and_selector(self.model, keep, None)
        kept_tokens(self.model.selection(selector), share)

    def least_keep(self) -> float:
        """The least share of the patches that leaves one."""
        if self.segmenter:
            return 1.0
        coarse = self.model.prepared.coarse if self.model.prepared else 0
        return share_for(coarse + 1, self.grid[0] * self.grid[1])

    def selector(self) -> str:
        """What chooses patches when some are dropped."""
        return "all" if self.segmenter else share_and_selector(self.model, max(0.5, self.least_keep()), None)[1]

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in order; questions that are alike are answered in one batch."""
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for i, question in enumerate(questions):
            groups[question.alike].append(i)
        found: list[Answer] = [Answer() for _ in questions]
        for places in groups.values():
            images = torch.from_numpy(np.stack([questions[i].array for i in places]).astype(np.float32))
            some = self.outline(images) if self.segmenter else self.classify(images, questions[places[0]])
            for i, answer in zip(places, some, strict=True):
                found[i] = answer
        return found

    def warm_up(self, most: int) -> None:
        """Answer blank images in every size of batch: what a size needs stays in memory, so it is taken before the
        first request and not during the first thousands."""
        side = self.card.image_size
        blank = Question(np.zeros((self.card.channels, *side), np.float32), map=not self.segmenter)
        for size in sizes_of_batches(most):
            self.answers([blank] * size)

    def outline(self, images: torch.Tensor) -> list[Answer]:
        """Images [B, C, H, W] -> where each class is."""
        started = time.perf_counter()
        layers = self.model.layers(self.model.predict(images))  # bool [B, classes, H, W]
        each = 1000 * (time.perf_counter() - started) / len(images)
        return [Answer(layers=layer, milliseconds=each) for layer in layers]

    def classify(self, images: torch.Tensor, how: Question) -> list[Answer]:
        """Images [B, C, H, W] of the model's size -> probabilities and what else is asked."""
        share, selector = share_and_selector(self.model, how.keep, None)
        started = time.perf_counter()
        own = self.model.predict(images, how.keep, calibrated=False)  # [B, C]
        each = 1000 * (time.perf_counter() - started) / len(images)
        probabilities = self.model.calibrate(own, share, selector).double().numpy()
        names = self.model.answer(own, share, selector)
        way = (share, selector) == own_way(self.card)
        answers = [Answer(p, name, milliseconds=each, own=way) for p, name in zip(probabilities, names, strict=True)]
        if how.map:
            for answer, attention in zip(answers, self.model.attention(images).numpy(), strict=True):
                answer.map = attention
            if share < 1 and selector not in ("merge", "smaller"):  # they keep no one patch
                for answer, positions in zip(answers, self.model.looked_at(images, how.keep), strict=True):
                    answer.kept = sorted(positions.tolist())
        if how.features:
            for answer, row in zip(answers, self.features(images), strict=True):
                answer.features = row
        if how.reconstruction and self.reconstructor is not None:
            kept = [answer.kept for answer in answers]
            maps = torch.from_numpy(np.stack([np.asarray(a.map) for a in answers])) if how.map else None
            for answer, pixels in zip(answers, self.reconstructor(images, kept, maps), strict=True):
                answer.reconstruction = png(pixels)
        return answers

    @torch.inference_mode()
    def features(self, images: torch.Tensor) -> np.ndarray:
        """What the classifier's head reads of images [B, C, H, W], seen as the model was fine-tuned: [B, D]; of an
        ensemble the first's."""
        tokens = own_tokens(self.model, images)
        network = self.model.network
        headless = Classifier(network.encoder, classes=1, pool=network.pool, head=torch.nn.Identity())
        headless.attentive = network.attentive
        read: np.ndarray = headless.classify(tokens).float().cpu().numpy()
        return read


def layer_png(layer: np.ndarray, longest: int = 1024) -> str:
    """bool [H, W] -> base64 of a grey PNG, white inside, its longest side at most so many pixels."""
    from PIL import Image

    image = Image.fromarray(layer.astype(np.uint8) * 255)
    image.thumbnail((longest, longest), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()
