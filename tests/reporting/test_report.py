"""The report holds what the run measured, escapes what the user wrote, and says what is missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from html_page import Page, in_a_browser, page_of
from msmae.errors import UserError
from msmae.reporting.report import write_report
from msmae.statistics.predictions import read_predictions, write_predictions
from msmae.verbs.report import report
from saved_run import add_panels, edit_metrics, make_predictions, put, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain run; tests leave it as it is."""
    return write_run(tmp_path_factory.mktemp("plain") / "run", make_predictions())


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return page_of(run)


def test_the_first_screen_says_what_was_asked_and_what_came_out(run: Path, page: Page) -> None:
    test = json.loads((run / "metrics.json").read_text())["splits"]["test"]
    accuracy, auroc = test["metrics"]["accuracy"], test["metrics"]["auroc"]
    right = round(accuracy["value"] * 80)
    assert f"{right} of 80 test images classified correctly: {100 * accuracy['value']:.1f} %" in page.text
    assert f"{100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f}" in page.text
    assert f"{auroc['value']:.3f} {auroc['low']:.3f} to {auroc['high']:.3f}" in page.text
    assert "Classification into 3 classes with “msmae”" in page.text
    assert "80 images of 40 patients" in page.text
    assert "Always answering “benign”, the commonest class here, is right for 35.0 %." in page.text
    assert "92 min" not in page.text
    assert "trained for 91 min (CPU, 2 threads)" in page.text
    assert "Before you use these figures" not in page.text


def test_every_part_is_there(tmp_path: Path, drawn: None) -> None:
    frame = make_predictions()
    ages = [str(20 + i % 70) for i in range(len(frame))]
    run = write_run(tmp_path / "run", frame, columns={"site": ["A", "B"] * (len(frame) // 2), "age": ages})
    add_panels(
        run,
        [
            {"image_path": frame["image_path"][0], "label": "benign", "predicted": "normal", "probability": 0.9,
             "kind": "wrong", "file": "0.png"},
        ],
    )  # fmt: skip
    page = page_of(run)
    drawn = page.attributes("aria-label")
    assert sum(label.startswith("ROC") for label in drawn) == 4  # together, and three classes alone
    assert sum(label.startswith("Decision curve") for label in drawn) == 3
    assert any(label.startswith("Pre-training: reconstruction") for label in drawn)
    for words in ("Table 1", "By class", "Confusion matrix", "site", "80+", "most sensitivity + specificity"):
        assert words in page.text
    assert "finetune.base_lr 0.004" in page.text
    assert "Parameters 810,628" in page.text
    assert "true class benign, answer normal (90.0 %)" in page.text
    assert any(source.startswith("data:image/png;base64,iVBOR") for source in page.attributes("src"))


def test_the_same_files_give_the_same_bytes(run: Path, page: Page, drawn: None) -> None:
    first = (run / "report.html").read_bytes()
    assert report(str(run)).read_bytes() == first
    assert not (run / "report.html.part").exists()


@pytest.mark.slow
def test_it_needs_no_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions(classes=("a", "b"), patients=6))
    code = (
        "import sys; from msmae.verbs.report import report; report(sys.argv[1]); "
        "sys.exit('torch' in sys.modules or 'pytorch_lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(run)], check=False).returncode == 0


def test_nothing_points_outside_the_file_and_no_script_runs(page: Page) -> None:
    for place in (*page.attributes("src"), *page.attributes("href"), *page.attributes("xlink:href")):
        assert place.startswith(("#", "data:"))
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page.source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in page.source
    assert not re.search(r"url\((?!#)", page.source)
    assert "script" not in {tag for tag, _ in page.elements}
    assert "default-src 'none'" in page.source
    names = [name for name in page.attributes("id") if name]
    inside = {place[1:] for place in page.attributes("href") if place.startswith("#")}
    assert inside <= set(names)


def test_what_the_user_wrote_is_escaped(tmp_path: Path) -> None:
    evil = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "$x_1$ & _y"]
    frame = make_predictions(classes=evil, separation=0.5)
    frame["image_path"] = [f"a\"><svg onload=alert(3)>'{path}" for path in frame["image_path"]]
    run = write_run(tmp_path / "run", frame, columns={"site": ["<b>one</b>", "two"] * (len(frame) // 2)})
    caption = {"image_path": frame["image_path"][0], "label": evil[0], "predicted": evil[1], "file": "a'b.png"}
    add_panels(run, [caption])
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("/data/set", "/data/<script>alert(4)</script>"))
    page = page_of(run)
    assert "script" not in {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not {name for name in attributes if name.startswith("on")}
    assert not {source for source in page.attributes("src") if not source.startswith("data:")}
    for name in (*evil, "<b>one</b>"):
        assert name in page.text


PIECES = {
    "config.yaml": "config.yaml",
    "environment.json": "environment.json",
    "manifest.csv": "manifest.csv",
    "predictions.csv": "predictions.csv",
    "logs": "there are no logs",
    "model": "model/config.json",
}


@pytest.mark.slow
def test_a_missing_piece_is_named_and_breaks_nothing(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole", make_predictions(classes=("a", "b"), patients=6))
    for lost, name in PIECES.items():
        run = shutil.copytree(whole, tmp_path / lost)
        target = run / lost
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        page = page_of(run)
        assert name in page.text[page.text.index("Missing from this report") :]
        assert "Balanced accuracy" in page.text


def test_metrics_alone_are_enough(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions())
    for lost in PIECES:
        shutil.rmtree(run / lost) if (run / lost).is_dir() else (run / lost).unlink()
    page = page_of(run)
    assert all(name in page.text for name in PIECES.values())
    assert "of 80 test images classified correctly" in page.text
    assert page.attributes("aria-label") == ["Sections"]  # and no picture


def test_a_damaged_piece_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions(classes=("a", "b"), patients=6))
    (run / "environment.json").write_text("{half a")
    (run / "config.yaml").write_text("a: [1")
    add_panels(run, [{"file": "0.png"}])
    (run / "panels" / "0.png").write_text("not a picture")
    page = page_of(run)
    for sentence in ("environment.json cannot be read", "config.yaml cannot be read", "panels/0.png is not there"):
        assert sentence in page.text


def test_several_labels_an_image(tmp_path: Path) -> None:
    frame = make_predictions(classes=("edema", "effusion", "nodule"), multilabel=True, separation=1.5)
    page = page_of(write_run(tmp_path / "run", frame, multilabel=True))
    right = (frame["label"] == frame["predicted"])[frame["split"] == "test"].sum()
    assert (
        f"80 test images evaluated for 3 classes; {right} ({100 * (right / 80):.1f} %) have every label right."
        in page.text
    )
    assert "there is no confusion matrix" in page.text
    assert "none of the classes" in page.text
    assert "probability of the true class" not in page.text.replace("log probability of the true class", "")
    wrong = frame[(frame["split"] == "test") & (frame["label"] != frame["predicted"])]
    assert f"{len(wrong)} of 80 answers are wrong" in page.text


def test_undefined_numbers_say_why(tmp_path: Path) -> None:
    frame = make_predictions(classes=("a", "b", "c"))
    frame = frame[~((frame["split"] == "test") & (frame["label"] == "c"))].reset_index(drop=True)
    page = page_of(write_run(tmp_path / "run", frame))
    assert "undefined: no image has this class" in page.text
    assert "No image of c: means over classes are over the other classes." in page.text
    assert "No curve for c: none, or all, of the test images have this class." in page.text
    assert "None" not in page.text.replace("None of", "")
    assert "nan" not in re.findall(r"\bnan\b", page.text)


def test_a_label_never_predicted_is_said_first(tmp_path: Path) -> None:
    frame = make_predictions(classes=("a", "b"))
    frame["prob_a"], frame["prob_b"], frame["predicted"] = 0.9, 0.1, "a"
    page = page_of(write_run(tmp_path / "run", frame))
    assert page.text.index("Never predicted: b.") < page.text.index("Table 1")


@pytest.mark.parametrize(("patients", "images_each", "what"), [(1, 1, "image"), (1, 5, "patient")])
def test_one_image_or_one_patient_is_no_evidence(tmp_path: Path, patients: int, images_each: int, what: str) -> None:
    frame = make_predictions(patients=patients, images_each=images_each)
    page = page_of(write_run(tmp_path / "run", frame))
    assert f"The figures rest on one {what}" in page.text
    assert "no interval: one patient only" in page.text
    assert not any("left:" in style for style in page.attributes("style"))  # no interval is drawn


def test_few_patients_are_a_pilot(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", make_predictions(patients=9)))
    assert "The figures rest on 9 patients only" in page.text


def test_a_model_that_loses_to_one_answer_is_told_so(tmp_path: Path) -> None:
    frame = make_predictions(classes=("common", "rare"), separation=0.0)
    rare = frame[frame["label"] == "rare"].groupby("split").cumcount()
    frame = frame.drop(rare.index[rare >= 4]).reset_index(drop=True)
    text = page_of(write_run(tmp_path / "run", frame)).text
    assert "Always answering “common” would be right more often than the model." in text[: text.index("Table 1")]


def test_a_subgroup_without_events_has_no_number(tmp_path: Path) -> None:
    frame = make_predictions(classes=("healthy", "ill"))
    sites = ["north" if label == "healthy" else "south" for label in frame["label"]]
    page = page_of(write_run(tmp_path / "run", frame, columns={"site": sites}))
    section = page.text[page.text.index("Subgroups group") : page.text.index("The groups were not planned")]
    assert "north every image is of one class, healthy" in section
    assert "south every image is of one class, ill" in section
    assert section.count("—1") == 2  # balanced accuracy and AUROC of north, with their footnote
    assert "undefined: every image is of one class, healthy" in section


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ({"prob_benign": np.nan}, "not a finite number"),
        ({"prob_benign": 0.99}, "do not sum to one"),
        ({"label": "unheard-of"}, "is not a class of this model"),
    ],
)
def test_predictions_that_cannot_be_trusted_are_refused(
    tmp_path: Path, damage: dict[str, object], sentence: str
) -> None:
    frame = make_predictions()
    run = write_run(tmp_path / "run", frame)
    row = int(np.flatnonzero((frame["split"] == "test") & (frame["label"] == "normal"))[0])
    for column, value in damage.items():
        frame.loc[row, column] = value
    frame.to_csv(run / "predictions.csv", index=False)
    with pytest.raises(UserError, match=sentence):
        write_report(run)
    assert not (run / "report.html").exists()


def test_damaged_validation_rows_are_refused_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions())
    frame = read_predictions(run / "predictions.csv")
    frame.loc[frame.index[frame["split"] == "val"][3], "prob_benign"] = np.nan
    write_predictions(frame, run / "predictions.csv")
    with pytest.raises(UserError, match="not a finite number"):
        write_report(run)


def test_names_in_other_scripts_are_letters_not_boxes(tmp_path: Path, drawn: None) -> None:
    names = ("良性", "恶性 肿瘤", "سليم")
    run = write_run(tmp_path / "run", make_predictions(classes=names))
    page = page_of(run)  # a warning of matplotlib's about missing letters would be an error here
    drawn = [piece for piece in re.findall(r"<text[^>]*>([^<]*)</text>", page.source) if piece.strip() in names]
    assert set(map(str.strip, drawn)) == set(names)


def test_a_file_name_that_is_not_utf8_is_shown_spelt_out(tmp_path: Path) -> None:
    frame = make_predictions(separation=0.5)
    frame["image_path"] = [f"a/{os.fsdecode(bytes([0xE9]))}{i}.png" for i in range(len(frame))]
    run = write_run(tmp_path / "run", frame)
    page = page_of(run)
    assert "\\udce9" in page.text
    assert "have no image in manifest.csv" not in page.text


def test_numbers_that_do_not_belong_together_are_flagged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions(classes=("a", "b"), patients=6))
    edit_metrics(run, lambda metrics: metrics["splits"]["test"]["metrics"]["accuracy"].update(value=0.5))
    assert "predictions.csv does not agree with metrics.json on the test images" in page_of(run).text


def test_leaking_data_raise_a_banner(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions(classes=("a", "b"), patients=6))
    audit = {
        "images": 160,
        "test_identical_to_pool": 2,
        "test_patients_in_pool": 1,
        "patients_crossing": 9,
        "leaking_classes": {"a": 3},
        "masks": 3,
    }
    put(run / "audit.json", audit)
    page = page_of(run)
    assert "2 test images with the pixels of a training or validation image" in page.text
    assert "1 patient with images in test and in training or validation; 3 a." in page.text
    assert [attributes for _, attributes in page.elements if attributes.get("role") == "alert"]
    assert page.text.index("Data leakage into the test split") < page.text.index("Task Class")
    put(run / "audit.json", audit | {"test_identical_to_pool": 0, "test_patients_in_pool": 0})
    assert "leak" not in page_of(run).text  # patients in training and validation are no leakage into the test


def test_what_the_audit_doubts_stands_beside_the_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions(classes=("a", "b"), patients=6))
    audit = {
        "images": 24,
        "notes": ["read as folder"],
        "threshold": {"reason": "at most 14 of 256 bits apart"},
        "test_near_pool": 8,
        "near_classes": {"a": 8},
        "small_classes": {"b": 2},
        "shortcuts": [
            {"target": "class", "trait": "size", "sentence": "the class can be told from the size: a 512 x 512"},
            {"target": "class", "trait": "border", "sentence": "the class can be told from the border: a 7 %"},
            {"target": "split", "trait": "size", "sentence": "the split can be told from the size"},
        ],
    }
    put(run / "audit.json", audit)
    text = page_of(run).text
    first = text[: text.index("Table 1")]
    assert "8 test images nearly identical to a training or validation image: 8 a." in first
    assert "The size or the border alone predicts the class: the model may use that instead" in first
    assert "The size alone predicts which images are test images: the test split was made differently." in first
    assert "The class can be told from the size: a 512 x 512." in text
    assert "Too few patients (or clusters of nearly identical images) of the class b for every split: 2." in first
    assert "Near-duplicates: at most 14 of 256 bits apart." in text
    assert "Read as folder." in text


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metrics"):
        write_report(tmp_path)


def test_pictures_stay_within_ten_megabytes(tmp_path: Path, drawn: None) -> None:
    frame = make_predictions(classes=("benign", "normal"), patients=6)
    run = write_run(tmp_path / "run", frame)
    panels = [
        {"image_path": path, "label": "benign", "predicted": "normal", "probability": 0.5, "file": f"{i}.png"}
        for i, path in enumerate(frame["image_path"][:20])
    ]
    add_panels(run, panels, bytes_more=600_000)
    page = page_of(run)
    assert (run / "report.html").stat().st_size < 10_000_000
    assert "16 more pictures are in the folder panels/" in page.text


def test_pictures_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions(classes=("a", "b"), patients=6))
    add_panels(run, [])
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\n secret")
    put(run / "panels" / "panels.json", {"panels": [{"file": "../../secret.png", "label": "benign"}]})
    page = page_of(run)
    assert page.attributes("src") == []
    assert "panels/secret.png is not there" in page.text


def test_external_figures_are_the_result_where_they_exist(tmp_path: Path) -> None:
    frame = make_predictions(classes=("a", "b"), splits=("internal", "external"))
    page = page_of(write_run(tmp_path / "run", frame))
    assert "of 80 external test images classified correctly" in page.text
    assert "internal test" in page.text
    assert "Performance elsewhere is unknown" not in page.text


def test_figures_of_another_task_are_shown_under_their_names(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    entry = {"value": 0.61, "low": 0.55, "high": 0.66, "method": "bca"}
    lesion = {"dice": entry, "hd95": {"value": 12.5, "low": 9.0, "high": 17.0}}
    split = {"n": 130, "patients": 130, "metrics": lesion, "per_class": {"lesion": {"n": 130, **lesion}}, "notes": []}
    put(run / "metrics.json", {"task": "segmentation", "arm": "msmae", "seed": 0, "splits": {"test": split}})
    page = page_of(run)
    assert "Dice 0.610 0.550 to 0.660" in page.text
    assert "Hausdorff" in page.text


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_sideways_scrolling(tmp_path: Path, width: int, drawn: None) -> None:
    frame = make_predictions(classes=[f"a rather long class name {i}" for i in range(9)], separation=1.0)
    run = write_run(tmp_path / "run", frame, columns={"site": ["north", "south"] * (len(frame) // 2)})
    write_report(run)
    scroll, requests = in_a_browser(tmp_path, "run/report.html", width=width)
    assert scroll <= width
    assert requests == 0


def test_a_run_that_went_on_with_other_software_is_to_be_read_with_care(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions(classes=("a", "b")))
    record = json.loads((run / "environment.json").read_text())
    put(run / "environment.json", {**record, "went_on_with": ["torch 2.14.0"]})
    page = page_of(run)
    assert "went on with other software than it was begun with (torch 2.14.0)" in page.text
