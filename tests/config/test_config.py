"""Settings: layered, checked, and refused with the name of what is wrong."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from msmae.config import (
    ARMS,
    GROUPS,
    RETIRED,
    PretrainSettings,
    Settings,
    arm_of_run,
    find_arm,
    make_settings,
    merge_layers,
    presets,
)
from msmae.config.bounds import example, types_of
from msmae.config.layers import as_of_today
from msmae.errors import UserError
from msmae.reporting.headline import ARMS as SENTENCES
from msmae.verbs.compare import compare as stages_compare
from msmae.verbs.run import run as stages_run


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("pretrain: {epochs: 7, batch_size: 16}\n")
    settings = make_settings("tiny", file, {"pretrain": {"epochs": 9}})
    assert (settings.pretrain.epochs, settings.pretrain.batch_size, settings.model.width) == (9, 16, 32)


def test_settings_survive_being_written_and_read() -> None:
    settings = make_settings("tiny", None, {"model": {"image_size": (32, 48), "patch_size": 8}})
    assert merge_layers([settings.to_dict()]) == settings


@pytest.mark.parametrize("name", presets())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert isinstance(make_settings(name), Settings)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pretrain": {"mask_ratio": 0.7, "throw_ratio": 0.3}}, "mask ratio 0.7"),
        ({"pretrain": {"epocs": 3}}, "did you mean 'epochs'"),
        ({"pretraining": {"epochs": 3}}, "did you mean 'pretrain'"),
        ({"model": {"image_size": 30, "patch_size": 8}}, "not a multiple of the patch size 8"),
        ({"model": {"width": 100, "heads": 3}}, "model.width"),
        ({"finetune": {"epochs": 0}}, "finetune.epochs"),
        ({"finetune": {"base_lr": "fast"}}, "not a number"),
        ({"pretrain": {"crop_scale": (0.9, 0.2)}}, "pretrain.crop_scale"),
        ({"dataset": {"val_fraction": 1.5}}, "dataset.val_fraction"),
        ({"evaluate": {"resamples": 3}}, "evaluate.resamples"),
    ],
)
def test_a_bad_setting_is_named(changes: dict[str, dict[str, object]], named: str) -> None:
    with pytest.raises(UserError) as caught:
        make_settings("tiny", None, changes)
    assert named in str(caught.value)


def test_a_missing_or_malformed_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such settings file"):
        make_settings("tiny", tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("pretrain: [1, 2")
    with pytest.raises(UserError, match="it is no YAML"):
        make_settings("tiny", tmp_path / "bad.yaml")
    with pytest.raises(UserError, match="no preset 'huge'"):
        make_settings("huge")


def test_the_arms_differ_only_where_the_table_says() -> None:
    paper = ARMS["msmae"]
    changed = {
        name: {f.name for f in dataclasses.fields(arm) if getattr(arm, f.name) != getattr(paper, f.name)}
        for name, arm in ARMS.items()
    }
    assert changed == {
        "vit": {"pretrains", "label_weight", "map"},
        "mae": {"label_weight", "mask_ratio", "throw_ratio", "map"},
        "supmae": {"map"},
        "amt": {"label_weight"},
        "msmae": set(),
        "msmae-shuffled": {"map"},
        "msmae-released": {"map", "softmax_twice", "pool"},
        "probe": {"frozen", "pretrains", "map", "label_weight", "pool"},
        "probe-knn": {"frozen", "pretrains", "map", "label_weight"},
        "probe-attentive": {"frozen", "pretrains", "map", "label_weight", "pool"},
    }
    with pytest.raises(UserError, match="no method 'msma'"):
        find_arm("msma")


def test_a_retired_arm_is_refused_with_what_takes_its_place_and_its_runs_are_still_read(tmp_path: Path) -> None:
    assert not RETIRED.keys() & ARMS.keys()
    for name, instead in RETIRED.items():
        named = re.search(r"--method (\S+)", instead)
        assert named is not None
        assert named.group(1) in ARMS
        assert arm_of_run(name) == ARMS["msmae"]
    with pytest.raises(UserError, match=r"msmae-twoview was retired.*--method supmae"):
        stages_run("phantom", out=str(tmp_path / "run"), method="msmae-twoview", preset="tiny")
    with pytest.raises(UserError, match=r"msmae-hints was retired.*--pretrain\.hints"):
        stages_compare("phantom", out=str(tmp_path / "c"), arms=["msmae-hints"], preset="tiny")
    with pytest.raises(UserError, match="no method 'msma'"):
        arm_of_run("msma")


def test_every_arm_is_told_of_wherever_arms_are() -> None:
    """In the help of the verbs that take one, in a report's first sentence, and in the documentation's table."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
    for arm in ARMS:
        for function in (stages_run, stages_compare):
            assert re.search(rf"\b{arm}\b(?!-)", function.__doc__ or ""), f"{function.__name__} does not name {arm}"
        assert arm in SENTENCES
        assert f"| `{arm}` |" in page


def test_every_setting_says_what_it_is_for() -> None:
    """Each group's fields are either plain by name or explained in a docstring; the help is made from them."""
    assert set(GROUPS) == {"dataset", "model", "pretrain", "finetune", "segment", "evaluate", "trainer"}
    assert all(kind.__doc__ for kind in GROUPS.values())


@pytest.mark.parametrize(
    ("arm", "given", "expected"),
    [
        ("mae", 1.0, 0.0), ("amt", 1.0, 0.0), ("mae", None, 0.0),
        ("supmae", 1.0, 1.0), ("msmae", None, 0.1), ("msmae", 0.0, 0.0),
    ],
)  # fmt: skip
def test_an_arm_without_labels_learns_none_whatever_weight_the_others_are_given(
    arm: str, given: float | None, expected: float
) -> None:
    assert PretrainSettings(label_weight=given).weight_of_labels(ARMS[arm]) == expected


def test_there_are_at_most_seventy_five_settings() -> None:
    """One that several groups share counts once: where it is declared."""
    declared = set()
    for kind in GROUPS.values():
        for field in dataclasses.fields(kind):
            owner = [base for base in kind.__mro__ if field.name in getattr(base, "__dataclass_fields__", {})][-1]
            declared.add((owner.__name__, field.name))
    assert len(declared) <= 75


@pytest.mark.parametrize("group", GROUPS)
def test_the_example_of_every_setting_works(group: str) -> None:
    for name in types_of(GROUPS[group]):
        words = example(GROUPS[group], name).split()
        assert words[0] == f"--{group}.{name}"
        value = words[1] if len(words) == 2 else [float(word) for word in words[1:]]
        if len(words) > 1 and (group, name) != ("finetune", "share"):  # which needs a draw
            make_settings("cpu", None, {group: {name: value}})


def test_a_removed_setting_is_read_where_it_said_nothing_and_named_where_it_did() -> None:
    assert make_settings("tiny", None, {"pretrain": {"temperature": 1.0}}) == make_settings("tiny")
    with pytest.raises(UserError, match=r"pretrain.temperature was removed: --pretrain.hints"):
        make_settings("tiny", None, {"pretrain": {"temperature": 2.0}})
    old = {"pretrain": {"temperature": 2.0, "epochs": 3}, "segment": {"deep_supervision": True}}
    assert merge_layers([as_of_today(old, whatever=True)]).pretrain.epochs == 3
