"""The result of a comparison in words: which arm is better, by how much, with which certainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from msmae.reporting.wording import PERCENT, count, describe, figure_value, number, of

ALPHA = 0.05
TIE = 1e-9
SUBJECT = "msmae"
"""The arm that every other one is compared with beforehand."""
BESIDES = (("supmae", "mae"),)
"""Also asked beforehand: what labels are worth alone."""
LOWER_IS_BETTER = ("brier", "log_loss", "ece", "mean_absolute_error")


@dataclass(frozen=True)
class Difference:
    """One paired difference as it is shown."""

    first: str
    second: str
    value: str
    interval: str
    p_value: str
    p_holm: str
    verdict: str
    """better, worse, not significant, or not testable: of the first arm."""
    reason: str


def primary(plan: Mapping[str, Any]) -> str:
    """The metric that decides: the plan's own, else balanced accuracy, or AUROC for several labels per image."""
    return str(plan.get("primary") or ("auroc" if plan.get("multilabel") else "balanced_accuracy"))


def planned_pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """The questions asked beforehand: msmae against every other arm (what is it worth?), and ``BESIDES``. Without msmae
    every pair is asked.
    """
    if SUBJECT not in arms:
        return list(combinations(arms, 2))
    asked = [(SUBJECT, arm) for arm in arms if arm != SUBJECT]
    return [*asked, *(pair for pair in BESIDES if set(pair) <= set(arms))]


def other_pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Every pair that `planned_pairs` has not, in neither order."""
    asked = {frozenset(pair) for pair in planned_pairs(arms)}
    return [pair for pair in combinations(arms, 2) if frozenset(pair) not in asked]


def sign_of(pair: Mapping[str, Any], metric: str) -> int:
    """1 where the first arm is significantly better (corrected), -1 where worse, 0 where not significant."""
    entry = pair["metrics"][metric]
    if entry["value"] is None or entry["p_holm"] is None or entry["p_holm"] >= ALPHA:
        return 0
    better = 1 if entry["value"] > 0 else -1
    return -better if metric in LOWER_IS_BETTER else better


def shown(pair: Mapping[str, Any], metric: str) -> Difference:
    """A difference of `compare_arms`, as text."""
    entry = pair["metrics"][metric]
    known = entry["value"] is not None
    return Difference(
        first=pair["first"],
        second=pair["second"],
        value=difference(metric, entry["value"]) if known else "—",
        interval=interval(metric, entry),
        p_value=p_value(entry["p_value"]),
        p_holm=p_value(entry["p_holm"]),
        verdict={1: "better", 0: "not significant", -1: "worse"}[sign_of(pair, metric)]
        if entry["p_holm"] is not None
        else "not testable",
        reason=str(entry.get("reason") or ""),
    )


def difference(metric: str, value: float) -> str:
    """+1.2 points of a percentage, or +0.012."""
    percent = describe(metric).percent
    text = number(value, percent=percent)
    return f"{'+' if value > 0 else ''}{text}{_points(percent)}"


def interval(metric: str, entry: Mapping[str, Any]) -> str:
    """``−0.4 to 2.8``, or nothing."""
    if entry.get("low") is None or entry.get("high") is None:
        return ""
    percent = describe(metric).percent
    return f"{number(entry['low'], percent=percent)} to {number(entry['high'], percent=percent)}"


def p_value(p: float | None) -> str:
    """Three digits after the point; below a thousandth only that."""
    if p is None:
        return "—"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def headline(result: Mapping[str, Any], family: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The page's first sentences. ``family`` are all pairs, corrected together: the leader was not named beforehand."""
    name = describe(metric).name.lower() if describe(metric).percent else describe(metric).name
    ranked = ranking(result, metric)
    if len(result["arms"]) == 1 and ranked:
        return (
            f"“{ranked[0][0]}” has a {name} of {figure_value(metric, {'value': ranked[0][1]})}. There is no other arm."
        )
    if len(ranked) < 2:
        return f"The {name} is undefined for all arms but one: no ranking."
    end = "lowest" if metric in LOWER_IS_BETTER else "highest"
    best, value = ranked[0]
    level_with = [arm for arm, mean in ranked if abs(mean - value) < TIE]
    told = f"“{best}” has the {end} {name}, {figure_value(metric, {'value': value})}."
    if len(level_with) > 1:
        told = f"{_and(level_with)} share the {end} {name}, {figure_value(metric, {'value': value})}."
    behind = [(arm, mean) for arm, mean in ranked if arm not in level_with]
    against = {arm: _find(family, best, arm)["metrics"][metric] for arm, _ in behind}
    untested = {arm: str(entry.get("reason") or "") for arm, entry in against.items() if entry["p_holm"] is None}
    for reason in dict.fromkeys(untested.values()):
        those = [arm for arm, why in untested.items() if why == reason]
        told += f" The lead over {_and(those)} cannot be tested{reason and f': {reason}'}."
    behind = [(arm, mean) for arm, mean in behind if arm not in untested]
    if not behind:
        return told
    beaten = [arm for arm, _ in behind if _lead(family, best, arm, metric) > 0]
    if len(beaten) == len(ranked) - 1:
        return f"{told} The lead over every other arm is significant."
    if len(beaten) == len(behind):
        return f"{told} The lead over {_and(beaten)} is significant."
    rival, next_value = next((arm, mean) for arm, mean in behind if arm not in beaten)
    lead = _find(family, best, rival)["metrics"][metric]
    level = f"The lead over “{rival}”"
    reach = _reach(lead)
    if reach is not None:
        percent = describe(metric).percent
        level += f", {number(abs(value - next_value), percent=percent)}{_points(percent)}"
        level += f" (95{PERCENT} CI ± {number(reach, percent=percent)}),"
    level += f" is not significant ({_equals(lead['p_holm'])}, corrected for {of(len(family), 'comparison')})."
    if not beaten and len(behind) == len(ranked) - 1 and len(behind) > 1:
        return f"{told} {level} No lead over another arm is significant either."
    return f"{told} {level}" + (f" The lead over {_and(beaten)} is significant." if beaten else "")


def answers(planned: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """One sentence for each question asked beforehand."""
    return [_answer(pair, metric) for pair in planned]


def how_sure(result: Mapping[str, Any], planned: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """What the certainty rests on, and how small a difference could have been missed."""
    patients, images = result["patients"], result["n"]
    units = of(patients, "patient") if patients < images else of(images, "test image")
    if patients < images and result["unnamed"]:
        alone = f"{count(result['unnamed'])} name no patient and count as one each"
        units = f"{of(images, 'test image')}, of which {alone}"
    found = [f"Based on {of(result['seeds'], 'seed')} and {units}."]
    if result["seeds"] == 1:
        found.append(
            "With one seed, the intervals cover other patients, not other training runs. Another seed may change the "
            "order."
        )
    reaches = [reach for pair in planned for reach in [_reach(pair["metrics"][metric])] if reach is not None]
    if reaches:
        percent = describe(metric).percent
        found.append(
            f"Differences below about {number(max(reaches), percent=percent)}{_points(percent)} are too small to be "
            "detected here."
        )
    return found


def ranking(result: Mapping[str, Any], metric: str) -> list[tuple[str, float]]:
    """Arms with their means, the best first; arms for which the metric is undefined are left out."""
    known = [
        (arm, entries[metric]["value"])
        for arm, entries in result["arms"].items()
        if entries[metric]["value"] is not None
    ]
    return sorted(known, key=lambda pair: pair[1] if metric in LOWER_IS_BETTER else -pair[1])


def _answer(pair: Mapping[str, Any], metric: str) -> str:
    one = shown(pair, metric)
    if one.value == "—" or not one.interval:
        return f"{one.first} against {one.second}: not testable ({one.reason or 'undefined'})."
    return (
        f"{one.first} against {one.second}: {one.value} (95{PERCENT} CI {one.interval}), {one.verdict} "
        f"({_equals(pair['metrics'][metric]['p_holm'])}, corrected)."
    )


def _lead(family: Sequence[Mapping[str, Any]], best: str, other: str, metric: str) -> int:
    pair = _find(family, best, other)
    return sign_of(pair, metric) * (1 if pair["first"] == best else -1)


def _find(family: Sequence[Mapping[str, Any]], one: str, other: str) -> Mapping[str, Any]:
    return next(pair for pair in family if {pair["first"], pair["second"]} == {one, other})


def _equals(p: float | None) -> str:
    """``p = 0.180``, ``p <0.001``."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _reach(entry: Mapping[str, Any]) -> float | None:
    """Half the width of an interval."""
    if entry.get("low") is None or entry.get("high") is None:
        return None
    return float(entry["high"] - entry["low"]) / 2


def _points(percent: bool) -> str:
    return " points" if percent else ""


def _and(names: Sequence[str]) -> str:
    quoted = [f"“{name}”" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
