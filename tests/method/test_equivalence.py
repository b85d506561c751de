"""MSMAE without its two ideas is MAE: the same loss and gradients as a second, independent masked autoencoder; and the
map is what the whole attention matrix says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from msmae.config import ARMS
from msmae.method.attention import MapBank
from msmae.method.masking import Draw, PatchPlan, plan_patches
from msmae.method.msmae import MSMAE, msmae_loss
from msmae.method.vit import Block, VisionTransformer, position_embedding
from reference_mae import ReferenceMAE, positions

PATCH, GRID, CHANNELS = 4, (5, 3), 2
SIZES = {"width": 24, "depth": 3, "heads": 3}
DECODER = {"decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}


def shaken(model: nn.Module, seed: int) -> nn.Module:
    """Every weight moved away from its initial value, so that no zero bias or unit scale hides a difference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model


def encoder_of(grid: tuple[int, int] = GRID, channels: int = CHANNELS) -> VisionTransformer:
    torch.manual_seed(0)
    size = (grid[0] * PATCH, grid[1] * PATCH)
    return VisionTransformer(image_size=size, patch_size=PATCH, channels=channels, **SIZES)


def pair(*, normalise: bool, dtype: torch.dtype) -> tuple[MSMAE, ReferenceMAE]:
    ours = MSMAE(encoder_of(), classes=3, **DECODER).to(dtype)
    shaken(ours, 1)
    theirs = ReferenceMAE(grid=GRID, patch=PATCH, channels=CHANNELS, normalise=normalise, **SIZES, **DECODER).to(dtype)
    theirs.copy_weights(ours.state_dict())
    return ours, theirs


def random_plan(batch: int) -> PatchPlan:
    """What the arm `mae` draws: uniform weights, three quarters masked, nothing thrown."""
    arm, generator = ARMS["mae"], torch.Generator().manual_seed(2)
    bank = MapBank(torch.arange(batch), GRID)
    weights = Draw(map=arm.map).maps(bank, torch.arange(batch), generator)
    return plan_patches(weights, arm.mask_ratio, arm.throw_ratio, generator)


def picture(plan: PatchPlan) -> Tensor:
    """What is masked, bool [B, N]."""
    patches = plan.mask.shape[1] + plan.keep.shape[1]
    return torch.zeros(len(plan.mask), patches, dtype=torch.bool).scatter_(1, plan.mask, True)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_policy_without_throwing_and_labels_is_the_masked_autoencoder(normalise: bool, dtype: torch.dtype):
    ours, theirs = pair(normalise=normalise, dtype=dtype)
    images = torch.randn(6, CHANNELS, GRID[0] * PATCH, GRID[1] * PATCH, generator=torch.Generator().manual_seed(3))
    images = images.to(dtype)
    plan = random_plan(6)
    assert plan.throw.shape[1] == 0
    assert plan.mask.shape[1] == 11  # floor(0.75 * 15)

    labels = torch.tensor([0, 1, 2, 0, 1, -1])
    losses = msmae_loss(
        images,
        ours(images, plan),
        plan,
        labels,
        patch_size=PATCH,
        label_weight=ARMS["mae"].label_weight,
        normalise_pixels=normalise,
    )
    expected = theirs(images, picture(plan))
    losses.total.backward()
    expected.backward()

    assert losses.total.item() == pytest.approx(expected.item(), abs=1e-5)
    assert expected.item() > 0.1
    gradients = dict(ours.named_parameters())
    for name, partner in theirs.partners().items():
        difference = (theirs.arrange(name, gradients.pop(name).grad) - partner.grad).abs().max()
        assert difference <= 1e-5, f"{name}: gradients differ by {difference}"
    untrained = {name for name, p in gradients.items() if p.grad is None or not p.grad.any()}
    assert untrained == set(gradients) == {"encoder.pos_embed", "decoder_pos_embed", "head.weight", "head.bias"}


def test_the_gradients_compared_are_not_all_nothing():
    ours, theirs = pair(normalise=False, dtype=torch.float64)
    images = torch.randn(4, CHANNELS, GRID[0] * PATCH, GRID[1] * PATCH, dtype=torch.float64)
    theirs(images, picture(random_plan(4))).backward()
    assert all(partner.grad.abs().max() > 1e-4 for partner in theirs.partners().values())
    assert len(theirs.partners()) == len(ours.state_dict()) - 4  # all but two positions and the class head


@pytest.mark.parametrize(("width", "grid"), [(16, (3, 5)), (24, (5, 3)), (768, (14, 14))])
def test_positions_are_the_sines_and_cosines_of_the_paper(width: int, grid: tuple[int, int]):
    assert torch.allclose(position_embedding(width, grid).double(), positions(width, *grid), atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid", [(4, 4), (5, 3)])
def test_the_class_row_is_the_row_of_the_full_attention_matrix(grid: tuple[int, int]):
    encoder = shaken(encoder_of(grid, channels=1), 4).eval()
    assert isinstance(encoder, VisionTransformer)
    images = torch.randn(7, 1, grid[0] * PATCH, grid[1] * PATCH, generator=torch.Generator().manual_seed(5))
    last = encoder.blocks[-1]
    assert isinstance(last, Block)
    caught: list[Tensor] = []
    handle = last.norm1.register_forward_hook(lambda module, given, result: caught.append(result))
    with torch.no_grad():
        encoder(images)
        handle.remove()
        full = nn.MultiheadAttention(SIZES["width"], SIZES["heads"], batch_first=True)
        full.in_proj_weight.copy_(last.attn.qkv.weight)
        full.in_proj_bias.copy_(last.attn.qkv.bias)
        x = caught[0].double()
        _, matrix = full.double()(x, x, x, need_weights=True, average_attn_weights=False)  # [B, H, 1+N, 1+N]
        rows = encoder.class_attention(images)
    assert rows.shape == (7, SIZES["heads"], grid[0] * grid[1])
    assert (rows.double() - matrix[:, :, 0, 1:]).abs().max() <= 1e-6
    assert (1 - rows.sum(dim=-1) - matrix[:, :, 0, 0]).abs().max() <= 1e-6  # the class token's own share is left out
    assert matrix[:, :, 0, 1:].std(dim=-1).min() > 1e-3  # rows that differ from patch to patch
