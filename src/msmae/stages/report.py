"""``msmae report``: build a run's page and papers again from what the run saved, without torch."""

from __future__ import annotations

from pathlib import Path


def report(run: str) -> Path:
    """Build report.html, model_card.md and the checklists again from the files and pictures in a run's folder.

    Args:
        run: folder of a finished run or evaluation.

    Returns:
        The path of report.html; model_card.md, claim_2024.md and tripod_ai.md lie beside it.

    Raises:
        UserError: the folder holds no finished run, or its predictions cannot be trusted.
    """
    from msmae.evidence.checklists import write_checklists
    from msmae.evidence.model_card import write_model_card
    from msmae.evidence.report import write_report

    page = write_report(run)
    write_model_card(run)
    write_checklists(run)
    return page
