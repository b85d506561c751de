"""The images of a run, found again in the folder that they were moved to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from msmae.data.manifest import SEPARATOR, Manifest, join_mask, read_manifest
from msmae.data.tables.listing import count, some
from msmae.errors import UserError
from msmae.runs.folder import read_config

TRIED = 20  # images that are looked for before a run's data counts as moved


def locate_images(run: Path, root: str | None) -> None:
    """With ``root``, the folder of the run's data where it lies now, have RUN/manifest.csv name the images there.

    Raises:
        UserError: not all images and masks are in ``root``; the manifest stays as it was. Or without it: the images
            are not where they were.
    """
    manifest = read_manifest(run / "manifest.csv")
    if root is None:
        first = files_of(manifest.select(range(min(TRIED, len(manifest)))))
        if not any(map(os.path.exists, first)):
            mend = "put them back, or name the folder of the data where it lies now: --root DIR"
            raise UserError(f"the images of the run are gone, the first is {first[0]}", where=str(run), mend=mend)
        return
    given = os.path.abspath(str(read_config(run / "config.yaml")["data"]))
    files = files_of(manifest)
    shared = os.path.commonpath([os.path.dirname(file) for file in files])
    above = [place for place in (given, os.path.dirname(given)) if os.path.commonpath([place, shared]) == place]
    lacking: dict[str, list[str]] = {}  # folder that ROOT may take the place of -> files that are not there then
    for old in (*above, shared):
        new = rebased(manifest, old, os.path.abspath(root))
        lacking[old] = [file for file in files_of(new) if not os.path.exists(file)]
        if not lacking[old]:
            new.write(run / "manifest.csv", record=True)
            print(f"- {run / 'manifest.csv'} names the images in {root}")
            return
    old = next(iter(lacking))
    what = f"{count(len(lacking[old]), 'file')} missing: {some(lacking[old], at_most=3)}"
    raise UserError(what, where=f"--root {root}", mend=f"name the folder that takes the place of {old}")


def files_of(manifest: Manifest) -> list[str]:
    """The files of all images and masks, as whole paths."""
    paths = [path for row in range(len(manifest)) for path in (manifest.path(row), *manifest.mask_paths(row))]
    files = (re.sub(r"(\.npz)#.*", r"\1", str(path), flags=re.DOTALL) for path in paths)  # rows of an archive
    return list(dict.fromkeys(map(os.path.abspath, files)))


def rebased(manifest: Manifest, old: str, new: str) -> Manifest:
    """The same images and masks, those in the folder ``old`` at the same place in ``new``."""

    def place(path: Path) -> str:
        return os.path.join(new, os.path.relpath(os.path.abspath(path), old))

    masks = [
        SEPARATOR.join(join_mask(name, place(path)) for name, path in manifest.masks(row))
        for row in range(len(manifest))
    ]
    images = [place(manifest.path(row)) for row in range(len(manifest))]
    return manifest.with_columns({"image_path": images, "mask_path": masks})
