"""One random geometry for image, map and mask together.

A geometry is held in fractions of the image, so that the same crop and flip hit the image's pixels, the attention
map's cells and the lesion mask at the same place whatever their resolutions are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """A crop box per sample, and whether it is mirrored.

    Attributes:
        centre: [B, 2] (x, y) of the box, as fractions of width and height.
        extent: [B, 2] (width, height) of the box, as fractions in (0, 1].
        flip: [B] bool, mirror left to right after cropping.
    """

    centre: Tensor
    extent: Tensor
    flip: Tensor

    def apply(self, images: Tensor, size: tuple[int, int], *, mode: str = "bicubic") -> Tensor:
        """Crop, mirror and resample [B, C, H, W] -> [B, C, *size]; pixels outside repeat the border."""
        batch, channels = images.shape[:2]
        grid = F.affine_grid(self.matrix().to(images.device), [batch, channels, *size], align_corners=False)
        return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)

    def apply_to_maps(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """The same for attention maps [B, h, w] -> [B, *grid], bilinear: never negative where the map is not."""
        return self.apply(maps.unsqueeze(1), grid, mode="bilinear").squeeze(1)

    def apply_to_masks(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """The same for label masks [B, H, W] (integers) -> [B, *size], nearest neighbour."""
        return self.apply(masks.unsqueeze(1).float(), size, mode="nearest").squeeze(1).to(masks.dtype)

    def matrix(self) -> Tensor:
        """[B, 2, 3]: from the crop's coordinates in [-1, 1] to the image's (edges at -1 and 1)."""
        matrix = torch.zeros(len(self.flip), 2, 3)
        matrix[:, 0, 0] = self.extent[:, 0] * (1 - 2 * self.flip.float())
        matrix[:, 1, 1] = self.extent[:, 1]
        matrix[:, :, 2] = 2 * self.centre - 1
        return matrix


def random_geometry(
    batch: int,
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    generator: torch.Generator | None = None,
) -> Geometry:
    """A random resized crop and horizontal flip for each sample.

    Args:
        scale: least and largest share of the image's area in the crop.
        ratio: least and largest stretch of the crop's sides against the image's, drawn log-uniformly.
        flip: probability of mirroring.
    """
    draws = torch.rand(batch, 5, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * draws[:, 0]
    low, high = torch.tensor(ratio).log().tolist()
    stretch = (low + (high - low) * draws[:, 1]).exp()
    stretch = torch.maximum(torch.minimum(stretch, 1 / area), area)  # as far as both sides fit into the image
    extent = torch.stack([(area * stretch).sqrt(), (area / stretch).sqrt()], dim=1).clamp(max=1.0)  # [B, 2]
    centre = extent / 2 + (1 - extent) * draws[:, 2:4]
    return Geometry(centre=centre, extent=extent, flip=draws[:, 4] < flip)


def whole_image(batch: int) -> Geometry:
    """No crop, no flip: the geometry of evaluation and of map refreshes."""
    return Geometry(
        centre=torch.full((batch, 2), 0.5), extent=torch.ones(batch, 2), flip=torch.zeros(batch, dtype=torch.bool)
    )
