"""Answers as the API gives them: numbers and names, image by image and of the patient."""

from __future__ import annotations

from typing import Any

import numpy as np

from msmae.errors import UserError
from msmae.serve.decode import Decoded
from msmae.serve.engine import Answer, Engine, layer_png
from msmae.serve.limits import Refused
from msmae.serve.quality import flags_of
from msmae.statistics.answers import name_classes


def refuse_useless_keep(engine: Engine, keep: float) -> None:
    """Raise Refused for a share that leaves no patch, or has no effect."""
    try:
        engine.check_keep(keep)
    except UserError as error:
        raise Refused(422, "keep", str(error)) from None


def described(engine: Engine, name: str, item: Decoded, answer: Answer, *, pictures: bool) -> dict[str, Any]:
    """One image's part of the answer."""
    height, width = item.own
    image: dict[str, Any] = {
        "name": name,
        "height": height,
        "width": width,
        "milliseconds": round(answer.milliseconds, 3),
        "flags": flags_of(
            item.array,
            item.own,
            colour=item.colour,
            card=engine.card,
            doubtful=answer.own
            and answer.probabilities is not None
            and engine.uncertainty.doubts(answer.probabilities),
        ),
    }
    if pictures:
        image |= {"picture": item.picture, "grey": item.grey, "reconstruction": answer.reconstruction}
    if answer.layers is not None:
        image["layers"] = {
            cls: {"share": float(layer.mean()), "mask": layer_png(layer) if pictures else None}
            for cls, layer in zip(engine.classes, answer.layers, strict=True)
        }
        image["predicted"] = ";".join(cls for cls, layer in image["layers"].items() if layer["share"] > 0) or ";"
        return image
    assert answer.probabilities is not None
    thresholds = engine.uncertainty.thresholds
    image |= {
        "probabilities": by_class(engine, answer.probabilities),
        "predicted": answer.predicted,
        "conformal_set": engine.uncertainty.set_of(answer.probabilities, engine.classes) if answer.own else None,
        "kept": answer.kept,
    }
    if thresholds is not None and answer.own:
        reached = (answer.probabilities >= np.array(thresholds)).tolist()
        image["present"] = dict(zip(engine.classes, reached, strict=True))
    if answer.map is not None:
        image["map"] = np.round(answer.map.astype(float), 4).tolist()
    return image


def together(engine: Engine, answers: list[Answer]) -> dict[str, Any]:
    """All images as one patient: the mean of their calibrated probabilities."""
    known = [answer.probabilities for answer in answers if answer.probabilities is not None]
    if not known:
        return {"images": len(answers)}
    mean = np.mean(known, axis=0)
    several = len(known) > 1
    rule = {"multilabel": engine.card.multilabel, "thresholds": engine.card.thresholds}
    predicted = name_classes(mean[None], engine.classes, **rule)[0]
    return {
        "images": len(answers),
        "probabilities": by_class(engine, mean),
        "predicted": predicted,
        "conformal_set": engine.uncertainty.set_of(mean, engine.classes, patient=several)
        if all(answer.own for answer in answers)
        else None,
    }


def by_class(engine: Engine, probabilities: np.ndarray) -> dict[str, float]:
    """Class -> probability, of six digits."""
    return {name: round(float(p), 6) for name, p in zip(engine.classes, probabilities, strict=True)}
