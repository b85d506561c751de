"""RESULTS.md and the tables beside the predictions are what the predictions say."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_comparison_report import write_folder

from test_ablations import runs as saved_runs
from test_map_layers import save as save_layers

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The names in experiments/results.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "experiments"))
        return runpy.run_path(str(REPOSITORY / "experiments" / "results.py"), run_name="results")


@pytest.mark.slow
def test_results_are_rebuilt_to_the_byte(script: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "results", tmp_path / "results")
    template = (REPOSITORY / "experiments" / "results_page.md").read_text(encoding="utf-8")
    page = script["page"](template, tmp_path / "results")
    assert page == (REPOSITORY / "RESULTS.md").read_text(encoding="utf-8")
    tables = sorted((REPOSITORY / "results").glob("*/table.csv"))
    assert tables
    for table in tables:
        again = tmp_path / "results" / table.parent.name / "table.csv"
        assert again.read_bytes() == table.read_bytes()
        assert not re.search(r"[1-9](\.?\d){10}", table.read_text(encoding="utf-8")), (
            "digits that depend on the threads"
        )
    pictures = {file.name for file in (REPOSITORY / "results" / "pictures").iterdir()}
    assert pictures == set(re.findall(r"\]\(results/pictures/([^)]+)\)", page))
    for name in pictures:
        again = tmp_path / "results" / "pictures" / name
        assert again.read_bytes() == (REPOSITORY / "results" / "pictures" / name).read_bytes(), name


def test_one_changed_prediction_changes_the_table(script: dict[str, Any], tmp_path: Path) -> None:
    write_folder(tmp_path / "moles", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0, 1))
    before = script["page"]("{{ moles }}", tmp_path)
    assert script["page"]("{{ moles }}", tmp_path) == before
    file = tmp_path / "moles" / "msmae" / "0" / "predictions.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    right = table.index[(table["split"] == "test") & (table["label"] == table["predicted"])][0]
    shares = [name for name in table.columns if name.startswith("prob_")]
    turned = dict(zip(shares, reversed(table.loc[right, shares].tolist()), strict=True))
    other = next(name for name in shares if name != f"prob_{table.loc[right, 'label']}").removeprefix("prob_")
    table.loc[right, [*turned, "predicted"]] = [*turned.values(), other]
    table.to_csv(file, index=False, lineterminator="\n")
    assert script["page"]("{{ moles }}", tmp_path) != before


def test_several_arms_against_one_share_a_picture(script: dict[str, Any], tmp_path: Path) -> None:
    for data in ("moles", "lungs"):
        write_folder(tmp_path / data, arms={"mae": 0.8, "msmae": 2.6, "vit": 1.0}, seeds=(0, 1))
    for file in (tmp_path / "lungs").glob("*/*/predictions.csv"):
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        table.assign(patient_id="lung " + table["patient_id"]).to_csv(file, index=False)
    found = script["page"]("{{ msmae, mae against vit }}", tmp_path)
    assert found.count("| data | seeds |") == 2
    assert "(results/pictures/msmae-mae-against-vit.svg)" in found
    drawn = (tmp_path / "pictures" / "msmae-mae-against-vit.svg").read_text(encoding="utf-8")
    for name in ("msmae, lungs", "msmae, moles", "msmae, 2 pooled", "mae, 2 pooled", "points of balanced accuracy"):
        assert f">{name}" in drawn
    shutil.rmtree(tmp_path / "lungs")
    assert "pictures" not in script["page"]("{{ mae against vit }}", tmp_path)  # one row: nothing to draw


def test_what_settings_do_is_drawn_and_what_layers_see_is_told(script: dict[str, Any], tmp_path: Path) -> None:
    saved_runs(tmp_path / "moles", seeds=2, separation=1.5)
    saved_runs(tmp_path / "moles", seeds=2, separation=1.9, arm="supmae")
    saved_runs(tmp_path / "moles+norm-pix", seeds=2, separation=1.7, normalise_pixels=True)
    saved_runs(tmp_path / "moles+crop-20", seeds=1, separation=1.6, crop_scale=[0.2, 1.0])
    found = script["page"]("{{ settings of msmae in moles }}", tmp_path)
    assert [line.split(" | ")[0].strip("| ") for line in found.splitlines()[4:]] == [
        "msmae as it is", "supmae", "pretrain.normalise_pixels true", "pretrain.crop_scale 0.2 to 1",
    ]  # fmt: skip
    drawn = (tmp_path / "pictures" / "settings-of-msmae-moles.svg").read_text(encoding="utf-8")
    for name in ("supmae", "normalise_pixels true", "crop_scale 0.2 to 1 (one seed)"):
        assert f">{name}<" in drawn
    assert script["page"]("{{ ideas of msmae in moles }}", tmp_path) == "*Not run yet.*"
    saved_runs(tmp_path / "moles+blocks", seeds=2, separation=1.7)
    told = script["page"]("{{ ideas of msmae in moles }}", tmp_path)
    assert "(results/pictures/ideas-of-msmae-moles.svg)" in told
    assert "| blocks: two by two patches are drawn together | 2 |" in told
    assert ">blocks<" in (tmp_path / "pictures" / "ideas-of-msmae-moles.svg").read_text(encoding="utf-8")
    save_layers(tmp_path / "moles+layers" / "msmae" / "0", shift=0.0)
    assert "| msmae (1) | rollout | 0.900 |" in script["page"]("{{ layers of moles }}", tmp_path)


def test_a_comparison_that_was_not_run_is_named_so(script: dict[str, Any], tmp_path: Path) -> None:
    for asked in ("moles", "maps over moles", "maps of moles", "layers of moles", "settings of msmae in moles"):
        assert script["page"](f"{{{{ {asked} }}}}", tmp_path) == "*Not run yet.*"
    assert script["page"]("{{ msmae, vit against mae }}", tmp_path) == (
        "*msmae − mae: not run yet.*\n\n*vit − mae: not run yet.*"
    )


def test_a_comparison_without_a_finished_seed_is_named_so(script: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "moles").mkdir()
    (tmp_path / "moles" / "comparison.json").write_text('{"arms": ["msmae"], "seeds": [0], "classes": ["a", "b"]}')
    assert script["page"]("{{ moles }}", tmp_path).startswith("*Not finished: none of 1 arms has a finished run")


def test_what_the_pages_point_at_is_there_and_committed() -> None:
    """A file that an ignore rule leaves out is there for its maker alone."""
    pages = [REPOSITORY / "README.md", REPOSITORY / "RESULTS.md", *(REPOSITORY / "docs").glob("*.md")]
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


def test_no_machine_is_named_in_the_results() -> None:
    for file in (REPOSITORY / "results").rglob("*"):
        if file.is_file():
            assert not re.search(r"/(work|tmp|home|root)/", file.read_text(encoding="utf-8")), file
