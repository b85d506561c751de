"""`msmae bench`: rows that can be read and compared, costs that are right, and errors that help."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from msmae.bench import turns, work
from msmae.bench.memory import fitting, peak_megabytes
from msmae.bench.rows import STAGES
from msmae.bench.turns import Row, in_turns, median_interval, ratio_row, spread
from msmae.bench.work import Case, Place, Work
from msmae.errors import UserError
from msmae.method.vit import SIZES
from msmae.verbs.bench import CASES, bench, find_device, find_dtypes

CPU = Place(torch.device("cpu"))
SMALL = Case("small", "nano", side=24, patch=4, batch=4, decoder=(32, 1, 2), channels=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", autouse=True)
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_the_verb_measures_every_stage_and_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CASES, "cpu", SMALL)
    file = tmp_path / "rows.json"
    rows = bench(cases=["cpu"], dtypes=["fp32"], device="cpu", rounds=2, json=str(file))
    names = [row.name for row in rows]
    assert all(f"small, {stage}, fp32" in names for stage in STAGES)
    assert {"matrix product, fp32", "memory copy", "small, peak memory of pre-training, fp32"} <= set(names)
    assert len(set(names)) == len(names)
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
    written = json.loads(file.read_text())
    keys = {"name", "ours", "theirs", "ratio", "low", "high", "unit", "device"}
    assert all(row.keys() == keys for row in written)
    for row in rows:
        assert row.ours > 0, row
        if row.ratio is not None:
            assert row.low is not None and row.high is not None  # noqa: PT018
            assert 0 < row.low <= row.ratio <= row.high


def test_multiply_accumulates_a_second_are_the_images_a_second_times_their_cost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CASES, "cpu", SMALL)
    (row,) = bench(cases=["cpu"], dtypes=["fp32"], device="cpu", rounds=2, only="inference")
    done = work.inference(SMALL, CPU)
    assert row.gmacs == pytest.approx(row.ours * done.macs / done.images / 1e9)
    assert f" {row.gmacs:,.4g} " in capsys.readouterr().out


def test_only_the_rows_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "cpu", SMALL)
    rows = bench(cases=["cpu"], dtypes=["fp32"], device="cpu", rounds=2, only="refresh")
    assert [row.name for row in rows] == ["small, map refresh, fp32"]


def test_a_ratio_is_our_rate_over_theirs_pair_by_pair() -> None:
    row = ratio_row("x", [1.0, 2.0, 4.0], [2.0, 4.0, 8.0], amount=10, device="d")
    assert (row.ours, row.theirs) == (5.0, 2.5)
    assert (row.ratio, row.low, row.high) == (2.0, 2.0, 2.0)  # the machine slowed down for both: no spread in the pairs
    assert ratio_row("x", [1.0], [1.0], amount=10, theirs_amount=40, device="d").ratio == 0.25


def test_the_interval_holds_the_median_and_narrows() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = (1 + 0.1 * torch.randn(60, generator=generator)).tolist()
    wide, narrow = median_interval(draws[:5]), median_interval(draws)
    assert wide[1] <= wide[0] <= wide[2]
    assert narrow[2] - narrow[1] < wide[2] - wide[1]
    assert median_interval(draws) == narrow


def test_sides_take_turns() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    times = in_turns([lambda: side("a"), lambda: side("b")], rounds=3)
    assert "".join(order) == "abababab"  # the first of each warms up
    assert times == [[3.0, 5.0, 7.0], [4.0, 6.0, 8.0]]


@pytest.mark.parametrize(
    ("has", "gain", "kind"),
    [
        (True, 4.4, "chip, 2 threads, bfloat16 4 x"),
        (True, 0.56, "chip, 2 threads, bfloat16 0.5 x"),
        (False, 4.4, "chip, 2 threads"),
    ],
)
def test_processors_of_one_name_that_multiply_bfloat16_unlike_are_two_kinds(
    monkeypatch: pytest.MonkeyPatch, has: bool, gain: float, kind: str
) -> None:
    monkeypatch.setattr(turns, "processor_name", lambda: "chip")
    monkeypatch.setattr(turns, "cpu_has_bfloat16", lambda: has)
    monkeypatch.setattr(turns, "bfloat16_gain", lambda: gain)
    assert turns.processor_kind(2) == kind


def test_spread_tells_a_busy_machine() -> None:
    assert spread([1.0] * 9) == 0
    assert spread([1.0, 1.0, 2.0, 2.0, 1.0, 2.0]) > 0.5


def test_rows_are_written_with_four_digits() -> None:
    row = Row("n", 1234.5678, None, 0.98765432, 0.9, 1.1, "images/s", "d").to_dict()
    assert row["ours"] == 1235
    assert row["ratio"] == 0.9877
    assert row["theirs"] is None


def test_costs_follow_the_patches_that_are_kept() -> None:
    case = dataclasses.replace(CASES["base"], batch=1)
    full, quarter = work.finetuning(case, CPU).macs, work.finetuning(case, CPU, keep=0.25).macs
    assert full / quarter == pytest.approx(17.56 / 4.34, rel=0.02)  # docs: only kept patches are embedded
    assert work.refresh(SMALL, CPU).macs < 4 * work.inference(SMALL, CPU).macs


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_does_its_work(stage: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        done = STAGES[stage](SMALL, Place(CPU.device, dtype))
        done.run()
        assert done.images == (4 if stage == "map refresh" else 1) * SMALL.batch
        assert done.macs > 0


def test_a_batch_that_does_not_fit_names_one_that_does() -> None:
    def make(case: Case) -> Work:
        def run() -> None:
            if case.batch > 5:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

        return Work(run, case.batch, 1.0)

    assert fitting(dataclasses.replace(SMALL, batch=4), make).images == 4
    with pytest.raises(UserError, match="a batch of 48 does not fit into memory") as caught:
        fitting(dataclasses.replace(SMALL, batch=48), make)
    assert "--batch 3 fits" in str(caught.value)


def test_another_failure_is_not_taken_for_want_of_memory() -> None:
    def make(case: Case) -> Work:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        fitting(SMALL, make)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
@pytest.mark.slow
def test_a_cpu_without_room_is_told_apart() -> None:
    program = """
import resource, torch
from msmae.bench.memory import fitting
from msmae.bench.work import Case, Work
held = []
def make(case):
    return Work(lambda: torch.ones(case.batch, 2**18), case.batch, 1.0)
fitting(Case("c", "nano", side=16, patch=4, batch=1), make)
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
try:
    fitting(Case("c", "nano", side=16, patch=4, batch=8192), make)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "UserError" in done.stdout
    assert "fits" in done.stdout


@pytest.mark.slow
def test_peak_memory_holds_the_activations() -> None:
    """512 images of 36 patches, 4 blocks of width 128: in fp32 at least what the perceptrons keep for the way back."""
    megabytes = peak_megabytes(dataclasses.replace(SMALL, batch=512), CPU)
    assert megabytes > 512 * 10 * 4 * 4 * 128 * 4 * 2 / 2**20
    assert megabytes < 1500


def test_what_the_device_lacks_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert find_dtypes(["fp32", "fp16"], torch.device("cpu")) == ["fp32"]
    assert capsys.readouterr().out == "cpu does not multiply fp16 natively: measured in fp32 instead\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cases": ["huge"]}, "no case 'huge'"),
        ({"dtypes": ["int3"], "device": "cpu"}, "no dtype 'int3'"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"rounds": 1}, "1 round"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        bench(**options)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no GPU is visible"):
        find_device("cuda")
    assert find_device("auto").type == "cpu"


def test_cases_are_known_sizes() -> None:
    assert all(case.size in SIZES for case in CASES.values())


def test_a_measurement_takes_the_time_it_takes() -> None:
    from msmae.bench.turns import clock

    assert clock(lambda: time.sleep(0.05), CPU.device) == pytest.approx(0.05, abs=0.04)
