"""``msmae check``: what a data set is, what is wrong with it, and a clean manifest of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmae.errors import UserError

if TYPE_CHECKING:
    from msmae.data.audit import Audit, Duplicates, Fingerprints
    from msmae.data.manifest import Manifest
    from msmae.data.reading.images import Reading
    from msmae.data.repair import Repair

WRITES = ("audit.json", "worst_pairs.png")
"""What `--out` is given, beside the folds."""


def check(
    data: str,
    *,
    out: str | None = None,
    repair: str | None = None,
    folds: int | None = None,
    repeats: int = 1,
    allow_leakage: bool = False,
    overwrite: bool = False,
    near_bits: int | None = None,
    seed: int = 0,
    **dataset: Any,
) -> dict[str, Any]:
    """Audit a data set as a run would use it: files, duplicates, leakage between splits, contradictions, shortcuts.

    It says first what was understood, and why, and last which commands can train on it. Splits that are not given are
    cut as ``run`` cuts them. Exit code 2: the command that such data is for would refuse it: ``run`` where there are
    classes; where there is one or none, ``segment`` if there are masks; ``pretrain`` if there is none. Exit code 3: it
    leaks.

    Args:
        data: a folder, a CSV/TSV manifest, an .npz, or `phantom`; labels are not needed.
        out: folder for audit.json and worst_pairs.png.
        repair: CSV to write: a clean manifest with a new split. It has no duplicates and no conflicting labels;
            near-duplicates and images of a patient stay in one split.
        folds: cross-validation: write this many manifests, OUT/fold-1.csv and so on; with --repair, of the repaired
            data. Identical and nearly identical images, and images of a patient, stay in one fold.
        repeats: draw the folds this many times, each time with another seed.
        allow_leakage: end with exit code 0 although the data leaks into the test split.
        overwrite: replace what OUT and --repair name, if it is there.
        near_bits: two images are near-duplicates if their 256-bit perceptual hashes differ in at most this many bits, 0
            to 15. Unless given: the data decides.
        seed: seed of the splits.
        dataset: how the data is read and divided: any of the settings of that group, for instance
            ``patients="none"``; they mean what they mean in ``msmae run``.

    Returns:
        The content of audit.json.

    Raises:
        LeakageError: test images or patients are also in training or validation, and none of --allow-leakage, --repair
            and --folds was given.
        UserError: the data or an option is not usable; or the verb that the data is for would refuse it (one class, an
            image that cannot be read, ...), and neither --repair nor --folds was given.
    """
    from msmae.config import merge_layers, require
    from msmae.data.audit import draw_worst_pairs, keep_together, list_warnings, stop_on_leakage
    from msmae.data.audit.duplicates import check_near_bits
    from msmae.data.effects import check_cuts
    from msmae.data.folds import name_folds, write_folds
    from msmae.data.manifest import printable
    from msmae.data.obstacles import made_for, obstacles_of, stop_on
    from msmae.data.opening import open_data, reading_of
    from msmae.data.repair import left_out_path
    from msmae.files import own_folder
    from msmae.runs.folder import check_output, clear_output, write_json
    from msmae.verbs.show import show_audit, show_folds, show_repair, show_trains, show_understood

    check_near_bits(near_bits)
    require(seed >= 0, f"{seed} is negative", where="--seed", mend="give 0 or more")
    target = None if repair is None else Path(repair)
    if target is not None:
        for file in (target, left_out_path(target)):
            check_output(file, overwrite=overwrite, flag="--repair")
    if folds is None and repeats != 1:
        raise UserError("--repeats has no effect without folds", where="--repeats", mend="add --folds, or leave it out")
    files = [] if folds is None else name_folds(out, folds=folds, repeats=repeats)
    writes = [*WRITES, *(file.name for file in files)]
    if out is not None:
        check_output(Path(out), overwrite=overwrite, writes=writes)
    settings = merge_layers([{"dataset": dict(dataset.pop("dataset", {})) | dataset}])
    chosen = settings.dataset
    reading = reading_of(settings)
    cuts = Cuts(chosen.val_fraction, chosen.test_fraction, seed)
    manifest = open_data(data, settings)
    show_understood(manifest)
    given = bool((manifest.table["split"] != "").any())
    if repair is None and folds is None:
        check_cuts(manifest, chosen)
    examined = examine(manifest, cuts, source=data, reading=reading, near_bits=near_bits)
    stops = target is None and folds is None
    trains = obstacles_of(
        examined.manifest, examined.audit, examined.prints.problems, settings=settings, unsplit=examined.unsplit
    )
    refused = [str(obstacle) for obstacle in trains[made_for(manifest)]]
    leaks = examined.audit.leaks and not allow_leakage
    show_audit(
        examined.audit, obstacles=refused if leaks or not stops else [], stops=stops and leaks, said=manifest.notes
    )
    if not leaks:
        show_trains(trains, labels=bool(manifest.classes))
    content = {
        **examined.audit.to_dict(),
        "obstacles": list(map(printable, refused)),
        "trains": {verb: [printable(str(error)) for error in found] for verb, found in trains.items()},
        "warnings": list_warnings(examined.audit),
    }
    if out is not None:
        own_folder(Path(out))
        clear_output(Path(out), writes)
        write_json(Path(out) / "audit.json", content)
        draw_worst_pairs(examined.manifest, examined.duplicates, Path(out) / "worst_pairs.png", reading=reading)
    manifest, groups = examined.manifest, keep_together(examined.manifest, examined.duplicates, examined.prints)
    if target is not None:
        mended, again = mend(examined, cuts, target, near_bits=near_bits)
        show_repair(mended, again, target, given=given)
        content["repair"] = {**again.to_dict(), "manifest": str(target), "left_out": len(mended.left_out)}
        manifest, groups = mended.manifest, mended.manifest.table["cluster"].tolist()
    if folds is not None:
        content["folds"] = write_folds(
            manifest, files, folds=folds, repeats=repeats, val_fraction=chosen.val_fraction, seed=seed, groups=groups
        )
        show_folds(content["folds"], given=given)
    if out is not None:
        write_json(Path(out) / "audit.json", content)
    if stops:
        stop_on_leakage(examined.audit, allow=allow_leakage)
        stop_on(trains[made_for(manifest)])
    return content


@dataclass(frozen=True)
class Cuts:
    """The shares of the images cut for validation and test, and the seed of the draw."""

    val_fraction: float
    test_fraction: float
    seed: int


@dataclass(frozen=True)
class Examined:
    """A data set, divided, and everything the audit knows of it."""

    manifest: Manifest
    prints: Fingerprints
    duplicates: Duplicates
    audit: Audit
    unsplit: tuple[UserError, ...] = ()
    """Why the splits that are missing could not be cut."""


def examine(manifest: Manifest, cuts: Cuts, *, source: str, reading: Reading, near_bits: int | None = None) -> Examined:
    """Decode (or take from the cache), compare, cut the splits that are missing, and audit.

    Identical and near-identical images are kept together by the cut, so that no leakage is of our own making. A class
    too small to be cut is an obstacle: the splits are then left as they are.
    """
    from msmae.data.audit import audit, find_duplicates, keep_together, take_fingerprints
    from msmae.data.opening import cache_folder
    from msmae.data.splits import assign_splits
    from msmae.progress import ProgressBar

    prints = take_fingerprints(
        manifest, reading=reading, cache=cache_folder() / "audits", progress=ProgressBar("auditing images")
    )
    duplicates = find_duplicates(prints, near_bits=near_bits)
    groups = keep_together(manifest, duplicates, prints)
    unsplit: tuple[UserError, ...] = ()
    try:
        manifest = assign_splits(manifest, **vars(cuts), groups=groups)
    except UserError as error:
        unsplit = (error,)
    found = audit(manifest, prints=prints, duplicates=duplicates, source=source)
    return Examined(manifest, prints, duplicates, found, unsplit)


def mend(examined: Examined, cuts: Cuts, target: Path, *, near_bits: int | None) -> tuple[Repair, Audit]:
    """Write a clean manifest and the list of what was left out; return both and the clean one's own audit.

    Raises:
        LeakageError: the repaired data leaks; that would be a fault of this library, and nothing is written.
    """
    from msmae.data.audit import audit, find_duplicates, stop_on_leakage
    from msmae.data.repair import repair

    mended = repair(examined.manifest, examined.prints, examined.duplicates, **vars(cuts))
    prints = examined.prints.select(mended.kept)
    duplicates = find_duplicates(prints, near_bits=near_bits)
    again = audit(mended.manifest, prints=prints, duplicates=duplicates, source=str(target))
    stop_on_leakage(again)
    mended.write(target, original=examined.manifest)
    return mended, again
