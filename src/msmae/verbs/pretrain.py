"""``msmae pretrain``: an encoder, and no more; `msmae finetune RUN` goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msmae.config import find_arm, require
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
        init: a pretrained encoder to start from: a name of `msmae encoders`, a file or folder of weights, another run.
        overwrite: throw away what the folder holds.
        allow_leakage: go on although test images or patients are in the pool; every report says so.
        settings: groups of settings to change, for instance ``pretrain={"epochs": 5}``.

    Raises:
        UserError: the data, a setting or the folder is not usable; nothing is half-written.
    """
    require(seed >= 0, f"{seed} is negative", where="--seed", mend="give 0 or more")
    if not find_arm(method).pretrains:
        raise UserError(f"the arm {method} has no pre-training", where="--method", mend="choose another arm")
    from msmae.encoders.start import channels_of, settings_with_start
    from msmae.runs.folder import check_run, check_same_images, clear_run, describe_run, write_json

    folder = Path(out)
    check_run(folder, data=data, finished="pretrained", overwrite=overwrite)
    chosen, start = settings_with_start(init, preset, config, settings)
    from msmae.data.opening import divide
    from msmae.training.prepare import audit_before_run, prepare
    from msmae.training.pretrain import check_training, pretrain_model
    from msmae.verbs.show import show_start, show_understood

    manifest = divide(data, settings=chosen, seed=seed, takes=channels_of(start))
    if not overwrite:
        check_same_images(folder, manifest, seed=seed, settings=chosen)
    show_understood(manifest)
    found = audit_before_run(manifest, source=data, settings=chosen, allow=allow_leakage)
    prepared = prepare(manifest, settings=chosen, method=method, seed=seed, pretrain_only=True, start=start)
    check_training(prepared)
    show_start(prepared)
    if overwrite:
        clear_run(folder)
    given = {"init": init, "preset": preset, "allow_leakage": allow_leakage, "understood": found.understood.to_dict()}
    describe_run(folder, data=str(data), method=method, seed=seed, settings=prepared.settings, given=given)
    prepared.manifest.write(folder / "manifest.csv")
    write_json(folder / "audit.json", found.to_dict())
    pretrain_model(prepared, folder)
    print(f"  pretrained       {folder / 'pretrained'}")
