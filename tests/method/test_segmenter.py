"""The segmenter: the paper's decoder held to an independent forward, sizes, and which blocks are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from msmae.errors import UserError
from msmae.method.segmenter import Segmenter, SetrDecoder, tapped_blocks
from msmae.method.vit import VisionTransformer
from msmae.runs.cards import ModelCard
from msmae.runs.checkpoint import build_model, load_model, save_model


def encoder_of(
    size: tuple[int, int] = (48, 32), patch: int = 16, depth: int = 12, channels: int = 3
) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(image_size=size, patch_size=patch, channels=channels, width=24, depth=depth, heads=2)


def reference_head(state: dict[str, Tensor], head: int, x: Tensor) -> Tensor:
    """SETR-PUP written from the paper's description, with the batch norm and the doubling spelt out."""
    for stage in range(4):
        name = f"heads.{head}.convolutions.{stage}"
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
        norm = f"heads.{head}.norms.{stage}"
        mean, variance = (state[f"{norm}.running_{part}"].view(1, -1, 1, 1) for part in ("mean", "var"))
        x = (x - mean) / (variance + 1e-5).sqrt()
        x = x * state[f"{norm}.weight"].view(1, -1, 1, 1) + state[f"{norm}.bias"].view(1, -1, 1, 1)
        x = F.interpolate(x.clamp(min=0), scale_factor=2, mode="bilinear", align_corners=True)
    return F.conv2d(x, state[f"heads.{head}.classify.weight"], state[f"heads.{head}.classify.bias"], padding=1)


@pytest.mark.parametrize("deep", [False, True])
def test_setr_pup_equals_an_independent_forward(deep: bool) -> None:
    model = Segmenter(encoder_of(), outputs=2, decoder="setr-pup", deep_supervision=deep)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    model.eval()
    images = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        x = model.encoder.embed(images)
        tapped = []
        for number, block in enumerate(model.encoder.blocks):
            x = block(x)
            if number in (3, 5, 7, 11):
                tapped.append(model.encoder.norm(x) if number == 11 else x)
        grids = [tokens[:, 1:].reshape(2, 3, 2, 24).permute(0, 3, 1, 2) for tokens in tapped]
        state = model.decoder.state_dict()
        wanted = [reference_head(state, head, grid) for head, grid in enumerate(grids)]
        given = model.heads(images)
    assert len(given) == (4 if deep else 1)
    for one, other in zip(reversed(given), reversed(wanted), strict=False):
        assert torch.allclose(one, other, atol=1e-5)
    assert torch.equal(given[-1], model(images))


def test_setr_pup_has_the_papers_number_of_parameters() -> None:
    assert sum(p.numel() for p in SetrDecoder(768, outputs=1).parameters()) == 14_177_284


def test_only_the_last_head_is_trained_unless_all_are_supervised() -> None:
    def trained(deep: bool) -> set[str]:
        model = Segmenter(encoder_of(), outputs=1, decoder="setr-pup", deep_supervision=deep)
        sum(head.sum() for head in model.heads(torch.randn(2, 3, 48, 32))).backward()
        return {name.split(".")[1] for name, p in model.decoder.named_parameters() if p.grad is not None}

    assert trained(False) == {"3"}
    assert trained(True) == {"0", "1", "2", "3"}


def test_the_blocks_that_are_read() -> None:
    assert tapped_blocks(12) == (3, 5, 7, 11)
    assert tapped_blocks(24) == (5, 11, 17, 23)
    for depth in range(1, 30):
        blocks = tapped_blocks(depth)
        assert sorted(blocks) == list(blocks)
        assert 0 <= blocks[0] <= blocks[-1] == depth - 1


@pytest.mark.parametrize("decoder", ["light", "setr-pup"])
@pytest.mark.parametrize(("patch", "size"), [(1, (4, 6)), (4, (12, 20)), (7, (21, 14)), (8, (64, 40)), (16, (48, 32))])
def test_the_logits_have_the_images_size_and_every_weight_learns(
    decoder: str, patch: int, size: tuple[int, int]
) -> None:
    model = Segmenter(
        encoder_of(size, patch, depth=3, channels=2), outputs=3, decoder=decoder, width=16, deep_supervision=True
    )
    heads = model.heads(torch.randn(2, 2, *size))
    assert all(logits.shape == (2, 3, *size) for logits in heads)
    sum((logits**2).mean() for logits in heads).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    constant = {"encoder.cls_token"}  # it reaches the mask through attention only, and then it has a gradient too
    assert set(silent) <= constant | {n for n in silent if "bias" in n or "pos_embed" in n}


def card(**changes: object) -> ModelCard:
    values = {
        "kind": "segmenter", "method": "msmae", "classes": ["lesion"], "multilabel": False, "image_size": (32, 32),
        "patch_size": 8, "channels": 1, "width": 16, "depth": 2, "heads": 2, "pool": "cls", "mean": [0.0],
        "std": [1.0], "decoder": {"decoder": "light", "width": 16},
    }  # fmt: skip
    return ModelCard(**{**values, **changes})  # type: ignore[arg-type]


def test_a_saved_segmenter_is_the_same_model(tmp_path: Path) -> None:
    model = build_model(card(classes=["a", "b"])).eval()
    save_model(tmp_path / "model", model, card(classes=["a", "b"]))
    again, _ = load_model(tmp_path / "model")
    images = torch.randn(1, 1, 32, 32)
    assert again(images).shape == (1, 3, 32, 32), "two classes and the background"
    assert torch.equal(again(images), model(images))


def test_a_mutated_checkpoint_is_refused_with_the_names(tmp_path: Path) -> None:
    save_model(tmp_path / "model", build_model(card()), card())
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    weights["encoder.blocks.0.attn.qkv_bias"] = weights.pop("encoder.blocks.0.attn.qkv.bias")
    weights["encoder.norm.weight"] = torch.ones(3)
    save_file(weights, file)
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / "model")
    for said in (
        "missing encoder.blocks.0.attn.qkv.bias", "unexplained encoder.blocks.0.attn.qkv_bias",
        "encoder.norm.weight is (3,), not (16,)",
    ):  # fmt: skip
        assert said in str(caught.value)
