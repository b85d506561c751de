"""Weights of other projects: every tensor of the file is used, resized, or left out for a reason that is said.

The files are made here, with the names and shapes that facebookresearch/mae and timm write.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from msmae.encoders.files import find_files, read_tensors
from msmae.encoders.spec import IMAGENET
from msmae.encoders.weights import load_encoder
from msmae.errors import UserError
from msmae.method.msmae import MSMAE
from msmae.method.vit import VisionTransformer

WIDTH, DEPTH, HEADS, PATCH = 16, 2, 2, 4
ENCODER_TENSORS = 4 + 12 * DEPTH + 2


def block_of(width: int) -> dict[str, tuple[int, ...]]:
    return {
        "norm1.weight": (width,), "norm1.bias": (width,), "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,), "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
        "norm2.weight": (width,), "norm2.bias": (width,), "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,), "mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,),
    }  # fmt: skip


def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def encoder_names(side: int, channels: int) -> dict[str, tuple[int, ...]]:
    """What timm and facebookresearch/mae call an encoder over a square grid of patches."""
    return {
        "cls_token": (1, 1, WIDTH), "pos_embed": (1, side * side + 1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, channels, PATCH, PATCH), "patch_embed.proj.bias": (WIDTH,),
        **{f"blocks.{i}.{name}": shape for i in range(DEPTH) for name, shape in block_of(WIDTH).items()},
        "norm.weight": (WIDTH,), "norm.bias": (WIDTH,),
    }  # fmt: skip


def timm_style(side: int = 4, channels: int = 3) -> dict[str, Tensor]:
    return filled(encoder_names(side, channels) | {"head.weight": (1000, WIDTH), "head.bias": (1000,)})


def mae_style(side: int = 4, channels: int = 3) -> dict[str, Tensor]:
    """An encoder with MAE's decoder, as its pre-training writes it."""
    decoder: dict[str, tuple[int, ...]] = {
        "mask_token": (1, 1, 8), "decoder_pos_embed": (1, side * side + 1, 8), "decoder_embed.weight": (8, WIDTH),
        "decoder_embed.bias": (8,), "decoder_norm.weight": (8,), "decoder_norm.bias": (8,),
        "decoder_pred.weight": (PATCH * PATCH * channels, 8), "decoder_pred.bias": (PATCH * PATCH * channels,),
        **{f"decoder_blocks.0.{name}": shape for name, shape in block_of(8).items()},
    }  # fmt: skip
    return filled(encoder_names(side, channels) | decoder)


def encoder_of(size: tuple[int, int] = (16, 16), channels: int = 3, depth: int = DEPTH) -> VisionTransformer:
    torch.manual_seed(1)
    return VisionTransformer(
        image_size=size, patch_size=PATCH, channels=channels, width=WIDTH, depth=depth, heads=HEADS
    )


def written(folder: Path, tensors: dict[str, Tensor], suffix: str = ".pth", wrap: str | None = None) -> Path:
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({wrap: tensors} if wrap else tensors, path)
    return path


def same(encoder: VisionTransformer, tensors: dict[str, Tensor], *, but: tuple[str, ...] = ()) -> bool:
    state = encoder.state_dict()
    return all(torch.equal(state[name], tensors[name]) for name in state if name not in but)


# --- weights that fit


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_timms_weights_are_used_and_its_class_head_is_left_out(tmp_path: Path, suffix: str):
    encoder, tensors = encoder_of(), timm_style()
    report = load_encoder(encoder, written(tmp_path, tensors, suffix))
    assert same(encoder, tensors)
    assert sorted(report.used) == sorted(encoder.state_dict())
    assert len(report.used) == ENCODER_TENSORS
    assert report.left_out == ["head.bias", "head.weight"]
    assert report.resized == report.missing == []


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_maes_weights_are_used_and_its_decoder_is_left_out_and_reported(tmp_path: Path, suffix: str):
    encoder, tensors = encoder_of(), mae_style()
    report = load_encoder(encoder, written(tmp_path, tensors, suffix, wrap="model"))
    assert same(encoder, tensors)
    assert set(report.left_out) == tensors.keys() - encoder.state_dict().keys()
    assert len(report.left_out) == 8 + 12
    shown = str(report)
    assert f"used:   {ENCODER_TENSORS}" in shown
    assert "left out:   20  decoder_blocks.0.attn.proj.bias" in shown
    assert "missing:    0" in shown


@pytest.mark.parametrize("wrap", [None, "model", "state_dict"])
@pytest.mark.parametrize(
    "prefix",
    [
        "", "module.", "encoder.", "backbone.",
        "model.encoder.",
    ],
)  # fmt: skip
def test_wrappers_of_other_trainers_are_taken_off(tmp_path: Path, wrap: str | None, prefix: str):
    encoder, tensors = encoder_of(), timm_style()
    wrapped = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    load_encoder(encoder, written(tmp_path, wrapped, wrap=wrap))
    assert same(encoder, tensors)


def test_the_encoder_of_our_own_pretrained_model_is_found(tmp_path: Path):
    model, encoder = MSMAE(encoder_of(), classes=3, decoder_width=8, decoder_depth=1, decoder_heads=2), encoder_of()
    report = load_encoder(encoder, written(tmp_path, model.state_dict(), ".safetensors"))
    assert same(encoder, dict(model.encoder.state_dict()))
    assert {"head.weight", "decoder_embed.weight", "mask_token"} <= set(report.left_out)


@pytest.mark.parametrize("prefix", ["model.", "module."])
def test_our_own_model_is_found_in_a_trainers_checkpoint(tmp_path: Path, prefix: str):
    model, encoder = MSMAE(encoder_of(), classes=3, decoder_width=8, decoder_depth=1, decoder_heads=2), encoder_of()
    wrapped = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    load_encoder(encoder, written(tmp_path, wrapped, wrap="state_dict"))
    assert same(encoder, dict(model.encoder.state_dict()))


def test_the_loaded_encoder_computes_with_them(tmp_path: Path):
    encoder, images = encoder_of(), torch.randn(2, 3, 16, 16)
    before = encoder(images)
    load_encoder(encoder, written(tmp_path, timm_style()))
    other = encoder_of()
    other.load_state_dict({name: timm_style()[name] for name in other.state_dict()})
    assert torch.equal(encoder(images), other(images))
    assert not torch.allclose(encoder(images), before, atol=0.1)


# --- resized


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (24, 40)])
def test_positions_of_another_grid_are_resized_and_reported(tmp_path: Path, size: tuple[int, int]):
    """Places are read off smooth positions: the row and the column of each patch as fractions of the image."""
    encoder, tensors = encoder_of(size), timm_style(side=8)
    places = torch.stack(torch.meshgrid((torch.arange(8) + 0.5) / 8, (torch.arange(8) + 0.5) / 8, indexing="ij"), -1)
    tensors["pos_embed"][0, 1:, :2] = places.reshape(64, 2)
    report = load_encoder(encoder, written(tmp_path, tensors))
    rows, columns = encoder.grid
    found = encoder.pos_embed[0, 1:, :2].detach().reshape(rows, columns, 2)
    assert torch.equal(encoder.pos_embed[:, :1], tensors["pos_embed"][:, :1])
    assert torch.allclose(found[:, 0, 0], (torch.arange(rows) + 0.5) / rows, atol=0.06)
    assert torch.allclose(found[0, :, 1], (torch.arange(columns) + 0.5) / columns, atol=0.06)
    assert same(encoder, tensors, but=("pos_embed",))
    assert (report.resized == ["pos_embed"]) == (size != (32, 32))
    assert len(report.used) + len(report.resized) == ENCODER_TENSORS


def test_a_patch_embedding_for_colour_sees_the_same_in_grey(tmp_path: Path):
    """A grey image, normalised by the channels' averages, is embedded as it was in three channels, each by its own."""
    encoder, tensors = encoder_of(channels=1), timm_style()
    report = load_encoder(encoder, written(tmp_path, tensors))
    grey = torch.rand(2, 1, 16, 16)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in IMAGENET)
    weight, bias = tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"]
    expected = torch.nn.functional.conv2d((grey - mean) / std, weight, bias, stride=PATCH)
    result = encoder.patch_embed.proj((grey - mean.mean()) / std.mean())
    assert torch.allclose(result, expected, atol=1e-4)
    assert report.resized == ["patch_embed.proj.weight", "patch_embed.proj.bias"]
    assert "patch_embed.proj.weight" not in report.used


def test_a_patch_embedding_for_colour_does_not_fit_four_channels(tmp_path: Path):
    assert "is (16, 3, 4, 4), not (16, 4, 4, 4)" in refusal(encoder_of(channels=4), written(tmp_path, timm_style()))


# --- refused, with the names


def refusal(encoder: VisionTransformer, path: Path) -> str:
    """The message; the encoder must be as it was."""
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_encoder(encoder, path)
    assert same(encoder, before)
    assert caught.value.where == str(path)
    assert caught.value.mend
    return str(caught.value)


def test_a_tensor_of_unknown_meaning_is_an_error(tmp_path: Path):
    tensors = timm_style() | {"strange.table": torch.zeros(3)}
    assert "unexplained strange.table" in refusal(encoder_of(), written(tmp_path, tensors))


def test_a_renamed_tensor_is_named_on_both_sides(tmp_path: Path):
    tensors = timm_style()
    tensors["blocks.1.attn.qkv_bias"] = tensors.pop("blocks.1.attn.qkv.bias")
    message = refusal(encoder_of(), written(tmp_path, tensors))
    assert "missing blocks.1.attn.qkv.bias" in message
    assert "unexplained blocks.1.attn.qkv_bias" in message


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path: Path):
    tensors = timm_style() | {"blocks.0.mlp.fc1.weight": torch.zeros(32, WIDTH)}
    message = refusal(encoder_of(), written(tmp_path, tensors))
    assert "blocks.0.mlp.fc1.weight is (32, 16), not (64, 16)" in message


@pytest.mark.parametrize("depth", [1, 3])
def test_more_or_fewer_blocks_are_refused(tmp_path: Path, depth: int):
    message = refusal(encoder_of(depth=depth), written(tmp_path, timm_style()))
    assert ("unexplained blocks.1." if depth == 1 else "missing blocks.2.") in message
    assert "and 4 more" in message


@pytest.mark.parametrize("shape", [(WIDTH, 3, 8, 8), (WIDTH, 2, PATCH, PATCH)])
def test_another_patch_size_or_channel_count_that_cannot_be_mapped_is_refused(tmp_path: Path, shape: tuple[int, ...]):
    tensors = timm_style() | {"patch_embed.proj.weight": torch.zeros(shape)}
    assert f"patch_embed.proj.weight is {shape}" in refusal(encoder_of(channels=1), written(tmp_path, tensors))


@pytest.mark.parametrize("count", [15, 12])
def test_positions_of_no_square_grid_are_refused(tmp_path: Path, count: int):
    tensors = timm_style() | {"pos_embed": torch.zeros(1, count, WIDTH)}
    assert "not a class token and a square grid" in refusal(encoder_of(), written(tmp_path, tensors))


# --- files


class Trap:
    """Unpickled, it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path):
    proof, path = tmp_path / "ran", tmp_path / "weights.pth"
    torch.save({"model": timm_style(), "extra": Trap(f"touch {proof}")}, path)
    assert "cannot be read" in refusal(encoder_of(), path)
    assert not proof.exists()
    torch.load(path, weights_only=False)  # the trap is a real one
    assert proof.exists()


@pytest.mark.parametrize("extra", [Trap("true"), Path("somewhere")])
def test_a_refused_pickle_is_explained_in_our_own_words(tmp_path: Path, extra: object):
    path = tmp_path / "weights.pth"
    torch.save({"model": timm_style(), "extra": extra}, path)
    message = refusal(encoder_of(), path)
    assert message.isprintable()
    assert "can still be loaded" not in message
    assert "`False`" not in message


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"not weights at all", bytes(range(256)) * 40])
def test_a_file_of_something_else_is_refused(tmp_path: Path, suffix: str, content: bytes):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert "cannot be read" in refusal(encoder_of(), path)


@pytest.mark.parametrize(
    "suffix",
    [
        ".pth",
        ".safetensors",
    ],
)
def test_an_empty_file_is_refused(tmp_path: Path, suffix: str):
    path = tmp_path / f"weights{suffix}"
    path.touch()
    assert "cannot be read" in refusal(encoder_of(), path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str):
    path = written(tmp_path, timm_style(), suffix)
    path.write_bytes(path.read_bytes()[:5000])
    assert "cannot be read" in refusal(encoder_of(), path)


def test_a_missing_file_is_refused(tmp_path: Path):
    assert "no such file" in refusal(encoder_of(), tmp_path / "nowhere.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {"epoch": 3}}])
def test_a_file_without_tensors_is_refused(tmp_path: Path, content: dict[str, object]):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert "no tensors by name" in refusal(encoder_of(), path)


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {0: torch.zeros(3)}])
def test_tensors_without_names_are_refused(tmp_path: Path, content: object):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert "no tensors by name" in refusal(encoder_of(), path)


def test_what_maes_training_saves_beside_the_weights_does_no_harm(tmp_path: Path):
    """Its checkpoints hold {model, optimizer, epoch, scaler, args}, and args is an argparse.Namespace."""
    path, tensors = tmp_path / "checkpoint-799.pth", mae_style()
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    args = argparse.Namespace(batch_size=64, model="mae_vit_base_patch16", output_dir="out")
    torch.save({"model": tensors, "optimizer": optimizer, "epoch": 799, "scaler": {"scale": 1.0}, "args": args}, path)
    assert read_tensors(find_files(path)).keys() == tensors.keys()
