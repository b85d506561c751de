"""``msmae embed``: arrays beside the names of their images, from a run or from a file of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import msmae.inference.features
from msmae.data.store import ImageStore
from msmae.errors import UserError
from msmae.inference.features import Features, Frozen
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


def test_ranks_share_the_images_and_one_writes(
    finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(str(finished), str(data), out=str(tmp_path / "alone.npz"))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    computed = []
    plain = msmae.inference.features.features_of

    def counted(frozen: Frozen, store: ImageStore, ids: np.ndarray) -> Features:
        computed.append(len(ids))
        return plain(frozen, store, ids)

    monkeypatch.setattr(msmae.inference.features, "features_of", counted)
    for rank in ("2", "1", "0"):  # the first joins, and would wait for the others
        monkeypatch.setenv("SLURM_PROCID", rank)
        said = embed(str(finished), str(data), out=str(tmp_path / "shared" / "f.npz"))
        assert said["images"] == 120
        assert (tmp_path / "shared" / "f.npz").exists() == (rank == "0")
    assert computed == [40, 40, 40]
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["f.npz"]
    with np.load(tmp_path / "alone.npz") as alone, np.load(tmp_path / "shared" / "f.npz") as shared:
        assert alone.files == shared.files
        for name in ("image", "patches"):
            np.testing.assert_allclose(shared[name], alone[name], atol=1e-5)
        assert shared["image_path"].tolist() == alone["image_path"].tolist()


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


def test_the_frames_of_a_film_keep_their_numbers(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = np.random.default_rng(0).integers(0, 255, (3, 32, 32)).astype(np.uint8)
    Image.fromarray(pages[0]).save(
        tmp_path / "film.tif", save_all=True, append_images=[Image.fromarray(page) for page in pages[1:]]
    )
    (tmp_path / "film.csv").write_text("image_path,frame\nfilm.tif,2\nfilm.tif,0\n")
    embed(str(finished), str(tmp_path / "film.csv"), out=str(tmp_path / "f.npz"))
    with np.load(tmp_path / "f.npz", allow_pickle=False) as kept:
        assert kept["frame"].tolist() == ["2", "0"]
    assert "seen at 32 x 32 px" in capsys.readouterr().out
