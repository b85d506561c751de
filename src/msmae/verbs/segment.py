"""``msmae segment``: a pre-trained encoder learns to outline lesions, and is tested on images it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msmae.config import Settings, merge_layers
from msmae.errors import UserError
from msmae.runs.lock import alone
from msmae.verbs.begin import (
    Asked,
    as_recorded,
    audited,
    check_folder,
    check_machine,
    open_data,
    settings_of,
    write_start,
)

OUTLINING = ("dataset", "model", "segment", "evaluate", "trainer")
"""The groups of settings that training a segmenter uses."""


@alone("out")
def segment(
    data: str,
    *,
    out: str,
    from_: str | None = None,
    decoder: str | None = None,
    preset: str | None = None,
    config: str | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    allow_leakage: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Train a segmenter on images with masks, and evaluate it: masks, figures with intervals, a report.

    Args:
        data: a folder, a CSV/TSV manifest, an .npz, or `phantom`; the masks are in the manifest's mask_path.
        out: folder of the new run; an unfinished run in it is continued.
        from_: the encoder: a name of `msmae encoders`, a file or folder of weights, a run, or `none`: random weights.
            Unless given: that of the segmentation run whose config.yaml --config names.
        decoder: light (default) or setr-pup (the paper's); the same as segment.decoder.
        preset: settings to start from: auto, cpu, gpu, tiny, or another shipped recipe. Unless given: auto.
        config: YAML file of settings that override the preset's. Of a segmentation's config.yaml also from, seed and
            preset are taken, unless given here.
        seed: seed of every random draw. Unless given: 0.
        overwrite: first delete all that the folder holds, also an earlier run.
        allow_leakage: go on although test images or patients are also in training or validation.
        settings: groups of settings to change, for instance ``segment={"epochs": 5}``.

    Returns:
        The content of metrics.json; nothing in the helper processes of distributed training.

    Raises:
        LeakageError: test images or patients are in the training pool of this data, or of the encoder's run.
        UserError: the data, a mask, a setting, the encoder or the folder is not usable; nothing is half-written.
    """
    folder = Path(out)
    given = {"from": from_, "preset": preset, "seed": seed}
    from_, preset, seed = as_recorded(config, task="segmentation", **given).values()
    if from_ is None:
        mend = "a run's folder, a file of weights, a name of `msmae encoders`, or none: random weights"
        raise UserError("the encoder to start from is not named", where="--from", mend=mend)
    from msmae.training.source import find_source

    source = find_source(from_)
    if source.run is not None and source.run.resolve() == folder.resolve():
        raise UserError("the new run would overwrite the one it starts from", where=out, mend="choose another --out")
    check_folder(out, data, finished=("metrics.json", "report.html"), overwrite=overwrite)
    decided, start = settings_of(preset, config, settings, groups=OUTLINING, seed=seed, weights=source.weights)
    asked = Asked(
        data, folder, source.at_its_size(choose_decoder(decided, decoder)), start, seed=seed, overwrite=overwrite,
        allow_leakage=allow_leakage, preset=preset,
    )  # fmt: skip
    if asked.settings.dataset.unit != "auto":
        raise UserError("outlines are not pooled", where="--unit", mend="leave it out")
    check_machine(asked)
    from msmae.evaluation.encoder_history import refuse_leakage
    from msmae.evaluation.segmentation import evaluate_segmenter
    from msmae.training.segment import check_segmenter, segment_model
    from msmae.training.segment_data import check_masks, left_out, prepare_masks
    from msmae.training.trainer import is_main_process
    from msmae.verbs.show import show_result

    manifest = open_data(asked, first=check_masks, goes_on=False)
    found = audited(asked, manifest)
    learned = refuse_leakage(manifest, source, asked.settings, allow=allow_leakage)
    prepared = prepare_masks(manifest, settings=asked.settings, arm=source.arm, seed=seed, start=start)
    check_segmenter(prepared)
    given = {"task": "segmentation", "from": from_, "preset": preset, "allow_leakage": allow_leakage}
    notes = [*found.notes, *learned["notes"], *left_out(prepared)]
    in_pool = learned["test_in_encoder_pool"]
    write_start(asked, prepared, found, given=given, test_in_encoder_pool=in_pool, notes=notes)
    if not (folder / "model").is_dir():
        segment_model(prepared, folder)
    if not is_main_process():
        return {}
    metrics = evaluate_segmenter(prepared, folder)
    show_result(metrics, folder)
    return metrics


def choose_decoder(settings: Settings, decoder: str | None) -> Settings:
    """The settings with this decoder, if one is named."""
    if decoder is None:
        return settings
    groups = settings.to_dict()
    groups["segment"]["decoder"] = decoder
    return merge_layers([groups])


def evaluate_again(run: Path) -> dict[str, Any]:
    """Evaluate a segmentation run's model once more, on the run's own manifest; ``msmae evaluate`` comes here."""
    from msmae.data.opening import divide
    from msmae.evaluation.segmentation import evaluate_segmenter
    from msmae.runs.folder import read_run
    from msmae.training.prepare import as_own_manifest, as_started
    from msmae.training.segment_data import prepare_masks

    config, settings = read_run(run)
    settings = as_own_manifest(settings)
    manifest = divide(run / "manifest.csv", settings=settings, seed=config["seed"])
    prepared = as_started(prepare_masks(manifest, settings=settings, arm=config["method"], seed=config["seed"]), run)
    return evaluate_segmenter(prepared, run)
