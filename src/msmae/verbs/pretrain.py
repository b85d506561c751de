"""``msmae pretrain``: an encoder, and no more; `msmae finetune RUN` goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msmae.config import check_method, find_arm
from msmae.errors import UserError
from msmae.runs.lock import alone
from msmae.verbs.begin import (
    TRAINING,
    Asked,
    as_recorded,
    audited,
    check_folder,
    check_machine,
    known_to_start,
    open_data,
    settings_of,
    write_start,
)


@alone("out")
def pretrain(
    data: str,
    *,
    out: str,
    method: str | None = None,
    preset: str | None = None,
    config: str | None = None,
    seed: int | None = None,
    init: str | None = None,
    overwrite: bool = False,
    allow_leakage: bool = False,
    **settings: Any,
) -> None:
    """Pre-train an encoder: RUN/pretrained. `msmae finetune RUN` goes on from it.

    Args:
        data: a folder, a CSV/TSV manifest, an .npz, or `phantom`.
        out: folder of the run; an unfinished one is continued.
        method: the arm, that is, how the model is trained; `vit` has no pre-training. Unless given: msmae.
        preset: settings to start from: auto, cpu, gpu, tiny, or another shipped recipe. Unless given: auto.
        config: YAML file of settings that override the preset's. Of a run's config.yaml also method, init, seed and
            preset are taken, unless given here.
        seed: seed of every random draw. Unless given: 0.
        init: a pretrained encoder to start from: a name of `msmae encoders`, a file or folder of weights, another run;
            `none`: random weights.
        overwrite: first delete all that the folder holds, also an earlier run.
        allow_leakage: go on although test images or patients are also in training or validation; every report says so.
        settings: groups of settings to change, for instance ``pretrain={"epochs": 5}``.

    Raises:
        UserError: the data, a setting or the folder is not usable; nothing is half-written.
    """
    preset, seed, init, method = as_recorded(config, preset=preset, seed=seed, init=init, method=method).values()
    method = method or "msmae"
    if not find_arm(method).pretrains:
        raise UserError(f"the arm {method} has no pre-training", where="--method", mend="choose another arm")
    check_folder(out, data, finished=("pretrained",), overwrite=overwrite)
    chosen, start = settings_of(preset, config, settings, groups=TRAINING, seed=seed, weights=init)
    check_method(chosen, method, started=start is not None)
    asked = Asked(
        data, Path(out), chosen, start, seed=seed, overwrite=overwrite, allow_leakage=allow_leakage, preset=preset,
        init=init,
    )  # fmt: skip
    check_machine(asked)
    from msmae.training.prepare import prepare
    from msmae.training.pretrain import check_training, pretrain_model
    from msmae.verbs.show import show_start

    manifest = open_data(asked)
    found = audited(asked, manifest)
    known = known_to_start(asked, manifest)
    prepared = prepare(manifest, settings=asked.settings, method=method, seed=seed, pretrain_only=True, start=start)
    check_training(prepared)
    show_start(prepared)
    write_start(asked, prepared, found, **known)
    pretrain_model(prepared, asked.folder)
    print(f"  pretrained       {asked.folder / 'pretrained'}")
