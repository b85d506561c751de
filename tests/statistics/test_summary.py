"""The `splits` part of metrics.json: the contract, and a clear statement instead of a number that only looks fine."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from msmae.errors import UserError
from msmae.statistics.intervals import clopper_pearson, wilson
from msmae.statistics.summary import summarise
from simulated import as_frame, draw, of

CLASSES = ("c0", "c1", "c2")


def several_images_each(patients: int = 40, seed: int = 0) -> pd.DataFrame:
    return as_frame(draw(np.random.default_rng(seed), patients=patients, images_each=3, classes=3))


def entries(summary: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    flat = list(summary["metrics"].items())
    for label, numbers in summary["per_class"].items():
        flat += [(f"{label} {name}", number) for name, number in numbers.items() if name != "n"]
    return flat


def test_the_contract_holds_for_validation_and_test() -> None:
    generator = np.random.default_rng(1)
    test = as_frame(draw(generator, patients=50, images_each=2, classes=3))
    val = as_frame(draw(generator, patients=20, classes=3), split="val")
    splits = summarise(pd.concat([val, test]), classes=CLASSES, resamples=200)
    assert list(splits) == ["test", "val"]
    assert (splits["test"]["n"], splits["test"]["patients"]) == (100, 50)
    assert (splits["val"]["n"], splits["val"]["patients"]) == (20, 20)
    wanted = {"accuracy", "balanced_accuracy", "auroc", "auprc", "f1_macro", "mcc", "kappa", "brier", "ece", "log_loss"}
    assert wanted <= set(splits["test"]["metrics"])
    assert list(splits["test"]["per_class"]) == list(CLASSES)
    assert json.loads(json.dumps(splits, allow_nan=False)) == splits
    for name, entry in entries(splits["test"]):
        assert entry["value"] is not None, name
        assert entry["low"] <= entry["value"] <= entry["high"], name
        assert math.isfinite(entry["high"]), name


def test_the_same_seed_gives_the_same_numbers_whatever_the_order_of_the_rows() -> None:
    frame = several_images_each()
    once = summarise(frame, classes=CLASSES, resamples=100, seed=3)
    again = summarise(frame.sample(frac=1, random_state=9), classes=CLASSES, resamples=100, seed=3)
    other = summarise(frame, classes=CLASSES, resamples=100, seed=4)
    assert once["test"]["metrics"]["auroc"] == pytest.approx(again["test"]["metrics"]["auroc"], abs=1e-12)
    assert once["test"]["metrics"]["auroc"]["low"] != other["test"]["metrics"]["auroc"]["low"]


def test_a_proportion_is_exact_without_clusters_and_bootstrapped_with_them() -> None:
    single = summarise(several_images_each().drop_duplicates("patient_id"), classes=CLASSES, resamples=100)["test"]
    entry, right = single["metrics"]["accuracy"], round(40 * single["metrics"]["accuracy"]["value"])
    expected = wilson(right, 40)
    assert (entry["low"], entry["high"], entry["method"]) == (expected.low, expected.high, "wilson")
    clustered = summarise(several_images_each(), classes=CLASSES, resamples=100)["test"]
    assert clustered["metrics"]["accuracy"]["method"] == "bca"


def test_a_perfect_score_has_an_honest_interval_or_says_that_it_has_none() -> None:
    label = np.repeat([0, 1], 12)
    perfect = of(label, np.stack([1 - label * 0.8 - 0.1, label * 0.8 + 0.1], axis=1), patients=np.arange(24) // 2)
    metrics = summarise(as_frame(perfect), classes=("c0", "c1"), resamples=100)["test"]["metrics"]
    patients = clopper_pearson(12, 12)
    assert (metrics["accuracy"]["low"], metrics["accuracy"]["high"]) == (patients.low, 1.0)
    assert metrics["auroc"]["value"] == 1.0
    assert 0.3 < metrics["auroc"]["low"] < 0.6  # six disjoint pairs of patients say no more
    for name in ("kappa", "mcc", "f1_macro"):
        assert (metrics[name]["value"], metrics[name]["low"], metrics[name]["high"]) == (1.0, None, None)
        assert "every resample gives the same value" in metrics[name]["reason"]


def test_an_absent_class_is_null_with_the_reason_and_a_note() -> None:
    frame = several_images_each()
    frame = frame[frame["label"] != "c0"]
    summary = summarise(frame, classes=CLASSES, resamples=100)["test"]
    absent = summary["per_class"]["c0"]
    assert absent["n"] == 0
    for name in ("auroc", "sensitivity", "f1", "calibration_slope"):
        assert absent[name]["value"] is None, name
        assert absent[name]["reason"], name
    assert "no image has this class" in absent["auroc"]["reason"]
    present = [summary["per_class"][label]["auroc"]["value"] for label in ("c1", "c2")]
    assert summary["metrics"]["auroc"]["value"] == pytest.approx(np.mean(present))
    assert "no image of c0: means over classes are over the other classes" in summary["notes"]


def test_of_a_single_class_no_figure_is_given_that_compares_classes() -> None:
    frame = several_images_each()
    summary = summarise(frame[frame["label"] == "c1"], classes=CLASSES, resamples=100)["test"]
    metrics = summary["metrics"]
    assert {name for name, entry in metrics.items() if entry["value"] is not None} == {
        "accuracy", "brier", "log_loss", "ece",
    }  # fmt: skip
    assert metrics["balanced_accuracy"]["reason"] == "every image is of one class, c1"
    assert summary["per_class"]["c1"]["sensitivity"]["value"] == metrics["accuracy"]["value"]
    assert any("every image is of one class, c1" in note for note in summary["notes"])
    several = summarise(frame.assign(label="c1;"), classes=CLASSES, resamples=50, multilabel=True)["test"]
    assert several["metrics"]["accuracy_labelwise"]["value"] is not None


def test_a_label_never_predicted_is_said() -> None:
    frame = several_images_each()
    frame["predicted"] = "c2"
    summary = summarise(frame, classes=CLASSES, resamples=100)["test"]
    assert "never predicted: c0, c1" in summary["notes"]
    assert summary["per_class"]["c0"]["ppv"]["value"] is None
    assert "no image is predicted to have this class" in summary["per_class"]["c0"]["ppv"]["reason"]
    assert summary["metrics"]["mcc"]["value"] is None


@pytest.mark.parametrize("images", [1, 5])
def test_one_patient_gets_values_but_no_interval(images: int) -> None:
    frame = several_images_each().iloc[:images].assign(patient_id="only")
    summary = summarise(frame, classes=CLASSES)["test"]
    assert (summary["n"], summary["patients"], summary["resamples"]) == (images, 1, 0)
    assert summary["metrics"]["accuracy"]["value"] is not None
    for name, entry in entries(summary):
        assert (entry["low"], entry["high"]) == (None, None), name
        assert entry["reason"], name


def test_two_patients_of_a_class_are_too_few_for_an_interval() -> None:
    frame = several_images_each(patients=60)
    rare = frame["patient_id"].isin(frame.loc[frame["label"] == "c0", "patient_id"].unique()[1:])
    summary = summarise(frame[~rare], classes=CLASSES, resamples=300)["test"]
    assert summary["metrics"]["auroc"]["value"] is not None
    assert summary["metrics"]["auroc"]["low"] is None
    assert "too few patients" in summary["metrics"]["auroc"]["reason"]


def test_images_without_patient_or_label_are_said() -> None:
    frame = several_images_each()
    frame.loc[:4, "label"] = ""
    frame.loc[10:19, "patient_id"] = ""
    summary = summarise(frame, classes=CLASSES, resamples=50)["test"]
    assert summary["n"] == 115
    assert summary["notes"][0] == "left out, without a label: 5 images"
    assert "no patient id: 10 of 115 images" in summary["notes"][1]
    nobody = summarise(frame.assign(patient_id=""), classes=CLASSES, resamples=50)["test"]
    assert nobody["patients"] is None
    nothing = summarise(frame.assign(label=""), classes=CLASSES, resamples=50)["test"]
    assert (nothing["n"], nothing["metrics"]) == (0, {})
    assert "nothing can be measured" in nothing["notes"][0]


def test_nothing_to_evaluate_is_refused() -> None:
    with pytest.raises(UserError, match="no predictions to evaluate"):
        summarise(several_images_each().iloc[:0], classes=CLASSES)


def test_ordered_classes_get_the_metrics_of_order() -> None:
    ordered = summarise(several_images_each(), classes=CLASSES, resamples=50, ordinal=True)["test"]["metrics"]
    assert {"kappa_quadratic", "mean_absolute_error"} <= set(ordered)
    assert "kappa_quadratic" not in summarise(several_images_each(), classes=CLASSES, resamples=50)["test"]["metrics"]


def test_several_labels_an_image() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random((80, 2)) < 0.4
    score = np.clip(truth * 0.3 + generator.random((80, 2)) * 0.7, 0, 1)
    frame = pd.DataFrame(
        {
            "image_path": [f"{i}.png" for i in range(80)],
            "patient_id": [f"{i // 2}" for i in range(80)],
            "split": "test",
            "label": ["mass;effusion" if a and b else "mass" if a else "effusion" for a, b in truth],
            "predicted": ["mass" if a > 0.5 else "" for a, _ in score],
            "prob_mass": score[:, 0],
            "prob_effusion": score[:, 1],
        }
    )
    summary = summarise(frame, classes=("mass", "effusion"), resamples=100)["test"]
    assert {"accuracy_labelwise", "f1_micro", "sensitivity_macro"} <= set(summary["metrics"])
    assert summary["per_class"]["mass"]["auroc"]["low"] is not None
    assert summary["notes"] == ["never predicted: effusion"]
    partly = frame.assign(label=[f"?mass;{label}" if i % 2 else label for i, label in enumerate(frame["label"])])
    partly["label"] = partly["label"].str.replace("?mass;mass", "?mass", regex=False) + ";"
    again = summarise(partly, classes=("mass", "effusion"), resamples=100)["test"]
    half = summarise(partly[::2], classes=("mass", "effusion"), resamples=100)["test"]
    for name in ("sensitivity", "auroc", "ece", "brier", "calibration_slope"):
        assert again["per_class"]["mass"][name]["value"] == pytest.approx(half["per_class"]["mass"][name]["value"]), (
            name
        )
    assert again["per_class"]["effusion"]["auroc"] == summary["per_class"]["effusion"]["auroc"]
    assert any("not known (? in the label)" in note and note.endswith(": 40 labels") for note in again["notes"])


def test_several_labels_of_which_none_is_given_or_predicted_have_no_f1() -> None:
    frame = several_images_each().assign(label=";", predicted="")
    metrics = summarise(frame, classes=CLASSES, resamples=20, multilabel=True)["test"]["metrics"]
    assert metrics["f1_micro"]["value"] is None
    assert "none is predicted" in metrics["f1_micro"]["reason"]
    assert metrics["accuracy"]["value"] == 1
