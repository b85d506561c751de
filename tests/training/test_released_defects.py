"""Each defect of the released code (its row in the README's table) has a test here that fails on it.

Most run the stages on images with one bright patch and an encoder that looks at it (`spots.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from msmae.data.loader import Batch
from msmae.data.store import ImageStore
from msmae.encoders.weights import load_encoder, open_weights
from msmae.errors import UserError
from msmae.inference.model import load
from msmae.method.attention import MapBank, patch_maps
from msmae.method.classifier import Classifier
from msmae.method.masking import Draw
from msmae.method.msmae import MSMAE
from msmae.method.vit import VisionTransformer
from msmae.runs.cards import ModelCard
from msmae.runs.checkpoint import build_model, load_model, save_model
from msmae.training.balance import decide_balance
from msmae.training.finetune import finetune_model
from msmae.training.maps import refresh_bank
from msmae.training.prepare import Prepared
from msmae.training.pretrain import pretrain_model
from spots import (
    CELLS,
    GRID,
    PATCH,
    SIDE,
    SPLITS,
    looking_at_bright_patches,
    of_the_bright,
    prepared_of,
    watching,
    write_spots,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The manifest of the images, and a cache for what is decoded."""
    folder = tmp_path_factory.mktemp("spots")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSMAE_CACHE", str(folder / "cache"))
        yield write_spots(folder)


@pytest.fixture(scope="module")
def spotter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an encoder that looks at bright patches, as a file to start from."""
    path = tmp_path_factory.mktemp("weights") / "spotter.safetensors"
    save_file(looking_at_bright_patches((SIDE, SIDE), PATCH).state_dict(), path)
    return path


# --- "the bank is all ones for ever: the masking is never attention-driven"


def test_maps_are_not_ones_but_those_just_computed():
    encoder = looking_at_bright_patches((SIDE, SIDE), PATCH)
    ids = torch.tensor([8, 3, 5, 11, 7])
    images = 100 + 20 * torch.randn(5, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(5, dtype=torch.int64)
    batches = [Batch(ids[:3], images[:3], labels[:3]), Batch(ids[3:], images[3:], labels[3:])]
    bank = MapBank(ids, GRID)
    for scale in (20, -20):  # then the dark patches, so that a second refresh has something to replace
        refresh_bank(bank, encoder, batches, lambda x, scale=scale: (x - 100) / scale, lambda x: patch_maps(encoder, x))
        drawn_by = Draw().maps(bank, ids, torch.Generator())
        assert torch.allclose(drawn_by, patch_maps(encoder, (images - 100) / scale), atol=1e-6)
        assert (drawn_by < 0.9).flatten(1).any(dim=1).all()


def starting(prepared: Prepared, weights: Path) -> Prepared:
    """The same, starting from an encoder's weights."""
    return replace(prepared, start=open_weights(weights, heads=prepared.settings.model.heads))


@pytest.fixture(scope="module")
def pretrained(data: Path, spotter: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One pre-training of `msmae` from the spotter: its folder, and what the model was given step by step."""
    run = tmp_path_factory.mktemp("pretrained")
    with watching(MSMAE) as given:
        pretrain_model(starting(prepared_of(data), spotter), run)
    return {"run": run, "given": given}


def test_the_bank_in_the_loader_holds_each_training_images_own_map(pretrained: dict[str, Any]):
    state = torch.load(pretrained["run"] / "checkpoints" / "pretrain.ckpt", weights_only=False)["map_bank"]
    assert state["refreshes"] == 2  # before epochs 3 and 5
    assert state["ids"].tolist() == list(range(32))
    assert state["maps"].flatten(1).argmax(dim=1).tolist() == CELLS[:32].tolist()
    assert state["maps"].flatten(1).mean(dim=1).max() < 0.1


def test_masking_follows_the_attention_once_the_warm_up_is_over(pretrained: dict[str, Any]):
    given = pretrained["given"]
    assert len(given) == 6  # one step an epoch
    counts = [(plan.mask.shape[1], plan.throw.shape[1], plan.keep.shape[1]) for _, plan in given]
    assert counts == [(48, 0, 16)] * 2 + [(28, 20, 16)] * 4
    images, masked = (torch.cat(parts) for parts in zip(*((x, p.mask) for x, p in given[2:]), strict=True))
    share, shown = of_the_bright(images, masked)
    assert shown > 50
    assert share == 1
    warm, shown = of_the_bright(torch.cat([x for x, _ in given[:2]]), torch.cat([p.mask for _, p in given[:2]]))
    assert shown > 25
    assert 0.5 < warm < 0.95  # three quarters, at random


@pytest.mark.parametrize("method", ["msmae-released", "msmae-shuffled", "supmae"])
def test_without_its_own_map_the_bright_patch_is_masked_as_often_as_any(
    data: Path, spotter: Path, tmp_path: Path, method: str
):
    with watching(MSMAE) as given:
        pretrain_model(starting(prepared_of(data, method), spotter), tmp_path)
    share, shown = of_the_bright(torch.cat([x for x, _ in given[2:]]), torch.cat([p.mask for _, p in given[2:]]))
    assert shown > 50
    assert 0.25 < share < 0.7


@pytest.fixture(scope="module")
def finetuned(data: Path, spotter: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One fine-tuning with the arm's own draw from the spotter."""
    run = tmp_path_factory.mktemp("finetuned")
    with watching(Classifier) as given:
        finetune_model(starting(prepared_of(data), spotter), run)
    training = [arguments for arguments in given if len(arguments) == 2 and arguments[1] is not None]
    validation = [arguments[0] for arguments in given if len(arguments) == 1 or arguments[1] is None]
    return {"run": run, "training": training, "validation": validation}


def test_fine_tuning_draws_by_the_maps_before_its_first_step(finetuned: dict[str, Any]):
    """The bright patch is drawn first and so masked: it is never among the quarter that is seen."""
    images, keep = finetuned["training"][0]
    assert keep.shape == (32, 16)
    share, shown = of_the_bright(images, keep)
    assert shown > 15
    assert share == 0
    for images, keep in finetuned["training"]:
        assert of_the_bright(images, keep)[0] == 0


# --- "whatever the crop, the top-left cells of the map are used" (see also test_geometry.py)


def test_a_map_is_cropped_and_flipped_with_its_image(data: Path, spotter: Path, tmp_path: Path):
    """Small crops only, all mirrored: found in image and map at the same place, although no cell stays where it was."""
    tight = {"crop_scale": (0.2, 0.35), "flip": 1.0, "epochs": 12, "uniform_epochs": 0}
    with watching(MSMAE) as given:
        pretrain_model(starting(prepared_of(data, pretrain=tight), spotter), tmp_path)
    share, shown = of_the_bright(torch.cat([x for x, _ in given]), torch.cat([p.mask for _, p in given]))
    assert shown > 60
    assert share == 1


# --- "the loss cannot fall under 0.744 for 4 classes" (see also test_msmae.py)


@pytest.mark.parametrize(("method", "falls"), [("supmae", True), ("msmae-released", False)])
def test_the_label_loss_of_pretraining_falls_under_the_bound_of_two_softmaxes(
    data: Path, tmp_path: Path, method: str, falls: bool
):
    """Grey levels are learned in sixty steps; behind two softmaxes the loss stays where it cannot fall from."""
    prepared = prepared_of(
        data,
        method,
        model={"width": 16},
        pretrain={"epochs": 15, "batch_size": 8, "base_lr": 0.32, "label_weight": 1.0, "crop_scale": (0.8, 1.0)},
    )
    pretrain_model(prepared, tmp_path)
    logged = pd.read_csv(tmp_path / "logs" / "pretrain" / "csv" / "metrics.csv")["label"].dropna()
    assert len(logged) >= 5
    assert (logged.min() < 0.6) == falls
    assert (logged.min() >= math.log(1 + 3 / math.e) - 1e-4) == (not falls)


# --- "evaluation runs all patches"


def test_predicting_from_a_quarter_encodes_a_quarter(finetuned: dict[str, Any]):
    model = load(finetuned["run"])
    images = 60 * torch.rand(5, 1, SIDE, SIDE)
    last, tokens = model.network.encoder.blocks[-1], []
    last.register_forward_pre_hook(lambda module, given: tokens.append(given[0].shape[1]))
    for keep, expected in ((1.0, 65), (0.25, 17), (0.5, 33), (1 / 64, 2)):
        tokens.clear()
        chances = model.predict(images, keep=keep)
        assert tokens == [expected]  # the class token and the kept
        assert torch.allclose(chances.sum(dim=1), torch.ones(5))


def test_the_quarter_that_is_kept_for_prediction_is_the_most_attended(finetuned: dict[str, Any]):
    model = load(finetuned["run"])
    images = 20 * torch.rand(6, 1, SIDE, SIDE)
    images[:, :, 4:8, 20:24] = 250
    keep = model.looked_at(images, keep=0.25)
    assert keep.shape == (6, 16)
    assert of_the_bright(images, keep) == (1.0, 6)


# --- "best epoch chosen on the folder it reports"


def relabelled(data: Path, levels: np.ndarray) -> pd.DataFrame:
    """The same images with other labels."""
    table = pd.read_csv(data)
    table["image_path"] = [str(data.parent / name) for name in table["image_path"]]
    table["label"] = [f"level {level}" for level in levels]
    return table


@dataclass(frozen=True)
class RecordingStore(ImageStore):
    """Remembers which samples were fetched."""

    fetched: set[int] = field(default_factory=set)

    def fetch(self, ids: Any) -> np.ndarray:
        self.fetched.update(int(i) for i in ids)
        return super().fetch(ids)


def test_no_test_image_is_touched_before_the_evaluation(data: Path, tmp_path: Path):
    """Test images are made NaN behind the stages' back, so that any use of them would also spoil the loss."""
    prepared = prepared_of(data, pretrain={"base_lr": 1e-3}, finetune={"base_lr": 1e-3})
    test = prepared.ids("test")
    images = prepared.store.images[np.arange(len(SPLITS))].astype(np.float32)
    mean, std = images[:32].mean(dtype=np.float64), images[:32].std(dtype=np.float64)
    assert prepared.mean == pytest.approx([mean])
    assert prepared.std == pytest.approx([std])
    images[test] = np.nan
    store = RecordingStore(images=images, masks=None)
    watched = replace(prepared, store=store)
    pretrain_model(watched, tmp_path)
    assert store.fetched == set(range(32))
    finetune_model(watched, tmp_path)
    assert store.fetched == set(range(44))
    assert not store.fetched & set(test.tolist())
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_the_model_that_is_kept_has_the_lowest_validation_loss(data: Path, tmp_path: Path):
    """Labels without meaning can only be learned by heart, so validation grows worse and the last epoch is not best."""
    table = relabelled(data, np.random.default_rng(0).permutation(len(SPLITS)) % 4)
    table.to_csv(tmp_path / "manifest.csv", index=False)
    prepared = prepared_of(
        tmp_path / "manifest.csv",
        model={"width": 16},
        finetune={"base_lr": 0.3, "batch_size": 8, "epochs": 8, "draw": "all", "label_smoothing": 0.0},
    )
    finetune_model(prepared, tmp_path)
    losses = pd.read_csv(tmp_path / "logs" / "finetune" / "csv" / "metrics.csv")["val_loss"].dropna().to_numpy()
    assert len(losses) == 8
    assert losses.argmin() < 7
    ids = prepared.ids("val")
    chances = load(tmp_path).predict(prepared.store.fetch(ids).astype(np.float32))
    loss = F.nll_loss(chances.double().log(), torch.from_numpy(prepared.targets[ids]))
    assert loss.item() == pytest.approx(losses.min(), abs=1e-4)
    assert loss.item() < losses[-1] - 1e-3


def test_the_balance_of_the_classes_counts_training_images_only(data: Path, tmp_path: Path):
    table = relabelled(data, np.where(np.arange(len(SPLITS)) < 16, 1, np.arange(len(SPLITS)) % 4))
    table.loc[table["split"] != "train", "label"] = "level 0"
    table.to_csv(tmp_path / "manifest.csv", index=False)
    prepared = prepared_of(tmp_path / "manifest.csv", finetune={"balance": "class_weights"})
    counts = table[table["split"] == "train"]["label"].value_counts().sort_index().to_numpy()
    assert counts.tolist() == [4, 20, 4, 4]
    assert decide_balance(prepared).weights.tolist() == pytest.approx((32 / (4 * counts)).tolist())


# --- "it runs on one configuration"


@pytest.mark.parametrize(
    ("size", "patch", "heads", "mode"), [((24, 40), 8, 3, "L"), ((32, 16), 4, 1, "RGB"), ((30, 30), 10, 2, "L")]
)
def test_any_rectangle_channels_patches_heads_and_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], patch: int, heads: int, mode: str
):
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    rows = []
    for i, split in enumerate(["train"] * 8 + ["val"] * 4 + ["test"] * 4):
        pixels = generator.integers(0, 255, (*size, 3) if mode == "RGB" else size).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        rows.append({"image_path": f"{i}.png", "label": "ab"[i % 2], "split": split})
    pd.DataFrame(rows).to_csv(tmp_path / "manifest.csv", index=False)
    prepared = prepared_of(
        tmp_path / "manifest.csv",
        model={"image_size": size, "patch_size": patch, "width": 12, "heads": heads},
        pretrain={"epochs": 3, "uniform_epochs": 1, "refresh_every": 1, "base_lr": 1e-3},
        finetune={"epochs": 1, "base_lr": 1e-3},
    )
    run = tmp_path / "run"
    pretrain_model(prepared, run)
    finetune_model(prepared, run)
    model = load(run)
    grid = (size[0] // patch, size[1] // patch)
    channels = 3 if mode == "RGB" else 1
    assert torch.load(run / "checkpoints" / "pretrain.ckpt", weights_only=False)["map_bank"]["refreshes"] == 2
    assert model.attention(torch.rand(2, channels, *size)).shape == (2, *grid)
    assert model.predict(torch.rand(2, channels, *size), keep=0.25).shape == (2, 2)


# --- "silent strict=False: biases and the final norm are dropped unseen" (see also test_weights.py)


CARD = ModelCard(
    kind="classifier", method="msmae", classes=["a", "b"], multilabel=False, image_size=(16, 16), patch_size=4,
    channels=1, width=8, depth=2, heads=2, pool="cls", mean=[0.0], std=[1.0],
)  # fmt: skip


@pytest.mark.parametrize("change", ["renamed", "missing", "left over", "reshaped"])
def test_a_model_loads_every_tensor_or_says_which_it_does_not(tmp_path: Path, change: str):
    folder = tmp_path / "model"
    saved = build_model(CARD)
    save_model(folder, saved, CARD)
    loaded, _ = load_model(folder)
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in loaded.state_dict().items())

    weights, name = load_file(folder / "model.safetensors"), "encoder.blocks.1.attn.qkv.bias"
    if change == "renamed":
        weights["encoder.blocks.1.attn.q_bias"] = weights.pop(name)
    elif change == "missing":
        del weights[name], weights["encoder.norm.weight"]
    elif change == "left over":
        weights["deep_supervision.weight"] = torch.zeros(2)
    else:
        weights[name] = torch.zeros(16)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError) as caught:
        load_model(folder)
    expected = {
        "renamed": [f"missing {name}", "unexplained encoder.blocks.1.attn.q_bias"],
        "missing": [f"missing {name}", "missing encoder.norm.weight"],
        "left over": ["unexplained deep_supervision.weight"],
        "reshaped": [f"{name} is (16,), not (24,)"],
    }[change]
    assert all(words in str(caught.value) for words in expected)


@pytest.mark.parametrize("name", ["blocks.0.attn.qkv.bias", "norm.weight"])
def test_an_encoder_is_filled_whole_or_not_at_all(tmp_path: Path, name: str):
    """The very tensors that the released segmenter dropped."""
    encoder = VisionTransformer(image_size=(16, 16), patch_size=4, channels=1, width=8, depth=1, heads=2)
    weights = {key: torch.randn_like(tensor) for key, tensor in encoder.state_dict().items()}
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    weights[f"other.{name}"] = weights.pop(name)
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=f"unexplained other.{name}"):
        load_encoder(encoder, tmp_path / "weights.safetensors")
    assert all(torch.equal(tensor, before[key]) for key, tensor in encoder.state_dict().items())


# --- "images divided by 255 after they were normalised: inputs near zero"


def test_the_network_sees_images_of_mean_zero_and_deviation_one(
    data: Path, pretrained: dict[str, Any], finetuned: dict[str, Any]
):
    training = torch.cat([images for images, _ in finetuned["training"]])
    for images in (torch.cat([images for images, _ in pretrained["given"]]), training):  # cropped, so not exactly
        assert abs(images.mean()) < 0.2
        assert 0.7 < images.std() < 1.3
    validation = torch.cat(finetuned["validation"])  # whole images, but others than those the scale is taken from
    assert abs(validation.mean()) < 0.1
    assert 0.9 < validation.std() < 1.1

    files = sorted(data.parent.glob("*.png"), key=lambda file: int(file.stem))[:32]
    model = load(finetuned["run"])
    with watching(Classifier) as given:
        from_files = model.predict(files)
        from_pixels = model.predict(np.stack([np.asarray(Image.open(file))[None] for file in files]))
    assert torch.equal(from_files, from_pixels)
    for images, *_ in given:
        assert images.mean().item() == pytest.approx(0, abs=1e-4)
        assert images.std().item() == pytest.approx(1, abs=1e-3)
