"""Before a run: the audit of its data, and a stop where the test split is none."""

from __future__ import annotations

from msmae.config import Settings
from msmae.data.audit import Audit, audit, list_warnings, stop_on_leakage, take_fingerprints
from msmae.data.manifest import Manifest
from msmae.stages.prepare import cache_folder, progress_bar, reading_of


def audit_before_run(manifest: Manifest, *, source: str, settings: Settings, allow: bool) -> Audit:
    """Audit a data set as it is divided; print its warnings.

    Raises:
        LeakageError: test images or patients are in the pool the model learns from, and ``allow`` is False.
    """
    prints = take_fingerprints(
        manifest,
        reading=reading_of(settings),
        cache=cache_folder() / "audits",
        progress=progress_bar("auditing images"),
    )
    found = audit(manifest, prints=prints, source=source)
    stop_on_leakage(found, allow=allow)
    for warning in list_warnings(found):
        print(f"- audit: {warning}")
    return found
