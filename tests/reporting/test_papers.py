"""The model card and the checklists say what the files say, leave open what they do not, and escape names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from msmae.errors import UserError
from msmae.reporting.facts import BALANCE, FACTS, facts
from msmae.reporting.papers import CHECKLISTS, fill_in, write_checklists, write_model_card
from msmae.reporting.render import TEMPLATES, Ready, escape
from msmae.reporting.run_files import read_run_files
from msmae.verbs.report import report
from saved_run import add_panels, edit_metrics, make_predictions, put, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain run; tests leave it as it is."""
    frame = make_predictions()
    run = write_run(tmp_path_factory.mktemp("plain") / "run", frame, columns={"sex": ["f", "m"] * (len(frame) // 2)})
    add_panels(run, [{"image_path": frame["image_path"][0], "label": "benign", "predicted": "benign", "file": "0.png"}])
    return run


def split_card(path: Path) -> tuple[dict[str, Any], str]:
    """Header and body."""
    _, header, body = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(header), body


def rows_of(text: str) -> list[list[str]]:
    """The cells of every table row; the same number in each row of a table."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def test_the_header_is_what_the_hub_reads(run: Path) -> None:
    header, _ = split_card(write_model_card(run))
    assert header["library_name"] == "msmae"
    assert header["pipeline_tag"] == "image-classification"
    (model,) = header["model-index"]
    (result,) = model["results"]
    assert {"task", "dataset", "metrics"} <= set(result)
    test = json.loads((run / "metrics.json").read_text())["splits"]["test"]["metrics"]
    found = {metric["type"]: metric for metric in result["metrics"]}
    assert found["roc_auc"]["value"] == test["auroc"]["value"]
    assert found["accuracy"]["args"]["confidence_interval_95"] == [test["accuracy"]["low"], test["accuracy"]["high"]]
    assert set(header["metrics"]) == set(found)


def test_undefined_figures_stay_out_of_the_header(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions(classes=("a", "b"), patients=6))
    nothing = {"value": None, "low": None, "high": None, "reason": "one class only"}
    edit_metrics(run, lambda metrics: metrics["splits"]["test"]["metrics"].update(auroc=nothing))
    header, body = split_card(write_model_card(run))
    assert "roc_auc" not in [metric["type"] for metric in header["model-index"][0]["results"][0]["metrics"]]
    assert "undefined: one class only" in body


def test_the_body_tells_data_model_and_figures(run: Path) -> None:
    _, body = split_card(write_model_card(run))
    for words in (
        "not a medical device",
        "test: 80 images of 40 patients",
        "no patient is in more than one split",
        "Vision transformer of 4 blocks, 128 wide, with 4 attention heads, on patches of 8 pixels",
        "standardised with mean 75.000 and standard deviation 51.500",
        "30 epochs, batches of 128",
        "To be filled in by a person",
        "A probability for each of benign, malignant, normal, summing to one",
        "Figures by sex",
    ):
        assert words in body, words
    assert "`/data" not in body  # where the data lay on somebody's machine is nobody's business
    assert "/data/" not in body
    assert re.search(r"\| f \| 40 \(50\.0 %\)", body.replace("\u00a0", " "))


def test_tables_keep_their_columns_whatever_the_names(tmp_path: Path) -> None:
    evil = ["a|b", "<script>alert(1)</script>", "*bold* `code` [x](y)\nnew line"]
    frame = make_predictions(classes=evil)
    run = write_run(tmp_path / "run", frame, columns={"site": [evil[0], evil[1]] * (len(frame) // 2)})
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("/data/set", "/data/<b>|x"))
    for path in (write_model_card(run), *write_checklists(run)):
        text = path.read_text(encoding="utf-8")
        body = text.split("---\n", 2)[2] if path.name == "model_card.md" else text
        assert "<script" not in body
        assert "<b>" not in body
        widths = []
        for block in re.findall(r"(?:^\|.*\n)+", body, flags=re.MULTILINE):
            counts = {len(row) for row in rows_of(block)}
            assert len(counts) == 1, block
            widths.append(counts)
        assert widths


@given(st.text(max_size=40))
def test_escaped_text_is_one_line_without_markup(text: str) -> None:
    escaped = escape(text)
    assert "\n" not in escaped
    assert "<" not in escaped
    assert ">" not in escaped
    unescaped = Markup(re.sub(r"\\([\\`*_\[\]|#~$])", r"\1", escaped)).unescape()
    assert unescaped == " ".join(text.split())
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|#~$]", escaped.replace("&#39;", ""))
    assert escape(Ready(text)) == text


def test_the_checklists_have_every_item_once() -> None:
    numbers = {
        name: [str(item["item"]) for item in yaml.safe_load((TEMPLATES / f"{name}.yaml").read_text())["items"]]
        for name in CHECKLISTS
    }
    assert numbers["claim_2024"] == [str(number) for number in range(1, 45)]
    parts = {
        3: "abc",
        5: "ab",
        6: "abc",
        8: "abc",
        9: "abc",
        12: "abcdefg",
        18: "abcdef",
        20: "abc",
        23: "ab",
        27: "abc",
    }
    assert numbers["tripod_ai"] == [f"{n}{part}" for n in range(1, 28) for part in parts.get(n, [""])]


def test_every_fact_a_checklist_names_exists_and_every_item_can_be_answered() -> None:
    for name in CHECKLISTS:
        for item in yaml.safe_load((TEMPLATES / f"{name}.yaml").read_text())["items"]:
            assert set(item) <= {"item", "section", "asks", "facts", "open"}
            assert set(item.get("facts", ())) <= set(FACTS)
            assert item.get("facts") or item.get("open"), item


def test_a_checklist_is_answered_from_the_run_and_marks_the_rest_open(run: Path) -> None:
    _, _, items = fill_in("claim_2024", read_run_files(run))
    by_number = {item.item: item for item in items}
    assert by_number["20"].answer == "Patient: no patient is in more than one split."
    assert "torch 2.13.0" in by_number["23"].answer
    assert by_number["23"].open == ""
    assert by_number["16"].answer == ""
    assert "annotators" in by_number["16"].open
    assert "shown for 1 case" in by_number["31"].answer
    text = write_checklists(run)[0].read_text(encoding="utf-8")
    assert text.count("**Open:**") == sum(bool(item.open) for item in items)
    assert f"answer {sum(bool(i.answer) and not i.open for i in items)}," in text


def test_without_files_nothing_is_claimed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    entry = {"value": 0.9, "low": 0.8, "high": 0.95}
    split = {"n": 50, "patients": None, "resamples": 100, "metrics": {"accuracy": entry}, "per_class": {}, "notes": []}
    put(run / "metrics.json", {"task": "classification", "arm": "msmae", "seed": 0, "splits": {"test": split}})
    known = facts(read_run_files(run))
    told = {name for name, sentence in known.items() if sentence}
    assert told <= {
        "category",
        "goal",
        "sizes",
        "test_size",
        "metrics",
        "uncertainty",
        "internal",
        "performance",
        "code",
    }
    _, _, items = fill_in("claim_2024", read_run_files(run))
    assert all(item.answer or item.open for item in items)
    assert next(item for item in items if item.item == "23").open == "the run's files do not say"
    assert "not recorded" in write_model_card(run).read_text(encoding="utf-8")


def test_patients_on_both_sides_are_told(tmp_path: Path) -> None:
    frame = make_predictions(classes=("a", "b"), patients=6)
    frame.loc[frame["image_path"] == "images/test-000-0.png", "patient_id"] = "val-p000"
    run = write_run(tmp_path / "run", frame)
    assert facts(read_run_files(run))["disjoint"] == "Image: 1 patient in more than one split."
    frame["patient_id"] = ""
    again = write_run(tmp_path / "again", frame)
    assert facts(read_run_files(again))["disjoint"].startswith("Image: patients unknown")


def test_each_way_to_balance_is_described() -> None:
    from typing import get_args, get_type_hints

    from msmae.config import FinetuneSettings

    assert set(BALANCE) == set(get_args(get_type_hints(FinetuneSettings)["balance"]))


@pytest.mark.slow
def test_the_verb_writes_page_and_papers_and_gives_the_same_bytes(run: Path, drawn: None) -> None:
    names = ("report.html", "model_card.md", "claim_2024.md", "tripod_ai.md")
    assert report(str(run)) == run / "report.html"
    first = [(run / name).read_bytes() for name in names]
    report(str(run))
    assert [(run / name).read_bytes() for name in names] == first


def test_the_verb_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metrics"):
        report(str(tmp_path))


@pytest.mark.parametrize("arm", ["vit", "msmae", "probe"])
def test_a_run_that_began_with_a_pretrained_encoder_says_so_everywhere(arm: str, tmp_path: Path) -> None:
    """Of a fine-tuned DINOv2 the report had said "trained from scratch"."""
    run = write_run(tmp_path / "run", make_predictions())
    edit_metrics(run, lambda metrics: metrics.update(arm=arm))
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"init": "weights/dinov2"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    told = [report(str(run)).read_text(), write_model_card(run).read_text()]
    told += [path.read_text() for path in write_checklists(run)]
    assert not any("from scratch" in text or "random weights" in text for text in told)
    assert all("dinov2" in text for text in told)


def test_the_card_says_whose_mean_it_is_and_what_was_done_about_rare_classes(tmp_path: Path) -> None:
    """Of a fine-tuned DINOv2 the card had called the encoder's numbers the training images'; and class weights what
    was logit adjustment."""
    run = write_run(tmp_path / "run", make_predictions())
    assert "of the training images" in facts(read_run_files(run))["preprocessing"]
    card = json.loads((run / "model" / "config.json").read_text())
    put(run / "model" / "config.json", card | {"start": {"seen": [[value + 1 for value in card["mean"]], card["std"]]}})
    edit_metrics(run, lambda metrics: metrics.update(calibration={"method": "none", "balance": "logit_adjustment"}))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["settings"]["finetune"] = config["settings"].get("finetune", {}) | {"balance": "auto"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    known = facts(read_run_files(run))
    assert "encoder" in known["preprocessing"]
    assert "training images" not in known["preprocessing"]
    assert known["imbalance"] == BALANCE["logit_adjustment"]


def test_an_external_test_divides_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_predictions())
    assert "divided at random" in facts(read_run_files(run))["partition"]
    edit_metrics(run, lambda metrics: metrics.update(external={"run": "mine", "data": "other.csv"}))
    assert "random" not in facts(read_run_files(run))["partition"]
