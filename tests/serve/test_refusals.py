"""Hostile and mistaken requests: each is answered with one sentence, and the server serves on."""

from __future__ import annotations

import io
import os
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile
from served_run import dicom, png, write_run
from serving import Served, served

from msmae.cli import main


@pytest.fixture(autouse=True)
def serves_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every attack the server that was attacked answers, and holds no upload."""
    yield
    for name in {"server", "dicom_server"} & set(request.fixturenames):
        found: Served = request.getfixturevalue(name)
        content = ("a.png", png(1)) if name == "server" else ("a.dcm", dicom(1))
        assert found.predict(content).status_code == 200
        assert "Traceback" not in found.log.read_text()
        assert not [file for file in found.temporary.rglob("*") if file.is_file()]


def png_of(width: int, height: int, rows: bytes) -> bytes:
    """A grey PNG whose header says anything."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def deflated(pieces: int) -> bytes:
    """A raw deflate stream of so many times 16 MB of zeros."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return (deflate.compress(bytes(1 << 24)) + deflate.flush(zlib.Z_FULL_FLUSH)) * pieces


def tiff_bomb() -> bytes:
    """A small page whose strip unfolds to 3 GB."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((64, 64), np.uint8), compression="zlib")
    strip = b"\x78\xda" + deflated(192)
    content = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        counts, offsets = page.tags["StripByteCounts"], page.tags["StripOffsets"]
        for tag, value in ((counts, len(strip)), (offsets, len(content))):
            place = tag.valueoffset
            code = "<H" if tag.dtype == 3 else "<I"
            struct.pack_into("<I" if code == "<I" else "<H", content, place, value if code == "<I" else 0)
            if code == "<H":  # written as a long, in the place of a short
                struct.pack_into("<HII", content, tag.offset + 2, 4, 1, value)
    return bytes(content) + strip


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"a letter, not an image", "not an image"),
        (b"GIF89a" + bytes(40), "not an image"),
        (png(1)[:200], "cut short"),
        (png_of(60_000, 60_000, bytes(1000)), "more than the limit"),
        (png_of(2, 2, bytes(6)), "less than one patch"),
        (b"II*\0" + bytes(60), "TIFF"),
    ],
    ids=["empty", "text", "gif", "cut", "bomb", "tiny", "tiff"],
)
def test_a_file_that_is_no_image_is_refused_in_one_sentence(server: Served, content: bytes, reason: str) -> None:
    answer = server.predict(("notes.txt", content))
    assert answer.status_code == 422
    assert answer.json()["code"] == "unreadable"
    assert reason in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert str(server.temporary) not in answer.text


def test_a_strip_that_unfolds_without_end_is_refused(server: Served) -> None:
    bomb = tiff_bomb()
    assert len(bomb) < 4 * 2**20
    answer = server.predict(("bomb.tif", bomb))
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    "changes", [{"Rows": 65535, "Columns": 65535}, {"NumberOfFrames": "500000"}, {"SamplesPerPixel": 60000}]
)
def test_a_dicom_bomb_is_refused(dicom_server: Served, changes: dict[str, object]) -> None:
    assert dicom_server.predict(("a.dcm", dicom(1, **changes))).status_code == 422


def test_dicom_files_of_two_patients_are_refused_together(dicom_server: Served) -> None:
    anna, bert, nobody = (dicom(1, PatientID=name) for name in ("anna", "bert", "ANONYMOUS"))
    assert dicom_server.predict(("a.dcm", anna), ("b.dcm", nobody), ("c.dcm", anna)).status_code == 200
    refused = dicom_server.predict(("a.dcm", anna), ("b.dcm", bert))
    assert refused.status_code == 422
    assert refused.json()["code"] == "patients"
    assert "anna" not in refused.text


def test_a_deflated_dicom_bomb_is_refused(dicom_server: Served) -> None:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    plain = dicom(1)
    uid = b"1.2.840.10008.1.2.1\0"
    at = plain.index(uid) - 2
    length = len(DeflatedExplicitVRLittleEndian)
    changed = struct.pack("<H", length) + DeflatedExplicitVRLittleEndian.encode()
    answer = dicom_server.predict(("a.dcm", plain[:at] + changed + deflated(192)))
    assert answer.status_code == 422
    assert "deflated" in answer.json()["error"]


def test_too_many_bytes_are_refused_before_they_are_read(server: Served) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {500 * 2**20}\r\n"
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_too_many_bytes_without_a_length_are_refused(server: Served) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(6):
            yield bytes(1 << 20)
        time.sleep(0.3)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    try:
        answer = httpx.post(f"{server.url}/predict", content=pieces(), headers=headers, timeout=60)
    except httpx.WriteError:  # the server has closed the connection already
        return
    assert answer.status_code == 413


def test_too_many_files_are_refused(server: Served) -> None:
    answer = server.predict(*[(f"{i}.png", png(i, (32, 32))) for i in range(33)])
    assert answer.status_code == 413


def test_every_bad_file_is_named_by_its_place(server: Served) -> None:
    answer = server.predict(("a.png", png(1)), ("b.txt", b"text"), ("c.png", png(2)), ("d.txt", b"text"))
    assert answer.status_code == 422
    assert [file["index"] for file in answer.json()["files"]] == [1, 3]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../../etc/passwd", "passwd"),
        ("C:\\scans\\x.png", "x.png"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
        ("a" * 400 + ".png", "a" * 120),
    ],
)
def test_a_file_s_name_is_never_a_path(server: Served, name: str, shown: str) -> None:
    before = set(os.listdir(server.temporary.parent))
    answer = server.predict((name, png(1)))
    assert answer.status_code == 200
    assert answer.json()["images"][0]["name"] == shown
    assert answer.headers["content-type"] == "application/json"
    assert set(os.listdir(server.temporary.parent)) == before


@pytest.mark.parametrize("fields", [{"keep": 0}, {"keep": 1.5}, {"keep": "nan"}, {"keep": 0.001}, {"map": "perhaps"}])
def test_a_number_that_cannot_be_used_is_refused(server: Served, fields: dict[str, object]) -> None:
    answer = server.predict(("a.png", png(1)), **fields)
    assert answer.status_code == 422
    assert set(answer.json()) == {"code", "error", "files"}


def test_files_of_another_number_type_are_refused(server: Served) -> None:
    answer = server.predict(("scan.dcm", dicom(1)))
    assert answer.status_code == 422
    assert "float32" in answer.json()["error"]


def test_another_site_and_another_name_of_this_machine_are_refused(server: Served) -> None:
    other = httpx.get(f"{server.url}/model", headers={"Origin": "https://evil.example"})
    rebound = httpx.get(f"{server.url}/model", headers={"Host": "evil.example"})
    assert (other.status_code, rebound.status_code) == (403, 403)
    own = httpx.get(f"{server.url}/model", headers={"Origin": server.url})
    assert own.status_code == 200


def test_every_answer_forbids_what_the_page_does_not_need(server: Served) -> None:
    for path in ("/", "/page.js", "/model", "/nowhere"):
        policy = server.get(path).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy


def test_the_page_asks_nobody_else(server: Served) -> None:
    for path in ("/", "/page.css", "/page.js", "/views.js", "/answer.js", "/strings.js", "/icon.svg"):
        text = server.get(path).text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text


@pytest.mark.slow
def test_a_slow_body_and_an_idle_connection_are_ended(monkeypatch: pytest.MonkeyPatch, server: Served) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    idle = socket.create_connection((host, int(port)), 30)
    slow = socket.create_connection((host, int(port)), 30)
    head = f"POST /predict HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000\r\n"
    slow.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x".encode())
    started = time.monotonic()
    assert slow.recv(4096).startswith(b"HTTP/1.1 408")
    assert idle.recv(10) == b""
    assert time.monotonic() - started < 25
    idle.close()
    slow.close()


def test_a_thousand_idle_connections_do_not_stop_it(server: Served) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    connections = []
    try:
        for _ in range(1000):
            connections.append(socket.create_connection((host, int(port)), 10))
    except OSError as error:
        pytest.skip(f"this system opens no thousand connections ({error})")
    try:
        assert server.predict(("a.png", png(1))).status_code == 200
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.slow
def test_elsewhere_it_asks_for_its_token(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with served(run, "--host", "0.0.0.0") as found:
        url = found.url.replace("0.0.0.0", "127.0.0.1")
        assert len(found.token) > 30
        right = {"Authorization": f"Bearer {found.token}"}
        for wrong in ({}, {"Authorization": f"Bearer {found.token[:-1]}"}, {"Authorization": found.token}):
            assert httpx.get(f"{url}/model", headers=wrong).status_code == 401
        assert httpx.get(f"{url}/model", headers=right).status_code == 200
        assert httpx.get(f"{url}/").status_code == 200
        assert found.token not in found.log.read_text()


def test_a_run_that_cannot_be_served_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    run = write_run(tmp_path / "run", kind="segmenter")
    for words in (
        ["serve", str(tmp_path / "empty")],
        ["serve", str(run), "--neighbours"],
        ["serve", str(run), "--port", "70000"],
        ["serve", str(run), "--upload_mb", "0"],
        ["serve", str(run), "--host", "192.0.2.1"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
