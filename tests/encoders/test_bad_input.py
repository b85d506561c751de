"""What cannot be a start is told in one sentence that says what it is and what to do, before anything else is done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tifffile import imwrite
from torch import Tensor

from encoders.families import HEADS, LAYOUTS, WIDTH, state_of
from msmae.encoders.start import settings_with_start
from msmae.encoders.weights import open_weights
from msmae.errors import UserError
from msmae.verbs.run import run

DINO = LAYOUTS["Hugging Face DINOv2"]


def saved(folder: Path, tensors: dict[str, Tensor], **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def refusal(path: str | Path, **model: object) -> str:
    with pytest.raises(UserError) as caught:
        settings_with_start(str(path), "tiny", None, {"model": model} if model else {})
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert caught.value.mend
    return sentence


def names(*given: str) -> dict[str, Tensor]:
    return {name: torch.zeros(2, 2) for name in given}


@pytest.mark.parametrize(
    ("tensors", "config", "said"),
    [
        (names("embeddings.patch_embeddings.weight", "layer.0.attention.q_proj.weight"), "dinov3_vit", "DINOv3"),
        (names("patch_embed.proj.weight", "storage_tokens", "rope_embed.periods"), "", "DINOv3"),
        (names("patch_embed.proj.weight", "pos_embed", "blocks.0.attn.inner_attn_ln.weight"), "", "EVA"),
        (names("patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight"), "", "Swin"),
        (names("swin.encoder.layers.0.blocks.0.layernorm_before.weight"), "swin", "Swin"),
        (names("stem.0.weight", "stages.0.blocks.0.conv_dw.weight"), "", "ConvNeXt"),
        (names("convnext.embeddings.patch_embeddings.weight"), "convnext", "ConvNeXt"),
        (names("conv1.weight", "layer1.0.conv1.weight"), "", "convolutional"),
        (names("vision_model.embeddings.patch_embedding.weight"), "clip", "CLIP"),
        (names("transformer.wte.weight", "transformer.h.0.attn.c_attn.weight"), "gpt2", "language model"),
        (names("model.embed_tokens.weight", "lm_head.weight"), "llama", "language model"),
        (names("something.else"), "", "no vision transformer"),
    ],
)
def test_other_models_are_called_by_their_kind(tmp_path: Path, tensors: dict[str, Tensor], config: str, said: str):
    assert said in refusal(saved(tmp_path / "model", tensors, model_type=config))


def test_heads_that_cannot_be_known_are_asked_for_and_taken(tmp_path: Path):
    path = saved(tmp_path / "model", state_of(DINO))
    assert "--model.heads" in refusal(path)
    settings, weights = settings_with_start(str(path), "tiny", None, {"model": {"heads": HEADS}})
    assert weights is not None
    assert weights.spec.heads == settings.model.heads == HEADS


@pytest.mark.parametrize(("name", "value"), [("width", 32), ("depth", 2), ("heads", 6), ("patch_size", 8)])
def test_a_setting_that_contradicts_the_weights_is_an_error(tmp_path: Path, name: str, value: int):
    path = saved(tmp_path / "model", state_of(DINO), num_attention_heads=HEADS)
    extra = {"heads": 4} if name == "width" else {}
    assert f"model.{name} is {value}" in refusal(path, **{name: value, **extra})


def test_a_config_that_contradicts_the_weights_is_an_error(tmp_path: Path):
    path = saved(tmp_path / "model", state_of(DINO), num_attention_heads=HEADS, hidden_size=768)
    assert f"hidden_size 768, and the weights say {WIDTH}" in refusal(path)


def test_values_that_are_not_finite_are_named(tmp_path: Path):
    state = state_of(DINO)
    state["encoder.layer.1.mlp.fc1.weight"][0, 0] = float("nan")
    assert "blocks.1.mlp.fc1.weight" in refusal(saved(tmp_path / "model", state, num_attention_heads=HEADS))


def sharded(folder: Path) -> Path:
    """Two shards and their index, as Hugging Face writes large models."""
    state = state_of(DINO)
    folder.mkdir()
    halves = list(state)[::2], list(state)[1::2]
    weight_map = {}
    for number, half in enumerate(halves, start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: state[name] for name in half}, folder / file)
        weight_map |= dict.fromkeys(half, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_shards_are_read_as_one(tmp_path: Path):
    weights = open_weights(sharded(tmp_path / "model"), heads=HEADS)
    whole = open_weights(saved(tmp_path / "whole", state_of(DINO)), heads=HEADS)
    assert weights.spec.width == WIDTH
    assert all(torch.equal(weights.state[name], whole.state[name]) for name in whole.state)


def test_a_shard_cut_short_or_missing_is_named(tmp_path: Path):
    folder = sharded(tmp_path / "model")
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    assert shard.name in refusal(folder, heads=HEADS)
    shard.unlink()
    assert shard.name in refusal(folder, heads=HEADS)


def test_nothing_there_and_a_mistyped_name(tmp_path: Path):
    assert "no such file" in refusal(tmp_path / "nowhere.pth")
    assert "did you mean dinov2-small?" in refusal("dinov2-smal")
    assert "rotary" in refusal("eva-x-small")
    (tmp_path / "empty").mkdir()
    assert "no file of weights" in refusal(tmp_path / "empty")


def test_images_of_four_channels_are_refused_before_any_is_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = saved(tmp_path / "model", state_of(DINO), num_attention_heads=HEADS)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 255, (20, 20, 4), dtype=np.uint8)
            imwrite(tmp_path / "data" / name / f"{i}.tif", pixels, photometric="minisblack", planarconfig="contig")
    with pytest.raises(UserError, match="4 channels, and the encoder takes 3") as caught:
        run(str(tmp_path / "data"), out=str(tmp_path / "run"), init=str(path), preset="tiny")
    assert "\n" not in str(caught.value)
    assert "auditing" not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
