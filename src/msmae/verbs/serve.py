"""``msmae serve``: a run's model behind a page and an API."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import secrets
from pathlib import Path

from msmae.errors import UserError, installing
from msmae.files import read_mapping

NEEDED = ("fastapi", "uvicorn", "python_multipart")
TOKEN = "MSMAE_TOKEN"  # nosec B105 # the name of the variable that holds it


def serve(
    run: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    neighbours: bool = False,
    upload_mb: int = 64,
    device: str = "cpu",
) -> None:
    """Serve a run's model until Ctrl-C: a page to try it in, and an HTTP API (OpenAPI: /openapi.json).

    Research software, not a medical device. Uploads are not kept. If other machines can reach the address, the server
    asks for a token: the one in the environment variable MSMAE_TOKEN, or a fresh one, which it prints.

    Args:
        run: folder of a finished run, classifier or segmenter, or a model on the hub (hf://owner/name).
        host: address to listen at; by default only this machine can ask.
        port: port to listen at; 0: any that is free.
        neighbours: also show the training images that are most like the upload. These are images of training patients.
        upload_mb: largest request, in MB.
        device: cpu, cuda, ...

    Raises:
        UserError: no model, the extra `serve` is not installed, or the address cannot be had.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"serving needs {', '.join(missing).replace('_', '-')}", mend=installing("serve"))
    if not 0 <= port <= 65535:
        raise UserError(f"port {port}", where="--port", mend="give 0 to 65535")
    if upload_mb < 1:
        raise UserError(f"requests of {upload_mb} MB", where="--upload_mb", mend="give at least 1")
    import dataclasses

    from msmae.inference.hub_folder import run_folder
    from msmae.serve.app import make_app
    from msmae.serve.limits import Limits
    from msmae.serve.server import run_server

    limits = dataclasses.replace(Limits(), upload=upload_mb * 2**20)
    token = os.environ.get(TOKEN) or None
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(32)
    folder = run_folder(run)
    app = make_app(folder, limits=limits, token=token, neighbours=neighbours, device=device)

    def tell(port: int) -> None:
        shown = f"[{host}]" if ":" in host else host
        fragment = f"#token={token}" if token and not os.environ.get(TOKEN) else ""
        print(f"The page: http://{shown}:{port}/{fragment}", flush=True)
        if token:
            where = f"the one in {TOKEN}" if os.environ.get(TOKEN) else token
            print(f"The API asks for the header `Authorization: Bearer TOKEN`; TOKEN is {where}.", flush=True)
        if not is_loopback(host):
            print("The connection is not encrypted: put a TLS proxy in front, or use a trusted network.", flush=True)
        if other := pools_otherwise(Path(folder)):
            print(other, flush=True)
        print("Research software, not a medical device. Ctrl-C ends it.", flush=True)

    run_server(app, host=host, port=port, limits=limits, ready=tell)


def pools_otherwise(run: Path) -> str:
    """A sentence for a run that does not pool a patient's images by the mean, as the server does; else ``""``."""
    metrics = run / "metrics.json"
    known = read_mapping(metrics, mend="`msmae evaluate RUN` writes it anew") if metrics.is_file() else {}
    pooling = (known.get("patients") or {}).get("pooling", "mean")
    if pooling == "mean":
        return ""
    return f"Several images of a patient: the server averages them; this run, like `msmae predict`, pools by {pooling}."


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
