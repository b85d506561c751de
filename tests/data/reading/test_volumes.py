"""NIfTI volumes: which voxels a slice shows, which way up, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest

from msmae.data.reading.decoding import Job
from msmae.data.reading.images import ImageSource, Plane, Reading, count_channels, read_image
from msmae.data.reading.masks import read_mask
from msmae.data.reading.volumes import volume_shape
from msmae.errors import UserError

SHAPE = (5, 6, 7)


def volume(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, shape or SHAPE).astype(np.int16)


def save(values: np.ndarray, path: Path, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slices_hang_as_radiologists_hang_them(tmp_path: Path, suffix: str) -> None:
    """With axes left -> right, back -> front, feet -> head, found voxel by voxel."""
    values = volume()
    path = save(values, tmp_path / f"ct{suffix}")
    right, front, head = (side - 1 for side in SHAPE)
    axial, coronal, sagittal = (read_image(path, plane=Plane(axis=axis, index=3))[0] for axis in (2, 1, 0))
    assert read_image(path, plane=Plane(axis=2, index=3)).dtype == np.float32
    for row, column in itertools.product(range(4), range(4)):
        assert axial[row, column] == values[right - column, front - row, 3]
        assert coronal[row, column] == values[right - column, 3, head - row]
        assert sagittal[row, column] == values[3, front - column, head - row]


@pytest.mark.parametrize(
    ("order", "flips"), [((0, 1, 2), (1, -1, 1)), ((2, 0, 1), (-1, 1, -1)), ((1, 2, 0), (-1, -1, -1))]
)
def test_the_order_in_the_file_does_not_matter(tmp_path: Path, order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    values = volume()
    stored = values.transpose(order)[tuple(slice(None, None, flip) for flip in flips)]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for at, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        affine[axis, at] = flip
        affine[axis, 3] += 0 if flip > 0 else SHAPE[axis] - 1
    plain, turned = save(values, tmp_path / "a.nii"), save(stored, tmp_path / "b.nii", affine)
    assert volume_shape(turned) == (*SHAPE, 1)
    for axis in range(3):
        np.testing.assert_array_equal(*(read_image(file, plane=Plane(axis=axis, index=2)) for file in (plain, turned)))


def test_the_file_s_scaling_and_a_window_are_applied(tmp_path: Path) -> None:
    values = volume()
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(0.5, -100)
    nibabel.save(image, tmp_path / "scaled.nii")
    units = read_image(tmp_path / "scaled.nii", plane=Plane(axis=2, index=0))[0][::-1, ::-1].T
    np.testing.assert_allclose(units, values[..., 0] * 0.5 - 100)
    shown = read_image(tmp_path / "scaled.nii", plane=Plane(axis=2, index=0), reading=Reading(window="-200..200"))
    assert (shown.min(), shown.max()) == (0, 1)
    np.testing.assert_allclose(shown[0][::-1, ::-1].T, np.clip((units + 200) / 400, 0, 1), atol=1e-6)


def test_a_four_dimensional_file_needs_a_frame(tmp_path: Path) -> None:
    values = volume(*SHAPE, 3)
    path = save(values, tmp_path / "series.nii.gz")
    assert volume_shape(path) == (*SHAPE, 3)
    np.testing.assert_array_equal(
        read_image(path, plane=Plane(axis=0, index=1, frame=2))[0][::-1, ::-1].T, values[1, :, :, 2]
    )
    with pytest.raises(UserError, match="3 images where one was expected"):
        read_image(path, plane=Plane(axis=0, index=1))


def test_one_slice_thick_is_two_dimensional(tmp_path: Path) -> None:
    for number, shape in enumerate([(4, 5), (4, 5, 1), (4, 5, 1, 1)]):
        values = volume(*shape)
        path = save(values, tmp_path / f"{number}.nii")
        np.testing.assert_array_equal(read_image(path)[0][::-1, ::-1].T, values.reshape(4, 5))
    assert count_channels(ImageSource(str(path))) == 1


def test_masks_are_cut_as_their_images(tmp_path: Path) -> None:
    inside = (volume() > 500).astype(np.uint8) * 2
    path = save(inside, tmp_path / "mask.nii.gz")
    mask = read_mask([path], shape=(6, 5), plane=Plane(axis=2, index=4))
    np.testing.assert_array_equal(mask[::-1, ::-1].T, inside[..., 4] > 0)


def test_a_volume_where_an_image_was_expected_is_refused(tmp_path: Path) -> None:
    path = save(volume(), tmp_path / "ct.nii")
    with pytest.raises(UserError, match=r"a volume of 5 x 6 x 7 where an image was expected .*--slices"):
        read_image(path)
    with pytest.raises(UserError, match="index 7 is not among 0 to 6"):
        read_image(path, plane=Plane(axis=2, index=7))
    with pytest.raises(UserError, match="more than the limit of 209"):
        read_image(path, plane=Plane(axis=2, index=0), reading=Reading(max_pixels=209))


def test_damage_is_refused_by_name(tmp_path: Path) -> None:
    whole = save(volume(40, 40, 40), tmp_path / "whole.nii.gz").read_bytes()
    for name, content in (("cut.nii.gz", whole[: len(whole) // 2]), ("text.nii", b"not a volume"), ("empty.nii", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            read_image(tmp_path / name, plane=Plane(axis=2, index=0))


def test_values_that_are_not_numbers_are_refused_or_replaced(tmp_path: Path) -> None:
    values = volume().astype(np.float32)
    values[2, 3, 4] = np.nan
    path = save(values, tmp_path / "nan.nii")
    with pytest.raises(UserError, match="1 pixels are not finite"):
        read_image(path, plane=Plane(axis=2, index=4))
    filled = read_image(path, plane=Plane(axis=2, index=4), reading=Reading(replace_nonfinite=-7.0))
    assert np.count_nonzero(filled == -7) == 1
    assert np.isfinite(filled).all()


def test_a_volume_of_colours_is_not_called_damaged(tmp_path: Path) -> None:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), kind), np.eye(4)), tmp_path / "rgb.nii")
    with pytest.raises(UserError, match="the volume holds colours") as caught:
        read_image(tmp_path / "rgb.nii", plane=Plane(axis=2, index=1))
    assert "damaged" not in str(caught.value)


def test_a_mask_that_lost_its_image_s_affine_is_not_mirrored_in_silence(tmp_path: Path) -> None:
    values, inside = np.full((16, 20, 4), 100, np.int16), np.zeros((16, 20, 4), np.uint8)
    values[2:6, 3:8], inside[2:6, 3:8] = 300, 1
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "image.nii")
    mask = nibabel.Nifti1Image(inside, affine)
    nibabel.save(mask, tmp_path / "same.nii")
    nibabel.save(nibabel.as_closest_canonical(mask), tmp_path / "turned.nii")  # type: ignore[no-untyped-call]
    nibabel.save(nibabel.Nifti1Image(inside, np.eye(4)), tmp_path / "lost.nii")
    source = ImageSource(str(tmp_path / "image.nii"), Plane(axis=2, index=1))

    def both(name: str) -> tuple[np.ndarray, np.ndarray]:
        return Job([source], [[("", str(tmp_path / name))]], (20, 16), 1, Reading(), 1).both(0)

    for name in ("same.nii", "turned.nii"):
        image, read = both(name)
        assert np.array_equal(image[0] > 200, read > 0)
    with pytest.raises(UserError, match="axes run otherwise"):
        both("lost.nii")


@pytest.mark.parametrize(("thick", "middle"), [(1.0, True), (999.0, False)], ids=["nothing said", "thick slices"])
def test_a_mask_is_not_mirrored_about_its_image_s_middle_nor_in_slices_as_thick_as_a_file_says(
    tmp_path: Path, thick: float, middle: bool
) -> None:
    affine = np.diag([1.0, 1.0, thick, 1.0])
    affine[:2, 3] = (-9.5, -7.5) if middle else (0, 0)
    inside = np.zeros((20, 16, 3), np.uint8)
    inside[2:6, 3:8] = 1
    nibabel.save(nibabel.Nifti1Image(inside, affine), tmp_path / "image.nii")
    nibabel.save(nibabel.Nifti1Image(inside, None if middle else np.diag([-1.0, 1, thick, 1])), tmp_path / "mask.nii")
    image, mask = str(tmp_path / "image.nii"), tmp_path / "mask.nii"
    with pytest.raises(UserError, match="axes run otherwise"):
        read_mask([mask], image=image, plane=Plane(axis=2, index=1))
    assert read_mask([image], image=image, plane=Plane(axis=2, index=1)).any()


def test_a_coarse_mask_in_another_order_of_axes_is_brought_to_its_image(tmp_path: Path) -> None:
    affine, inside = np.diag([-1.0, -1.0, 1.0, 1.0]), np.zeros((48, 64, 3), np.uint8)
    inside[8:24, 16:40] = 1
    nibabel.save(nibabel.Nifti1Image(inside, affine), tmp_path / "image.nii")
    coarse = affine @ np.diag([4.0, 4.0, 1.0, 1.0])
    coarse[:2, 3] = -1.5
    mask = nibabel.as_closest_canonical(nibabel.Nifti1Image(inside[::4, ::4], coarse))  # type: ignore[no-untyped-call]
    nibabel.save(mask, tmp_path / "mask.nii")
    plane, image = Plane(axis=2, index=1), str(tmp_path / "image.nii")
    right = read_mask([image], plane=plane)
    assert np.array_equal(read_mask([tmp_path / "mask.nii"], image=image, shape=right.shape, plane=plane), right)
