"""``msmae report``: build the page and papers of a run or a comparison again from what it saved, without torch."""

from __future__ import annotations

from pathlib import Path


def report(run: str) -> Path:
    """Build report.html again from the saved files and pictures of a run or a comparison, and the papers beside it.

    Args:
        run: folder of a finished run, an evaluation or a comparison.

    Returns:
        The path of report.html; beside it lie model_card.md, claim_2024.md and tripod_ai.md, or for a comparison
        comparison_table.md and table.csv.

    Raises:
        UserError: the folder holds nothing finished, its predictions cannot be trusted, or its runs cannot be compared.
    """
    from msmae.reporting.comparison.files import is_comparison

    if is_comparison(run):
        from msmae.reporting.comparison.page import write_comparison

        return _said([write_comparison(run), *(Path(run) / name for name in ("comparison_table.md", "table.csv"))])
    from msmae.reporting.papers import write_checklists, write_model_card
    from msmae.reporting.report import write_report

    return _said([write_report(run), write_model_card(run), *write_checklists(run)])


def _said(written: list[Path]) -> Path:
    """Print what was written; gives back the first."""
    for path in written:
        print(f"  {path.name:20} {path}")
    return written[0]
