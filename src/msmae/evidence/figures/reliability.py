"""The reliability diagram: what the model said, against how often it was so."""

from __future__ import annotations

import numpy as np
import pandas as pd

from msmae.evidence.figures.canvas import FAINT, SERIES, panel, to_svg, unit_square
from msmae.evidence.figures.curves import short


def reliability_figure(bins: pd.DataFrame, *, of: str | None = None) -> str:
    """SVG of the rows of `evidence.reliability.reliability`: a dot a bin with its 95 % interval, area by images.

    ``of`` names the class whose probability it is; None: the probability of the model's first choice.
    """
    what = "of the first choice" if of is None else f"of {short(of)}"
    share = bins["images"] / bins["images"].sum()
    with panel() as axes:
        unit_square(axes, x=f"stated probability {what}", y="how often it was so")
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
        axes.vlines(bins["probability"], bins["low"], bins["high"], color=SERIES[0], linewidth=1.2)
        axes.scatter(
            bins["probability"], bins["observed"], s=12 + 160 * share, color=SERIES[0], linewidth=0, clip_on=False
        )
        axes.text(0.04, 0.93, "says too little", color=FAINT, fontsize=8, va="top")
        axes.text(0.96, 0.06, "too sure", color=FAINT, fontsize=8, ha="right")
        return to_svg(axes, alt=f"Reliability diagram: stated probability {what} against the observed share")


def biggest_gap(bins: pd.DataFrame) -> tuple[float, float, int]:
    """Stated probability, observed share and images of the bin whose gap weighs most."""
    stated, seen, images = (bins[name].to_numpy() for name in ("probability", "observed", "images"))
    worst = int(np.argmax(np.abs(stated - seen) * images))
    return float(stated[worst]), float(seen[worst]), int(images[worst])
