"""What an encoder has learned from, and a stop where a segmenter would be tested on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msmae.config import Settings
from msmae.data.audit.against import Pool, known_from
from msmae.data.manifest import Manifest, read_manifest
from msmae.errors import LeakageError
from msmae.runs.folder import read_run
from msmae.training.source import Source, find_source

UNKNOWN = "whether test images were among what the encoder learned from is not known: {}"


@dataclass(frozen=True)
class Origin:
    """The runs that an encoder has learned in, the last first, and in words where its history is lost."""

    runs: tuple[Path, ...]
    lost: tuple[str, ...]


def origin_of(source: Source) -> Origin:
    """Follow an encoder back through the runs whose weights each run began with (``--from``, ``--init``)."""
    runs: list[Path] = []
    lost: list[str] = []
    here: Source | None = source
    while here is not None and (here.model or here.file):
        if here.run is None:
            lost.append(f"{here.model or here.file} does not lie in a run's folder")
            break
        if here.run in runs:
            break
        runs.append(here.run)
        config, _ = read_run(here.run)
        began = config.get("from") or config.get("init") or "none"
        there = began != "none" and Path(began).exists()
        if began != "none" and not there:
            lost.append(f"{here.run.name} began with {began}, which is not there")
        here = find_source(began) if there else None
    return Origin(tuple(runs), tuple(lost))


def refuse_leakage(manifest: Manifest, source: Source, settings: Settings, *, allow: bool) -> dict[str, Any]:
    """Stop where test images, or test patients, are among those that the encoder has learned from, in any run.

    Pictures are compared by their decoded pixels. Patients' names are compared where the two data sets share pictures
    or a folder: in unrelated data the same name is another person.

    Returns what audit.json says of it: the test images ``test_in_encoder_pool``, and ``notes``.

    Raises:
        LeakageError: there are such images, and ``allow`` is False.
    """
    origin = origin_of(source)
    notes = [UNKNOWN.format(why) for why in origin.lost]
    for note in notes:
        print(f"- {note}")
    if not origin.runs:
        return {"test_in_encoder_pool": 0, "notes": notes}
    pools = [Pool(read_manifest(run / "manifest.csv"), read_run(run)[1], related_only=True) for run in origin.runs]
    known = known_from(manifest, pools, settings=settings)
    leaking, identical = known["leaking_images"], known["test_identical_to_pool"]
    if leaking:
        what = (
            f"{leaking} of {len(manifest.ids('test'))} test images ({identical} by their pixels, {leaking - identical} "
            "by their patient alone) are among those the encoder was trained on"
        )
        if not allow:
            raise LeakageError(
                what,
                where=str(origin.runs[0]),
                mend=f"use its own split, {origin.runs[0] / 'manifest.csv'}, as DATA, or add --allow-leakage",
            )
        print(f"- {what}: the test figures cannot be trusted (--allow-leakage)")
    return {"test_in_encoder_pool": leaking, "notes": notes}
