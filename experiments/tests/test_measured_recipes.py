"""The recipes that were measured expect what was measured, and have its settings."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import packed
import pytest
from arms import settings_of
from studies import STUDIES

import msmae
from msmae.config import make_settings

MEASURED = ("pneumoniamnist", "brain-tumor-mri", "ham10000")
RECIPES = Path(msmae.__file__).parent / "recipes"
REPOSITORY = Path(__file__).resolve().parents[2]


def header_of(name: str) -> str:
    """The comment above a recipe's settings, on one line."""
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("extends:")[0]
    return " ".join(line.removeprefix("# ") for line in text.splitlines())


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_recipe_expects_what_was_measured(name: str) -> None:
    texts = packed.read_study(REPOSITORY / "results", name).texts
    files = [f"msmae/{seed}/metrics.json" for seed in range(3)]
    found = [json.loads(texts[file])["splits"]["test"]["metrics"] for file in files]
    assert len(found) == 3
    for metric, words, factor, digits in [
        ("accuracy", "accuracy {} % ({} to {}", 100, 1),
        ("balanced_accuracy", "balanced accuracy {} % ({} to {}", 100, 1),
        ("auroc", "AUROC {} ({} to {}", 1, 3),
    ]:
        values = [factor * one[metric]["value"] for one in found]
        figures = [f"{value:.{digits}f}" for value in (float(np.mean(values)), min(values), max(values))]
        assert f" {words.format(*figures)}" in header_of(f"{name}-cpu"), metric


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_recipe_has_the_settings_that_were_measured(name: str) -> None:
    asked = argparse.Namespace(scale="cpu", arms=None, seeds=None)
    told = settings_of(STUDIES[name], asked)
    groups = {group: values for group, values in told.items() if isinstance(values, dict)}
    assert make_settings(f"{name}-cpu") == make_settings(told["preset"], overrides=groups)
