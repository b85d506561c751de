"""The two rules by which a classifier answers, thresholds, and that both rules' figures are kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from msmae.errors import UserError
from msmae.statistics.answers import name_classes, read_thresholds, say_averaged, say_rule, with_plain
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
