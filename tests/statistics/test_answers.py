"""The two rules by which a classifier answers, thresholds, and that both rules' figures are kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from msmae.errors import UserError
from msmae.statistics.answers import (
    OF_PROBABILITIES,
    check_threshold,
    name_classes,
    read_thresholds,
    say_averaged,
    say_rule,
    with_plain,
)
from msmae.statistics.summary import figures_by, summarise, with_both_rules

CLASSES = ("a", "b", "c")
SHARES = np.array([[0.5, 0.3, 0.2], [0.2, 0.45, 0.35], [0.1, 0.2, 0.7]])


def test_the_largest_probability_answers() -> None:
    assert name_classes(SHARES, CLASSES, multilabel=False) == ["a", "b", "c"]
    assert name_classes(np.array([[0.6, 0.7, 0.1], [0.1, 0.2, 0.3]]), CLASSES, multilabel=True) == ["a;b", ";"]


def test_a_class_is_answered_from_its_threshold() -> None:
    assert name_classes(SHARES, CLASSES, multilabel=False, thresholds={"b": 0.3}) == ["b", "b", "c"]
    assert name_classes(SHARES, CLASSES, multilabel=False, thresholds={"c": 0.9}) == ["a", "b", "b"]
    assert name_classes(SHARES, CLASSES, multilabel=False, thresholds={"b": 0.3, "c": 0.1}) == ["c", "c", "c"]
    assert name_classes(SHARES, CLASSES, multilabel=False, thresholds=dict.fromkeys(CLASSES, 0.99)) == ["a", "b", "c"]
    assert name_classes(SHARES[:1], CLASSES, multilabel=True, thresholds={"b": 0.3, "a": 0.6}) == ["b"]


@pytest.mark.parametrize("text", ["b", "b=much", "b=0", "b=1.5", "d=0.5", "", "b=0.3, d=0.5"])
def test_what_is_no_threshold_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        read_thresholds(text, CLASSES)


def test_thresholds_are_read() -> None:
    assert read_thresholds("b=0.3, c = 0.5", CLASSES) == {"b": 0.3, "c": 0.5}
    assert read_thresholds("none", CLASSES) == {}
    assert read_thresholds("x=y=0.5", ("x=y",)) == {"x=y": 0.5}
    assert read_thresholds("norm,al=0.3, b=0.5", ("norm,al", "b")) == {"norm,al": 0.3, "b": 0.5}


def test_both_rules_have_their_figures() -> None:
    generator = np.random.default_rng(0)
    shares = generator.dirichlet([6, 2, 2], size=120)
    truth = np.array([generator.choice(3, p=row) for row in shares])
    frame = pd.DataFrame(
        {
            "image_path": [f"{i}.png" for i in range(120)],
            "patient_id": "",
            "split": "test",
            "label": [CLASSES[t] for t in truth],
            "predicted": name_classes(shares / [6, 2, 2], CLASSES, multilabel=False),
            **{f"prob_{name}": shares[:, c] for c, name in enumerate(CLASSES)},
        }
    )
    both = with_plain(frame, CLASSES, multilabel=False)
    assert (both["predicted_plain"] == [CLASSES[c] for c in shares.argmax(axis=1)]).all()
    options = {"classes": CLASSES, "resamples": 50, "multilabel": False}
    balanced = summarise(frame, **options)
    splits = with_both_rules(balanced, both, **options)
    alone = summarise(frame.assign(predicted=both["predicted_plain"]), **options)["test"]
    assert splits["test"]["metrics"] == balanced["test"]["metrics"]
    plain = figures_by(splits["test"], "plain")
    assert plain["metrics"] == alone["metrics"]
    assert plain["per_class"] == alone["per_class"]
    assert plain["metrics"]["accuracy"]["value"] > balanced["test"]["metrics"]["accuracy"]["value"]
    assert figures_by(balanced["test"], "plain")["metrics"] == balanced["test"]["metrics"]


def test_what_an_answer_is_the_mean_of() -> None:
    told = [say_averaged(models, mirrored=mirrored) for models in (1, 5) for mirrored in (False, True)]
    assert [("5 models" in text, "mirror" in text) for text in told] == [
        (several, mirrored) for several in (False, True) for mirrored in (False, True)
    ]
    assert told[0] == ""


def test_thresholds_are_told_with_the_rule_that_uses_them() -> None:
    assert say_rule("plain", {"ill": 0.3}) == "plain; ill from 0.3"
    assert say_rule("balanced", {"ill": 0.3}) == "balanced"
    assert say_rule("plain", {}) == "plain"


def test_a_half_is_no_label_and_a_threshold_that_is_reached_is() -> None:
    rows = np.array([[0.5, 0.5 + 1e-9, 0.3], [0.2, 0.1, 0.3 - 1e-9], [0.6, 0.7, 0.8]])
    assert name_classes(rows, CLASSES, multilabel=True) == ["b", ";", "a;b;c"]
    assert name_classes(rows, CLASSES, multilabel=True, thresholds={"c": 0.3, "a": 0.5}) == ["a;b;c", ";", "a;b;c"]
    assert name_classes(rows, CLASSES, multilabel=True, thresholds={"b": 0.9}) == [";", ";", "a;c"]
    assert name_classes(rows[:0], CLASSES, multilabel=True) == []


def test_of_the_classes_that_reach_their_threshold_the_one_that_exceeds_it_most() -> None:
    row = np.array([[0.5, 0.3, 0.2]])
    for thresholds, answer in (
        ({"b": 0.3}, "b"),  # reached exactly
        ({"b": 0.3 + 1e-9}, "a"),
        ({"b": 0.2, "c": 0.1}, "c"),  # 1.5 and 2 times
        ({"a": 0.25, "c": 0.1}, "a"),  # both 2 times: the first
        ({"a": 0.6}, "b"),  # without a threshold the likeliest of the others
        ({"a": 0.6, "b": 0.4}, "c"),
        ({"a": 0.6, "b": 0.4, "c": 0.3}, "a"),  # none is reached: the likeliest of all
        ({"a": 0.6, "b": 0.4, "c": 0.2}, "c"),
        ({}, "a"),
        (None, "a"),
    ):
        assert name_classes(row, CLASSES, multilabel=False, thresholds=thresholds) == [answer], thresholds
    ties = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    assert name_classes(ties, CLASSES, multilabel=False) == ["a", "b"]
    with pytest.raises(UserError, match="no class 'd'"):
        name_classes(row, CLASSES, multilabel=False, thresholds={"d": 0.5})


def test_a_threshold_is_above_0_and_at_most_1() -> None:
    assert (check_threshold("a", 1), check_threshold("a", 1e-9)) == (1.0, 1e-9)
    assert type(check_threshold("a", 1)) is float
    for wrong in (0, -0.1, 1 + 1e-9, float("nan")):
        with pytest.raises(UserError, match="the threshold of a is"):
            check_threshold("a", wrong)
        with pytest.raises(UserError, match="the threshold of a is"):
            name_classes(SHARES, CLASSES, multilabel=False, thresholds={"a": wrong})


def test_names_with_signs_of_their_own_are_read_and_blanks_are_not() -> None:
    names = ("a+b", "c (left), d", "e=f", "g")
    assert read_thresholds(" a+b = 0.3,c (left), d=0.25,e=f=1 , g=.5", names) == {
        "a+b": 0.3, "c (left), d": 0.25, "e=f": 1.0, "g": 0.5
    }  # fmt: skip
    assert read_thresholds(" none ", names) == {}
    assert read_thresholds("g=0.2,g=0.4", names) == {"g": 0.4}
    with pytest.raises(UserError, match="no class 'aab'"):
        read_thresholds("aab=0.5", names)
    with pytest.raises(UserError, match="is no threshold"):
        read_thresholds("g", names)


def test_plain_answers_stand_beside_the_others() -> None:
    frame = pd.DataFrame(SHARES, columns=["prob_a", "prob_b", "prob_c"]).assign(predicted=["c", "c", "c"])
    for thresholds, plain in ((None, ["a", "b", "c"]), ({"b": 0.3}, ["b", "b", "c"])):
        found = with_plain(frame, CLASSES, multilabel=False, thresholds=thresholds)
        assert found["predicted_plain"].tolist() == plain
        assert found["answers"].tolist() == ["balanced"] * 3
        assert found[list(frame)].equals(frame)
    turned = with_plain(frame, ("c", "b", "a"), multilabel=False)
    assert turned["predicted_plain"].tolist() == ["a", "b", "c"]
    assert with_plain(frame, CLASSES, multilabel=True)["predicted_plain"].tolist() == [";", ";", "c"]
    assert {"auroc", "brier", "n"} <= OF_PROBABILITIES
    assert not {"accuracy", "sensitivity", "f1"} & OF_PROBABILITIES


def test_a_rule_and_a_mean_in_words() -> None:
    assert say_rule("plain", {"ill": 0.3, "b": 1.0}) == "plain; ill from 0.3, b from 1"
    assert say_rule("plain") == "plain"
    assert [say_averaged(models, mirrored=mirrored) for models in (1, 2) for mirrored in (False, True)] == [
        "", "mean over image and mirror image", "mean of 2 models", "mean of 2 models and image and mirror image"
    ]  # fmt: skip
