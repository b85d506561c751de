"""Sizes, starting weights, costs and steps of the models, each counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmae.method.attention import map_overlap
from msmae.method.classifier import AttentivePool, Classifier, linear_head
from msmae.method.cost import Macs, blocks_macs, classifier_macs, encoder_macs, head_macs, map_macs, msmae_macs
from msmae.method.ensemble import Ensemble
from msmae.method.lora import LowRank, add_lora, freeze_first, merge_lora
from msmae.method.msmae import MSMAE
from msmae.method.segmenter import LightDecoder, PupHead, Segmenter, SetrDecoder, convolve, tapped_blocks
from msmae.method.vit import Block, VisionTransformer, attend, resize_position_embedding

BLOCK = 12 * 64  # entries of a block's matrices at width 8: 3 + 1 squares in attention, 4 + 4 in the perceptron
EMBED = 16 * 8  # of a patch of 4 x 4 pixels


def encoder(depth: int = 3, **parts: object) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(image_size=(8, 12), patch_size=4, channels=1, width=8, depth=depth, heads=2, **parts)  # type: ignore[arg-type]


# --- costs


def test_the_encoders_cost_by_hand() -> None:
    assert encoder_macs(encoder()) == Macs(3 * 7 * BLOCK + 6 * EMBED, 3 * 2 * 7 * 7 * 8)
    assert encoder_macs(encoder(), 2) == Macs(3 * 3 * BLOCK + 2 * EMBED, 3 * 2 * 3 * 3 * 8)
    assert encoder_macs(encoder(), 2, embed_all=True) == Macs(3 * 3 * BLOCK + 6 * EMBED, 3 * 2 * 3 * 3 * 8)
    assert encoder_macs(encoder(registers=2), 2) == Macs(3 * 5 * BLOCK + 2 * EMBED, 3 * 2 * 5 * 5 * 8)
    bare = encoder(class_token=False, reads="mean")
    assert encoder_macs(bare, 2) == Macs(3 * 2 * BLOCK + 2 * EMBED, 3 * 2 * 2 * 2 * 8)
    assert blocks_macs(encoder().blocks[:1], 5) == Macs(5 * BLOCK, 2 * 25 * 8)  # type: ignore[arg-type]
    assert Macs(3, 4).total == 7
    assert Macs(3, 4) + Macs(10, 20) == Macs(13, 24)


@pytest.mark.parametrize("embed_all", [False, True])
def test_a_prediction_costs_the_encoder_and_the_head_each_time_it_is_made(embed_all: bool) -> None:
    alone = Classifier(encoder(), classes=5)
    once = Macs(3 * 3 * BLOCK + (6 if embed_all else 2) * EMBED + 5 * 8, 3 * 2 * 9 * 8)
    assert classifier_macs(alone, 2, embed_all=embed_all) == once
    three = Ensemble([Classifier(encoder(), classes=5) for _ in range(3)], several=False, mirrored=True)
    assert three.passes == 6
    assert classifier_macs(three, 2, embed_all=embed_all) == Macs(6 * once.linear, 6 * once.attention)
    both = Classifier(encoder(), classes=5, pool="both")
    assert classifier_macs(both, 2, embed_all=embed_all) == once + Macs(5 * 8, 0)


def test_another_head_says_what_it_costs() -> None:
    class Own(nn.Module):
        macs = 77

    made = Classifier(encoder(), classes=5, head=Own())
    assert head_macs(made) == 77
    assert classifier_macs(made) == encoder_macs(made.encoder) + Macs(77, 0)


def test_pretraining_costs_both_halves_by_hand() -> None:
    model = MSMAE(encoder(), classes=5, decoder_width=4, decoder_depth=2, decoder_heads=1)
    wanted = encoder_macs(model.encoder, 2) + Macs(2 * 6 * 12 * 16 + 3 * 32 + 3 * 64 + 5 * 8, 2 * 2 * 36 * 4)
    assert msmae_macs(model, 2, 3) == wanted
    nothing = encoder_macs(model.encoder, 2) + Macs(2 * 3 * 12 * 16 + 3 * 32 + 5 * 8, 2 * 2 * 9 * 4)
    assert msmae_macs(model, 2, 0) == nothing


def test_a_map_costs_all_blocks_but_the_last_and_one_row() -> None:
    """Of the last: the query's square once, the keys' for each of seven tokens, one product a token."""
    assert map_macs(encoder()) == Macs(2 * 7 * BLOCK + 6 * EMBED + (1 + 7) * 64, 2 * 2 * 49 * 8 + 7 * 8)
    assert map_macs(encoder(registers=1)) == Macs(2 * 8 * BLOCK + 6 * EMBED + 9 * 64, 2 * 2 * 64 * 8 + 8 * 8)


# --- sizes where none are said


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def test_an_encoder_is_vit_b_16_of_224_pixels_unless_said() -> None:
    with torch.device("meta"):
        given = VisionTransformer()
        said = VisionTransformer(image_size=(224, 224), patch_size=16, channels=3, width=768, depth=12, heads=12)
    assert shapes(given) == shapes(said)
    assert (given.grid, given.patch_size, given.channels, given.reads) == ((14, 14), 16, 3, "class")
    assert sum(math.prod(shape) for shape in shapes(given).values()) == 85_798_656
    block = given.blocks[0]
    assert (block.attn.heads, block.norm1.eps, block.mlp.fc1.out_features) == (12, 1e-6, 3072)  # type: ignore[union-attr]
    assert {block.drop_path.rate for block in given.blocks} == {0.0}  # type: ignore[union-attr]
    assert block.attn.qkv.bias is not None  # type: ignore[union-attr]
    assert not any("ls1" in name or "reg_token" in name for name in shapes(given))


def test_a_block_is_plain_unless_said() -> None:
    block = Block(8, 2)
    assert shapes(block)["mlp.fc1.weight"] == (32, 8)
    assert (block.drop_path.rate, block.norm1.eps, block.norm2.eps) == (0.0, 1e-6, 1e-6)
    gated = Block(8, 2, mlp="swiglu", mlp_ratio=1.5, layer_scale=True, qkv_bias=False, norm_eps=1e-5, drop_path=0.2)
    assert shapes(gated)["mlp.fc1.weight"] == (24, 8)
    assert shapes(gated)["mlp.fc2.weight"] == (8, 12)
    assert (gated.drop_path.rate, gated.norm1.eps, gated.norm2.eps) == (0.2, 1e-5, 1e-5)
    assert {"ls1.gamma", "ls2.gamma"} <= set(shapes(gated))
    assert "attn.qkv.bias" not in shapes(gated)


def test_the_papers_decoder_unless_said() -> None:
    with torch.device("meta"):
        encoder_ = VisionTransformer(image_size=(32, 32), width=24, depth=1, heads=2)
        model = MSMAE(encoder_, classes=3)
    assert shapes(model)["decoder_embed.weight"] == (512, 24)
    assert shapes(model)["decoder_pred.weight"] == (768, 512)
    assert (len(model.decoder_blocks), model.decoder_blocks[0].attn.heads, model.pool) == (8, 16, "cls")  # type: ignore[union-attr]
    assert model.decoder_norm.eps == 1e-6


def test_a_segmenter_is_light_and_64_channels_wide_unless_said() -> None:
    with torch.device("meta"):
        encoder_ = VisionTransformer(image_size=(32, 32), width=24, depth=1, heads=2)
        light, setr = Segmenter(encoder_, outputs=2), Segmenter(encoder_, outputs=2, decoder="setr-pup")
    assert isinstance(light.decoder, LightDecoder)
    assert light.decoder.join[0].out_channels == 64
    assert isinstance(setr.decoder, SetrDecoder)
    assert setr.decoder.heads[0].classify.in_channels == 256
    assert not setr.decoder.deep_supervision
    learning = {name.split(".")[1] for name, p in setr.decoder.named_parameters() if p.requires_grad}
    assert learning == {"3"}


# --- how weights begin


def spread(weights: Tensor) -> float:
    return float(weights.detach().std())


def test_linear_layers_begin_xavier_uniform_and_tokens_small() -> None:
    torch.manual_seed(1)
    plain = VisionTransformer(image_size=(32, 32), patch_size=8, channels=2, width=64, depth=1, heads=2, registers=3)
    model = MSMAE(plain, classes=40, decoder_width=32, decoder_depth=1, decoder_heads=2)
    for layer, inputs, outputs in (
        (plain.patch_embed.proj, 128, 64), (plain.blocks[0].attn.qkv, 64, 192), (model.decoder_embed, 64, 32),
        (model.decoder_pred, 32, 128), (model.head, 64, 40),
    ):  # fmt: skip
        limit = math.sqrt(6 / (inputs + outputs))
        assert 0.95 * limit < layer.weight.abs().max() <= limit  # type: ignore[union-attr, operator]
        assert spread(layer.weight) == pytest.approx(limit / math.sqrt(3), rel=0.05)  # type: ignore[union-attr, operator]
        assert not layer.bias.any()  # type: ignore[union-attr, operator]
    for token in (plain.cls_token, plain.reg_token, model.mask_token):
        assert token is not None
        assert spread(token) == pytest.approx(0.02, rel=0.4)


def test_a_head_and_a_query_begin_near_zero() -> None:
    torch.manual_seed(0)
    head, pool = linear_head(400, 50), AttentivePool(600, 4)
    assert spread(head.weight) == pytest.approx(0.01, rel=0.02)
    assert not head.bias.any()
    assert spread(pool.query) == pytest.approx(0.02, rel=0.1)
    assert pool.norm.eps == 1e-6


def test_the_thin_matrices_begin_of_unit_length_and_as_nothing() -> None:
    torch.manual_seed(0)
    low = LowRank(torch.zeros(7, 900), 40)
    assert (tuple(low.down.shape), tuple(low.up.shape)) == ((40, 900), (7, 40))
    assert spread(low.down) == pytest.approx(1 / 30, rel=0.02)
    assert not low.up.any()
    nn.init.ones_(low.up)
    torch.testing.assert_close(low(torch.ones(7, 900)), 1 + low.down.sum(dim=0).expand(7, -1))


def test_what_learns_with_low_rank_and_after_it() -> None:
    plain = encoder()
    plain.pos_embed.requires_grad_(False)
    add_lora(plain, 2)
    learning = {name for name, p in plain.named_parameters() if p.requires_grad}
    matrices = {
        f"blocks.{n}.attn.{layer}.parametrizations.weight.0.{part}"
        for n in range(3) for layer in ("qkv", "proj") for part in ("up", "down")
    }  # fmt: skip
    norms = {f"blocks.{n}.norm{m}.{p}" for n in range(3) for m in (1, 2) for p in ("weight", "bias")}
    assert learning == matrices | norms | {"norm.weight", "norm.bias"}
    merge_lora(plain)
    assert all(p.requires_grad for p in plain.parameters())
    merge_lora(plain)  # nothing is left to merge
    assert shapes(plain) == shapes(encoder())


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_the_blocks_that_stand_still(blocks: int) -> None:
    plain = encoder()
    freeze_first(plain, blocks)
    names = [name.split(".") for name, p in plain.named_parameters() if not p.requires_grad]
    still = {f"blocks{parts[1]}" if parts[0] == "blocks" else parts[0] for parts in names}
    before = {"cls_token", "pos_embed", "patch_embed"} if blocks else set()
    assert still == before | {f"blocks{n}" for n in range(blocks)}
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match="blocks of 3"):
            freeze_first(encoder(), wrong)


def test_positions_learn_but_in_pretraining() -> None:
    plain = encoder()
    MSMAE(plain, classes=2, decoder_width=8, decoder_depth=1, decoder_heads=1)
    assert not plain.pos_embed.requires_grad
    Classifier(plain, classes=2)
    assert plain.pos_embed.requires_grad
    plain.pos_embed.requires_grad_(False)
    Segmenter(plain, outputs=1)
    assert plain.pos_embed.requires_grad


# --- steps


@pytest.mark.parametrize(
    ("device", "dtype", "heads", "tokens", "fused"),
    [("cpu", torch.bfloat16, 1, 512, False), ("cpu", torch.bfloat16, 1, 513, True),
     ("cpu", torch.bfloat16, 513, 2, False), ("cpu", torch.float32, 1, 4, True), ("meta", torch.bfloat16, 1, 4, True)],
)  # fmt: skip
def test_the_fused_kernel_serves_all_but_short_bfloat16_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: torch.dtype, heads: int, tokens: int, fused: bool
) -> None:
    calls, kernel = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *parts: calls.append(1) or kernel(*parts))
    query, key, value = torch.ones(3, 1, heads, tokens, 2, dtype=dtype, device=device).unbind(0)
    assert attend(query, key, value).shape == (1, heads, tokens, 2)
    assert bool(calls) == fused


def test_the_features_are_those_of_the_blocks_and_the_last_is_normalised() -> None:
    model = Segmenter(encoder(depth=6, registers=2), outputs=1, width=8).eval()
    images = torch.randn(2, 1, 8, 12)
    x, after = model.encoder.embed(images), []
    for block in model.encoder.blocks:
        x = block(x)
        after.append(x)
    after[5] = model.encoder.norm(x)
    for number, feature in zip((1, 2, 4, 5), model.features(images), strict=True):
        grid = after[number][:, 3:].reshape(2, 2, 3, 8).permute(0, 3, 1, 2)
        torch.testing.assert_close(feature, grid)


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(1, (0, 0, 0, 0)), (2, (0, 0, 1, 1)), (3, (0, 1, 2, 2)), (4, (0, 1, 2, 3)), (6, (1, 2, 4, 5)),
     (11, (2, 5, 8, 10)), (12, (3, 5, 7, 11)), (13, (3, 6, 9, 12)), (24, (5, 11, 17, 23))],
)  # fmt: skip
def test_blocks_are_read_at_every_quarter(depth: int, blocks: tuple[int, ...]) -> None:
    assert tapped_blocks(depth) == blocks


def seen_by(modules: nn.ModuleList, function: object, *arguments: object) -> list[tuple[int, ...]]:
    """The shapes [C, H, W] that each of the modules gives."""
    found: list[tuple[int, ...]] = []
    handles = [m.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[1:]))) for m in modules]
    function(*arguments)  # type: ignore[operator]
    for handle in handles:
        handle.remove()
    return found


def test_the_image_is_halved_at_every_step_of_the_light_decoder() -> None:
    decoder = LightDecoder(8, channels=2, patch_size=16, outputs=3, width=32)
    features, images = [torch.randn(1, 8, 2, 3) for _ in range(4)], torch.randn(1, 2, 32, 48)
    details = seen_by(decoder.detail, decoder, features, images)
    assert details == [(8, 32, 48), (16, 16, 24), (32, 8, 12), (32, 4, 6)]
    fused = seen_by(nn.ModuleList(reversed(decoder.fuse)), decoder, features, images)
    assert fused == [(32, 4, 6), (32, 8, 12), (16, 16, 24), (8, 32, 48)]
    assert [m[0].stride for m in decoder.detail] == [(1, 1), (2, 2), (2, 2), (2, 2)]  # type: ignore[index]
    assert decoder.classify.in_channels == 8
    assert LightDecoder(8, channels=2, patch_size=1, outputs=3, width=32).classify.in_channels == 32
    odd = LightDecoder(8, channels=2, patch_size=7, outputs=3, width=32)
    assert [m[0].out_channels for m in odd.detail] == [8, 16, 32]  # type: ignore[index]


@pytest.mark.parametrize(
    ("patch", "sizes"),
    [(16, [(4, 6), (8, 12), (16, 24), (32, 48)]), (4, [(3, 4), (4, 6), (6, 8), (8, 12)]), (1, [(2, 3)] * 4)],
)
def test_the_four_enlargements_multiply_to_the_patch(
    monkeypatch: pytest.MonkeyPatch, patch: int, sizes: list[tuple[int, int]]
) -> None:
    asked, enlarge = [], F.interpolate
    monkeypatch.setattr(
        F, "interpolate", lambda x, size, **options: asked.append(tuple(size)) or enlarge(x, size, **options)
    )
    head = PupHead(8, outputs=2, hidden=4)
    assert head(torch.randn(1, 8, 2, 3), (2 * patch, 3 * patch)).shape == (1, 2, 2 * patch, 3 * patch)
    assert asked == sizes


@pytest.mark.parametrize(("outputs", "groups"), [(8, 8), (12, 4), (6, 2), (5, 1), (24, 8)])
def test_channels_are_normalised_in_as_many_groups_as_divide_them(outputs: int, groups: int) -> None:
    made = convolve(3, outputs, kernel=1, stride=2)
    assert made[1].num_groups == groups
    assert made(torch.randn(1, 3, 6, 6)).shape == (1, outputs, 3, 3)
    assert made[0].bias is None
    assert convolve(3, outputs)(torch.randn(1, 3, 5, 7)).shape == (1, outputs, 5, 7)


def test_sure_and_hopeless_answers_of_several_labels_are_cut() -> None:
    """In float32, 1 - 1e-7 is 1 - 2^-23."""
    member = Classifier(encoder(), classes=2).eval()
    images = torch.randn(1, 1, 8, 12)
    for bias, wanted in ((-500.0, -16.118), (500.0, 15.942), (0.0, 0.0)):
        nn.init.zeros_(member.head.weight)
        nn.init.constant_(member.head.bias, bias)
        answer = Ensemble([member, member], several=True)(images)
        torch.testing.assert_close(answer, torch.full((1, 2), wanted), rtol=0, atol=0.02)


def test_members_train_as_the_ensemble_does() -> None:
    made = Ensemble([Classifier(encoder(), classes=2, pool="attentive") for _ in range(2)], several=False)
    assert [member.training for member in made.train().members()] == [True, True]
    assert [member.training for member in made.eval().members()] == [False, False]
    assert made.members()[0].attentive is made.attentive is not None


@pytest.mark.parametrize("antialias", [False, True])
def test_resized_positions_are_pytorchs_bicubic(antialias: bool) -> None:
    torch.manual_seed(0)
    old = torch.randn(1, 2 + 12, 5)
    grid = old[:, 2:].reshape(1, 4, 3, 5).permute(0, 3, 1, 2)

    def flat(x: Tensor) -> Tensor:
        return torch.cat([old[:, :2], x.flatten(2).transpose(1, 2)], dim=1)

    plain = resize_position_embedding(old, (4, 3), (2, 6), antialias=antialias)
    torch.testing.assert_close(plain, flat(F.interpolate(grid, (2, 6), mode="bicubic", antialias=antialias)))
    moved = resize_position_embedding(old, (4, 3), (2, 6), antialias=antialias, offset=0.1)
    scaled = F.interpolate(grid, scale_factor=(2.1 / 4, 6.1 / 3), mode="bicubic", antialias=antialias)
    torch.testing.assert_close(moved, flat(scaled))
    assert (moved - plain).abs().max() > 1e-3
    torch.testing.assert_close(
        resize_position_embedding(old, (4, 3), (2, 6)), flat(F.interpolate(grid, (2, 6), mode="bicubic"))
    )


def test_overlap_is_of_a_quarter_unless_said_and_of_one_patch_at_least() -> None:
    old = torch.arange(8.0).reshape(1, 2, 4)
    new = torch.tensor([[7.0, 0, 0, 0, 0, 0, 0, 8.0]]).reshape(1, 2, 4)
    assert map_overlap(old, new).tolist() == [0.5]
    assert map_overlap(old, new, share=0.1).tolist() == [1.0]
    assert map_overlap(old, new, share=1.0).tolist() == [1.0]
