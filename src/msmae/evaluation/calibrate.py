"""Probabilities that mean what they say: fitted on the validation images after every training, kept with the model.

A loss that weighs rare classes more teaches probabilities for a world in which all classes are equally common. The
weights are taken off again, and one temperature is fitted. What the model *answers* stays what it learned to answer:
the weights were given so that rare classes are found.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from msmae.statistics.calibration import Calibrator, calibration_errors, recalibrate
from msmae.training.balance import Balance, decide_balance
from msmae.training.prepare import Prepared


def calibrate(frame: pd.DataFrame, prepared: Prepared) -> tuple[pd.DataFrame, Calibrator | None, dict[str, Any]]:
    """Calibrate predictions of the validation and test images; the labels of the validation images alone are used.

    Returns the predictions with calibrated probabilities (``predicted`` as it was), the calibrator, and what
    ``metrics.json`` says about it. Without a labelled validation image nothing is changed, and the reason is given.
    """
    classes, multilabel = prepared.manifest.classes, prepared.manifest.multilabel
    if not ((frame["split"] == "val") & (frame["label"] != "")).any():
        return frame, None, {"method": "none", "reason": "there is no labelled validation image to fit it on"}
    balance = decide_balance(prepared)
    undone = weights_to_undo(balance, multilabel=multilabel)
    calibrated, calibrator = recalibrate(
        frame,
        classes=classes,
        class_weights=None if undone is None else undone.tolist(),
        multilabel=multilabel,
    )
    record = {
        **asdict(calibrator),
        "temperature": 1 / calibrator.scale[0],
        "balance": balance.remedy,
        "weights_undone": undone is not None,
        "errors": calibration_errors(frame, calibrated, classes=classes, multilabel=multilabel),
    }
    return calibrated, calibrator, record


def weights_to_undo(balance: Balance, *, multilabel: bool) -> np.ndarray | None:
    """The class weights [C] that are in the probabilities; None where there are none, or where they are not known.

    Logit adjustment leaves the frequencies of the classes out of the logits, as weights of one over them would. Drawing
    classes equally often is a weight too; with several labels per image it is not the same for all images of a class,
    and the temperature alone must do.
    """
    if balance.remedy == "logit_adjustment":
        return np.asarray(np.exp(-balance.shift.double().numpy()))
    if balance.remedy == "class_weights":
        return np.asarray(balance.weights.double().numpy())
    if balance.remedy == "sampling" and not multilabel:
        return np.asarray(balance.even.double().numpy())
    return None
