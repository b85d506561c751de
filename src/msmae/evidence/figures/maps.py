"""How well maps find lesions over pre-training, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from msmae.evidence.figures.canvas import DASHES, FAINT, SERIES, panel, to_svg
from msmae.evidence.figures.curves import short


def history_figure(curves: Mapping[str, tuple[Sequence[int], np.ndarray]], *, label: str, alt: str) -> str:
    """SVG of a line an arm over epochs: the mean of its runs [runs, epochs], and a band from their least to largest.

    The dotted line is a map that knows nothing (0.5).
    """
    with panel(5.6, 3.6) as axes:
        axes.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=":")
        for place, (name, (epochs, values)) in enumerate(curves.items()):
            colour, dashes = SERIES[place % len(SERIES)], DASHES[(place + place // len(SERIES)) % len(DASHES)]
            axes.plot(epochs, values.mean(axis=0), color=colour, linestyle=dashes, label=short(name))
            if len(values) > 1:
                axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
        axes.set(xlabel="epochs of pre-training", ylabel=label)
        axes.locator_params(axis="x", integer=True)
        axes.legend(loc="best")
        return to_svg(axes, alt=alt)
