"""Maps and their bank: what a map is made of, and that a sample gets its own, newest map back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from msmae.method.attention import MapBank, average_heads, map_entropy, map_overlap, patch_maps
from msmae.method.vit import Block, VisionTransformer
from spots import looking_at_bright_patches


def small_encoder(depth: int = 2) -> VisionTransformer:
    torch.manual_seed(0)
    encoder = VisionTransformer(image_size=(12, 20), patch_size=4, channels=1, width=16, depth=depth, heads=4)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return encoder


# --- the map


def test_each_head_is_stretched_to_its_own_range_before_averaging():
    rows = torch.tensor([[[0.1, 0.3, 0.2], [0.0, 0.001, 0.004]]])  # [B=1, H=2, N=3]
    assert torch.allclose(average_heads(rows), torch.tensor([[0.0, (1 + 0.25) / 2, (0.5 + 1) / 2]]))


def test_a_constant_row_becomes_ones():
    assert torch.equal(average_heads(torch.full((2, 3, 5), 0.2)), torch.ones(2, 5))
    rows = torch.tensor([[[0.2, 0.2, 0.2, 0.2], [0.1, 0.2, 0.3, 0.5]]])
    assert torch.allclose(average_heads(rows), torch.tensor([[0.5, 0.625, 0.75, 1.0]]))


@given(seed=st.integers(0, 10_000), heads=st.integers(1, 6), patches=st.integers(1, 30), scale=st.floats(1e-6, 10))
@settings(max_examples=60)
def test_maps_are_numpys_min_max_and_mean(seed: int, heads: int, patches: int, scale: float):
    rows = np.random.default_rng(seed).random((3, heads, patches), dtype=np.float32) * np.float32(scale)
    low, high = rows.min(axis=2, keepdims=True), rows.max(axis=2, keepdims=True)
    expected = np.where(high > low, (rows - low) / np.where(high > low, high - low, 1), 1).mean(axis=1)
    result = average_heads(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert result.min() >= 0
    assert result.max() <= 1


def test_a_map_is_the_averaged_class_row_on_the_patch_grid_without_gradient():
    encoder = small_encoder()
    images = torch.randn(3, 1, 12, 20)
    maps = patch_maps(encoder, images)
    assert maps.shape == (3, 3, 5)
    assert not maps.requires_grad
    assert torch.equal(maps.flatten(1), average_heads(encoder.class_attention(images)))
    assert (maps[0] - maps[1]).abs().max() > 0.01  # each image has its own


def test_the_map_points_where_the_class_token_was_built_to_look():
    encoder = looking_at_bright_patches((12, 20), 4)
    images = 0.1 * torch.randn(15, 1, 12, 20, generator=torch.Generator().manual_seed(0))
    for i in range(15):
        row, column = divmod(i, 5)
        images[i, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 3
    maps = patch_maps(encoder, images)
    assert maps.flatten(1).argmax(dim=1).tolist() == list(range(15))
    assert (maps.flatten(1).amax(dim=1) == 1).all()
    assert maps.flatten(1).median(dim=1).values.max() < 0.2


def test_only_the_class_query_and_the_keys_of_the_last_block_are_used():
    encoder, images = small_encoder(), torch.randn(2, 1, 12, 20)
    before = patch_maps(encoder, images)
    last, first = encoder.blocks[-1], encoder.blocks[0]
    assert isinstance(last, Block)
    assert isinstance(first, Block)
    with torch.no_grad():
        for unused in (last.attn.proj, last.norm2, last.mlp, encoder.norm):
            for parameter in unused.parameters():
                parameter.fill_(math.nan)
        last.attn.qkv.weight[2 * encoder.width :] = math.nan  # the values
        last.attn.qkv.bias[2 * encoder.width :] = math.nan
        assert torch.equal(patch_maps(encoder, images), before)
        first.mlp.fc2.weight.mul_(2)  # whereas the blocks below count in full
        assert not torch.allclose(patch_maps(encoder, images), before, atol=1e-3)


def test_in_mixed_precision_no_two_patches_tie():
    """With scores of eight bits many would, and ties fall by position."""
    encoder = VisionTransformer(image_size=(56, 56), patch_size=4, channels=1, width=64, depth=1, heads=2)
    images = torch.randn(2, 1, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rows = encoder.class_attention(images).flatten(0, 1)
    assert rows.dtype == torch.float32
    assert all(len(row.unique()) > 0.95 * 196 for row in rows)


# --- the bank


def bank_of(ids: list[int]) -> MapBank:
    return MapBank(torch.tensor(ids), (2, 3))


def maps_named(ids: Tensor) -> Tensor:
    """A map that tells whose it is."""
    return ids.reshape(-1, 1, 1) + torch.arange(6).reshape(1, 2, 3) / 10


def test_before_the_first_refresh_all_weights_are_one():
    bank = bank_of([4, 2, 9])
    assert torch.equal(bank[torch.tensor([9, 4])], torch.ones(2, 2, 3))
    assert (len(bank), bank.refreshes) == (3, 0)


@given(ids=st.lists(st.integers(0, 500), min_size=1, max_size=30, unique=True), data=st.data())
@settings(max_examples=60)
def test_every_sample_gets_its_own_map_back_whatever_the_order(ids: list[int], data: st.DataObject):
    bank = bank_of(ids)
    stored = torch.tensor(data.draw(st.permutations(ids)))
    asked = torch.tensor(data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=40)))
    bank.refresh(stored, maps_named(stored))
    assert torch.equal(bank[asked], maps_named(asked).float())


def test_a_refresh_of_some_leaves_the_others_and_replaces_what_was_there():
    bank = bank_of([1, 3, 5])
    everyone = torch.tensor([5, 1, 3])
    bank.refresh(everyone, maps_named(everyone))
    bank.refresh(torch.tensor([3]), torch.zeros(1, 2, 3))
    assert torch.equal(bank[torch.tensor([3])], torch.zeros(1, 2, 3))
    assert torch.equal(bank[torch.tensor([5, 1])], maps_named(torch.tensor([5, 1])).float())
    assert bank.refreshes == 2


@pytest.mark.parametrize("unknown", [[2], [0], [100], [1, 2]])
def test_an_unknown_sample_is_refused(unknown: list[int]):
    bank = bank_of([1, 3, 5])
    with pytest.raises(KeyError):
        bank[torch.tensor(unknown)]
    with pytest.raises(KeyError):
        bank.refresh(torch.tensor(unknown), torch.zeros(len(unknown), 2, 3))


def test_maps_of_another_grid_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(2, 3\)"):
        bank_of([1]).refresh(torch.tensor([1]), torch.zeros(1, 3, 2))


def test_changing_what_the_bank_gave_does_not_change_the_bank():
    bank = bank_of([1, 2])
    bank[torch.tensor([1])].zero_()
    assert torch.equal(bank.maps, torch.ones(2, 2, 3))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_others_are_never_oneself_and_may_be_anyone_else(count: int):
    ids = 10 * torch.arange(count)
    bank = MapBank(ids, (1, 1))
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([bank.others(ids, generator) for _ in range(300)])  # [300, count]
    assert not (drawn == ids).any()
    for column, own in zip(drawn.T, ids.tolist(), strict=True):
        assert set(column.tolist()) == set(ids.tolist()) - {own}


def test_a_checkpoint_restores_maps_and_count_and_refuses_other_data():
    ids = torch.tensor([7, 2, 5])
    bank = bank_of(ids.tolist())
    bank.refresh(ids, maps_named(ids))
    restored = bank_of([2, 5, 7])
    restored.load_state_dict(bank.state_dict())
    assert torch.equal(restored[ids], maps_named(ids).float())
    assert restored.refreshes == 1
    bank.refresh(ids, torch.zeros(3, 2, 3))
    assert torch.equal(restored[ids], maps_named(ids).float())  # a copy, not the same memory
    for other in (bank_of([2, 5, 8]), bank_of([2, 5]), MapBank(ids, (3, 2))):
        with pytest.raises(ValueError, match="another data set or patch grid"):
            other.load_state_dict(bank.state_dict())


# --- the two figures that are logged


def test_entropy_is_one_for_uniform_and_zero_for_a_single_patch():
    single = torch.zeros(1, 2, 4)
    single[0, 1, 2] = 5.0
    half = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 1, 1]]])
    maps = torch.cat([torch.full((1, 2, 4), 0.3), single, half])
    expected = [1.0, 0.0, math.log(4) / math.log(8)]
    assert map_entropy(maps).tolist() == pytest.approx(expected, abs=1e-6)


def test_overlap_counts_the_most_attended_quarter_in_common():
    old = torch.arange(16.0).reshape(1, 4, 4)
    quarter = old.clone()
    quarter[0, 3, 3] = -1  # the most attended of sixteen drops out of the best four
    rest = torch.where(old < 12, -old, old)  # only the order of the others changes
    new = torch.cat([old, -old, quarter, rest])
    assert map_overlap(old.expand(4, 4, 4), new).tolist() == [1.0, 0.0, 0.75, 1.0]
    assert map_overlap(new, new).tolist() == [1.0] * 4
