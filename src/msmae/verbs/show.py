"""What a person sees at the end of a run: the table of results and where the files are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from msmae.config import ARMS
from msmae.data.audit import Audit, describe_leakage, list_warnings, mending_command
from msmae.data.manifest import SPLITS, LeftOut, Manifest, printable
from msmae.data.obstacles import LABEL_FREE
from msmae.data.repair import Repair, left_out_path
from msmae.data.tables.listing import some
from msmae.data.understood import understand
from msmae.errors import count, things
from msmae.statistics.answers import say_rule
from msmae.statistics.summary import figures_by

if TYPE_CHECKING:
    from msmae.errors import UserError
    from msmae.training.prepare import Prepared

log = logging.getLogger("msmae")

UNUSED = "a given split is not used: "
SHOWN = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC (macro)",
    "auprc": "AUPRC (macro)",
    "f1_macro": "F1 (macro)",
    "mcc": "Matthews correlation",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
    "dice": "Dice",
    "dice_lesion": "Dice, lesion images",
    "iou": "intersection over union",
    "hd95": "Hausdorff distance, 95 % (px)",
    "nsd": "surface Dice",
    "lesion_sensitivity": "lesions found",
}


def show_understood(manifest: Manifest) -> None:
    """Print what the data was understood to be, and then the notes that say more than that."""
    for line in understand(manifest).lines():
        print(line)
    for note in further_notes(manifest.notes):
        print(f"- {printable(note)}")


def show_start(prepared: Prepared, arms: Sequence[str] = ()) -> None:
    """Print what training begins with and what was decided for it, and warn of a licence that limits its use.

    ``arms``: of a comparison; else it is a run of one arm.
    """
    if prepared.start is None:
        return
    weights, settings = prepared.start, prepared.settings
    height, width = prepared.image_size
    patch = weights.spec.patch_size
    fine = settings.finetune
    rate = fine.base_lr * fine.batch_size * fine.accumulate / 256
    batch = fine.batch_size * fine.accumulate
    training = f"{count(fine.epochs or 0, 'epoch')} in batches of {batch}, learning rate {rate:.2g}"
    training += f", layer decay {fine.layer_decay:g}"
    if any(ARMS[arm].pretrains for arm in arms if arm in ARMS) if arms else prepared.arm.pretrains:
        training = f"{count(settings.pretrain.epochs or 0, 'epoch')} of pre-training first; {training}"
    scale = f"normalised ({weights.spec.normalisation_from}; {prepared.origin['scale']})"
    print(f"- the encoder is {weights.name or weights.path}: {weights.spec.describe()}")
    who, patches = ", ".join(arms) or prepared.method, f"{height // patch} x {width // patch} patches"
    print(f"- decided: {who}; images of {height} x {width} px ({patches}) {scale}, {training}")
    licence = prepared.origin["licence"]
    print(f"- licence of the encoder: {licence or 'not known; look it up before you share the model'}")
    if prepared.origin["limited"]:
        log.warning("the encoder's licence forbids commercial use, and so does it of every model that starts from it")


def further_notes(notes: Iterable[str]) -> list[str]:
    """The notes but for those that the block of what was understood says: how it was recognised, what was left out."""
    return [note for note in notes if not isinstance(note, LeftOut) and not note.startswith("read as ")]


FILES = (
    "report.html", "metrics.json", "predictions.csv", "predictions_patients.csv", "labels_to_check.csv",
    "segmentation.csv", "model",
)  # fmt: skip


def show_result(
    metrics: dict[str, Any], run: Path, *, files: Sequence[str] = FILES, console: Console | None = None
) -> None:
    """Print validation and test figures with their 95 % intervals, and the paths of those of the files that exist."""
    console = console or Console()
    rule = metrics.get("answers")
    splits = {name: figures_by(split, rule or "balanced") for name, split in metrics["splits"].items()}
    title = f"{metrics['arm']}, seed {metrics['seed']}"
    if rule:
        title += f", {say_rule(rule, metrics.get('thresholds'))} answers"
    if metrics.get("averaged"):
        title += f", {metrics['averaged']}"
    if metrics.get("keep", {}).get("selector", "all") != "all":
        title += f", from {100 * metrics['keep']['keep']:g} % of the patches ({metrics['keep']['selector']})"
    table = Table(
        title=title,
        title_justify="left",
        caption="value [95 % CI, over patients where they are known]",
        caption_justify="left",
    )
    table.add_column("figure")
    shown = [name for name in ("val", "test", "internal", "external") if name in splits]
    for name in shown:
        patients, clusters = splits[name]["patients"], splits[name].get("clusters")
        known = [count(patients, "patient")] if patients else [count(clusters, "cluster")] if clusters else []
        table.add_column(f"{name} ({', '.join([count(splits[name]['n'], 'image'), *known])})", justify="right")
    measured = {key for split in splits.values() for key in split["metrics"]}
    for key, label in SHOWN.items():
        if key not in measured:
            continue
        table.add_row(label, *(figure(splits[name]["metrics"].get(key)) for name in shown))
    console.print(table)
    for line in doubts(splits, shown):
        console.print(f"- {escape(printable(line))}", highlight=False, soft_wrap=True)
    for name in files:
        if (run / name).exists():
            console.print(f"  {name:24} {escape(str(run / name))}", highlight=False, soft_wrap=True)


def doubts(splits: Mapping[str, dict[str, Any]], shown: Sequence[str]) -> list[str]:
    """Why figures of the table, or their intervals, are missing, and what else the figures do not say (a class without
    images, ...): one line per reason and note, with the splits that it is of where there are several."""
    dashes: dict[str, list[str]] = {}
    bare: dict[str, list[str]] = {}
    notes: dict[str, list[str]] = {}
    for name in shown:
        of = f"{name}: " if len(shown) > 1 else ""
        for key, label in SHOWN.items():
            entry = splits[name]["metrics"].get(key)
            if entry is not None and entry["value"] is None:
                dashes.setdefault(of + (entry.get("reason") or "undefined"), []).append(label)
            elif entry is not None and entry["low"] is None:
                bare.setdefault(of + (entry.get("reason") or "not known"), []).append(label)
        for note in splits[name].get("notes", ()):
            if not any(reason.removeprefix(of) in note for reason in dashes):
                notes.setdefault(note, []).append(name)
    said = [f"{reason}: no {', '.join(figures)}" for reason, figures in dashes.items()]
    said += [f"{reason}: no interval of {', '.join(figures)}" for reason, figures in bare.items()]
    return said + [f"{', '.join(of)}: {note}" if len(shown) > 1 else note for note, of in notes.items()]


def figure(entry: dict[str, Any] | None) -> str:
    """``0.912 [0.885, 0.934]``, or a dash where the figure is undefined."""
    if entry is None or entry["value"] is None:
        return "-"
    if entry["low"] is None:
        return f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


LISTED = 5  # lines of a list that the terminal shows; audit.json has all
CLASSES = 40  # rows of the table of classes
LEAKAGE = ("test_identical_to_pool", "test_copies_in_pool", "test_patients_in_pool")
COUNTS = {
    "images": ("image", ""),
    "patients": ("patient", "named"),
    "masks": ("image", "with a mask"),
    "unreadable": ("image", "that cannot be read"),
    "constant": ("image", "of one colour"),
    "identical_pairs": ("pair of images", "with identical pixels"),
    "label_conflicts": ("image", "present more than once, with different labels"),
    "patient_conflicts": ("image", "present more than once, of different patients"),
    "near_pairs": ("pair of images", "nearly identical"),
    "near_clusters": ("cluster of images", "nearly identical"),
    "test_identical_to_pool": ("test image", "identical to a training or validation image"),
    "test_copies_in_pool": ("test image", "with a changed copy in training or validation, or made from an image there"),
    "test_near_pool": ("test image", "nearly identical to a training or validation image"),
    "test_patients_in_pool": ("patient", "both in test and in training or validation"),
    "patients_crossing": ("patient", "in more than one split"),
}
"""What the audit counts: the thing, and what is said of it."""


def show_audit(
    audit: Audit,
    *,
    obstacles: Sequence[str] = (),
    stops: bool = False,
    said: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Print an audit: notes, classes by split, counts, warnings, and the verdict on leakage.

    ``obstacles``: what a run would refuse. ``said``: notes that were printed before. ``stops``: leakage ends the
    command with an error, which says what leaks and how to mend it, so it is not said here.
    """
    console = console or Console(highlight=False)
    for note in further_notes([note for note in audit.notes if note not in said]):
        console.print(f"- {escape(printable(note))}", soft_wrap=True)
    console.print(f"{escape(audit.source)}: {count(audit.classes, 'class')}", soft_wrap=True)
    console.print(_classes(audit))
    counts = Table(show_header=False, box=None, padding=(0, 2))
    counts.add_column(justify="right")
    counts.add_column()
    for name, (thing, said_of_it) in COUNTS.items():
        number = getattr(audit, name)
        if number:
            words = f"{things(number, thing)} {said_of_it}".rstrip()
            counts.add_row(f"{number:,}", words, style="bold red" if name in LEAKAGE else None)
    console.print(counts)
    console.print(f"near-duplicates: {escape(audit.threshold.reason)}", soft_wrap=True)
    for warning in list_warnings(audit):
        console.print(f"[yellow]warning[/yellow]: {escape(printable(warning))}", soft_wrap=True)
    for obstacle in obstacles:
        console.print(f"[yellow]a run stops at this[/yellow]: {escape(printable(obstacle))}", soft_wrap=True)
    for title, lines in _named(audit):
        console.print(f"{title}:", soft_wrap=True)
        for line in lines[:LISTED]:
            console.print(f"  {escape(line)}", soft_wrap=True)
        if len(lines) > LISTED:
            console.print(f"  and {len(lines) - LISTED:,} more, all of them in the audit.json of --out DIR")
    sentence = describe_leakage(audit)
    if sentence and stops:
        return
    if audit.unreadable == audit.images:
        console.print("[bold red]no image can be read: nothing is known of the data[/bold red]")
    elif sentence:
        console.print(f"[bold red]{escape(printable(sentence))}[/bold red]", soft_wrap=True)
        console.print(f"to mend it: {escape(mending_command(audit))}", soft_wrap=True)
    elif any("test" in row for row in audit.splits.values()):
        some_known = f"no image and no patient that is named (of {count(audit.nameless, 'image')} none is)"
        known = some_known if audit.nameless else "no image and no patient"
        whom = known if audit.patients else "no image (patients are not known)"
        console.print(f"[green]{whom} of the test split is in training or validation[/green]")
    else:
        console.print("there is no test split: nothing can leak into it")


def show_trains(trains: Mapping[str, Sequence[UserError]], *, labels: bool, console: Console | None = None) -> None:
    """Print which verbs can train on the data, and why others cannot: each verb with what it would stop at."""
    console = console or Console(highlight=False)
    console.print("Can it be trained on?")
    before = ""
    for verb, found in trains.items():
        how = f", with {LABEL_FREE}" if verb == "pretrain" and not labels else ""
        more = f", and {len(found) - 1} more" if found[1:] else ""
        why = found[0].what if found else ""
        said = f"no: {escape(printable(why)) if why != before else 'the same reason'}{more}" if found else f"yes{how}"
        before = why or before
        console.print(f"  msmae {verb:8}  {said}", soft_wrap=True)


def show_repair(repair: Repair, audit: Audit, target: Path, *, given: bool, console: Console | None = None) -> None:
    """Print what a repair left out and kept, and what its own audit says of it; ``given``: the data has splits."""
    console = console or Console(highlight=False)
    reasons = Counter(repair.left_out.values())
    left = "; ".join(f"{number:,} {why}" for why, number in reasons.items()) or "nothing"
    where = f", all named in {left_out_path(target)}" if repair.left_out else ""
    console.print(f"repaired: {count(len(repair.kept), 'image')} kept; left out: {left}{escape(where)}", soft_wrap=True)
    console.print(f"{UNUSED if given else ''}the splits were cut {'anew' if given else 'here'}", soft_wrap=True)
    console.print(_classes(audit))
    console.print(
        f"its own audit: {count(audit.identical_pairs, 'identical pair')}, "
        f"{count(audit.label_conflicts, 'label conflict')}; identical to a training or validation image: "
        f"{count(audit.test_identical_to_pool, 'test image')}, nearly identical: {audit.test_near_pool:,}; patients "
        f"(or clusters) in more than one split: {audit.patients_crossing:,}",
        soft_wrap=True,
    )
    console.print(f"  {escape(str(target))}", soft_wrap=True)


def show_folds(folds: Sequence[Mapping[str, Any]], *, given: bool, console: Console | None = None) -> None:
    """Print the files of a cross-validation, each with its images by split; ``given``: the data has splits."""
    console = console or Console(highlight=False)
    together = "near-duplicates and images of a patient stay in one fold:"
    console.print(f"{UNUSED if given else ''}{together}", soft_wrap=True)
    for fold in folds:
        sizes = ", ".join(f"{fold[split]:,} {split}" for split in SPLITS)
        console.print(f"  {escape(fold['manifest'])}: {sizes}", soft_wrap=True)


def _named(audit: Audit) -> Iterator[tuple[str, list[str]]]:
    """What cannot be used or contradicts itself, by name."""
    for name, title in (("unreadable", "cannot be read"), ("mask_problems", "masks that cannot be used")):
        if audit.details[name]:
            yield title, [why for _, why in audit.details[name]]
    if audit.details["other_numbers"]:
        yield "pixels of another type", [f"{image} holds {what}" for image, what in audit.details["other_numbers"]]
    if audit.details["label_conflicts"]:
        pictures = [[f"{image} is {label}" for image, label in images] for images in audit.details["label_conflicts"]]
        yield "the same pixels under several labels", [some(images) for images in pictures]
    if audit.details["patient_conflicts"]:
        yield "the same pixels under several patients", [some(images) for images in audit.details["patient_conflicts"]]


def _classes(audit: Audit) -> Table:
    """Images by class and split."""
    found = {split for row in audit.splits.values() for split in row}
    splits = [split for split in (*SPLITS, "(none)") if split in found]
    table = Table()
    table.add_column("class")
    for split in splits:
        table.add_column("not assigned" if split == "(none)" else split, justify="right")
    for name, row in list(audit.splits.items())[:CLASSES]:
        table.add_row(escape(printable(name)), *(f"{row.get(split, 0):,}" for split in splits))
    if len(audit.splits) > CLASSES:
        table.add_row(f"and {len(audit.splits) - CLASSES:,} more")
    return table
