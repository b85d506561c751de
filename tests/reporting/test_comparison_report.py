"""A comparison's page is built from saved files alone, and says which arm is better only where that is shown."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from html_page import Page, in_a_browser
from msmae.errors import UserError
from msmae.reporting.comparison import verdict
from msmae.reporting.comparison.page import write_comparison
from msmae.reporting.comparison.verdict import headline
from msmae.statistics.predictions import write_predictions
from msmae.statistics.units import gather, pool, unit_predictions
from msmae.verbs.report import report
from saved_run import add_panels, edit_metrics, put, write_run

CLASSES = ("benign", "malignant", "normal")
ARMS = {"mae": 0.8, "supmae": 1.4, "msmae": 2.6}
"""How far apart each arm's scores set the classes."""


def predict(separation: float, seed: int, *, patients: int = 60, classes: Sequence[str] = CLASSES) -> pd.DataFrame:
    """Test predictions of an arm: the images are the same whatever the seed, the answers are not."""
    shared = np.random.default_rng(7).normal(size=(patients, 2, len(classes)))
    own = np.random.default_rng([seed, int(10 * separation)]).normal(size=shared.shape)
    truth = np.arange(patients) % len(classes)
    scores = 0.8 * shared + 0.6 * own + separation * np.eye(len(classes))[truth][:, None, :]
    odds = np.exp(scores).reshape(-1, len(classes))
    shares = odds / odds.sum(axis=1, keepdims=True)
    names = np.array(classes, dtype=object)
    return pd.DataFrame(
        {
            "image_path": [f"images/{p:03}-{i}.png" for p in range(patients) for i in range(2)],
            "patient_id": [f"p{p:03}" for p in range(patients) for _ in range(2)],
            "split": "test",
            "label": names[np.repeat(truth, 2)],
            "predicted": names[shares.argmax(axis=1)],
            **{f"prob_{name}": shares[:, c] for c, name in enumerate(classes)},
        }
    )


def write_folder(folder: Path, *, arms: dict[str, float], seeds: Sequence[int], folds: int = 0, **plan: object) -> Path:
    """A comparison as `msmae compare` leaves it."""
    for arm, separation in arms.items():
        for seed in seeds:
            frame = predict(separation, seed)
            if not folds:
                write_run(folder / arm / str(seed), frame)
            for k in range(folds):
                mine = frame[frame.index // 2 % folds == k].reset_index(drop=True)
                write_run(folder / arm / f"{seed}-fold{k + 1}", mine)
    put(
        folder / "comparison.json",
        {
            "format_version": 1, "data": "/data/moles", "arms": list(arms), "seeds": list(seeds), "folds": folds,
            "budget": {"kind": "epochs", "statement": "Every run saw <b>3</b> epochs."}, "classes": list(CLASSES),
            "multilabel": False, "ordinal": False, "missing": [], **plan,
        },
    )  # fmt: skip
    put(folder / "audit.json", {"images": 120, "test_identical_to_pool": 0, "test_near_pool": 3})
    return folder


def page_of(folder: Path, resamples: int = 200) -> Page:
    page = Page(write_comparison(folder, resamples=resamples))
    assert page.open == []
    return page


def by_patient(separation: float, seed: int) -> pd.DataFrame:
    """The mean of each patient's images, as a run keeps it."""
    frame = predict(separation, seed)
    units = gather(frame, "patient_id", multilabel=False)
    probabilities = frame[[f"prob_{name}" for name in CLASSES]].to_numpy()[units.rows]
    pooled = pool(probabilities, units.members, len(units), "mean", multilabel=False)
    return unit_predictions(units, frame, pooled, CLASSES, multilabel=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three arms, three seeds; tests leave it as it is."""
    made = write_folder(tmp_path_factory.mktemp("comparison") / "out", arms=ARMS, seeds=(0, 1, 2))
    for arm in ARMS:
        for seed in (0, 1, 2):
            cheap = predict(ARMS[arm] / 2, seed + 10)
            write_predictions(cheap, made / arm / str(seed) / "predictions_linear_probe.csv")
            write_predictions(by_patient(ARMS[arm], seed), made / arm / str(seed) / "predictions_patients.csv")
            pooled = {"unit": "patient_id", "pooling": "mean", "splits": {}}
            edit_metrics(made / arm / str(seed), lambda metrics, pooled=pooled: metrics.update(patients=pooled))
        caption = {"image_path": "images/000-0.png", "label": "benign", "predicted": "normal", "file": "0.png"}
        add_panels(made / arm / "0", [{**caption, "kind": "wrong", "probability": 0.8}])
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return page_of(folder)


def accuracy(arm: str, separation: float | None = None) -> np.ndarray:
    frames = [predict(ARMS[arm], seed) for seed in range(3)]
    return np.array([(frame["label"] == frame["predicted"]).mean() for frame in frames])


def test_the_first_screen_answers_the_question(page: Page) -> None:
    balanced = accuracy("msmae").mean()  # every class has as many images
    first = page.text[: page.text.index("Means over seeds")]
    assert f"“msmae” has the highest balanced accuracy, {100 * balanced:.1f}" in first
    assert "The lead over every other arm is significant" in first
    assert "Based on 3 seeds and 60 patients." in first
    assert "Every run saw <b>3</b> epochs." in first
    assert "3 test images nearly identical to a training or validation image" in first


def test_means_and_differences_are_those_of_the_predictions(folder: Path, page: Page) -> None:
    table = pd.read_csv(folder / "table.csv", keep_default_na=False)

    def row(kind: str, first: str, second: str = "", column: str = "") -> pd.Series:
        at = (table["kind"] == kind) & (table["first"] == first) & (table["second"] == second)
        return table[at & (table["metric"] == "accuracy") & (table["column"] == column)].iloc[0]

    for arm in ARMS:
        assert float(row("mean", arm)["value"]) == pytest.approx(accuracy(arm).mean(), abs=1e-9)
        assert float(row("mean", arm)["seed_sd"]) == pytest.approx(accuracy(arm).std(ddof=1), abs=1e-9)
    pair = row("difference", "msmae", "mae")
    assert float(pair["value"]) == pytest.approx((accuracy("msmae") - accuracy("mae")).mean(), abs=1e-9)
    assert float(pair["p_value"]) <= float(pair["p_holm_planned"]) <= float(pair["p_holm"]) * 1.0001
    asked = table[table["kind"] == "difference"]
    assert set(zip(asked["first"], asked["second"], strict=True)) == {
        ("msmae", "mae"), ("msmae", "supmae"), ("supmae", "mae"),
    }  # fmt: skip
    probes = [predict(ARMS["mae"] / 2, seed + 10) for seed in range(3)]
    expected = np.mean([(f["label"] == f["predicted"]).mean() for f in probes])
    assert float(row("cheap", "mae", column="linear_probe")["value"]) == pytest.approx(expected, abs=1e-9)
    assert f"{100 * expected:.1f} %" in page.text.replace("\N{NO-BREAK SPACE}", " ")


def test_patients_have_figures_of_their_own(folder: Path, page: Page) -> None:
    table = pd.read_csv(folder / "table.csv", keep_default_na=False)
    patients = (
        table[(table["column"] == "patient") & (table["metric"] == "accuracy")]
        .set_index(["kind", "first"])
        .sort_index()
    )
    reached = {
        arm: np.mean([(f["label"] == f["predicted"]).mean() for f in (by_patient(ARMS[arm], s) for s in range(3))])
        for arm in ARMS
    }
    for arm in ARMS:
        assert float(patients.loc[("unit", arm), "value"]) == pytest.approx(reached[arm], abs=1e-9)
    pair = patients.loc[("unit difference", "msmae")].query("second == 'mae'").iloc[0]
    assert float(pair["value"]) == pytest.approx(reached["msmae"] - reached["mae"], abs=1e-9)
    assert f"{100 * reached['mae']:.1f} %" in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "60 test patients" in page.text


def test_no_figures_of_patients_where_a_run_lacks_them(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "out"
    shutil.copytree(folder, other)
    (other / "mae" / "1" / "predictions_patients.csv").unlink()
    assert "60 test patients" not in page_of(other).text


def test_the_pictures_and_the_masks_side_by_side(page: Page) -> None:
    drawn = page.attributes("aria-label")
    assert "Balanced accuracy of each arm, by seed" in drawn
    assert "ROC curves of mae, supmae, msmae" in drawn
    assert len(page.attributes("src")) == 3  # one image, three arms
    assert "nearest neighbours" not in page.text.lower().replace("linear probe and nearest neighbours", "")


@pytest.mark.slow
def test_nothing_points_outside_and_no_torch(folder: Path, page: Page) -> None:
    for place in (*page.attributes("src"), *page.attributes("href"), *page.attributes("xlink:href")):
        assert place.startswith(("#", "data:"))
    assert "script" not in {tag for tag, _ in page.elements}
    inside = {place[1:] for place in page.attributes("href") if place.startswith("#")}
    assert inside <= set(page.attributes("id"))
    code = "import sys; from msmae.verbs.report import report; report(sys.argv[1]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 0


@pytest.mark.slow
def test_it_is_the_same_to_the_byte(folder: Path, drawn: None) -> None:
    files = ("report.html", "table.csv", "comparison_table.md")
    report(str(folder))
    first = [(folder / name).read_bytes() for name in files]
    report(str(folder))
    assert [(folder / name).read_bytes() for name in files] == first


def test_no_difference_is_not_called_one(tmp_path: Path) -> None:
    page = page_of(write_folder(tmp_path / "out", arms={"msmae": 1.5, "mae": 1.4}, seeds=(0, 1)))
    assert "not significant" in page.text
    assert "The lead over every other arm is significant" not in page.text
    assert "too small to be detected" in page.text


def test_one_seed_is_told_and_has_an_interval(tmp_path: Path) -> None:
    page = page_of(write_folder(tmp_path / "out", arms={"vit": 0.5, "msmae": 2.0}, seeds=(4,)))
    assert "Another seed may change the order" in page.text
    assert re.search(r"msmae against vit: .* better \(p", page.text)


def test_missing_runs_are_named_and_the_rest_is_compared(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", arms=ARMS, seeds=(0, 1))
    (folder / "mae" / "1" / "metrics.json").unlink()
    page = page_of(folder)
    assert "1 run of the plan unfinished: mae/1" in page.text
    assert "Left out until every arm has the same seeds: supmae/1, msmae/1" in page.text
    (folder / "mae" / "0" / "metrics.json").unlink()
    page = page_of(folder)
    assert "Based on 2 seeds" in page.text
    (folder / "supmae" / "0" / "metrics.json").unlink()
    (folder / "msmae" / "1" / "metrics.json").unlink()
    with pytest.raises(UserError, match="no seed is finished for all arms"):
        write_comparison(folder)
    (folder / "msmae" / "0" / "metrics.json").unlink()
    assert "“supmae” has a balanced accuracy of" in page_of(folder).text  # one arm, as after --folds, is no comparison
    (folder / "supmae" / "1" / "metrics.json").unlink()
    with pytest.raises(UserError, match="none of 3 arms has a finished run"):
        write_comparison(folder)


def test_folds_are_joined(tmp_path: Path) -> None:
    whole = write_folder(tmp_path / "whole", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0, 1))
    folded = write_folder(tmp_path / "folded", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0, 1), folds=3)
    page_of(whole)
    page_of(folded)
    assert (whole / "table.csv").read_text() == (folded / "table.csv").read_text()
    (folded / "mae" / "1-fold2" / "metrics.json").unlink()
    assert "mae/1-fold2" in page_of(folded).text


def test_different_test_images_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0,))
    write_predictions(predict(2.6, 0).iloc[2:], folder / "msmae" / "0" / "predictions.csv")
    with pytest.raises(
        UserError, match="mae and msmae cannot be compared: their test images, labels or patients differ"
    ):
        write_comparison(folder)
    assert not (folder / "report.html").exists()


def test_changed_predictions_and_other_data_are_told(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0,))
    edit_metrics(folder / "mae" / "0", lambda m: m["splits"]["test"]["metrics"]["accuracy"].update(value=0.999))
    edit_metrics(folder / "msmae" / "0", lambda m: m.update(data_sha256="c" * 64))
    page = page_of(folder)
    assert "mae, seed 0: predictions.csv does not agree with metrics.json" in page.text
    assert "The runs of seed 0 have different data fingerprints" in page.text


def test_a_leak_is_on_top(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", arms={"mae": 0.8, "msmae": 2.6}, seeds=(0,))
    put(folder / "audit.json", {"test_identical_to_pool": 2})
    assert "These figures cannot be trusted" in page_of(folder).text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read"),
        ('{"arms": ["a"], "seeds": []}', "names no seeds and no classes"),
        ('{"arms": ["../x", "b"], "seeds": [0], "classes": ["c"]}', "no folder's name"),
    ],
)
def test_a_damaged_plan_is_refused(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "comparison.json").write_text(content)
    with pytest.raises(UserError, match=told):
        report(str(tmp_path))


def test_the_questions_asked_beforehand() -> None:
    assert verdict.planned_pairs(["vit", "mae", "supmae", "msmae"]) == [
        ("msmae", "vit"), ("msmae", "mae"), ("msmae", "supmae"), ("supmae", "mae"),
    ]  # fmt: skip
    assert verdict.other_pairs(["vit", "mae", "supmae", "msmae"]) == [("vit", "mae"), ("vit", "supmae")]
    assert verdict.planned_pairs(["a", "b"]) == [("a", "b")]
    assert verdict.other_pairs(["a", "b"]) == []


@pytest.mark.parametrize(("metric", "value", "p_holm", "sign"), [
    ("accuracy", 0.1, 0.01, 1), ("accuracy", -0.1, 0.01, -1), ("accuracy", 0.1, 0.05, 0), ("brier", -0.1, 0.01, 1),
    ("ece", 0.1, 0.01, -1), ("auroc", None, None, 0), ("auroc", 0.0, None, 0),
])  # fmt: skip
def test_a_verdict_needs_a_corrected_p(metric: str, value: float | None, p_holm: float | None, sign: int) -> None:
    pair = {"first": "a", "second": "b", "metrics": {metric: {"value": value, "p_holm": p_holm}}}
    assert verdict.sign_of(pair, metric) == sign


def test_an_arm_that_always_gives_one_answer_is_shown(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", arms={"majority": 1.0, "msmae": 2.6}, seeds=(0, 1))
    for seed in (0, 1):
        frame = predict(1.0, seed).assign(predicted="benign", prob_benign=0.4, prob_malignant=0.3, prob_normal=0.3)
        write_predictions(frame, folder / "majority" / str(seed) / "predictions.csv")
        edit_metrics(folder / "majority" / str(seed), lambda m: m["splits"]["test"]["metrics"].clear())
    page = page_of(folder)
    assert "undefined for 2 of 2 seeds" in page.text  # its Matthews correlation
    assert re.search(r"msmae against majority: .* better \(p", page.text)


@pytest.mark.slow
def test_the_independent_script_agrees_and_notices(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).resolve().parents[2] / "experiments" / "recompute.py"
    assert "import msmae" not in script.read_text()
    assert "from msmae" not in script.read_text()
    small = ["recompute.py", str(folder), "--resamples", "15"]
    write_comparison(folder)
    kept = (folder / "table.csv").read_text()

    def status() -> int:
        monkeypatch.setattr(sys, "argv", small)
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(script), run_name="__main__")
        return int(str(stop.value.code))

    try:
        assert status() == 0
        table = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
        table.loc[0, "value"] = str(float(table.loc[0, "value"]) + 1e-6)
        table.to_csv(folder / "table.csv", index=False)
        assert status() == 1
    finally:
        (folder / "table.csv").write_text(kept)
    assert json.loads((folder / "comparison.json").read_text())["arms"] == list(ARMS)


def test_the_arm_that_chance_allows_is_named_even_when_it_is_not_the_next() -> None:
    """The runner-up may be beaten significantly while a worse but less certain arm is not."""
    means = {"best": 0.92, "second": 0.90, "third": 0.89}
    found = {"arms": {arm: {"balanced_accuracy": {"value": mean}} for arm, mean in means.items()}}

    def pair(second: str, p: float) -> dict[str, Any]:
        lead = means["best"] - means[second]
        entry = {"value": lead, "low": lead - 0.01, "high": lead + 0.01, "p_value": p, "p_holm": p}
        return {"first": "best", "second": second, "metrics": {"balanced_accuracy": entry}}

    told = headline(found, [pair("second", 0.01), pair("third", 0.3)], "balanced_accuracy")
    assert "The lead over “third”, 3.0 points" in told
    assert told.endswith("The lead over “second” is significant.")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_sideways_scrolling(tmp_path: Path, width: int, drawn: None) -> None:
    arms = {
        name: 0.5 + 0.2 * place for place, name in enumerate((*ARMS, "msmae-released", "msmae-shuffled", "resnet18"))
    }
    write_comparison(write_folder(tmp_path / "run", arms=arms, seeds=(0, 1)), resamples=100)
    scroll, requests = in_a_browser(tmp_path, "run/report.html", width=width)
    assert scroll <= width
    assert requests == 0


def made_up(means: dict[str, float], p_values: dict[str, float | None]) -> str:
    """The headline for arms with these means, the first one tested against each other with these corrected p-values."""
    best, *rest = means
    found = {"arms": {arm: {"balanced_accuracy": {"value": mean}} for arm, mean in means.items()}}
    pairs = []
    for arm in rest:
        lead, p = means[best] - means[arm], p_values[arm]
        reach = 0.01 if p is not None else None
        entry = {
            "value": lead,
            "low": reach and lead - reach,
            "high": reach and lead + reach,
            "p_value": p,
            "p_holm": p,
        }
        pairs.append({"first": best, "second": arm, "metrics": {"balanced_accuracy": entry}})
    return headline(found, pairs, "balanced_accuracy")


def test_a_lead_that_could_not_be_tested_is_not_called_chance() -> None:
    told = made_up({"best": 1.0, "constant": 0.5}, {"constant": None})
    assert "lead over “constant” cannot be tested" in told
    assert "not significant" not in told


def test_arms_that_are_level_share_the_place() -> None:
    told = made_up({"a": 0.25, "b": 0.25}, {"b": None})
    assert told.replace("\xa0", " ") == "“a” and “b” share the highest balanced accuracy, 25.0 %."
    told = made_up({"a": 0.25, "b": 0.25, "c": 0.2}, {"b": None, "c": 0.01})
    assert told.endswith("The lead over “c” is significant.")
