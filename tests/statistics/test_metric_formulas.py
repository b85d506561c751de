"""Every figure of small predictions, counted image by image in plain Python, under whole and broken weights."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, cohen_kappa_score, matthews_corrcoef, roc_auc_score

from msmae.statistics.metrics import (
    auroc_and_auprc,
    cohen_kappa,
    matthews,
    one_vs_rest,
    prepare,
    rank,
    ratio,
)
from msmae.statistics.predictions import Predictions
from simulated import draw


def close(found: object, wanted: object) -> None:
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(wanted, float), rtol=1e-12, atol=1e-12)


def test_a_ratio_of_nothing_is_undefined() -> None:
    close(ratio(np.array([1.0, 0.0, 3.0]), np.array([4.0, 0.0, 0.0])), [0.25, np.nan, np.nan])
    close(ratio(np.array([[2.0], [3.0]]), np.array([4.0, 2.0])), [[0.5, 1], [0.75, 1.5]])


def test_four_cells_by_hand() -> None:
    """12 images: 3 found, 2 missed, 1 false alarm, 6 rightly said not to have it."""
    found = one_vs_rest(*(np.array([[x]], dtype=float) for x in (12, 5, 4, 3)))
    chance = (5 * 4 + 7 * 8) / 144
    wanted = {
        "prevalence": 5 / 12, "accuracy": 9 / 12, "balanced_accuracy": (3 / 5 + 6 / 7) / 2, "sensitivity": 3 / 5,
        "specificity": 6 / 7, "ppv": 3 / 4, "npv": 6 / 8, "f1": 6 / 9,
        "mcc": (3 * 6 - 1 * 2) / math.sqrt(5 * 7 * 4 * 8), "kappa": (0.75 - chance) / (1 - chance),
    }  # fmt: skip
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        close(found[name], [[value]])


@pytest.mark.parametrize(
    ("cells", "undefined"),
    [
        ((4, 0, 0, 0), {"sensitivity", "balanced_accuracy", "ppv", "f1", "mcc", "kappa"}),
        ((4, 0, 2, 0), {"sensitivity", "balanced_accuracy", "f1", "mcc"}),  # false alarms alone are no F1
        ((4, 4, 4, 4), {"specificity", "balanced_accuracy", "npv", "mcc", "kappa"}),
        ((4, 2, 0, 0), {"ppv", "mcc"}),
        ((4, 2, 4, 2), {"npv", "mcc"}),
        ((4, 2, 2, 0), set()),
    ],
)
def test_what_a_question_without_an_answer_leaves_undefined(cells: tuple[int, ...], undefined: set[str]) -> None:
    found = one_vs_rest(*(np.array([[float(x)]]) for x in cells))
    assert {name for name, value in found.items() if np.isnan(value[0, 0])} == undefined


@pytest.mark.parametrize("seed", range(5))
def test_correlation_and_kappa_of_classes_equal_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.integers(4, size=(2, 30))
    b = np.where(generator.random(30) < 0.5, a, b)
    truth, predicted = (np.bincount(x, minlength=4)[None].astype(float) for x in (a, b))
    n = np.array([30.0])
    close(matthews(n, truth, predicted, np.array([(a == b).sum()])), [matthews_corrcoef(a, b)])
    for power, weights in ((0, None), (1, "linear"), (2, "quadratic")):
        apart = (np.abs(a - b) > 0).sum() if power == 0 else (np.abs(a - b) ** power).sum()
        wanted = cohen_kappa_score(a, b, weights=weights, labels=range(4))
        close(cohen_kappa(n, truth, predicted, np.array([apart]), power), [wanted])


def test_one_class_has_no_correlation_and_no_kappa() -> None:
    n, all_one, mixed = np.array([4.0]), np.array([[4.0, 0.0]]), np.array([[1.0, 3.0]])
    for truth, predicted, right in ((all_one, all_one, 4), (all_one, mixed, 1), (mixed, all_one, 1)):
        assert np.isnan(matthews(n, truth, predicted, np.array([right]))).all()
    assert np.isnan(cohen_kappa(n, all_one, all_one, np.array([0]), 0)).all()
    close(cohen_kappa(n, mixed, all_one, np.array([3]), 0), [0])


def test_a_ranking_counts_who_stands_below() -> None:
    scores = np.array([0.5, 0.2, 0.5, 0.9, 0.5, 0.1])
    truth = np.array([True, False, False, True, True, False])
    found = rank(scores, truth, np.array([7, 1, 2, 3, 4, 5]))
    assert found.positive_units.tolist() == [7, 4, 3]
    assert found.negative_units.tolist() == [5, 1, 2]
    assert found.negatives_below.tolist() == [2, 2, 3]
    assert found.negatives_up_to.tolist() == [3, 3, 3]
    assert found.positives_below.tolist() == [0, 0, 2]


@pytest.mark.parametrize("seed", range(6))
def test_areas_under_weights_equal_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, truth = generator.integers(0, 6, 25) / 5, generator.random(25) < 0.4
    truth[:2] = True, False
    units = generator.integers(0, 8, 25)
    weights = np.concatenate([np.ones((1, 8)), generator.integers(0, 4, (3, 8)), generator.random((2, 8))])
    areas = auroc_and_auprc(rank(scores, truth, units), weights)
    for number, row in enumerate(weights):
        heavy = row[units]
        if heavy[truth].sum() == 0 or heavy[~truth].sum() == 0:
            assert np.isnan([area[number] for area in areas]).all()
            continue
        close(areas[0][number], roc_auc_score(truth, scores, sample_weight=heavy))
        close(areas[1][number], average_precision_score(truth, scores, sample_weight=heavy))


def test_areas_without_positives_or_negatives_are_undefined() -> None:
    ranking = rank(np.array([0.1, 0.9, 0.4]), np.array([False, True, True]), np.array([0, 1, 2]))
    auroc, auprc = auroc_and_auprc(ranking, np.array([[1.0, 0, 0], [0, 1, 1], [1, 0, 1], [0.0, 0, 0]]))
    close(auroc, [np.nan, np.nan, 1, np.nan])
    close(auprc, [np.nan, np.nan, 1, np.nan])
    for truth in (np.zeros(2, dtype=bool), np.ones(2, dtype=bool)):
        areas = auroc_and_auprc(rank(np.array([0.1, 0.9]), truth, np.array([0, 1])), np.ones((1, 2)))
        assert np.isnan(areas).all()


# --- all of it at once ---


def ece(scores: list[float], outcomes: list[bool], heavy: list[float]) -> float:
    """Bins (0, 1/15], (1/15, 2/15], ...: 0 is in the first."""
    gaps = [0.0] * 15
    edges = np.linspace(0, 1, 16)
    for score, outcome, weight in zip(scores, outcomes, heavy, strict=True):
        place = next((b for b in range(15) if score <= edges[b + 1]), 14)
        gaps[place] += weight * (score - outcome)
    return sum(map(abs, gaps)) / sum(heavy)


def log_loss(scores: list[float], heavy: list[float]) -> float:
    return sum(-w * math.log(max(s, 2.0**-52)) for s, w in zip(scores, heavy, strict=True)) / sum(heavy)


def by_hand(p: Predictions, weights: np.ndarray, *, ordinal: bool) -> dict[str, float]:
    """Figures over all classes that sums over images give, one label an image."""
    heavy = weights[p.patients].tolist()
    n, rows = sum(heavy), range(p.images)
    a, b = p.truth.argmax(axis=1).tolist(), p.predicted.argmax(axis=1).tolist()
    top = p.probabilities.argmax(axis=1).tolist()
    squares = [sum((p.probabilities[i, c] - (a[i] == c)) ** 2 for c in range(len(p.classes))) for i in rows]
    found = {
        "accuracy": sum(heavy[i] for i in rows if a[i] == b[i]) / n,
        "brier": sum(heavy[i] * squares[i] for i in rows) / n / (2 if len(p.classes) == 2 else 1),
        "log_loss": log_loss([p.probabilities[i, a[i]] for i in rows], heavy),
        "ece": ece([p.probabilities[i, top[i]] for i in rows], [top[i] == a[i] for i in rows], heavy),
        "mcc": matthews_corrcoef(a, b, sample_weight=heavy),
        "kappa": cohen_kappa_score(a, b, sample_weight=heavy),
    }
    if ordinal:
        found["mean_absolute_error"] = sum(heavy[i] * abs(a[i] - b[i]) for i in rows) / n
        found["kappa_quadratic"] = cohen_kappa_score(a, b, weights="quadratic", sample_weight=heavy)
    return found


def of_class(p: Predictions, weights: np.ndarray, c: int) -> dict[str, float]:
    known = np.flatnonzero(p.judged[:, c])
    heavy = weights[p.patients[known]].tolist()
    scores, truth = p.probabilities[known, c].tolist(), p.truth[known, c].tolist()
    given = [s if t else 1 - s for s, t in zip(scores, truth, strict=True)]
    return {
        "prevalence": sum(w for w, t in zip(heavy, truth, strict=True) if t) / sum(heavy),
        "brier": sum(w * (s - t) ** 2 for w, s, t in zip(heavy, scores, truth, strict=True)) / sum(heavy),
        "log_loss": log_loss(given, heavy),
        "ece": ece(scores, truth, heavy),
        "auroc": roc_auc_score(truth, scores, sample_weight=heavy),
        "auprc": average_precision_score(truth, scores, sample_weight=heavy),
    }


WEIGHTS = np.array([[1.0] * 12, [0, 2, 1, 3, 0, 1, 1, 4, 2, 0, 1, 1], [0.5, 0.25, 2, 1, 1, 0, 3, 1, 0.1, 1, 1, 2]])


@pytest.mark.parametrize("classes", [2, 3])
def test_single_labels_image_by_image(classes: int) -> None:
    p = draw(np.random.default_rng(5), patients=12, images_each=3, classes=classes, separation=0.7)
    sharp = np.round(p.probabilities[:, 0] * 15) / 15  # on the edges of the bins
    rest = p.probabilities[:, 1:] / p.probabilities[:, 1:].sum(axis=1, keepdims=True)
    p = replace(p, probabilities=np.concatenate([sharp[:, None], rest * (1 - sharp[:, None])], axis=1))
    values = prepare(p, ordinal=True)(WEIGHTS)
    for number, row in enumerate(WEIGHTS):
        for name, wanted in by_hand(p, row, ordinal=True).items():
            close(values.overall[name][number], wanted)
        for c in range(classes):
            for name, wanted in of_class(p, row, c).items():
                close(values.per_class[name][number, c], wanted)
        for mean, source in (
            ("auroc", "auroc"), ("auprc", "auprc"), ("f1_macro", "f1"), ("specificity_macro", "specificity"),
            ("ppv_macro", "ppv"), ("npv_macro", "npv"), ("balanced_accuracy", "sensitivity"),
        ):  # fmt: skip
            close(values.overall[mean][number], values.per_class[source][number].mean())
    plain = prepare(p)(WEIGHTS)
    assert set(values.overall) - set(plain.overall) == {"mean_absolute_error", "kappa_quadratic"}


def several() -> Predictions:
    """Three labels an image, of some of which it is not known whether the image has them."""
    generator = np.random.default_rng(8)
    truth, predicted = generator.random((36, 3)) < 0.45, generator.random((36, 3)) < 0.5
    known = generator.random((36, 3)) < 0.85
    return Predictions(
        classes=("a", "b", "c"), truth=truth & known,
        predicted=np.where(generator.random((36, 3)) < 0.5, truth, predicted),
        probabilities=generator.random((36, 3)), patients=np.repeat(np.arange(12), 3),
        patient_names=np.array([f"p{i:02}" for i in range(12)], dtype=object), multilabel=True, known=known,
    )  # fmt: skip


def test_several_labels_image_by_image() -> None:
    p = several()
    values = prepare(p, ordinal=True)(WEIGHTS)
    assert not {"mean_absolute_error", "kappa_quadratic"} & set(values.overall)
    whole = np.flatnonzero(p.judged.all(axis=1))
    pairs = [(i, c) for i in range(36) for c in range(3) if p.judged[i, c]]
    for number, row in enumerate(WEIGHTS):
        heavy = row[p.patients]
        one = [heavy[i] for i, _ in pairs]
        scores, truth = [p.probabilities[at] for at in pairs], [bool(p.truth[at]) for at in pairs]
        said = [bool(p.predicted[at]) for at in pairs]
        right = [w for w, t, s in zip(one, truth, said, strict=True) if t == s]
        both = sum(w for w, t, s in zip(one, truth, said, strict=True) if t and s)
        any_of = sum(w * (t + s) for w, t, s in zip(one, truth, said, strict=True))
        exact = [heavy[i] for i in whole if (p.truth[i] == p.predicted[i]).all()]
        gaps = [of_class(p, row, c)["ece"] * heavy[p.judged[:, c]].sum() for c in range(3)]
        wanted = {
            "accuracy": sum(exact) / heavy[whole].sum(),
            "accuracy_labelwise": sum(right) / sum(one),
            "f1_micro": 2 * both / any_of,
            "brier": sum(w * (s - t) ** 2 for w, s, t in zip(one, scores, truth, strict=True)) / sum(one),
            "log_loss": log_loss([s if t else 1 - s for s, t in zip(scores, truth, strict=True)], one),
            "ece": sum(gaps) / sum(one),
            "auroc_micro": roc_auc_score(truth, scores, sample_weight=one),
            "auprc_micro": average_precision_score(truth, scores, sample_weight=one),
        }
        for name, value in wanted.items():
            close(values.overall[name][number], value)
        for c in range(3):
            for name, value in of_class(p, row, c).items():
                close(values.per_class[name][number, c], value)
        for mean, source in (
            ("balanced_accuracy", "balanced_accuracy"), ("sensitivity_macro", "sensitivity"), ("mcc", "mcc"),
            ("kappa", "kappa"), ("auroc", "auroc"), ("f1_macro", "f1"),
        ):  # fmt: skip
            close(values.overall[mean][number], values.per_class[source][number].mean())


def test_how_many_numbers_a_weighting_touches() -> None:
    metrics = prepare(several())
    assert (metrics.patients, metrics.width) == (12, int(several().judged.sum()))
    assert set(metrics.averaged) >= {"auroc", "mcc", "sensitivity_macro"}
    alone = metrics.as_is()
    close(alone.overall["brier"], prepare(several())(np.ones((1, 12))).overall["brier"])
    lean = metrics.as_is(areas=False)
    assert set(alone.overall) - set(lean.overall) == {"auroc", "auprc", "auroc_micro", "auprc_micro"}
    assert set(alone.per_class) - set(lean.per_class) == {"auroc", "auprc"}


def test_probabilities_of_zero_cost_no_more_than_their_floor() -> None:
    every = np.ones((36, 3), dtype=bool)
    p = replace(several(), truth=every, predicted=every, probabilities=np.zeros((36, 3)), known=None)
    values = prepare(p).as_is()
    close(values.overall["log_loss"], [52 * math.log(2)])
    close(values.per_class["log_loss"], [[52 * math.log(2)] * 3])
    close(values.overall["ece"], [1.0])
