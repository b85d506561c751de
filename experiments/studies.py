"""The data sets and budgets of experiments/arms.py, and the names of what was tried."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

ARMS = ["vit", "mae", "supmae", "amt", "msmae", "msmae-shuffled", "msmae-released", "majority", "pca-svm", "small-cnn"]
SHOWN = [
    "vit", "mae", "supmae", "amt", "msmae", "msmae-hints", "msmae-hints-rollout", "msmae-shuffled",
    "msmae-hints-shuffled", "msmae-released", "majority", "pca-svm", "small-cnn",
]  # fmt: skip
"""The order of tables: arms that have left the library keep their results."""
GPU: dict[str, Any] = {"preset": "gpu", "arms": [*ARMS, "resnet18"], "seeds": [0, 1, 2, 3, 4]}


@dataclass(frozen=True)
class Study:
    """One data set and its budget on 2 CPU cores, in images shown."""

    source: str
    pretrain: int
    finetune: int
    repair: bool = False
    """The published split leaks: a clean one is cut first (`msmae check --repair`)."""
    lesion: float | None = None
    """The phantom, with lesions of this share of the side."""
    labels: float = 1.0
    """Share of the training labels that is left (fewer_labels.py)."""
    budget: str = "epochs"
    """What is equal for all arms."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    arms: list[str] = field(default_factory=lambda: ARMS)


FOUR_BLOCKS: dict[str, dict[str, Any]] = {
    "model": {"depth": 4},
    "pretrain": {"batch_size": 64, "base_lr": 4e-3, "label_weight": 1.0},
    "finetune": {"base_lr": 2e-3, "layer_decay": 0.85, "jitter": 0.0, "crop_scale": (0.6, 1.0)},
}
WHOLE_CHESTS: dict[str, dict[str, Any]] = {
    "pretrain": {"label_weight": 1.0},
    "finetune": {"base_lr": 2e-3, "layer_decay": 0.85, "jitter": 0.0, "crop_scale": (0.9, 1.0)},
}
"""Fine-tuning from nearly whole images: of 28 pixels little is left after a crop (docs/lab-notes.md)."""
CHESTS = "pneumoniamnist/pneumoniamnist.npz"
OWN_DRAW = {**FOUR_BLOCKS, "finetune": {**FOUR_BLOCKS["finetune"], "draw": "own"}}
"""Fine-tuning sees the quarter that the arm keeps, of as many more images as that costs no more for."""
OWN_ARMS = ["supmae", "msmae"]
STUDIES = {
    "pneumoniamnist": Study(CHESTS, pretrain=60_000, finetune=24_000, budget="gmacs", settings=WHOLE_CHESTS),
    "pneumoniamnist+small-crops": Study(
        CHESTS,
        pretrain=60_000,
        finetune=24_000,
        budget="gmacs",
        settings={"pretrain": {"label_weight": 1.0}, "finetune": {"crop_scale": (0.5, 1.0)}},
    ),
    "brain-tumor-mri": Study(
        "brain-tumor-mri", pretrain=160_000, finetune=40_000, repair=True, budget="gmacs", settings=FOUR_BLOCKS
    ),
    "ham10000": Study("ham10000", pretrain=100_000, finetune=60_000, budget="gmacs", settings=FOUR_BLOCKS),
    "phantom": Study("phantom", pretrain=60_000, finetune=30_000),
    "phantom-small": Study(
        "phantom", pretrain=60_000, finetune=20_000, lesion=0.2, budget="gmacs", settings=FOUR_BLOCKS
    ),
    "phantom-smaller": Study(
        "phantom", pretrain=60_000, finetune=20_000, lesion=0.17, budget="gmacs", settings=FOUR_BLOCKS
    ),
    "phantom-smaller+own": Study(
        "phantom", pretrain=60_000, finetune=65_000, lesion=0.17, budget="gmacs", settings=OWN_DRAW, arms=OWN_ARMS
    ),
    "phantom-small+own": Study(
        "phantom",
        pretrain=60_000,
        finetune=65_000,
        lesion=0.2,
        budget="gmacs",
        settings=OWN_DRAW,
        arms=OWN_ARMS,
    ),
    "brain-tumor-mri+own": Study(
        "brain-tumor-mri",
        pretrain=160_000,
        finetune=130_000,
        repair=True,
        budget="gmacs",
        settings=OWN_DRAW,
        arms=OWN_ARMS,
    ),
}
STUDIES |= {
    f"{name}+half": replace(
        STUDIES[name], pretrain=STUDIES[name].pretrain // 2, finetune=STUDIES[name].finetune // 2, arms=["msmae"]
    )
    for name in ("pneumoniamnist", "brain-tumor-mri", "ham10000")
}
STUDIES["pneumoniamnist+small-crops-half"] = replace(
    STUDIES["pneumoniamnist+small-crops"], pretrain=30_000, finetune=12_000, arms=["msmae"]
)
STUDIES |= {
    f"{name}+labels-{percent}": replace(
        STUDIES[name], labels=percent / 100, arms=["vit", "mae", "supmae", "msmae", "pca-svm"]
    )
    for name, percent in (("pneumoniamnist", 10), ("pneumoniamnist", 1), ("brain-tumor-mri", 10))
}
ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "mask-30": {"pretrain": {"mask_ratio": 0.30, "throw_ratio": 0.45}},
    "mask-60": {"pretrain": {"mask_ratio": 0.60, "throw_ratio": 0.15}},
    "throw-0": {"pretrain": {"mask_ratio": 0.75, "throw_ratio": 0.0}},
    "keep-40": {"pretrain": {"mask_ratio": 0.45, "throw_ratio": 0.15}},
    "refresh-1": {"pretrain": {"refresh_every": 1}},
    "start-0": {"pretrain": {"uniform_epochs": 0}},
    "start-14": {"pretrain": {"uniform_epochs": 14}},
    "label-0.1": {"pretrain": {"label_weight": 0.1}},
    "norm-pix": {"pretrain": {"normalise_pixels": True}},
    "crop-20": {"pretrain": {"crop_scale": (0.2, 1.0)}},
    "decoder-4": {"model": {"decoder_depth": 4}},
    "pool-mean": {"finetune": {"pool": "mean"}},
}
"""One setting that differs, each: ``phantom-small+mask-30``, ... Epochs are equal, costs are not."""
TRIED = (
    "mask-30", "mask-60", "throw-0", "keep-40", "refresh-1", "start-0", "start-14", "temperature-2", "temperature-0.5",
    "uniform-50", "label-0.1", "norm-pix", "crop-20", "decoder-4", "pool-mean",
)  # fmt: skip
"""All settings that were tried, in the order of the page. Three of them have left the library (temperature and
uniform-50): their results stay, and count in the correction for several comparisons."""
SMALL = STUDIES["phantom-small"]
STUDIES |= {
    f"phantom-small+{name}": replace(
        SMALL,
        settings={
            group: {**SMALL.settings.get(group, {}), **setting.get(group, {})} for group in SMALL.settings | setting
        },
        budget="epochs",
        arms=["msmae"],
    )
    for name, setting in ABLATIONS.items()
}

IDEAS: dict[str, str] = {
    "again": "nothing: trained again, in bf16",
    "easy-to-hard": "easy to hard: the draw goes from random to the map's own",
    "blocks": "blocks: two by two patches are drawn together",
    "hard-patches": "hard patches: maps of what is badly reconstructed",
    "steady-maps": "steady maps: averaged with those before",
    "quarter-then-all": "a quarter, then all: fine-tuning sees a random quarter for 20 epochs, all patches for 5",
}
"""What a script of commit a6d0197 tried on ``msmae``, on the phantom with small lesions: a name, and in words."""
