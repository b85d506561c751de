"""What a person sees of an audit: what the data is, its classes and splits, the counts, and what to mind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from msmae.data.audit import Audit, describe_leakage, list_warnings, mending_command
from msmae.data.listing import count
from msmae.data.manifest import SPLITS, printable
from msmae.data.repair import Repair, left_out_path

COUNTS = {
    "images": "images",
    "patients": "patients (or clusters) named",
    "masks": "images with a mask",
    "unreadable": "images that cannot be read",
    "constant": "images of one colour",
    "identical_pairs": "pairs with identical pixels",
    "label_conflicts": "pictures with several labels",
    "near_pairs": "pairs nearly identical",
    "near_clusters": "clusters of nearly identical pictures",
    "test_identical_to_pool": "test images identical to one that is learned from",
    "test_near_pool": "test images nearly identical to one that is learned from",
    "test_patients_in_pool": "patients both in test and in the pool that is learned from",
    "patients_crossing": "patients in more than one split",
}


def show_audit(audit: Audit, *, console: Console | None = None) -> None:
    """Print an audit: notes, classes by split, counts, warnings, and the verdict on leakage."""
    console = console or Console(highlight=False)
    for note in audit.notes:
        console.print(escape(printable(note)), soft_wrap=True)
    console.print(f"{escape(audit.source)}: {count(audit.classes, 'class')}", soft_wrap=True)
    console.print(_classes(audit))
    counts = Table(show_header=False, box=None, padding=(0, 2))
    counts.add_column(justify="right")
    counts.add_column()
    for name, words in COUNTS.items():
        counts.add_row(f"{getattr(audit, name):,}", words)
    console.print(counts)
    if not audit.test_near_pool:  # else the warning gives the reason
        console.print(f"near-duplicates: {escape(audit.threshold.reason)}", soft_wrap=True)
    for warning in list_warnings(audit):
        console.print(f"[yellow]warning[/yellow]: {escape(printable(warning))}", soft_wrap=True)
    sentence = describe_leakage(audit)
    if sentence:
        console.print(f"[bold red]{escape(printable(sentence))}[/bold red]", soft_wrap=True)
        console.print(f"to mend it: {escape(mending_command(audit))}", soft_wrap=True)
    elif any("test" in row for row in audit.splits.values()):
        console.print("[green]no image and no patient of the test split is in the pool that is learned from[/green]")
    else:
        console.print("there is no test split, and so no leakage into it")


def show_repair(repair: Repair, audit: Audit, target: Path, *, console: Console | None = None) -> None:
    """Print what a repair left out and kept, and what its own audit says of it."""
    console = console or Console(highlight=False)
    reasons = Counter(repair.left_out.values())
    left = "; ".join(f"{number:,} {why}" for why, number in reasons.items()) or "nothing"
    where = f", all named in {left_out_path(target)}" if repair.left_out else ""
    console.print(f"repaired: {count(len(repair.kept), 'image')} kept; left out: {left}{escape(where)}", soft_wrap=True)
    console.print(_classes(audit))
    console.print(
        f"its own audit: {audit.identical_pairs:,} identical pairs, {audit.label_conflicts:,} label conflicts, "
        f"{audit.test_identical_to_pool:,} test images identical and {audit.test_near_pool:,} nearly identical to one "
        f"that is learned from, {audit.patients_crossing:,} patients (or clusters) crossing",
        soft_wrap=True,
    )
    console.print(f"  {escape(str(target))}", soft_wrap=True)


def _classes(audit: Audit) -> Table:
    """Images by class and split."""
    found = {split for row in audit.splits.values() for split in row}
    splits = [split for split in (*SPLITS, "(none)") if split in found]
    table = Table()
    table.add_column("class")
    for split in splits:
        table.add_column("not assigned" if split == "(none)" else split, justify="right")
    for name, row in audit.splits.items():
        table.add_row(escape(printable(name)), *(f"{row.get(split, 0):,}" for split in splits))
    return table
