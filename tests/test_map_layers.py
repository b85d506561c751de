"""Which layer's attention finds the lesion: the table, and the script that looks."""

from __future__ import annotations

import runpy
from pathlib import Path

import pandas as pd
import pytest
import torch

import msmae
from msmae.data.phantom import make_phantom
from msmae.evaluation.map_quality import lesion_patches, map_auroc
from msmae.evidence.map_layers import table
from msmae.method.attention import patch_maps

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def save(folder: Path, shift: float) -> None:
    folder.mkdir(parents=True)
    rows = [
        ("attention", "1", "all", 0.5 + shift, 0.10),
        ("attention", "1", "1", 0.4 + 4 * shift, 0.0),  # the worst head of one seed is the best of the other
        ("attention", "1", "2", 0.7 - 2 * shift, 0.0),
        ("attention", "2", "all", 0.6, 0.20 + shift),
        ("attention", "2", "1", 0.6, 0.2),
        ("rollout", "", "", 0.9, 0.6),
    ]
    frame = pd.DataFrame(rows, columns=["map", "layer", "head", "auroc", "pointing"])
    frame.to_csv(folder / "layers.csv", index=False)


def test_a_row_is_a_layer_and_its_heads_are_told_by_their_extremes(tmp_path: Path) -> None:
    assert table(tmp_path, "moles") == "*Not run yet.*"
    save(tmp_path / "moles+layers" / "msmae" / "0", shift=0.0)
    save(tmp_path / "moles+layers" / "msmae" / "1", shift=0.1)
    save(tmp_path / "moles+layers" / "supmae" / "0", shift=0.1)
    assert table(tmp_path, "moles").splitlines()[2:] == [
        "| msmae (2) | attention, block 1 | 0.550 (0.500–0.600) | 10 % (10–10) | 0.450 and 0.750 |",
        "| msmae (2) | attention, block 2 | 0.600 (0.600–0.600) | 25 % (20–30) | 0.600 and 0.600 |",
        "| msmae (2) | rollout | 0.900 (0.900–0.900) | 60 % (60–60) | — |",
        "| supmae (1) | attention, block 1 | 0.600 | 10 % | 0.500 and 0.800 |",
        "| supmae (1) | attention, block 2 | 0.600 | 30 % | 0.600 and 0.600 |",
        "| supmae (1) | rollout | 0.900 | 60 % | — |",
    ]


@pytest.mark.slow
def test_the_script_sees_the_maps_of_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    script = runpy.run_path(str(EXPERIMENTS / "layers.py"), run_name="layers")
    make_phantom(tmp_path / "images", images=160, lesion=0.3, seed=0)
    run = tmp_path / "run"
    msmae.run(str(tmp_path / "images" / "manifest.csv"), out=str(run), preset="tiny")
    found = script["layers_of_run"](run).set_index(["map", "layer", "head"])["auroc"]
    last = max(layer for _, layer, _ in found.index)
    model, prepared = script["load_model"](run / "pretrained")[0].eval(), script["prepare_again"](run)
    ids = script["watched"](prepared)
    seen = torch.from_numpy(prepared.store.fetch(ids)).float() - torch.tensor(prepared.mean).reshape(1, -1, 1, 1)
    maps = patch_maps(model.encoder, seen / torch.tensor(prepared.std).reshape(1, -1, 1, 1))
    lesion = lesion_patches(torch.from_numpy(prepared.store.fetch_masks(ids)), model.encoder.patch_size)
    assert 0 < len(ids) < len(prepared.ids("val"))
    assert found["attention", last, "all"] == pytest.approx(map_auroc(maps, lesion), abs=1e-4)
    images = torch.randn(2, model.encoder.channels, *(side * model.encoder.patch_size for side in model.encoder.grid))
    maps = script["maps_to_try"](model, images)
    assert torch.equal(maps["attention", last, "all"], patch_maps(model.encoder, images))
    assert len(maps) == int(last) * (1 + model.encoder.blocks[0].attn.heads) + 1
