"""``msmae embed``: what a frozen encoder says of images, as arrays for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msmae.config import DatasetSettings, ModelSettings, Settings
from msmae.errors import UserError, count


def embed(
    source: str,
    data: str,
    *,
    out: str,
    image_size: int | None = None,
    layout: str = "auto",
    on_error: str = "stop",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Compute two vectors an image with a frozen encoder: its class token (or what replaces it), and the patches' mean.

    Under torchrun, or srun of SLURM, the processes share the images, and the first writes the file.

    Args:
        source: a run's folder, a model on the hub (hf://owner/name), a name of `msmae encoders`, or a file or folder of
            encoder weights.
        data: a folder, a CSV/TSV manifest, an .npz, or `phantom`.
        out: the file to write, .npz (numpy) or .parquet (needs pyarrow).
        image_size: side in pixels to which images are resized. Unless given: a run's own, or the images' own up to 168.
        layout: how the folder or table is laid out, as in `msmae check`.
        on_error: what happens at an unreadable image. stop: the command stops; skip: it is left out and named.
        overwrite: replace the file if it is there.

    Returns:
        {"out", "images", "width", "left_out"}.

    Raises:
        UserError: the encoder, the data or the file cannot be used.
    """
    target = Path(out)
    if target.suffix not in (".npz", ".parquet"):
        raise UserError(f"{target.name} is neither .npz nor .parquet", where="--out", mend="name it features.npz")
    if target.suffix == ".parquet":
        check_parquet()
    from msmae.runs.folder import check_output

    check_output(target, overwrite=overwrite)
    import numpy as np

    from msmae.data.opening import cache_folder, open_data
    from msmae.data.reading.checks import by
    from msmae.data.reading.images import Reading
    from msmae.data.store import open_store
    from msmae.data.tables.listing import TABLES
    from msmae.files import whole
    from msmae.inference.bulk import Ranks
    from msmae.inference.features import shared_features
    from msmae.inference.hub_folder import run_folder
    from msmae.inference.items import columns_there
    from msmae.progress import ProgressBar
    from msmae.statistics.predictions import identity_columns
    from msmae.training.frozen import find_frozen

    table = Path(data).is_file() and data.lower().endswith(TABLES)
    columns: dict[str, Any] = columns_there(Path(data)) if table else {}
    settings = Settings(
        dataset=DatasetSettings(layout=layout, on_error=on_error, **columns),  # type: ignore[arg-type]
        model=ModelSettings(image_limit=168),
    )
    manifest = open_data(data, settings)
    found = find_frozen(run_folder(source), manifest, image_size=image_size, settings=settings)
    store = open_store(
        manifest,
        size=found.size,
        channels=found.channels,
        cache=cache_folder() / "stores",
        reading=found.reading or Reading(),
        smallest=found.patch_size,
        on_error=on_error,
        progress=ProgressBar("decoding images"),
    )
    rows = np.array([i for i in range(len(manifest.table)) if i not in store.excluded])
    target.parent.mkdir(parents=True, exist_ok=True)
    ranks = Ranks.here()
    if len(rows) < ranks.world:
        raise UserError(f"{count(len(rows), 'image')} for {ranks.world} processes", where=data, mend="start fewer")
    frozen = found.frozen(store, rows)
    if ranks.first:
        print(f"- images are seen at {by(found.size)} px")
    if ranks.first and (told := found.by_these(store, rows)):
        alone = "other images' features compare with these only where one command embeds both"
        print(f"- normalised by these images ({told}): {alone}")
    features = shared_features(frozen, store, rows, ranks, target)
    said = {"out": str(target), "images": len(rows), "width": frozen.encoder.width, "left_out": len(store.excluded)}
    if features is None:
        return said
    named = [*identity_columns(manifest.table), "label", "patient_id", "split"]  # of a volume's slice also which
    columns = {name: manifest.table[name].to_numpy(dtype=str)[rows] for name in named}
    with whole(target) as unfinished:
        if target.suffix == ".npz":
            with unfinished.open("wb") as stream:
                np.savez(stream, image=features.image, patches=features.patches, **columns)
        else:
            write_parquet(unfinished, features, columns)
    print(
        f"{count(len(rows), 'image')}; {features.image.shape[1]} numbers each, and as many for the mean of the "
        f"patches: {target}"
    )
    if found.card is not None and found.card.members > 1:
        print(f"  they come from the first of the run's {found.card.members} models")
    for row, reason in store.excluded.items():
        print(f"  left out: {manifest.table['image_path'].iloc[row]}: {reason}")
    return said


def check_parquet() -> None:
    """Raise ``UserError`` where pandas cannot write Parquet."""
    import importlib.util

    if importlib.util.find_spec("pyarrow") is None:
        raise UserError("writing .parquet needs pyarrow", where="--out", mend="pip install pyarrow, or name it .npz")


def write_parquet(path: Path, features: Any, columns: dict[str, Any]) -> None:
    """One row an image: its columns, then ``image_0`` ... and ``patches_0`` ..."""
    import pandas as pd

    parts = {"image": features.image, "patches": features.patches}
    numbers = {f"{name}_{i}": values[:, i] for name, values in parts.items() for i in range(values.shape[1])}
    pd.DataFrame({**columns, **numbers}).to_parquet(path, index=False)
