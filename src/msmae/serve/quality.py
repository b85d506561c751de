"""What about an image makes its answer less sure: short codes, which the page and the documentation spell out."""

from __future__ import annotations

import numpy as np

from msmae.runs.cards import ModelCard

FLAGS = {
    "doubtful": "No class is as likely as the right ones of the validation images were.",
    "flat": "The image is almost one grey level.",
    "unusual_brightness": "The image is far brighter or darker than the training images.",
    "small": "The image is smaller than what the model reads, and was enlarged.",
    "squeezed": "The image has other proportions than what the model reads, and was squeezed.",
    "colour_dropped": "The image is in colour, and the model reads grey.",
}


def flags_of(
    array: np.ndarray, own: tuple[int, int], *, colour: bool, card: ModelCard, doubtful: bool = False
) -> list[str]:
    """Codes of ``FLAGS`` that hold for an image [C, H, W] in the file's units, of ``own`` height and width in the file.

    Doubtful: no class reaches the level of the conformal sets, so that the set holds the likeliest only for want of a
    better. Flat: the standard deviation is less than a twentieth of the training pixels'. Unusual brightness: the mean
    lies more than two and a half standard deviations of the training pixels from theirs. Squeezed: by more than 1.5 to
    1.
    """
    values = array.reshape(len(array), -1).astype(np.float64)
    mean, spread = np.array(card.usual[0]), np.maximum(np.array(card.usual[1]), 1e-12)
    height, width = card.image_size
    proportion = (own[1] / own[0]) / (width / height)
    found = {
        "doubtful": doubtful,
        "flat": bool((values.std(axis=1) < spread / 20).all()),
        "unusual_brightness": bool((np.abs(values.mean(axis=1) - mean) > 2.5 * spread).any()),
        "small": own[0] < height or own[1] < width,
        "squeezed": not 1 / 1.5 <= proportion <= 1.5,
        "colour_dropped": colour and card.channels == 1,
    }
    return [name for name, holds in found.items() if holds]
