"""Probes: the encoder stays as it is, and only a head learns, from features that are computed once.

``probe``: a logistic regression on the class token and the mean of the patches; its strength is chosen by the loss on
validation. ``probe-knn``: the nearest training images vote, by the class token. ``probe-attentive``: a learned query
over all tokens, then a linear head; its epoch is chosen by the loss on validation. All end as an ordinary classifier in
RUN/model, so that all verbs take them.
"""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msmae.encoders.neighbours import NeighbourVote
from msmae.errors import UserError
from msmae.inference.features import Features, Frozen, features_of, tokens_of
from msmae.method.classifier import Classifier
from msmae.method.msmae import label_loss
from msmae.runs.checkpoint import save_model
from msmae.training.balance import Balance, decide_balance
from msmae.training.prepare import Prepared

log = logging.getLogger("msmae")
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Inverse strengths of the penalty that are tried, for features of deviation 1."""
STEPS = 500
"""Of a regression, at most."""
EPOCHS, BATCH, RATE = 20, 128, 3e-3
"""Of the attentive probe, without label smoothing: with it, or at a lower rate, it fitted less (docs/lab-notes.md)."""


def fit_probe(prepared: Prepared, run: Path, model: Classifier, card: Any) -> None:
    """Fit the head of a classifier whose encoder is loaded, and write RUN/model."""
    frozen, balance = Frozen(model.encoder, prepared.mean, prepared.std), decide_balance(prepared)
    if prepared.arm.frozen == "knn":
        assert isinstance(model.head, NeighbourVote)
        ids = prepared.ids("train")
        labels = torch.from_numpy(prepared.targets[ids])
        model.head.remember(torch.from_numpy(features_of(frozen, prepared.store, ids).image), labels, balance.weights)
        log.info("the vote remembers the features of %d training images: they are part of the model", len(ids))
    elif prepared.arm.frozen == "linear":
        assert isinstance(model.head, torch.nn.Linear)
        known = {split: features_of(frozen, prepared.store, prepared.ids(split)) for split in ("train", "val")}
        weight, bias, strength = linear_head(prepared, known, balance)
        model.head.weight.data, model.head.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
        log.info("linear probe: penalty C = %g, the best of %s on validation", strength, STRENGTHS)
    else:
        fit_attentive(prepared, model, frozen, balance)
    save_model(run / "model", model, card)


def linear_head(
    prepared: Prepared, known: dict[str, Features], balance: Balance
) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights float32 [C, 2D] and biases [C] on features as they are, and the chosen strength."""
    train, val = known["train"].both, known["val"].both
    middle, spread = train.mean(axis=0), train.std(axis=0) + 1e-6
    targets = {split: prepared.targets[prepared.ids(split)] for split in ("train", "val")}
    labels = torch.from_numpy(targets["val"])
    best: tuple[float, np.ndarray, np.ndarray, float] | None = None
    for strength in STRENGTHS:
        weight, bias = regress((train - middle) / spread, targets["train"], strength, balance)
        weight, bias = weight / spread, bias - (weight / spread) @ middle  # as if the features had not been scaled
        logits = torch.from_numpy(val.astype(np.float64) @ weight.T + bias).float()
        loss = float(label_loss(logits, labels, weights=balance.even))
        if best is not None and loss >= best[0]:
            break  # weaker penalties fit the training images only ever closer, and take longest
        best = (loss, weight.astype(np.float32), bias.astype(np.float32), strength)
    assert best is not None
    return best[1:]


def _logistic(features: np.ndarray, targets: np.ndarray, strength: float, weights: dict[int, float]) -> Any:
    """scikit-learn's fitted regression; where it has not settled after so many steps, the log says so."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=strength, max_iter=STEPS, class_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(features, targets)
    if fitted.n_iter_.max() >= STEPS:
        log.info("linear probe: with penalty C = %g the weights had not settled after %d steps", strength, STEPS)
    return fitted


def regress(features: np.ndarray, targets: np.ndarray, strength: float, balance: Balance) -> tuple[np.ndarray, Any]:
    """Logistic regression: weights [C, F] and biases [C]. Unknown labels (nan) are left out, class by class."""
    weights = balance.weights.double().numpy()
    if targets.ndim == 1:
        classes = len(weights)
        present = np.unique(targets)
        if len(present) < 2:
            raise UserError("the training images are of one class", mend="give images of another class")
        fitted = _logistic(features, targets, strength, {int(c): weights[c] for c in present})
        found, bias = np.zeros((classes, features.shape[1])), np.full(classes, -30.0)  # a class never seen: never named
        if len(present) == 2:  # scikit-learn keeps one row for two classes
            found[present[1]], bias[present] = fitted.coef_[0], (0.0, fitted.intercept_[0])
        else:
            found[present], bias[present] = fitted.coef_, fitted.intercept_
        return found, bias
    rows = [one_of_several(features, targets[:, c], strength, weights[c]) for c in range(targets.shape[1])]
    return np.stack([row[0] for row in rows]), np.array([row[1] for row in rows])


def one_of_several(
    features: np.ndarray, target: np.ndarray, strength: float, weight: float
) -> tuple[np.ndarray, float]:
    """Weights [F] and bias of one label among several that may hold together."""
    known = ~np.isnan(target)
    if len(np.unique(target[known])) < 2:
        share = float(np.clip(target[known].mean() if known.any() else 0.5, 0.01, 0.99))
        return np.zeros(features.shape[1]), math.log(share / (1 - share))
    fitted = _logistic(features[known], target[known].astype(int), strength, {0: 1.0, 1: weight})
    return fitted.coef_[0], float(fitted.intercept_[0])


def fit_attentive(prepared: Prepared, model: Classifier, frozen: Frozen, balance: Balance) -> None:
    """Train the query and the head on tokens that are computed once; the epoch with the least validation loss stays."""
    sets = {}
    for split in ("train", "val"):
        ids = prepared.ids(split)
        sets[split] = (tokens_of(frozen, prepared.store, ids), torch.from_numpy(prepared.targets[ids]))
    assert model.attentive is not None
    parts = torch.nn.ModuleList([model.attentive, model.head])
    optimiser = torch.optim.AdamW(parts.parameters(), lr=RATE, weight_decay=0.05)
    tokens, targets = sets["train"]
    batch = min(BATCH, len(targets))
    total = EPOCHS * (len(targets) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=max(2, total), pct_start=0.1)
    generator = torch.Generator().manual_seed(prepared.seed + 1)
    best: tuple[float, dict[str, Tensor]] = (math.inf, {})
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(targets), generator=generator), batch):
            if len(rows) < batch:
                continue
            logits = model.classify(read_rows(tokens, rows))
            loss = label_loss(logits + balance.shift, targets[rows], weights=balance.weights)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
        found = float(label_loss(answers(model, sets["val"][0]), sets["val"][1], weights=balance.even))
        if found < best[0]:
            best = (found, {name: value.clone() for name, value in parts.state_dict().items()})
    if not best[1]:
        raise UserError("the attentive probe's loss is not a number", mend="try --method probe")
    parts.load_state_dict(best[1])


@torch.inference_mode()
def answers(model: Classifier, tokens: np.ndarray) -> Tensor:
    """Logits [n, C] from tokens [n, 1+N, D]."""
    return torch.cat([model.classify(read_rows(tokens, rows)) for rows in torch.split(torch.arange(len(tokens)), 256)])


def read_rows(tokens: np.ndarray, rows: Tensor) -> Tensor:
    """Some rows of tokens on the disk, float32 [B, 1+N, D]."""
    order = np.sort(rows.numpy())  # the disk likes order
    return torch.from_numpy(np.asarray(tokens[order], np.float32))[np.searchsorted(order, rows.numpy())]
