"""Files named like another: changed copies of a picture (``scan1_flip`` and ``rotated_90_scan1`` of ``scan1``), its
views and its parts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from msmae.data.manifest import Manifest, plain
from msmae.data.tables.listing import count, without_suffix

COPIED, ALIKE = "near-copied ", "near-named "
"""How the names of clusters begin: copies of one picture by their names; and files that have its name and more."""
_WORDS = (
    r"(?:aug(?:mented|mentation)?|[hv]?flip(?:ped)?(?:lr|ud)?|rot(?:ated?|ation)?|mirror(?:ed)?|nois[ey]|blur(?:red)?|"
    r"bright(?:ness)?|copy)"
)
_MORE = (
    r"(?:transform(?:ed)?|elastic|crop(?:ped)?|zoom(?:ed)?|shift(?:ed)?|shear(?:ed)?|inverted|"
    r"gedreht|gespiegelt|rotad[oa]|espejo|volte?ad[oa]|girad[oa]|ruotat[oa]|specchiat[oa]|pivot[eé]e?|retourn[eé]e?)"
)
COPY = re.compile(rf"(?:\.rf\.[0-9a-f]{{8,}}|[-_ ]{_WORDS}(?:[-_ ]?[a-z]?\d{{1,4}})?)$", re.IGNORECASE)
"""What the name of a changed copy has behind the name of the picture that it was made of."""
ROBOFLOW = re.compile(r"\.rf\.[0-9a-f]{8,}$", re.IGNORECASE)
"""What Roboflow writes behind it: no other names end so."""
BEHIND = re.compile(rf"[-_ ]{_MORE}(?:[-_ ]?\d{{1,4}})?$|[-_ ]\d{{1,5}}[-_ ]\d{{2,5}}$", re.IGNORECASE)
"""The same, where that picture is there: ``x_transformed_1``, ``x_0_1234`` (Keras)."""
ANGLE = re.compile(r"[-_ ](?:90|180|270)(?:deg|°)?$")
NUMBER = re.compile(r"[-_ ](?!(?:90|180|270|0|360)$)\d{1,3}$")
BEFORE = re.compile(rf"(?:{_WORDS}|{_MORE})(?:[-_ ]?\d{{1,3}})?[-_ ](?=.)", re.IGNORECASE)
WORD_BEFORE = re.compile(rf"(?:{_WORDS}|{_MORE})[-_ ](?=.)", re.IGNORECASE)
"""What it has before the name of the picture: ``flip_x``, ``aug_1_x``."""
DRAWN = re.compile(rf"{_WORDS}[-_ ](\d+)[-_ ]\d+$", re.IGNORECASE)
"""A copy as Keras calls it, by the number of its picture and one by chance: ``aug_0012_821`` of ``IMG_0012``."""
COPY_BEHIND = re.compile(r"\s?-?\s?(?:\b(?:copy|kopie|copie|copia|cópia|副本)\b\s?)?(?:\(\d{1,2}\))?$", re.IGNORECASE)
COPY_BEFORE = re.compile(r"^(?:copy of|kopie von|copie de|copia de|cópia de|copia di)[ _]", re.IGNORECASE)
"""What a computer writes behind or before a file's name where it is copied: ``a - Kopie (2)``, ``Copia de a``."""
SIGN = re.compile(r"[-_ (+]")
MOST = 20
"""Files that may have one name and more: with more of them, the name is a word that all begin with."""
TELLING = re.compile(r"(?=.*[^\W\d_])(?=.*\d)|\d{5}")
"""A name that another folder's picture has not by chance: with a letter and a digit, or with a long number."""
COUNTED = re.compile(r"[-_ ]?\(?\d+\)?$")
"""A number behind a name."""
COUNTER = 3
"""Files from which numbers behind one name without a digit only count: ``image(1)`` to ``image(59)``, ``img_1``."""


def with_copies(manifest: Manifest) -> Manifest:
    """Name what goes with a picture by its file's name in the column ``cluster``, together with the picture: no cut
    parts them, and they are no patients.

    Changed copies (``a_aug1``, ``flip_a``, ``a.rf.3f2a91c0``) go with it from another folder too, where one picture
    alone of that label (and patient) is called so. In one folder, so does whatever has its name and more (``a_roi``,
    ``a-1``), or is it in another format.
    """
    if "cluster" in manifest.table:
        return manifest
    stems = {path: without_suffix(path) for path in manifest.table["image_path"]}
    names = _Names.of(manifest, stems)
    paths = list(stems)  # files, however many planes of one there are
    of = {path: names.original(stem) for path, stem in stems.items()}
    sizes = Counter(base for base, _ in of.values())
    few = {base for base, number in sizes.items() if number > 1 and (base in names.said or number <= MOST)}
    copied = {base for base, changed in of.values() if changed}
    several = sorted((len(path), path) for path in paths if of[path][0] in few)
    firsts = {of[path][0]: path for _, path in reversed(several)}
    others = sorted(path for _, path in several if firsts[of[path][0]] != path)
    if not others:
        return manifest
    clusters = {base: f"{COPIED if base in copied else ALIKE}{plain(base)}" for base in few}
    together = [clusters.get(of[path][0], "") for path in manifest.table["image_path"]]
    note = (
        f"{count(len(others), 'image')} named like another, as a changed copy of it, a view, a part or another format: "
        f"kept together with it where splits are cut ({others[0]})"
    )
    return manifest.with_columns({"cluster": together}, notes=[note])


@dataclass(frozen=True)
class _Names:
    """The files by their paths without suffix, and what is known of each: label and patient."""

    said: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, manifest: Manifest, stems: Mapping[str, str]) -> _Names:
        columns = manifest.table[["image_path", "label", "patient_id"]].itertuples(index=False, name=None)
        return cls({stems[path]: (label, patient) for path, label, patient in columns})

    def original(self, name: str) -> tuple[str, bool]:
        """The name of the picture that one of this name goes with, its own where it stands for itself; and whether it
        is a changed copy: of a picture that is there, or called so by a program."""
        base, changed = name, False
        while copied := self._copied(base):
            changed = changed or copied in self.said or bool(ROBOFLOW.search(base))
            base = copied
        while (longer := base) in self.said and (base := self._beside(longer)) != longer:
            pass
        return base, changed

    def _copied(self, name: str) -> str:
        """The picture that a changed copy was made of; ``""`` where the name is none of a copy."""
        folder, sign, file = name.rpartition("/")
        for base in self._bases(name, file):
            if folder + sign + base in self.said:
                return folder + sign + base
            if there := self._elsewhere(name, base):
                return there
        if ROBOFLOW.search(file):
            known = self.said.get(name, ())  # in whatever folders its copies lie, one picture of a label and patient
            return "/".join(filter(None, (*known, ROBOFLOW.sub("", file))))
        base = COPY.sub("", file)
        return folder + sign + base if base not in ("", file) else ""

    def _bases(self, name: str, file: str) -> Iterator[str]:
        """What the picture may be called that a file is a copy of."""
        found = [COPY.sub("", file), BEHIND.sub("", file)]
        found += [] if self._only_counts(name) else [COPY_BEFORE.sub("", COPY_BEHIND.sub("", file))]
        found += [BEFORE.sub("", file, count=1), WORD_BEFORE.sub("", file, count=1)] if BEFORE.match(file) else []
        if ANGLE.search(file) and ANGLE.sub("", name) not in self._numbered:
            found.append(ANGLE.sub("", file))
        yield from (base for base in found if base not in ("", file))

    def _elsewhere(self, name: str, base: str) -> str:
        """The one picture of this name in any folder, of the same label and patient as the copy where these are known;
        ``""`` where there is none, or several, or the name is one that pictures have by chance."""
        places = self._places.get(base, [])
        if len(places) > MOST or not TELLING.search(base):
            return ""
        there = [other for other in places if self._may_be_one(name, other)]
        return there[0] if len(there) == 1 else ""

    def _only_counts(self, name: str) -> bool:
        """Whether the number behind a name is its place among several of that name."""
        base = COUNTED.sub("", name)
        return base != name and not re.search(r"\d[^/]*$", base) and self._counted[base] >= COUNTER

    def _may_be_one(self, name: str, other: str) -> bool:
        pairs = zip(self.said.get(name, ("", "")), self.said[other], strict=True)
        return all(one == two or not (one and two) for one, two in pairs)

    def _beside(self, name: str) -> str:
        """A picture in the same folder whose name this one has with more behind it, and not too many others."""
        start = name.rfind("/") + 1
        cuts = [match.start() for match in SIGN.finditer(name, start + 1)]
        if len(name) - start > 1 and name[-1].isalpha() and name[-2].isdigit():
            cuts.append(len(name) - 1)
        for cut in [] if self._only_counts(name) else reversed(cuts):
            shorter = name[:cut]
            if shorter in self.said and self._companions[shorter] <= MOST and self._may_be_one_person(name, shorter):
                return shorter
        drawn = DRAWN.match(name, start)
        numbered = self._by_number.get((name[:start], drawn[1]), []) if drawn else []
        return numbered[0] if len(numbered) == 1 else name

    def _may_be_one_person(self, name: str, other: str) -> bool:
        one, two = self.said[name][1], self.said[other][1]
        return one == two or not (one and two)

    @cached_property
    def _companions(self) -> Counter[str]:
        """How many names in its folder have a name and a sign and more."""
        found: Counter[str] = Counter()
        for name in self.said:
            start = name.rfind("/") + 2
            found.update({name[: match.start()] for match in SIGN.finditer(name, start)} & self.said.keys())
        return found

    @cached_property
    def _counted(self) -> Counter[str]:
        """How many names are another and a number."""
        return Counter(COUNTED.sub("", name) for name in self.said if COUNTED.search(name))

    @cached_property
    def _numbered(self) -> set[str]:
        """The names that others count on from, with another number than an angle."""
        return {NUMBER.sub("", name) for name in self.said if NUMBER.search(name)}

    @cached_property
    def _places(self) -> dict[str, list[str]]:
        """The names without folders -> with them."""
        found: dict[str, list[str]] = {}
        for name in self.said:
            found.setdefault(name.rpartition("/")[2], []).append(name)
        return found

    @cached_property
    def _by_number(self) -> dict[tuple[str, str], list[str]]:
        """Folder and last number -> the pictures there that are called so, copies aside."""
        found: dict[tuple[str, str], list[str]] = {}
        for name in self.said:
            start = name.rfind("/") + 1
            if (numbers := re.findall(r"\d+", name[start:])) and not BEFORE.match(name, start):
                found.setdefault((name[:start], numbers[-1]), []).append(name)
        return found
