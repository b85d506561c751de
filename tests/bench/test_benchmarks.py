"""The scripts in benchmarks/: what they decide by themselves, and the record that `make bench-check` reads."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import msmae
from msmae.bench.turns import Row
from msmae.method.cost import msmae_macs
from msmae.method.msmae import MSMAE

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    """A benchmark's module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def row(name: str, ratio: float) -> Row:
    return Row(name, 1.0, 1.0, ratio, ratio, ratio, "images/s", "d")


def test_a_ratio_that_falls_by_more_than_a_tenth_is_named() -> None:
    check = script("check")
    rows = {name: row(name, ratio) for name, ratio in (("kept", 0.95), ("fallen", 0.85), ("risen", 2.0), ("new", 0.1))}
    assert check.fallen(rows, {"kept": 1.0, "fallen": 1.0, "risen": 1.0}) == ["fallen"]


def test_the_record_is_of_ratios_that_are_measured() -> None:
    check = script("check")
    records = json.loads(check.RECORDED.read_text())
    for recorded in records.values():
        assert len(recorded) >= 8
        assert all(any(word in name for word in check.NAMES) for name in recorded)
        assert all(0 < ratio < 100 for ratio in recorded.values())


@pytest.mark.parametrize("file", sorted((FOLDER / "recorded").glob("*.json")), ids=lambda file: file.name)
def test_recorded_rows_name_no_place_of_a_machine(file: Path) -> None:
    assert "/root" not in file.read_text()
    assert "/tmp" not in file.read_text()


def test_what_others_compute_meanwhile_is_not_counted_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    time_in_turn = script("keep").time_in_turn
    ways = {"all": lambda: time.sleep(0.02), "locator": lambda: time.sleep(0.01)}
    for threads, waits in ((1, False), (2, True)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert (time_in_turn(ways, seconds=0)["all"] > 0.015) == waits


def test_rank_correlation_is_of_order_alone() -> None:
    maps = script("maps")
    exact = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(0))
    assert maps.correlation(exact**3, exact) == pytest.approx(1)
    assert maps.correlation(1 - exact, exact) == pytest.approx(-1)
    other = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(1))
    assert abs(maps.correlation(other, exact)) < 0.4


@pytest.mark.slow
def test_epochs_do_the_work_that_they_are_held_against(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are masked and thrown away at the steps' ratios in all epochs, and as many are seen by the same model."""
    epoch = script("epoch")
    case = dataclasses.replace(epoch.HERE["28px"], batch=16)
    manifest = msmae.open_dataset(data)
    macs = []

    def watched(model: MSMAE, images: torch.Tensor, plan: Any) -> Any:
        if model.training:
            assert images.dtype == torch.bfloat16
            macs.append(3 * len(images) * msmae_macs(model, plan.keep.shape[1], plan.mask.shape[1]).total)
        return forward(model, images, plan)

    forward = MSMAE.forward
    monkeypatch.setattr(MSMAE, "forward", watched)
    monkeypatch.setattr(epoch, "in_turns", lambda sides, rounds: [[sides[0]()], [1.0]])
    found = epoch.around_the_model(manifest, case, dtype="bf16", rounds=1)
    step = epoch.pretraining(case, epoch.Place(epoch.CPU, torch.bfloat16), augment=False, held=torch.bfloat16)
    assert macs == [step.macs] * len(macs)
    assert len(macs) * step.images == pytest.approx(found.theirs)


def test_peers_are_held_against_the_same_encoder_and_the_batch_is_equal() -> None:
    peers = script("peers")
    rows = [row for group in peers.COMPARISONS.values() for row in group]
    assert all(row.ours.size == row.theirs.size and row.ours.batch == row.theirs.batch for row in rows)
    assert all(row.theirs.decoder == peers.RELEASED for row in rows)
    assert len({row.title for row in rows}) == len(rows)
