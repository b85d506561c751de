"""Settings that contradict the arm or another setting: found before the data is opened, without a look at it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from msmae.config.arms import find_arm
from msmae.config.settings import Settings
from msmae.errors import UserError, count


def check_method(settings: Settings, method: str, *, started: bool, minutes: float | None = None) -> None:
    """Raise ``UserError`` where an arm cannot be trained with these settings, or a setting would do nothing.

    Args:
        started: a pretrained encoder is given.
        minutes: the time that is asked for, if any.
    """
    check_draw(settings, method)
    check_adaptation(settings, method, started=started)
    if find_arm(method).frozen and settings.finetune.draw != "all":
        mend = "leave it out, or --method vit"
        raise UserError(f"{method} sees whole images, whatever is drawn", where="finetune.draw", mend=mend)
    if minutes is None:
        return
    if minutes <= 0:
        raise UserError(f"{minutes:g} minutes", where="--minutes", mend="give more than 0")
    if not started:
        raise UserError("--minutes plans a training from a pretrained encoder", mend="add --init, or leave it out")
    if find_arm(method).pretrains:
        raise UserError(
            f"{method} pre-trains, and --minutes plans fine-tuning and probes only",
            where="--minutes",
            mend="leave it out and give --pretrain.epochs, or choose --method vit",
        )


def check_used(given: Mapping[str, Any], settings: Settings, methods: Sequence[str]) -> None:
    """Raise ``UserError`` where a setting that was given changes nothing under any of these arms.

    Args:
        given: groups of what a person typed; not what a preset or a file says, which serves several arms.
    """
    typed = [f"{group}.{name}" for group, values in given.items() for name in _names(values)]
    idle = [name for name in typed if not any(_used(name, settings, method) for method in methods)]
    if idle:
        many = len(idle) > 1
        what = f"{' and '.join(idle)} {'have' if many else 'has'} no effect on the training of {' or '.join(methods)}"
        raise UserError(what, where="settings", mend=f"leave {'them' if many else 'it'} out, or choose another arm")


def _names(values: Any) -> list[str]:
    """The settings that a group gives; of a whole group those that are not as they always are."""
    if isinstance(values, Mapping):
        return list(values)
    usual = type(values)()
    return [f.name for f in dataclasses.fields(values) if getattr(values, f.name) != getattr(usual, f.name)]


def _used(name: str, settings: Settings, method: str) -> bool:
    """Whether training under an arm looks at a setting."""
    arm, fine = find_arm(method), settings.finetune
    group, _, setting = name.partition(".")
    if group == "pretrain":
        return arm.pretrains or (fine.draw == "own" and setting in ("mask_ratio", "throw_ratio"))
    if group == "finetune" and arm.frozen:
        return setting in ("balance", "draw", "lora", "freeze")  # the last three are refused by name
    return name != "finetune.refresh_every" or fine.draw not in ("all", "uniform", "coarse")


def check_ensemble(settings: Settings, method: str, *, folds: int | None, ensemble: bool, named: bool = True) -> None:
    """Raise ``UserError`` where several models cannot be trained to answer together, or only one would be.

    Args:
        named: a person chose the arm.
    """
    if folds is None and not ensemble:
        return
    if not ensemble:
        mend = "add --ensemble; or, to test every image once, `msmae compare DATA --folds 5 --arms vit`"
        raise UserError("--folds alone has no effect here", where="--folds", mend=mend)
    if folds is None or folds < 2:
        raise UserError("how many models answer together?", where="--ensemble", mend="add --folds 5 (2 or more)")
    arm = find_arm(method)
    if arm.pretrains and not named:
        mend = "add --method vit, or --init ENCODER"
        raise UserError(
            f"the arm {method} (the default) pre-trains on the images of all folds", where="--ensemble", mend=mend
        )
    if arm.pretrains or arm.frozen:
        what = "learns from all folds in pre-training" if arm.pretrains else "trains a head only"
        raise UserError(f"{method} {what}", where="--ensemble", mend="leave it out, or choose --method vit")
    if settings.finetune.draw == "coarse":
        raise UserError("an ensemble looks at whole images", where="finetune.draw", mend="leave out one of them")


def check_draw(settings: Settings, method: str) -> None:
    """The same for what decides pre-training's masks."""
    pretrain, arm = settings.pretrain, find_arm(method)
    pretrain.ratios(arm)
    if pretrain.hints and arm.pretrains and not arm.guided:
        raise UserError(
            f"the arm {method} draws without maps: nothing can be a hint",
            where="pretrain.hints",
            mend="leave it out, or choose msmae, amt or msmae-shuffled",
        )
    if arm.guided and pretrain.epochs and (pretrain.uniform_epochs or 0) >= pretrain.epochs:
        raise none_guided(pretrain.epochs, pretrain.uniform_epochs)


def none_guided(epochs: int, uniform: int | None) -> UserError:
    """The error for a guided arm whose maps would never be used."""
    return UserError(
        f"pre-training has {count(epochs, 'epoch')}, and the first {uniform} mask at random: none is guided",
        where="pretrain.epochs, pretrain.uniform_epochs",
        mend="more epochs (or pretrain.presentations), or fewer uniform ones; the arm supmae never guides",
    )


def check_adaptation(settings: Settings, method: str, *, started: bool) -> None:
    """The same for fine-tuning: a setting that does nothing, or what is to be kept was never learned."""
    fine, depth, arm = settings.finetune, settings.model.depth, find_arm(method)
    given = [f"finetune.{name}" for name in ("lora", "freeze") if getattr(fine, name)]
    if arm.frozen:
        check_probe(settings, method, given, started=started)
    if not given:
        return
    where = " and ".join(given)
    if not started and not arm.pretrains:
        raise UserError("there is no pretrained encoder to keep", where=where, mend="add --init, or leave it out")
    if fine.freeze > depth:
        raise UserError(f"the encoder has {depth} blocks", where=f"finetune.freeze {fine.freeze}", mend=f"0 to {depth}")


def check_probe(settings: Settings, method: str, given: list[str], *, started: bool) -> None:
    """The same for an arm whose encoder stays as it is; ``given``: settings of what learns in the encoder."""
    balance = settings.finetune.balance
    if given:
        where = " and ".join(given)
        raise UserError(f"{method} trains a head only", where=where, mend="leave it out, or --method vit")
    if not started:
        mend = "add --init, or choose --method vit"
        raise UserError(f"{method} needs a pretrained encoder", where="--method", mend=mend)
    followed = ["auto", "none", "class_weights"] + ["logit_adjustment"] * (find_arm(method).frozen == "attentive")
    if balance not in followed:
        mend = f"choose {', '.join(followed)}"
        raise UserError(f"{method} does not follow {balance}", where="finetune.balance", mend=mend)
