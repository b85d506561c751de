"""A trained segmenter to use: images in the files' own units in, probabilities of the same height and width out."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msmae.errors import UserError
from msmae.inference.inputs import Images, in_batches, read_batch
from msmae.inference.sliding import answer_in_windows
from msmae.method.segmenter import Segmenter
from msmae.runs.cards import ModelCard


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
        parts = [self.probabilities(self.read(part), sliding=sliding).cpu() for part in in_batches(images, batch_size)]
        if len({part.shape[2:] for part in parts}) > 1:
            raise UserError("the images have different sizes", mend="predict them one at a time")
        return torch.cat(parts)

    def layers(self, probabilities: Tensor) -> np.ndarray:
        """Probabilities [B, classes, H, W] -> bool [B, classes, H, W]: where each class is.

        Classes that may overlap are where they have more than one half; of others a pixel belongs to the likeliest, the
        background among them.
        """
        if self.card.multilabel or len(self.classes) == 1:
            return (probabilities > 0.5).numpy()
        likeliest = probabilities.max(dim=1, keepdim=True).values
        outside = 1 - probabilities.sum(dim=1, keepdim=True)
        first = likeliest == probabilities
        first &= first.cumsum(dim=1) == 1  # of equals the first
        return (first & (likeliest > outside)).numpy()

    def read(self, images: Images) -> Tensor:
        """A batch as float [B, channels, H, W] on the device, in the files' own units."""
        return read_batch(images, self.card, size=None).to(self.device)

    def probabilities(self, batch: Tensor, *, sliding: bool) -> Tensor:
        """Images [B, channels, H, W] in the files' own units -> [B, classes, H, W]."""
        size, own = self.card.image_size, (batch.shape[2], batch.shape[3])
        if sliding and (own[0] > size[0] or own[1] > size[1]):
            return answer_in_windows((batch - self.mean) / self.std, size, self.forward)
        if own != size:
            batch = F.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)
        found = self.forward((batch - self.mean) / self.std)
        return found if own == size else F.interpolate(found, own, mode="bilinear", align_corners=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images of the model's size -> probabilities of the classes without the background."""
        logits: Tensor = self.network(images).float()
        exclusive = logits.shape[1] > len(self.classes)
        found: Tensor = logits.softmax(dim=1)[:, 1:] if exclusive else logits.sigmoid()
        return found
