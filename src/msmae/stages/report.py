"""``msmae report``: build a run's page and papers again from what the run saved, without torch."""

from __future__ import annotations

from pathlib import Path

from msmae.evidence.report import write_report


def report(run: str) -> Path:
    """Build report.html again from the files and pictures that the run's folder holds.

    Args:
        run: folder of a finished run or evaluation.

    Returns:
        The path of report.html.

    Raises:
        UserError: the folder holds no finished run, or its predictions cannot be trusted.
    """
    return write_report(Path(run))
