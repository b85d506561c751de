"""What a data set was understood to be, as a plain value: said first, written down, and compared with another reading.

Every line names the rule that decided it, examples, and the option that changes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from msmae.data.manifest import SEPARATOR, SPLITS, Manifest, printable
from msmae.data.tables.listing import count, some

EXAMPLES = 3
NAMED = 8  # classes named in a line
ATTRIBUTES = ("layout", "classes", "patients", "sites", "splits", "masks", "channels", "units", "left out")


@dataclass(frozen=True)
class Fact:
    """One thing understood. ``number`` of what it speaks of, 0 where there is none; ``examples`` as (name, file)."""

    about: str
    """One of ``ATTRIBUTES``."""
    said: str
    number: int = 0
    rule: str = ""
    """What decided it, in a few words."""
    examples: tuple[tuple[str, str], ...] = ()
    option: str = ""
    """The option that changes it."""


@dataclass(frozen=True)
class Understood:
    """A reading of DATA: ``facts`` in the order of ``ATTRIBUTES``; there may be several about what was left out."""

    layout: str
    facts: tuple[Fact, ...]

    def about(self, name: str) -> list[Fact]:
        """The facts about one of ``ATTRIBUTES``."""
        return [fact for fact in self.facts if fact.about == name]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the layout, and every fact with all of its fields."""
        facts = [{**asdict(fact), "examples": [list(pair) for pair in fact.examples]} for fact in self.facts]
        return {"layout": self.layout, "facts": facts}

    def lines(self) -> list[str]:
        """The block that a person reads, a line a fact."""
        width = max(len(fact.about) for fact in self.facts)
        told: list[str] = ["What was understood"]
        before = ""
        for fact in self.facts:
            option = f"  [{fact.option}]" if fact.option else ""
            told.append(f"  {'' if fact.about == before else fact.about:{width}}  {printable(fact.said)}{option}")
            before = fact.about
        return told


def understand(manifest: Manifest) -> Understood:
    """What a manifest was understood to be, from its table, its ``rules`` and its notes on what was left out."""
    found = (
        _layout(manifest),
        *_classes(manifest),
        *_patients(manifest),
        *_sites(manifest),
        _splits(manifest),
        *_masks(manifest),
        *_channels(manifest),
        *_units(manifest),
        *_left_out(manifest),
    )
    return Understood(manifest.layout, found)


def _layout(manifest: Manifest) -> Fact:
    rule = manifest.rules.get("layout", "")
    said = f"{manifest.layout}{f': {rule}' if rule else ''} ({count(len(manifest), 'image')})"
    return Fact("layout", said, len(manifest), rule, option="--layout")


def _classes(manifest: Manifest) -> Iterator[Fact]:
    labels = manifest.table["label"]
    rule = manifest.rules.get("label", "")
    option = "--label-column" if manifest.layout in ("csv", "imagefolder", "tables") else "--layout"
    if not manifest.classes:
        yield Fact("classes", f"none: no image has a label{f' ({rule})' if rule else ''}", 0, rule, (), option)
        return
    sizes = Counter(name for label in labels for name in label.split(SEPARATOR) if name)
    first = dict.fromkeys(manifest.classes, "")
    for label, path in zip(labels, manifest.table["image_path"], strict=True):
        for name in label.split(SEPARATOR):
            if name in first and not first[name]:
                first[name] = str(path)
    names = [f"{name} ({sizes[name]:,})" for name in manifest.classes]
    said = f"{len(names)}{', several per image' if manifest.multilabel else ''}, "
    said += f"from {rule}: {some(names, at_most=NAMED)}" if rule else some(names, at_most=NAMED)
    examples = tuple((printable(name), printable(path)) for name, path in list(first.items())[:NAMED])
    yield Fact("classes", said, len(names), rule, examples, option)
    if unknown := manifest.rules.get("unknown", ""):
        yield Fact("classes", unknown, rule=unknown, option="--label-column '...;unknown=zeros'")
    without = int((labels == "").sum())
    if without:
        yield Fact("classes", f"{count(without, 'image')} without a label", without)


def _patients(manifest: Manifest) -> Iterator[Fact]:
    patients, paths = manifest.table["patient_id"], manifest.table["image_path"]
    named = patients != ""
    rule = manifest.rules.get("patient_id", "")
    if not named.any():
        said = "not known: every image counts as a patient of its own"
        yield Fact("patients", f"{said} ({rule})" if rule else said, 0, rule, (), "--patients")
        return
    first: dict[str, str] = {}
    for patient, path in zip(patients[named], paths[named], strict=True):
        first.setdefault(str(patient), str(path))
    examples = tuple((printable(name), printable(path)) for name, path in list(first.items())[:EXAMPLES])
    shown = ", ".join(f"{name} in {path}" for name, path in examples)
    said = f"{len(first):,}{f' by {rule}' if rule else ''}: {shown}"
    nameless = int((~named).sum())
    if nameless:
        said += f"; {count(nameless, 'image')} without one"
    yield Fact("patients", said, len(first), rule, examples, "--patients")
    if spelling := manifest.rules.get("spelling", ""):
        yield Fact("patients", spelling, rule=spelling, option="--patients")


def _sites(manifest: Manifest) -> Iterator[Fact]:
    sites = Counter(site for site in manifest.table["site"] if site)
    if sites:
        named = some([f"{name} ({number:,})" for name, number in sorted(sites.items())], at_most=NAMED)
        rule = manifest.rules.get("site", "")
        yield Fact("sites", f"{len(sites)}: {named}", len(sites), rule, (), "--site-column")


def _channels(manifest: Manifest) -> Iterator[Fact]:
    if channels := manifest.rules.get("channels", ""):
        yield Fact("channels", channels, rule=channels, option="--image-column NAME")


def _units(manifest: Manifest) -> Iterator[Fact]:
    if units := manifest.rules.get("units", ""):
        yield Fact("units", units, option="--window")


def _splits(manifest: Manifest) -> Fact:
    sizes = {split: int((manifest.table["split"] == split).sum()) for split in SPLITS}
    shown = ", ".join(f"{split} {number:,}" for split, number in sizes.items() if number)
    rule = manifest.rules.get("split", "")
    ours = manifest.rules.get("cut", "").split(", ")
    given = [split for split in SPLITS if sizes[split] and split not in ours]
    cut = [split for split in SPLITS if sizes[split] and split in ours]
    if not shown:
        return Fact("splits", f"none given{f' by {rule}' if rule else ''}", 0, rule, (), "--split-column")
    told = []
    if given:
        told.append(f"{', '.join(given)} given{f' by {rule}' if rule else ''}")
    if cut:
        told.append(f"{', '.join(cut)} cut here, by chance")
    option = ", ".join(f"--{split}-fraction" for split in cut if split != "train") or (
        "--split-column" if manifest.layout in ("csv", "imagefolder", "tables") or "file names" in rule else ""
    )
    return Fact("splits", f"{shown} ({', '.join(told)})" if told else shown, sum(sizes.values()), rule, (), option)


def _masks(manifest: Manifest) -> Iterator[Fact]:
    masked = manifest.table["mask_path"] != ""
    number = int(masked.sum())
    if not number:
        return
    rule = manifest.rules.get("mask_path", "")
    rows = manifest.table[masked].head(EXAMPLES)
    examples = tuple(
        (printable(str(mask)), printable(str(path)))
        for mask, path in zip(rows["mask_path"], rows["image_path"], strict=True)
    )
    named = f", of {', '.join(manifest.mask_classes)}" if manifest.mask_classes else ""
    said = f"{count(number, 'image')} with masks{named}{f', by {rule}' if rule else ''}: "
    said += f"{examples[0][0]} of {examples[0][1]}"
    yield Fact("masks", said, number, rule, examples, "--mask-column" if manifest.layout == "csv" else "--layout")


def _left_out(manifest: Manifest) -> Iterator[Fact]:
    for note in manifest.left_out:
        yield Fact("left out", str(note), note.number, note.why)
