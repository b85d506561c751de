"""A model as a folder of the Hugging Face hub: ``model.safetensors``, ``config.json``, and the model card README.md;
beside them ``patients.json`` (and ``patients.safetensors``), where the run answers for patients.

``msmae.load(FOLDER)`` reads it; ``msmae.load("hf://owner/name")`` fetches one first. Nothing is uploaded from here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msmae.encoders.cache import encoders_folder
from msmae.encoders.hub import import_hub, no_network, offline
from msmae.errors import UserError
from msmae.files import read_mapping, write_whole
from msmae.reporting import headline
from msmae.reporting.papers import model_card
from msmae.reporting.run_files import as_answered, read_run_files
from msmae.runs.cards import ModelCard
from msmae.runs.checkpoint import FILE, read_card

NAME = re.compile(r"hf://(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w.-]*))?", re.ASCII)
POOLED, WEIGHTS = "patients.json", "patients.safetensors"
"""How answers for patients are pooled, and the attention that does it where it was chosen."""
USE = """
## Use

```sh
pip install msmae
```

```python
import msmae

model = msmae.load("FOLDER")  # or "hf://owner/name", with the extra msmae[hub]
print(model.classes, model.predict(["image.png"]))  # {said}
```
"""
SAID = {"classifier": "calibrated probabilities", "segmenter": "of each class and pixel the probability"}


def write_folder(run: Path, folder: Path, card: ModelCard) -> None:
    """Copy a run's model into a new folder; README.md is the run's model card. Paths of this machine are left out."""
    model = run / "model" if (run / "model").is_dir() else run
    folder.mkdir(parents=True)
    for name in ("model.safetensors", FILE):
        if (model / name).is_file():
            shutil.copyfile(model / name, folder / name)
    content = asdict(card)
    content["start"] = {name: value for name, value in card.start.items() if name != "path"}
    write_whole(folder / "config.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if pooled := known_of_patients(run):
        write_whole(folder / POOLED, json.dumps(pooled, indent=2, ensure_ascii=False) + "\n")
        if pooled.get("pooling") == "attention":
            shutil.copyfile(model / WEIGHTS, folder / WEIGHTS)
    write_whole(folder / "README.md", readme(run, card) + USE.format(said=SAID[card.kind]))


def known_of_patients(run: Path) -> dict[str, Any]:
    """How a run, or a folder of the hub made of it, answers for patients (or other units): ``unit``, the column that
    names them, ``pooling`` and ``calibration``. Empty: it was not chosen.
    """
    mend = "`msmae evaluate RUN`, or export the folder again"
    if (run / POOLED).is_file():
        return read_mapping(run / POOLED, mend=mend)
    found = (run / "metrics.json").is_file() and read_mapping(run / "metrics.json", mend=mend).get("patients")
    return {name: found[name] for name in ("unit", "pooling", "calibration") if name in found} if found else {}


def unit_of(run: Path) -> str:
    """The column that names a run's units, where they are no patients."""
    named = str(known_of_patients(run).get("unit", ""))
    return "" if named == "patient_id" else named


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise ``UserError`` where the folder holds something already; with ``overwrite`` only where that is no export."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    ours = folder.is_dir() and {path.name for path in folder.iterdir()} <= {
        "model.safetensors",
        FILE,
        "config.json",
        "README.md",
        POOLED,
        WEIGHTS,
    }
    if not ours:
        raise UserError("there is something else of this name", where=str(folder), mend="choose another --out")
    if not overwrite:
        mend = "choose another --out, or add --overwrite"
        raise UserError("the folder holds a model already", where=str(folder), mend=mend)


def readme(run: Path, card: ModelCard) -> str:
    """The run's model card; a short one of a segmenter, and of a model without a tested run."""
    tested = as_answered(read_run_files(run)) if (run / "metrics.json").is_file() else None
    if tested and card.kind == "classifier":
        return model_card(tested)
    figures = "It was exported without the figures of its run."
    if tested:
        figures = " ".join([f"{headline.asked(tested)} {headline.came_out(tested)}", *headline.cautions(tested)])
    task = "image-segmentation" if card.kind == "segmenter" else "image-classification"
    licence = "cc-by-nc-4.0" if card.start.get("limited") else "unknown"
    return (
        f"---\nlicense: {licence}\nlibrary_name: msmae\npipeline_tag: {task}\ntags: [medical-imaging, msmae]\n---\n\n"
        "# A model of msmae\n\nA research result, **not a medical device**. "
        f"Classes: {', '.join(card.classes)}. {figures}\n"
    )


def run_folder(name: str) -> str:
    """The folder that the name of a run means: of a model on the hub the fetched one, of RUN/model RUN."""
    if name.startswith("hf:"):
        return str(fetch_model(name))
    folder = Path(name).resolve()
    ours = all((folder.parent / file).is_file() for file in ("config.yaml", "metrics.json"))
    of_run = ours and folder.name == "model" and (folder / "config.json").is_file() and not (folder / POOLED).is_file()
    return str(Path(name).parent if Path(name).name == "model" else folder.parent) if of_run else name


def fetch_model(name: str) -> Path:
    """The folder of a hub's model, fetched into the cache unless it is there: ``hf://owner/name``, with ``@revision``
    where another than ``main`` is meant. The files are tensors and JSON; no code is fetched or run.

    Raises:
        UserError: not such a name, huggingface_hub is not installed, no network, no such model, or no model of msmae.
    """
    asked = NAME.fullmatch(name)
    if asked is None:
        raise UserError("no name of a model on the hub", where=name, mend="write hf://owner/name")
    repository, revision = asked["repository"], asked["revision"] or "main"
    folder = encoders_folder().parent / "models" / f"{repository.replace('/', '--')}@{revision}"
    if folder.is_dir():
        return folder
    hub = import_hub()
    if offline():
        raise no_network(name)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    unfinished.mkdir(parents=True)
    try:
        needed = ("config.json", "model.safetensors")
        for file in (*needed, FILE, POOLED, WEIGHTS):
            _download(hub, repository, revision, file, unfinished, needed=file in needed)
        read_card(unfinished)
        shutil.rmtree(unfinished / ".cache", ignore_errors=True)
        try:
            os.replace(unfinished, folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _download(hub: object, repository: str, revision: str, file: str, folder: Path, *, needed: bool) -> None:
    errors = hub.errors  # type: ignore[attr-defined]
    where = f"hf://{repository}/{file}"
    try:
        hub.hf_hub_download(  # type: ignore[attr-defined]
            repository, file, revision=revision, local_dir=folder, endpoint=os.environ.get("HF_ENDPOINT")
        )
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise no_network(where) from error
        if needed:
            raise UserError("the hub has no such file", where=where, mend="name a model that msmae exported") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UserError(
            "the hub shows no such model, or not without a token", where=where, mend="check the name, or set HF_TOKEN"
        ) from error
    except (errors.OfflineModeIsEnabled, OSError) as error:
        raise no_network(where) from error
    except errors.HfHubHTTPError as error:
        raise UserError("the hub did not give the file", where=f"{where}: {error}", mend="try again later") from error
