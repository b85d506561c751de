"""What a user would pick instead: the majority class, PCA + SVM, a ResNet-18 and a small CNN from scratch.

The convolutional networks are MONAI's, trained exactly as fine-tuning trains: same crops, loss, schedule and choice of
the epoch by the validation loss. The classical ones take their only setting from validation.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmae.config import BASELINES
from msmae.evaluation.evaluate import predictions_frame, seconds_spent, write_evidence
from msmae.training.prepare import Prepared
from msmae.training.supervised import SupervisedModule, train_supervised

PIXELS = 32
"""Side to which PCA + SVM reduces an image."""
COMPONENTS = 100
"""Principal components that the SVM sees."""
SVM_IMAGES = 10_000
"""Training images of the SVM at most: its cost grows with their square."""


def train_baseline(prepared: Prepared, run: Path) -> dict[str, Any]:
    """Train, predict and measure the arm that ``prepared.method`` names, one of ``BASELINES``.

    Returns the content of metrics.json.
    """
    assert prepared.method in BASELINES
    rows = np.concatenate([prepared.ids("val"), prepared.ids("test")])
    calibration = None  # done with the evidence
    if prepared.method in ("resnet18", "small-cnn"):
        probabilities, cost = run_network(prepared, run, rows)
    else:
        predict = predict_majority if prepared.method == "majority" else predict_pca_svm
        began = time.perf_counter()
        probabilities = predict(prepared, rows)
        cost = {"seconds_pretrain": None, "seconds_finetune": time.perf_counter() - began}
        calibration = {"method": "none", "reason": "they are shares of images already, not a network's"}
    return write_evidence(
        predictions_frame(probabilities, prepared, rows),
        prepared,
        run,
        model_sha256=None,
        cost=cost,
        calibration=calibration,
    )


def predict_majority(prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    """The classes' shares of the training images, for every image: [n, C]."""
    targets = prepared.targets[prepared.ids("train")]
    classes = len(prepared.manifest.classes)
    shares = targets.mean(axis=0) if targets.ndim == 2 else np.bincount(targets, minlength=classes) / len(targets)
    return np.tile(shares.astype(np.float64), (len(rows), 1))


def predict_pca_svm(prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    """Standardised pixels, 100 principal components, a radial SVM; its strength C is chosen on validation.

    Probabilities [n, C] are a logistic regression of the validation images' labels on the SVM's scores (Platt 1999).
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import recall_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    assert not prepared.manifest.multilabel  # compare refuses it before any training
    train, val = prepared.ids("train"), prepared.ids("val")
    if len(train) > SVM_IMAGES:
        train = np.sort(np.random.default_rng(prepared.seed).choice(train, SVM_IMAGES, replace=False))
    pixels, labels = small_pixels(prepared, train), prepared.targets[train]
    val_pixels, val_labels = small_pixels(prepared, val), prepared.targets[val]

    def fit(strength: float) -> Any:
        reduce = PCA(min(COMPONENTS, *pixels.shape), random_state=prepared.seed)
        return make_pipeline(StandardScaler(), reduce, SVC(C=strength, class_weight="balanced")).fit(pixels, labels)

    def balanced_accuracy(machine: Any) -> float:
        return float(
            recall_score(val_labels, machine.predict(val_pixels), labels=np.unique(val_labels), average="macro")
        )

    def scores(images: np.ndarray) -> np.ndarray:
        return np.asarray(best.decision_function(images)).reshape(len(images), -1)  # [n, C], or [n, 1] for two classes

    best = max((fit(strength) for strength in (1.0, 3.0, 10.0)), key=balanced_accuracy)
    platt = LogisticRegression(class_weight="balanced", max_iter=1000).fit(scores(val_pixels), val_labels)
    probabilities = np.zeros((len(rows), len(prepared.manifest.classes)))
    probabilities[:, platt.classes_] = platt.predict_proba(scores(small_pixels(prepared, rows)))
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))


def small_pixels(prepared: Prepared, ids: np.ndarray) -> np.ndarray:
    """Images as flat vectors [n, C*h*w] of at most 32 x 32 pixels."""
    size = (min(PIXELS, prepared.image_size[0]), min(PIXELS, prepared.image_size[1]))
    parts = []
    for images in fetched(prepared, ids):
        parts.append(F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False).flatten(1))
    return torch.cat(parts).numpy()


def fetched(prepared: Prepared, ids: np.ndarray, batch_size: int = 256) -> Iterator[Tensor]:
    """Images [B, C, H, W] of the store, in the files' own units, in order."""
    for start in range(0, len(ids), batch_size):
        yield torch.from_numpy(prepared.store.fetch(ids[start : start + batch_size]).astype(np.float32))


def build_network(prepared: Prepared) -> nn.Module:
    """MONAI's ResNet-18 (first layer 3 x 3 and no pooling up to 64 px, as is usual for small images), or its plain
    convolutional classifier."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own imports
        from monai.networks.nets.classifier import Classifier
        from monai.networks.nets.resnet import resnet18
    channels, classes = prepared.channels, len(prepared.manifest.classes)
    if prepared.method == "small-cnn":
        steps = (2, 2, 2) if min(prepared.image_size) <= 64 else (2, 2, 2, 2)
        widths = (32, 64, 128, 256)[: len(steps)]
        shape = (channels, *prepared.image_size)
        small: nn.Module = Classifier(in_shape=shape, classes=classes, channels=widths, strides=steps)
        return small
    tiny = max(prepared.image_size) <= 64
    network: nn.Module = resnet18(
        spatial_dims=2,
        n_input_channels=channels,
        num_classes=classes,
        conv1_t_size=3 if tiny else 7,
        conv1_t_stride=1 if tiny else 2,
        no_max_pool=tiny,
    )
    return network


def run_network(prepared: Prepared, run: Path, rows: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Train a network, or continue; its probabilities [n, C] and its cost."""
    torch.manual_seed(prepared.seed + 1)
    network = build_network(prepared)
    module = SupervisedModule(network, prepared)

    def save() -> None:
        (run / "model").mkdir(exist_ok=True)
        torch.save(network.state_dict(), run / "model" / f"{prepared.method}.pt")

    train_supervised(module, run, save=save)
    network.eval()
    began = time.perf_counter()
    with torch.inference_mode():
        logits = torch.cat([network(module.normalise(images)).double() for images in fetched(prepared, rows)]).cpu()
    rate = len(rows) / (time.perf_counter() - began)
    probabilities = logits.sigmoid() if prepared.manifest.multilabel else logits.softmax(dim=1)
    cost = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "gmacs_predict": network_macs(network, (prepared.channels, *prepared.image_size)) / 1e9,
        "images_per_s_predict": rate,
        **seconds_spent(run),
    }
    return probabilities.numpy(), cost


def network_macs(network: nn.Module, shape: tuple[int, ...]) -> float:
    """MACs of the convolutions and linear layers for one image of this shape [C, H, W]."""
    counted: list[float] = []

    def count(layer: nn.Module, _: Any, out: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        outputs = out[0].numel() if isinstance(layer, nn.Conv2d) else layer.out_features
        counted.append(outputs * layer.weight[0].numel())

    hooks = [part.register_forward_hook(count) for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape, device=next(network.parameters()).device))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return sum(counted)
