"""Low-rank adaptation and frozen blocks: nothing changes at first, only what should learns, merging is exact."""

from __future__ import annotations

import pytest
import torch

from msmae.method.lora import add_lora, attention_layers, freeze_first, merge_lora
from msmae.method.vit import VisionTransformer


def encoder(**parts: bool) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(image_size=(32, 32), patch_size=8, channels=1, width=32, depth=3, heads=2, **parts)


@pytest.mark.parametrize("parts", [{}, {"qkv_bias": False}])
def test_lora_begins_as_the_encoder_learns_little_and_merges_exactly(parts: dict[str, bool]) -> None:
    plain, images = encoder(**parts), torch.randn(2, 1, 32, 32)
    before, names = plain(images).detach(), list(plain.state_dict())
    everything = sum(p.numel() for p in plain.parameters())
    add_lora(plain, 2)
    torch.testing.assert_close(plain(images), before)
    learning = {name: p for name, p in plain.named_parameters() if p.requires_grad}
    assert all(name.endswith((".up", ".down")) or "norm" in name for name in learning)
    assert sum(p.numel() for p in learning.values()) < 0.1 * everything
    optimiser = torch.optim.SGD(learning.values(), lr=0.5)
    plain(images).square().sum().backward()
    optimiser.step()
    learned = plain(images).detach()
    assert (learned - before).abs().max() > 1e-3
    attention = plain.class_attention(images).detach()
    merge_lora(plain)
    assert sorted(plain.state_dict()) == sorted(names)
    torch.testing.assert_close(plain(images), learned)
    torch.testing.assert_close(plain.class_attention(images), attention)
    assert len(attention_layers(plain)) == 6


def test_the_first_blocks_and_the_embedding_stand_still() -> None:
    frozen = encoder()
    freeze_first(frozen, 2)
    frozen(torch.randn(2, 1, 32, 32)).sum().backward()
    with_gradient = {name for name, p in frozen.named_parameters() if p.grad is not None}
    assert all(name.startswith(("blocks.2", "norm")) for name in with_gradient)
    assert any(name.startswith("blocks.2") for name in with_gradient)
    with pytest.raises(ValueError, match="4 blocks of 3"):
        freeze_first(encoder(), 4)


def test_nothing_frozen_is_nothing_changed() -> None:
    free = encoder()
    freeze_first(free, 0)
    assert all(p.requires_grad for p in free.parameters())
