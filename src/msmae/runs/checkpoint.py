"""A model on disk: ``model.safetensors`` + ``config.json``, all that is needed to use it."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from msmae.encoders.fitting import fit_state, misfits
from msmae.encoders.neighbours import NeighbourVote
from msmae.errors import UserError
from msmae.files import read_mapping, whole, write_whole
from msmae.method.classifier import Classifier
from msmae.method.ensemble import Ensemble
from msmae.method.msmae import MSMAE
from msmae.method.segmenter import Segmenter
from msmae.method.vit import VisionTransformer
from msmae.runs.cards import FORMAT_VERSION, ModelCard, checked_card
from msmae.runs.lock import is_held
from msmae.selection.locator import Glance, Locator
from msmae.selection.selectors import Selection


def build_encoder(card: ModelCard, *, drop_path: float = 0.0) -> VisionTransformer:
    """An encoder with fresh weights for this architecture."""
    return VisionTransformer(
        image_size=card.image_size,
        patch_size=card.patch_size,
        channels=card.channels,
        width=card.width,
        depth=card.depth,
        heads=card.heads,
        drop_path=drop_path,
        **card.encoder,
    )


def build_model(card: ModelCard, *, drop_path: float = 0.0) -> MSMAE | Classifier | Segmenter:
    """The model that a card describes, with fresh weights."""
    encoder = build_encoder(card, drop_path=drop_path)
    if card.kind == "pretrained":
        return MSMAE(
            encoder,
            classes=max(1, len(card.classes)),
            decoder_width=card.decoder["width"],
            decoder_depth=card.decoder["depth"],
            decoder_heads=card.decoder["heads"],
            pool=card.pool,
        )
    if card.kind == "segmenter":
        exclusive = len(card.classes) > 1 and not card.multilabel
        outputs = len(card.classes) + exclusive  # with the background, where classes exclude each other
        return Segmenter(encoder, outputs=outputs, **card.decoder)
    head = None
    if "remembers" in card.decoder:
        head = NeighbourVote(card.decoder["remembers"], card.width, len(card.classes), several=card.multilabel)
    classifier = Classifier(encoder, classes=len(card.classes), pool=card.pool, head=head)
    if card.members == 1 and not card.mirrored:
        return classifier
    others = [build_model(replace(card, members=1, mirrored=False)) for _ in range(card.members - 1)]
    return joined([classifier, *others], card)


def joined(members: Sequence[nn.Module], card: ModelCard) -> Ensemble:
    """Classifiers of one card, to answer together; one, for an image and its mirror image."""
    assert all(isinstance(member, Classifier) for member in members)
    return Ensemble(members, several=card.multilabel, mirrored=card.mirrored)  # type: ignore[arg-type]


def save_model(folder: Path, model: nn.Module, card: ModelCard, *, selection: Selection | None = None) -> None:
    """Write weights and card, those of a ``selection`` too; the folder appears only when all are complete."""
    unfinished = folder.with_name(f"{folder.name}.part")
    unfinished.mkdir(parents=True, exist_ok=True)
    save_weights(model, unfinished / "model.safetensors")
    if selection is not None:
        save_weights(selection, unfinished / FILE)
        card = with_keep(card, **describe_selection(selection), sha256=file_sha256(unfinished / FILE))
    write_card(unfinished, replace(card, sha256=file_sha256(unfinished / "model.safetensors")))
    if folder.exists():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    os.replace(unfinished, folder)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors, whole or not at all."""
    write_tensors(path, {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all; ``about`` stands in the file's header.

    Raises:
        OSError: the disk is full, ...
    """
    try:
        with whole(path) as unfinished:
            mode = unfinished.stat().st_mode
            save_file(dict(tensors), unfinished, metadata={"format": "pt", **(about or {})})
            unfinished.chmod(mode)  # safetensors writes it for the owner only
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def write_card(folder: Path, card: ModelCard) -> None:
    """Write the card of a saved model, whole or not at all."""
    write_whole(folder / "config.json", json.dumps(asdict(card), indent=2, ensure_ascii=False))


def no_model(folder: Path) -> UserError:
    """The error for a folder without a model that can predict: of a run, whether it is trained now, and what comes
    next."""
    if is_held(folder):
        return UserError("the run is being trained: no model yet", where=str(folder), mend="wait until it ends")
    if (folder / "pretrained").is_dir():
        return only_pretrained(folder)
    if (folder / "config.yaml").is_file():
        mend = "repeat its command, which goes on"
        return UserError("the run was stopped before its model was saved", where=str(folder), mend=mend)
    return UserError("no saved model here", where=str(folder), mend="name the folder of a finished run")


def only_pretrained(folder: Path) -> UserError:
    """The error for a run that is pre-trained so far, with what comes next: with labels, or on other images."""
    weights, settings = (shlex.quote(str(folder / file)) for file in ("pretrained/model.safetensors", "config.yaml"))
    elsewhere = f"`msmae run DATA --init {weights} --config {settings} --out NEW`"
    if not read_card(folder / "pretrained").classes:
        return UserError(
            "the run is pre-trained and no more, on images without labels",
            where=str(folder),
            mend=f"{elsewhere} goes on with its encoder on labelled images",
        )
    if (folder / "checkpoints" / "last.ckpt").is_file():  # which pre-training leaves to none but fine-tuning
        mend = "repeat its `msmae run` (or `msmae finetune`) command, which goes on"
        return UserError("the run was stopped in its fine-tuning", where=str(folder), mend=mend)
    return UserError(
        "the run is pre-trained and no more",
        where=str(folder),
        mend=f"repeat its `msmae run` command; after `msmae pretrain`, `msmae finetune {shlex.quote(str(folder))}`, or "
        f"{elsewhere} on other images",
    )


def read_card(folder: Path) -> ModelCard:
    """The card of a saved model. Raises ``UserError`` if there is none, or a newer library wrote it."""
    path = folder / "config.json"
    if not path.is_file():
        raise no_model(folder)
    content = read_mapping(path, what="the model's description", mend="copy the model again")
    if content.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"model format {content.get('format_version')} is not the one this library reads ({FORMAT_VERSION})",
            where=str(path),
            mend="use the version of msmae that wrote it",
        )
    return checked_card(content, path)


def read_tensors(path: Path, *, mend: str) -> dict[str, torch.Tensor]:
    """The tensors of a file that :func:`save_model` wrote. Raises ``UserError`` where it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"the weights cannot be read: {error}", where=str(path), mend=mend) from error


def load_model(folder: Path) -> tuple[MSMAE | Classifier | Segmenter, ModelCard]:
    """A saved model, in evaluation mode. Raises ``UserError`` naming tensors missing, unexplained or of another
    shape."""
    card = read_card(folder)
    path = folder / "model.safetensors"
    mend = "copy the model again"
    state = read_tensors(path, mend=mend)
    try:
        with torch.device("meta"):  # what the card asks for is held against the file before room is made for it
            problems = misfits(state, build_model(card).state_dict())
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        raise UserError(
            "it describes no model that can be built", where=str(folder / "config.json"), mend=mend
        ) from None
    if problems:
        raise UserError(f"the weights do not fit the model: {problems}", where=str(path), mend=mend)
    check_sum(path, card.sha256, mend=mend)  # what is missing or left over was said first: it is known better
    model = build_model(card)
    fit_state(model, state, where=path, mend=mend)
    return model.eval(), card


def check_sum(path: Path, told: str, *, mend: str) -> None:
    """Raise ``UserError`` where weights have another SHA-256 than their card says; "" says nothing."""
    if told and path.is_file() and file_sha256(path) != told:
        raise UserError(
            "the weights are not those that were saved: changed or damaged since", where=str(path), mend=mend
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def pretrained_part(model: MSMAE) -> dict[str, torch.Tensor]:
    """The encoder's weights of a pre-trained model, by the encoder's own names."""
    return {k: v.detach().clone() for k, v in model.encoder.state_dict().items()}


FILE = "keep.safetensors"


def build_selection(classifier: Classifier, described: dict[str, Any]) -> Selection:
    """A selection around a classifier, its locator and its glance with fresh weights.

    ``described``: ``selector``; ``locator`` {"width", "cell"} and ``glance`` [rows, columns], or None.
    """
    encoder = classifier.encoder
    locator, glance = described.get("locator"), described.get("glance")
    return Selection(
        classifier,
        selector=described["selector"],
        locator=Locator(encoder, **locator) if locator else None,
        glance=Glance(encoder, (glance[0], glance[1])) if glance else None,
    )


def describe_selection(selection: Selection) -> dict[str, Any]:
    """What :func:`build_selection` makes it anew from."""
    locator, glance = selection.locator, selection.glance
    return {
        "selector": selection.selector,
        "locator": None if locator is None else locator.described,
        "glance": None if glance is None else list(glance.grid),
    }


def save_selection(folder: Path, selection: Selection, card: ModelCard) -> None:
    """Write the weights into a saved model's folder, and the card, which already describes them, last."""
    save_weights(selection, folder / FILE)
    write_card(folder, with_keep(card, sha256=file_sha256(folder / FILE)))


def load_selection(folder: Path, card: ModelCard, classifier: Classifier) -> Selection | None:
    """The selection of a saved model, in evaluation mode; None where it was never prepared.

    Raises:
        UserError: the weights are missing, damaged or of another model.
    """
    if not card.keep.get("selector"):
        return None
    selection = build_selection(copy.deepcopy(classifier), card.keep)
    path = folder / FILE
    mend = "copy the model again, or prepare it anew: `msmae budget RUN --overwrite`"
    check_sum(path, str(card.keep.get("sha256", "")), mend=mend)
    fit_state(selection, read_tensors(path, mend=mend), where=path, mend=mend)
    return selection.eval()


def with_keep(card: ModelCard, **changes: Any) -> ModelCard:
    """The card with some of what it says of the selection changed."""
    return replace(card, keep={**card.keep, **changes})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training's checkpoint: tensors and plain values only, whoever wrote it; code in it is not run.

    Raises:
        UserError: it is damaged, or holds more than tensors and plain values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # PyTorch raises every kind for a damaged file
        raise unreadable_checkpoint(path) from None
    if not isinstance(content, dict):
        raise unreadable_checkpoint(path)
    return content


def unreadable_checkpoint(path: Path) -> UserError:
    """The error for a checkpoint that is damaged, or holds code."""
    return UserError(
        "the checkpoint is damaged, or holds code, which is not run",
        where=str(path),
        mend="delete it, and the same command begins this stage again",
    )
