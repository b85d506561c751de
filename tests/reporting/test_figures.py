"""Curves against scikit-learn, bands against repeated draws, and SVGs that fit any page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from msmae.reporting.figures import fonts
from msmae.reporting.figures.bands import _band, precision_recall, roc
from msmae.reporting.figures.canvas import PAGE, as_file
from msmae.reporting.figures.curves import (
    biggest_gap,
    decision_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    short,
)
from msmae.reporting.figures.fonts import drawable
from msmae.reporting.figures.training import by_panel, training_figure
from msmae.statistics.intervals import wilson
from msmae.statistics.predictions import Predictions
from msmae.statistics.reliability import reliability
from msmae.statistics.thresholds import decision_curve
from simulated import draw, of

SVG = "{http://www.w3.org/2000/svg}"


def binary(scores: np.ndarray, truth: np.ndarray) -> Predictions:
    return of(truth.astype(int), np.stack([1 - scores, scores], axis=1))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_curves_pass_through_scikit_learns_points(rows: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([score / 6 for score, _ in rows]), np.array([flag for _, flag in rows])
    predictions = binary(scores, truth)
    curve, recall = roc(predictions, of="c1", resamples=2), precision_recall(predictions, of="c1", resamples=2)
    if truth.all() or not truth.any():
        assert curve is None
        assert recall is None
        return
    assert curve is not None
    assert recall is not None
    x, y, _ = roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.x, x, atol=1e-12)
    np.testing.assert_allclose(curve.y, y, atol=1e-12)
    np.testing.assert_allclose(np.trapezoid(curve.y, curve.x), roc_auc_score(truth, scores), atol=1e-12)
    precision, found, _ = precision_recall_curve(truth, scores)
    theirs = set(zip(found.round(9), precision.round(9), strict=True))
    assert set(zip(recall.x[1:].round(9), recall.y[1:].round(9), strict=True)) <= theirs
    steps = np.diff(recall.x) @ recall.y[1:]
    np.testing.assert_allclose(steps, average_precision_score(truth, scores), atol=1e-12)


@pytest.mark.slow
def test_bands_hold_the_true_curves_about_19_times_in_20() -> None:
    """Two normals 1.5 apart, 60 of 200 images with the class: the true curves are known."""
    grid = np.linspace(0, 1, 101)
    inner = slice(5, 96)
    false_alarms = norm.sf(norm.isf(grid) + 1.5)  # at this recall
    truths = norm.cdf(norm.ppf(grid) + 1.5), 0.3 * grid / (0.3 * grid + 0.7 * false_alarms + 1e-300)
    held: list[list[np.ndarray]] = [[], []]
    for seed in range(100):
        flags = np.arange(200) < 60
        predictions = binary(norm.cdf(np.random.default_rng(seed).normal(size=200) + 1.5 * flags), flags)
        for k, make in enumerate((roc, precision_recall)):
            curve = make(predictions, of="c1", resamples=200, seed=seed)
            assert curve is not None
            held[k].append(((curve.low <= truths[k]) & (truths[k] <= curve.high))[inner])
    for k in range(2):
        assert 0.935 <= np.mean(held[k]) <= 0.99
        assert np.mean(held[k], axis=0).min() >= 0.85


def test_bands_widen_with_the_likeness_of_a_patients_images() -> None:
    def width(alike: float) -> float:
        predictions = draw(np.random.default_rng(0), patients=60, images_each=6, alike=alike)
        curve = roc(predictions, of="c1", resamples=200)
        assert curve is not None
        return float(np.mean(curve.high - curve.low))

    assert width(0.9) > 1.3 * width(0.0)


def test_a_band_rests_on_no_more_than_there_is() -> None:
    share, images, patients = np.array([0.5, 1.0, 0.5]), np.array([10, 10, 10]), np.array([4, 4, 4])
    low, high = _band(share, np.array([1e-12, 0.0, 0.05]), images, patients)
    for place, interval in enumerate((wilson(5, 10), wilson(4, 4), wilson(2.5, 5))):
        assert (low[place], high[place]) == pytest.approx((interval.low, interval.high))


def test_one_patient_has_no_band() -> None:
    predictions = of(np.array([0, 1, 1]), np.array([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]]), patients=np.zeros(3, int))
    curve = roc(predictions, of="c1")
    assert curve is not None
    assert curve.resamples == 0
    assert np.isnan(curve.low).all()
    banded = roc(draw(np.random.default_rng(0), patients=20), of="c1", resamples=50)
    assert banded is not None
    assert "opacity: 0.14" not in roc_figure({"c1": curve})
    assert "opacity: 0.14" in roc_figure({"c1": banded})


def test_too_few_resamples_with_both_outcomes_give_no_band() -> None:
    truth = np.arange(30) == 0  # one positive: a third of the draws lack it
    curve = roc(binary(np.linspace(0, 1, 30), truth), of="c1", resamples=200)
    assert curve is not None
    assert curve.resamples == 200
    assert np.isnan(curve.low).all()


def figures() -> dict[str, str]:
    """One of each kind, of a class with a name that is hard to draw."""
    predictions = draw(np.random.default_rng(1), patients=50)
    curve, recall = roc(predictions, of="c1", resamples=50), precision_recall(predictions, of="c1", resamples=50)
    assert curve is not None
    assert recall is not None
    name = '_$\\frac{1}{2$ <b>&"'
    series = {"training": pd.Series([1.0, 0.5]), "validation": pd.Series([1.1, 0.7])}
    return {
        "roc": roc_figure({name: curve, "other": curve}),
        "pr": precision_recall_figure({name: recall}),
        "reliability": reliability_figure(reliability(predictions, of="c1"), of=name),
        "decision": decision_figure(decision_curve(predictions, of="c1", resamples=50), of=name),
        "training": training_figure("loss", series, stage=name),
    }


def test_svgs_are_whole_scale_and_take_the_pages_colours() -> None:
    for kind, svg in figures().items():
        root = ET.fromstring(svg)
        assert root.tag == f"{SVG}svg", kind
        assert root.get("viewBox")
        assert root.get("width") is None
        assert root.get("height") is None
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert "var(--ink)" in svg
        assert not [colour for colour in PAGE if colour in svg]
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#ffffff", "#000000"}, kind
        assert "<metadata" not in svg
        pointed = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
        names = [element.get("id") for element in root.iter() if element.get("id")]
        assert set(names) == pointed
        assert len(names) == len(set(names))


def test_a_picture_of_its_own_brings_its_colours_and_paper() -> None:
    for kind, svg in figures().items():
        alone = as_file(svg)
        root = ET.fromstring(alone)
        assert [element.tag for element in root][:2] == [f"{SVG}style", f"{SVG}rect"], kind
        style = root[0].text or ""
        assert root[1].get("fill") == "var(--paper)"
        for scheme in (style.partition("@media")[0], style.partition("@media")[2]):  # light, dark
            assert set(re.findall(r"var\((--[\w-]+)\)", alone)) <= set(re.findall(r"(--[\w-]+):", scheme)), kind


def test_letters_stay_letters() -> None:
    drawn = {kind: ["".join(text.itertext()) for text in ET.fromstring(svg).iter(f"{SVG}text")] for kind, svg in
             figures().items()}  # fmt: skip
    for kind in ("roc", "pr", "reliability", "decision"):
        assert any('_$\\frac{1}{2$ <b>&"' in text for text in drawn[kind]), kind


def test_long_names_keep_what_tells_them_apart() -> None:
    names = [f"a class with the same beginning {number}" for number in (1, 2)]
    assert len({short(name) for name in names}) == 2
    assert max(len(short(name)) for name in names) <= 26
    assert short("brief") == "brief"


def test_the_same_data_give_the_same_picture() -> None:
    assert figures() == figures()


def test_the_biggest_gap_counts_images() -> None:
    bins = pd.DataFrame(
        {"probability": [0.1, 0.9], "observed": [0.6, 0.8], "images": [2, 90], "low": [0.0, 0.7], "high": [1.0, 0.9]}
    )
    assert biggest_gap(bins) == (0.9, 0.8, 90)


def test_what_belongs_together_is_drawn_together() -> None:
    log = pd.DataFrame(
        {
            "epoch": [0, 0, 1, 1, 2],
            "step": [1, 2, 3, 4, 5],
            "loss": [2.0, 1.0, np.nan, 0.5, np.nan],
            "val_loss": [np.nan, 1.2, np.nan, 0.6, np.nan],
            "val_balanced_accuracy": [np.nan, 0.5, np.nan, 0.75, np.nan],
            "empty": np.nan,
            "images_per_s": 100.0,
        }
    )
    panels = by_panel(log)
    assert list(panels) == ["loss", "balanced_accuracy"]
    assert panels["loss"]["training"].to_dict() == {0: 1.5, 1: 0.5}
    assert panels["loss"]["validation"].to_dict() == {0: 1.2, 1: 0.6}
    assert list(panels["balanced_accuracy"]) == ["validation"]
    alone = training_figure("balanced_accuracy", panels["balanced_accuracy"], stage="Fine-tuning")
    assert "balanced accuracy on validation" in alone


@pytest.mark.parametrize("classes", [1, 12])
def test_any_number_of_curves_can_be_given(classes: int) -> None:
    predictions = draw(np.random.default_rng(2), patients=30)
    curve = roc(predictions, of="c1", resamples=20)
    assert curve is not None
    svg = roc_figure({f"class {i}": curve for i in range(classes)})
    assert svg.count("class ") >= min(classes, 8)


def test_pictures_never_show_boxes() -> None:
    assert drawable(["benign", "é ü ж"]) == (["benign", "é ü ж"], ["DejaVu Sans"])
    missing = "\U000e0041"  # a letter that no font draws
    assert drawable(["b", f"a{missing}", "b"]) == (["class 2", "class 1", "class 2"], ["DejaVu Sans"])


def test_a_font_that_has_the_letters_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual font is told apart from others by giving it a name that stands for one with fewer letters."""
    monkeypatch.setattr(fonts, "USUAL", "STIXSizeOneSym")
    fonts.covering.cache_clear()
    try:
        families = fonts.covering(frozenset("ж"))
        assert families is not None
        assert families[0] == "STIXSizeOneSym"
        assert len(families) == 2
    finally:
        fonts.covering.cache_clear()


def test_a_share_has_no_axis_above_1_and_one_epoch_has_whole_ticks() -> None:
    log = pd.DataFrame({"epoch": [17, 17], "val_balanced_accuracy": [1.0, 1.0], "map_overlap": [0.5, 0.5]})
    for quantity, series in by_panel(log).items():
        numbers = [float(text) for text in re.findall(r">([\d.]+)<", training_figure(quantity, series, stage="x"))]
        across = [number for number in numbers if number > 2]
        assert across == [18] or set(across) <= {17, 18, 19, 20}
        assert max(number for number in numbers if number <= 2) <= 1
