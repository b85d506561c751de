"""``make results``: every table and picture of RESULTS.md, rebuilt from the predictions in results/.

RESULTS.md is experiments/results_page.md with each ``{{ ... }}`` replaced:

    NAME                    the tables of results/NAME
    FIRST against SECOND    what an arm gains over another in all of results/; firsts, by commas, share a picture
    settings of ARM in NAME one setting that differs, each (studies.ABLATIONS); even masks beside them
    ideas of ARM in NAME    one thing done otherwise, each (studies.IDEAS); even masks beside them
    maps over NAME          how well the maps of its arms find the lesions while they are learned
    maps of NAME            what the answers hang on
    layers of NAME          which layer's and which head's attention finds the lesion
    keep, keep-even         what looking at a quarter costs in all of results/*+keep; what choosing it gains
    arms                    one figure of every arm on every data set

Pictures go to results/pictures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from map_history import maps
from studies import ABLATIONS, ARMS, IDEAS
from threadpoolctl import threadpool_limits

from msmae.errors import UserError
from msmae.evidence import ablations, arms_table, map_curves, map_layers, pooled_difference, pooled_loss
from msmae.evidence.pooled_difference import Gain
from msmae.evidence.segmentation_comparison import write_segmentation_comparison
from msmae.files import write_whole
from msmae.reporting.comparison.files import read_comparison
from msmae.reporting.comparison.page import write_comparison
from msmae.reporting.figures.canvas import as_file
from msmae.reporting.figures.comparison import Line, forest_figure

REPOSITORY = Path(__file__).resolve().parents[1]
ASKED = r"\{\{ (?!arms \}\})([\w+, -]+) \}\}"
COMPARISON = r"\{\{ ([\w+-]+) \}\}"
NOT_YET = "*Not run yet.*"


def page(template: str, results: Path) -> str:
    """The page with its tables; a comparison that is not there yet, or not finished, is named as such."""
    draws = pooled_difference.Draws()
    found = [name for name in re.findall(COMPARISON, template) if (results / name / "comparison.json").is_file()]
    with threadpool_limits(1), side_by_side() if len(found) > 1 else ThreadPoolExecutor() as pool:
        begun = {name: pool.submit(writer_of(results / name), results / name) for name in found}
        text = re.sub(ASKED, lambda match: filled(match.group(1), results, draws, begun), template)
    return text.replace("{{ arms }}", arms_table.table(results, ARMS))  # from the tables that the others have written


def side_by_side() -> ProcessPoolExecutor:
    """Processes for the comparisons, which take longest and none of which needs another."""
    return ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=threadpool_limits, initargs=(1,))


def filled(asked: str, results: Path, draws: pooled_difference.Draws, begun: dict[str, Future[Any]]) -> str:
    """What stands in the place of ``{{ asked }}``."""
    if asked == "keep":
        return pooled_loss.table(results)
    if asked == "keep-even":
        return pooled_loss.gain_table(results)
    if found := re.fullmatch(r"maps of (\S+)", asked):
        return map_curves.table(results, found[1])
    if found := re.fullmatch(r"layers of (\S+)", asked):
        return map_layers.table(results, found[1])
    if found := re.fullmatch(r"maps over (\S+)", asked):
        return maps_while_learning(results, found[1])
    if found := re.fullmatch(r"settings of (\S+) in (\S+)", asked):
        return variants(results, "settings", dict.fromkeys(ABLATIONS), found[1], found[2], draws)
    if found := re.fullmatch(r"ideas of (\S+) in (\S+)", asked):
        return variants(results, "ideas", IDEAS, found[1], found[2], draws)
    if found := re.fullmatch(r"(.+) against (\S+)", asked):
        return gains(results, found[1].split(", "), found[2], draws)
    return comparison(results / asked, begun[asked]) if asked in begun else NOT_YET


def writer_of(folder: Path) -> Callable[[Path], Any]:
    """What writes a comparison's own files anew."""
    plan = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    return write_segmentation_comparison if plan.get("task") == "segmentation" else write_comparison


def comparison(folder: Path, writing: Future[Any]) -> str:
    """The tables of a comparison, when they are written."""
    try:
        writing.result()
    except UserError as problem:  # no seed is finished for all arms
        return f"*Not finished: {problem.what}.*"
    text = (folder / "comparison_table.md").read_text(encoding="utf-8")
    return re.sub(r"^#", "##", text.partition("\n")[2].strip(), flags=re.MULTILINE)


def gains(results: Path, firsts: list[str], second: str, draws: pooled_difference.Draws) -> str:
    """A table for each of the first arms, and above them one picture where there are more than three rows to draw."""
    found = {first: pooled_difference.differences(results, first, second, draws) for first in firsts}
    tables = [pooled_difference.table(rows, first, second) for first, rows in found.items()]
    lines = []
    for first, rows in found.items():
        lines += [line(f"{first}, {row.data}{' (one seed)' * (row.seeds == 1)}", row.gain) for row in rows]
        everything = pooled_difference.pooled(rows)
        count = len(pooled_difference.independent([row for row in rows if row.seeds > 1]))
        lines += [line(f"{first}, {count} pooled", everything)] if everything else []
    if len(lines) > 3:
        alt = f"Points of balanced accuracy of {' and of '.join(firsts)} over {second}, by data set and pooled"
        svg = forest_figure(lines, label=f"points of balanced accuracy over {second}", alt=alt, percent=True, zero=True)
        tables.insert(0, picture(results, f"{'-'.join(firsts)}-against-{second}", svg, alt))
    return "\n\n".join(tables)


def variants(
    results: Path, kind: str, words: Mapping[str, str | None], arm: str, data: str, draws: pooled_difference.Draws
) -> str:
    """The table of an arm's variants of one kind, even masks beside them, under its picture."""
    others = {"supmae": "supmae", **{f"{arm}+{name}": what for name, what in words.items()}}
    rows = ablations.ablations(results, data, arm, others, draws)
    if not any(row.variant for row in rows):
        return NOT_YET
    alt = f"Points of balanced accuracy of {arm} with one thing done otherwise, over {arm} as it is, on {data} ({kind})"
    label = f"points of balanced accuracy over {arm} as it is"
    lines = [
        line(f"{row.what.partition(':')[0].replace('pretrain.', '')}{' (one seed)' * (row.seeds == 1)}", row.gain)
        for row in rows
        if row.gain
    ]
    svg = forest_figure(lines, label=label, alt=alt, percent=True, zero=True)
    drawn = picture(results, f"{kind}-of-{arm}-{data}", svg, alt)
    return f"{drawn}\n\n{ablations.table(rows, arm, asked=len(words))}"


def maps_while_learning(results: Path, data: str) -> str:
    """The picture of how well maps find lesions, over pre-training."""
    if not (results / data / "comparison.json").is_file():
        return NOT_YET
    found = maps(read_comparison(results / data))
    alt = f"AUROC of the maps against the lesions of {data}, over the epochs of pre-training"
    return picture(results, f"maps-{data}", found["picture"], alt) if found else NOT_YET


def line(name: str, gain: Gain) -> Line:
    """A row of a picture."""
    low, high = gain.interval()
    return Line(name, mean=gain.value, low=low, high=high, dots=())


def picture(results: Path, name: str, svg: str, alt: str) -> str:
    """Write results/pictures/NAME.svg, and give back what shows it in RESULTS.md."""
    (results / "pictures").mkdir(exist_ok=True)
    name = name.replace("+", "-")
    write_whole(results / "pictures" / f"{name}.svg", as_file(svg))
    return f"![{alt}](results/pictures/{name}.svg)"


def main() -> None:
    """Write RESULTS.md."""
    template = (REPOSITORY / "experiments" / "results_page.md").read_text(encoding="utf-8")
    (REPOSITORY / "RESULTS.md").write_text(page(template, REPOSITORY / "results"), encoding="utf-8")
    print(f"{REPOSITORY / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
