"""``msmae demo``: the main job on the embedded phantom, ending with the table, the pictures and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msmae.files import read_mapping
from msmae.verbs.run import run


def demo(*, out: str = "runs/demo", method: str = "msmae", seed: int = 0, overwrite: bool = False) -> dict[str, Any]:
    """Find a lesion, mask it, reconstruct it, name it: pre-train, fine-tune and test on the phantom.

    A finished demo is shown again, not run again.

    Args:
        out: folder of the run.
        method: the arm, that is, how the model is trained, as in `msmae run`.
        seed: seed of every random draw.
        overwrite: first delete all that the folder holds, also an earlier run.

    Returns:
        The content of metrics.json.
    """
    finished = Path(out) / "metrics.json"
    if finished.is_file() and not overwrite:
        from msmae.verbs.show import show_result

        metrics = read_mapping(finished, mend="add --overwrite")
        print(f"{out} is finished: shown again, not trained again (--overwrite trains it again)")
        show_result(metrics, Path(out))
    else:
        metrics = run("phantom", out=out, method=method, preset="demo", seed=seed, overwrite=overwrite)
    pictured = (Path(out) / "masks" / "masks.json").is_file()  # or the demo ended before its pictures
    if (Path(out) / "pretrained").is_dir() and not pictured:
        from msmae.verbs.masks import masks

        masks(out)
    print(f"  try it in        msmae serve {out}")
    return metrics
