"""The stages one at a time: ``msmae pretrain``, ``msmae finetune``, ``msmae evaluate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from msmae.config import find_arm, make_settings, merge_layers, require
from msmae.errors import UserError


def pretrain(
    data: str,
    *,
    out: str,
    method: str = "msmae",
    preset: str = "auto",
    config: str | None = None,
    seed: int = 0,
    init: str | None = None,
    overwrite: bool = False,
    allow_leakage: bool = False,
    **settings: Any,
) -> None:
    """Pre-train an encoder: RUN/pretrained. `msmae finetune RUN` goes on from it.

    Args:
        data: a folder, a CSV/TSV manifest, an .npz, or `phantom`.
        out: folder of the run; an unfinished one is continued.
        method: arm of the comparison; `vit` has no pre-training.
        preset: settings to start from: auto, cpu, gpu, tiny, or another shipped recipe.
        config: YAML file of settings that override the preset's.
        seed: seed of every random draw.
        init: encoder weights to start from (.pth or .safetensors with timm or facebookresearch/mae names).
        overwrite: throw away what the folder holds.
        allow_leakage: go on although test images or patients are in the pool; every report says so.
        settings: groups of settings to change, for instance ``pretrain={"epochs": 5}``.

    Raises:
        UserError: the data, a setting or the folder is not usable; nothing is half-written.
    """
    chosen = make_settings(preset, config, settings)
    require(seed >= 0, f"{seed} is negative", where="--seed", mend="give 0 or more")
    if not find_arm(method).pretrains:
        raise UserError(f"the arm {method} has no pre-training", where="--method", mend="choose another arm")
    from msmae.data.opening import divide
    from msmae.runs.folder import check_run, check_same_images, clear_run, describe_run, write_json
    from msmae.training.prepare import audit_before_run, prepare
    from msmae.training.pretrain import check_training, pretrain_model
    from msmae.verbs.show import show_notes

    folder = Path(out)
    check_run(folder, data=data, finished="pretrained", overwrite=overwrite)
    manifest = divide(data, settings=chosen, seed=seed)
    if not overwrite:
        check_same_images(folder, manifest, seed=seed, settings=chosen)
    show_notes(manifest.notes)
    found = audit_before_run(manifest, source=data, settings=chosen, allow=allow_leakage)
    prepared = prepare(manifest, settings=chosen, method=method, seed=seed, pretrain_only=True)
    check_training(prepared, init)
    if overwrite:
        clear_run(folder)
    given = {"init": init, "preset": preset, "allow_leakage": allow_leakage}
    describe_run(folder, data=str(data), method=method, seed=seed, settings=prepared.settings, given=given)
    prepared.manifest.write(folder / "manifest.csv")
    write_json(folder / "audit.json", found.to_dict())
    pretrain_model(prepared, folder, init=Path(init) if init else None)
    print(f"  pretrained       {folder / 'pretrained'}")


def finetune(run: str, *, overwrite: bool = False, **settings: Any) -> dict[str, Any]:
    """Fine-tune the pre-trained encoder of a run on the run's own splits, and evaluate it.

    Args:
        run: folder that `msmae pretrain` made.
        overwrite: train and evaluate again where that has been done.
        settings: groups of settings to change, for instance ``finetune={"epochs": 5}``.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: the run is not pre-trained, or is finished.
    """
    folder = Path(run)
    from msmae.evaluation.evaluate import evaluate_model
    from msmae.runs.checkpoint import only_pretrained, read_card
    from msmae.runs.folder import change_settings
    from msmae.training.finetune import finetune_model
    from msmae.training.prepare import prepare_again
    from msmae.training.pretrain import check_training
    from msmae.verbs.show import show_result

    if not (folder / "pretrained").is_dir():
        raise UserError("the run holds no pre-trained encoder", where=run, mend="`msmae pretrain DATA --out RUN` first")
    find_arm(read_card(folder / "pretrained").method)
    if not read_card(folder / "pretrained").classes:
        raise only_pretrained(folder)
    fixed = sorted(settings.keys() & {"dataset", "model", "pretrain"})
    if fixed:
        raise UserError(
            f"the run's {' and '.join(fixed)} settings are fixed by its pre-training", mend="start a new run"
        )
    if (folder / "model").is_dir() and not overwrite:
        raise UserError("the run is fine-tuned already", where=run, mend="add --overwrite to do it again")
    if (folder / "checkpoints" / "last.ckpt").is_file() and settings and not (folder / "model").is_dir():
        raise UserError("an unfinished fine-tuning goes on with its own settings", where=run, mend="name none")
    before = (folder / "config.yaml").read_text(encoding="utf-8")
    try:
        change_settings(folder, settings)
        prepared = prepare_again(folder)
        check_training(prepared, None)
    except UserError:
        (folder / "config.yaml").write_text(before, encoding="utf-8")
        raise
    if (folder / "model").is_dir():
        forget_model(folder)
    finetune_model(prepared, folder)
    metrics = evaluate_model(prepared, folder)
    show_result(metrics, folder)
    return metrics


def evaluate(
    run: str,
    data: str | None = None,
    *,
    out: str | None = None,
    keep: float | Literal["auto"] = 1.0,
    selector: str | None = None,
    answers: Literal["plain", "balanced"] = "plain",
    threshold: str | None = None,
    allow_leakage: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Evaluate a run's model again on its own splits; or on another data set, as an external test.

    Args:
        run: folder of a run with a model; predictions.csv and metrics.json are written anew unless DATA is given.
        data: a data set of another origin, on which the model is tested whole: every labelled image of it.
        out: folder for the evidence of the external test.
        keep: share of the tokens that are encoded, in (0, 1], or `auto`: what `msmae budget` chose. Under 1 the run's
            own splits are written to predictions_keep.csv and metrics_keep.json, and the run's evidence stays.
        selector: what chooses them: random, grid, self, early, merge or locator; the model's own unless given.
        answers: the rule whose figures are shown first: plain, the largest calibrated probability; balanced, the
            largest probability as trained, which finds more of rare classes. metrics.json holds both.
        threshold: CLASS=0.3 (several with commas): the probability from which a class is answered. The run keeps it;
            `none` removes it.
        allow_leakage: go on although images or patients of DATA are among those the model learned from.
        overwrite: replace the evidence that OUT holds.
        settings: for DATA: how it is laid out (``dataset={...}``), ``evaluate``, and ``model={"channels": n}`` to have
            images of another number of channels converted.

    Returns:
        The content of metrics.json.

    Raises:
        LeakageError: the model learned from images or patients of DATA.
        UserError: the run has no model, or DATA does not fit it: other classes or channels.
    """
    from msmae.runs.checkpoint import no_model
    from msmae.runs.folder import read_run

    folder = Path(run)
    if not (folder / "model").is_dir():
        raise no_model(folder, mend="finish the run first: repeat its `msmae run` command")
    segments = read_run(folder)[0].get("task") == "segmentation"
    if data is None:
        if out is not None or settings:
            given = "--out" if out is not None else f"--{next(iter(settings))}"
            raise UserError(f"{given} is for external data", mend="`msmae evaluate RUN DATA --out DIR`")
        return _evaluate_again(
            folder, segments=segments, keep=keep, selector=selector, answers=answers, threshold=threshold
        )
    if threshold is not None:
        raise UserError(
            "a threshold belongs to the run, and is chosen on its own images",
            where="--threshold",
            mend="`msmae evaluate RUN --threshold CLASS=0.3` first",
        )
    if segments:
        raise UserError("external tests are for classifiers", where=run, mend="`msmae predict` outlines new images")
    looking = {"keep": keep, "selector": selector}
    return _evaluate_external(
        folder, data, out, allow=allow_leakage, overwrite=overwrite, given=settings, looking=looking, answers=answers
    )


def _evaluate_again(
    folder: Path,
    *,
    segments: bool,
    keep: float | Literal["auto"],
    selector: str | None,
    answers: Literal["plain", "balanced"],
    threshold: str | None,
) -> dict[str, Any]:
    """Evaluate on the run's own splits."""
    from msmae.verbs.show import show_result

    if segments and (keep != 1 or selector):
        raise UserError("outlining needs every patch", where="--keep", mend="leave it out")
    if segments and (threshold is not None or answers != "plain"):
        option = "--answers" if threshold is None else "--threshold"
        raise UserError("a segmentation run answers no class", where=option, mend="leave it out")
    if keep != 1:
        from msmae.evaluation.evaluate import How, evaluate_kept
        from msmae.inference.model import load, share_and_selector
        from msmae.training.prepare import prepare_again

        if threshold is not None:
            raise UserError("a threshold is set on all patches", where="--threshold", mend="leave --keep out")
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
        metrics = evaluate_model(prepare_again(folder), folder, answers=answers, thresholds=thresholds)
    show_result(metrics, folder)
    return metrics


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
    if out is None:
        raise UserError("an external test needs a folder of its own", where="--out", mend="add --out DIR")
    target = Path(out)
    if (target / "config.yaml").is_file() and not (target / "model.json").is_file():
        raise UserError("this folder holds a run", where=out, mend="choose another --out")
    if (target / "metrics.json").is_file() and not overwrite:
        raise UserError("the folder holds an evaluation", where=out, mend="choose another --out, or add --overwrite")
    groups = {name: dict(v) if isinstance(v, dict) else asdict(v) for name, v in given.items()}
    fixed = sorted(groups.keys() - {"dataset", "evaluate", "model"})
    fixed += [f"model.{name}" for name in groups.get("model", {}) if name != "channels"]
    if fixed:
        raise UserError(f"the settings {', '.join(fixed)} are fixed by the run", mend="leave them out")
    from msmae.evaluation.external import evaluate_elsewhere
    from msmae.runs.folder import read_run
    from msmae.training.prepare import as_own_manifest
    from msmae.verbs.show import show_result

    _, trained = read_run(run)
    chosen = as_own_manifest(trained).to_dict()
    channels = groups.pop("model", {}).get("channels")
    settings = merge_layers([chosen, groups])
    metrics = evaluate_elsewhere(
        run, data, target, settings=settings, channels=channels, allow_leakage=allow, looking=looking, answers=answers
    )
    show_result(metrics, target)
    return metrics


def forget_model(folder: Path) -> None:
    """Remove a run's classifier and what was drawn from it; the pre-trained encoder stays."""
    import shutil

    from msmae.verbs.budget import forget_measured

    forget_measured(folder)
    shutil.rmtree(folder / "model")
    for name in ("metrics.json", "predictions.csv", "report.html", "model_card.md", "claim_2024.md", "tripod_ai.md"):
        (folder / name).unlink(missing_ok=True)
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        (folder / name).unlink(missing_ok=True)
