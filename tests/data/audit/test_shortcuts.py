"""Traits of an image that give its class away without showing disease."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from test_audit import different, manifest_of, save, texture

from msmae.data.audit import audit, list_warnings, shortcuts, take_fingerprints
from msmae.data.audit import fingerprints as traits
from msmae.data.audit.shortcuts import find_shortcuts
from msmae.data.tables.layouts import open_dataset


def test_traits_of_a_frame_with_a_letter_in_its_corner() -> None:
    plane = np.zeros((100, 200), np.float32)
    plane[10:80, 30:200] = np.random.default_rng(0).uniform(50, 100, (70, 170))
    assert np.allclose(traits.borders(plane), (0.1, 0.2, 0.15, 0))
    assert traits.borders(np.ones((4, 4), np.float32)) == (1, 1, 1, 1)
    assert traits.corner_level(plane) == 0
    assert traits.corner_level(255 - plane) == 255
    letter = Image.fromarray(plane).convert("L")
    ImageDraw.Draw(letter).text((4, 1), "R", fill=255)
    quiet, marked = (traits.mark_share(seen, span=255.0) for seen in (plane, np.asarray(letter, np.float32)))
    assert marked > quiet
    assert traits.mark_share(np.ones((4, 4), np.float32), span=0.0) == 0


def test_a_bright_lesion_in_the_middle_is_no_shortcut_of_corners_and_edges(tmp_path: Path) -> None:
    """It widens the image's range: as shares of that, corners had looked darker, and edges smoother, than they were."""
    for number in range(60):
        pixels = np.random.default_rng(number).normal(128, 12, (48, 48)).clip(60, 190)
        pixels[18:30, 18:30] = 250 if number % 2 else 120
        save(tmp_path / ("lesion" if number % 2 else "healthy") / f"{number}.png", pixels.astype(np.uint8))
    manifest = open_dataset(tmp_path)
    found = find_shortcuts(manifest, take_fingerprints(manifest), np.arange(60))
    assert [shortcut.trait for shortcut in found] == []


def test_how_an_image_was_made_is_read_from_its_file(tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    for quality in (50, 75, 95):
        save(tmp_path / f"{quality}.jpg", texture(0), quality=quality)
    sums = [traits.acquisition(str(tmp_path / f"{quality}.jpg")) for quality in (50, 75, 95)]
    assert [kind for kind, _ in sums] == ["JPEG"] * 3
    with Image.open(tmp_path / "75.jpg") as image:
        assert sums[1][1] == sum(image.quantization[0])
    assert sums[0][1] > sums[1][1] > sums[2][1] > 64
    save(tmp_path / "a.png", texture(0))
    assert traits.acquisition(str(tmp_path / "a.png")) == ("PNG", 0)
    made = [traits.acquisition(str(get_testdata_file(name)))[0] for name in ("CT_small.dcm", "MR_small.dcm")]
    assert made[0].startswith("DICOM ")
    assert made[0] == traits.acquisition(str(get_testdata_file("CT_small.dcm")))[0] != made[1]
    assert "GE" not in made[0]  # a number for the device: what a header holds is not kept


def with_letter(pixels: np.ndarray) -> np.ndarray:
    """The picture with an L burned into its upper left corner, as on X-rays."""
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).rectangle((0, 0, 9, 11), fill=0)
    ImageDraw.Draw(picture).text((2, 0), "L", fill=255)
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("trait", "spoil"),
    [
        ("size", lambda pixels: pixels[:-4]),
        ("border", lambda pixels: np.pad(pixels[6:], ((6, 0), (0, 0)))),
        ("amount of marks at the edges", lambda pixels: with_letter(pixels)),
        ("pixel format", lambda pixels: np.stack([pixels, pixels, 255 - pixels], axis=-1)),
    ],
)
def test_a_trait_that_gives_the_class_away_is_named(tmp_path: Path, trait: str, spoil: Any) -> None:
    for i in range(40):
        save(tmp_path / f"clean/{'ab'[i % 2]}/{i}.png", texture(i))
        save(tmp_path / f"spoilt/{'ab'[i % 2]}/{i}.png", spoil(texture(i)) if i % 2 else texture(i))
    assert audit(open_dataset(tmp_path / "clean")).shortcuts == ()
    found = audit(open_dataset(tmp_path / "spoilt"))
    told = {shortcut.trait: shortcut for shortcut in found.shortcuts}
    assert told[trait].balanced_accuracy > 0.9
    assert told[trait].guessing == 0.5
    assert told[trait].target == "class"
    assert any(trait in line for line in list_warnings(found))


def test_a_site_that_tells_the_split_is_named() -> None:
    rows = [
        {"image_path": f"{i}.png", "label": "ab"[i % 2], "split": "test" if i < 30 else "train",
         "site": "north" if i < 27 else "south"} for i in range(80)
    ]  # fmt: skip
    found = audit(manifest_of(rows), prints=different(80))
    shortcuts = found.shortcuts
    assert [(shortcut.trait, shortcut.target) for shortcut in shortcuts] == [("site", "split")]
    assert shortcuts[0].typical == {"not test": "south", "test": "north"}
    (told,) = found.to_dict()["shortcuts"]
    sentence = "the site alone predicts the split (balanced accuracy 0.95, chance 0.50): not test south, test north"
    assert told == {**vars(shortcuts[0]), "sentence": sentence}


def test_a_trait_that_few_images_show_is_not_called_a_shortcut() -> None:
    """Twelve images of a class are too few to tell 0.75 from chance; of two hundred the same share is told."""

    def told(images: int, wrong: float = 0.25) -> list[str]:
        rows = [
            {"image_path": f"{i}.png", "label": "ab"[i % 2], "split": "train",
             "site": "ns"[(i % 2) ^ (i // 2 * 9 % 20 < 20 * wrong)]} for i in range(images)
        ]  # fmt: skip
        return [shortcut.trait for shortcut in audit(manifest_of(rows), prints=different(images)).shortcuts]

    assert told(24) == []
    assert told(400) == ["site"]
    assert told(1600, wrong=0.45) == []  # 0.55 is surely more than chance, and hardly worth saying
    assert told(1600, wrong=0.35) == ["site"]


@pytest.mark.parametrize(("images", "classes"), [(40, 2), (60, 4)])
def test_chance_alone_is_rarely_called_a_shortcut(images: int, classes: int) -> None:
    """At most one in a hundred traits that mean nothing; 60 draws would hold more than three in 0.3 % of the cases."""
    names = np.array([f"class {image % classes}" for image in range(images)], dtype=object)
    groups, every, alarms = np.arange(images), np.ones(images, dtype=bool), 0
    parts = shortcuts._parts(names, groups, every)
    for seed in range(60):
        trait = shortcuts.Trait("x", np.random.default_rng(seed).normal(size=(images, 2)), lambda rows: "")
        alarms += shortcuts._put_to_test(trait, "class", names, groups, every, parts) is not None
    assert alarms <= 3


def test_what_tells_patients_apart_is_not_what_tells_classes_apart() -> None:
    """Each patient has a brightness of his own: a tree that knew his other images would guess his class from it."""
    patients = np.repeat(np.arange(40), 6)
    names = np.array([f"class {patient % 2}" for patient in patients], dtype=object)
    own = np.random.default_rng(0).permutation(40)[patients][:, None].astype(float)
    trait = shortcuts.Trait("x", own, lambda rows: "")
    every = np.ones(240, dtype=bool)
    parts = shortcuts._parts(names, patients, every)
    again = shortcuts._parts(names, patients, every)
    assert len(parts) == 5
    assert all(np.array_equal(*rows) for part in zip(parts, again, strict=True) for rows in zip(*part, strict=True))
    for learned, guessed in parts:
        assert not set(patients[learned]) & set(patients[guessed])
    assert sorted(np.concatenate([guessed for _, guessed in parts]).tolist()) == list(range(240))
    assert shortcuts._put_to_test(trait, "class", names, patients, every, parts) is None


def test_few_patients_are_no_certainty_however_many_their_images() -> None:
    """Three in four of 24 patients are guessed: chance does that now and then, also with 50 images of each."""

    def told(patients: int, images: int) -> bool:
        group = np.repeat(np.arange(2 * patients), images)
        names = np.array([f"class {one % 2}" for one in group], dtype=object)
        shown = (group % 2) ^ (group // 2 % 4 == 0)
        trait = shortcuts.Trait("x", shown[:, None].astype(float), lambda rows: "")
        every = np.ones(len(group), dtype=bool)
        parts = shortcuts._parts(names, group, every)
        return shortcuts._put_to_test(trait, "class", names, group, every, parts) is not None

    assert not told(12, 50)
    assert told(200, 3)


def test_images_without_a_label_of_one_colour_or_unreadable_are_not_guessed() -> None:
    """Thirty rows: a and b, told apart by their site, and ten without a label."""
    rows = [
        {"image_path": f"{i}.png", "label": ("a", "b", "")[i % 3], "split": "train", "site": "nsn"[i % 3]}
        for i in range(30)
    ]
    prints = different(30)
    (found,) = find_shortcuts(manifest_of(rows), prints, np.arange(30))
    assert (found.guessing, found.balanced_accuracy, found.typical) == (0.5, 1, {"a": "n", "b": "s"})
    prints.record["constant"][0] = True  # nine are left
    assert find_shortcuts(manifest_of(rows), prints, np.arange(30)) == ()
    prints.record["constant"][0] = False
    prints.problems[3] = "damaged"
    assert find_shortcuts(manifest_of(rows), prints, np.arange(30)) == ()


def test_eight_stretches_of_a_trait_are_learned_and_not_more() -> None:
    """The classes take turns along it: a tree with enough leaves would know every stretch of any number."""
    images = np.arange(600)

    def accuracy(stretches: int) -> float:
        names = np.array([f"class {image * stretches // 600 % 2}" for image in images], dtype=object)
        trait, every = shortcuts.Trait("x", images[:, None].astype(float), lambda rows: ""), images >= 0
        parts = shortcuts._parts(names, images, every)
        found = shortcuts._put_to_test(trait, "class", names, images, every, parts)
        return found.balanced_accuracy if found else 0.5

    assert accuracy(8) > 0.95
    assert accuracy(9) < 0.95
    assert accuracy(50) == 0.5


@pytest.mark.parametrize(("shown", "told"), [(4, False), (5, True)])
def test_what_four_images_show_is_not_learned(shown: int, told: bool) -> None:
    """Half of the images are learned from: as many of each class, and all of one class show the trait."""
    number = 4 * shown
    names = np.array(["ab"[image % 2] for image in range(number)], dtype=object)
    trait = shortcuts.Trait("x", (np.arange(number) % 2)[:, None].astype(float), lambda rows: "")
    half = np.arange(number) < 2 * shown
    parts = [(np.flatnonzero(half), np.flatnonzero(~half)), (np.flatnonzero(~half), np.flatnonzero(half))]
    every = np.ones(number, dtype=bool)
    assert (shortcuts._put_to_test(trait, "class", names, np.arange(number), every, parts) is not None) == told


@pytest.mark.parametrize(("times", "told"), [(1, None), (2, (0.5333, 0.3333))])
def test_certainty_is_of_the_patients_of_each_class(times: int, told: tuple[float, float] | None) -> None:
    """Eight in ten of a show the trait, and two in ten of c: (0.8 + 0 + 0.8) / 3 is no certainty of ten a class."""
    images = np.arange(30 * times)
    names = np.array(["abc"[image % 3] for image in images], dtype=object)
    shows = np.array([image // 3 % 5 < (4, 2, 1)[image % 3] for image in images])
    trait = shortcuts.Trait("x", shows[:, None].astype(float), lambda rows: "")
    half = images < 15 * times
    parts = [(np.flatnonzero(half), np.flatnonzero(~half)), (np.flatnonzero(~half), np.flatnonzero(half))]
    found = shortcuts._put_to_test(trait, "class", names, images, images >= 0, parts)
    assert (found and (found.balanced_accuracy, found.guessing)) == told


def test_a_rare_class_weighs_as_much_as_a_frequent_one() -> None:
    """All twenty of a show the trait, and thirty of sixty of b: whoever counts images says b of all of them."""
    names = np.array(["a" if image % 4 == 0 else "b" for image in range(80)], dtype=object)
    shows = np.array([image % 4 == 0 or image // 4 % 2 == 0 for image in range(80)])
    trait = shortcuts.Trait("x", shows[:, None].astype(float), lambda rows: "")
    every = np.ones(80, dtype=bool)
    parts = shortcuts._parts(names, np.arange(80), every)
    found = shortcuts._put_to_test(trait, "class", names, np.arange(80), every, parts)
    assert found is not None
    assert found.balanced_accuracy == 0.75


@pytest.mark.parametrize(("each", "named"), [(9, []), (10, ["site"])])
def test_a_class_needs_ten_patients_to_be_guessed(each: int, named: list[str]) -> None:
    rows = [
        {"image_path": f"{i}.png", "label": "ab"[i % 2], "split": "train", "site": "ns"[i % 2]} for i in range(2 * each)
    ]
    found = audit(manifest_of(rows), prints=different(2 * each)).shortcuts
    assert [shortcut.trait for shortcut in found if shortcut.target == "class"] == named
