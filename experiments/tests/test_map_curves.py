"""Deletion and insertion: the areas, and the script that draws the curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import maps
import pandas as pd
import pytest
import torch
from study_tables.map_curves import table

from msmae.method.classifier import Classifier
from msmae.method.vit import VisionTransformer


def save_curves(folder: Path, drop: float) -> None:
    folder.mkdir(parents=True)
    rows = [
        ("attention", curve, share, 0.5 - drop * share if curve == "deletion" else share)
        for curve in ("deletion", "insertion")
        for share in (0.0, 0.25, 1.0)
    ]
    frame = pd.DataFrame(rows, columns=["map", "curve", "share", "probability"])
    frame.to_csv(folder / "curves.csv", index=False)


def test_areas_are_means_over_the_shares_and_seeds(tmp_path: Path) -> None:
    assert table(tmp_path, "moles") == "*Not run yet.*"
    save_curves(tmp_path / "moles+maps" / "msmae" / "0", drop=0.2)  # from 0.5 down to 0.3: 0.4 on average
    save_curves(tmp_path / "moles+maps" / "msmae" / "1", drop=0.4)
    assert table(tmp_path, "moles").splitlines()[2] == (
        "| msmae (2) | attention | 0.350 (0.300–0.400) | 0.500 (0.500–0.500) |"
    )


def test_patches_are_blanked_or_shown_in_the_order_of_the_map() -> None:
    torch.manual_seed(0)
    encoder = VisionTransformer(image_size=(4, 4), patch_size=2, channels=1, width=8, depth=1, heads=2)
    classifier = Classifier(encoder, classes=3).eval()
    torch.nn.init.normal_(classifier.head.weight)
    images = torch.randn(2, 1, 4, 4)
    order = torch.tensor([[1, 0, 2, 3], [2, 3, 1, 0]])
    given = maps.names_given(classifier, images)
    blanked, shown = images.clone(), torch.zeros_like(images)
    blanked[0, :, :2] = 0  # patches 1 and 0 are the upper half
    blanked[1, :, 2:] = 0
    shown[0, :, :2], shown[1, :, 2:] = images[0, :, :2], images[1, :, 2:]
    for expected, is_shown in ((blanked, False), (shown, True)):
        chance, logits = maps.answers(classifier, images, order, given, share=0.5, shown=is_shown)
        torch.testing.assert_close(logits, classifier(expected).detach())
        torch.testing.assert_close(chance, logits.softmax(dim=1)[torch.arange(2), given])


def test_what_the_map_wants_most_is_blanked_first(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def remember(_: Any, images: torch.Tensor, order: torch.Tensor, *rest: Any, **more: Any) -> Any:
        seen.append(order)
        return torch.zeros(len(images)), torch.zeros(len(images), 4)

    inside = maps.curves_of_run.__globals__
    by_place = {"places": lambda images: torch.arange(images[0, 0].numel() // 16.0).expand(len(images), -1)}
    monkeypatch.setitem(inside, "answers", remember)
    monkeypatch.setitem(inside, "maps_to_try", lambda *_, **__: by_place)
    maps.curves_of_run(finished)
    assert all((order[0].diff() == -1).all() for order in seen)  # the last patch is wanted most


def test_every_map_has_both_curves_of_a_run(finished: Path) -> None:
    curves = maps.curves_of_run(finished)
    assert curves.groupby(["map", "curve"]).size().eq(maps.STEPS + 1).all()
    assert curves["map"].nunique() == 5
    whole = curves[curves["share"].eq(curves["curve"].eq("insertion").astype(float))]
    assert whole["probability"].nunique() == 1  # nothing blanked yet, or everything shown: the image itself
