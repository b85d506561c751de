"""Where fetched encoders lie, and what was pinned of each: name, source, licence, checksum.

``$MSMAE_CACHE/encoders/NAME/`` holds the files and ``origin.json``; ``NAME.sha256`` beside the folder keeps the
checksum of the first download, so that another one is noticed.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

from msmae.encoders.catalogue import KNOWN, find_known
from msmae.encoders.files import sha256_of
from msmae.errors import UserError
from msmae.files import read_mapping

ORIGIN = "origin.json"


def encoders_folder() -> Path:
    """The folder of fetched encoders, in $MSMAE_CACHE or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "msmae"
    return Path(os.environ.get("MSMAE_CACHE", default)) / "encoders"


def read_origin(folder: Path) -> dict[str, Any]:
    """What was written when an encoder was fetched into a folder; empty where it was not."""
    path = folder / ORIGIN
    if not path.is_file():
        return {}
    return read_mapping(path, what="the record of the encoder", mend="fetch it anew")


def pinned(name: str) -> str:
    """The checksum that the weights of this name must have: the catalogue's, or the first download's; "" where open."""
    known = find_known(name)
    if known is not None and known.sha256:
        return known.sha256
    path = encoders_folder() / f"{name}.sha256"
    return path.read_text(encoding="ascii").strip() if path.is_file() else ""


def locate(given: str) -> Path:
    """What ``--init`` names, as a path: a file or folder that exists, else the fetched encoder of this name.

    Raises:
        UserError: neither; a name that is known and not fetched yet, or whose file is not the one that was fetched.
    """
    path = Path(given)
    if path.exists():
        return path
    known = find_known(given)
    if known is None:
        near = difflib.get_close_matches(given, [known.name for known in KNOWN], n=1)
        mend = f"did you mean {near[0]}?" if near else "`msmae encoders` lists the names"
        raise UserError("no such file or folder of weights, and no encoder of this name", where=given, mend=mend)
    if known.misfit:
        raise UserError(f"{given} cannot be used here: {known.misfit}", mend="`msmae encoders` lists others")
    folder = encoders_folder() / given
    if not folder.is_dir():
        raise UserError(f"the encoder {given} has not been fetched yet", mend=f"`msmae encoders get {given}`")
    origin = read_origin(folder)
    if sha256_of([folder / known.files[0]]) != (pinned(given) or origin.get("sha256")):
        raise UserError(
            "the weights are not the ones that were fetched: their checksum differs",
            where=str(folder / known.files[0]),
            mend=f"`msmae encoders get {given} --overwrite`",
        )
    return folder
