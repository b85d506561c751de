"""Supervised attention-driven masked autoencoders for medical images.

The names below are the library; each is imported when it is first used, so that ``import msmae`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from msmae.errors import LeakageError, UserError

__version__ = "0.1.0"

_NAMES = {
    "run": "msmae.verbs.run",
    "demo": "msmae.verbs.demo",
    "pretrain": "msmae.verbs.pretrain",
    "finetune": "msmae.verbs.finetune",
    "segment": "msmae.verbs.segment",
    "evaluate": "msmae.verbs.evaluate",
    "predict": "msmae.verbs.predict",
    "compare": "msmae.verbs.compare",
    "budget": "msmae.verbs.budget",
    "export": "msmae.verbs.export",
    "masks": "msmae.verbs.masks",
    "load": "msmae.inference.model",
    "Model": "msmae.inference.model",
    "plan_patches": "msmae.method.masking",
    "PatchPlan": "msmae.method.masking",
    "MapBank": "msmae.method.attention",
    "patch_maps": "msmae.method.attention",
    "VisionTransformer": "msmae.method.vit",
    "MSMAE": "msmae.method.msmae",
    "msmae_loss": "msmae.method.msmae",
    "Classifier": "msmae.method.classifier",
    "Segmenter": "msmae.method.segmenter",
    "open_dataset": "msmae.data.tables.layouts",
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
    from msmae.data.manifest import Manifest
    from msmae.data.tables.layouts import open_dataset
    from msmae.inference.model import Model, load
    from msmae.method.attention import MapBank, patch_maps
    from msmae.method.classifier import Classifier
    from msmae.method.masking import PatchPlan, plan_patches
    from msmae.method.msmae import MSMAE, msmae_loss
    from msmae.method.segmenter import Segmenter
    from msmae.method.vit import VisionTransformer
    from msmae.verbs.budget import budget
    from msmae.verbs.compare import compare
    from msmae.verbs.demo import demo
    from msmae.verbs.evaluate import evaluate
    from msmae.verbs.export import export
    from msmae.verbs.finetune import finetune
    from msmae.verbs.masks import masks
    from msmae.verbs.predict import predict
    from msmae.verbs.pretrain import pretrain
    from msmae.verbs.run import run
    from msmae.verbs.segment import segment
