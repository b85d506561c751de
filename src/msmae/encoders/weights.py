"""Encoder weights from elsewhere: facebookresearch/mae and timm names, ``.pth`` or ``.safetensors``.

Every tensor of the file is accounted for: used, resized, or left out for a stated reason. Anything else is an error.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from msmae.errors import UserError
from msmae.method.vit import VisionTransformer, resize_position_embedding

NOT_ENCODER = ("decoder_", "mask_token", "head.", "fc_norm.")
"""Parts of other models that an encoder has no place for: a decoder, a class head and the norm that belongs to it."""

WRAPPERS = {"module", "encoder", "backbone", "model"}
"""What trainers and larger models put before an encoder's names."""


@dataclass(frozen=True)
class LoadReport:
    """Names by what became of them."""

    used: list[str]
    resized: list[str]
    left_out: list[str]
    missing: list[str]

    def __str__(self) -> str:
        return self.lines(at_most=6)

    def lines(self, *, at_most: int | None = None) -> str:
        """A line for each, with the names: all of them, or the first few."""

        def line(title: str, names: list[str]) -> str:
            shown = names if at_most is None or len(names) <= at_most else [*names[:at_most], "..."]
            return f"{title:>9}: {len(names):4d}  {', '.join(shown)}".rstrip()

        return "\n".join(
            line(title, names)
            for title, names in (
                ("used", self.used), ("resized", self.resized), ("left out", self.left_out), ("missing", self.missing),
            )
        )  # fmt: skip


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` or ``.pth`` file (weights only: no code of the file is run)."""
    if not path.is_file():
        inside = path / "model.safetensors"
        found = inside.is_file()
        mend = f"name the file in it: --init {inside}" if found else "check --init"
        raise UserError(
            "a folder, not a file of weights" if found else "no such file of weights", where=str(path), mend=mend
        )
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # MAE's checkpoints hold their arguments
            content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(
            "the weights cannot be read: no file of tensors, or one with code in it, which is not run",
            where=str(path),
            mend="give a .safetensors, or a .pth that holds tensors only",
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    named = content.items() if isinstance(content, dict) else ()
    tensors = {name: value for name, value in named if isinstance(value, Tensor) and isinstance(name, str)}
    if not tensors:
        raise UserError("the file holds no tensors by name", where=str(path), mend="save a state_dict")
    return tensors


def load_encoder(encoder: VisionTransformer, path: Path) -> LoadReport:
    """Fill an encoder from a file; positions are resampled to its patch grid.

    Raises:
        UserError: a tensor of the encoder is missing in the file, has another shape, or a tensor of the file has no
            known meaning. The names are given.
    """
    tensors = strip_prefix(read_weights(path))
    expected = encoder.state_dict()
    left_out = sorted(name for name in tensors if name.startswith(NOT_ENCODER) and name not in expected)
    unexplained = sorted(tensors.keys() - expected.keys() - set(left_out))
    missing = sorted(expected.keys() - tensors.keys())
    resized = []
    state = {name: tensors[name] for name in expected if name in tensors}
    if "pos_embed" in state and state["pos_embed"].shape != expected["pos_embed"].shape:
        state["pos_embed"] = fit_positions(state["pos_embed"], encoder, path)
        resized.append("pos_embed")
    if "patch_embed.proj.weight" in state:
        state["patch_embed.proj.weight"] = fit_channels(
            state["patch_embed.proj.weight"], expected["patch_embed.proj.weight"], resized
        )
    wrong = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
        for name in state
        if state[name].shape != expected[name].shape
    ]
    problems = [f"missing {n}" for n in missing] + [f"unexplained {n}" for n in unexplained] + wrong
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise UserError(
            f"the weights do not fit the encoder: {'; '.join(problems[:8])}{more}",
            where=str(path),
            mend="set model.width, depth, heads, patch_size and channels to the weights' own",
        )
    encoder.load_state_dict(state)
    used = [name for name in state if name not in resized]
    return LoadReport(used=used, resized=resized, left_out=left_out, missing=missing)


def copy_encoder(source: VisionTransformer, encoder: VisionTransformer, *, others: Iterable[str]) -> LoadReport:
    """Fill an encoder from another of the same make; positions are resampled where the patch grids differ.

    Args:
        others: names of the source model's further tensors, which the encoder has no place for; they are reported.

    Raises:
        UserError: a tensor is missing, left over or of another shape. The names are given.
    """
    state, expected = dict(source.state_dict()), encoder.state_dict()
    resized = ["pos_embed"] if source.grid != encoder.grid else []
    state["pos_embed"] = resize_position_embedding(state["pos_embed"], source.grid, encoder.grid)
    problems = [f"missing {name}" for name in sorted(expected.keys() - state.keys())]
    problems += [f"left over {name}" for name in sorted(state.keys() - expected.keys())]
    problems += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if problems:
        raise UserError(f"the encoder does not fit: {'; '.join(problems[:8])}", mend="use the run's own model settings")
    encoder.load_state_dict(state)
    used = [name for name in state if name not in resized]
    return LoadReport(used=used, resized=resized, left_out=sorted(others), missing=[])


def strip_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what wrappers put before the encoder's names; tensors outside the wrapped encoder keep their names."""
    mark = "patch_embed.proj.weight"
    for name in tensors:
        prefix = name.removesuffix(mark)
        if name.endswith(mark) and prefix and set(prefix.strip(".").split(".")) <= WRAPPERS:
            return {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def fit_positions(positions: Tensor, encoder: VisionTransformer, path: Path) -> Tensor:
    """Positions of a square patch grid, resampled to the encoder's."""
    side = round((positions.shape[1] - 1) ** 0.5)
    if positions.ndim != 3 or side * side != positions.shape[1] - 1:
        raise UserError(
            f"pos_embed {tuple(positions.shape)} is not a class token and a square grid",
            where=str(path),
            mend="only such positions can be resampled",
        )
    return resize_position_embedding(positions, (side, side), encoder.grid)


def fit_channels(weight: Tensor, expected: Tensor, resized: list[str]) -> Tensor:
    """Patch embedding of a 3-channel model for another channel count: summed for grey images, else spread evenly."""
    if weight.shape == expected.shape or weight.shape[2:] != expected.shape[2:] or weight.shape[1] != 3:
        return weight
    resized.append("patch_embed.proj.weight")
    return weight.sum(dim=1, keepdim=True).expand(-1, expected.shape[1], -1, -1) / expected.shape[1]
