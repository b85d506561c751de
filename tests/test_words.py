"""Plain words: phrases that once had to be read twice stay out of pages, messages and docstrings.

Each pattern is meant in the sense beside it; a pattern that hits another sense is too wide, and is narrowed here.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from msmae.cli import dispatch

REPOSITORY = Path(__file__).resolve().parents[1]
WRITE_INSTEAD = {
    "random / attention-guided masking": (
        r"\beven (masks?|masking|ones|draws?|quarter)\b",
        r"masks? (that )?follows? (the )?attention",
    ),
    "training (and validation) images": (
        r"images? (that |which )?(is|are|was|were) learned from",
        r"images? (that |which )?(a|the|it|its) ?(model|encoder)? ?(has )?(learned|learns) from",
        r"pool (that is|[^.]{0,20}models?) (learned|learns?) from",
        r"meets? once",
    ),
    "dropped patches": (r"thrown (patches|ones)", r"patches (are|were|is) thrown", r"masked, thrown", r"ones thrown\b"),
    "refresh the attention maps": (r"maps? (is|are|be|were) made (anew|new)", r"mak(e|ing) the maps"),
    "classify": (r"\bnaming the class\b", r"\bname the class[.,;]", r"names? the class of (an|the) image"),
    "95 % CI 0.6 to 3.8": (r"by what is shown", r"room is left", r"left room"),
    "image size alone predicts the class": (r"can (partly )?be told (apart )?from (the|its) ",),
    "not significant (p = 0.18)": (
        r"no difference (is )?shown",
        r"which is not shown",
        r"(is|are) not shown to (be|differ)",
        r"nothing that is shown",
    ),
    "significant (p = ...)": (r"(?<!agreement.)beyond chance",),
    "training or validation image": (r"(image|one) that (is|was) learned from", r"on both sides of the split"),
    "delete": (r"throw away what the folder holds",),
    "token share, selection": (r"looking at (less|fewer|a quarter|some of)", r"looks? at (a quarter|a share|some of)"),
}
PATTERNS = [
    (re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE), instead)
    for instead, patterns in WRITE_INSTEAD.items()
    for pattern in patterns
]

SURELY_SEVERAL = {
    "beside: {len(names.paths)} images", "calibration: {truth.shape[1]} classes", "checks: {count} images",
    "decoding: {counts.count(rarer):,} images", "masks: {len(self.layers)} classes", "paired: {len(rows)} images",
    "patients: {begins[several[0]]} images", "places: {len(folds)} folds", "progress_lines: {rate:.0f} images",
    "splits: {most} folds",
}  # fmt: skip
"""Counts that are never 1 where they are said, or of another number before them."""


def pages() -> list[Path]:
    """What a user reads that is no code; the lab notes are a log and keep the words of their day."""
    docs = [
        page
        for page in (REPOSITORY / "docs").rglob("*.md")
        if page.name != "lab-notes.md" and page.relative_to(REPOSITORY).parts[1] not in ("_build", "reference")
    ]
    return [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted(docs)]


def sources() -> list[Path]:
    """The package: messages, help, docstrings, templates and recipes."""
    return sorted(f for f in (REPOSITORY / "src").rglob("*") if f.suffix in (".py", ".html", ".yaml", ".md"))


def found_in(files: list[Path]) -> list[str]:
    """Every phrase of the list, with its place and what to write instead; a phrase may go over the end of a line."""
    hits = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        for pattern, instead in PATTERNS:
            for match in pattern.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                hits.append(f"{file.relative_to(REPOSITORY)}:{line} '{match.group()}': write {instead}")
    return hits


@pytest.mark.parametrize(
    "sentence",
    [
        "masks that follow attention are worse than even ones",
        "test images identical to an\nimage that is learned from",
        "patients are in the pool the model learns from",
        "kept, masked, thrown",
        "the maps are made anew",
        "the class can partly be told from the size alone",
        "No difference shown",
        "ahead beyond chance",
        "3 patients with images on both sides of the split",
    ],
)
def test_a_phrase_that_had_to_be_read_twice_would_be_seen(sentence: str) -> None:
    assert any(pattern.search(sentence) for pattern, _ in PATTERNS)


@pytest.mark.parametrize(
    "sentence",
    [
        "agreement beyond chance; 1 is perfect",
        "name the classes with --segment.classes a,b",
        "what is not learned is not shown as if it were",
        "where the class token looks in the last block",
        "even if one image has no mask",
    ],
)
def test_a_plain_sentence_is_left_in_peace(sentence: str) -> None:
    assert not any(pattern.search(sentence) for pattern, _ in PATTERNS)


def test_pages_are_written_in_plain_words() -> None:
    assert len(pages()) > 15
    assert found_in(pages()) == []


def test_the_package_speaks_in_plain_words() -> None:
    assert len(sources()) > 100
    assert found_in(sources()) == []


def test_one_thing_is_never_many() -> None:
    """``1 images`` cannot be said: a message counts with ``count``, unless ``3 of `` stands before the number."""
    counted = re.compile(
        r"(?<! of )\{(?!split|flag|SPLITS)[^{}]*\} "
        r"(images|pairs|patients|pictures|clusters|classes|epochs|folds|masks|labels|conflicts)\b"
    )
    assert counted.search('f"{number} images left out"')
    assert not counted.search('f"3 of {number} images"')
    code = [f for f in sources() if f.suffix == ".py" and f.parent.name not in ("serve", "bench")]
    said = {f"{f.stem}: {match.group()}" for f in code for match in counted.finditer(f.read_text(encoding="utf-8"))}
    assert said == SURELY_SEVERAL


@pytest.mark.parametrize("verb", ["run", "segment", "bench"])
def test_help_says_what_happens_unless_an_option_is_given(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    dispatch([verb, "--help-all"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"usage: msmae {verb}" in told
    assert "None" not in told
    assert ".:" not in told
