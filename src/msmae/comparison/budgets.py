"""Equal budgets: how many epochs each arm of a comparison may train, so that none gets more than another.

``epochs``: every arm as many as the settings say; an arm without pre-training has its fine-tuning only. ``gmacs``: what
``msmae`` spends in multiply-accumulates, maps included (a training step counts as three forward passes). ``seconds``:
what ``msmae`` spends in time, from a few timed steps of every arm on this machine. Under both, an arm whose
pre-training is cheaper gets more epochs of it, and one without pre-training gets longer supervised training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from msmae.comparison.baselines import BASELINE, build_network, network_macs
from msmae.config import ARMS, BASELINES, Settings
from msmae.errors import count
from msmae.machine import median_seconds
from msmae.method.attention import patch_maps
from msmae.method.classifier import Classifier
from msmae.method.cost import map_macs, msmae_macs
from msmae.method.msmae import MSMAE, msmae_loss
from msmae.runs.checkpoint import build_model
from msmae.training.cards import card_of
from msmae.training.prepare import Prepared, decide_schedules
from msmae.training.views import finetuning_macs, follows_maps, tokens_seen

BUDGETS = ("epochs", "gmacs", "seconds")


@dataclass(frozen=True)
class Price:
    """What an arm pays for one image: in a step of pre-training, of supervised training, and for its map."""

    pretrain: float
    supervised: float
    map: float


def statement(budget: str, settings: Settings, arms: Sequence[str]) -> str:
    """What is equal for these arms, in sentences for the page of the comparison."""
    pre, fine = settings.pretrain.epochs, settings.finetune.epochs
    heads = [arm for arm in arms if arm in ARMS and ARMS[arm].frozen]
    quick = [arm for arm in arms if arm in BASELINES and BASELINE[arm].network is None]
    trained = [arm for arm in arms if arm not in heads + quick]
    pretrained = [arm for arm in trained if arm in ARMS and ARMS[arm].pretrains]
    said = []
    if trained and budget == "epochs" and not pretrained:
        said.append(f"Every arm trains for {count(fine or 0, 'epoch')}.")
    elif trained and budget == "epochs":
        said.append(
            f"Every arm trains for the same number of epochs: {pre} of pre-training and {fine} of supervised training."
        )
        if len(pretrained) < len(trained):
            said.append(f"Arms without pre-training have the {fine} only.")
    elif trained:
        spent = {"gmacs": "multiply-accumulates that msmae spends in", "seconds": "time that msmae takes here for"}
        maps = f"{count(pre or 0, 'epoch')} of pre-training (its attention maps included) and {fine} of fine-tuning"
        said.append(f"Every arm trains for the {spent[budget]} {maps}.")
        if budget == "seconds":
            said.append("Steps of every arm were timed for this.")
        if len(pretrained) < len(trained):
            said.append("An arm without pre-training spends all of it on supervised training.")
    if heads:
        said.append(f"Only a head learns on the frozen encoder, without a budget, in {', '.join(heads)}.")
    if quick:
        said.append(f"No network is trained for {', '.join(quick)}.")
    return " ".join(said)


def settings_of_arm(prepared: Prepared, arm: str, *, budget: str, prices: dict[str, Price]) -> Settings:
    """The settings under which an arm spends what ``msmae`` spends. ``prepared`` has msmae's own settings."""
    settings = prepared.settings
    pre, fine = settings.pretrain, settings.finetune
    assert pre.epochs is not None
    assert fine.epochs is not None
    if budget == "epochs" or arm not in prices or (arm in ARMS and ARMS[arm].frozen):  # a head has no epochs to give
        return settings
    reference, price = prices["msmae"], prices[arm]
    if price == reference and prepared.settings.finetune.draw == "all":
        return settings
    for_pretraining = pre.epochs * reference.pretrain + refreshes(settings) * reference.map
    epochs = finetuning_epochs(prepared, arm, reference, price)
    if price.pretrain == 0:
        epochs += round(for_pretraining / price.supervised * pool(prepared) / len(prepared.ids("train")))
    if epochs != fine.epochs:
        settings = dataclasses.replace(settings, finetune=dataclasses.replace(fine, epochs=max(1, epochs)))
    if price.pretrain == 0 or price == reference:
        return settings
    prepared = dataclasses.replace(prepared, settings=settings)

    def spent(epochs: int) -> float:
        return epochs * price.pretrain + refreshes(with_epochs(prepared, arm, epochs)) * price.map

    return with_epochs(prepared, arm, most_epochs(spent, for_pretraining, price.pretrain))


def most_epochs(spent: Callable[[int], float], budget: float, epoch: float) -> int:
    """The most epochs that a budget allows, to half of one; what they cost in all is ``spent``, maps included."""
    falling = range(max(1, round(budget / epoch)), 0, -1)
    return next((epochs for epochs in falling if spent(epochs) <= budget + epoch / 2), 1)


def finetuning_epochs(prepared: Prepared, arm: str, reference: Price, price: Price) -> int:
    """Epochs of fine-tuning in which an arm spends what ``msmae`` does in the settings' own number of them."""
    fine = prepared.settings.finetune
    assert fine.epochs is not None
    assert fine.refresh_every is not None
    if fine.draw != "own" and arm not in BASELINES:  # the same work for every arm, whatever a clock says of it
        return fine.epochs

    def spent(name: str, cost: Price, epochs: int) -> float:
        guided = name not in BASELINES and follows_maps(dataclasses.replace(prepared, method=name))
        maps = len(range(0, epochs, fine.refresh_every or 1)) if guided else 0
        return epochs * cost.supervised + maps * cost.map

    return most_epochs(lambda n: spent(arm, price, n), spent("msmae", reference, fine.epochs), price.supervised)


def with_epochs(prepared: Prepared, arm: str, epochs: int) -> Settings:
    """The settings with so many epochs of an arm's pre-training; if they are others, its warm-up and refreshes are
    decided anew. What of these was given instead of decided keeps its share of the epochs.
    """
    settings = prepared.settings
    pre = settings.pretrain
    if epochs == pre.epochs:
        return settings

    def decided(**changes: Any) -> Settings:
        opened = dataclasses.replace(pre, uniform_epochs=None, refresh_every=None)
        changed = dataclasses.replace(settings, pretrain=dataclasses.replace(opened, **changes))
        return decide_schedules(dataclasses.replace(prepared, settings=changed, method=arm))

    assert pre.epochs is not None
    usual, share = decided().pretrain, epochs / pre.epochs
    given: dict[str, int] = {}
    if pre.uniform_epochs is not None and pre.uniform_epochs != usual.uniform_epochs:
        given["uniform_epochs"] = round(share * pre.uniform_epochs)
    if pre.refresh_every is not None and pre.refresh_every != usual.refresh_every:
        given["refresh_every"] = max(1, round(share * pre.refresh_every))
    return decided(epochs=epochs, **given)


def pool(prepared: Prepared) -> int:
    """Images of pre-training."""
    return len(prepared.ids("train", labelled=False))


def refreshes(settings: Settings) -> int:
    """How often pre-training refreshes the attention maps."""
    pre = settings.pretrain
    assert pre.epochs is not None
    assert pre.uniform_epochs is not None
    assert pre.refresh_every is not None
    return len(range(pre.uniform_epochs, pre.epochs, pre.refresh_every))


def priced(arms: list[str]) -> set[str]:
    """msmae and those of the arms that train by steps: what has no network has no price."""
    return {"msmae", *arms} - {name for name, baseline in BASELINE.items() if baseline.network is None}


def prices_in_gmacs(prepared: Prepared, arms: list[str]) -> dict[str, Price]:
    """What an image costs each arm, in 10^9 multiply-accumulates; a training step counts as three forward passes."""
    found = {}
    for name in priced(arms):
        mine = dataclasses.replace(prepared, method=name)
        if name in BASELINES:
            shape = (prepared.channels, *prepared.image_size)
            found[name] = Price(0.0, 3 * network_macs(build_network(mine), shape) / 1e9, 0.0)
            continue
        model, classifier = build_model(card_of(mine, "pretrained")), build_model(card_of(mine, "classifier"))
        assert isinstance(model, MSMAE)
        assert isinstance(classifier, Classifier)
        masked, _, kept = mine.draw.counts(model.encoder.patches)
        found[name] = Price(
            pretrain=3 * msmae_macs(model, kept, masked).total / 1e9 if mine.arm.pretrains else 0.0,
            supervised=3 * finetuning_macs(mine, classifier) / 1e9,
            map=map_macs(model.encoder).total / 1e9 if mine.arm.guided else 0.0,
        )
    return found


def prices_in_seconds(prepared: Prepared, arms: list[str]) -> dict[str, Price]:
    """What an image costs each arm, in seconds: the medians of timed steps on random images."""
    images = torch.randn(prepared.settings.finetune.batch_size, prepared.channels, *prepared.image_size)
    names = sorted(priced(arms))
    return {name: price_in_seconds(dataclasses.replace(prepared, method=name), images) for name in names}


def price_in_seconds(prepared: Prepared, images: torch.Tensor) -> Price:
    """What one of these images [B, C, H, W] costs the arm ``prepared.method``."""
    name, share = prepared.method, 1 / len(images)
    network: nn.Module = build_network(prepared) if name in BASELINES else build_model(card_of(prepared, "classifier"))
    supervised = supervised_seconds(network, prepared, images)
    if name in BASELINES or not prepared.arm.pretrains:
        return Price(0.0, supervised * share, 0.0)
    model = build_model(card_of(prepared, "pretrained"))
    assert isinstance(model, MSMAE)
    pretrain = timed_step(model, pretraining_step(model, prepared, images))
    maps = median_seconds(lambda: patch_maps(model.encoder, images), 5) if prepared.arm.guided else 0.0
    return Price(pretrain * share, supervised * share, maps * share)


def supervised_seconds(network: nn.Module, prepared: Prepared, images: torch.Tensor) -> float:
    """A step of supervised training on images [B, C, H, W], over the patches that the arm sees in it."""
    if prepared.method in BASELINES:
        return timed_step(network, lambda: network(images).float().square().mean())
    assert isinstance(network, Classifier)

    def classify(kept: int | None) -> Callable[[], torch.Tensor]:
        keep = None if kept is None else torch.arange(kept).expand(len(images), -1)  # [B, K]
        return lambda: network(images, keep).float().square().mean()

    seen = tokens_seen(prepared, network.encoder)
    return sum(often * timed_step(network, classify(kept)) for kept, often in seen.items())


def pretraining_step(model: MSMAE, prepared: Prepared, images: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A forward pass of pre-training and its loss."""
    labels = torch.zeros(len(images), dtype=torch.long)

    def step() -> torch.Tensor:
        plan = prepared.draw.plan(torch.ones(len(images), model.encoder.patches))
        size = model.encoder.patch_size
        return msmae_loss(images, model(images, plan), plan, labels, patch_size=size, label_weight=0.1).total

    return step


def timed_step(network: nn.Module, loss: Callable[[], torch.Tensor]) -> float:
    """Seconds of one training step."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        torch.autograd.backward(loss())
        optimiser.step()

    return median_seconds(step, 5)
