"""``msmae run``: from labelled images to a tested model, in one command that can be killed and repeated."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from msmae.config import check_ensemble, check_method, check_used, find_arm
from msmae.runs.lock import alone
from msmae.verbs.begin import (
    TRAINING,
    Asked,
    as_recorded,
    audited,
    check_classifier,
    check_folder,
    check_machine,
    known_to_start,
    open_data,
    settings_of,
    write_start,
)

FINISHED = ("metrics.json", "report.html", "tripod_ai.md")
"""What a run ends with, in this order: one that was killed between them goes on."""


@alone("out")
def run(
    data: str,
    *,
    out: str,
    method: str | None = None,
    preset: str | None = None,
    config: str | None = None,
    seed: int | None = None,
    init: str | None = None,
    minutes: float | None = None,
    folds: int | None = None,
    ensemble: bool = False,
    overwrite: bool = False,
    allow_leakage: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Pre-train, fine-tune and evaluate: a labelled data set in, a tested model and its evidence out.

    Args:
        data: a folder, a CSV/TSV manifest, an .npz, or `phantom`.
        out: folder of the run; an unfinished run in it is continued.
        method: the arm, that is, how the model is trained: vit, mae, supmae, amt, msmae, msmae-shuffled,
            msmae-released; with --init also probe, probe-knn, probe-attentive. Unless given: vit with --init, else
            msmae.
        preset: settings to start from: auto, cpu, gpu, tiny, or another shipped recipe. Unless given: auto.
        config: YAML file of settings that override the preset's. Of a run's config.yaml also method, init, seed, preset
            and folds are taken, unless given here.
        seed: seed of every random draw. Unless given: 0.
        init: a pretrained encoder to start from: a name of `msmae encoders`, a file or folder of weights, another run;
            `none`: random weights.
        minutes: how long the whole command may take on this machine, from the audit to the report (needs --init). It
            decides image size and epochs, which are written to config.yaml. With --init it is 15, unless image size
            and epochs are both set.
        folds: with --ensemble, the number of models. For a cross-validation use `msmae compare --folds`.
        ensemble: train --folds models, each validated on a fold of its own; the mean of their probabilities answers.
        overwrite: first delete all that the folder holds, also an earlier run.
        allow_leakage: go on although test images or patients are also in training or validation; every report says so.
        settings: groups of settings to change, for instance ``pretrain={"epochs": 5}``.

    Returns:
        The content of metrics.json; nothing in the helper processes of distributed training.

    Raises:
        LeakageError: test images or patients are also in training or validation.
        UserError: the data, a setting or the folder is not usable; nothing is half-written.
    """
    began = time.monotonic()
    known = as_recorded(config, preset=preset, seed=seed, init=init, method=method, folds=folds)
    preset, seed, init, method = (known[name] for name in ("preset", "seed", "init", "method"))
    ensemble, folds = ensemble or (folds is None and known["folds"] is not None), known["folds"]
    named, method = method is not None, method or ("vit" if init else "msmae")
    find_arm(method)
    check_folder(out, data, finished=FINISHED, overwrite=overwrite)
    chosen, start = settings_of(preset, config, settings, groups=TRAINING, seed=seed, weights=init)
    check_method(chosen, method, started=start is not None, minutes=minutes)
    check_ensemble(chosen, method, folds=folds, ensemble=ensemble, named=named)
    check_used(settings, chosen, [method])
    asked = Asked(
        data, Path(out), chosen, start, seed=seed, overwrite=overwrite, allow_leakage=allow_leakage, preset=preset,
        init=init, folds=folds or 0,
    )  # fmt: skip
    check_machine(asked)
    from msmae.evaluation.train_and_test import train_and_test
    from msmae.runs.folder import is_helper_process
    from msmae.training.minutes import in_time
    from msmae.training.prepare import prepare
    from msmae.training.pretrain import check_training
    from msmae.verbs.show import show_result, show_start

    manifest = open_data(asked, first=check_classifier)
    found = audited(asked, manifest)
    known = known_to_start(asked, manifest)
    chosen, method = in_time(
        minutes, manifest, chosen, start, method=method, preset=preset, began=began, models=asked.folds or 1,
        folder=None if overwrite and not is_helper_process() else asked.folder,
    )  # fmt: skip
    prepared = prepare(manifest, settings=chosen, method=method, seed=seed, start=start)
    prepared = dataclasses.replace(prepared, folds=asked.folds)
    check_training(prepared)
    show_start(prepared)
    write_start(asked, prepared, found, **known)
    metrics = train_and_test(prepared, asked.folder)
    if metrics:
        show_result(metrics, asked.folder)
    return metrics
