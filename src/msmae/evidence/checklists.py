"""CLAIM 2024 and TRIPOD+AI, filled in as far as a run's files can; what only a person can know stays open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msmae.evidence.markdown import TEMPLATES, render
from msmae.evidence.run_files import RunFiles, read_run_files, write_whole
from msmae.evidence.study import facts

CHECKLISTS = ("claim_2024", "tripod_ai")


@dataclass(frozen=True)
class Item:
    """One line of a checklist."""

    item: str
    section: str
    asks: str
    answer: str
    """What the run's files say; may be empty."""
    open: str
    """What a person must add; empty where nothing is."""


def write_checklists(run: str | Path) -> list[Path]:
    """Write RUN/claim_2024.md and RUN/tripod_ai.md. Raises ``UserError`` when the run is not finished."""
    files = read_run_files(Path(run))
    return [write_whole(Path(run) / f"{name}.md", checklist(name, files)) for name in CHECKLISTS]


def checklist(name: str, run: RunFiles) -> str:
    """One of `CHECKLISTS` for this run, as Markdown."""
    title, source, items = fill_in(name, run)
    return render(
        "checklist.md",
        title=title,
        source=source,
        run=run,
        items=items,
        answered=sum(bool(item.answer) and not item.open for item in items),
        partly=sum(bool(item.answer) and bool(item.open) for item in items),
        unanswered=sum(not item.answer for item in items),
    )


def fill_in(name: str, run: RunFiles) -> tuple[str, str, list[Item]]:
    """Title, source and items of a checklist. An item that the run should answer and cannot is open too."""
    import yaml

    content = yaml.safe_load((TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8"))
    known = facts(run)
    items = []
    for entry in content["items"]:
        answer = " ".join(filter(None, (known[fact] for fact in entry.get("facts", ()))))
        todo = entry.get("open", "") if answer else entry.get("open", "the run's files do not say")
        items.append(Item(str(entry["item"]), entry["section"], entry["asks"], answer, todo))
    return content["title"], content["source"], items
