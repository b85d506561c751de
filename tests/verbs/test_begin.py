"""How verbs begin: what is cheap is checked before an image is read; a finding of the audit is a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import msmae
from msmae.config import make_settings
from msmae.data.audit.shortcuts import Shortcut
from msmae.errors import UserError
from msmae.verbs import begin
from msmae.verbs.begin import as_recorded
from msmae.verbs.check import check

NOWHERE = "/no/such/data"
"""What stops at an image stops at this."""


def test_data_that_is_not_there_is_what_stops_a_run_that_is_right_otherwise(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such"):
        msmae.run(NOWHERE, out=str(tmp_path / "run"), preset="tiny")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"init": "none.pth"}, "no such file or folder of weights"),
        ({"trainer": {"accelerator": "warp"}}, "the training cannot be set up"),
        ({"trainer": {"accelerator": "tpu"}}, "the training cannot be set up"),
        ({"trainer": {"strategy": "fsdp"}}, "trainer.strategy was removed: .*DDP"),
        ({"trainer": {"num_nodes": 2}}, "trainer.num_nodes was removed: .*torchrun or srun"),
        ({"segment": {"epochs": 3}}, "settings of segment have no effect here"),
        ({"seed": -1}, "-1 is negative"),
        ({"method": "msmae-twoview"}, "was retired"),
        ({"method": "mmsae"}, "did you mean 'msmae'"),
        ({"method": "probe"}, "needs a pretrained encoder"),
        ({"method": "vit", "finetune": {"lora": 2}}, "no pretrained encoder to keep"),
        ({"method": "supmae", "finetune": {"freeze": 9}}, "has 2 blocks"),
        ({"method": "supmae", "pretrain": {"hints": 0.5}}, "nothing can be a hint"),
        ({"method": "vit", "pretrain": {"epochs": 5}}, r"pretrain\.epochs has no effect"),
        ({"method": "vit", "pretrain": {"mask_ratio": 0.5}}, r"pretrain\.mask_ratio has no effect"),
        ({"method": "vit", "pretrain": {"mask_ratio": 0.5}, "finetune": {"draw": "own"}}, "no such"),
        ({"method": "vit", "finetune": {"refresh_every": 2}}, r"finetune\.refresh_every has no effect"),
        ({"method": "supmae", "pretrain": {"epochs": 5}, "finetune": {"lr_warmup": 0.2}}, "no such"),
        ({"folds": 3, "ensemble": True}, r"the arm msmae \(the default\) pre-trains"),
        ({"pretrain": {"epochs": 2, "uniform_epochs": 2}}, "none is guided"),
        ({"minutes": 3.0}, "pretrained encoder"),
        ({"model": {"image_size": 30, "patch_size": 8}}, "not a multiple of the patch size 8"),
    ],
)
def test_what_is_cheap_is_checked_before_the_data(given: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        msmae.run(NOWHERE, out=str(tmp_path / "run"), preset="tiny", **given)
    assert not (tmp_path / "run").exists()


def recorded(tmp_path: Path, **more: object) -> str:
    """A run's config.yaml, of a fine-tuning with seed 7."""
    said = {"method": "vit", "seed": 7, "init": None, "preset": "tiny", "settings": make_settings("tiny").to_dict()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**said, **more}))
    return str(tmp_path / "config.yaml")


NOTHING = {"method": None, "init": None, "seed": None, "preset": None}


def test_what_a_runs_config_records_counts_where_nothing_else_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = recorded(tmp_path, init=str(tmp_path))
    assert as_recorded(config, **NOTHING) == {"method": "vit", "init": str(tmp_path), "seed": 7, "preset": "tiny"}
    assert f"from {config}: method vit, seed 7, init {tmp_path}, preset tiny\n" in capsys.readouterr().out
    given = {"method": "supmae", "init": "none", "seed": 0, "preset": "cpu"}
    assert as_recorded(config, **given) == {**given, "init": None}
    assert capsys.readouterr().out == ""
    assert as_recorded(None, **NOTHING) == {**NOTHING, "seed": 0, "preset": "auto"}


def test_of_a_config_of_another_task_or_of_plain_settings_only_the_settings_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = recorded(tmp_path, task="segmentation", method="none")
    assert as_recorded(config, **NOTHING) == as_recorded(None, **NOTHING)
    assert "of another task" in capsys.readouterr().out
    assert as_recorded(config, task="segmentation", seed=None)["seed"] == 7
    assert as_recorded(config, task="segmentation", **{"from": None})["from"] is None
    for text in ("", "pretrain:\n  epochs: 3\n"):
        (tmp_path / "config.yaml").write_text(text)
        assert as_recorded(config, **NOTHING) == as_recorded(None, **NOTHING)


def test_a_segmentation_starts_where_the_recorded_one_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"not named \(--from\)"):
        msmae.segment(NOWHERE, out=str(tmp_path / "run"), preset="tiny")
    config = recorded(tmp_path, task="segmentation", method="none", **{"from": "none"})
    for given, said in (({}, f"from {config}: from none, seed 7, preset tiny"), ({"from_": "none"}, "seed 7, preset")):
        with pytest.raises(UserError, match="no such"):
            msmae.segment(NOWHERE, out=str(tmp_path / "run"), config=config, **given)
        assert said in capsys.readouterr().out
    gone = recorded(tmp_path, task="segmentation", **{"from": str(tmp_path / "moved")})
    with pytest.raises(UserError, match=r"gone: .*moved.*--from"):
        msmae.segment(NOWHERE, out=str(tmp_path / "run"), config=gone)


@pytest.mark.parametrize("wrong", [{"seed": "q"}, {"seed": True}, {"method": 3}, {"init": {"a": 1}}, {"preset": [1]}])
def test_a_recorded_value_of_another_type_is_named(wrong: dict[str, Any], tmp_path: Path) -> None:
    (name,) = wrong
    with pytest.raises(UserError, match=rf"{name} is '.*config\.yaml.*give --{name}"):
        as_recorded(recorded(tmp_path, **wrong), **NOTHING)


def test_a_runs_folder_in_place_of_its_config_is_told(tmp_path: Path) -> None:
    recorded(tmp_path)
    with pytest.raises(UserError, match=r"no such settings file .*: give .*config\.yaml"):
        msmae.run(NOWHERE, out=str(tmp_path / "run"), config=str(tmp_path))


@pytest.mark.parametrize("verb", [msmae.run, msmae.pretrain, msmae.compare])
def test_a_recorded_encoder_that_is_gone_is_named(verb: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone: .*moved.*config.yaml.*--init"):
        verb(NOWHERE, out=str(tmp_path / "run"), config=recorded(tmp_path, init=str(tmp_path / "moved")))


@pytest.mark.parametrize(
    ("verb", "given", "said"),
    [
        (msmae.compare, {"arms": ["vit", "supmea"]}, "did you mean 'supmae'"),
        (msmae.compare, {"arms": ["vit", "probe"]}, "probe needs a pretrained encoder"),
        (msmae.compare, {"encoders": "/no/such"}, "no comparison in /no/such"),
        (msmae.masks, {"split": "tset"}, "did you mean 'test'"),
        (check, {"near_bits": 40}, "near_bits is 40"),
        (check, {"seed": -1}, "-1 is negative"),
    ],
)
def test_what_contradicts_itself_is_refused_before_the_data(
    verb: Any, given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        verb(NOWHERE, out=str(tmp_path / "out"), **given)


@pytest.mark.parametrize("verb", [msmae.evaluate, msmae.export, msmae.predict])
@pytest.mark.parametrize(
    ("given", "said"),
    [({"keep": 2.0}, "2.0 is no share of the patches.*--keep"), ({"keep": 0.5, "selector": "gird"}, "mean 'grid'")],
)
def test_a_wrong_token_share_is_refused_before_the_model(
    verb: Any, given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    more = {"paths": ["x.png"], "out": str(tmp_path / "out")} if verb is msmae.predict else {}
    with pytest.raises(UserError, match=said):
        verb(NOWHERE, **given, **more)


def test_a_full_disk_is_told_before_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begin, "SMALLEST_DISK", 2**80)
    with pytest.raises(UserError, match="MB are free"):
        msmae.pretrain(NOWHERE, out=str(tmp_path / "run"), preset="tiny")


def test_all_shortcuts_to_the_class_are_one_line() -> None:
    size = Shortcut("image size", "class", 0.48, 0.25, {"a": "1", "b": "2"})
    border = Shortcut("border", "class", 0.41, 0.25, {"a": "1", "b": "2"})
    device = Shortcut("device", "split", 0.9, 0.5, {"train": "1", "test": "2"})
    assert begin.shortcut_lines([border, size, device]) == [
        "the image size alone predicts the class (balanced accuracy 0.48, chance 0.25); so does 1 more trait (the "
        "report lists them)",
        "the device alone predicts the split (balanced accuracy 0.90, chance 0.50)",
    ]
    assert begin.shortcut_lines([]) == []
