"""RESULTS.md and docs/results are what the packed predictions say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import packed
import pandas as pd
import pytest
import results
from saved_comparison import write_folder
from study_tables import numbers, pooled_difference
from test_ablations import runs as saved_runs
from test_map_layers import save as save_layers

REPOSITORY = Path(__file__).resolve().parents[2]
PICKED = "phantom-small+own"
"""A small study, rebuilt from its predictions here; the pages take the others' numbers from results/tables."""


def page(asked: str, folder: Path) -> str:
    """What stands in the place of this in a page, from the studies in a folder."""
    numbers.write_all(folder, {asked})
    made = results.Page(folder, folder / "pictures", "pictures", pooled_difference.Draws(), {})
    return made.text(f"{{{{ {asked} }}}}")


def pack(folder: Path, results_folder: Path) -> None:
    """The studies of a folder, packed."""
    for study in [path for path in folder.iterdir() if path.is_dir()]:
        files = [file for file in study.rglob("*") if file.is_file()]
        packed.write_study(packed.gather(study, files), results_folder, study.name)


def test_the_numbers_of_a_study_are_rebuilt_to_the_byte(tmp_path: Path) -> None:
    packed.unpack(packed.read_study(REPOSITORY / "results", PICKED), tmp_path / PICKED)
    numbers.write_all(tmp_path, {PICKED})
    kept = REPOSITORY / "results" / "tables" / f"{PICKED}.csv"
    assert (tmp_path / PICKED / "table.csv").read_bytes() == kept.read_bytes()
    for table in (REPOSITORY / "results" / "tables").iterdir():
        assert not re.search(r"[1-9](\.?\d){10}", table.read_text(encoding="utf-8")), "digits that depend on threads"


@pytest.mark.parametrize("name", ["brain-tumor-mri", "maps"])
def test_pages_are_rebuilt_to_the_byte(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From packed studies and the numbers beside them, which the test above rebuilds (`make results-check`: all)."""
    template = {path: text for path, text in results.templates().items() if path.stem == name}
    shutil.copytree(REPOSITORY / "results" / "images", tmp_path / "results" / "images")
    for study in ("brain-tumor-mri", "brain-tumor-mri+maps", "phantom-small+layers"):
        shutil.copy(REPOSITORY / "results" / f"{study}.npz", tmp_path / "results")

    def from_tables(folder: Path, wanted: set[str]) -> None:
        for study in wanted & {"brain-tumor-mri"}:
            shutil.copy(REPOSITORY / "results" / "tables" / f"{study}.csv", folder / study / "table.csv")

    monkeypatch.setattr(results.numbers, "write_all", from_tables)
    (path,) = results.build(tmp_path / "results", template, tmp_path)
    assert (tmp_path / path).read_bytes() == (REPOSITORY / path).read_bytes()


def test_the_front_page_is_short_and_every_page_is_written() -> None:
    assert len((REPOSITORY / "RESULTS.md").read_text(encoding="utf-8").splitlines()) <= 150
    for path in results.templates():
        assert "{{" not in (REPOSITORY / path).read_text(encoding="utf-8")
    shown = "".join((REPOSITORY / path).read_text(encoding="utf-8") for path in results.templates())
    pictures = {path.name for path in (REPOSITORY / results.PAGES / "pictures").iterdir()}
    assert pictures == set(re.findall(r"pictures/([^)]+\.svg)\)", shown))


def test_a_changed_prediction_changes_the_page_and_nothing_else_does(tmp_path: Path) -> None:
    write_folder(tmp_path / "work" / "moles", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0, 1))
    pack(tmp_path / "work", tmp_path / "results")
    template = {Path("PAGE.md"): "{{ moles }}"}
    pages = []
    for _ in range(2):
        results.build(tmp_path / "results", template, tmp_path)
        pages.append((tmp_path / "PAGE.md").read_bytes() + (tmp_path / "results/tables/moles.csv").read_bytes())
    study = packed.read_study(tmp_path / "results", "moles")
    table = study.tables["msmae/0/predictions.csv"]
    right = table.index[table["label"] == table["predicted"]][0]
    other = next(name for name in ("benign", "malignant") if name != table.loc[right, "label"])
    table.loc[right, "predicted"] = other
    packed.write_study(study, tmp_path / "results", "moles")
    results.build(tmp_path / "results", template, tmp_path)
    pages.append((tmp_path / "PAGE.md").read_bytes() + (tmp_path / "results/tables/moles.csv").read_bytes())
    assert pages[0] == pages[1]
    assert pages[1] != pages[2]
    shares = [name for name in table if name.startswith("prob_")]
    assert len(shares) == 3


def test_the_last_maps_of_an_arm_are_told_in_a_sentence(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "moles", arms={"msmae": 1.0}, seeds=(0, 1))
    for seed, auroc in ((0, 0.6), (1, 0.7)):
        rows = f"epoch,auroc,pointing,masked,kept\n0,0.5,0,0,0\n9,{auroc},0.5,0.4,0.3\n"
        (folder / "msmae" / str(seed) / "map_quality.csv").write_text(rows)
    assert page("map of msmae on moles", tmp_path) == "0.65 (seeds 0.60 to 0.70)"
    assert "| msmae | 0.650 → 0.650 (0.600 to 0.700) |" in page("moles", tmp_path)  # of two epochs, halfway is the last


def test_several_arms_against_one_share_a_picture(tmp_path: Path) -> None:
    for data in ("moles", "lungs"):
        write_folder(tmp_path / data, arms={"mae": 0.8, "msmae": 2.6, "vit": 1.0}, seeds=(0, 1), patients=data)
    found = page("msmae, mae against vit", tmp_path)
    assert found.count("| data | seeds |") == 2
    assert "(pictures/msmae-mae-against-vit.svg)" in found
    drawn = (tmp_path / "pictures" / "msmae-mae-against-vit.svg").read_text(encoding="utf-8")
    for name in ("msmae, lungs", "msmae, moles", "msmae, 2 pooled", "mae, 2 pooled", "points of balanced accuracy"):
        assert f">{name}" in drawn
    shutil.rmtree(tmp_path / "lungs")
    assert "pictures" not in page("mae against vit", tmp_path)  # one row: nothing to draw


def test_figures_within_a_sentence_are_those_of_the_tables(tmp_path: Path) -> None:
    for data in ("moles", "lungs"):
        write_folder(tmp_path / data, arms={"mae": 0.8, "msmae": 2.6}, seeds=(0, 1), patients=data)
    table = page("msmae against mae", tmp_path)
    for data, name in (("moles", "moles"), ("all", "2 data sets, equal weights")):
        value, low, high = re.search(rf"{name}.*\| \**\+([\d.]+) \(\+([\d.]+) to \+([\d.]+)\)", table).groups()  # type: ignore[union-attr]
        told = page(f"gain of msmae over mae on {data}", tmp_path)
        assert told == f"{value} points (95 % CI {low} to {high})"
    with pytest.raises(ValueError, match="no common runs on skin"):
        page("gain of msmae over mae on skin", tmp_path)
    numbers.write_all(tmp_path, {"moles"})
    rows = pd.read_csv(tmp_path / "moles" / "table.csv")
    mean = rows[(rows["kind"] == "mean") & (rows["first"] == "mae") & (rows["metric"] == "balanced_accuracy")]
    assert page("mean of mae on moles", tmp_path) == f"{100 * mean['value'].item():.1f} %"
    with pytest.raises(ValueError, match="nothing is called"):
        page("what, ever", tmp_path)


def test_what_settings_do_is_drawn_and_what_layers_see_is_told(tmp_path: Path) -> None:
    saved_runs(tmp_path / "moles", seeds=2, separation=1.5)
    saved_runs(tmp_path / "moles", seeds=2, separation=1.9, arm="supmae")
    saved_runs(tmp_path / "moles+norm-pix", seeds=2, separation=1.7, normalise_pixels=True)
    saved_runs(tmp_path / "moles+crop-20", seeds=1, separation=1.6, crop_scale=[0.2, 1.0])
    found = page("settings of msmae in moles", tmp_path)
    assert [line.split(" | ")[0].strip("| ") for line in found.splitlines()[4:]] == [
        "msmae as it is", "supmae", "pretrain.normalise_pixels true", "pretrain.crop_scale 0.2 to 1",
    ]  # fmt: skip
    drawn = (tmp_path / "pictures" / "settings-of-msmae-moles.svg").read_text(encoding="utf-8")
    for name in ("supmae", "normalise_pixels true", "crop_scale 0.2 to 1 (one seed)"):
        assert f">{name}<" in drawn
    assert page("ideas of msmae in moles", tmp_path) == "*Not run yet.*"
    saved_runs(tmp_path / "moles+blocks", seeds=2, separation=1.7)
    told = page("ideas of msmae in moles", tmp_path)
    assert "(pictures/ideas-of-msmae-moles.svg)" in told
    assert "| blocks: two by two patches are drawn together | 2 |" in told
    assert ">blocks<" in (tmp_path / "pictures" / "ideas-of-msmae-moles.svg").read_text(encoding="utf-8")
    save_layers(tmp_path / "moles+layers" / "msmae" / "0", shift=0.0)
    assert "| msmae (1) | rollout | 0.900 |" in page("layers of moles", tmp_path)


def test_a_comparison_that_was_not_run_is_named_so(tmp_path: Path) -> None:
    for asked in ("moles", "maps over moles", "maps of moles", "layers of moles", "settings of msmae in moles"):
        assert page(asked, tmp_path) == "*Not run yet.*"
    assert page("msmae, vit against mae", tmp_path) == "*msmae − mae: not run yet.*\n\n*vit − mae: not run yet.*"


def test_a_comparison_without_a_finished_seed_is_named_so(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "moles", arms={"msmae": 1.0}, seeds=(0,))
    (folder / "msmae" / "0" / "metrics.json").unlink()
    assert page("moles", tmp_path).startswith("*Not finished: none of 1 arms has a finished run")


def test_what_the_pages_point_at_is_there_and_committed() -> None:
    """A file that an ignore rule leaves out is there for its maker alone."""
    made = {REPOSITORY / "docs" / "reference", REPOSITORY / "docs" / "_build"}  # by `make docs`
    written = [page for page in (REPOSITORY / "docs").rglob("*.md") if not made & set(page.parents)]
    pages = [REPOSITORY / "README.md", REPOSITORY / "RESULTS.md", *written]
    targets = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in pages
        for target in re.findall(r"\]\(([^)#\s][^)\s]*)\)", page.read_text(encoding="utf-8"))
        if "://" not in target
    }
    assert len(targets) > 10
    assert not [str(target) for target in targets if not target.exists()]
    if (REPOSITORY / ".git").exists():
        names = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
        known = {(REPOSITORY / name).resolve() for name in names.splitlines()}
        assert not [str(target) for target in targets if target.is_file() and target not in known]


def test_no_machine_is_named_in_the_results_and_they_are_small() -> None:
    folder = REPOSITORY / "results"
    for name in packed.names(folder):
        study = packed.read_study(folder, name)
        told = [*study.texts.values(), *(path for table in study.tables.values() for path in table["image_path"])]
        assert not re.search(r"(?:^|[\s\"'])/(work|tmp|home|root)/", "\n".join(told)), name
        for file, text in study.texts.items():
            if file.endswith(".json"):
                assert json.loads(text)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 15e6
