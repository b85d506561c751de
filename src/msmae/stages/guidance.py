"""What guides an arm's masks: the map it makes of an image, the plan it draws from a map, and what a map costs."""

from __future__ import annotations

import torch
from torch import Tensor

from msmae.config.arms import Arm
from msmae.config.settings import PretrainSettings
from msmae.look.cost import rollout_macs, sensitivity_macs
from msmae.look.rollout import rollout_maps
from msmae.look.sensitivity import sensitivity, widened
from msmae.method.attention import patch_maps
from msmae.method.cost import Macs, map_macs
from msmae.method.masking import PatchPlan, plan_patches, tempered
from msmae.method.msmae import MSMAE
from msmae.method.transfer import Classifier
from msmae.stages.hints import plan_with_hints
from msmae.stages.map_quality import Draw


def maps_of_arm(arm: Arm, model: MSMAE | Classifier, images: Tensor) -> Tensor:
    """Whole normalised images [B, C, H, W] -> the arm's maps [B, h, w] in [0, 1]."""
    if arm.maps == "attention":
        return patch_maps(model.encoder, images)
    if arm.maps == "rollout":
        return rollout_maps(model.encoder, images)
    telling = widened(sensitivity(model, images))  # [B, h, w]
    return telling / telling.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def plan_of_arm(
    arm: Arm, weights: Tensor, generator: torch.Generator | None = None, *, ratios: tuple[float, float]
) -> PatchPlan:
    """The arm's plan from aligned weights [B, h, w] and the shares (masked, thrown)."""
    if arm.hints:
        return plan_with_hints(weights, *ratios, hints=arm.hints, generator=generator)
    return plan_patches(weights, *ratios, generator)


def draw_of_arm(arm: Arm, settings: PretrainSettings) -> Draw:
    """How the arm's pre-training draws plans from maps [B, h, w]: tempered as its settings say, at their ratios."""
    ratios = settings.ratios(arm)

    def draw(maps: Tensor, generator: torch.Generator) -> PatchPlan:
        weights = tempered(maps, settings.temperature, settings.uniform_share)
        return plan_of_arm(arm, weights, generator, ratios=ratios)

    return draw


def map_price(arm: Arm, model: MSMAE | Classifier) -> Macs:
    """What one map of the arm costs; nothing where no map guides it."""
    if not arm.guided:
        return Macs(0, 0)
    if arm.maps == "gradient":
        return sensitivity_macs(model)
    return map_macs(model.encoder) if arm.maps == "attention" else rollout_macs(model.encoder)
