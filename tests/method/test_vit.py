"""The encoder: any size, part of the patches or all, timm's names, and a gradient wherever one belongs."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from msmae.method.classifier import Classifier
from msmae.method.vit import (
    SIZES,
    Block,
    DropPath,
    LayerScale,
    SwiGlu,
    VisionTransformer,
    attend,
    fold_layer_scale,
    gather_tokens,
    patchify,
    position_embedding,
    resize_position_embedding,
    unpatchify,
)


def encoder_of(image_size: tuple[int, int] = (12, 20), patch_size: int = 4, channels: int = 1) -> VisionTransformer:
    torch.manual_seed(0)
    encoder = VisionTransformer(
        image_size=image_size, patch_size=patch_size, channels=channels, width=24, depth=2, heads=3
    )
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return encoder


def shuffled_positions(batch: int, patches: int) -> Tensor:
    return torch.stack([torch.randperm(patches) for _ in range(batch)])


# --- patches


@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)), patch=st.integers(1, 5), channels=st.sampled_from([1, 3, 4])
)
@settings(max_examples=40)
def test_patches_are_pytorchs_unfolded_windows_and_fold_back(grid: tuple[int, int], patch: int, channels: int):
    images = torch.randn(2, channels, grid[0] * patch, grid[1] * patch)
    patches = patchify(images, patch)
    assert torch.equal(patches, F.unfold(images, patch, stride=patch).transpose(1, 2))
    assert torch.equal(unpatchify(patches, grid, channels), images)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_embedding_is_a_strided_convolution(channels: int):
    encoder = encoder_of(channels=channels)
    images = torch.randn(2, channels, 12, 20)
    proj = encoder.patch_embed.proj
    expected = F.conv2d(images, proj.weight, proj.bias, stride=4).flatten(2).transpose(1, 2)
    assert torch.allclose(encoder.patch_embed(patchify(images, 4)), expected, atol=1e-5)


# --- any shape


@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)), patch=st.sampled_from([2, 4, 7]),
    channels=st.sampled_from([1, 3, 4]),
)  # fmt: skip
@settings(max_examples=25)
def test_any_rectangle_patch_size_and_channel_count(grid: tuple[int, int], patch: int, channels: int):
    size = (grid[0] * patch, grid[1] * patch)
    encoder = VisionTransformer(image_size=size, patch_size=patch, channels=channels, width=8, depth=1, heads=2)
    images = torch.randn(2, channels, *size)
    assert (encoder.grid, encoder.patches) == (grid, grid[0] * grid[1])
    assert encoder(images).shape == (2, 1 + encoder.patches, 8)
    assert encoder(images, shuffled_positions(2, encoder.patches)[:, :1]).shape == (2, 2, 8)
    assert encoder.class_attention(images).shape == (2, 2, encoder.patches)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": (12, 18)}, "multiple of the patch size 4"),
        ({"image_size": (0, 12)}, "multiple of the patch size 4"),
        ({"width": 22, "heads": 11}, "multiple of 4"),
        ({"width": 24, "heads": 5}, "the 5 heads"),
        ({"class_token": False}, "no class token"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(wrong: dict[str, object], message: str):
    sizes = {"image_size": (12, 20), "patch_size": 4, "channels": 1, "width": 24, "depth": 1, "heads": 3}
    with pytest.raises(ValueError, match=message):
        VisionTransformer(**(sizes | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", SIZES)
def test_the_named_sizes_can_be_built(size: str):
    shape = SIZES[size] | {"depth": 1}  # the depth costs seconds and cannot be wrong
    encoder = VisionTransformer(image_size=(32, 32), patch_size=16, **shape)
    assert encoder(torch.zeros(1, 3, 32, 32)).shape == (1, 5, SIZES[size]["width"])
    assert SIZES["base"] == {"width": 768, "depth": 12, "heads": 12}
    assert SIZES["large"] == {"width": 1024, "depth": 24, "heads": 16}


# --- part of the patches


def test_embedding_the_kept_is_embedding_all_and_gathering():
    encoder, images = encoder_of(), torch.randn(3, 1, 12, 20)
    keep = shuffled_positions(3, 15)[:, :6]
    everything = encoder.embed(images)
    expected = torch.cat([everything[:, :1], gather_tokens(everything[:, 1:], keep)], dim=1)
    assert torch.allclose(encoder.embed(images, keep), expected, atol=1e-6)


def test_the_class_token_gets_its_own_position():
    """Published weights may have learned one."""
    encoder = encoder_of()
    tokens = encoder.embed(torch.randn(2, 1, 12, 20))
    expected = (encoder.cls_token + encoder.pos_embed[:, :1])[0]
    assert encoder.pos_embed[:, 0].any()
    assert torch.equal(tokens[:, 0], expected.expand(2, -1))


def test_keeping_all_in_any_order_changes_nothing_for_the_class_token():
    encoder, images = encoder_of(), torch.randn(3, 1, 12, 20)
    order = shuffled_positions(3, 15)
    whole, permuted = encoder(images), encoder(images, order)
    assert torch.allclose(permuted[:, 0], whole[:, 0], atol=1e-5)
    assert torch.allclose(permuted[:, 1:], gather_tokens(whole[:, 1:], order), atol=1e-5)


def test_positions_matter():
    """The class token does see where a patch is: the same patches at other places give another result."""
    encoder, images = encoder_of(), torch.randn(2, 1, 12, 20)
    moved = unpatchify(gather_tokens(patchify(images, 4), shuffled_positions(2, 15)), (3, 5), 1)
    assert (encoder(moved)[:, 0] - encoder(images)[:, 0]).abs().max() > 0.01


def test_patches_that_are_not_kept_do_not_exist():
    encoder, images = encoder_of(), torch.randn(2, 1, 12, 20)
    keep = shuffled_positions(2, 15)[:, :5]
    before = encoder(images, keep)
    patches = patchify(images, 4)
    hidden = torch.ones(2, 15, 1).scatter_(1, keep.unsqueeze(-1), 0).bool()
    ruined = unpatchify(patches.masked_fill(hidden, math.nan), (3, 5), 1)
    assert torch.equal(encoder(ruined, keep), before)


# --- attention


@pytest.mark.parametrize("tokens", [2, 50, 197])
def test_bfloat16_attention_is_close_to_full_precision(tokens: int):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, tokens, 16).bfloat16() for _ in range(3))  # the same numbers for both
    results, gradients = [], []
    for kind, function in ((torch.float32, F.scaled_dot_product_attention), (torch.bfloat16, attend)):
        given = [x.to(kind, copy=True).requires_grad_() for x in (query, key, value)]
        result = function(*given)
        assert result.dtype == kind
        result.float().square().sum().backward()
        results.append(result.detach().float())
        gradients.append([x.grad.float() for x in given if x.grad is not None])
    assert (results[1] - results[0]).abs().max() < 0.02 * results[0].abs().max()
    for low, high in zip(gradients[1], gradients[0], strict=True):
        assert (low - high).abs().max() < 0.04 * high.abs().max()


def test_float32_attention_is_softmax_of_scaled_products_times_values():
    query, key, value = (torch.randn(2, 3, 7, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    expected = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(8), dim=-1) @ value
    assert torch.allclose(attend(query, key, value), expected, atol=1e-6)


# --- gradients


@pytest.mark.parametrize("kept", [None, 5])
def test_a_gradient_reaches_every_parameter(kept: int | None):
    torch.manual_seed(1)
    model = Classifier(encoder_of(), classes=3)
    keep = None if kept is None else shuffled_positions(4, 15)[:, :kept]
    F.cross_entropy(model(torch.randn(4, 1, 12, 20), keep), torch.tensor([0, 1, 2, 0])).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def class_query_gradient(pool: str) -> Tensor:
    """Gradient at the query of the last block's class token, [B, D]: what could teach the map."""
    torch.manual_seed(1)
    model = Classifier(encoder_of(), classes=3, pool=pool)
    last = model.encoder.blocks[-1]
    assert isinstance(last, Block)
    caught: list[Tensor] = []

    def keep_gradient(module: nn.Module, given: object, result: Tensor) -> None:
        result.retain_grad()
        caught.append(result)

    last.attn.qkv.register_forward_hook(keep_gradient)
    F.cross_entropy(model(torch.randn(4, 1, 12, 20)), torch.tensor([0, 1, 2, 0])).backward()
    assert caught[0].grad is not None
    return caught[0].grad[:, 0, : model.encoder.width]


def test_the_class_token_head_teaches_the_query_the_map_is_read_from():
    assert class_query_gradient("cls").abs().amax(dim=1).min() > 1e-6


def test_the_mean_head_of_the_released_code_teaches_it_nothing():
    assert not class_query_gradient("mean").any()


# --- stochastic depth


def test_drop_path_skips_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop, x = DropPath(0.3), torch.ones(4000, 2, 3)
    result = drop.train()(x)
    assert torch.equal(result, result[:, :1, :1].expand_as(result))
    assert result.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert result.mean().item() == pytest.approx(1, abs=0.04)
    assert torch.equal(drop.eval()(x), x)


def test_drop_path_rises_from_none_to_the_rate_of_the_last_block():
    encoder = VisionTransformer(image_size=(8, 8), patch_size=4, width=8, depth=5, heads=2, drop_path=0.2)
    rates = [block.drop_path.rate for block in encoder.blocks]  # type: ignore[union-attr]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


# --- positions


def test_resizing_to_the_same_grid_changes_nothing():
    positions = torch.randn(1, 16, 8)
    assert torch.equal(resize_position_embedding(positions, (3, 5), (3, 5)), positions)


@pytest.mark.parametrize(("old", "new"), [((8, 8), (14, 14)), ((8, 8), (8, 16)), ((14, 14), (8, 8)), ((6, 9), (12, 6))])
def test_resized_positions_say_where_a_patch_is(old: tuple[int, int], new: tuple[int, int]):
    """An embedding that holds each patch's row and column, as fractions of the image, holds the new ones after it."""

    def places(grid: tuple[int, int]) -> Tensor:
        axes = [(torch.arange(n) + 0.5) / n for n in grid]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)  # [h, w, 2]

    class_token = torch.tensor([[[7.0, -3.0]]])
    embedding = torch.cat([class_token, places(old).reshape(1, -1, 2)], dim=1)
    resized = resize_position_embedding(embedding, old, new)
    assert torch.equal(resized[:, :1], class_token)
    found, expected = resized[0, 1:].reshape(*new, 2), places(new)
    error = (found - expected).abs() * torch.tensor(old)  # in patches of the old grid
    inside = ((expected > 2 / min(old)) & (expected < 1 - 2 / min(old))).all(dim=-1)
    assert inside.sum() >= 4
    assert error[inside].max() < 0.1
    assert error.max() < 0.5  # at the rim the curve bends


def test_resizing_keeps_the_type():
    assert resize_position_embedding(torch.zeros(1, 5, 8).half(), (2, 2), (3, 3)).dtype == torch.float16


def test_every_position_is_its_own():
    positions = position_embedding(24, (6, 9))[0]
    assert positions.shape == (55, 24)
    assert not positions[0].any()
    apart = torch.cdist(positions, positions) + torch.eye(55)
    assert apart.min() > 0.1


# --- names


def test_parameter_names_and_shapes_are_timms():
    """What timm's vit_*_patch4 state dict holds, its head aside, here for two blocks of width 24."""
    block = {
        "norm1.weight": (24,), "norm1.bias": (24,), "attn.qkv.weight": (72, 24), "attn.qkv.bias": (72,),
        "attn.proj.weight": (24, 24), "attn.proj.bias": (24,), "norm2.weight": (24,), "norm2.bias": (24,),
        "mlp.fc1.weight": (96, 24), "mlp.fc1.bias": (96,), "mlp.fc2.weight": (24, 96), "mlp.fc2.bias": (24,),
    }  # fmt: skip
    expected = {
        "cls_token": (1, 1, 24), "pos_embed": (1, 16, 24),
        "patch_embed.proj.weight": (24, 3, 4, 4), "patch_embed.proj.bias": (24,),
        **{f"blocks.0.{name}": shape for name, shape in block.items()},
        **{f"blocks.1.{name}": shape for name, shape in block.items()},
        "norm.weight": (24,), "norm.bias": (24,),
    }  # fmt: skip
    found = {name: tuple(tensor.shape) for name, tensor in encoder_of(channels=3).state_dict().items()}
    assert found == expected


def test_the_gate_is_the_silu_of_the_first_half() -> None:
    torch.manual_seed(0)
    layer, x = SwiGlu(6, 10), torch.randn(2, 3, 6)
    hidden = x @ layer.fc1.weight.T + layer.fc1.bias  # [2, 3, 20]
    gate, value = hidden[..., :10], hidden[..., 10:]
    expected = (gate / (1 + (-gate).exp()) * value) @ layer.fc2.weight.T + layer.fc2.bias
    torch.testing.assert_close(layer(x), expected)


def test_layer_scale_begins_as_nothing_and_folds_into_the_layer_before() -> None:
    torch.manual_seed(0)
    before, scale, x = nn.Linear(5, 7), LayerScale(7), torch.randn(4, 5)
    torch.testing.assert_close(scale(before(x)), before(x))
    with torch.no_grad():
        scale.gamma.copy_(torch.randn(7))
    for branch, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
        state = {f"blocks.0.{layer}.weight": before.weight, f"blocks.0.{layer}.bias": before.bias, "norm.bias": x}
        folded = fold_layer_scale({**state, f"blocks.0.{branch}.gamma": scale.gamma})
        assert folded.keys() == state.keys()
        answers = x @ folded[f"blocks.0.{layer}.weight"].T + folded[f"blocks.0.{layer}.bias"]
        torch.testing.assert_close(answers, scale(before(x)))
