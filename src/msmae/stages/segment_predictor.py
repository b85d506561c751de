"""A trained segmenter to use: images in the files' own units in, probabilities of the same height and width out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msmae.data.images import ImageSource, Reading, fit_image, read_source
from msmae.errors import UserError
from msmae.exchange.checkpoint import ModelCard
from msmae.method.segmenter import Segmenter
from msmae.stages.predictor import Images, check_images, check_numbers


class SegmentationModel:
    """A segmenter with everything it needs to be used; ``msmae.load`` makes it of a segmentation run.

    Attributes:
        card: architecture, classes and normalisation.
        network: the torch module, in evaluation mode.
    """

    def __init__(self, network: Segmenter, card: ModelCard, *, device: str | torch.device = "cpu") -> None:
        self.network = network.to(device).eval()
        self.card = card
        self.device = torch.device(device)
        self.mean = torch.tensor(card.mean, device=device).reshape(1, -1, 1, 1)
        self.std = torch.tensor(card.std, device=device).reshape(1, -1, 1, 1)

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the probabilities' channels; the background is not among them."""
        return self.card.classes

    @torch.inference_mode()
    def predict(self, images: Images, *, batch_size: int = 64, sliding: bool = False) -> Tensor:
        """Probabilities [B, classes, H, W] that a pixel belongs to a class, at the images' own size.

        Args:
            images: float [B, channels, H, W] in the files' own units, or a list of paths of images of one size.
            sliding: look at images larger than the model piece by piece, at their own resolution, and blend the pieces
                by Gaussian weights; right for a model trained at that scale. By default the whole image is brought to
                the model's size, and the probabilities back to the image's.

        Raises:
            UserError: no images, images of different sizes, another number of channels, or values that are not finite.
        """
        if isinstance(images, (str, Path)):
            images = [images]
        if len(images) == 0:
            raise UserError("no images were given", mend="give at least one")
        batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
        parts = [self.probabilities(self.read(batch), sliding=sliding).cpu() for batch in batches]
        if len({part.shape[2:] for part in parts}) > 1:
            raise UserError("the images have different sizes", mend="predict them one at a time")
        return torch.cat(parts)

    def masks(self, probabilities: Tensor) -> np.ndarray:
        """Probabilities [B, classes, H, W] -> uint8 [B, H, W]: each pixel's class number, 0 for the background."""
        best, number = probabilities.max(dim=1)
        outside = 1 - probabilities.sum(dim=1) if len(self.classes) > 1 else 1 - best
        return ((number + 1) * (best > outside)).byte().numpy()

    def read(self, images: Images) -> Tensor:
        """A batch as float [B, channels, H, W] on the device, in the files' own units."""
        if not isinstance(images, (Tensor, np.ndarray)):
            if isinstance(images[0], (Tensor, np.ndarray)):
                raise UserError("a list of arrays", mend="stack them into one [B, channels, height, width]")
            reading = Reading(**self.card.reading)
            arrays = [read_source(ImageSource(str(path)), reading=reading) for path in images]
            if len({array.shape[1:] for array in arrays}) > 1:
                raise UserError("the images have different sizes", mend="predict them one at a time")
            size = (arrays[0].shape[1], arrays[0].shape[2])
            for array, path in zip(arrays, images, strict=True):
                check_numbers(self.card, array.dtype.name, [str(path)])
            images = np.stack([fit_image(array, size=size, channels=self.card.channels) for array in arrays])
        batch = torch.as_tensor(images).float().to(self.device)
        check_images(batch, channels=self.card.channels)
        return batch

    def probabilities(self, batch: Tensor, *, sliding: bool) -> Tensor:
        """Images [B, channels, H, W] in the files' own units -> [B, classes, H, W]."""
        size, own = self.card.image_size, (batch.shape[2], batch.shape[3])
        if sliding and (own[0] > size[0] or own[1] > size[1]):
            from monai.inferers.utils import sliding_window_inference

            scaled = (batch - self.mean) / self.std
            found = sliding_window_inference(scaled, size, 16, self.forward, overlap=0.5, mode="gaussian")
            assert isinstance(found, Tensor)
            return found
        if own != size:
            batch = F.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)
        found = self.forward((batch - self.mean) / self.std)
        return found if own == size else F.interpolate(found, own, mode="bilinear", align_corners=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images of the model's size -> probabilities of the classes without the background."""
        logits: Tensor = self.network(images).float()
        found: Tensor = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)[:, 1:]
        return found
