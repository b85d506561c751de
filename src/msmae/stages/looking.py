"""What ``keep`` and ``selector`` mean for a model: one place for every verb that predicts."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Literal

from msmae.errors import UserError
from msmae.exchange.checkpoint import ModelCard
from msmae.look.selectors import SELECTORS, Look
from msmae.method.transfer import Classifier

if TYPE_CHECKING:
    from msmae.stages.predictor import Model

Keep = float | Literal["auto"]
log = logging.getLogger("msmae")
PREPARE = "`msmae budget RUN` prepares a model, measures what it loses, and chooses"


def share_and_selector(model: Model, keep: Keep, selector: str | None) -> tuple[float, str]:
    """The share of the tokens to encode, in (0, 1], and what chooses them.

    Warns where patches are dropped by a model that was never prepared for it (one fine-tuned with ``draw=own`` saw
    others: the least attended).

    Raises:
        UserError: a share outside (0, 1], "auto" without a choice, or a selector that is unknown or not prepared.
    """
    if selector is not None and selector not in SELECTORS:
        raise UserError(f"no selector '{selector}'", where="selector", mend=f"choose one of {', '.join(SELECTORS)}")
    if keep == "auto":
        choice = model.card.keep.get("choice")
        if not choice:
            raise UserError("keep is auto, and nothing was chosen for this model", where="keep", mend=PREPARE)
        keep, selector = choice["keep"], selector or choice["selector"]
    if not isinstance(keep, (int, float)) or not 0 < keep <= 1:
        raise UserError(f"keep is {keep}", where="keep", mend="give a share above 0, at most 1")
    if keep == 1 or selector == "all":
        return 1.0, "all"
    if model.prepared is None:
        if selector == "locator":
            raise UserError("this model has no locator", where="selector", mend=PREPARE)
        if not model.warned:
            log.warning("this model was never prepared for dropping patches: expect it to lose; %s", PREPARE)
        model.warned = True
    return float(keep), selector or (model.prepared.selector if model.prepared else "self")


def calibration_at(card: ModelCard, share: float, selector: str) -> dict[str, Any]:
    """What calibrates the answers from a share of the tokens: what was fitted to them; at a share that was not
    measured, to the nearest of the same selector; else to all patches. Empty: nothing was fitted.
    """
    fitted = [point for point in card.keep.get("calibrations", []) if point["selector"] == selector]
    if selector == "all" or not fitted:
        return card.calibration
    nearest: dict[str, Any] = min(fitted, key=lambda point: abs(point["keep"] - share))["calibration"]
    return nearest


def look_with(network: Classifier, prepared: Look | None, selector: str) -> Look:
    """The look of a selector: around the prepared weights where patches are never embedded, around the model's own
    where all patches pass the first blocks."""
    if selector in ("all", "early", "merge") or prepared is None:
        return Look(network, selector=selector).eval()
    if selector == prepared.selector:
        return prepared
    return Look(prepared.model, selector=selector, glance=prepared.glance, guide=network).eval()


def share_for(tokens: int, patches: int) -> float:
    """The least share, of four digits, that keeps so many tokens."""
    return math.ceil(1e4 * tokens / patches) / 1e4


def kept_tokens(look: Look, share: float) -> int:
    """How many tokens a share keeps. Raises ``UserError`` where no patch is left."""
    patches = look.model.encoder.patches
    kept = math.floor(share * patches + 1e-9)
    if kept <= look.coarse:
        coarse = f", and the glance takes {look.coarse}" if look.coarse else ""
        raise UserError(
            f"keep {share} of {patches} patches is {kept or 'none'}{coarse}",
            where="keep",
            mend=f"at least {share_for(look.coarse + 1, patches):.4f}",
        )
    return kept
