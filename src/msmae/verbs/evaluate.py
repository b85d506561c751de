"""``msmae evaluate``: a run's model tested again on its own splits, or on data of another origin."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from msmae.config import DatasetSettings, merge_layers, require
from msmae.errors import UserError
from msmae.verbs.begin import check_keep


def evaluate(
    run: str,
    data: str | None = None,
    *,
    out: str | None = None,
    keep: float | Literal["auto"] = 1.0,
    selector: str | None = None,
    answers: Literal["plain", "balanced"] = "plain",
    threshold: str | None = None,
    mirror: Literal["on", "off"] | None = None,
    neighbours: int = 0,
    root: str | None = None,
    allow_leakage: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Evaluate a run's model again on its own splits, or on another data set as an external test.

    Args:
        run: folder of a run with a model; predictions.csv and metrics.json are written anew unless DATA is given.
        data: a data set of another origin. The model is tested on every labelled image of it.
        out: folder for the report and figures of the external test.
        keep: token share: the share of the patches that are encoded, in (0, 1], or `auto`: what `msmae budget` chose.
            Under 1 the results go to predictions_keep.csv and metrics_keep.json; the run's own files stay.
        selector: what chooses the patches: random, grid, self, early, merge, smaller or locator. Unless given: the
            model's own.
        answers: the rule whose figures are shown first. plain: the largest calibrated probability; balanced: the
            largest probability before calibration, which finds more of the rare classes. metrics.json holds both.
        threshold: CLASS=0.3: the answer is CLASS where its probability is 0.3 or more; separate several with commas.
            The run keeps it; `none` removes it.
        mirror: on: from now on, answers average the image and its mirror image (twice the time); off: undoes it.
        neighbours: writes this many nearest training images of each validation and test image to RUN/neighbours.csv;
            the report names those of wrong answers.
        root: where the folder of the run's data is now, if it was moved. RUN/manifest.csv then names it.
        allow_leakage: go on although images or patients of DATA were in the model's training or validation.
        overwrite: replace the files that OUT holds.
        settings: ``dataset={"unit": column}``, whose images get one answer together. For DATA also how it is laid out
            (``dataset={...}``), ``evaluate``, and ``model={"channels": n}`` to have images of another number of
            channels converted.

    Returns:
        The content of metrics.json.

    Raises:
        LeakageError: images or patients of DATA were in the model's training or validation.
        UserError: the run has no model, or DATA does not fit it: other classes or channels.
    """
    from msmae.runs.checkpoint import no_model
    from msmae.runs.folder import read_run
    from msmae.runs.lock import held
    from msmae.runs.moved import locate_images

    check_keep(keep, selector)
    require(neighbours >= 0, f"{neighbours} neighbours", where="--neighbours", mend="give 0 or more")
    folder = Path(run)
    if not (folder / "model").is_dir():
        raise no_model(folder)
    segments = read_run(folder)[0].get("task") == "segmentation"
    if data is None:
        unit = given_unit(settings)
        if out is not None or (settings and unit is None):
            given = "--out" if out is not None else f"--{next(iter(settings))}"
            raise UserError(f"{given} is for external data", mend="`msmae evaluate RUN DATA --out DIR`")
        with held(folder):  # what another command writes of the model meanwhile would be lost
            locate_images(folder, root)
            return _evaluate_again(
                folder,
                segments=segments,
                keep=keep,
                selector=selector,
                answers=answers,
                threshold=threshold,
                mirror=mirror,
                unit=unit,
                neighbours=neighbours,
            )
    if root is not None:
        raise UserError("the run's images are not read", where="--root", mend="leave it out, or leave DATA out")
    if neighbours:
        raise UserError("neighbours are of the run's own images", where="--neighbours", mend="leave it out")
    if threshold is not None:
        raise UserError(
            "a threshold belongs to the run, and is chosen on its own images",
            where="--threshold",
            mend="`msmae evaluate RUN --threshold CLASS=0.3` first",
        )
    if mirror is not None:
        raise UserError("it belongs to the run", where="--mirror", mend="`msmae evaluate RUN --mirror on` first")
    if segments:
        raise UserError("external tests are for classifiers", where=run, mend="`msmae predict` outlines new images")
    looking = {"keep": keep, "selector": selector}
    return _evaluate_external(
        folder, data, out, allow=allow_leakage, overwrite=overwrite, given=settings, looking=looking, answers=answers
    )


def given_unit(settings: dict[str, Any]) -> str | None:
    """The column given with --unit, where nothing else is given; None otherwise."""
    groups = {name: dict(v) if isinstance(v, dict) else asdict(v) for name, v in settings.items()}
    alone = groups.keys() == {"dataset"} and groups["dataset"].keys() == {"unit"}
    return str(groups["dataset"]["unit"]) if alone else None


def _evaluate_again(
    folder: Path,
    *,
    segments: bool,
    keep: float | Literal["auto"],
    selector: str | None,
    answers: Literal["plain", "balanced"],
    threshold: str | None,
    mirror: Literal["on", "off"] | None,
    unit: str | None,
    neighbours: int,
) -> dict[str, Any]:
    """Evaluate on the run's own splits."""
    from msmae.verbs.show import show_result

    some = keep != 1 or selector not in (None, own_selector(folder))
    if segments and some:
        raise UserError("outlining needs every patch", where="--keep", mend="leave it out")
    if neighbours and (segments or some):
        what = "neighbours are of a classifier that sees all patches"
        raise UserError(what, where="--neighbours", mend="leave it out")
    if unit is not None and (segments or some):
        raise UserError("units are for classifiers that see all patches", where="--unit", mend="leave it out")
    if some and mirror is not None:
        raise UserError("averaged answers are of whole images", where="--mirror", mend="leave one of them out")
    if segments and (threshold is not None or mirror is not None or answers != "plain"):
        option = "--threshold" if threshold is not None else "--mirror" if mirror is not None else "--answers"
        raise UserError("a segmentation run answers no class", where=option, mend="leave it out")
    if some:
        from msmae.evaluation.evaluate import How, evaluate_kept
        from msmae.inference.model import load, share_and_selector
        from msmae.training.prepare import prepare_again

        if threshold is not None:
            raise UserError(
                "a threshold is set on all patches", where="--threshold", mend="leave --keep and --selector out"
            )
        share, name = share_and_selector(load(folder), keep, selector)
        how = How(keep=share, selector=name)
        metrics = evaluate_kept(prepare_again(folder), folder, how, answers=answers)
        show_result(metrics, folder, files=("metrics_keep.json", "predictions_keep.csv"))
        return metrics
    if segments:
        from msmae.verbs.segment import evaluate_again

        metrics = evaluate_again(folder)
    else:
        from msmae.evaluation.evaluate import evaluate_model
        from msmae.runs.checkpoint import read_card
        from msmae.statistics.answers import read_thresholds
        from msmae.training.prepare import prepare_again

        thresholds = None if threshold is None else read_thresholds(threshold, read_card(folder / "model").classes)
        if mirror is not None:
            check_mirror(folder, mirror)
        prepared, before = prepare_again(folder, unit=unit), validated(folder)
        mirrored = None if mirror is None else mirror == "on"
        metrics = evaluate_model(prepared, folder, answers=answers, thresholds=thresholds, mirrored=mirrored)
        if mirror is not None:
            after = validated(folder)
            changes = [f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in before.keys() & after.keys()]
            print(f"- mirror {mirror}; on validation {', '.join(sorted(changes)) or 'nothing is known'}")
        if mirror is not None or threshold is not None:
            say_stale(folder)
        elif unit is not None:
            say_stale(folder, "hub")
        if neighbours:
            from msmae.evaluation.neighbours import write_neighbours
            from msmae.inference.model import load

            print(f"  neighbours       {write_neighbours(folder, load(folder), prepared, neighbours)}")
    show_result(metrics, folder)
    return metrics


def own_selector(run: Path) -> str:
    """How the run's model chooses patches unless told otherwise."""
    from msmae.inference.model import own_way
    from msmae.runs.checkpoint import read_card

    return own_way(read_card(run / "model"))[1]


def check_mirror(run: Path, mirror: str) -> None:
    """Raise ``UserError`` where mirror images make no sense, or nothing would change."""
    from msmae.files import read_mapping
    from msmae.runs.checkpoint import read_card
    from msmae.runs.folder import read_run

    card, settings, path = read_card(run / "model"), read_run(run)[1], run / "metrics.json"
    told = read_mapping(path, mend="repeat its `msmae run` command").get("averaged") if path.is_file() else ""
    measured = "mirror" in str(told or "")  # not yet, where the command was killed: then it goes on
    if card.mirrored == measured == (mirror == "on"):
        raise UserError(f"it is {mirror} already", where="--mirror", mend="leave it out")
    if mirror == "on" and settings.finetune.flip == 0:
        what = "the model has never seen a mirror image (finetune.flip 0)"
        raise UserError(what, where="--mirror", mend="leave it out")
    if mirror == "on" and {"own", "selector", "choice"} & card.keep.keys():
        what = "averaged answers are of whole images, and the model has a token share"
        raise UserError(what, where="--mirror", mend="leave it out")


def say_stale(run: Path, *formats: str) -> None:
    """Name the exports in a run's folder, of these formats or of all: they answer as the model did."""
    from msmae.verbs.export import FILES

    places = [folder / name for folder in (run, run / "model") for name in (FILES[one] for one in formats or FILES)]
    if stale := [str(place) for place in places if place.exists()]:
        print(f"- earlier exports still give the earlier answers, export them again: {', '.join(stale)}")


def validated(run: Path) -> dict[str, float]:
    """Those of a run's validation figures that are compared where answers are mirrored; empty where there are none."""
    from msmae.files import read_mapping

    path = run / "metrics.json"
    splits = read_mapping(path, mend="repeat its `msmae run` command")["splits"] if path.is_file() else {}
    figures = splits.get("val", {}).get("metrics", {})
    known = {name: figures.get(name, {}).get("value") for name in ("log_loss", "balanced_accuracy", "auroc")}
    return {name: value for name, value in known.items() if value is not None}


def _evaluate_external(
    run: Path,
    data: str,
    out: str | None,
    *,
    allow: bool,
    overwrite: bool,
    given: dict[str, Any],
    looking: dict[str, Any],
    answers: Literal["plain", "balanced"],
) -> dict[str, Any]:
    """Check the options of an external test, and make it."""
    from msmae.runs.checkpoint import read_card
    from msmae.runs.folder import check_output, read_run

    if out is None:
        raise UserError("an external test needs a folder of its own", where="--out", mend="add --out DIR")
    target = Path(out)
    check_output(target, overwrite=overwrite, writes=("metrics.json", "report.html"))
    groups = {name: dict(v) if isinstance(v, dict) else asdict(v) for name, v in given.items()}
    fixed = sorted(groups.keys() - {"dataset", "evaluate", "model"})
    fixed += [f"model.{name}" for name in groups.get("model", {}) if name != "channels"]
    dataset, usual = groups.get("dataset", {}), asdict(DatasetSettings())
    _, trained = read_run(run)
    ordered = {name: dataset.pop(name) for name in ("class_order", "ordinal") if name in dataset}
    same = {"class_order": ";".join(read_card(run / "model").classes), "ordinal": trained.dataset.ordinal}
    fixed += [f"dataset.{name}" for name, value in ordered.items() if value not in (usual[name], same[name])]
    if fixed:
        raise UserError(f"the settings {', '.join(fixed)} are fixed by the run", mend="leave them out")
    from msmae.evaluation.external import evaluate_elsewhere
    from msmae.training.prepare import as_own_manifest
    from msmae.verbs.show import show_result

    chosen = as_own_manifest(trained).to_dict()
    chosen["dataset"]["unit"] = "auto"  # the data need not have the run's column
    channels = groups.pop("model", {}).get("channels")
    settings = merge_layers([chosen, groups])
    metrics = evaluate_elsewhere(
        run, data, target, settings=settings, channels=channels, allow_leakage=allow, answers=answers, **looking
    )
    show_result(metrics, target)
    return metrics
