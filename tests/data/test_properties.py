"""What holds of every folder and every table: no image on two sides, no mask among the images, no Unicode surprise."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from unicodedata import normalize

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from listed_files import touch
from msmae.data.audit.duplicates import find_duplicates, keep_together
from msmae.data.audit.fingerprints import RECORD, Fingerprints
from msmae.data.manifest import Manifest
from msmae.data.splits import assign_splits
from msmae.data.tables.layouts import open_dataset
from msmae.errors import UserError

ROW = st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 30), st.integers(0, 6))
IMAGES, MASKS = ("images", "Original", "x_Input", "imgs"), ("masks", "Ground Truth", "x_GroundTruth", "ManualMask")
AROUND = ("{c}/{k}/{n}", "{k}/{c}/{n}", "{s}/{c}/{k}/{n}", "{s}/{k}/{n}", "set/{k}/{s}/{n}", "{k}/{n}")
NAMES = st.text(st.characters(categories=("Lu", "Ll")), min_size=1, max_size=6)


@settings(max_examples=60)
@given(rows=st.lists(ROW, min_size=40, max_size=90), seed=st.integers(0, 5))
def test_no_image_is_in_two_splits_by_any_identity_that_is_known(
    rows: list[tuple[str, int, int, int]], seed: int
) -> None:
    """Patient (0: unknown), picture and cluster: whatever two images share, they share the split."""
    record = np.zeros(len(rows), RECORD)
    record["digest"][:, 0] = [picture for _, _, picture, _ in rows]
    for row, (_, _, picture, _) in enumerate(rows):
        record["hash"][row] = np.random.default_rng(picture).integers(0, 2**16, 16)
    table = pd.DataFrame(
        {
            "image_path": [f"{row}.png" for row in range(len(rows))],
            "label": [label for label, *_ in rows],
            "patient_id": [f"p{patient}" if patient else "" for _, patient, _, _ in rows],
            "cluster": [f"near-{cluster}" if cluster > 4 else "" for *_, cluster in rows],
        },
        dtype=object,
    )
    manifest = Manifest.from_table(table, root=Path(), layout="csv")
    prints = Fingerprints(record, {}, {})
    groups = keep_together(manifest, find_duplicates(prints, near_bits=0), prints)
    try:
        cut = assign_splits(manifest, seed=seed, groups=groups)
    except UserError:
        return  # too few groups of a class
    split = cut.table["split"]
    identities = (
        list(table["patient_id"]),
        [str(picture) for _, _, picture, _ in rows],
        [
            cluster if not patient else ""
            for patient, cluster in zip(table["patient_id"], table["cluster"], strict=True)
        ],
    )
    for names in identities:
        sides = pd.Series(split.to_numpy()).groupby(pd.Series(names)).nunique()
        assert (sides.drop("", errors="ignore") == 1).all()


@settings(max_examples=60)
@given(
    image=st.sampled_from(IMAGES),
    mask=st.sampled_from(MASKS),
    ending=st.sampled_from(["", "_mask", "_segmentation", "_seg_1"]),
    around=st.sampled_from(
        ["{c}/{k}/{n}", "{k}/{c}/{n}", "{s}/{c}/{k}/{n}", "{s}/{k}/{n}", "set/{k}/{s}/{n}", "{k}/{n}"]
    ),
    told=st.sampled_from(["auto", "folder", "unlabelled", "patient-folders", "mask-folders"]),
)
def test_a_mask_is_never_an_image(image: str, mask: str, ending: str, around: str, told: str) -> None:
    with TemporaryDirectory() as folder:
        files = []
        for c in ("benign", "malignant"):
            for s in ("train", "test"):
                name = f"{c}{s}1"
                files += [(around.format(c=c, s=s, k=image, n=f"{name}.png"), False)]
                files += [(around.format(c=c, s=s, k=mask, n=f"{name}{ending}.png"), True)]
        touch(Path(folder), *(path for path, _ in files))
        try:
            manifest = open_dataset(folder, layout=told)
        except UserError:
            return
        assert not set(manifest.table["image_path"]) & {path for path, is_mask in files if is_mask}
        assert all(manifest.table["mask_path"])


@pytest.mark.slow
@settings(max_examples=40)
@given(names=st.lists(NAMES, min_size=2, max_size=4, unique_by=lambda name: normalize("NFKC", name).casefold()))
@example(names=["A", "NÀ"])  # was taken for NA, nobody, where its accent is a character of its own
@example(names=["A", "anonéb"])
def test_the_unicode_form_of_a_name_changes_nothing(names: list[str]) -> None:
    read = []
    for form in ("NFC", "NFD"):
        with TemporaryDirectory() as folder:
            written = [normalize(form, name) for name in names]
            try:
                touch(Path(folder), *(f"x{name}/{name}{n}.png" for name in written for n in range(2)))
                manifest = open_dataset(folder, layout="folder")
                other = [normalize("NFD" if form == "NFC" else "NFC", name) for name in names]
                lines = [f"x{name}/{name}0.png,{name},{name}" for name in other]
                (Path(folder) / "m.csv").write_text("\n".join(["image_path,label,patient_id", *lines]), "utf-8")
                table = open_dataset(Path(folder) / "m.csv")
            except UserError as error:
                read.append(str(error).partition(" (")[0])
                continue
            assert all(table.path(row).is_file() for row in range(len(table)))
            read.append((manifest.classes, table.classes, sorted(table.table["patient_id"])))
    assert read[0] == read[1]
