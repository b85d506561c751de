"""Every project's encoder computes what an independent implementation computes, at two image sizes, to 1e-5."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from encoders.families import DEPTH, HEADS, LAYOUTS, PATCH, SIDE, WIDTH, features, state_of
from msmae.encoders.spec import build_encoder
from msmae.encoders.weights import load_into, open_weights

OWN, OTHER = (SIDE * PATCH, SIDE * PATCH), (3 * PATCH, 7 * PATCH)


@pytest.mark.parametrize("size", [OWN, OTHER])
@pytest.mark.parametrize("name", LAYOUTS)
def test_features_are_those_of_an_independent_implementation(tmp_path: Path, name: str, size: tuple[int, int]):
    layout, path = LAYOUTS[name], tmp_path / "model.safetensors"
    state = state_of(layout)
    save_file(state, path)
    weights = open_weights(path, heads=HEADS)
    images = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = features(layout, {key: value.double() for key, value in state.items()}, images)
    for chosen in (weights, weights.folded()):
        encoder = build_encoder(chosen.spec, size)
        load_into(encoder, chosen)
        with torch.no_grad():
            found = encoder.double().eval()(images)
        assert expected.shape == found.shape == (2, 1 + encoder.patches, WIDTH)
        # positions are resampled in float32
        assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_architecture_is_read_and_every_tensor_accounted_for(tmp_path: Path, name: str):
    layout, path = LAYOUTS[name], tmp_path / "weights.pth"
    state = state_of(layout)
    torch.save({"model": state}, path)
    weights = open_weights(path, heads=HEADS)
    spec = weights.spec
    assert (spec.width, spec.depth, spec.patch_size, spec.channels) == (WIDTH, DEPTH, PATCH, 3)
    assert (spec.grid, spec.registers, spec.layer_scale) == ((SIDE, SIDE), layout.registers, layout.scale)
    assert (spec.mlp == "swiglu", spec.class_token, spec.reads) == (layout.swiglu, layout.class_token, layout.reads)
    assert sorted(weights.left_out) == sorted(other for other, _ in layout.others)
    report = load_into(build_encoder(spec, OTHER), weights)
    assert report.resized == ["pos_embed"]
    assert set(report.used) == set(weights.state) - {"pos_embed"}
    assert (spec.norm_eps == 1e-12) == (layout.eps == 1e-12)


def real_weights() -> Path:
    given = os.environ.get("MSMAE_WEIGHTS")
    folder = Path(given) if given else Path(__file__).parents[2] / ".." / "shared" / "weights"
    path = folder / "dinov2_vits14"
    if not path.is_dir():
        pytest.skip(f"no weights of DINOv2 in {folder} (MSMAE_WEIGHTS)")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("size", [(112, 112), (168, 140)])
def test_dinov2_itself_computes_what_transformers_computes(size: tuple[int, int]):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    path = real_weights()
    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    reference = transformers.Dinov2Model.from_pretrained(path, config=config, dtype=torch.float64).eval()
    weights = open_weights(path).folded()
    assert (weights.spec.heads, weights.spec.grid, weights.spec.patch_size) == (6, (37, 37), 14)
    encoder = build_encoder(weights.spec, size)
    load_into(encoder, weights)
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = reference(images).last_hidden_state
        found = encoder.double().eval()(images)
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ViT", "ViTMAE", "Dinov2", "Dinov2WithRegisters", "Dinov2 SwiGLU"])
def test_what_transformers_saves_computes_what_transformers_computes(tmp_path: Path, kind: str):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    name, _, swiglu = kind.partition(" ")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 20, "patch_size": 4}
    sizes |= {"use_swiglu_ffn": True} if swiglu else {"intermediate_size": 48} if name.startswith("ViT") else {}
    sizes |= {"mask_ratio": 0.0} if name == "ViTMAE" else {}
    reference = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**sizes)).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    reference.save_pretrained(tmp_path)
    weights = open_weights(tmp_path)
    for size in ((20, 20), (12, 28)):
        encoder = build_encoder(weights.spec, size)
        load_into(encoder, weights)
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            if name == "ViTMAE":  # it shuffles its patches
                noise = torch.arange(encoder.patches).expand(2, -1).float()
                expected = reference(images, noise=noise, interpolate_pos_encoding=True).last_hidden_state
            elif name == "ViT":
                expected = reference(images, interpolate_pos_encoding=True).last_hidden_state
            else:
                expected = reference(images).last_hidden_state
            found = encoder.eval()(images)
        if weights.spec.registers:
            expected = torch.cat([expected[:, :1], expected[:, 1 + weights.spec.registers :]], dim=1)
        assert (found - expected).abs().max() < 1e-5
