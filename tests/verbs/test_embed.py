"""``msmae embed``: arrays beside the names of their images, from a run or from a file of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msmae.errors import UserError
from msmae.verbs.embed import embed


def test_a_runs_encoder_embeds_a_table(finished: Path, data: Path, tmp_path: Path) -> None:
    said = embed(str(finished), str(data), out=str(tmp_path / "f.npz"))
    with np.load(tmp_path / "f.npz", allow_pickle=False) as kept:
        assert kept["image"].shape == kept["patches"].shape == (said["images"], said["width"])
        assert len(set(kept["image_path"])) == said["images"] == 120
        assert set(kept["split"]) <= {"train", "val", "test", ""}
        assert np.isfinite(kept["image"]).all()
        paths = kept["image_path"][:5]
    (data.parent / "few.csv").write_text("\n".join(["file;id", *(f"{path};{k}" for k, path in enumerate(paths))]))
    embed(str(finished), str(data.parent / "few.csv"), out=str(tmp_path / "few.npz"))
    with np.load(tmp_path / "few.npz", allow_pickle=False) as few:  # no labels, and another name of the column
        assert few["image_path"].tolist() == paths.tolist()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"out": "f.csv"}, "neither .npz nor .parquet"),
        ({"image_size": 48}, "32 x 32"),
        ({"source": "no-such-thing"}, "no-such-thing"),
        ({"source": "dinov2-small"}, "has not been fetched yet"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    change: dict[str, object], complaint: str, finished: Path, data: Path, tmp_path: Path
) -> None:
    asked = {"source": str(finished), "data": str(data), "out": "f.npz", **change}
    asked["out"] = str(tmp_path / str(asked["out"]))
    with pytest.raises(UserError, match=complaint):
        embed(**asked)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
