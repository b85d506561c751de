"""Question: does learning from early-pruned tokens make a quarter as good as all?  python experiments/early.py

Takes the models of `pretrained.py --arms 224-all`: DINOv2 ViT-S/14, fine-tuned on all patches. A copy of each learns on
for two epochs with its tokens pruned early: the first blocks see all patches, the rest 1/8 to 1/2 of them, the most
attended. The model that sees all is its teacher, as in `msmae budget`. The copy answers from a quarter. Results stand
beside those of `pretrained.py`, as the arm 224-taught+early. Killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from arms import PUBLIC, REPOSITORY
from collect import add
from pretrained import WEIGHTS, answers_from_a_quarter

from msmae.inference.model import load
from msmae.method.classifier import Classifier
from msmae.runs.checkpoint import load_model, save_model
from msmae.selection.selectors import Selection
from msmae.training.prepare import prepare_again
from msmae.training.selecting.adapt import student_of, train_selection

STUDY, ARM, NEW = "brain-tumor-mri+pretrained", "224-all", "224-taught"
EPOCHS = 2


def main() -> None:
    """Teach what is missing, and collect it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2])
    work = REPOSITORY / "runs" / "experiments" / STUDY
    for fold in parser.parse_args().folds:
        source, out = work / ARM / str(fold), work / f"{NEW}+early" / str(fold)
        told = work / NEW / str(fold) / "metrics.json"
        if not told.is_file():
            began = time.monotonic()
            teach(source, out)
            told.parent.mkdir(parents=True, exist_ok=True)
            cost = json.loads((source / "metrics.json").read_text())["cost"]
            seconds = cost["seconds_finetune"] + time.monotonic() - began  # too few where it was killed
            told.write_text(json.dumps({"cost": {**cost, "seconds_finetune": seconds}}))
        answers = answers_from_a_quarter(source, out, "early", model=load(out))
        add(work, [told, answers], REPOSITORY / "results", STUDY, roots=[PUBLIC, WEIGHTS.parent, REPOSITORY])
        print(json.dumps({"fold": fold, "answers": str(answers)}), flush=True)


def teach(source: Path, out: Path) -> None:
    """Write OUT/model: the model of the run ``source``, taught to answer from early-pruned tokens."""
    prepared = prepare_again(source)
    teacher, card = load_model(source / "model")
    assert isinstance(teacher, Classifier)
    selection = Selection(student_of(teacher, prepared.settings.finetune.drop_path), selector="early")
    train_selection(selection, teacher, prepared, out / "training", epochs=EPOCHS)
    save_model(out / "model", selection.model, card)


if __name__ == "__main__":
    main()
