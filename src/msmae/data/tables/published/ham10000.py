"""HAM10000, pigmented skin lesions (Tschandl et al., Scientific Data 2018): 10,015 images of 7,470 lesions, 7 classes.

Two folders of images, ``HAM10000_metadata`` (CSV), and lesion masks ``<image_id>_segmentation.png``. Several images
show the same lesion, so ``lesion_id`` becomes ``patient_id``.
"""

from __future__ import annotations

from msmae.data.manifest import Manifest
from msmae.data.tables.listing import Listing, by_stem, count, left_out
from msmae.data.tables.tables import find_table, read_table
from msmae.errors import UserError

COLUMNS = ("lesion_id", "image_id", "dx")
MASK_SUFFIX = "_segmentation"


def recognise(listing: Listing) -> str:
    """``HAM10000_metadata`` with the columns lesion_id, image_id and dx."""
    table = _table(listing)
    return f"{table} with the columns {', '.join(COLUMNS)}" if table else ""


def read(listing: Listing) -> Manifest:
    """Label = dx, patient_id = lesion_id; dx_type, age, sex and localization are kept.

    Raises ``UserError`` where the metadata or all of its images are missing.
    """
    source = _table(listing)
    if not source:
        raise UserError(
            "HAM10000_metadata.csv is not here", where=str(listing.root), mend="download it, or check the path"
        )
    table, notes = read_table(listing.root / source)
    stems, copies = by_stem(listing.images)
    found = table["image_id"].isin(set(stems)).to_numpy()
    if not found.any():
        raise UserError(
            f"no image of {source} is here", where=str(listing.root), mend="put the image folders beside it"
        )
    further = len(set(stems) - set(table["image_id"]) - {f"{image}{MASK_SUFFIX}" for image in table["image_id"]})
    notes += [
        f"lesion_id as patient_id: {count(table.loc[found, 'lesion_id'].nunique(), 'lesion')}",
        *left_out(int((~found).sum()), "row", f"of {source}, without an image here"),
        *left_out(further, "image", f"not in {source}"),
        *left_out(copies, "image", "of the same name as another"),
    ]
    table = table[found]
    masks = [stems.get(f"{image}{MASK_SUFFIX}", "") for image in table["image_id"]]
    notes.append(f"{count(sum(map(bool, masks)), 'image')} with a lesion mask")
    table = table.assign(image_path=[stems[image] for image in table["image_id"]], mask_path=masks)
    table = table.rename(columns={"dx": "label", "lesion_id": "patient_id"}).drop(columns="image_id")
    return Manifest.from_table(table, root=listing.root, layout="ham10000", notes=notes)


def _table(listing: Listing) -> str:
    return find_table(listing, r"ham10000_metadata(\.\w+)?", COLUMNS)
