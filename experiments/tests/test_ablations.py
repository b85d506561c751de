"""One setting that differs: what it does is told from predictions, maps and settings, and corrected for how many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from study_tables.ablations import Ablation, ablations, table
from study_tables.pooled_difference import Draws, Gain

from msmae.statistics.comparison import holm
from msmae.statistics.predictions import write_predictions
from saved_run import make_predictions

USUAL: dict[str, Any] = {"epochs": 29, "mask_ratio": None, "crop_scale": [0.5, 1.0], "normalise_pixels": False}
"""What the runs below say; all else stands at today's defaults, as in runs that are older than a setting."""


def runs(
    folder: Path,
    *,
    seeds: int,
    separation: float,
    auroc: float = 0.5,
    gmac: float = 0.04,
    arm: str = "msmae",
    **settings: Any,
) -> None:
    """Runs of an arm whose first epoch's maps find every lesion, and whose last epoch's have this AUROC."""
    for seed in range(seeds):
        run = folder / arm / str(seed)
        run.mkdir(parents=True)
        frame = make_predictions(patients=60, splits=("test",), separation=separation, seed=100 * seed)
        write_predictions(frame, run / "predictions.csv")
        config = {"settings": {"model": {"depth": 4}, "pretrain": {**USUAL, **settings}, "finetune": {"draw": "all"}}}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        (run / "metrics.json").write_text(json.dumps({"cost": {"gmacs_pretrain": gmac}}))
        (run / "map_quality.csv").write_text(
            f"epoch,auroc,pointing,masked\n0,1.0,1.0,0\n29,{auroc + 0.1 * seed},0.25,0.5\n"
        )


VARIANTS = {"supmae": "supmae", "msmae+crops": None, "msmae+norm": None, "msmae+one": None, "msmae+never": None}


def rows_of(results: Path) -> list[Ablation]:
    return ablations(results, "moles", "msmae", VARIANTS, Draws())


def test_each_variant_has_its_row(tmp_path: Path) -> None:
    runs(tmp_path / "moles", seeds=2, separation=1.5)
    runs(tmp_path / "moles+crops", seeds=2, separation=1.7, auroc=0.6, gmac=0.05, crop_scale=[0.2, 1.0], epochs=31)
    runs(tmp_path / "moles+half", seeds=2, separation=1.7, epochs=14)
    runs(tmp_path / "moles+norm", seeds=3, separation=1.6, normalise_pixels=True, mask_ratio=0.3, uniform_share=0.0)
    runs(tmp_path / "moles+one", seeds=1, separation=1.5, mask_ratio=0.6)
    found = rows_of(tmp_path)
    assert [row.what for row in found] == [
        "msmae as it is",
        "pretrain.epochs 31, pretrain.crop_scale 0.2 to 1",
        "pretrain.mask_ratio 0.3, pretrain.normalise_pixels true",  # the others' uniform share was the default, too
        "pretrain.mask_ratio 0.6",
    ]  # what was not asked for, as `+half`, is no setting; what has not run has no row
    assert [row.seeds for row in found] == [2, 2, 2, 1]  # those that both have
    assert found[1].maps == pytest.approx({"auroc": 0.65, "pointing": 0.25})
    gained = [row.gain for row in found]
    assert gained[0] is None
    assert gained[1] is not None
    assert gained[2] is not None
    assert gained[1].value > gained[2].value > 0
    usual, crops, norm, one = table(found, "msmae", asked=4).splitlines()[2:]
    p = holm([gained[1].p_value(), gained[2].p_value(), 1.0, 1.0])  # of four that were asked, two can be tested
    assert p[0] is not None
    assert 0.001 < p[0] < 0.9
    assert usual == "| msmae as it is | 2 | — | — | 0.550 | 25 | 0.0400 |"
    assert crops.endswith(f"| {p[0]:.3f} | 0.650 | 25 | 0.0500 |")
    assert norm.endswith(f"| {p[1]:.3f} | 0.550 | 25 | 0.0400 |")
    assert "(patients only) | — | 0.500" in one


def test_settings_of_the_model_and_of_fine_tuning_are_told_too(tmp_path: Path) -> None:
    runs(tmp_path / "moles", seeds=1, separation=1.5)
    runs(tmp_path / "moles+one", seeds=1, separation=1.5)
    file = tmp_path / "moles+one" / "msmae" / "0" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["settings"]["model"]["depth"] = 6
    config["settings"]["finetune"]["draw"] = "own"
    file.write_text(yaml.safe_dump(config))
    assert rows_of(tmp_path)[1].what == "model.depth 6, finetune.draw own"


def test_what_is_no_setting_is_told_in_words(tmp_path: Path) -> None:
    runs(tmp_path / "moles", seeds=2, separation=1.5)
    runs(tmp_path / "moles+blocks", seeds=2, separation=1.6)
    found = ablations(tmp_path, "moles", "msmae", {"msmae+blocks": "blocks"}, Draws())
    assert [row.what for row in found] == ["msmae as it is", "blocks"]
    assert found[1].gain is not None
    assert f"| {found[1].gain.p_value():.3f} |" in table(found, "msmae", asked=1)
    assert ablations(tmp_path, "moles", "msmae", {"msmae+blocks": None}, Draws())[1].what == "nothing"


def test_another_arm_stands_beside_them_untested(tmp_path: Path) -> None:
    runs(tmp_path / "moles", seeds=2, separation=1.5)
    runs(tmp_path / "moles", seeds=3, separation=1.9, arm="supmae", mask_ratio=0.6)
    found = rows_of(tmp_path)
    assert [(row.what, row.seeds) for row in found] == [("msmae as it is", 2), ("supmae", 2)]
    assert "| — | 0.550 |" in table(found, "msmae", asked=4).splitlines()[3]


def test_maps_that_were_not_watched_have_no_figure(tmp_path: Path) -> None:
    runs(tmp_path / "moles", seeds=2, separation=1.5)
    runs(tmp_path / "moles+norm", seeds=2, separation=1.5, normalise_pixels=True)
    for seed in "01":
        (tmp_path / "moles+norm" / "msmae" / seed / "map_quality.csv").unlink()
    assert table(rows_of(tmp_path), "msmae", asked=4).endswith("| — | — | 0.0400 |")


def test_small_p_values_are_bounded_and_safe_in_html(tmp_path: Path) -> None:
    runs(tmp_path / "moles", seeds=2, separation=0.2)
    runs(tmp_path / "moles+norm", seeds=2, separation=6.0, normalise_pixels=True)
    assert "| &lt;0.001 |" in table(rows_of(tmp_path), "msmae", asked=1)


def test_without_variants_it_says_so(tmp_path: Path) -> None:
    runs(tmp_path / "moles", seeds=2, separation=1.5)
    assert table(rows_of(tmp_path), "msmae", asked=4) == "*Not run yet.*"


def test_the_p_value_is_of_the_same_t_as_the_interval() -> None:
    just = Gain(0.02, ((1e-4, 8.0), (3e-4, 2.0)))
    reach = just.interval()[1] - just.value
    assert Gain(reach, just.variances).p_value() == pytest.approx(0.05)
    assert Gain(0.0, ()).p_value() is None


def test_settings_tried_with_other_software_are_said_to_be(tmp_path: Path) -> None:
    runs(tmp_path / "moles", seeds=2, separation=1.5)
    runs(tmp_path / "moles+norm", seeds=2, separation=1.6, normalise_pixels=True)
    told = "these runs were not all made with the same software (precision differ)"
    for seed, precision in enumerate(["32-true", "32-true", "bf16-mixed"]):
        assert told not in table(rows_of(tmp_path), "msmae", asked=4)
        folder = "moles" if seed == 0 else "moles+norm"
        record = {"msmae": "0.1.0", "auto_precision": precision}
        (tmp_path / folder / "msmae" / str(seed // 2) / "environment.json").write_text(json.dumps(record))
    assert told in table(rows_of(tmp_path), "msmae", asked=4)
