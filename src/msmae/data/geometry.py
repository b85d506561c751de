"""One random geometry for image, map and mask together.

A geometry is held in fractions of the image, so that the same crop and flip hit the image's pixels, the attention
map's cells and the lesion mask at the same place whatever their resolutions are.
"""

from __future__ import annotations

import math
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
        turn: [B] radians by which the box is turned about its middle; None: no box is turned.
    """

    centre: Tensor
    extent: Tensor
    flip: Tensor
    turn: Tensor | None = None

    def __getitem__(self, rows: slice) -> Geometry:
        """The geometry of some of the samples."""
        turn = None if self.turn is None else self.turn[rows]
        return Geometry(self.centre[rows], self.extent[rows], self.flip[rows], turn)

    def apply(self, images: Tensor, size: tuple[int, int], *, mode: str = "bicubic") -> Tensor:
        """Crop, mirror and resample [B, C, H, W] -> [B, C, *size]; pixels outside repeat the border.

        Rows are resampled, then columns, on the images' device and, under autocast, in its precision; a turned box in
        one go, in float32.
        """
        if self.turn is not None:
            return self.sampled(images.float(), size, mode).to(images.dtype)
        if torch.is_autocast_enabled(images.device.type):
            images = images.to(torch.get_autocast_dtype(images.device.type))
        across = torch.where(self.flip, -self.extent[:, 0], self.extent[:, 0])
        rows = taps(self.centre[:, 1], self.extent[:, 1], images.shape[2], size[0], mode)
        columns = taps(self.centre[:, 0], across, images.shape[3], size[1], mode)
        lower = mix_rows(images, *rows)  # [B, C, new H, W]
        return mix_rows(lower.transpose(2, 3), *columns).transpose(2, 3).contiguous()  # [B, C, *size]

    def sampled(self, images: Tensor, size: tuple[int, int], mode: str) -> Tensor:
        """`apply` by sampling images [B, C, H, W] at every pixel of the turned boxes -> [B, C, *size]."""
        height, width = images.shape[2:]
        angle = torch.zeros(len(images)) if self.turn is None else self.turn
        rows, columns = ((torch.arange(new) + 0.5) / new - 0.5 for new in size)
        across = torch.where(self.flip, -self.extent[:, 0], self.extent[:, 0])
        x = (across.unsqueeze(1) * columns * width).unsqueeze(1)  # [B, 1, new W], pixels from the middle
        y = (self.extent[:, 1:] * rows * height).unsqueeze(2)  # [B, new H, 1]
        cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
        middle = (2 * self.centre - 1).view(-1, 1, 1, 2)  # -1 and 1 are the image's borders
        offset = torch.stack([(x * cos - y * sin) * (2 / width), (x * sin + y * cos) * (2 / height)], dim=3)
        grid = (middle + offset).to(images.device)  # [B, new H, new W, 2]
        with torch.autocast(images.device.type, enabled=False):
            return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)

    def apply_to_maps(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """The same for attention maps [B, h, w] -> [B, *grid], bilinear: never negative where the map is not."""
        with torch.autocast(maps.device.type, enabled=False):
            return self.apply(maps.unsqueeze(1), grid, mode="bilinear").squeeze(1)

    def apply_to_masks(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """The same for label masks [B, H, W] (integers) -> [B, *size], nearest neighbour."""
        with torch.autocast(masks.device.type, enabled=False):
            return self.apply(masks.unsqueeze(1).float(), size, mode="nearest").squeeze(1).to(masks.dtype)


def taps(centre: Tensor, extent: Tensor, old: int, new: int, mode: str) -> tuple[Tensor, Tensor]:
    """For each pixel of a crop's axis the pixels that it is made of and their weights, both [B, new, taps].

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
    return pixels.long().clamp(0, old - 1), weights  # the border repeats


def mix_rows(images: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Rows of images [B, C, H, W] as weighted sums of chosen [B, new, taps] ones -> [B, C, new, W].

    That is what an embedding bag does with the rows of its table: four rows are read where a matrix product reads all.
    """
    batch, channels, height, width = images.shape
    start = torch.arange(batch * channels).mul(height).reshape(batch, channels, 1, 1)  # each plane's first row
    shape = (batch, channels, *chosen.shape[1:])
    sums = F.embedding_bag(
        (start + chosen.unsqueeze(1)).flatten(0, 2).to(images.device),  # [B*C*new, taps]
        images.reshape(-1, width),  # [B*C*H, W]
        per_sample_weights=weights.unsqueeze(1).expand(shape).flatten(0, 2).to(images),
        mode="sum",
    )
    return sums.reshape(batch, channels, -1, width)


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
    rotate: float = 0.0,
    generator: torch.Generator | None = None,
) -> Geometry:
    """A random resized crop, horizontal flip and rotation for each sample.

    Args:
        scale: least and largest share of the image's area in the crop.
        ratio: least and largest stretch of the crop's sides against the image's, drawn log-uniformly.
        flip: probability of mirroring.
        rotate: largest angle in degrees, drawn uniformly to either side; 0: none is drawn.
    """
    draws = torch.rand(batch, 5, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * draws[:, 0]
    low, high = torch.tensor(ratio).log().tolist()
    stretch = (low + (high - low) * draws[:, 1]).exp()
    stretch = torch.maximum(torch.minimum(stretch, 1 / area), area)  # as far as both sides fit into the image
    extent = torch.stack([(area * stretch).sqrt(), (area / stretch).sqrt()], dim=1).clamp(max=1.0)  # [B, 2]
    centre = extent / 2 + (1 - extent) * draws[:, 2:4]
    turn = math.radians(rotate) * (2 * torch.rand(batch, generator=generator) - 1) if rotate else None
    return Geometry(centre=centre, extent=extent, flip=draws[:, 4] < flip, turn=turn)
