"""What a segmenter says of new files: a mask of each image's own size, a picture with the outline, and a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from msmae.evidence.predictions import write_predictions
from msmae.stages.pictures import draw_outlines
from msmae.stages.segment_predictor import SegmentationModel


def write_masks(model: SegmentationModel, files: list[Path], out: Path) -> pd.DataFrame:
    """Write OUT/masks, OUT/overlays and OUT/predictions.csv.

    Of one class a mask holds 0 and 255, of several the number of the class. Names are numbered, so that files of the
    same name from different folders keep apart.

    Raises:
        UserError: an image cannot be read.
    """
    from PIL import Image

    for name in ("masks", "overlays"):
        (out / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, file in enumerate(files):
        image = model.read([file])  # [1, channels, H, W]
        mask = model.masks(model.predict(image))[0]  # [H, W]
        name = f"{number:05d}-{file.name.replace('#', '-')}.png"
        Image.fromarray(mask * 255 if len(model.classes) == 1 else mask).save(out / "masks" / name)
        draw_outlines(out / "overlays" / name, image[0].cpu().numpy(), predicted=mask)
        shares = {f"share_{c}": float((mask == n).mean()) for n, c in enumerate(model.classes, start=1)}
        rows.append({"image_path": str(file), "mask": f"masks/{name}", **shares})
    frame = pd.DataFrame(rows)
    write_predictions(frame, out / "predictions.csv")
    print(f"{len(frame)} images outlined: {out / 'masks'}")
    return frame
