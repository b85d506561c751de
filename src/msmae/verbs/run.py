"""``msmae run``: from labelled images to a tested model, in one command that can be killed and repeated."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmae.config import find_arm, require

if TYPE_CHECKING:
    from msmae.training.prepare import Prepared


def run(
    data: str,
    *,
    out: str,
    method: str | None = None,
    preset: str = "auto",
    config: str | None = None,
    seed: int = 0,
    init: str | None = None,
    minutes: float | None = None,
    overwrite: bool = False,
    allow_leakage: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Pre-train, fine-tune and evaluate: a labelled data set in, a tested model and its evidence out.

    Args:
        data: a folder, a CSV/TSV manifest, an .npz, or `phantom`.
        out: folder of the run; an unfinished run in it is continued.
        method: arm of the comparison: vit, mae, supmae, amt, msmae, msmae-shuffled or msmae-released; unless given,
            vit with a pretrained start, else msmae.
        preset: settings to start from: auto, cpu, gpu, tiny, or another shipped recipe.
        config: YAML file of settings that override the preset's.
        seed: seed of every random draw.
        init: a pretrained encoder to start from: a name of `msmae encoders`, a file or folder of weights, another run.
        minutes: how long the whole command may take here, from the audit to the report; image size and epochs follow
            from it and are written to config.yaml. With --init it is 15 unless given, or unless both are set.
        overwrite: throw away what the folder holds.
        allow_leakage: go on although test images or patients are in the pool; every report says so.
        settings: groups of settings to change, for instance ``pretrain={"epochs": 5}``.

    Returns:
        The content of metrics.json; nothing in the helper processes of distributed training.

    Raises:
        LeakageError: test images or patients are in the pool the model learns from.
        UserError: the data, a setting or the folder is not usable; nothing is half-written.
    """
    began = time.monotonic()
    require(seed >= 0, f"{seed} is negative", where="--seed", mend="give 0 or more")
    method = method or ("vit" if init else "msmae")
    find_arm(method)
    folder = Path(out)
    from msmae.encoders.start import channels_of, settings_with_start
    from msmae.runs.folder import check_run, check_same_images, clear_run, describe_run, write_json

    check_run(folder, data=data, finished="metrics.json", overwrite=overwrite)
    chosen, start = settings_with_start(init, preset, config, settings)
    from msmae.data.opening import divide
    from msmae.training.minutes import in_time
    from msmae.training.prepare import audit_before_run, prepare
    from msmae.training.pretrain import check_training
    from msmae.verbs.show import show_result, show_start, show_understood

    manifest = divide(data, settings=chosen, seed=seed, takes=channels_of(start))
    if not overwrite:
        check_same_images(folder, manifest, seed=seed, settings=chosen)
    show_understood(manifest)
    found = audit_before_run(manifest, source=data, settings=chosen, allow=allow_leakage)
    chosen, method = in_time(
        minutes, manifest, chosen, start, method=method, preset=preset, began=began,
        folder=None if overwrite else folder,
    )  # fmt: skip
    prepared = prepare(manifest, settings=chosen, method=method, seed=seed, start=start)
    check_training(prepared)
    show_start(prepared)
    if overwrite:
        clear_run(folder)
    given = {"init": init, "preset": preset, "allow_leakage": allow_leakage, "understood": found.understood.to_dict()}
    describe_run(folder, data=str(data), method=method, seed=seed, settings=prepared.settings, given=given)
    prepared.manifest.write(folder / "manifest.csv")
    write_json(folder / "audit.json", found.to_dict())
    metrics = train_and_test(prepared, folder)
    if metrics:
        show_result(metrics, folder)
    return metrics


def train_and_test(prepared: Prepared, folder: Path) -> dict[str, Any]:
    """Pre-train, fine-tune and evaluate, each unless the folder holds its result.

    Returns the content of metrics.json; nothing in the helper processes of distributed training.
    """
    from msmae.evaluation.evaluate import evaluate_model
    from msmae.training.finetune import finetune_model
    from msmae.training.pretrain import pretrain_model
    from msmae.training.trainer import is_main_process

    if prepared.arm.pretrains and not (folder / "pretrained").is_dir():
        pretrain_model(prepared, folder)
    if not (folder / "model").is_dir():
        finetune_model(prepared, folder)
    return evaluate_model(prepared, folder) if is_main_process() else {}
