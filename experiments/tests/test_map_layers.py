"""Which layer's attention finds the lesion: the table, and the script that looks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from study_tables.map_layers import table

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
