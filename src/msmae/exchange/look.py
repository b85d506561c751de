"""The part of a model that looks at some of an image, beside its model: ``keep.safetensors``, and ``keep`` in its card.

It holds a classifier's weights of its own, so what the model says of whole images does not depend on it.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from msmae.errors import UserError
from msmae.exchange.checkpoint import ModelCard, current_umask, write_card
from msmae.look.locator import Glance, Locator
from msmae.look.selectors import Look
from msmae.method.transfer import Classifier

FILE = "keep.safetensors"


def build_look(classifier: Classifier, described: dict[str, Any]) -> Look:
    """A look around a classifier, its locator and its glance with fresh weights.

    ``described``: ``selector``; ``locator`` {"width", "cell"} and ``glance`` [rows, columns], or None.
    """
    encoder = classifier.encoder
    locator, glance = described.get("locator"), described.get("glance")
    return Look(
        classifier,
        selector=described["selector"],
        locator=Locator(encoder, **locator) if locator else None,
        glance=Glance(encoder, (glance[0], glance[1])) if glance else None,
    )


def save_look(folder: Path, look: Look, card: ModelCard) -> None:
    """Write the weights into a saved model's folder, and the card, which already describes them, last."""
    unfinished = folder / f"{FILE}.part"
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in look.state_dict().items()}
    save_file(weights, unfinished, metadata={"format": "pt"})
    os.chmod(unfinished, 0o666 & ~current_umask())
    os.replace(unfinished, folder / FILE)
    write_card(folder, card)


def load_look(folder: Path, card: ModelCard, classifier: Classifier) -> Look | None:
    """The look of a saved model, in evaluation mode; None where it was never prepared.

    Raises:
        UserError: the weights are missing, damaged or of another model.
    """
    if not card.keep.get("selector"):
        return None
    look = build_look(copy.deepcopy(classifier), card.keep)
    path = folder / FILE
    mend = "copy the model again, or prepare it anew: `msmae budget RUN --overwrite`"
    try:
        look.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"the weights cannot be read: {error}", where=str(path), mend=mend) from error
    except RuntimeError as error:
        raise UserError("the weights do not fit the model", where=str(path), mend=mend) from error
    return look.eval()


def with_keep(card: ModelCard, **changes: Any) -> ModelCard:
    """The card with some of what it says of looking changed."""
    return replace(card, keep={**card.keep, **changes})
