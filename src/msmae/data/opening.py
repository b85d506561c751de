"""From DATA to a manifest with splits: opened as the settings say, and audited once on the way."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from msmae.config import DatasetSettings, Settings
from msmae.data.audit import Fingerprints, find_duplicates, keep_together, take_fingerprints
from msmae.data.effects import ROW_AN_IMAGE, check_cuts, check_effects
from msmae.data.manifest import Manifest
from msmae.data.phantom import make_phantom
from msmae.data.reading.decoding import image_sources
from msmae.data.reading.headers import is_dicom
from msmae.data.reading.images import Reading, count_channels
from msmae.data.splits import assign_splits
from msmae.data.tables.layouts import open_dataset
from msmae.data.tables.slices import choose_channel, expand_slices
from msmae.data.unit_labels import label_table, labels_by_table, labels_of_units
from msmae.errors import UserError, count
from msmae.progress import ProgressBar


def divide(
    data: str | Path,
    *,
    settings: Settings,
    seed: int = 0,
    takes: int | None = None,
    first: Callable[[Manifest], None] = lambda manifest: None,
) -> Manifest:
    """Recognise the data and assign the splits that are missing; copies of a picture, like a patient, stay together.

    Args:
        takes: the channels that a pretrained encoder takes, where there is one.
        first: what is checked of the data before its images are read.

    Raises:
        UserError: the data cannot be used, or its channels do not fit the encoder.
    """
    chosen, manifest = settings.dataset, open_data(data, settings)
    if takes is not None:
        check_channels(manifest, takes, settings.model.channels)
    check_cuts(manifest, chosen)
    first(manifest)
    splits = set(manifest.table["split"])
    return assign_splits(
        manifest,
        val_fraction=chosen.val_fraction,
        test_fraction=chosen.test_fraction,
        seed=seed,
        groups=whole_groups(manifest, settings) if "" in splits or not {"val", "test"} <= splits else None,
    )


def check_channels(manifest: Manifest, takes: int, given: int | None) -> None:
    """Raise ``UserError`` where the images have channels that an encoder of ``takes`` cannot see; grey images do for
    three. One header is read, unless the channels are ``given``.
    """
    channels = given
    for source in image_sources(manifest)[:8] if given is None else ():
        try:
            channels = count_channels(source)
            break
        except (UserError, OSError):
            continue  # the audit names every unreadable file
    if channels in (None, takes) or (channels, takes) == (1, 3):
        return
    raise UserError(
        f"the images have {channels} channels, and the encoder takes {takes}",
        where=manifest.where,
        mend="set --model.channels 1" if takes == 1 else "keep the channels that it can see, or give another encoder",
    )


def whole_groups(manifest: Manifest, settings: Settings) -> list[str]:
    """The groups [n] that no cut may part: a patient's images, and pictures that are identical or nearly so."""
    duplicates = find_duplicates(prints := fingerprints(manifest, settings))
    return keep_together(manifest, duplicates, prints)


def fingerprints(manifest: Manifest, settings: Settings) -> Fingerprints:
    """What the audit compares of every image; taken once and kept in the cache."""
    return take_fingerprints(
        manifest,
        reading=reading_of(settings),
        cache=cache_folder() / "audits",
        progress=ProgressBar("auditing images"),
    )


def open_data(data: str | Path, settings: Settings) -> Manifest:
    """DATA is a folder, a CSV/TSV manifest, an .npz, or ``phantom``."""
    if str(data) == "phantom":
        folder = cache_folder() / "phantom"
        return make_phantom(folder)
    chosen = settings.dataset
    table = label_table(chosen.label_column)
    manifest = open_dataset(
        data,
        layout=chosen.layout,
        patients=chosen.patients,
        image_column=chosen.image_column,
        label_column="" if table else chosen.label_column,
        patient_column=chosen.patient_column,
        split_column=chosen.split_column,
        mask_column=chosen.mask_column,
        site_column=chosen.site_column,
    )
    channel = "" if chosen.image_column == DatasetSettings.image_column else chosen.image_column
    if manifest.layout not in ROW_AN_IMAGE:
        manifest = choose_channel(manifest, channel)
    manifest = expand_slices(manifest, slices=chosen.slices, channel=channel) if chosen.slices else manifest
    if table:
        beside = Path(data) if Path(data).is_dir() else Path(data).parent
        manifest = labels_by_table(manifest, *table, unit=chosen.unit, beside=beside)
    else:
        manifest = labels_of_units(manifest, chosen.unit)
    check_effects(manifest, chosen)
    if chosen.class_order:
        manifest = manifest.with_order([name.strip() for name in chosen.class_order.split(";")])
    elif chosen.ordinal and not all(re.search(r"\d", name) for name in manifest.classes):
        told = f"grades in the order of their names: {' < '.join(manifest.classes)}"
        manifest = manifest.with_columns({}, notes=[f"{told}; --class-order 'low;middle;high' gives another"])
    return manifest.with_columns({}, rules={"units": units_of(manifest, reading_of(settings))})


def units_of(manifest: Manifest, reading: Reading) -> str:
    """What the numbers of the pixels mean, by the kinds of files there are, in a few words."""
    paths = [str(path) for path in manifest.table["image_path"]]
    kinds = {
        "DICOM": sum(map(is_dicom, paths)),
        "NIfTI": sum(path.lower().endswith((".nii", ".nii.gz")) for path in paths),
    }
    kinds["pictures"] = len(paths) - sum(kinds.values())
    several = sum(number > 0 for number in kinds.values())
    meant = {
        "DICOM": "modality units" if reading.window == "none" else f"brightness by the window '{reading.window}'",
        "NIfTI": "numbers in the file's units"
        if reading.window in ("file", "none")
        else f"the window '{reading.window}'",
        "pictures": "numbers as stored" if reading.window in ("file", "none") else f"the window '{reading.window}'",
    }
    names = {"DICOM": "DICOM image", "NIfTI": "NIfTI image", "pictures": "image" if several == 1 else "other image"}
    return "; ".join(f"{meant[kind]} ({count(number, names[kind])})" for kind, number in kinds.items() if number)


def reading_of(settings: Settings) -> Reading:
    """How files are turned into numbers."""
    chosen = settings.dataset
    return Reading(window=chosen.window, replace_nonfinite=chosen.replace_nonfinite, max_pixels=chosen.max_pixels)


def cache_folder() -> Path:
    """Where decoded images and the phantom are kept: $MSMAE_CACHE, else the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "msmae"
    return Path(os.environ.get("MSMAE_CACHE", default))
