"""Every metric against scikit-learn or a count by hand, and nan where it does not exist."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from msmae.statistics.metrics import auroc_and_auprc, prepare, rank
from msmae.statistics.predictions import Predictions
from msmae.statistics.reliability import reliability
from simulated import draw, of

CASES = {
    "random": {"n": 300, "classes": 5, "tied": False, "prior": [0.2, 0.2, 0.2, 0.2, 0.2]},
    "tied": {"n": 300, "classes": 4, "tied": True, "prior": [0.25, 0.25, 0.25, 0.25]},
    "imbalanced": {"n": 400, "classes": 3, "tied": False, "prior": [0.97, 0.02, 0.01]},
    "binary": {"n": 200, "classes": 2, "tied": False, "prior": [0.7, 0.3]},
    "binary, tied": {"n": 200, "classes": 2, "tied": True, "prior": [0.7, 0.3]},
    "class absent": {"n": 200, "classes": 4, "tied": False, "prior": [0.5, 0.3, 0.0, 0.2]},
}


def case(name: str) -> Predictions:
    chosen, generator = CASES[name], np.random.default_rng(7)
    label = generator.choice(chosen["classes"], chosen["n"], p=chosen["prior"])
    label[: sum(p > 0 for p in chosen["prior"])] = np.flatnonzero(chosen["prior"])  # each at least once
    noise = generator.gamma(1.0, size=(chosen["n"], chosen["classes"]))
    noise[np.arange(chosen["n"]), label] += generator.gamma(1.0, size=chosen["n"])
    probabilities = noise / noise.sum(axis=1, keepdims=True)
    if chosen["tied"]:
        probabilities = np.stack([generator.multinomial(8, p) / 8 for p in probabilities])
    return of(label, probabilities)


def several_labels(n: int = 250, classes: int = 4) -> Predictions:
    generator = np.random.default_rng(3)
    truth = generator.random((n, classes)) < [0.5, 0.2, 0.05, 0.3]
    probabilities = np.round(np.clip(0.35 * truth + generator.random((n, classes)) * 0.7, 0, 1), 2)
    names = tuple("abcd"[:classes])
    each = np.arange(n)
    return Predictions(names, truth, probabilities >= 0.5, probabilities, each, each.astype(object), multilabel=True)


def overall(predictions: Predictions, *, ordinal: bool = False) -> dict[str, float]:
    return {name: float(v[0]) for name, v in prepare(predictions, ordinal=ordinal).as_is().overall.items()}


def ece_by_hand(scores: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [i for i, p in enumerate(scores) if (low < p <= high) or (b == 0 and p == 0)]
        if inside:
            total += len(inside) / len(scores) * abs(scores[inside].mean() - truth[inside].mean())
    return total


@pytest.mark.parametrize("name", CASES)
def test_overall_metrics_equal_scikit_learn(name: str) -> None:
    predictions = case(name)
    truth, predicted = predictions.truth.argmax(axis=1), predictions.predicted.argmax(axis=1)
    p, present = predictions.probabilities, predictions.truth.any(axis=0)
    labels = np.arange(len(present))
    found = overall(predictions, ordinal=True)
    ranked = {
        "auroc": np.mean([reference.roc_auc_score(truth == c, p[:, c]) for c in labels[present]]),
        "auprc": np.mean([reference.average_precision_score(truth == c, p[:, c]) for c in labels[present]]),
        "auroc_micro": reference.roc_auc_score(predictions.truth.ravel(), p.ravel()),
        "auprc_micro": reference.average_precision_score(predictions.truth.ravel(), p.ravel()),
    }
    brier = reference.brier_score_loss(truth, p, labels=labels) if len(labels) > 2 else np.mean((p[:, 1] - truth) ** 2)
    counted = {
        "accuracy": reference.accuracy_score(truth, predicted),
        "balanced_accuracy": np.mean(reference.recall_score(truth, predicted, labels=labels[present], average=None)),
        "f1_macro": reference.f1_score(truth, predicted, labels=labels[present], average="macro", zero_division=0),
        "mcc": reference.matthews_corrcoef(truth, predicted),
        "kappa": reference.cohen_kappa_score(truth, predicted, labels=labels),
        "kappa_quadratic": reference.cohen_kappa_score(truth, predicted, labels=labels, weights="quadratic"),
        "mean_absolute_error": np.mean(np.abs(truth - predicted)),
        "brier": brier,
        "log_loss": reference.log_loss(truth, p, labels=labels),
        "ece": ece_by_hand(p.max(axis=1), truth == p.argmax(axis=1)),
    }
    for metric, expected in (ranked | counted).items():
        assert found[metric] == pytest.approx(expected, abs=1e-9), metric


@pytest.mark.parametrize("name", [*CASES, "several labels"])
def test_metrics_of_a_class_equal_scikit_learn(name: str) -> None:
    predictions = several_labels() if name == "several labels" else case(name)
    values = {metric: v[0] for metric, v in prepare(predictions).as_is().per_class.items()}
    for c in np.flatnonzero(predictions.truth.any(axis=0)):
        truth, said, p = predictions.truth[:, c], predictions.predicted[:, c], predictions.probabilities[:, c]
        tn, fp, fn, tp = reference.confusion_matrix(truth, said, labels=[False, True]).ravel()
        expected = {
            "prevalence": truth.mean(),
            "accuracy": (tp + tn) / len(truth),
            "balanced_accuracy": reference.balanced_accuracy_score(truth, said),
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "ppv": tp / (tp + fp) if tp + fp else np.nan,
            "npv": tn / (tn + fn),
            "f1": reference.f1_score(truth, said, zero_division=0),
            "mcc": reference.matthews_corrcoef(truth, said) if said.any() else np.nan,
            "kappa": reference.cohen_kappa_score(truth, said),
            "auroc": reference.roc_auc_score(truth, p),
            "auprc": reference.average_precision_score(truth, p),
            "brier": reference.brier_score_loss(truth, p),
            "log_loss": reference.log_loss(truth, np.stack([1 - p, p], axis=1), labels=[False, True]),
            "ece": ece_by_hand(p, truth),
        }
        assert set(values) == set(expected)
        for metric, number in expected.items():
            assert values[metric][c] == pytest.approx(number, abs=1e-9, nan_ok=True), (metric, c)


def test_several_labels_equal_scikit_learn() -> None:
    predictions = several_labels()
    truth, said, p = predictions.truth, predictions.predicted, predictions.probabilities
    found = overall(predictions)
    columns = range(truth.shape[1])
    expected = {
        "accuracy": reference.accuracy_score(truth, said),
        "accuracy_labelwise": 1 - reference.hamming_loss(truth, said),
        "f1_micro": reference.f1_score(truth, said, average="micro"),
        "f1_macro": reference.f1_score(truth, said, average="macro"),
        "auroc": reference.roc_auc_score(truth, p, average="macro"),
        "auroc_micro": reference.roc_auc_score(truth, p, average="micro"),
        "auprc": reference.average_precision_score(truth, p, average="macro"),
        "auprc_micro": reference.average_precision_score(truth, p, average="micro"),
        "sensitivity_macro": reference.recall_score(truth, said, average="macro"),
        "ppv_macro": reference.precision_score(truth, said, average="macro"),
        "mcc": np.mean([reference.matthews_corrcoef(truth[:, c], said[:, c]) for c in columns]),
        "kappa": np.mean([reference.cohen_kappa_score(truth[:, c], said[:, c]) for c in columns]),
        "balanced_accuracy": np.mean([reference.balanced_accuracy_score(truth[:, c], said[:, c]) for c in columns]),
        "brier": np.mean((p - truth) ** 2),
        "log_loss": np.mean([reference.log_loss(truth[:, c], p[:, c]) for c in columns]),
        "ece": np.mean([ece_by_hand(p[:, c], truth[:, c]) for c in columns]),
    }
    for metric, number in expected.items():
        assert found[metric] == pytest.approx(number, abs=1e-9), metric
    assert "kappa_quadratic" not in found


@settings(max_examples=60)
@given(
    scores=st.lists(st.integers(0, 6), min_size=2, max_size=25),
    seed=st.integers(0, 2**32 - 1),
)
def test_weights_mean_repetition(scores: list[int], seed: int) -> None:
    """An image of weight 3 counts as three images: the property on which the whole bootstrap rests."""
    generator = np.random.default_rng(seed)
    score, n = np.array(scores) / 6, len(scores)
    truth, times = generator.random(n) < 0.5, generator.integers(0, 4, n)
    auroc, auprc = auroc_and_auprc(rank(score, truth, np.arange(n)), times[None, :].astype(float))
    repeated_truth, repeated_score = np.repeat(truth, times), np.repeat(score, times)
    if repeated_truth.any() and not repeated_truth.all():
        assert auroc[0] == pytest.approx(reference.roc_auc_score(repeated_truth, repeated_score), abs=1e-12)
        assert auprc[0] == pytest.approx(reference.average_precision_score(repeated_truth, repeated_score), abs=1e-12)
    else:
        assert np.isnan([auroc[0], auprc[0]]).all()


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_patient_drawn_twice_counts_twice_in_every_metric(multilabel: bool) -> None:
    generator = np.random.default_rng(5)
    whole = several_labels() if multilabel else draw(generator, patients=40, images_each=3, classes=3)
    times = generator.integers(0, 4, whole.patient_count)
    rows = np.repeat(np.arange(whole.images), times[whole.patients])
    repeated = Predictions(
        whole.classes,
        whole.truth[rows],
        whole.predicted[rows],
        whole.probabilities[rows],
        np.arange(len(rows)),
        np.arange(len(rows)).astype(object),
        multilabel,
    )
    weighted = prepare(whole, ordinal=True)(times[None, :])
    counted = prepare(repeated, ordinal=True).as_is()
    assert set(weighted.overall) == set(counted.overall)
    for name, value in counted.overall.items():
        assert weighted.overall[name][0] == pytest.approx(value[0], abs=1e-12), name
    for name, value in counted.per_class.items():
        np.testing.assert_allclose(weighted.per_class[name][0], value[0], atol=1e-12, err_msg=name)


def test_a_class_the_split_lacks_leaves_the_means_alone() -> None:
    """As if the class had never been asked for, although the model gives it probability and even predicts it."""
    predictions = case("class absent")
    assert predictions.predicted[:, 2].any()
    metrics = prepare(predictions)
    value = metrics.as_is()
    others = [0, 1, 3]
    for mean, source in [("auroc", "auroc"), ("f1_macro", "f1"), ("specificity_macro", "specificity")]:
        assert metrics.averaged[mean].tolist() == [True, True, False, True]
        assert value.overall[mean][0] == pytest.approx(value.per_class[source][0, others].mean(), abs=1e-12)
    for name in ("sensitivity", "f1", "auroc", "auprc", "mcc"):
        assert np.isnan(value.per_class[name][0, 2]), name


def test_a_resample_without_one_of_the_classes_is_undefined_not_a_mean_over_the_others() -> None:
    predictions = of(np.array([0, 0, 1, 1, 2]), np.random.default_rng(0).dirichlet(np.ones(3), 5))
    weights = np.array([[1, 1, 1, 1, 1], [2, 1, 1, 1, 0]])
    values = prepare(predictions)(weights).overall
    for name in ("auroc", "auprc", "f1_macro", "balanced_accuracy"):
        assert not np.isnan(values[name][0]), name
        assert np.isnan(values[name][1]), name


def test_one_class_only_is_undefined_not_perfect() -> None:
    predictions = of(np.zeros(6, dtype=int), np.tile([0.8, 0.2], (6, 1)))
    value = overall(predictions)
    assert np.isnan([value[name] for name in ("auroc", "auprc", "mcc", "kappa", "specificity_macro")]).all()
    assert value["accuracy"] == 1.0
    per_class = prepare(predictions).as_is().per_class
    assert np.isnan(per_class["ppv"][0, 1])  # never predicted
    assert np.isnan(per_class["sensitivity"][0, 1])  # no image of it


def test_a_constant_prediction_has_no_correlation_and_no_skill() -> None:
    value = overall(of(np.array([0, 1, 0, 1]), np.tile([0.6, 0.4], (4, 1))))
    assert np.isnan(value["mcc"])
    assert value["kappa"] == 0.0
    assert value["auroc"] == 0.5


def test_what_is_not_known_of_a_class_is_in_no_figure_of_it() -> None:
    whole, generator = several_labels(), np.random.default_rng(1)
    known = generator.random(whole.truth.shape) < [0.4, 0.9, 0.8, 1.0]
    partly = dataclasses.replace(whole, truth=whole.truth & known, known=known)
    values = prepare(partly).as_is()
    for c in range(4):
        rows = known[:, c]
        each = np.arange(rows.sum())
        alone = Predictions(
            whole.classes, whole.truth[rows], whole.predicted[rows], whole.probabilities[rows], each,
            each.astype(object), multilabel=True,
        )  # fmt: skip
        expected = prepare(alone).as_is().per_class
        for name, value in values.per_class.items():
            np.testing.assert_allclose(value[0, c], expected[name][0, c], err_msg=f"{name} of {c}")
        assert partly.about(c).images == reliability(partly, of="abcd"[c])["images"].sum() == rows.sum()
    assert values.overall["auroc"] == pytest.approx(np.mean(values.per_class["auroc"]))
    scores, truth = whole.probabilities[known], whole.truth[known]
    assert values.overall["auroc_micro"] == pytest.approx(reference.roc_auc_score(truth, scores))
    assert values.overall["brier"] == pytest.approx(((scores - truth) ** 2).mean())
    complete = known.all(axis=1)
    right = (whole.truth == whole.predicted)[complete].all(axis=1)
    assert values.overall["accuracy"] == pytest.approx(right.mean())


def test_a_class_of_which_an_image_is_not_judged_is_ranked_by_the_others() -> None:
    """The areas of a class come from its own known images, with their own scores, truths and patients."""
    predictions = draw(np.random.default_rng(5), patients=30, classes=3)
    ranked = prepare(predictions).as_is().per_class["auroc"][0]
    from sklearn.metrics import roc_auc_score

    expected = [roc_auc_score(predictions.truth[:, c], predictions.probabilities[:, c]) for c in range(3)]
    assert ranked == pytest.approx(expected)
    assert "kappa_quadratic" not in prepare(predictions).as_is().overall
