"""One geometry for image, map and mask: what is painted on a patch is found at the same patch in all three."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from msmae.data.geometry import Geometry, random_geometry

PATCH = 8
GRIDS = [(8, 8), (6, 10), (9, 4)]
DRAWS = 400  # at least half of them still show the paint

MapCrop = Callable[[Geometry, Tensor, tuple[int, int]], Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def painted(grid: tuple[int, int], cells: Tensor) -> tuple[Tensor, Tensor]:
    """For each cell [B] (a position in the grid) an image [B, 1, H, W] bright on that patch only, and its map."""
    maps = F.one_hot(cells, grid[0] * grid[1]).float().reshape(-1, *grid)
    return maps.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2).unsqueeze(1), maps


def coverage(images: Tensor) -> Tensor:
    """How much of each patch is painted: [B, 1, H, W] -> [B, h, w]."""
    return F.avg_pool2d(images, PATCH).squeeze(1)


def our_crop(geometry: Geometry, maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return geometry.apply_to_maps(maps, grid)


def released_crop(geometry: Geometry, maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """What AMT's and MSMAE's released code does to a map: the crop's pixel box divided by the size of the image, where
    the size of a patch is meant. Whatever the crop, its first cell is 0 and its last 1 or 2."""
    sides = torch.tensor([grid[1], grid[0]]) * PATCH  # (width, height) in pixels
    start = ((geometry.centre - geometry.extent / 2) * sides).round()
    size = (geometry.extent * sides).round()
    first, length = (start // sides).long(), (size / sides).ceil().long() + 1
    result = []
    for i, flipped in enumerate(geometry.flip.tolist()):
        (x, y), (width, height) = first[i].tolist(), length[i].tolist()
        cut = maps[i : i + 1, None, y : y + height, x : x + width]
        cut = cut.flip(-1) if flipped else cut
        result.append(F.interpolate(cut, grid, mode="bilinear", align_corners=False)[0, 0])
    return torch.stack(result)


def share_found(crop: MapCrop, grid: tuple[int, int], seed: int) -> tuple[float, int]:
    """Over random crops and flips of painted images: in how many of those that still show the paint the map's largest
    weight lies on a patch as painted as any; and how many those are."""
    generator = seeded(seed)
    cells = torch.randint(grid[0] * grid[1], (DRAWS,), generator=generator)
    images, maps = painted(grid, cells)
    geometry = random_geometry(DRAWS, generator=generator)
    paint = coverage(geometry.apply(images, (grid[0] * PATCH, grid[1] * PATCH))).flatten(1)
    weight = crop(geometry, maps, grid).flatten(1)
    shown = paint.amax(dim=1) > 0.3
    at_largest = paint.gather(1, weight.argmax(dim=1, keepdim=True)).squeeze(1)
    found = (at_largest > paint.amax(dim=1) - 0.1) & (weight.amax(dim=1) > 0.2)
    return float(found[shown].float().mean()), int(shown.sum())


@pytest.mark.parametrize("grid", GRIDS)
def test_a_painted_patch_is_found_at_the_same_place_in_image_and_map(grid: tuple[int, int]):
    share, shown = share_found(our_crop, grid, seed=0)
    assert share == 1
    assert shown >= 200


@pytest.mark.parametrize("grid", GRIDS)
def test_a_turned_crop_shows_the_paint_at_the_same_place_in_image_and_map(grid: tuple[int, int]):
    generator = seeded(4)
    images, maps = painted(grid, torch.randint(grid[0] * grid[1], (DRAWS,), generator=generator))
    geometry = random_geometry(DRAWS, scale=(0.6, 1.0), rotate=180, generator=generator)
    paint = coverage(geometry.apply(images, (grid[0] * PATCH, grid[1] * PATCH))).flatten(1)
    weight = geometry.apply_to_maps(maps, grid).flatten(1)
    shown = paint.amax(dim=1) > 0.3
    at_largest = paint.gather(1, weight.argmax(dim=1, keepdim=True)).squeeze(1)
    assert shown.sum() >= 200
    assert (at_largest > 0.6 * paint.amax(dim=1))[shown].float().mean() > 0.95


@pytest.mark.parametrize("grid", GRIDS)
def test_the_released_crop_would_not_find_it(grid: tuple[int, int]):
    share, shown = share_found(released_crop, grid, seed=0)
    assert share < 0.2
    assert shown >= 200


@pytest.mark.parametrize("grid", GRIDS)
def test_a_map_is_empty_where_the_crop_is_far_from_the_paint(grid: tuple[int, int]):
    generator = seeded(1)
    cells = torch.randint(grid[0] * grid[1], (DRAWS,), generator=generator)
    _, maps = painted(grid, cells)
    geometry = random_geometry(DRAWS, scale=(0.2, 0.4), generator=generator)
    counts = torch.tensor([grid[1], grid[0]])
    middle = (torch.stack([cells % grid[1], cells // grid[1]], dim=1) + 0.5) / counts  # (x, y) of the paint
    gap = ((middle - geometry.centre).abs() - geometry.extent / 2) * counts  # in cells, outside the crop if positive
    far = gap.amax(dim=1) > 1
    assert far.sum() > 30
    assert geometry.apply_to_maps(maps, grid)[far].max() == 0


@pytest.mark.parametrize("grid", GRIDS)
def test_a_painted_mask_covers_the_pixels_that_the_painted_image_shows(grid: tuple[int, int]):
    generator = seeded(2)
    images, _ = painted(grid, torch.randint(grid[0] * grid[1], (DRAWS,), generator=generator))
    size = (grid[0] * PATCH, grid[1] * PATCH)
    geometry = random_geometry(DRAWS, generator=generator)
    masks = images[:, 0].to(torch.uint8)
    moved, image = geometry.apply_to_masks(masks, size), geometry.apply(images, size, mode="bilinear")[:, 0]
    assert moved.dtype == masks.dtype
    assert set(moved.unique().tolist()) == {0, 1}
    assert moved[image > 0.51].all()
    assert not moved[image < 0.24].any()  # in the corner of the paint half of each side makes a quarter


def test_a_mask_keeps_its_labels():
    masks = torch.randint(0, 5, (20, 24, 40), generator=seeded()).to(torch.int64) * 50
    moved = random_geometry(20, generator=seeded(1)).apply_to_masks(masks, (32, 16))
    assert moved.shape == (20, 32, 16)
    assert set(moved.unique().tolist()) == {0, 50, 100, 150, 200}


# --- the image itself


def whole_image(batch: int) -> Geometry:
    """No crop, no flip."""
    return Geometry(
        centre=torch.full((batch, 2), 0.5), extent=torch.ones(batch, 2), flip=torch.zeros(batch, dtype=torch.bool)
    )


def test_the_whole_image_stays_as_it_is():
    images, maps = torch.rand(3, 2, 24, 40), torch.rand(3, 3, 5)
    masks = torch.randint(0, 2, (3, 24, 40), dtype=torch.uint8)
    geometry = whole_image(3)
    for mode in ("bicubic", "bilinear", "nearest"):
        assert torch.allclose(geometry.apply(images, (24, 40), mode=mode), images, atol=1e-5)
    assert torch.allclose(geometry.apply_to_maps(maps, (3, 5)), maps, atol=1e-6)
    assert torch.equal(geometry.apply_to_masks(masks, (24, 40)), masks)


def test_a_flip_mirrors_left_to_right_and_only_where_it_is_asked():
    images, maps = torch.rand(2, 3, 24, 40), torch.rand(2, 3, 5)
    geometry = Geometry(torch.full((2, 2), 0.5), torch.ones(2, 2), torch.tensor([True, False]))
    moved = geometry.apply(images, (24, 40))
    assert torch.allclose(moved[0], images[0].flip(-1), atol=1e-5)
    assert torch.allclose(moved[1], images[1], atol=1e-5)
    moved = geometry.apply_to_maps(maps, (3, 5))
    assert torch.allclose(moved[0], maps[0].flip(-1), atol=1e-6)
    assert torch.allclose(moved[1], maps[1], atol=1e-6)


def test_a_crop_is_a_slice_enlarged():
    """Against slicing and F.interpolate; the rim of 4 px differs, because a crop also knows what lies beside it."""
    image = torch.rand(1, 1, 40, 64, generator=seeded())
    top, left, height, width = 8, 20, 20, 32
    geometry = Geometry(
        centre=torch.tensor([[(left + width / 2) / 64, (top + height / 2) / 40]]),
        extent=torch.tensor([[width / 64, height / 40]]),
        flip=torch.tensor([True]),
    )
    cut = image[..., top : top + height, left : left + width]
    expected = F.interpolate(cut, (40, 64), mode="bicubic", align_corners=False).flip(-1)
    moved = geometry.apply(image, (40, 64))
    assert torch.allclose(moved[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], atol=1e-4)
    assert not torch.allclose(moved, image, atol=0.1)


def test_every_sample_gets_its_own_crop_whoever_stands_beside_it():
    images, geometry = torch.rand(5, 1, 16, 16, generator=seeded()), random_geometry(5, generator=seeded(1))
    together = geometry.apply(images, (16, 16))
    for i in range(5):
        alone = Geometry(geometry.centre[[i]], geometry.extent[[i]], geometry.flip[[i]])
        assert torch.allclose(alone.apply(images[[i]], (16, 16)), together[[i]], atol=1e-6)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "nearest"])
def test_the_same_pixels_as_a_sampled_grid(mode: str):
    """PyTorch's grid_sample says the same, sample by sample."""
    images = torch.rand(16, 2, 30, 44, generator=seeded())
    geometry = random_geometry(16, generator=seeded(1))
    affine = torch.zeros(16, 2, 3)
    affine[:, 0, 0] = geometry.extent[:, 0] * (1 - 2 * geometry.flip.float())
    affine[:, 1, 1] = geometry.extent[:, 1]
    affine[:, :, 2] = 2 * geometry.centre - 1
    places = F.affine_grid(affine, [16, 2, 24, 40], align_corners=False)
    expected = F.grid_sample(images, places, mode=mode, padding_mode="border", align_corners=False)
    assert torch.allclose(geometry.apply(images, (24, 40), mode=mode), expected, atol=1e-4)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "nearest"])
def test_a_box_turned_by_nothing_is_the_box(mode: str):
    images, geometry = torch.rand(16, 2, 30, 44, generator=seeded()), random_geometry(16, generator=seeded(1))
    still = dataclasses.replace(geometry, turn=torch.zeros(16))
    assert torch.allclose(
        still.apply(images, (24, 40), mode=mode), geometry.apply(images, (24, 40), mode=mode), atol=1e-4
    )


def test_a_quarter_turn_is_a_quarter_turn():
    images = torch.rand(2, 3, 24, 24, generator=seeded())
    masks = torch.randint(0, 9, (2, 24, 24), generator=seeded())
    turned = dataclasses.replace(whole_image(2), turn=torch.tensor([math.pi / 2, -math.pi / 2]))
    for i, quarter in ((0, 1), (1, -1)):
        assert torch.allclose(turned.apply(images, (24, 24))[i], images[i].rot90(quarter, (1, 2)), atol=1e-4)
        assert torch.equal(turned.apply_to_masks(masks, (24, 24))[i], masks[i].rot90(quarter, (0, 1)))


def test_angles_are_drawn_to_either_side_and_change_nothing_else():
    turned, still = (random_geometry(4000, rotate=degrees, generator=seeded(3)) for degrees in (20.0, 0.0))
    assert still.turn is None
    assert turned.turn is not None
    assert torch.equal(turned.centre, still.centre)
    assert turned.turn.abs().max() == pytest.approx(math.radians(20), abs=0.005)
    assert turned.turn.mean() == pytest.approx(0, abs=0.01)


def test_under_autocast_pixels_are_rounded_and_not_displaced():
    """A grid of coordinates in bfloat16 would be half a pixel off at 224 px."""
    images = torch.rand(4, 1, 224, 224, generator=seeded())
    maps, masks = torch.rand(4, 14, 14, generator=seeded(1)), torch.randint(0, 256, (4, 224, 224)).to(torch.uint8)
    geometry = random_geometry(4, generator=seeded(2))
    exact = geometry.apply(images, (224, 224))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = geometry.apply(images, (224, 224))
        assert torch.equal(geometry.apply_to_maps(maps, (14, 14)), low_free(geometry.apply_to_maps, maps, (14, 14)))
        assert torch.equal(geometry.apply_to_masks(masks, (64, 64)), low_free(geometry.apply_to_masks, masks, (64, 64)))
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).abs().mean() < 0.004
    assert (rounded - exact).abs().max() < 0.03


def low_free(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """The result without autocast."""
    with torch.autocast("cpu", enabled=False):
        return function(*arguments)


# --- the draw


@given(
    low=st.floats(0.05, 0.75), span=st.floats(0, 0.95), stretch=st.floats(1, 3), seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=80)
def test_boxes_lie_in_the_image_and_keep_to_the_area_asked_for(low: float, span: float, stretch: float, seed: int):
    high = min(1.0, low + span)
    geometry = random_geometry(64, scale=(low, high), ratio=(1 / stretch, stretch), generator=seeded(seed))
    assert (geometry.centre - geometry.extent / 2 >= -1e-6).all()
    assert (geometry.centre + geometry.extent / 2 <= 1 + 1e-6).all()
    assert (geometry.extent > 0).all()
    assert (geometry.extent.prod(dim=1) <= high + 1e-5).all()


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.8, 1.0), (0.7, 0.9)])
def test_no_crop_is_smaller_than_the_area_asked_for(scale: tuple[float, float]):
    """`crop_scale: [1, 1]` is how a person switches cropping off."""
    geometry = random_geometry(500, scale=scale, ratio=(0.5, 2.0), generator=seeded())
    assert geometry.extent.prod(dim=1).min() >= scale[0] - 1e-5


def test_the_draw_covers_the_ranges_it_is_given():
    geometry = random_geometry(4000, scale=(0.2, 0.7), ratio=(0.8, 1.25), flip=0.3, generator=seeded())
    area, stretch = geometry.extent.prod(dim=1), geometry.extent[:, 0] / geometry.extent[:, 1]
    assert area.min() == pytest.approx(0.2, abs=0.01)
    assert area.max() == pytest.approx(0.7, abs=0.01)
    assert area.mean() == pytest.approx(0.45, abs=0.02)
    assert stretch.log().mean() == pytest.approx(0, abs=0.02)
    assert (stretch.min(), stretch.max()) == (pytest.approx(0.8, abs=0.01), pytest.approx(1.25, abs=0.01))
    assert geometry.flip.float().mean() == pytest.approx(0.3, abs=0.03)
    told = torch.stack([geometry.flip.float(), area, stretch.log(), *geometry.centre.T])
    assert torch.corrcoef(told)[0, 1:].abs().max() < 0.08  # a flip says nothing about the crop
    room = (geometry.centre - geometry.extent / 2) / (1 - geometry.extent)  # 0 = at the left/top edge, 1 = right/bottom
    assert room.mean(dim=0).tolist() == pytest.approx([0.5, 0.5], abs=0.03)
    assert room.min() < 0.01
    assert room.max() > 0.99


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_flip_that_is_certain_or_impossible(flip: float):
    assert random_geometry(200, flip=flip, generator=seeded()).flip.float().unique().tolist() == [flip]


def test_the_same_generator_draws_the_same_geometry():
    first, again, other = (random_geometry(9, generator=seeded(s)) for s in (5, 5, 6))
    assert torch.equal(first.centre, again.centre)
    assert torch.equal(first.extent, again.extent)
    assert torch.equal(first.flip, again.flip)
    assert not torch.equal(first.centre, other.centre)


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 9), columns=st.integers(1, 9))
@settings(max_examples=60)
def test_moved_maps_are_weights_still(seed: int, rows: int, columns: int):
    """Never negative, never above the map's largest weight; a uniform map stays uniform."""
    maps = torch.rand(8, rows, columns, generator=seeded(seed)) ** 3
    geometry = random_geometry(8, generator=seeded(seed + 1))
    moved = geometry.apply_to_maps(maps, (rows, columns))
    assert moved.shape == maps.shape
    assert moved.min() >= 0
    assert (moved.amax(dim=(1, 2)) <= maps.amax(dim=(1, 2)) + 1e-6).all()
    assert torch.allclose(geometry.apply_to_maps(torch.ones(8, rows, columns), (7, 5)), torch.ones(8, 7, 5), atol=1e-6)
