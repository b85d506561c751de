"""``msmae masks``: where a model looks, what that masks, and what it makes of the rest; as pictures and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmae.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from msmae.exchange.checkpoint import ModelCard
    from msmae.method.masking import PatchPlan
    from msmae.method.msmae import MSMAE

LESION_COVER = 0.25
"""A patch bears lesion when at least this share of its pixels does, or when it holds most of a smaller lesion."""


def masks(run: str, *, out: str | None = None, images: int = 8, split: str = "test", seed: int = 0) -> dict[str, Any]:
    """Picture some images of a run: image, map, plan (kept, masked, thrown) and reconstruction; and the same as JSON.

    Where the data has lesion masks, also says what share of the lesion patches of the whole split is masked, thrown
    and kept under the model's maps, beside the shares under random masking.

    Args:
        run: folder of a run that has been pre-trained.
        out: folder for masks.png and masks.json; RUN/masks when left out.
        images: how many images to picture.
        split: train, val or test.
        seed: seed of the draw.

    Returns:
        The content of masks.json.

    Raises:
        UserError: the run has no pre-trained model, or the split no images.
    """
    import torch

    from msmae.exchange.checkpoint import load_model
    from msmae.method.attention import patch_maps
    from msmae.method.masking import plan_patches
    from msmae.method.msmae import MSMAE
    from msmae.stages.folder import write_json
    from msmae.stages.pictures import Views, draw_table
    from msmae.stages.prepare import prepare_again

    folder = Path(run)
    if not (folder / "pretrained").is_dir():
        raise UserError(
            "the run holds no pre-trained model", where=run, mend="pre-train first (the arm `vit` never does)"
        )
    model, card = load_model(folder / "pretrained")
    assert isinstance(model, MSMAE)
    prepared = prepare_again(folder)
    manifest, store = prepared.manifest, prepared.store
    ids = prepared.ids(split, labelled=False)
    if len(ids) == 0:
        raise UserError(f"the split {split} has no images", where=run, mend="choose train, val or test")
    generator = torch.Generator().manual_seed(seed)
    shape = (1, -1, 1, 1)
    mean, std = torch.tensor(card.mean).reshape(shape), torch.tensor(card.std).reshape(shape)

    def normalised(rows: np.ndarray) -> Tensor:
        return (torch.from_numpy(store.fetch(rows).astype("float32")) - mean) / std

    content: dict[str, Any] = {"run": str(folder), "split": split, "grid": list(model.encoder.grid), "lesion": None}
    if store.masks is not None:
        bearing = ids[store.fetch_masks(ids).any(axis=(1, 2))]
        if len(bearing):
            maps = torch.cat(
                [patch_maps(model.encoder, normalised(bearing[i : i + 256])) for i in range(0, len(bearing), 256)]
            )
            lesion = lesion_patches(torch.from_numpy(store.fetch_masks(bearing)), card.patch_size)
            content["lesion"] = lesion_shares(maps, lesion, generator)
    chosen = choose(ids, manifest.table["label"].to_numpy(), images)
    pixels = normalised(chosen)
    maps = patch_maps(model.encoder, pixels)
    plan = plan_patches(maps, generator=generator)
    restored = reconstruct(model, card, pixels, plan)
    content["images"] = [
        {
            "image_path": str(manifest.path(int(sample))),
            "label": str(manifest.table.at[int(sample), "label"]),
            "map": maps[i].tolist(),
            "keep": plan.keep[i].tolist(),
            "mask": plan.mask[i].tolist(),
            "throw": plan.throw[i].tolist(),
        }
        for i, sample in enumerate(chosen)
    ]
    target = Path(out) if out else folder / "masks"
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / "masks.json", content)
    outlines = store.fetch_masks(chosen) if store.masks is not None else [None] * len(chosen)
    roles = plan.roles().reshape(-1, *model.encoder.grid).numpy()
    draw_table(
        target / "masks.png",
        [
            Views(image["label"], *parts)
            for image, *parts in zip(
                content["images"], (pixels * std + mean).numpy(), maps.numpy(), roles, (restored * std + mean).numpy(),
                outlines, strict=True,
            )
        ],
    )  # fmt: skip
    tell(content, target)
    return content


def choose(ids: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The first images of each class in turn, ``count`` in all."""
    import numpy as np

    by_class = [[i for i in ids if labels[i] == name] for name in sorted(set(labels[ids]))]
    turns = [group[k] for k in range(max(map(len, by_class))) for group in by_class if k < len(group)]
    return np.array(sorted(turns[:count], key=lambda i: (labels[i], i)))


def lesion_patches(masks: Tensor, patch_size: int) -> Tensor:
    """Which patches bear lesion, bool [B, N], from pixel masks [B, H, W]."""
    import torch.nn.functional as F

    cover = F.avg_pool2d((masks > 0).float().unsqueeze(1), patch_size).flatten(1)  # [B, N]
    largest = cover.amax(dim=1, keepdim=True).clamp(max=LESION_COVER)
    return (cover >= largest) & (cover > 0)


def lesion_shares(maps: Tensor, lesion: Tensor, generator: Any, *, draws: int = 20) -> dict[str, Any]:
    """Share of the lesion patches [B, N] masked, thrown and kept, guided by maps [B, h, w] and at random."""
    import torch

    from msmae.method.masking import KEPT, MASKED, THROWN, plan_patches

    def shares(weights: Tensor) -> dict[str, float]:
        roles = torch.stack([plan_patches(weights, generator=generator).roles() for _ in range(draws)])  # [R, B, N]
        on_lesion = roles[:, lesion]
        return {
            name: float((on_lesion == role).float().mean())
            for name, role in (("masked", MASKED), ("thrown", THROWN), ("kept", KEPT))
        }

    flat = maps.flatten(1)
    pointed = lesion.gather(1, flat.argmax(dim=1, keepdim=True)).float().mean()
    return {
        "images": len(maps),
        "patches_an_image": float(lesion.sum(dim=1).float().mean()),
        "guided": shares(maps),
        "random": shares(torch.ones_like(maps)),
        "most_attended_patch_on_lesion": float(pointed),
    }


def reconstruct(model: MSMAE, card: ModelCard, images: Tensor, plan: PatchPlan) -> Tensor:
    """Images [B, C, H, W] (normalised) with the masked patches reconstructed and the thrown ones blank."""
    import torch

    from msmae.method.vit import gather_tokens, patchify, unpatchify

    with torch.no_grad():
        predicted = model(images, plan).pixels  # [B, M, P]
    patches = patchify(images, card.patch_size)
    if card.normalise_pixels:  # undo the per-patch normalisation with the true patch's mean and spread
        true = gather_tokens(patches, plan.mask)
        predicted = predicted * (true.var(dim=-1, keepdim=True) + 1e-6).sqrt() + true.mean(dim=-1, keepdim=True)

    def put(index: Tensor, values: Tensor) -> None:
        patches.scatter_(1, index.unsqueeze(-1).expand(-1, -1, patches.shape[-1]), values)

    put(plan.mask, predicted)
    put(plan.throw, torch.zeros(*plan.throw.shape, patches.shape[-1]))
    return unpatchify(patches, model.encoder.grid, card.channels)


def tell(content: dict[str, Any], target: Path) -> None:
    """One sentence on the lesions, and where the picture is."""
    lesion = content["lesion"]
    if lesion:
        guided, random = lesion["guided"], lesion["random"]
        print(
            f"lesion patches of {lesion['images']} {content['split']} images: "
            + ", ".join(f"{guided[k]:.0%} {k} (random: {random[k]:.0%})" for k in guided)
            + f"; the most attended patch lies on the lesion in {lesion['most_attended_patch_on_lesion']:.0%}"
        )
    print(f"  masks            {target / 'masks.png'}")
