"""One random geometry for image, map and mask together.

A geometry is held in fractions of the image, so that the same crop and flip hit the image's pixels, the attention
map's cells and the lesion mask at the same place whatever their resolutions are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
        """Crop, mirror and resample [B, C, H, W] -> [B, C, *size]; pixels outside repeat the border.

        Rows and columns are resampled by one matrix product each, on the images' device and, under autocast, in its
        precision.
        """
        rows = resampling(self.centre[:, 1], self.extent[:, 1], images.shape[2], size[0], mode).to(images)
        across = torch.where(self.flip, -self.extent[:, 0], self.extent[:, 0])
        columns = resampling(self.centre[:, 0], across, images.shape[3], size[1], mode).to(images)
        narrowed = images.flatten(1, 2) @ columns.transpose(1, 2)  # [B, C*H, W] -> [B, C*H, new W]
        return rows.unsqueeze(1) @ narrowed.reshape(*images.shape[:3], size[1])  # [B, C, H, new W] -> [B, C, *size]

    def apply_to_maps(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """The same for attention maps [B, h, w] -> [B, *grid], bilinear: never negative where the map is not."""
        with torch.autocast(maps.device.type, enabled=False):
            return self.apply(maps.unsqueeze(1), grid, mode="bilinear").squeeze(1)

    def apply_to_masks(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """The same for label masks [B, H, W] (integers) -> [B, *size], nearest neighbour."""
        with torch.autocast(masks.device.type, enabled=False):
            return self.apply(masks.unsqueeze(1).float(), size, mode="nearest").squeeze(1).to(masks.dtype)


def resampling(centre: Tensor, extent: Tensor, old: int, new: int, mode: str) -> Tensor:
    """Matrices [B, new, old]: what each pixel of an axis contributes to each pixel of its crop.

    Args:
        centre: [B] middle of the crop, as a fraction of the axis.
        extent: [B] its length, as a fraction of the axis; negative mirrors.
        old, new: pixels of the axis, and of the crop once it is resampled.
        mode: "nearest", "bilinear" or "bicubic" (Keys, 1981, with a = -0.75 as in PyTorch and OpenCV).
    """
    fraction = (torch.arange(new) + 0.5) / new - 0.5
    position = (centre.unsqueeze(1) + extent.unsqueeze(1) * fraction) * old - 0.5  # [B, new], in pixels
    if mode == "nearest":
        pixels, weights = position.round().unsqueeze(2), torch.ones(*position.shape, 1)
    else:
        pixels = position.floor().unsqueeze(2) + torch.arange(-1, 3)  # the four around it, [B, new, 4]
        weights = KERNELS[mode]((position.unsqueeze(2) - pixels).abs())
    pixels = pixels.long().clamp(0, old - 1)  # the border repeats
    return torch.zeros(len(centre), new, old).scatter_add_(2, pixels, weights)


def linear_kernel(distance: Tensor) -> Tensor:
    """Weight of a pixel at this distance in linear interpolation."""
    return (1 - distance).clamp(min=0)


def cubic_kernel(distance: Tensor) -> Tensor:
    """Weight of a pixel at this distance (under 2) in cubic convolution."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, far)


KERNELS = {"bilinear": linear_kernel, "bicubic": cubic_kernel}


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
