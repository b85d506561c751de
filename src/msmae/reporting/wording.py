"""Numbers and names as a person reads them: 99.3 % (98.5 to 99.8) instead of 0.9933665008291874."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """How a metric is called and read."""

    name: str
    meaning: str
    """What it says, in one clause."""
    percent: bool = False
    bounded: bool = True
    """It lies between 0 and 1."""


FIGURES: dict[str, Figure] = {
    "accuracy": Figure("Accuracy", "share of images classified correctly", percent=True),
    "balanced_accuracy": Figure(
        "Balanced accuracy", "mean sensitivity of the classes: rare classes count as much as common ones", percent=True
    ),
    "auroc": Figure("AUROC", "probability that an image with a class ranks above one without it; chance is 0.5"),
    "auprc": Figure("AUPRC", "mean precision over all thresholds; chance is the prevalence"),
    "auroc_micro": Figure("AUROC, all classes pooled", "as AUROC, over all pairs of image and class"),
    "auprc_micro": Figure("AUPRC, all classes pooled", "as AUPRC, over all pairs of image and class"),
    "f1_macro": Figure("F1", "harmonic mean of sensitivity and positive predictive value, mean over classes"),
    "f1_micro": Figure("F1, all classes pooled", "harmonic mean of sensitivity and positive predictive value"),
    "sensitivity_macro": Figure("Sensitivity", "share of a class that is found, mean over classes", percent=True),
    "specificity_macro": Figure(
        "Specificity", "share of the other images that is not given the class, mean over classes", percent=True
    ),
    "ppv_macro": Figure(
        "Positive predictive value", "share of the answers that are right, mean over classes", percent=True
    ),
    "npv_macro": Figure(
        "Negative predictive value", "share of the negative answers that are right, mean over classes", percent=True
    ),
    "mcc": Figure("Matthews correlation", "agreement corrected for chance; 1 is perfect, 0 is chance", bounded=False),
    "kappa": Figure("Cohen's kappa", "agreement corrected for chance; 1 is perfect, 0 is chance", bounded=False),
    "kappa_quadratic": Figure(
        "Quadratic-weighted kappa", "as kappa; distant grades weigh more than neighbouring ones", bounded=False
    ),
    "mean_absolute_error": Figure(
        "Mean error in grades", "mean distance between answer and true grade; 0 is perfect", bounded=False
    ),
    "brier": Figure("Brier score", "squared error of the probabilities; 0 is perfect", bounded=False),
    "log_loss": Figure("Log loss", "minus the log probability of the true class, in nats; 0 is perfect", bounded=False),
    "ece": Figure("Calibration error", "mean gap between confidence and share of right answers", percent=True),
    "prevalence": Figure("Prevalence", "share of images that have the class", percent=True),
    "sensitivity": Figure("Sensitivity", "share of the images with the class that is found", percent=True),
    "specificity": Figure("Specificity", "share of the images without the class that is not given it", percent=True),
    "ppv": Figure("PPV", "share of the answers of this class that are right", percent=True),
    "npv": Figure("NPV", "share of the other answers that are right", percent=True),
    "f1": Figure("F1", "harmonic mean of sensitivity and PPV"),
    "calibration_slope": Figure("Calibration slope", "1 is calibrated, below 1 is overconfident", bounded=False),
    "calibration_intercept": Figure(
        "Calibration intercept", "0 is calibrated; above 0: probabilities too low, below 0: too high", bounded=False
    ),
    "dice": Figure("Dice", "overlap of outline and lesion; 1 is perfect; no lesion but an outline counts 0"),
    "dice_lesion": Figure("Dice, lesion images", "mean over the images with a lesion; a missed lesion counts 0"),
    "iou": Figure("Intersection over union", "shared area over joint area; 1 is perfect"),
    "hd95": Figure(
        "Hausdorff distance (95 %)", "how far outlines lie apart, in pixels, at the 95th percentile", bounded=False
    ),
    "nsd": Figure("Surface Dice", "share of the outlines that agree within the tolerance"),
    "pixel_sensitivity": Figure("Sensitivity", "share of a lesion's pixels that were outlined", percent=True),
    "pixel_precision": Figure("Precision", "share of the outlined pixels that are lesion", percent=True),
    "lesion_sensitivity": Figure("Lesions found", "share of the lesions that an outlined region covers", percent=True),
    "lesion_precision": Figure("Regions on a lesion", "share of the outlined regions that cover one", percent=True),
}

SPLITS = {
    "train": "training",
    "val": "validation",
    "test": "test",
    "internal": "internal test",
    "external": "external test",
    "": "not used",
}
UNDEFINED = "—"
PERCENT = "\N{NO-BREAK SPACE}%"


def describe(name: str) -> Figure:
    """The figure of this name; one that is not known keeps its own name."""
    return FIGURES.get(name, Figure(name.replace("_", " "), "", bounded=False))


def split_name(split: str) -> str:
    """``val`` -> validation."""
    return SPLITS.get(split, split)


def count(number: int | None) -> str:
    """1234567 -> 1,234,567; unknown where there is none."""
    return "unknown" if number is None else f"{number:,}"


def of(number: int, thing: str) -> str:
    """(1, "image") -> 1 image; (2, "class") -> 2 classes."""
    plural = thing if number == 1 else f"{thing}{'es' if thing.endswith('s') else 's'}"
    return f"{number:,} {plural}"


def number(value: float | None, *, percent: bool = False) -> str:
    """Three digits after the point, or one for a percentage (without the sign); never rounded up to perfect."""
    if value is None:
        return UNDEFINED
    scaled, digits = (100 * value, 1) if percent else (value, 3)
    perfect = 100.0 if percent else 1.0
    text = f"{scaled:.{digits}f}"
    if scaled < perfect and float(text) == perfect:
        finer = f"{scaled:.{digits + 1}f}"
        text = finer if float(finer) != perfect else f">{perfect - 10.0 ** -(digits + 1):.{digits + 1}f}"
    return text.replace("-", "−")


def figure_value(name: str, entry: dict[str, Any]) -> str:
    """The number alone, with its unit: ``99.3 %`` or ``0.993``."""
    percent = describe(name).percent
    text = number(entry.get("value"), percent=percent)
    return f"{text}{PERCENT}" if percent and entry.get("value") is not None else text


def percentage(share: float) -> str:
    """0.262 -> 26.2 %."""
    return f"{number(share, percent=True)}{PERCENT}"


def figure_interval(name: str, entry: dict[str, Any]) -> str:
    """``98.5 to 99.8``, or nothing where there is no interval."""
    if entry.get("low") is None or entry.get("high") is None:
        return ""
    percent = describe(name).percent
    return f"{number(entry['low'], percent=percent)} to {number(entry['high'], percent=percent)}"


def figure_reason(entry: dict[str, Any]) -> str:
    """Why a number, or its interval, is missing; empty when both are there."""
    reason = str(entry.get("reason") or "")
    if entry.get("value") is None:
        return f"undefined: {reason}" if reason else "undefined"
    if entry.get("low") is None or entry.get("high") is None:
        return f"no interval: {reason}" if reason else "no interval"
    return ""


def duration(seconds: float | None) -> str:
    """47 s, 12 min, 3.4 h."""
    if seconds is None:
        return UNDEFINED
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def significant(value: float | None, digits: int = 3) -> str:
    """Three significant digits: 810,628 -> 811,000 stays exact only for whole numbers below a million."""
    if value is None:
        return UNDEFINED
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"
