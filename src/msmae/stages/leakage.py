"""Before a run: the audit of its data, and a stop where the test split is none."""

from __future__ import annotations

from msmae.config import Settings
from msmae.data.audit import Audit, audit, list_warnings, stop_on_leakage
from msmae.data.manifest import Manifest
from msmae.stages.prepare import fingerprints


def audit_before_run(manifest: Manifest, *, source: str, settings: Settings, allow: bool) -> Audit:
    """Audit a data set as it is divided; print its warnings.

    Raises:
        LeakageError: test images or patients are in the pool the model learns from, and ``allow`` is False.
    """
    found = audit(manifest, prints=fingerprints(manifest, settings), source=source)
    stop_on_leakage(found, allow=allow)
    for warning in list_warnings(found):
        print(f"- audit: {warning}")
    return found
