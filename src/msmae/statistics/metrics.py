"""The metrics of a classifier, under any number of weightings of its patients at once.

Nearly every metric is a function of sums over images, so the sums are made once for each patient; a bootstrap of R
resamples is then one product of the drawn multiplicities [R, P] with those sums [P, k]. AUROC and AUPRC need an
order besides: `Ranking`.

Conventions, where textbooks differ:

- ``auroc``, ``auprc``, ``f1_macro``, ``*_macro`` and (multi-label) ``balanced_accuracy``, ``mcc``, ``kappa`` are
  means of the one-vs-rest numbers over the classes that the split has images of *and* where the number is defined;
  `Metrics.averaged` names them. The same classes are averaged in every resample: a resample that lacks one is
  undefined, not a mean over the others.
- ``auprc`` is the average precision (no interpolation); its chance level is the class's prevalence.
- ``brier`` is the mean over images of the squared error summed over classes (0..2), but of the one probability
  (0..1) when there are two classes, and the mean over classes when multi-label.
- ``log_loss`` is in nats; probabilities are kept at least 2.2e-16 away from 0 and 1.
- where it is not known whether an image has a class (multi-label), the pair is in no number of that class or of all;
  ``accuracy`` (every label right) is of the images of which all labels are known.
- ``ece``: 15 bins of equal width (0, 1/15], (1/15, 2/15], ...; of the largest probability against being right (Guo
  et al. 2017), for one class of its probability against having the class; when multi-label the mean over classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmae.statistics.predictions import Predictions

ECE_BINS = 15
TINY = np.finfo(np.float64).eps

MACRO = {
    "auroc": "auroc",
    "auprc": "auprc",
    "f1_macro": "f1",
    "specificity_macro": "specificity",
    "ppv_macro": "ppv",
    "npv_macro": "npv",
}
"""Means over classes in every task: name of the mean -> name of the one-vs-rest metric."""
MACRO_SINGLE = {"balanced_accuracy": "sensitivity"}
MACRO_MULTI = {
    "balanced_accuracy": "balanced_accuracy",
    "sensitivity_macro": "sensitivity",
    "mcc": "mcc",
    "kappa": "kappa",
}


@dataclass(frozen=True)
class Ranking:
    """One yes/no question, sorted by score: p positives, q negatives, each belonging to a unit (a patient)."""

    positive_units: np.ndarray
    """int64 [p]: the unit of each positive, in ascending order of score."""
    negative_units: np.ndarray
    """int64 [q]: the unit of each negative, in ascending order of score."""
    negatives_below: np.ndarray
    """int64 [p]: how many negatives score strictly less than each positive."""
    negatives_up_to: np.ndarray
    """int64 [p]: how many negatives score no more than each positive."""
    positives_below: np.ndarray
    """int64 [p]: how many positives score strictly less than each positive."""


@dataclass(frozen=True)
class Values:
    """Metrics under R weightings; nan = undefined."""

    overall: dict[str, np.ndarray]
    """name -> float64 [R]"""
    per_class: dict[str, np.ndarray]
    """name -> float64 [R, C]"""


@dataclass(frozen=True)
class Metrics:
    """All metrics of one set of predictions, ready to be evaluated under any patient weights. Build with `prepare`."""

    sums: dict[str, np.ndarray]
    """name -> float64 [P, k]: sums over the images of each patient."""
    questions: tuple[Ranking, ...]
    """One-vs-rest, one a class."""
    pooled: Ranking
    """All image-class pairs as one question: the micro average."""
    averaged: dict[str, np.ndarray]
    """Macro name -> bool [C]: the classes its mean is taken over."""
    multilabel: bool
    ordinal: bool
    binary: bool

    @property
    def patients(self) -> int:
        return len(self.sums["n"])

    @property
    def width(self) -> int:
        """Image-class pairs: how many numbers one weighting touches at a time."""
        return len(self.pooled.positive_units) + len(self.pooled.negative_units)

    def as_is(self, *, areas: bool = True) -> Values:
        """The metrics of the data themselves: every patient counted once (R = 1)."""
        return self(np.ones((1, self.patients)), areas=areas)

    def __call__(self, weights: np.ndarray, *, areas: bool = True) -> Values:
        """Evaluate under patient weights [R, P]: how often each patient was drawn, or any non-negative number. The
        areas under curves take most of the time and can be left out.
        """
        weights = np.asarray(weights, dtype=np.float64)
        totals = {name: weights @ block for name, block in self.sums.items()}  # [R, k] each
        per_class = _per_class(totals, self.questions if areas else (), weights)
        overall = (
            _multi_label(totals) if self.multilabel else _single_label(totals, ordinal=self.ordinal, binary=self.binary)
        )
        if areas:
            overall["auroc_micro"], overall["auprc_micro"] = auroc_and_auprc(self.pooled, weights)
        for name, source in _macros(self.multilabel).items():
            if source in per_class:
                overall[name] = _mean_over(per_class[source], self.averaged[name])
        return Values(overall=overall, per_class=per_class)


def prepare(predictions: Predictions, *, ordinal: bool = False) -> Metrics:
    """Sum and sort once. ``ordinal`` says that the classes are given in order, and adds the metrics that use it."""
    classes = len(predictions.classes)
    truth, scores, patients = predictions.truth, predictions.probabilities, predictions.patients
    known = predictions.judged
    questions = tuple(
        rank(scores[known[:, c], c], truth[known[:, c], c], patients[known[:, c]]) for c in range(classes)
    )
    sums = _patient_sums(_columns(predictions), patients, predictions.patient_count)
    totals = {name: block.sum(axis=0, keepdims=True) for name, block in sums.items()}
    once = _per_class(totals, questions, np.ones((1, predictions.patient_count)))
    present = truth.any(axis=0)
    averaged = {name: present & ~np.isnan(once[source][0]) for name, source in _macros(predictions.multilabel).items()}
    return Metrics(
        sums=sums,
        questions=questions,
        pooled=rank(scores[known], truth[known], np.repeat(patients, classes)[known.ravel()]),
        averaged=averaged,
        multilabel=predictions.multilabel,
        ordinal=ordinal and not predictions.multilabel,
        binary=classes == 2 and not predictions.multilabel,
    )


def _macros(multilabel: bool) -> dict[str, str]:
    return MACRO | (MACRO_MULTI if multilabel else MACRO_SINGLE)


def _columns(predictions: Predictions) -> dict[str, np.ndarray]:
    """What each image adds to every sum: name -> float64 [n, k]."""
    truth, scores, known = predictions.truth, predictions.probabilities, predictions.judged
    predicted = predictions.predicted & known
    of_truth = np.where(truth, scores, 1 - scores)  # the probability given to what is so, [n, C]
    columns = {
        "n": np.ones((len(truth), 1)),
        "known": known,
        "complete": known.all(axis=1, keepdims=True),
        "truth": truth,
        "predicted": predicted,
        "hits": truth & predicted,
        "exact": ((truth == predicted) & known).all(axis=1, keepdims=True),
        "squared_error": (scores - truth) ** 2 * known,
        "class_log_loss": -np.log(np.clip(of_truth, TINY, 1)) * known,
        "class_gaps": _bin_gaps(scores, truth, known),
    }
    if not predictions.multilabel:
        first = scores.argmax(axis=1)[:, None]
        top, right = np.take_along_axis(scores, first, axis=1), np.take_along_axis(truth, first, axis=1)
        apart = np.abs(truth.argmax(axis=1) - predicted.argmax(axis=1))[:, None]
        columns |= {
            "log_loss": -np.log(np.clip((scores * truth).sum(axis=1, keepdims=True), TINY, 1)),
            "top_gaps": _bin_gaps(top, right),
            "apart": np.concatenate([apart > 0, apart, apart**2], axis=1),
        }
    return {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}


def _bin_gaps(scores: np.ndarray, truth: np.ndarray, known: np.ndarray | float = 1.0) -> np.ndarray:
    """Probability minus outcome, in the column of the bin it falls in: [n, k] -> [n, k * ECE_BINS]; 0 if not known."""
    place = np.clip(np.searchsorted(np.linspace(0, 1, ECE_BINS + 1), scores) - 1, 0, ECE_BINS - 1)  # [n, k]
    gaps = np.zeros((*scores.shape, ECE_BINS))
    np.put_along_axis(gaps, place[..., None], ((scores - truth) * known)[..., None], axis=2)
    return gaps.reshape(len(scores), -1)


def _patient_sums(columns: dict[str, np.ndarray], patients: np.ndarray, count: int) -> dict[str, np.ndarray]:
    order = np.argsort(patients, kind="stable")
    starts = np.searchsorted(patients[order], np.arange(count))
    return {name: np.add.reduceat(column[order], starts, axis=0) for name, column in columns.items()}


def _per_class(
    totals: dict[str, np.ndarray], questions: tuple[Ranking, ...], weights: np.ndarray
) -> dict[str, np.ndarray]:
    n, classes = totals["known"], totals["truth"].shape[1]  # of each class, [R, C]
    values = one_vs_rest(n, totals["truth"], totals["predicted"], totals["hits"])
    if questions:
        areas = [auroc_and_auprc(question, weights) for question in questions]
        values["auroc"] = np.stack([auroc for auroc, _ in areas], axis=1)
        values["auprc"] = np.stack([auprc for _, auprc in areas], axis=1)
    gaps = totals["class_gaps"].reshape(len(n), classes, ECE_BINS)
    return values | {
        "brier": ratio(totals["squared_error"], n),
        "log_loss": ratio(totals["class_log_loss"], n),
        "ece": ratio(np.abs(gaps).sum(axis=2), n),
    }


def _single_label(totals: dict[str, np.ndarray], *, ordinal: bool, binary: bool) -> dict[str, np.ndarray]:
    n, truth, predicted = totals["n"][:, 0], totals["truth"], totals["predicted"]
    right, apart = totals["hits"].sum(axis=1), totals["apart"]
    values = {
        "accuracy": ratio(right, n),
        "mcc": matthews(n, truth, predicted, right),
        "kappa": cohen_kappa(n, truth, predicted, apart[:, 0], power=0),
        "brier": ratio(totals["squared_error"].sum(axis=1), n * (2 if binary else 1)),
        "log_loss": ratio(totals["log_loss"][:, 0], n),
        "ece": ratio(np.abs(totals["top_gaps"]).sum(axis=1), n),
    }
    if ordinal:
        values["kappa_quadratic"] = cohen_kappa(n, truth, predicted, apart[:, 2], power=2)
        values["mean_absolute_error"] = ratio(apart[:, 1], n)  # in ranks
    return values


def _multi_label(totals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    truth, predicted, hits = totals["truth"], totals["predicted"], totals["hits"]
    decisions = totals["known"].sum(axis=1)
    wrong = (truth + predicted - 2 * hits).sum(axis=1)
    return {
        "accuracy": ratio(totals["exact"][:, 0], totals["complete"][:, 0]),
        "accuracy_labelwise": 1 - ratio(wrong, decisions),
        "f1_micro": ratio(2 * hits.sum(axis=1), (truth + predicted).sum(axis=1)),
        "brier": ratio(totals["squared_error"].sum(axis=1), decisions),
        "log_loss": ratio(totals["class_log_loss"].sum(axis=1), decisions),
        "ece": ratio(np.abs(totals["class_gaps"]).sum(axis=1), decisions),
    }


def _mean_over(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """[R, C] -> [R]: nan when no class is chosen, or a chosen one is undefined."""
    if not chosen.any():
        return np.full(len(values), np.nan)
    return np.asarray(values[:, chosen].mean(axis=1))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, nan where whole is zero."""
    part, whole = np.broadcast_arrays(part, whole)
    quotient = np.full(part.shape, np.nan)
    np.divide(part, whole, out=quotient, where=whole != 0)
    return quotient


def one_vs_rest(n: np.ndarray, truth: np.ndarray, predicted: np.ndarray, hits: np.ndarray) -> dict[str, np.ndarray]:
    """What the four cells of a yes/no question give, for each class: [R, C] each.

    ``n`` [R, C] images, of which ``truth`` [R, C] have the class, ``predicted`` [R, C] are said to have it,
    ``hits`` [R, C] both. F1 is undefined for a class no image has: 2 TP / (2 TP + FP + FN) would be 0 by the
    model's false alarms alone.
    """
    misses, alarms = truth - hits, predicted - hits
    rejections = n - truth - alarms  # true negatives
    sensitivity, specificity = ratio(hits, truth), ratio(rejections, n - truth)
    right = hits + rejections
    chance = ratio(truth * predicted + (n - truth) * (n - predicted), n * n)
    return {
        "prevalence": ratio(truth, n),
        "accuracy": ratio(right, n),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ratio(hits, predicted),
        "npv": ratio(rejections, n - predicted),
        "f1": np.where(truth > 0, ratio(2 * hits, truth + predicted), np.nan),
        "mcc": ratio(hits * rejections - alarms * misses, np.sqrt(truth * (n - truth) * predicted * (n - predicted))),
        "kappa": ratio(ratio(right, n) - chance, 1 - chance),
    }


def matthews(n: np.ndarray, truth: np.ndarray, predicted: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multi-class Matthews correlation (Gorodkin 2004), [R]: n [R], truth and predicted [R, C] counts, right [R]
    agreements.

    Undefined when all images have one class or all are given one class.
    """
    agreement = right * n - (truth * predicted).sum(axis=1)
    spread_truth = n * n - (truth * truth).sum(axis=1)
    spread_predicted = n * n - (predicted * predicted).sum(axis=1)
    return ratio(agreement, np.sqrt(spread_truth * spread_predicted))


def cohen_kappa(
    n: np.ndarray, truth: np.ndarray, predicted: np.ndarray, disagreement: np.ndarray, power: int
) -> np.ndarray:
    """Cohen's kappa, [R], = 1 - observed / chance disagreement: n [R], truth and predicted [R, C] counts.

    ``disagreement`` [R] is the sum over images of |true rank - predicted rank| ** power; power 0 counts every error
    as one (plain kappa), 2 gives the quadratic-weighted kappa for ordered classes.
    """
    rank = np.arange(truth.shape[1])
    apart = np.abs(rank[:, None] - rank[None, :])
    cost = (apart > 0).astype(float) if power == 0 else apart.astype(float) ** power  # [C, C]
    by_chance = ((truth @ cost) * predicted).sum(axis=1)
    return np.where(by_chance > 0, 1 - ratio(disagreement * n, by_chance), np.nan)


def rank(scores: np.ndarray, truth: np.ndarray, units: np.ndarray) -> Ranking:
    """Sort one question: scores [m] (larger = more likely), truth bool [m], units int [m]."""
    up, down = scores[truth], scores[~truth]
    up_order, down_order = np.argsort(up, kind="stable"), np.argsort(down, kind="stable")
    up, down = up[up_order], down[down_order]
    return Ranking(
        positive_units=units[truth][up_order],
        negative_units=units[~truth][down_order],
        negatives_below=np.searchsorted(down, up, side="left"),
        negatives_up_to=np.searchsorted(down, up, side="right"),
        positives_below=np.searchsorted(up, up, side="left"),
    )


def auroc_and_auprc(ranking: Ranking, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision, [R] each, for unit weights [R, P] (non-negative).

    Ties count half in the AUROC and share one threshold in the average precision, as in scikit-learn. Both are nan
    where the positives or the negatives weigh nothing.
    """
    positive = np.take(weights, ranking.positive_units, axis=1)  # [R, p]
    negatives = _running_sum(np.take(weights, ranking.negative_units, axis=1))  # [R, q + 1]
    positives = _running_sum(positive)  # [R, p + 1]
    all_positive, all_negative = positives[:, -1:], negatives[:, -1:]  # [R, 1]

    below = np.take(negatives, ranking.negatives_below, axis=1)  # [R, p]
    wins = below + np.take(negatives, ranking.negatives_up_to, axis=1)  # twice, so that ties count half
    true_alarms = all_positive - np.take(positives, ranking.positives_below, axis=1)  # [R, p]
    alarms = true_alarms + (all_negative - below)  # [R, p]
    precision = np.divide(true_alarms, alarms, out=np.zeros_like(alarms), where=alarms > 0)

    pairs, defined = all_positive[:, 0] * all_negative[:, 0], (all_positive[:, 0] > 0) & (all_negative[:, 0] > 0)
    auroc, auprc = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    np.divide(np.einsum("rp,rp->r", positive, wins), 2 * pairs, out=auroc, where=defined)
    np.divide(np.einsum("rp,rp->r", positive, precision), all_positive[:, 0], out=auprc, where=defined)
    return auroc, auprc


def _running_sum(values: np.ndarray) -> np.ndarray:
    """[R, m] -> [R, m + 1]: the sum of the first 0, 1, ..., m."""
    sums = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums
