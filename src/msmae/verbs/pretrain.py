"""``msmae pretrain``: an encoder, and no more; `msmae finetune RUN` goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msmae.config import find_arm, make_settings, require
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
