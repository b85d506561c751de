"""Traits of an image by hand: how large its corners and margins are, what a mark is, which format a file has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msmae.data.audit.traits import acquisition, borders, corner_level, mark_share


@pytest.mark.parametrize(("side", "corner"), [(32, 2), (47, 2), (48, 3), (15, 1)])
def test_a_corner_is_a_sixteenth_of_each_side(side: int, corner: int) -> None:
    plane = np.full((side, side + 16), 50, np.float32)
    plane[side // 2, :2] = 0, 100
    wide = (side + 16) // 16
    for rows in (slice(corner), slice(-corner, None)):
        plane[rows, :wide] = plane[rows, -wide:] = 80
    assert corner_level(plane) == pytest.approx(80)
    if corner > 1:
        outermost = plane.copy()
        outermost[[0, 0, -1, -1], [0, -1, 0, -1]] = 0
        assert corner_level(outermost) == pytest.approx(80)
    plane[:corner, :wide] = plane[-corner:, :wide] = 20  # two of four: the median is in the middle
    assert corner_level(plane) == pytest.approx(50)
    inside = np.pad(np.full((side - 2 * corner, side + 16 - 2 * wide), 100, np.float32), ((corner,) * 2, (wide,) * 2))
    assert corner_level(inside) == 0
    assert corner_level(np.ones((4, 4), np.float32)) == 1


@pytest.mark.parametrize(("side", "rim"), [(32, 4), (39, 4), (40, 5), (7, 1)])
def test_marks_are_steps_of_half_the_range_within_an_eighth_of_each_side(side: int, rim: int) -> None:
    def marked(row: int, column: int, value: float) -> float:
        plane = np.zeros((side, side + 8), np.float32)
        plane[side // 2, side // 2] = 100
        plane[row, column] = value
        return mark_share(plane, span=100.0) * (plane.size - (side - 2 * rim) * (side + 8 - 2 * ((side + 8) // 8)))

    middle, last = side // 2 + 2, side + 7
    for row, column in ((rim - 1, middle), (side - rim, middle), (0, middle)):
        assert marked(row, column, 50) == pytest.approx(2)  # up and down again
        assert marked(row, column, 49) == 0
    assert marked(middle, 0, 50) == marked(middle, last, 50) == pytest.approx(1 if side > 7 else 0)
    assert marked(rim, middle, 100) == marked(side - rim - 1, middle, 100) == 0
    assert mark_share(np.ones((4, 4), np.float32), span=0.0) == 0


def test_a_border_spans_no_more_than_a_fiftieth_of_the_range() -> None:
    plane = 100 * (np.indices((20, 10)).sum(axis=0) % 2).astype(np.float32)
    plane[:3] = plane[-5:] = 0
    plane[1, 4], plane[-2, 5] = 2, 2
    assert borders(plane) == (3 / 20, 5 / 20, 0, 0)
    assert borders(plane.T) == (0, 0, 3 / 20, 5 / 20)
    plane[1, 4] = 2.1
    assert borders(plane)[0] == borders(plane + 1000)[0] == 1 / 20


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("PNG", "png"), ("JPEG", "jpg"), ("BMP", "bmp"), ("GIF", "gif"), ("WebP", "webp"), ("TIFF", "tif")],
)
def test_a_format_is_told_by_its_first_bytes_and_not_by_its_name(kind: str, ending: str, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 3).save(tmp_path / f"a.{ending}")
    (tmp_path / "a.png").write_bytes((tmp_path / f"a.{ending}").read_bytes())
    told, coarseness = acquisition(str(tmp_path / "a.png"))
    assert told == kind
    assert (coarseness > 64) == (kind == "JPEG")


@pytest.mark.parametrize(("head", "kind"), [(b"II+\0", "TIFF"), (b"MM\0*", "TIFF"), (b"MM\0+", "TIFF"), (b"", "ODD")])
def test_other_tiffs_and_unknown_files(head: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.odd").write_bytes(head + bytes(8))
    assert acquisition(str(tmp_path / "a.odd")) == (kind, 0)


def test_jpegs_table_of_one_or_two_bytes_is_summed_wherever_it_stands(tmp_path: Path) -> None:
    comment = b"\xff\xfe\x01\x05" + bytes(0x103)
    tables = (
        (b"\xff\xdb\x00\x43\x01" + bytes(range(1, 65)) + b"\xff" * 99, 2080),  # the table's number is no width
        (b"\xff\xdb\x00\x83\x10" + b"\x01\x02" * 64 + b"\xff" * 99, 64 * 258),
        (b"\xff\xdb\x00\x43\x00" + bytes(range(1, 65)), 2080),
        (b"\xff\xdb\x00\x83\x10" + b"\x01\x02" * 64, 64 * 258),
        (b"", 0),
        (b"\x00" + b"\xff\xdb\x00\x43\x00" + bytes(range(1, 65)), 0),  # no marker follows the last one
    )
    for table, total in tables:
        (tmp_path / "a.jpg").write_bytes(b"\xff\xd8" + comment + table)
        assert acquisition(str(tmp_path / "a.jpg")) == ("JPEG", total)


@pytest.mark.parametrize(("before", "total"), [(3, 2080), (4, 0)])
def test_jpegs_table_is_looked_for_in_the_first_128_kib(before: int, total: int, tmp_path: Path) -> None:
    comments = (b"\xff\xfe" + (40_000).to_bytes(2, "big") + bytes(39_998)) * before
    table = b"\xff\xdb\x00\x43\x00" + bytes(range(1, 65))
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8" + comments + table)
    assert acquisition(str(tmp_path / "a.jpg")) == ("JPEG", total)
