"""Fetching an encoder by name, from a small hub that is served on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from served_run import write_run

from encoders.families import HEADS, LAYOUTS, WIDTH, state_of
from msmae.encoders.cache import encoders_folder, locate
from msmae.encoders.start import settings_with_start
from msmae.errors import UserError
from msmae.inference.model import load
from msmae.verbs.encoders import encoders
from msmae.verbs.export import export

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
REPOSITORY = "facebook/dinov2-small"


@dataclass
class Hub:
    """What the server gives: file name -> bytes; ``refusal`` (status, the hub's error code) in place of all."""

    files: dict[str, bytes]
    refusal: tuple[int, str] | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""
    repository: str = REPOSITORY


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = tmp_path / "made.safetensors"
    save_file(state_of(LAYOUTS["Hugging Face DINOv2"]), made)
    config = {"model_type": "dinov2", "hidden_size": WIDTH, "num_attention_heads": HEADS}
    served = Hub({"model.safetensors": made.read_bytes(), "config.json": json.dumps(config).encode()})

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            served.asked.append(self.path)
            start = f"/{served.repository}/resolve/main/"
            content = served.files.get(self.path.removeprefix(start))
            status, code = served.refusal or ((200, "") if content is not None else (404, "EntryNotFound"))
            content = content if content is not None and status == 200 else b""
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("MSMAE_CACHE", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield served
    server.shutdown()
    server.server_close()


def refusal(*words: str, **options: bool) -> str:
    with pytest.raises(UserError) as caught:
        encoders(*words, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_encoder_is_fetched_licence_first_and_found_by_its_name(hub: Hub, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match="has not been fetched yet"):
        settings_with_start("dinov2-small", "tiny", None, {})
    encoders("get", "dinov2-small")
    shown = capsys.readouterr().out
    assert shown.index("Apache-2.0") < shown.index(str(encoders_folder()))
    settings, weights = settings_with_start("dinov2-small", "tiny", None, {})
    assert weights is not None
    assert (weights.name, settings.model.width, settings.model.heads) == ("dinov2-small", WIDTH, HEADS)
    origin = weights.origin()
    assert origin["licence"].startswith("Apache-2.0")
    assert origin["sha256"] == hashlib.sha256(hub.files["model.safetensors"]).hexdigest()
    asked = len(hub.asked)
    encoders("get", "dinov2-small")  # from the cache
    assert len(hub.asked) == asked
    encoders()
    assert origin["sha256"] in capsys.readouterr().out


def test_another_file_under_the_same_name_is_refused_and_the_first_stays(hub: Hub):
    encoders("get", "dinov2-small")
    before = (encoders_folder() / "dinov2-small" / "model.safetensors").read_bytes()
    hub.files["model.safetensors"] += b" "
    assert "checksum" in refusal("get", "dinov2-small", overwrite=True)
    assert (encoders_folder() / "dinov2-small" / "model.safetensors").read_bytes() == before
    assert locate("dinov2-small") == encoders_folder() / "dinov2-small"


def test_a_file_that_was_changed_in_the_cache_is_refused(hub: Hub):
    encoders("get", "dinov2-small")
    path = encoders_folder() / "dinov2-small" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(UserError, match="checksum differs"):
        locate("dinov2-small")


@pytest.mark.parametrize(
    ("answer", "said"),
    [((403, "GatedRepo"), "gated"), ((401, "RepoNotFound"), "token"), ((404, "EntryNotFound"), "no such file")],
)
def test_what_the_hub_refuses_is_said_in_one_sentence_and_nothing_is_left(hub: Hub, answer: tuple[int, str], said: str):
    hub.refusal = answer
    assert said in refusal("get", "dinov2-small")
    assert list(encoders_folder().iterdir()) == []


def test_no_network_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refusal("get", "dinov2-small")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the hub's library waits 15 s between its tries
    assert "cannot be reached" in refusal("get", "dinov2-small")
    assert hub.asked == []


def test_wrong_words_are_answered_with_the_nearest():
    assert "did you mean dinov2-small?" in refusal("get", "dinov2-smal")
    assert "get NAME" in refusal("fetch", "dinov2-small")
    assert "rotary" in refusal("get", "eva-x-small")


def test_a_model_of_the_hub_is_fetched_once_when_it_is_named_and_predicts_the_same(hub: Hub, tmp_path: Path):
    run = write_run(tmp_path / "run")
    folder = Path(export(str(run), format="hub", out=str(tmp_path / "folder")))
    hub.repository = "someone/model"
    hub.files = {file.name: file.read_bytes() for file in folder.iterdir()}
    model, images = load("hf://someone/model"), torch.rand(2, 1, 32, 32) * 255
    assert torch.equal(model.predict(images), load(run).predict(images))
    asked = len(hub.asked)
    load("hf://someone/model")
    assert len(hub.asked) == asked
    hub.files = {"config.json": b"{}", "model.safetensors": b""}
    for name, said in (
        ("hf://someone/model@main2", "no such"),
        ("hf://someone", "no name"),
        ("hf://../../etc", "no name"),
        ("hf://someone/else", "no such"),
    ):
        with pytest.raises(UserError, match=said):
            load(name)
    assert [path.name for path in (encoders_folder().parent / "models").iterdir()] == ["someone--model@main"]
