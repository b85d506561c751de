"""What a comparison says that its arms had in common: of the arms that are in it, and of no others."""

from __future__ import annotations

import pytest

from msmae.comparison.budgets import statement
from msmae.config import make_settings

SETTINGS = make_settings("tiny", None, {"pretrain": {"epochs": 9}, "finetune": {"epochs": 4}})


@pytest.mark.parametrize(
    ("budget", "arms", "said", "unsaid"),
    [
        ("epochs", ["msmae", "supmae"], ["9 of pre-training", "4 of supervised"], ["without pre-training", "head"]),
        ("epochs", ["msmae", "vit"], ["9 of pre-training", "without pre-training have the 4 only"], ["head"]),
        ("epochs", ["vit", "small-cnn"], ["trains for 4 epochs"], ["pre-training", "No network"]),
        ("epochs", ["probe", "probe-knn"], ["a head learns on the frozen encoder", "in probe, probe-knn."], ["epoch"]),
        ("epochs", ["vit", "pca-svm"], ["trains for 4 epochs", "No network is trained for pca-svm."], ["head"]),
        ("gmacs", ["msmae"], ["multiply-accumulates", "9 epochs"], ["without", "timed"]),
        ("seconds", ["msmae", "vit", "probe"], ["time", "timed", "without pre-training", "in probe."], ["multiply"]),
    ],
)
def test_what_is_equal_is_said_of_the_arms_at_hand(
    budget: str, arms: list[str], said: list[str], unsaid: list[str]
) -> None:
    sentence = statement(budget, SETTINGS, arms)
    assert [words for words in said if words not in sentence] == []
    assert [words for words in unsaid if words in sentence] == []
