"""The draw: it is sequential drawing without replacement, attention-driven, complete, and repeatable.

Chi-squared tests raise a false alarm once in 10,000 random streams (`FALSE_ALARM`); the seeds are fixed, so here they
pass or fail for good.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, spearmanr
from torch import Tensor

from msmae.config import ARMS
from msmae.method.attention import MapBank
from msmae.method.masking import Draw, PatchPlan, patch_counts, plan_patches
from msmae.method.msmae import MSMAE
from msmae.runs.checkpoint import build_model
from msmae.training.cards import card_of
from msmae.training.pretrain import PretrainModule, pretrain_model
from spots import prepared_of, write_spots

FALSE_ALARM = 1e-4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(weights: list[float], count: int, mask: float, throw: float, seed: int = 0) -> PatchPlan:
    return plan_patches(torch.tensor(weights).expand(count, -1), mask, throw, seeded(seed))


def sequential(weights: list[float], masked: int, thrown: int) -> dict[tuple[frozenset[int], frozenset[int]], float]:
    """Probability of each (masked set, thrown set) when patches are picked one by one in proportion to their weight."""
    result: dict[tuple[frozenset[int], frozenset[int]], float] = {}
    for order in itertools.permutations(range(len(weights)), masked + thrown):
        probability, left = 1.0, sum(weights)
        for patch in order:
            probability *= weights[patch] / left
            left -= weights[patch]
        key = frozenset(order[:masked]), frozenset(order[masked:])
        result[key] = result.get(key, 0.0) + probability
    return result


# --- the distribution


@pytest.mark.parametrize("weights", [[0.05, 0.2, 0.5, 1.0, 1.0], [1.0] * 5, [0.9, 0.01, 0.3, 0.3, 0.02]])
def test_frequencies_are_those_of_sequential_drawing_without_replacement(weights: list[float]):
    plan = draws(weights, 60_000, mask=0.4, throw=0.2)
    drawn = list(zip(plan.mask.tolist(), plan.throw.tolist(), strict=True))
    seen: dict[tuple[frozenset[int], frozenset[int]], int] = {}
    for mask, throw in drawn:
        key = frozenset(mask), frozenset(throw)
        seen[key] = seen.get(key, 0) + 1
    expected = sequential(weights, masked=2, thrown=1)
    assert sum(expected.values()) == pytest.approx(1)
    assert set(seen) <= set(expected)
    often = [key for key, p in expected.items() if p * len(drawn) >= 5]  # chi-squared wants five or more a cell
    observed = [seen.get(key, 0) for key in often]
    hoped = [expected[key] * len(drawn) for key in often]
    observed.append(len(drawn) - sum(observed))
    hoped.append(len(drawn) - sum(hoped))
    if hoped[-1] < 5:
        observed[-2:], hoped[-2:] = [sum(observed[-2:])], [sum(hoped[-2:])]
    assert len(observed) >= 15
    assert chisquare(observed, hoped, sum_check=False).pvalue > FALSE_ALARM


@pytest.mark.parametrize("wrong", [[0.06, 0.2, 0.5, 1.0, 1.0], [0.05, 0.2, 0.5, 1.0, 1.1]])
def test_the_chi_squared_test_would_see_a_weight_wrong_by_a_tenth(wrong: list[float]):
    count = 60_000
    expected = sequential([0.05, 0.2, 0.5, 1.0, 1.0], masked=2, thrown=1)
    actual = sequential(wrong, masked=2, thrown=1)
    assert chisquare([p * count for p in actual.values()], [p * count for p in expected.values()]).pvalue < FALSE_ALARM


def test_weight_decides_how_often_a_patch_is_masked():
    """Spearman's rank correlation between map weight and frequency of being masked, over 4,000 draws."""
    weights = torch.rand(196, generator=seeded(1)) ** 2
    weights[::9] = 0
    plan = plan_patches(weights.expand(4000, -1), 0.45, 0.30, seeded())
    masked = torch.zeros(196).index_add_(0, plan.mask.flatten(), torch.ones(plan.mask.numel())) / 4000
    kept = torch.zeros(196).index_add_(0, plan.keep.flatten(), torch.ones(plan.keep.numel())) / 4000
    positive = weights > 0
    assert spearmanr(weights[positive], masked[positive]).statistic > 0.95
    assert spearmanr(weights[positive], kept[positive]).statistic < -0.95  # high attention, seldom kept
    assert masked[~positive].max() == 0  # 174 patches with weight go before any without


def test_an_all_zero_map_is_uniform():
    first = draws([0.0] * 16, 20_000, mask=1 / 16, throw=0.5).mask.flatten()
    assert chisquare(torch.bincount(first, minlength=16).numpy()).pvalue > FALSE_ALARM


def test_patches_of_zero_weight_do_not_tie():
    """Behind the patches with weight, those without come in random order, not by their place in the grid."""
    plan = draws([0.0, 0.7, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0], 20_000, mask=0.375, throw=0.125)
    with_weight = torch.tensor([1, 4])
    assert torch.isin(plan.mask, with_weight).sum(dim=1).eq(2).all()
    for third in (plan.mask[~torch.isin(plan.mask, with_weight)], plan.throw.flatten()):
        counts = torch.bincount(third, minlength=8)[[0, 2, 3, 5, 6, 7]]
        assert chisquare(counts.numpy()).pvalue > FALSE_ALARM


def test_images_of_a_batch_are_drawn_apart():
    plan = plan_patches(torch.ones(50, 64), generator=seeded())
    assert len({tuple(sorted(row)) for row in plan.mask.tolist()}) == 50


# --- counts


@pytest.mark.parametrize(("patches", "counts"), [(196, (88, 59, 49)), (64, (28, 20, 16)), (49, (22, 14, 13))])
def test_counts_of_the_paper(patches: int, counts: tuple[int, int, int]):
    assert patch_counts(patches, 0.45, 0.30) == counts
    plan = plan_patches(torch.ones(2, patches), generator=seeded())  # the defaults are the paper's ratios
    assert (plan.mask.shape, plan.throw.shape, plan.keep.shape) == tuple((2, n) for n in counts)


@pytest.mark.parametrize(("patches", "counts"), [(196, (147, 0, 49)), (64, (48, 0, 16)), (10, (7, 0, 3))])
def test_counts_of_the_plain_masked_autoencoder(patches: int, counts: tuple[int, int, int]):
    arm = ARMS["mae"]
    assert patch_counts(patches, arm.mask_ratio, arm.throw_ratio) == counts


@pytest.mark.parametrize(("mask", "throw", "counts"), [(0.7, 0.1, (7, 1, 2)), (0.1, 0.2, (1, 2, 7))])
def test_decimal_ratios_mean_what_they_say(mask: float, throw: float, counts: tuple[int, int, int]):
    """In floating point 0.7 + 0.1 lies under 0.8 and 0.1 + 0.2 above 0.3."""
    assert patch_counts(10, mask, throw) == counts


@pytest.mark.parametrize(
    ("mask", "throw"), [(0.5, 0.5), (1.0, 0.0), (0.75, 0.30), (0.0, 1.5), (-0.1, 0.3), (0.5, -0.1), (math.nan, 0.1)]
)
def test_ratios_that_keep_nothing_or_are_negative_are_refused(mask: float, throw: float):
    with pytest.raises(ValueError, match=r"ratio|NaN"):
        plan_patches(torch.ones(1, 16), mask, throw, seeded())
    with pytest.raises(ValueError, match="leaves none to keep"):
        patch_counts(4, 1 - 1e-10, 0.0)


def test_a_plan_may_mask_or_throw_nothing():
    plan = plan_patches(torch.ones(3, 16), 0.0, 0.5, seeded())
    assert (plan.mask.shape, plan.throw.shape, plan.keep.shape) == ((3, 0), (3, 8), (3, 8))
    plan = plan_patches(torch.ones(3, 16), 0.0, 0.0, seeded())
    assert torch.equal(plan.keep.sort(dim=1).values, torch.arange(16).expand(3, -1))


# --- the plan as a whole


@given(
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    mask=st.floats(0.02, 0.98),
    throw=st.floats(0, 0.98),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=150)
def test_every_plan_is_a_permutation(grid: tuple[int, int], mask: float, throw: float, zeros: float, seed: int):
    patches = grid[0] * grid[1]
    assume(mask + throw < 0.999)
    assume(math.floor(mask * patches) >= 1)
    generator = seeded(seed)
    maps = torch.rand(3, *grid, generator=generator)
    maps = maps * (torch.rand(3, *grid, generator=generator) >= zeros)
    plan = plan_patches(maps, mask, throw, generator)
    everything = torch.cat([plan.keep, plan.mask, plan.throw], dim=1)
    assert everything.dtype == torch.int64
    assert torch.equal(everything.sort(dim=1).values, torch.arange(patches).expand(3, -1))
    assert plan.mask.shape[1] == math.floor(mask * patches + 1e-9)
    assert plan.mask.shape[1] + plan.throw.shape[1] == math.floor((mask + throw) * patches + 1e-9)
    assert plan.keep.shape[1] >= 1


def test_roles_say_of_every_patch_what_happens_to_it():
    plan = PatchPlan(keep=torch.tensor([[3, 0]]), mask=torch.tensor([[1, 5, 2]]), throw=torch.tensor([[4]]))
    assert plan.roles().tolist() == [[2, 0, 0, 2, 1, 0]]


def test_a_map_may_be_a_row_or_a_grid():
    maps = torch.rand(4, 5, 3, generator=seeded(1))
    row, grid = (plan_patches(m, generator=seeded()).roles() for m in (maps.flatten(1), maps))
    assert torch.equal(row, grid)


def test_maps_are_left_as_they_were():
    maps = torch.rand(2, 16, generator=seeded(1))
    before = maps.clone()
    plan_patches(maps, generator=seeded())
    assert torch.equal(maps, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1e-6])
def test_maps_that_are_no_weights_are_refused(bad: float):
    maps = torch.ones(2, 4, 4)
    maps[1, 2, 3] = bad
    with pytest.raises(ValueError, match="finite and non-negative"):
        plan_patches(maps, generator=seeded())


def test_the_generator_alone_decides():
    maps = torch.rand(8, 64, generator=seeded(1))
    state = torch.get_rng_state()
    first = plan_patches(maps, generator=seeded(3))
    assert torch.equal(torch.get_rng_state(), state)  # nothing is taken from the global stream
    torch.manual_seed(99)
    again, other = plan_patches(maps, generator=seeded(3)), plan_patches(maps, generator=seeded(4))
    for name in ("keep", "mask", "throw"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.roles(), other.roles())


# --- the policies


def filled_bank() -> tuple[MapBank, Tensor]:
    ids = torch.tensor([12, 3, 8, 40])
    bank = MapBank(ids, (2, 2))
    bank.refresh(ids, ids.reshape(-1, 1, 1) + torch.arange(4.0).reshape(1, 2, 2))
    return bank, ids


def test_attention_gives_each_image_its_own_map():
    bank, ids = filled_bank()
    asked = ids[[2, 0, 2]]
    weights = Draw().maps(bank, asked, seeded())
    assert torch.equal(weights, asked.reshape(-1, 1, 1) + torch.arange(4.0).reshape(1, 2, 2))


def test_shuffled_gives_another_images_map_whole():
    bank, ids = filled_bank()
    weights = torch.stack([Draw(map="other").maps(bank, ids, seeded(seed)) for seed in range(20)])
    owners = weights[:, :, 0, 0]
    assert torch.equal(weights - owners[..., None, None], torch.arange(4.0).reshape(2, 2).expand_as(weights))
    assert not (owners == ids).any()
    assert set(owners.flatten().long().tolist()) == set(ids.tolist())


def test_random_masking_knows_nothing_of_the_maps():
    bank, ids = filled_bank()
    draw = Draw(map="none")
    assert torch.equal(draw.maps(bank, ids, seeded()), torch.ones(4, 2, 2))
    for field in ("keep", "mask", "throw"):
        plans = [getattr(draw.plan(maps, seeded()), field) for maps in (bank[ids], torch.ones(4, 2, 2))]
        assert torch.equal(*plans)


def test_every_arm_differs_only_in_what_its_name_says():
    """METHOD.md's table of arms: label weight, mask / throw ratio, map."""
    rows = {name: (a.label_weight, a.mask_ratio, a.throw_ratio, a.map) for name, a in ARMS.items() if a.pretrains}
    assert rows == {
        "mae": (0.0, 0.75, 0.0, "none"),
        "supmae": (0.1, 0.45, 0.30, "none"),
        "amt": (0.0, 0.45, 0.30, "own"),
        "msmae": (0.1, 0.45, 0.30, "own"),
        "msmae-shuffled": (0.1, 0.45, 0.30, "other"),
        "msmae-released": (0.1, 0.45, 0.30, "none"),
    }
    assert {name for name, arm in ARMS.items() if arm.softmax_twice or arm.pool == "mean"} == {"msmae-released"}
    assert [name for name, arm in ARMS.items() if not arm.pretrains] == ["vit", "probe", "probe-knn", "probe-attentive"]


def test_pretraining_draws_as_its_settings_say(tmp_path: Path):
    """A patch of nearly all weight is nearly always masked; as a hint it is kept instead."""
    maps = torch.full((2000, 2, 2), 0.001)
    maps[:, 0, 0] = 1.0
    data, masked = write_spots(tmp_path), {}
    for hints in (0.0, 1.0):
        ratios = {"uniform_epochs": 0, "mask_ratio": 0.25, "throw_ratio": 0.25}
        prepared = prepared_of(data, pretrain={**ratios, "hints": hints})
        model = build_model(card_of(prepared, "pretrained"))
        assert isinstance(model, MSMAE)
        module = PretrainModule(model, prepared)
        module.generator = seeded()
        masked[hints] = float((module.plan(maps).mask == 0).float().mean())
    assert masked[0.0] > 0.97
    assert masked[1.0] < 0.03


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("msmae", ["epoch 3: attention-guided masking begins, 45 % masked, 30 % dropped"]),
        ("supmae", ["epoch 3: random masking begins, 45 % masked, 30 % dropped"]),
        ("mae", []),  # masks as it began
    ],
)
def test_it_is_said_when_the_draw_of_an_arm_begins(
    method: str, said: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    prepared = prepared_of(write_spots(tmp_path), method)
    with caplog.at_level("INFO", logger="msmae"):
        pretrain_model(prepared, tmp_path / "run")
    assert [line for line in caplog.messages if line.startswith("epoch")] == said
