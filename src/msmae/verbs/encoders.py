"""``msmae encoders``: which pretrained encoders are known; ``msmae encoders get NAME`` fetches one."""

from __future__ import annotations

import difflib

from msmae.encoders.catalogue import KNOWN, Known, find_known
from msmae.errors import UserError


def encoders(action: str | None = None, name: str | None = None, *, overwrite: bool = False) -> None:
    """List the known pretrained encoders, or fetch one. No other command uses the network.

    Args:
        action: `get` fetches one. Unless given: list them.
        name: the encoder to fetch.
        overwrite: fetch it again.

    Raises:
        UserError: no such action or name; or the encoder cannot be fetched.
    """
    if action is None:
        show_known()
        return
    if action != "get":
        raise UserError(f"no action '{action}'", where="msmae encoders", mend="`msmae encoders get NAME`, or no word")
    known = find_known(name or "")
    if known is None:
        near = difflib.get_close_matches(name or "", [known.name for known in KNOWN], n=1)
        mend = f"did you mean {near[0]}?" if near else "`msmae encoders` lists the names"
        raise UserError(f"no encoder '{name}'" if name else "no name of an encoder", mend=mend)
    from msmae.encoders.hub import fetch

    print(f"- licence of {known.name}: {known.licence}", flush=True)
    if known.limited:
        print("- what you train from it falls under the same licence")
    folder = fetch(known, overwrite=overwrite)
    print(f"  encoder          {folder}")
    print(f"  use it           msmae run DATA --init {known.name} --out RUN")


def show_known() -> None:
    """Print the table, and which of them have been fetched."""
    from msmae.encoders.cache import encoders_folder, pinned

    for known in KNOWN:
        there = (encoders_folder() / known.name).is_dir()
        print(f"{known.name}{'  (fetched)' if there else ''}")
        for line in describe(known, pinned(known.name)):
            print(f"    {line}")


def describe(known: Known, checksum: str) -> list[str]:
    """What is known of an encoder, a line each."""
    size = "" if known.megabytes is None else f", {known.megabytes:g} MB"
    gated = "; gated: its owners must let you in" if known.gated else ""
    lines = [
        f"{known.parameters:g} million parameters, patches of {known.patch} px; trained on {known.trained_on}",
        f"licence: {known.licence}{gated}",
        f"images: {known.normalisation}, on values of 0 to 1",
        f"source: https://huggingface.co/{known.repository} ({known.files[0]}{size})",
        f"sha256: {checksum or 'not known yet; the first download pins it'}",
    ]
    return [*lines, f"cannot be used here: {known.misfit}"] if known.misfit else lines
