"""Whether something beside the tissue gives a class, or a split, away: size, borders, burned-in marks, the device.

Each trait is put to the test: a small decision tree sees nothing but that trait and guesses the class, cross-validated
with whole groups. Where it guesses better than chance, a network can too, and need not look at the tissue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mode

import numpy as np

from msmae.data.audit.fingerprints import Fingerprints
from msmae.data.manifest import Manifest

FOLDS = 5
LEAVES = 8  # of a tree: enough for a few thresholds, too few to learn single images
WORTH_SAYING = 0.2  # skill from which a trait is reported: 0 is guessing, 1 is knowing
SURE = 3.0  # standard errors above guessing
SMALLEST = 2 * FOLDS  # groups of a class below which it is left out
FREQUENT = 50  # categories of a trait that are told apart; rarer ones are one


@dataclass(frozen=True)
class Trait:
    """Something measured of every image: ``values`` float64 [n, k], and how those of some images are said in words."""

    name: str
    values: np.ndarray
    say: Callable[[np.ndarray], str]
    """Takes the images' rows (bool [n]) and gives their usual value."""


@dataclass(frozen=True)
class Shortcut:
    """``trait`` alone tells ``target`` (``class`` or ``split``) with this cross-validated ``balanced_accuracy``.

    ``guessing`` is what chance would reach; ``typical`` the trait's usual value in each class or split, in words.
    """

    trait: str
    target: str
    balanced_accuracy: float
    guessing: float
    typical: dict[str, str]

    def __str__(self) -> str:
        usual = ", ".join(f"{name} {value}" for name, value in self.typical.items())
        return (
            f"the {self.trait} alone predicts the {self.target} (balanced accuracy {self.balanced_accuracy:.2f}, "
            f"chance {self.guessing:.2f}): {usual}"
        )


def find_shortcuts(manifest: Manifest, prints: Fingerprints, groups: np.ndarray) -> tuple[Shortcut, ...]:
    """The traits that give the class or the test split away; images of a group (int64 [n]) are guessed together.

    Unreadable images, images of one colour and classes of fewer than ``SMALLEST`` groups are left out; the classes of
    multi-label data are not looked at, only the split.
    """
    usable = prints.readable & ~prints.record["constant"]
    labels = manifest.table["label"].to_numpy()
    splits = np.where(manifest.table["split"] == "test", "test", "not test").astype(object)
    labelled = usable & (labels != "") & (not manifest.multilabel)
    traits = measure_traits(manifest, prints)
    found = []
    for target, names, rows in (("class", labels, labelled), ("split", splits, usable)):
        rows = _enough(names, groups, rows)
        if len(set(names[rows])) < 2:
            continue
        parts = _parts(names, groups, rows)
        for trait in traits:
            if np.ptp(trait.values[rows], axis=0).any():
                shortcut = _put_to_test(trait, target, names, groups, rows, parts)
                found += [shortcut] if shortcut else []
    return tuple(found)


def measure_traits(manifest: Manifest, prints: Fingerprints) -> list[Trait]:
    """What is known of each image beside its content, from its fingerprint and the manifest."""
    record = prints.record
    frame = record["borders"].sum(axis=1) / 2  # [n], the mean of both directions
    look = [
        f"{channels} x {numbers}{', colour' if colour else ', grey'}"
        for channels, numbers, colour in zip(record["channels"], record["numbers"], record["colour"], strict=True)
    ]
    made = record["acquisition"].tolist()
    return [
        Trait("size", _columns(record["height"], record["width"]), lambda rows: _median_size(record[rows])),
        _categories("pixel format", look),
        _categories("file format", [text.partition(" ")[0] for text in made]),
        _categories("device", made),
        _number("JPEG compression", record["coarseness"], "quantisation sum {:.0f}"),
        Trait(
            "border", record["borders"].astype(np.float64), lambda rows: f"{100 * frame[rows].mean():.1f} % empty rim"
        ),
        _number("brightness of the corners", record["corners"], "at {:.4g}"),
        Trait(
            "amount of marks at the edges",
            _columns(record["marks"]),
            lambda rows: f"{100 * record['marks'][rows].mean():.2f} % sharp steps",
        ),
        _categories("site", manifest.table["site"].tolist()),
    ]


def _parts(names: np.ndarray, groups: np.ndarray, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The folds in which every trait is put to test: what is learned from and what is guessed, among ``rows``."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    return list(folds.split(np.zeros(int(rows.sum())), names[rows].astype(str), groups[rows]))


def _put_to_test(
    trait: Trait,
    target: str,
    names: np.ndarray,
    groups: np.ndarray,
    rows: np.ndarray,
    parts: list[tuple[np.ndarray, np.ndarray]],
) -> Shortcut | None:
    """Guess the ``names`` of ``rows`` (bool [n]) from the trait; None where that is hardly better than chance."""
    from sklearn.model_selection import cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    classes, truth = np.unique(names[rows].astype(str), return_inverse=True)
    tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES, min_samples_leaf=5, class_weight="balanced", random_state=0)
    guessed = cross_val_predict(tree, trait.values[rows], truth, cv=parts)
    recall = np.array([(guessed[truth == c] == c).mean() for c in range(len(classes))])
    number = np.array([len(np.unique(groups[rows][truth == c])) for c in range(len(classes))])
    accuracy, guessing = float(recall.mean()), 1 / len(classes)
    error = np.sqrt((guessing * (1 - guessing) / number).sum()) / len(classes)  # of what guesses
    if accuracy - guessing < max(WORTH_SAYING * (1 - guessing), SURE * error):
        return None
    typical = {name: trait.say(rows & (names == name)) for name in classes.tolist()}
    return Shortcut(trait.name, target, round(accuracy, 4), round(guessing, 4), typical)


def _enough(names: np.ndarray, groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``rows`` without those whose class has too few groups to be cross-validated."""
    of_class: dict[str, set[int]] = {}
    for name, group in zip(names[rows], groups[rows], strict=True):
        of_class.setdefault(name, set()).add(group)
    return np.asarray(rows & [len(of_class.get(name, ())) >= SMALLEST for name in names])


def _categories(name: str, words: list[str]) -> Trait:
    """A trait with one column for each of its frequent categories; its usual value is the commonest."""
    cells = np.array(words, dtype=object)
    frequent = [word for word, _ in Counter(words).most_common(FREQUENT)]
    values = np.stack([cells == word for word in frequent], axis=1).astype(np.float64)
    return Trait(name, values, lambda rows: mode(cells[rows].tolist()) or "(not said)")


def _number(name: str, values: np.ndarray, words: str) -> Trait:
    return Trait(name, _columns(values), lambda rows: words.format(float(np.median(values[rows]))))


def _columns(*values: np.ndarray) -> np.ndarray:
    return np.stack(values, axis=1).astype(np.float64)


def _median_size(record: np.ndarray) -> str:
    return f"{np.median(record['height']):.0f} x {np.median(record['width']):.0f}"
