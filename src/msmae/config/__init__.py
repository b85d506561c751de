"""Arms, settings, and how presets, files and options are layered into settings."""

from msmae.config.arms import ARMS, BASELINES, RETIRED, Arm, arm_of_run, find_arm
from msmae.config.bounds import require
from msmae.config.contradictions import check_adaptation, check_ensemble, check_method, check_used
from msmae.config.layers import GROUPS, as_of_today, make_settings, merge_layers, preset_layer, presets, read_settings
from msmae.config.settings import (
    DatasetSettings,
    EvaluateSettings,
    FinetuneSettings,
    ModelSettings,
    PretrainSettings,
    SegmentSettings,
    Settings,
    TrainerSettings,
    check_patch_size,
)

__all__ = [
    "ARMS",
    "BASELINES",
    "GROUPS",
    "RETIRED",
    "Arm",
    "DatasetSettings",
    "EvaluateSettings",
    "FinetuneSettings",
    "ModelSettings",
    "PretrainSettings",
    "SegmentSettings",
    "Settings",
    "TrainerSettings",
    "arm_of_run",
    "as_of_today",
    "check_adaptation",
    "check_ensemble",
    "check_method",
    "check_used",
    "check_patch_size",
    "find_arm",
    "make_settings",
    "merge_layers",
    "preset_layer",
    "presets",
    "read_settings",
    "require",
]
