"""``make results``: every table of RESULTS.md, rebuilt from the predictions and segmentations in results/.

RESULTS.md is experiments/results_page.md with each ``{{ NAME }}`` replaced by the tables of results/NAME,
``{{ FIRST against SECOND }}`` by what one arm gains over another in all of results/, ``{{ keep }}`` by what looking
at a quarter costs in all of results/*+keep, ``{{ keep-even }}`` by what choosing it gains over spreading it evenly,
``{{ maps of NAME }}`` by what answers hang on, and ``{{ arms }}`` by one figure of every arm on every data set.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from studies import ARMS

from msmae.errors import UserError
from msmae.evidence import arms_table, map_curves, pooled_difference, pooled_loss
from msmae.evidence.comparison_report import write_comparison
from msmae.evidence.segmentation_comparison import write_segmentation_comparison

REPOSITORY = Path(__file__).resolve().parents[1]


def page(template: str, results: Path) -> str:
    """The page with its tables; a comparison that is not there yet, or not finished, is named as such."""

    def tables(match: re.Match[str]) -> str:
        if match.group(1) == "arms":
            return match.group(0)  # below, from the tables that are written here
        if match.group(1) == "keep":
            return pooled_loss.table(results)
        if match.group(1) == "keep-even":
            return pooled_loss.gain_table(results)
        if match.group(1).startswith("maps of "):
            return map_curves.table(results, match.group(1).removeprefix("maps of "))
        first, against, second = match.group(1).partition(" against ")
        if against:
            return pooled_difference.table(results, first, second)
        folder = results / match.group(1)
        if not (folder / "comparison.json").is_file():
            return "*Not run yet.*"
        plan = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
        write = write_segmentation_comparison if plan.get("task") == "segmentation" else write_comparison
        try:
            write(folder)
        except UserError as problem:  # no seed is finished for all arms
            return f"*Not finished: {problem.what}.*"
        text = (folder / "comparison_table.md").read_text(encoding="utf-8")
        return re.sub(r"^#", "###", text.partition("\n")[2].strip(), flags=re.MULTILINE)

    text = re.sub(r"\{\{ ([\w+ -]+) \}\}", tables, template)
    return text.replace("{{ arms }}", arms_table.table(results, ARMS))


def main() -> None:
    """Write RESULTS.md."""
    template = (REPOSITORY / "experiments" / "results_page.md").read_text(encoding="utf-8")
    (REPOSITORY / "RESULTS.md").write_text(page(template, REPOSITORY / "results"), encoding="utf-8")
    print(f"{REPOSITORY / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
