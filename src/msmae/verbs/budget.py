"""``msmae budget``: what a model may leave unseen. Measured on validation, chosen there, and told on test."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from msmae.config import require
from msmae.errors import UserError, nearest
from msmae.evaluation.keep import check_answers, forget_measured, forget_selection, measure, points_of
from msmae.inference.model import Model, load
from msmae.runs.checkpoint import no_model
from msmae.runs.folder import read_run
from msmae.runs.lock import held
from msmae.selection.selectors import SELECTORS, WHOLE, share_for
from msmae.training.prepare import prepare_again
from msmae.training.selecting.adapt import adapt_model, glances

RATIOS = ["0.125", "0.25", "0.375", "0.5", "0.75"]
DROPPING = [name for name in SELECTORS if name != "all"]


def budget(
    run: str,
    *,
    margin: float = 0.005,
    presentations: int | None = None,
    ratios: list[str] = RATIOS,
    selectors: list[str] = DROPPING,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Prepare a run's model for dropping patches, measure what that costs and saves, and choose what `auto` keeps.

    Writes RUN/budget.json, and the choice into the model's card; predictions from all patches stay what they were. The
    choice is made on the validation images: the fastest point whose loss of balanced accuracy is below the margin, with
    its whole paired 95 % interval. If there is none, `auto` keeps all patches.

    Args:
        run: folder of a finished run.
        margin: balanced accuracy that may be given up, as a fraction.
        presentations: images shown to prepare the model, if it is not prepared yet. Unless given: twice as many as in
            fine-tuning; none if fine-tuning mixed the token shares. 0: measure the model as it is.
        ratios: token shares to measure.
        selectors: what chooses the patches: random, grid, self, early, merge, smaller or locator.
        overwrite: prepare and measure again.

    Returns:
        The content of budget.json.

    Raises:
        UserError: the run holds no classifier, one that answers the same for every image, or its budget was measured
            already.
    """
    folder, shares = Path(run), sorted({share_of(ratio) for ratio in ratios})
    require(margin >= 0, f"{margin} is negative", where="--margin", mend="give 0 or more, as a fraction")
    if presentations is not None:
        require(presentations >= 0, f"{presentations} is negative", where="--presentations", mend="give 0 or more")
    for name in selectors:
        require(name in DROPPING, f"no selector '{name}'", where="--selectors", mend=nearest(name, DROPPING))
    if not (folder / "model").is_dir():
        raise no_model(folder)
    with held(folder):
        return _budget(
            folder,
            margin=margin,
            presentations=presentations,
            shares=shares,
            selectors=list(selectors),
            overwrite=overwrite,
        )


def _budget(
    folder: Path,
    *,
    margin: float,
    presentations: int | None,
    shares: list[float],
    selectors: list[str],
    overwrite: bool,
) -> dict[str, Any]:
    """``budget`` of a run with a model, whose folder is held."""
    config, settings = read_run(folder)
    if config.get("task") == "segmentation":
        raise UserError("outlining needs every patch", where=str(folder), mend="name the run of a classifier")
    if (folder / "budget.json").is_file() and not overwrite:
        raise UserError(
            "the run's budget is measured already", where=str(folder), mend="add --overwrite to do it again"
        )
    model = load(folder)
    if presentations is None and settings.finetune.share == "mixed":
        print("fine-tuning mixed the token shares: the model is measured as it is (--presentations N prepares a copy)")
        presentations = 0
    if model.card.members > 1 or model.card.mirrored:
        mend = "train one model, without --folds" if model.card.members > 1 else "`msmae evaluate RUN --mirror off`"
        raise UserError("averaged answers are of whole images", where=str(folder), mend=mend)
    if own := bool(model.card.keep.get("own")):
        require(
            not presentations, "the model sees coarse and fine already", where="--presentations", mend="leave it out"
        )
        print("the model sees coarse and fine: it is measured as it is, against the share it was fine-tuned on")
        presentations = 0
    check_shares(
        model, shares, selectors, prepared=presentations != 0 or (model.prepared is not None and not overwrite)
    )
    prepared = prepare_again(folder)
    check_answers(model, prepared)
    if overwrite:
        (forget_measured if own else forget_selection)(folder)
    if presentations != 0 and load(folder).prepared is None:
        adapt_model(prepared, folder, presentations=presentations)
    points = points_of(load(folder), shares=shares, selectors=selectors)
    content = measure(folder, prepared, margin=margin, points=points)
    show(content)
    return content


def share_of(ratio: float | str) -> float:
    """A share to measure. Raises ``UserError`` unless it is a number between 0 and 1, both excluded."""
    try:
        share = float(ratio)
    except ValueError:
        share = 0.0
    require(0 < share < 1, f"'{ratio}' is no share", where="--ratios", mend="give numbers above 0 and under 1")
    return share


def check_shares(model: Model, shares: list[float], selectors: list[str], *, prepared: bool) -> None:
    """Refuse what leaves nothing to measure before anything is removed or trained: no share with a patch beside the
    largest glance of a model that is ``prepared``, or will be; of one that is not, the locator alone.
    """
    if set(selectors) == {"locator"} and not prepared:
        raise UserError("without preparing there is no locator", where="--presentations", mend="leave it out")
    encoder, with_glance = model.network.encoder, prepared and not set(WHOLE) & set(selectors)
    least = 1 + (max(math.prod(glance) for glance in glances(encoder)) if with_glance else 0)
    require(
        max(shares) * encoder.patches >= least,
        "these shares leave no patch to look at",
        where="--ratios",
        mend=f"give one of at least {share_for(least, encoder.patches):.4f}",
    )


def show(content: dict[str, Any]) -> None:
    """Print the curve, the choice, and what it did on test."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="what fewer patches cost, on validation images", title_justify="left")
    for heading in ("selector", "keep", "GMAC", "images/s", "times", "balanced accuracy", "lost, points [95 %]"):
        table.add_column(heading, justify="left" if heading == "selector" else "right")
    for row in content["rows"]:
        interval = "" if row["high"] is None else f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        lost = "" if row["loss"] is None else f"{100 * row['loss']:.1f}{interval}"
        table.add_row(
            row["selector"], f"{row['keep']:g}", f"{row['gmacs']:.4g}", f"{row['images_per_s']:.0f}",
            f"{row['speedup']:.2f}", f"{100 * row['balanced_accuracy']:.1f} %", lost,
        )  # fmt: skip
    Console().print(table)
    for sentence in content["rival"]:
        print(sentence)
    choice = content["choice"]
    print(f"auto: {choice['selector']}, keep {choice['keep']:g}, {choice['speedup']:.1f} times as fast", end="")
    print(
        "" if choice["speedup"] != 1 else "; for no other point the whole 95 % interval of the loss is below the margin"
    )
    for sentence in (choice["test"] or {}).get("cautions", []):
        print(f"- {sentence}")
