"""Fetching a known encoder from the Hugging Face hub: the one place that uses the network, and only when asked."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from msmae.encoders.cache import ORIGIN, encoders_folder, locate, pinned
from msmae.encoders.catalogue import Known
from msmae.encoders.files import sha256_of
from msmae.errors import UserError, installing
from msmae.files import write_whole


def fetch(known: Known, *, overwrite: bool = False) -> Path:
    """Fetch an encoder into the cache, or find it there; its folder.

    The files appear under their name only when all are there and the checksum of the weights is the pinned one; the
    first download pins it.

    Raises:
        UserError: it cannot be used here, needs leave or a network that are not there, or is not what was pinned.
    """
    folder = encoders_folder() / known.name
    if known.misfit:
        raise UserError(f"{known.name} cannot be used here: {known.misfit}", mend="`msmae encoders` lists others")
    if folder.is_dir() and not overwrite:
        return locate(known.name)
    hub = import_hub()
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f"{known.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for number, file in enumerate(known.files):
            download(hub, known, file, unfinished, needed=number == 0)
        digest = sha256_of([unfinished / known.files[0]])
        if (wanted := pinned(known.name)) and digest != wanted:
            raise UserError(
                f"the weights that came are not the known ones: checksum {digest[:12]}..., not {wanted[:12]}...",
                where=f"{known.repository}/{known.files[0]}",
                mend=f"if its owners say that it changed, delete {folder.with_name(known.name + '.sha256')}",
            )
        origin: dict[str, Any] = {
            "name": known.name, "repository": known.repository, "file": known.files[0], "sha256": digest,
            "licence": known.licence, "limited": known.limited,
        }  # fmt: skip
        write_whole(unfinished / ORIGIN, json.dumps(origin, indent=2) + "\n")
        shutil.rmtree(unfinished / ".cache", ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    write_whole(folder.with_name(f"{known.name}.sha256"), f"{digest}\n")
    return folder


def import_hub() -> Any:
    """huggingface_hub; ``UserError`` where it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise UserError("fetching needs huggingface_hub", mend=installing("hub")) from error
    return huggingface_hub


def download(hub: Any, known: Known, file: str, folder: Path, *, needed: bool) -> None:
    """One file of a repository into a folder; one that is not ``needed`` may be missing there."""
    errors = hub.errors
    where = f"{known.repository}/{file}"
    if offline():
        raise no_network(where)
    try:
        hub.hf_hub_download(known.repository, file, local_dir=folder, endpoint=os.environ.get("HF_ENDPOINT"))
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise no_network(where) from error
        if needed:
            raise UserError("the hub has no such file", where=where, mend="look at the repository's page") from error
    except errors.GatedRepoError as error:
        raise UserError(
            f"{known.name} is gated: its owners must let you in first",
            where=f"https://huggingface.co/{known.repository}",
            mend="ask there for access, then set HF_TOKEN or `hf auth login`",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            "the hub shows no such repository, or not without a token", where=where, mend="set HF_TOKEN, and try again"
        ) from error
    except (errors.OfflineModeIsEnabled, OSError) as error:
        raise no_network(where) from error
    except errors.HfHubHTTPError as error:
        raise UserError("the hub did not give the file", where=f"{where}: {error}", mend="try again later") from error


def offline() -> bool:
    """Whether the environment forbids the network (``HF_HUB_OFFLINE``)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def no_network(where: str) -> UserError:
    what = "HF_HUB_OFFLINE forbids the network" if offline() else "the hub cannot be reached"
    mend = "unset it" if offline() else "connect, or fetch the files elsewhere and give their folder to --init"
    return UserError(what, where=where, mend=mend)
