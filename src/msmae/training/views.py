"""Which patches a step of fine-tuning sees: all, a share of them that chance or the map draws, or the arm's own.

What is coarse and fine is seen through a selection: ``coarse.py``.
"""

from __future__ import annotations

from msmae.method.classifier import Classifier
from msmae.method.cost import classifier_macs
from msmae.method.masking import Draw
from msmae.method.vit import VisionTransformer
from msmae.selection.locator import tokens_for
from msmae.training.prepare import Prepared

HINTS = {"half": 0.5, "attention": 1.0}
"""``finetune.draw`` -> the share of the kept patches that the map draws; the rest is drawn uniformly."""
SHARE = 0.25
"""Share of the patches that is kept unless ``finetune.share`` says another."""
CYCLE = (0.25, 0.25, 0.25, 0.5)
"""Shares kept by one batch after another under ``finetune.share`` mixed."""
WHOLE = 1 / 8
"""Share of the steps, the last ones, in which ``mixed`` sees all patches, and a quarter beside them."""


def draw_for(prepared: Prepared, share: float) -> Draw | None:
    """How fine-tuning draws the patches that it keeps; None: it sees all of them.

    Maps are the image's own, or another image's where the arm is the control that uses these. The arm's own draw keeps
    what its masking keeps, whatever the share.
    """
    kind = prepared.settings.finetune.draw
    if kind in ("all", "coarse"):
        return None
    if kind == "own":
        return prepared.draw
    if kind == "uniform":
        return Draw(masked=0.0, dropped=1 - share, map="none")
    return Draw(masked=0.0, dropped=1 - share, hints=HINTS[kind], map="other" if prepared.arm.map == "other" else "own")


def share_of(prepared: Prepared, batch: int) -> float:
    """The share of the patches that the batch of this number in its epoch keeps."""
    share = prepared.settings.finetune.share
    return CYCLE[batch % len(CYCLE)] if share == "mixed" else SHARE if share is None else share


def views(prepared: Prepared) -> list[tuple[float, Draw | None]]:
    """What the network is run on in fine-tuning: how often a step, and on which draw; None: all patches."""
    if prepared.settings.finetune.share != "mixed":
        return [(1.0, draw_for(prepared, share_of(prepared, 0)))]
    batches = [((1 - WHOLE) / len(CYCLE), draw_for(prepared, share)) for share in CYCLE]
    return [*batches, (WHOLE, None), (WHOLE, draw_for(prepared, CYCLE[0]))]


def tokens_seen(prepared: Prepared, encoder: VisionTransformer) -> dict[int | None, float]:
    """The numbers of tokens that fine-tuning runs the network on (None: all patches) -> how often a step."""
    if prepared.settings.finetune.draw == "coarse":
        return {tokens_for(encoder, prepared.settings.finetune.share): 1.0}
    patches = encoder.patches
    found: dict[int | None, float] = {}
    for often, draw in views(prepared):
        kept = None if draw is None else draw.counts(patches)[2]
        found[kept] = found.get(kept, 0.0) + often
    return found


def finetuning_macs(prepared: Prepared, classifier: Classifier) -> float:
    """Multiply-accumulates of the forward passes of one image in a step of fine-tuning, the mean over the steps."""
    seen = tokens_seen(prepared, classifier.encoder)
    return sum(often * classifier_macs(classifier, kept).total for kept, often in seen.items())


def follows_maps(prepared: Prepared) -> bool:
    """Whether fine-tuning needs attention maps."""
    return any(draw is not None and draw.follows_maps for _, draw in views(prepared))
