"""Whether the attention maps of a comparison's arms find the lesion while they are learned (map_quality.csv)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmae.reporting.comparison.files import ComparisonFiles
from msmae.reporting.figures.canvas import DASHES, FAINT, SERIES, panel, to_svg
from study_tables.markdown import table

FILE = "map_quality.csv"
FIGURES = {
    "auroc": "AUROC of the map against the lesion",
    "pointing": "most attended patch on the lesion, %",
    "masked": "lesion patches masked by a draw from it, %",
    "kept": "lesion patches kept, %",
}
ABOUT = (
    "Halfway through pre-training → at its end; means over seeds (least to largest). A map that knows nothing has an "
    "AUROC of 0.5; where lesions lie in the middle, a fixed map of the centre is the control."
)


@dataclass(frozen=True)
class History:
    """The maps of an arm over pre-training: the epochs that all its runs have, and figure -> [runs, epochs]."""

    epochs: tuple[int, ...]
    values: dict[str, np.ndarray]


def histories(files: ComparisonFiles) -> dict[str, History]:
    """By arm, for those all of whose runs were watched."""
    found = {}
    for arm, seeds in files.runs.items():
        paths = [run.folder / FILE for folds in seeds for run in folds]
        if not all(path.is_file() for path in paths):
            continue
        tables = [pd.read_csv(path).groupby("epoch").last() for path in paths]
        epochs = sorted(set.intersection(*(set(one.index) for one in tables)))
        values = {name: np.array([one.loc[epochs, name] for one in tables]) for name in FIGURES}
        found[arm] = History(tuple(int(epoch) for epoch in epochs), values)
    return found


def table_of(files: ComparisonFiles) -> str:
    """A row an arm; nothing where none was watched."""
    rows = [
        [arm, *(then_and_now(history.values[name], 1 if name == "auroc" else 100) for name in FIGURES)]
        for arm, history in histories(files).items()
    ]
    return table(["arm", *FIGURES.values()], rows) if rows else ""


def then_and_now(values: np.ndarray, factor: int) -> str:
    """Halfway and at the end, of [runs, epochs]: ``0.610 → 0.700 (0.680 to 0.710)``."""
    digits = 3 if factor == 1 else 1
    halfway, end = factor * values[:, values.shape[1] // 2], factor * values[:, -1]
    first, last, low, high = (f"{one:.{digits}f}" for one in (halfway.mean(), end.mean(), end.min(), end.max()))
    return f"{first} → {last}" + (f" ({low} to {high})" if len(end) > 1 else "")


def figure(files: ComparisonFiles, alt: str) -> str:
    """An SVG of the AUROC over the epochs: the mean of an arm's runs, a band from their least to their largest, and at
    0.5 a map that knows nothing. Nothing where no arm was watched.
    """
    known = histories(files)
    if not known:
        return ""
    with panel(5.6, 3.6) as axes:
        axes.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=":")
        for place, (name, history) in enumerate(known.items()):
            colour, dashes = SERIES[place % len(SERIES)], DASHES[(place + place // len(SERIES)) % len(DASHES)]
            values = history.values["auroc"]
            axes.plot(history.epochs, values.mean(axis=0), color=colour, linestyle=dashes, label=name)
            if len(values) > 1:
                low, high = values.min(axis=0), values.max(axis=0)
                axes.fill_between(history.epochs, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set(xlabel="epochs of pre-training", ylabel=FIGURES["auroc"])
        axes.locator_params(axis="x", integer=True)
        axes.legend(loc="best")
        return to_svg(axes, alt=alt)
