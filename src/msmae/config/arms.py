"""The arms of every comparison: same code path, same budget; in pre-training only what a row names differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msmae.errors import UserError, nearest


@dataclass(frozen=True)
class Arm:
    """One row of the comparison: what pre-training learns from, and what decides the masks."""

    pretrains: bool = True
    label_weight: float = 0.1
    """Weight of the class head's cross-entropy beside the reconstruction."""
    mask_ratio: float = 0.45
    throw_ratio: float = 0.30
    map: Literal["own", "other", "none"] = "own"
    """Whose attention map the masking follows: the image's own (paper), another image's, or none (random masking)."""
    softmax_twice: bool = False
    """Pre-training's cross-entropy as the released code has it: a softmax before the one it applies itself."""
    pool: Literal["cls", "mean", "both", "attentive"] = "cls"
    frozen: Literal["", "linear", "knn", "attentive"] = ""
    """A probe: the encoder stays as it is, and a head of this kind learns."""

    @property
    def guided(self) -> bool:
        """Whether maps decide the plan, the image's own or another's."""
        return self.map != "none"


ARMS: dict[str, Arm] = {
    "vit": Arm(pretrains=False, label_weight=0.0, map="none"),
    "mae": Arm(label_weight=0.0, mask_ratio=0.75, throw_ratio=0.0, map="none"),
    "supmae": Arm(map="none"),
    "amt": Arm(label_weight=0.0),
    "msmae": Arm(),
    "msmae-shuffled": Arm(map="other"),
    "msmae-released": Arm(map="none", softmax_twice=True, pool="mean"),
    "probe": Arm(pretrains=False, label_weight=0.0, map="none", pool="both", frozen="linear"),
    "probe-knn": Arm(pretrains=False, label_weight=0.0, map="none", frozen="knn"),
    "probe-attentive": Arm(pretrains=False, label_weight=0.0, map="none", pool="attentive", frozen="attentive"),
}
BASELINES = ("majority", "pca-svm", "resnet18", "small-cnn", "efficientnet-lite0")
"""Further arms of a comparison: what a user would pick instead."""


RETIRED: dict[str, str] = {
    "msmae-hints": "--method msmae --pretrain.hints 0.5 draws the same plans",
    "msmae-hints-shuffled": "--method msmae-shuffled --pretrain.hints 0.5 draws the same plans",
    "msmae-hints-rollout": "its maps gained nothing measurable; --method msmae --pretrain.hints 0.5 is nearest",
    "msmae-hints-gradient": "its maps gained nothing measurable; --method msmae --pretrain.hints 0.5 is nearest",
    "msmae-evidence": "it gained nothing measurable; --method supmae pre-trains in the same way",
    "msmae-twoview": "its gain was the second view's, not attention's; at equal compute --method supmae was ahead",
    "supmae-twoview": "it was the control of msmae-twoview; --method supmae is nearest",
}
"""Arms of version 0.1 that are no longer trained, and what takes their place. Their finished runs are still read."""


def find_arm(method: str) -> Arm:
    """The arm of this name, to train it. Raises ``UserError`` naming the arms there are, or what replaced a retired
    one."""
    if method in RETIRED:
        raise UserError(f"the arm {method} was retired", where="--method", mend=RETIRED[method])
    if method not in ARMS:
        raise UserError(f"no method '{method}'", where="--method", mend=nearest(method, ARMS))
    return ARMS[method]


def arm_of_run(method: str) -> Arm:
    """The arm of a run that exists, to use its model. All retired arms masked, dropped and kept as many patches as
    ``msmae`` and pooled as it does; nothing else of an arm matters to a finished model. A baseline is trained on whole
    images from the labels alone, as ``vit`` is."""
    if method in BASELINES:
        return ARMS["vit"]
    return ARMS["msmae"] if method in RETIRED else find_arm(method)
