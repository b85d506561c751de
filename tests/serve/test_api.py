"""The API's answers are the library's own, of every kind of file and model."""

from __future__ import annotations

import base64
import io
import os
import signal
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from served_run import CLASSES, dicom, encoded, pixels, png, write_run
from serving import Served, served

import msmae
from msmae.statistics.conformal import conformal_level, conformal_sets
from msmae.statistics.predictions import read_predictions, to_arrays


def on_disk(folder: Path, files: list[tuple[str, bytes]]) -> list[str]:
    for name, content in files:
        (folder / name).write_bytes(content)
    return [str(folder / name) for name, _ in files]


@pytest.mark.parametrize("keep", [1.0, 0.25])
def test_predict_is_the_library_s_own_answer(server: Served, tmp_path: Path, keep: float) -> None:
    files = [("a.png", png(1)), ("b.tif", encoded(pixels(2), "TIFF")), ("c.jpg", encoded(pixels(3), "JPEG"))]
    answer = server.predict(*files, keep=keep)
    assert answer.status_code == 200, answer.text
    model = msmae.load(server.run)
    paths = on_disk(tmp_path, files)
    expected = model.predict(paths, keep=keep).double().numpy()
    images = answer.json()["images"]
    assert [image["name"] for image in images] == ["a.png", "b.tif", "c.jpg"]
    found = np.array([[image["probabilities"][name] for name in CLASSES] for image in images])
    assert np.abs(found - expected).max() < 2e-6
    assert [image["predicted"] for image in images] == model.classify(paths, keep=keep)
    maps = model.attention(paths).numpy()
    assert np.abs(np.array([image["map"] for image in images]) - maps).max() < 1e-4
    kept = [image["kept"] for image in images]
    looked = [sorted(row) for row in model.looked_at(paths, keep=keep).tolist()]
    assert kept == ([None] * 3 if keep == 1 else looked)
    patient = answer.json()["patient"]
    assert patient["images"] == 3
    assert np.abs(np.array(list(patient["probabilities"].values())) - expected.mean(axis=0)).max() < 2e-6


def test_the_set_and_the_thresholds_come_from_the_validation_images(server: Served) -> None:
    frame = read_predictions(server.run / "predictions.csv")
    known = to_arrays(frame[frame["split"] == "val"], classes=CLASSES)
    level = conformal_level(known.probabilities, known.truth.argmax(axis=1))
    image = server.predict(("a.png", png(4)), map=False).json()["images"][0]
    row = np.array([[image["probabilities"][name] for name in CLASSES]])
    expected = [name for name, inside in zip(CLASSES, conformal_sets(row, level)[0], strict=True) if inside]
    assert image["conformal_set"] == expected
    assert image["map"] is None
    assert ("doubtful" in image["flags"]) == (row.max() < level)
    thresholds = server.get("/model").json()["thresholds"]
    assert image["present"] == {name: image["probabilities"][name] >= thresholds[name] for name in CLASSES}


def test_embed_gives_what_the_head_reads(server: Served, tmp_path: Path) -> None:
    import torch

    files = [("a.png", png(1)), ("b.png", png(2))]
    answer = httpx.post(f"{server.url}/embed", files=[("files", file) for file in files], timeout=60)
    rows = torch.tensor([image["features"] for image in answer.json()["images"]])
    model = msmae.load(server.run)
    with torch.inference_mode():
        own = model.network.head(rows).softmax(dim=1)
    assert torch.allclose(own, model.predict(on_disk(tmp_path, files), calibrated=False), atol=1e-5)


def test_dicom_is_read_as_in_training_and_shown_in_its_units(dicom_server: Served, tmp_path: Path) -> None:
    files = [("scan.dcm", dicom(1))]
    image = dicom_server.predict(*files, pictures=True).json()["images"][0]
    expected = msmae.load(dicom_server.run).predict(on_disk(tmp_path, files))[0].tolist()
    assert np.abs(np.array(list(image["probabilities"].values())) - expected).max() < 2e-6
    grey = image["grey"]
    levels = np.frombuffer(base64.b64decode(grey["levels"]), "<u2").reshape(grey["height"], grey["width"])
    hounsfield = pixels(1).astype(float) * 2 + 824 - 1024
    assert np.abs(grey["low"] + grey["step"] * levels - hounsfield).max() < 0.01
    assert grey["window"] == {"centre": 100, "width": 600}
    assert "lung" in grey["named"]


def test_nothing_of_a_dicom_header_is_shown_or_logged(dicom_server: Served) -> None:
    broken = dicom(2, Rows=9999)
    answers = [
        dicom_server.predict(("scan.dcm", dicom(1)), pictures=True),
        dicom_server.predict(("scan.dcm", broken)),
        dicom_server.predict(("scan.dcm", dicom(3, NumberOfFrames="12345678").replace(b"12345678", b"SECRET-I"))),
        dicom_server.predict(("SECRET-ID.dcm", dicom(3)[:700])),
    ]
    assert [answer.status_code for answer in answers] == [200, 422, 422, 422]
    told = "".join(answer.text for answer in answers[:3]) + dicom_server.log.read_text()
    assert "SECRET" not in told
    assert "POST /predict 422" in dicom_server.log.read_text()


def test_pictures_show_the_image_the_reconstruction_and_the_nearest_cases(server: Served) -> None:
    image = server.predict(("a.png", (server.run / "images" / "3.png").read_bytes()), pictures=True).json()["images"][0]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["picture"]))))
    assert np.array_equal(shown, pixels(3))
    rebuilt = Image.open(io.BytesIO(base64.b64decode(image["reconstruction"])))
    assert rebuilt.size == (32, 32)
    assert image["neighbours"][0]["cosine"] > 0.9999
    assert image["neighbours"][0]["label"] == CLASSES[0]
    assert len(image["neighbours"]) == 4
    assert set(image["neighbours"][0]) == {"label", "cosine", "picture"}


def test_neighbours_are_off_unless_asked_for(dicom_server: Served) -> None:
    image = dicom_server.predict(("scan.dcm", dicom(1)), pictures=True).json()["images"][0]
    assert image["neighbours"] is None
    assert dicom_server.get("/model").json()["neighbours"] is False


def test_a_segmenter_outlines(segment_server: Served, tmp_path: Path) -> None:
    files = [("a.png", png(1, (40, 60)))]
    image = segment_server.predict(*files, pictures=True).json()["images"][0]
    model = msmae.load(segment_server.run)
    layer = model.layers(model.predict(on_disk(tmp_path, files)))[0, 0]
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["layers"]["lesion"]["mask"])))) > 127
    assert np.array_equal(mask, layer)
    assert image["layers"]["lesion"]["share"] == pytest.approx(layer.mean())
    refused = segment_server.predict(*files, keep=0.5)
    assert refused.status_code == 422
    assert "every patch" in refused.json()["error"]


def test_flags_say_what_makes_an_answer_less_sure(server: Served) -> None:
    def flags(image: np.ndarray) -> list[str]:
        found = server.predict(("a.png", encoded(image, "PNG"))).json()["images"][0]["flags"]
        return [flag for flag in found if flag != "doubtful"]  # random weights

    assert flags(pixels(1)) == []
    assert flags(np.full((48, 48), 80, np.uint8)) == ["flat"]
    assert flags(np.stack([pixels(1)] * 3, axis=-1)) == ["colour_dropped"]
    assert flags(pixels(1, (48, 160))) == ["squeezed"]
    assert flags(pixels(1, (20, 20))) == ["small"]
    assert "unusual_brightness" in flags(pixels(1) // 8 + 220)


def test_metrics_count_requests_and_images(server: Served) -> None:
    def value(name: str) -> float:
        lines = server.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = value("msmae_images_total"), value("msmae_predict_seconds_count")
    server.predict(("a.png", png(1)), ("b.png", png(2)))
    assert (value("msmae_images_total"), value("msmae_predict_seconds_count")) == (before[0] + 2, before[1] + 1)


@pytest.mark.slow
def test_it_ends_cleanly_and_leaves_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with served(run) as found:
        assert found.predict(("a.png", png(1))).status_code == 200
        found.process.send_signal(signal.SIGINT)
        assert found.process.wait(30) == 0
        assert os.listdir(found.temporary) == []
        log = found.log.read_text()
    assert "Traceback" not in log
    assert "a.png" not in log


@pytest.mark.slow
def test_a_model_changed_underneath_is_told_and_not_used(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with served(run) as found:
        before = found.predict(("a.png", png(1))).json()["images"][0]["probabilities"]
        assert found.get("/health").json() == {"status": "ok", "model_file": "as loaded"}
        time.sleep(0.01)
        (run / "model" / "model.safetensors").write_bytes(b"nothing of the kind")
        assert found.predict(("a.png", png(1))).json()["images"][0]["probabilities"] == before
        assert found.get("/health").json()["model_file"] == "changed since it was loaded"
