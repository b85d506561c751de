"""``make results``: RESULTS.md and docs/results/, rebuilt from the packed predictions in results/.

RESULTS.md is experiments/results_page.md, and each page of docs/results/ that of experiments/pages/, with every
``{{ ... }}`` replaced:

    NAME                    the tables of results/NAME
    FIRST against SECOND    what an arm gains over another in all of results/; firsts, by commas, share a picture
    settings of ARM in NAME one setting that differs, each (studies.TRIED); random masking beside them
    ideas of ARM in NAME    one thing done otherwise, each (studies.IDEAS); random masking beside them
    maps over NAME          how well the maps of its arms find the lesions while they are learned
    maps of NAME            what the answers depend on
    layers of NAME          which layer's and which head's attention finds the lesion
    keep, keep-even         what a quarter of the patches costs in all of results/*+keep; what choosing it gains
    pretrained of NAME      what fine-tuning from pretrained weights should see, an arm a row
    minutes                 what `--init ENCODER --minutes N` reached, a data set a row
    claims                  the paper's claims, a row a comparison, and the answer; also written to results/claims.json
    arms                    one figure of every arm on every data set
    table of A over B, ...  what arms gain over others, a column a pair
    gain of A over B on D   within a sentence: ``3.3 points (95 % CI 0.8 to 5.9)``; D: a data set, or ``all``
    mean of ARM on D        within a sentence: ``91.4 %``
    map of ARM on D         within a sentence, AUROC against the lesion at the end: ``0.70 (seeds 0.63 to 0.75)``

Pictures go to docs/results/pictures, and every number of a comparison to results/tables/NAME.csv.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from packed import names, read_study, unpack
from studies import IDEAS, SHOWN, TRIED
from study_tables import (
    ablations,
    arms_table,
    claims,
    coarse,
    comparison,
    map_curves,
    map_history,
    map_layers,
    minutes,
    numbers,
    pooled_difference,
    pooled_loss,
)
from study_tables.markdown import NOT_YET, number, table
from study_tables.pooled_difference import Gain

from msmae.reporting.comparison.files import read_comparison
from msmae.reporting.figures.canvas import as_file
from msmae.reporting.figures.comparison import Line, forest_figure

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = Path("docs", "results")
ASKED = r"\{\{ ([\w+, -]+) \}\}"


class Page:
    """One page in the making: what its template asks for, from the unpacked studies."""

    def __init__(
        self, results: Path, pictures: Path, link: str, draws: pooled_difference.Draws, told: dict[str, str]
    ) -> None:
        self.results, self.pictures, self.link, self.draws, self.told = results, pictures, link, draws, told
        """Where studies lie, where pictures go, how the page names that folder, what was resampled before, and the
        tables without a picture that another page has asked for.
        """

    def text(self, template: str) -> str:
        """The page; a comparison that is not there yet, or not finished, is named as such."""
        return re.sub(ASKED, lambda match: self.filled(match[1]), template)

    def filled(self, asked: str) -> str:
        """What stands in the place of ``{{ asked }}``."""
        alone: dict[str, Callable[[], str]] = {
            "keep": lambda: pooled_loss.table(self.results),
            "keep-even": lambda: pooled_loss.gain_table(self.results),
            "arms": lambda: arms_table.table(self.results, SHOWN),
            "minutes": lambda: minutes.minutes_table(self.results),
            "claims": lambda: claims.claims_table(claims.claims(self.results, self.draws)),
        }
        if asked in alone:
            if asked not in self.told:
                self.told[asked] = alone[asked]()
            return self.told[asked]
        forms: dict[str, Callable[..., str]] = {
            r"maps of (\S+)": lambda data: map_curves.table(self.results, data),
            r"layers of (\S+)": lambda data: map_layers.table(self.results, data),
            r"pretrained of (\S+)": lambda data: claims.arms_table(self.results / data),
            r"coarse of (\S+)": lambda data: coarse.table_of(self.results / data),
            r"maps over (\S+)": self.maps_while_learning,
            r"settings of (\S+) in (\S+)": lambda arm, data: self.variants("settings", dict.fromkeys(TRIED), arm, data),
            r"ideas of (\S+) in (\S+)": lambda arm, data: self.variants("ideas", IDEAS, arm, data),
            r"gain of (\S+) over (\S+) on (\S+)": self.gain,
            r"mean of (\S+) on (\S+)": self.mean,
            r"map of (\S+) on (\S+)": self.map,
            r"table of (.+)": lambda pairs: self.side_by_side([pair.split(" over ") for pair in pairs.split(", ")]),
            r"(.+) against (\S+)": lambda firsts, second: self.gains(firsts.split(", "), second),
            r"(\S+)": self.comparison,
        }
        for form, write in forms.items():
            if found := re.fullmatch(form, asked):
                return write(*found.groups())
        raise ValueError(f"nothing is called {asked!r}")

    def comparison(self, name: str) -> str:
        """The tables of a comparison."""
        folder = self.results / name
        if not (folder / "comparison.json").is_file():
            return NOT_YET
        if not (folder / "table.csv").is_file():  # no seed is finished for all arms
            return f"*Not finished: {(folder / 'unfinished.txt').read_text(encoding='utf-8')}.*"
        found = pd.read_csv(folder / "table.csv")
        return str(numbers.part(folder).text(folder, found))

    def gain(self, first: str, second: str, data: str) -> str:
        """What an arm gains, within a sentence."""
        rows = pooled_difference.differences(self.results, first, second, self.draws)
        found = pooled_difference.pooled(rows) if data == "all" else {row.data: row.gain for row in rows}.get(data)
        if found is None:
            raise ValueError(f"{first} and {second} have no common runs on {data}")
        low, high = found.interval()
        value, low_text, high_text = (number(one, comparison.PRIMARY) for one in (found.value, low, high))
        return f"{value} points (95 % CI {low_text} to {high_text})"

    def mean(self, arm: str, data: str) -> str:
        """The balanced accuracy of an arm, within a sentence."""
        found = pd.read_csv(self.results / data / "table.csv")
        rows = found[(found["kind"] == "mean") & (found["metric"] == comparison.PRIMARY) & (found["first"] == arm)]
        return f"{number(rows['value'].item(), comparison.PRIMARY)} %"

    def map(self, arm: str, data: str) -> str:
        """How well the last maps of an arm find the lesion, within a sentence."""
        end = map_history.histories(read_comparison(self.results / data))[arm].values["auroc"][:, -1]
        return f"{end.mean():.2f} (seeds {end.min():.2f} to {end.max():.2f})"

    def gains(self, firsts: list[str], second: str) -> str:
        """A table for each of the first arms, and above them one picture where there are more than three rows."""
        found = {first: pooled_difference.differences(self.results, first, second, self.draws) for first in firsts}
        tables = [pooled_difference.table(rows, first, second) for first, rows in found.items()]
        lines = []
        for first, rows in found.items():
            lines += [line(f"{first}, {row.data}{' (one seed)' * (row.seeds == 1)}", row.gain) for row in rows]
            everything = pooled_difference.pooled(rows)
            count = len(pooled_difference.independent([row for row in rows if row.seeds > 1]))
            lines += [line(f"{first}, {count} pooled", everything)] if everything else []
        if len(lines) > 3:
            alt = f"Points of balanced accuracy of {' and of '.join(firsts)} over {second}, by data set and pooled"
            label = f"points of balanced accuracy over {second}"
            svg = forest_figure(lines, label=label, alt=alt, percent=True, zero=True)
            tables.insert(0, self.picture(f"{'-'.join(firsts)}-against-{second}", svg, alt))
        return "\n\n".join(tables)

    def side_by_side(self, pairs: list[list[str]]) -> str:
        """A row a data set, a column a pair of arms; all data sets together in the last row."""
        columns = [pooled_difference.differences(self.results, first, second, self.draws) for first, second in pairs]
        found = [{row.data: pooled_difference.points(row.gain) + row.note for row in rows} for rows in columns]
        everything = [pooled_difference.pooled(rows) for rows in columns]
        data = sorted({name for column in found for name in column})
        lines = [[name, *(column.get(name, "—") for column in found)] for name in data]
        together = [pooled_difference.points(one) if one else "—" for one in everything]
        lines.append(["**all, equal weights**", *together])
        return table(["data", *(f"{first} − {second}" for first, second in pairs)], lines)

    def variants(self, kind: str, words: Mapping[str, str | None], arm: str, data: str) -> str:
        """The table of what is done otherwise to an arm, each alone, and above it a picture of what is gained."""
        others = {"supmae": "supmae", **{f"{arm}+{name}": told for name, told in words.items()}}
        rows = ablations.ablations(self.results, data, arm, others, self.draws)
        if not any(row.variant for row in rows):
            return NOT_YET
        alt = f"Points of balanced accuracy over {arm} as it is, with one thing done otherwise, on {data} ({kind})"
        label = f"points of balanced accuracy over {arm} as it is"
        lines = [
            line(f"{row.what.partition(':')[0].replace('pretrain.', '')}{' (one seed)' * (row.seeds == 1)}", row.gain)
            for row in rows
            if row.gain
        ]
        svg = forest_figure(lines, label=label, alt=alt, percent=True, zero=True)
        drawn = self.picture(f"{kind}-of-{arm}-{data}", svg, alt)
        return f"{drawn}\n\n{ablations.table(rows, arm, asked=len(words))}"

    def maps_while_learning(self, data: str) -> str:
        """The picture of how well maps find lesions, over pre-training."""
        if not (self.results / data / "comparison.json").is_file():
            return NOT_YET
        alt = f"AUROC of the maps against the lesions of {data}, over the epochs of pre-training"
        svg = map_history.figure(read_comparison(self.results / data), alt)
        return self.picture(f"maps-{data}", svg, alt) if svg else NOT_YET

    def picture(self, name: str, svg: str, alt: str) -> str:
        """Write a picture, and give back what shows it on the page."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        file = f"{name.replace('+', '-')}.svg"
        (self.pictures / file).write_text(as_file(svg), encoding="utf-8")
        return f"![{alt}]({self.link}/{file})"


def line(name: str, gain: Gain) -> Line:
    """A row of a picture."""
    low, high = gain.interval()
    return Line(name, mean=gain.value, low=low, high=high, dots=())


def asked_by(templates: Mapping[Path, str]) -> set[str]:
    """The comparisons whose tables these pages need."""
    found = {asked for text in templates.values() for asked in re.findall(ASKED, text)}
    return {asked.rpartition(" ")[2] for asked in found}


def build(packed: Path, templates: Mapping[Path, str], target: Path) -> list[Path]:
    """Write every page under TARGET, docs/results/pictures, and the numbers of the comparisons into PACKED/tables.

    Args:
        packed: results/.
        templates: by the page's path under TARGET.
    """
    pictures = target / PAGES / "pictures"
    with TemporaryDirectory() as folder:
        results = Path(folder, "studies")
        for name in names(packed):
            unpack(read_study(packed, name), results / name)
        numbers.write_all(results, asked_by(templates))
        fresh, draws, told = Path(folder, "pictures"), pooled_difference.Draws(), dict[str, str]()
        fresh.mkdir()
        for path, template in templates.items():
            link = os.path.relpath(pictures, (target / path).parent)
            text = Page(results, fresh, link, draws, told).text(template)
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text(text, encoding="utf-8")
        (packed / "claims.json").write_text(claims.as_json(claims.claims(results, draws)), encoding="utf-8")
        put(packed / "tables", {f"{path.parent.name}.csv": path for path in results.glob("*/table.csv")})
        put(pictures, {path.name: path for path in fresh.iterdir()})
    return list(templates)


def put(folder: Path, files: Mapping[str, Path]) -> None:
    """Make these files, by name, the content of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.name not in files:
            old.unlink()
    for name, file in files.items():
        (folder / name).write_bytes(file.read_bytes())


def templates() -> dict[Path, str]:
    """Every page's template, by the page's path in the repository."""
    experiments = REPOSITORY / "experiments"
    pages = {PAGES / path.name: path for path in sorted((experiments / "pages").glob("*.md"))}
    paths = {Path("RESULTS.md"): experiments / "results_page.md", **pages}
    return {page: path.read_text(encoding="utf-8") for page, path in paths.items()}


def main() -> None:
    """Write all pages."""
    for page in build(REPOSITORY / "results", templates(), REPOSITORY):
        print(page)


if __name__ == "__main__":
    main()
