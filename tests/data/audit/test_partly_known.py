"""Labels that are known in part: what is not known is no class, and contradicts nothing."""

from __future__ import annotations

import pytest
from test_audit import different, manifest_of

from msmae.data.audit import Audit, audit, find_duplicates
from msmae.data.audit.columns import contradict
from msmae.data.audit.fingerprints import Fingerprints
from msmae.data.manifest import Manifest
from msmae.data.repair import repair

TIMES = 6


def copies(*labels: str) -> tuple[Manifest, Fingerprints]:
    """Different pictures, of which the first occurs once with each of ``labels``; the others show edema, mass or
    none."""
    others = ["edema", "mass", "edema;mass", ";", "?mass;"] * TIMES
    prints = different(len(labels) + len(others))
    prints.record[: len(labels)] = prints.record[0]
    cells = {"patient_id": "", "split": "", "mask_path": ""}
    return manifest_of(
        [{"image_path": f"{row}.png", "label": label, **cells} for row, label in enumerate([*labels, *others])]
    ), prints


def audited(*labels: str) -> Audit:
    manifest, prints = copies(*labels)
    return audit(manifest, prints=prints)


def test_what_is_not_known_is_no_class() -> None:
    found = audited("?edema;mass")
    assert set(found.splits) == {"edema", "mass", "(no finding)", "(no finding known)"}
    assert found.splits["mass"] == {"(none)": 2 * TIMES + 1}
    assert found.splits["(no finding known)"] == {"(none)": TIMES}
    assert found.small_classes == {}


@pytest.mark.parametrize(
    ("labels", "conflict"),
    [
        (("?edema;mass", "mass"), False),
        (("?edema;mass", "edema;mass"), False),
        (("?edema;mass", "edema"), True),
        (("mass", "edema;mass"), True),
        (("?edema;?mass", ";"), False),
        (("edema;?mass", "?edema;mass", "edema"), True),  # of the last two
        (("mass", ""), False),
    ],
)
def test_a_picture_contradicts_itself_by_what_is_known(labels: tuple[str, ...], conflict: bool) -> None:
    found = audited(*labels)
    assert found.label_conflicts == conflict
    assert len(found.details["label_conflicts"]) == conflict
    manifest, prints = copies(*labels)
    mended = repair(manifest, prints, find_duplicates(prints))
    assert len(mended.left_out) == (len(labels) if conflict else len(labels) - 1)


def test_a_repair_keeps_the_copy_of_which_most_is_known() -> None:
    for labels in (("?edema;mass", "edema;mass"), ("edema;mass", "?edema;mass"), ("", "?edema;mass")):
        manifest, prints = copies(*labels)
        kept = repair(manifest, prints, find_duplicates(prints)).kept
        assert {0, 1} & set(kept.tolist()) == {
            max((0, 1), key=lambda row: (labels[row] != "", -labels[row].count("?")))
        }


def test_one_label_an_image_contradicts_every_other() -> None:
    assert contradict("a", "b")
    assert contradict("?", "b")  # without a separator a sign of the name
    assert not contradict("a", "a")
    assert not contradict("a", "")
