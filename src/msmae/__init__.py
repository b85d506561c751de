"""Supervised attention-driven masked autoencoders for medical images.

The names below are the library; each is imported when it is first used, so that ``import msmae`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from msmae.errors import LeakageError, UserError

__version__ = "0.1.0"

_NAMES = {
    "run": "msmae.stages.run",
    "demo": "msmae.stages.demo",
    "pretrain": "msmae.stages.verbs",
    "finetune": "msmae.stages.verbs",
    "segment": "msmae.stages.segment",
    "evaluate": "msmae.stages.verbs",
    "predict": "msmae.stages.predict",
    "compare": "msmae.stages.compare",
    "budget": "msmae.stages.budget",
    "export": "msmae.stages.export",
    "masks": "msmae.stages.masks",
    "load": "msmae.stages.predictor",
    "Model": "msmae.stages.predictor",
    "plan_patches": "msmae.method.masking",
    "PatchPlan": "msmae.method.masking",
    "MapBank": "msmae.method.attention",
    "patch_maps": "msmae.method.attention",
    "VisionTransformer": "msmae.method.vit",
    "MSMAE": "msmae.method.msmae",
    "msmae_loss": "msmae.method.msmae",
    "Classifier": "msmae.method.transfer",
    "Segmenter": "msmae.method.segmenter",
    "open_dataset": "msmae.data.layouts",
    "Manifest": "msmae.data.manifest",
}

__all__ = ["LeakageError", "UserError", "__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'msmae' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from msmae.data.layouts import open_dataset
    from msmae.data.manifest import Manifest
    from msmae.method.attention import MapBank, patch_maps
    from msmae.method.masking import PatchPlan, plan_patches
    from msmae.method.msmae import MSMAE, msmae_loss
    from msmae.method.segmenter import Segmenter
    from msmae.method.transfer import Classifier
    from msmae.method.vit import VisionTransformer
    from msmae.stages.budget import budget
    from msmae.stages.compare import compare
    from msmae.stages.demo import demo
    from msmae.stages.export import export
    from msmae.stages.masks import masks
    from msmae.stages.predict import predict
    from msmae.stages.predictor import Model, load
    from msmae.stages.run import run
    from msmae.stages.segment import segment
    from msmae.stages.verbs import evaluate, finetune, pretrain
