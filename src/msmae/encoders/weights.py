"""A pretrained encoder: its weights under our names, the architecture that they say, and where they came from.

Every tensor of a file is accounted for: used, resized, or left out for a stated reason. Anything else is an error.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msmae.encoders.architecture import check_complete, check_finite, read_spec, refuse_other_kinds
from msmae.encoders.files import Files, find_files, read_tensors, sha256_of, tensor_names
from msmae.encoders.fitting import fit_state
from msmae.encoders.names import named
from msmae.encoders.spec import EncoderSpec
from msmae.method.vit import VisionTransformer, fold_layer_scale, resize_position_embedding

FAMILIES = {
    "timm": "timm", "mae": "facebookresearch/mae", "dinov2": "facebookresearch/dinov2",
    "huggingface-vit": "Hugging Face ViT", "huggingface-mae": "Hugging Face ViT-MAE",
    "huggingface-dinov2": "Hugging Face DINOv2", "huggingface-registers": "Hugging Face DINOv2 with registers",
    "msmae": "msmae",
}  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """A pretrained encoder as it lies on disk: what it is built like, its tensors by our names (float32), its files."""

    spec: EncoderSpec
    state: dict[str, Tensor]
    files: Files
    left_out: list[str]
    """The file's names of tensors that are no part of the encoder."""
    name: str = ""
    """In the catalogue."""
    licence: str = ""
    limited: bool = False
    """Whether the licence forbids commercial use."""

    @property
    def path(self) -> Path:
        return self.files.path

    def origin(self) -> dict[str, Any]:
        """What a model card says of where the encoder came from; the checksum is computed now."""
        before = self.files.config.get("start") or {}
        return {
            "name": self.name or before.get("name", ""),
            "path": str(self.path.resolve()),
            "family": FAMILIES[self.spec.family],
            "sha256": sha256_of(self.files.files),
            "licence": self.licence or before.get("licence", ""),
            "limited": self.limited or bool(before.get("limited")),
            "spec": self.spec.to_dict(),
        }

    def folded(self) -> Weights:
        """The same encoder with LayerScale multiplied into the layers before it."""
        if not self.spec.layer_scale:
            return self
        spec = dataclasses.replace(self.spec, layer_scale=False)
        return dataclasses.replace(self, spec=spec, state=fold_layer_scale(self.state))


@dataclass(frozen=True)
class LoadReport:
    """Names by what became of them."""

    used: list[str]
    resized: list[str]
    left_out: list[str]
    missing: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.lines(at_most=6)

    def lines(self, *, at_most: int | None = None) -> str:
        """A line for each, with the names: all of them, or the first few."""

        def line(title: str, names: list[str]) -> str:
            shown = names if at_most is None or len(names) <= at_most else [*names[:at_most], "..."]
            return f"{title:>9}: {len(names):4d}  {', '.join(shown)}".rstrip()

        rows = [("used", self.used), ("resized", self.resized), ("left out", self.left_out), ("missing", self.missing)]
        rows += [("folded", self.folded)] if self.folded else []
        return "\n".join(line(title, names) for title, names in rows)


def open_weights(path: str | Path, *, heads: int | None = None, image_size: tuple[int, int] | None = None) -> Weights:
    """Read an encoder from a file, a folder (shards with an index too) or a run, and its architecture from its tensors.

    Args:
        heads: attention heads, where the file does not say.
        image_size: (height, width) that the positions are for, where the file does not say and they are no square.

    Raises:
        UserError: nothing there, a damaged file, one with code, not a vision transformer of this kind, a tensor that is
            missing, of another shape or without a known meaning, values that are not finite, or heads that cannot be
            known.
    """
    files = find_files(Path(path))
    if image_size is not None:
        files = dataclasses.replace(files, config={**files.config, "image_size": list(image_size)})
    kind = str(files.config.get("model_type", ""))
    names = tensor_names(files)
    if names is not None:
        refuse_other_kinds(names, kind, files)
    tensors = read_tensors(files)
    refuse_other_kinds(tensors, kind, files)
    found = named(tensors)
    state = {name: value.float() for name, value in found.tensors.items()}
    spec, state = read_spec(found, state, files, heads)
    check_complete(spec, state, files)
    check_finite(state, files)
    return Weights(spec, state, files, found.left_out)


def load_into(encoder: VisionTransformer, weights: Weights) -> LoadReport:
    """Fill an encoder: positions are resampled to its patch grid, a patch embedding of three channels is summed for
    grey images, and LayerScale is folded where the encoder has none.

    Raises:
        UserError: the encoder is of another architecture. The names are given; nothing of it was changed.
    """
    resized: list[str] = []
    folds = weights.spec.layer_scale and not any(name.endswith(".gamma") for name in encoder.state_dict())
    folded = [name for name in weights.state if name.endswith(".gamma")] if folds else []
    weights = weights.folded() if folds else weights
    state, spec = dict(weights.state), weights.spec
    if spec.grid != encoder.grid:
        state["pos_embed"] = resize_position_embedding(
            state["pos_embed"], spec.grid, encoder.grid, antialias=spec.antialias, offset=spec.offset
        )
        resized.append("pos_embed")
    if (encoder.channels, spec.channels) == (1, 3) and encoder.patch_size == spec.patch_size:
        state |= for_grey(state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], spec)
        resized += ["patch_embed.proj.weight", "patch_embed.proj.bias"]
    mend = "leave model.width, depth, heads, patch_size and channels to the weights"
    fit_state(encoder, state, where=weights.path, mend=mend)
    used = [name for name in state if name not in resized]
    return LoadReport(used=used, resized=resized, left_out=weights.left_out, folded=folded)


def for_grey(weight: Tensor, bias: Tensor, spec: EncoderSpec) -> dict[str, Tensor]:
    """The patch embedding of three channels for one: on a grey image it says what the other says of three equal ones.

    Grey images are normalised by the averages m and s of the channels' means and deviations (``grey_normalisation``);
    with W and b, three equal channels x give sum_c W_c (x - m_c) / s_c + b = W' (x - m) / s + b'.
    """
    mean, std = spec.mean or (0.0,) * 3, spec.std or (1.0,) * 3
    middle, spread = sum(mean) / 3, sum(std) / 3
    grey = sum(weight[:, c : c + 1] * (spread / std[c]) for c in range(3))
    shift = sum(weight[:, c].sum(dim=(1, 2)) * ((middle - mean[c]) / std[c]) for c in range(3))
    return {"patch_embed.proj.weight": torch.as_tensor(grey), "patch_embed.proj.bias": bias + shift}


def load_encoder(encoder: VisionTransformer, path: Path) -> LoadReport:
    """Fill an encoder from a file: :func:`open_weights` and :func:`load_into`."""
    block: Any = encoder.blocks[0]
    return load_into(encoder, open_weights(path, heads=block.attn.heads))
