"""What the terminal says below the table of figures."""

from __future__ import annotations

import numpy as np

from msmae.statistics.summary import summarise
from msmae.verbs.show import doubts
from simulated import as_frame, draw


def test_classes_without_images_are_named_below_the_figures() -> None:
    frame = as_frame(draw(np.random.default_rng(0), patients=30, images_each=2, classes=3))
    splits = summarise(frame[frame["label"] != "c0"], classes=("c0", "c1", "c2"), resamples=50)
    assert "no image of c0: means over classes are over the other classes" in doubts(splits, ["test"])
    alone = summarise(frame[frame["label"] == "c1"], classes=("c0", "c1", "c2"), resamples=50)
    (line,) = [line for line in doubts(alone, ["test"]) if "every image is of one class, c1" in line]
    assert "balanced accuracy" in line
    both = doubts({"val": splits["test"], "test": splits["test"]}, ["val", "test"])
    assert "val, test: no image of c0: means over classes are over the other classes" in both
