"""What a run's pre-trained decoder makes of the patches that were kept: the page's last view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from msmae.errors import UserError
from msmae.method.masking import PatchPlan
from msmae.method.msmae import MSMAE
from msmae.method.vit import gather_tokens, patchify, unpatchify
from msmae.runs.cards import ModelCard
from msmae.runs.checkpoint import load_model

KEPT = 0.25  # where every patch is kept, the view shows what a quarter of them would give


class Reconstructor:
    """A pre-trained model, encoder and decoder, of the same size and grid as the classifier."""

    def __init__(self, model: MSMAE, card: ModelCard, device: str) -> None:
        self.model, self.card = model.to(device).eval(), card
        self.mean = torch.tensor(card.mean, device=device).reshape(1, -1, 1, 1)
        self.std = torch.tensor(card.std, device=device).reshape(1, -1, 1, 1)

    @classmethod
    def of(cls, run: Path, classifier: ModelCard, *, device: str = "cpu") -> Reconstructor | None:
        """From RUN/pretrained; None where the run has none, or it looks at images in another way."""
        try:
            model, card = load_model(run / "pretrained")
        except UserError:
            return None
        alike = (card.image_size, card.patch_size, card.channels) == (
            classifier.image_size,
            classifier.patch_size,
            classifier.channels,
        )
        return cls(model, card, device) if isinstance(model, MSMAE) and alike else None

    @torch.inference_mode()
    def __call__(
        self, images: torch.Tensor, kept: Sequence[list[int] | None], maps: torch.Tensor | None
    ) -> list[np.ndarray]:
        """Images [B, C, H, W] in files' units -> uint8 [H, W] or [H, W, 3]: the kept patches as they are, the others
        reconstructed. Of an image that is kept whole the most attended quarter is kept (by the map [B, h, w]).
        """
        scaled = (images.to(self.mean.device) - self.mean) / self.std
        patches = patchify(scaled, self.card.patch_size)  # [B, N, P]
        found = []
        for i in range(len(images)):
            keep = torch.tensor(self.positions(kept[i], None if maps is None else maps[i], patches.shape[1]))
            rest = torch.tensor(sorted(set(range(patches.shape[1])) - set(keep.tolist())), dtype=torch.long)
            none = torch.empty(1, 0, dtype=torch.long)
            plan = PatchPlan(keep=keep[None], mask=rest[None], throw=none).to(scaled.device)
            predicted = self.model(scaled[i : i + 1], plan).pixels  # [1, M, P]
            if self.card.normalise_pixels:  # undo it with the true patch's mean and spread
                true = gather_tokens(patches[i : i + 1], plan.mask)
                predicted = predicted * (true.var(dim=-1, keepdim=True) + 1e-6).sqrt() + true.mean(dim=-1, keepdim=True)
            whole = patches[i : i + 1].clone()
            whole.scatter_(1, plan.mask.unsqueeze(-1).expand(-1, -1, whole.shape[-1]), predicted)
            grid = (images.shape[2] // self.card.patch_size, images.shape[3] // self.card.patch_size)
            pixels = (unpatchify(whole, grid, images.shape[1]) * self.std + self.mean)[0].cpu().numpy()
            found.append(to_look_at(pixels, images[i].numpy()))
        return found

    def positions(self, kept: list[int] | None, attention: torch.Tensor | None, patches: int) -> list[int]:
        """The patches to keep."""
        if kept is not None and len(kept) < patches:
            return kept
        count = max(1, int(KEPT * patches))
        if attention is None:
            return list(range(0, patches, max(1, patches // count)))[:count]
        best: list[int] = attention.flatten().topk(count).indices.tolist()
        return best


def to_look_at(pixels: np.ndarray, original: np.ndarray) -> np.ndarray:
    """[C, H, W] in files' units -> uint8, on the scale of the original image."""
    low, high = (0.0, 255.0) if original.max() > 1 and original.max() <= 255 else (original.min(), original.max())
    values = np.clip((pixels - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    return values[0] if len(values) != 3 else np.moveaxis(values, 0, -1)
