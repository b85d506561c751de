"""What was done to a run's probabilities after training, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msmae.evidence.wording import figure_value, number, of, split_name

REMEDIES = {
    "class_weights": "Training weighed rare classes more",
    "sampling": "Training drew rare classes more often",
}


def sentences(metrics: Mapping[str, Any], split: str) -> list[str]:
    """What was fitted, on which images, and what it did to the calibration error; empty where it is not recorded."""
    record = metrics.get("calibration")
    if not record:
        return []
    if record.get("method", "none") == "none":
        return [f"The probabilities were not recalibrated: {record.get('reason', 'it was not asked for')}."]
    temperature = record["temperature"]
    kind = "less" if temperature > 1 else "more"
    found = []
    if record.get("weights_undone"):
        found.append(
            f"{REMEDIES.get(record.get('balance', ''), 'Training favoured rare classes')}, so its probabilities are "
            "those of a world where all classes are equally common. That was undone: they now answer for classes as "
            "common as in training. The answers stay as they were trained, so an answer need not be the class with the "
            "largest probability."
        )
    found.append(
        f"One temperature, {number(temperature)}, was fitted on {of(record['images'], 'validation image')}: it makes "
        f"the model {kind} sure."
    )
    if record.get("note"):
        found.append(f"{record['note'][:1].upper()}{record['note'][1:]}.")
    errors = (record.get("errors") or {}).get(split)
    if errors:
        was, became = ({"value": errors["ece"][when]} for when in ("before", "after"))
        found.append(
            f"On the {split_name(split)} images the calibration error was {figure_value('ece', was)} before and is "
            f"{figure_value('ece', became)} after, the log loss {number(errors['log_loss']['before'])} and "
            f"{number(errors['log_loss']['after'])}."
        )
    return found
