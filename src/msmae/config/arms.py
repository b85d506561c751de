"""The arms of every comparison: same code path, same budget; in pre-training only what a row names differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msmae.errors import UserError


@dataclass(frozen=True)
class Arm:
    """One row of the comparison: what pre-training learns from, and what decides the masks."""

    pretrains: bool = True
    label_weight: float = 0.1
    """Weight of the class head's cross-entropy beside the reconstruction."""
    mask_ratio: float = 0.45
    throw_ratio: float = 0.30
    policy: Literal["uniform", "attention", "shuffled", "ones"] = "attention"
    softmax_twice: bool = False
    """Pre-training's cross-entropy as the released code has it: a softmax before the one it applies itself."""
    pool: Literal["cls", "mean"] = "cls"
    label_view: Literal["kept", "uniform", "attended"] = "kept"
    """What the label is learned from: the kept patches (paper), or a second view of as many patches, drawn uniformly or
    likelier where the map is larger."""

    hints: float = 0.0
    """Share of the kept patches that the map draws; all else is then drawn evenly. 0: the paper's plan, where the map
    draws what is masked."""
    maps: Literal["attention", "rollout", "gradient"] = "attention"
    """Where the class token looks in the last block (paper) or through all blocks, or how fast the class head's answer
    changes with a patch."""
    evidence: float = 0.0
    """Share of the kept patches that fine-tuning on the arm's own draw chooses by what the answers of its own earlier
    steps hung on (stages/running_maps.py); the rest is drawn evenly."""

    @property
    def guided(self) -> bool:
        """Whether maps decide the plan, the image's own or another's."""
        return self.policy in ("attention", "shuffled")

    @property
    def two_views(self) -> bool:
        """Whether the label is learned from a view of its own: the encoder then runs twice in a step."""
        return self.label_view != "kept"


ARMS: dict[str, Arm] = {
    "vit": Arm(pretrains=False, label_weight=0.0, policy="uniform"),
    "mae": Arm(label_weight=0.0, mask_ratio=0.75, throw_ratio=0.0, policy="uniform"),
    "supmae": Arm(policy="uniform"),
    "amt": Arm(label_weight=0.0),
    "msmae": Arm(),
    "msmae-shuffled": Arm(policy="shuffled"),
    "supmae-twoview": Arm(policy="uniform", label_view="uniform"),
    "msmae-twoview": Arm(label_view="attended"),
    "msmae-hints": Arm(hints=0.5),
    "msmae-hints-rollout": Arm(hints=0.5, maps="rollout"),
    "msmae-hints-gradient": Arm(hints=0.5, maps="gradient"),
    "msmae-hints-shuffled": Arm(hints=0.5, policy="shuffled"),
    "msmae-evidence": Arm(policy="uniform", evidence=0.75),
    "msmae-released": Arm(policy="ones", softmax_twice=True, pool="mean"),
}
BASELINES = ("majority", "pca-svm", "resnet18", "small-cnn")
"""Further arms of a comparison: what a user would pick instead."""


def find_arm(method: str) -> Arm:
    """The arm of this name. Raises ``UserError`` naming the arms there are."""
    if method not in ARMS:
        raise UserError(f"no method '{method}'", where="--method", mend=f"choose one of {', '.join(ARMS)}")
    return ARMS[method]
