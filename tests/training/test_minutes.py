"""What fits into a time: enough epochs, then larger images; where too few epochs fit, a probe."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmae.config import make_settings
from msmae.data.opening import divide
from msmae.encoders.start import settings_with_start
from msmae.errors import UserError
from msmae.runs.folder import describe_run, differences
from msmae.training.minutes import (
    AIM,
    EPOCHS,
    FEWEST_EPOCHS,
    MOST_EPOCHS,
    PRESENTATIONS,
    SMALLEST_BATCH,
    STEPS,
    Amounts,
    Rates,
    candidate_sizes,
    decide,
    in_time,
    on_the_line,
    with_enough_steps,
)

SIZES = [112, 140, 168]
RATE = {"batch_size": 64, "base_lr": 1e-3}


def rates(size: int) -> Rates:
    """0.05 s an image at 112 px, in proportion to the area."""
    return Rates(size, 0.05 * (size / 112) ** 2, 0.015 * (size / 112) ** 2)


def amounts(train: int) -> Amounts:
    return Amounts(train=train, val=train // 5, test=train // 4, spent=10.0, reading=5.0)


def test_the_largest_image_that_leaves_room_for_enough_epochs_is_taken() -> None:
    assert decide(60, SIZES, rates, amounts(2000)).size == 168
    assert decide(15, SIZES, rates, amounts(2000)) == decide(15, [112], rates, amounts(2000))
    assert decide(600, SIZES, rates, amounts(2000)).epochs == MOST_EPOCHS


def test_where_not_even_two_epochs_fit_the_encoder_stays_frozen() -> None:
    assert decide(3, SIZES, rates, amounts(2000)).epochs == 0
    with pytest.raises(UserError, match=r"minutes 0\.1 is too little"):
        decide(0.1, SIZES, rates, amounts(2000))


def test_many_images_need_fewer_epochs_than_few_do() -> None:
    """After 34,000 images a larger size is worth more than further epochs."""
    few, many = (decide(85, SIZES, rates, amounts(train)) for train in (2000, 12_000))
    assert few.size == many.size == SIZES[-1]
    assert many.epochs == math.ceil(PRESENTATIONS / 12_000) < EPOCHS <= few.epochs
    two = Amounts(train=24_000, val=4800, test=6000, spent=10.0, reading=5.0, models=2)
    assert decide(167, SIZES, rates, two).epochs == many.epochs


def test_what_an_image_costs_lies_on_the_line_through_two_sizes() -> None:
    def macs(size: int) -> float:
        return float(size**2)

    small, middle = Rates(56, 1 + 56**2, 2.0 * 56**2), Rates(112, 1 + 112**2, 2.0 * 112**2)
    for size in (56, 84, 112):
        found = on_the_line([small, middle], size, macs)
        assert (found.size, found.train) == (size, pytest.approx(1 + size**2))
        assert found.predict == pytest.approx(2 * size**2)
    for known in ([middle], [small, middle], [Rates(56, 9.0, 9.0), Rates(112, 1 + 112**2, 8.0)]):
        assert on_the_line(known, 224, macs).train == pytest.approx(4 * middle.train)
    assert on_the_line([middle], 56, macs).predict == pytest.approx(middle.predict / 4)


def decided_at(size: int, minutes: float, train: int) -> int:
    """The epochs where there is no other size; 0 where a probe or nothing fits."""
    try:
        return decide(minutes, [size], rates, amounts(train)).epochs
    except UserError:
        return 0


def probe_fits(size: int, minutes: float, train: int) -> bool:
    try:
        return decide(minutes, [size], rates, amounts(train), frozen=True).epochs == 0
    except UserError:
        return False


@given(minutes=st.floats(1.5, 500), train=st.integers(50, 30_000))
def test_what_is_decided_fits(minutes: float, train: int) -> None:
    try:
        found = decide(minutes, SIZES, rates, amounts(train))
    except UserError:
        return
    rate, enough = rates(found.size), min(EPOCHS, math.ceil(PRESENTATIONS / train))
    needed = found.seconds
    assert needed <= 60 * minutes * AIM + 1e-6
    if found.size < SIZES[-1]:  # a larger image would have to do with fewer epochs
        asked = min(found.epochs, enough)
        larger = SIZES[SIZES.index(found.size) + 1]
        assert decided_at(larger, minutes, train) < asked if asked else not probe_fits(larger, minutes, train)
    if 0 < found.epochs < enough:  # and a smaller one would not have had more
        assert decided_at(SIZES[0], minutes, train) == found.epochs
    one_more = needed + train * rate.train + train // 5 * rate.predict
    assert found.epochs in (0, MOST_EPOCHS) or one_more > 60 * minutes * AIM


@given(own=st.integers(10, 3000), limit=st.integers(30, 518), patch=st.sampled_from([8, 14, 16]))
def test_sizes_are_multiples_of_the_patch_within_the_files_and_the_limit(own: int, limit: int, patch: int) -> None:
    sizes = candidate_sizes(own, limit, patch)
    assert sizes == sorted(set(sizes))
    assert all(size % patch == 0 for size in sizes)
    assert sizes[0] == 4 * patch
    assert sizes[-1] <= max(4 * patch, limit)
    assert sizes[-1] <= max(8 * patch, own)
    assert sizes[-1] > min(max(own, 8 * patch), limit) - patch or sizes == [4 * patch]


@given(images=st.integers(8, 5000), epochs=st.integers(2, 30))
def test_few_images_are_shown_in_smaller_batches(images: int, epochs: int) -> None:
    fine = make_settings("cpu", None, {"finetune": {"epochs": epochs, **RATE}}).finetune
    found = with_enough_steps(fine, images=images)
    steps = epochs * -(-images // found.batch_size)
    assert steps >= STEPS or found.batch_size == SMALLEST_BATCH
    assert found.batch_size == 64 or epochs * -(-images // (2 * found.batch_size)) < STEPS
    step = found.base_lr * found.batch_size  # what the optimiser takes, times 256
    assert step == pytest.approx(64e-3 * (found.batch_size / 64) ** 0.5)
    own = make_settings("cpu", None, {"finetune": {"epochs": epochs, **RATE, "batch_size": 48}}).finetune
    assert with_enough_steps(own, images=images) == own


def planned(
    run: Path, data: Path, *, minutes: float = 60, folder: Path | None = None, models: int = 1, **given: Any
) -> Any:
    """Settings and method that a start from a run's encoder is given, with these settings asked for."""
    settings, start = settings_with_start(str(run), "cpu", None, given)
    manifest = divide(data, settings=settings, seed=0)
    return in_time(
        minutes, manifest, settings, start, method="vit", preset="cpu", began=time.monotonic(), folder=folder,
        models=models,
    )  # fmt: skip


def test_what_is_given_is_planned_with(finished: Path, data: Path) -> None:
    patch = 8
    settings, method = planned(finished, data, finetune={"presentations": 240}, model={"image_limit": 64})
    images = len(divide(data, settings=settings, seed=0).ids("train"))
    assert (method, settings.finetune.epochs) == ("vit", round(240 / images))
    assert max(settings.model.image_size, 0) <= 64
    settings, _ = planned(finished, data, model={"image_size": (3 * patch, 6 * patch)})
    assert settings.model.image_size == (3 * patch, 6 * patch)


def test_an_unfinished_run_keeps_what_it_decided_and_not_what_is_asked_now(finished: Path, data: Path) -> None:
    """The run is of an arm with its own epochs and size: only what is open is taken from it."""
    settings, method = planned(finished, data, folder=finished, finetune={"epochs": 7})
    assert (method, settings.finetune.epochs) == ("vit", 7)
    assert tuple(settings.model.image_size) == (32, 32)


def test_a_killed_run_of_few_images_goes_on_with_the_batches_that_it_chose(
    finished: Path, data: Path, tmp_path: Path
) -> None:
    """A recipe's batch of 64 would give these images too few steps; the same command must come to the same again."""
    recipe = {"finetune": {"batch_size": 64, "base_lr": 1e-3}, "model": {"image_size": 32}}
    first, method = planned(finished, data, minutes=1, **recipe)
    assert first.finetune.batch_size < 64
    describe_run(tmp_path, data=str(data), method=method, seed=0, settings=first, given={})
    again, _ = planned(finished, data, minutes=1, folder=tmp_path, **recipe)
    assert differences(first.to_dict(), again.to_dict()) == set()


def test_the_time_is_that_of_all_models_of_an_ensemble(
    finished: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image takes a hundredth of a second to learn from: five models get a fifth of the epochs."""
    monkeypatch.setattr("msmae.training.minutes.time_steps", lambda *_, **__: lambda size: Rates(size, 0.01, 0.0))
    one, _ = planned(finished, data, minutes=1, model={"image_size": 32})
    five, _ = planned(finished, data, minutes=1, model={"image_size": 32}, models=5)
    assert one.finetune.epochs == MOST_EPOCHS
    assert FEWEST_EPOCHS <= five.finetune.epochs < one.finetune.epochs
    images = len(divide(data, settings=one, seed=0).ids("train"))
    assert five.finetune.epochs * 5 * images * 0.01 < 60
    assert "for each of 5 models" in capsys.readouterr().out
    with pytest.raises(UserError, match="too little for 90 models"):
        planned(finished, data, minutes=1, model={"image_size": 32}, models=90)
