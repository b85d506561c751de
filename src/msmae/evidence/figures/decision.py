"""The decision curve: what acting on the model is worth, against acting on everybody or on nobody."""

from __future__ import annotations

import pandas as pd

from msmae.evidence.figures.canvas import DASHES, FAINT, SERIES, panel, to_svg
from msmae.evidence.figures.curves import short


def decision_figure(curve: pd.DataFrame, *, of: str) -> str:
    """SVG of the table that `evidence.decision.decision_curve` gives for the class ``of``."""
    best = max(curve["treat_all"].max(), curve["model"].max(), 0.02)
    with panel() as axes:
        at = curve["threshold"]
        if curve["low"].notna().all():
            axes.fill_between(at, curve["low"], curve["high"], color=SERIES[0], alpha=0.14, linewidth=0)
        axes.plot(at, curve["model"], color=SERIES[0], linestyle=DASHES[0], label="act on the model")
        axes.plot(at, curve["treat_all"], color=SERIES[1], linestyle=DASHES[1], label="act on everybody")
        axes.plot(at, curve["treat_none"], color=FAINT, linestyle=DASHES[3], label="act on nobody")
        axes.set(xlim=(0, 1), ylim=(-0.25 * best, 1.1 * best))
        axes.set(xlabel=f"risk of {short(of)} at which one would act", ylabel="net benefit an image")
        axes.legend(loc="upper right")
        return to_svg(axes, alt=f"Decision curve of {of}")
