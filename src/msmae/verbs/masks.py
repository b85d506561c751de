"""``msmae masks``: where a model looks, what that masks, and what it makes of the rest; as pictures and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmae.errors import UserError, count, nearest
from msmae.files import own_folder

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from msmae.method.masking import PatchPlan
    from msmae.method.msmae import MSMAE
    from msmae.training.prepare import Prepared


def masks(
    source: str,
    *,
    out: str | None = None,
    images: int = 8,
    split: str = "test",
    preset: str = "auto",
    seed: int = 0,
    root: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Picture some images: image, map, plan (kept, masked, dropped) and reconstruction; and the same as JSON.

    With a RUN the maps and the reconstruction are its pre-trained model's. With DATA there is no model yet: the maps
    are even, the plan is a random one, and nothing is reconstructed. Where the data has lesion masks, also says what
    share of the lesion patches of the split is masked, dropped and kept, beside the shares under random masking.

    Args:
        source: folder of a run that has been pre-trained, or data as for `msmae run`.
        out: folder for masks.png and masks.json. Unless given: RUN/masks.
        images: how many images to picture.
        split: train, val or test.
        preset: settings for DATA; a RUN has its own.
        seed: seed of the draw.
        root: where the folder of the run's data is now, if it was moved. RUN/manifest.csv then names it.
        overwrite: replace the pictures that the folder holds.

    Returns:
        The content of masks.json.

    Raises:
        UserError: the run has no pre-trained model, the split no images, or DATA came without `--out`.
    """
    import torch

    from msmae.data.manifest import SPLITS
    from msmae.evaluation.map_quality import lesion_patches, lesion_shares
    from msmae.runs.folder import check_output, write_json

    if split not in SPLITS:
        raise UserError(f"no split '{split}'", where="--split", mend=nearest(split, SPLITS))
    if images < 1:
        raise UserError(f"{count(images, 'image')} to picture", where="--images", mend="give at least 1")
    target = Path(out) if out else Path(source) / "masks"
    if out or (Path(source) / "pretrained").is_dir():
        check_output(target, overwrite=overwrite, writes=("masks.json", "masks.png"))
    prepared, model = open_source(source, preset, out, root)
    ids = prepared.ids(split, labelled=False)
    if len(ids) == 0:
        filled = [name for name in ("train", "val", "test") if len(prepared.ids(name, labelled=False))]
        raise UserError(f"the split {split} has no images", where=source, mend=f"choose --split {' or '.join(filled)}")
    generator = torch.Generator().manual_seed(seed)
    scene = Scene(prepared, model)
    draw = prepared.draw
    content: dict[str, Any] = {"source": source, "split": split, "grid": list(scene.grid), "lesion": None}
    if prepared.store.masks is not None:
        bearing = ids[prepared.store.fetch_masks(ids).any(axis=(1, 2))]
        if len(bearing):
            outlines = torch.from_numpy(prepared.store.fetch_masks(bearing))
            content["lesion"] = lesion_shares(
                scene.maps(bearing), lesion_patches(outlines, scene.patch_size), generator, draw=draw
            )
    chosen = choose(ids, prepared.manifest.table["label"].to_numpy(), images)
    maps = scene.maps(chosen)
    plan = draw.plan(maps, generator)
    content["images"] = [
        {
            "image_path": str(prepared.manifest.path(int(sample))),
            "label": str(prepared.manifest.table.at[int(sample), "label"]),
            "map": maps[i].tolist(),
            "keep": plan.keep[i].tolist(),
            "mask": plan.mask[i].tolist(),
            "throw": plan.throw[i].tolist(),
        }
        for i, sample in enumerate(chosen)
    ]
    own_folder(target)
    write_json(target / "masks.json", content)
    scene.draw(target / "masks.png", chosen, maps, plan)
    tell(content, target)
    return content


def open_source(source: str, preset: str, out: str | None, root: str | None) -> tuple[Prepared, MSMAE | None]:
    """A run's data and pre-trained model; or data as for ``msmae run``, and no model."""
    from msmae.config import make_settings
    from msmae.data.opening import divide
    from msmae.method.msmae import MSMAE
    from msmae.runs.checkpoint import load_model
    from msmae.runs.moved import locate_images
    from msmae.training.prepare import prepare, prepare_again

    folder = Path(source)
    if not (folder / "config.yaml").is_file() and (source == "phantom" or folder.exists()):
        if out is None:
            raise UserError("no folder for the pictures", where="--out", mend="name one; a RUN has its own")
        if root is not None:
            raise UserError("DATA says itself where it lies", where="--root", mend="leave it out")
        settings = make_settings(preset)
        return prepare(divide(source, settings=settings), settings=settings), None
    if not (folder / "pretrained").is_dir():
        raise UserError("no pre-trained model here", where=source, mend="pre-train first (the arm `vit` never does)")
    locate_images(folder, root)
    model, _ = load_model(folder / "pretrained")
    assert isinstance(model, MSMAE)
    return prepare_again(folder, pretrain_only=True), model


class Scene:
    """Prepared data and, where there is one, a pre-trained model that looks at it."""

    def __init__(self, prepared: Prepared, model: MSMAE | None) -> None:
        import torch

        height, width = prepared.image_size
        assert prepared.settings.model.patch_size is not None
        self.prepared, self.model, self.patch_size = prepared, model, prepared.settings.model.patch_size
        self.grid = (height // self.patch_size, width // self.patch_size)
        self.mean = torch.tensor(prepared.mean).reshape(1, -1, 1, 1)
        self.std = torch.tensor(prepared.std).reshape(1, -1, 1, 1)

    def images(self, ids: np.ndarray) -> Tensor:
        """Normalised images [B, C, H, W]."""
        import torch

        return (torch.from_numpy(self.prepared.store.fetch(ids).astype("float32")) - self.mean) / self.std

    def maps(self, ids: np.ndarray) -> Tensor:
        """Maps [B, h, w]; even where there is no model."""
        import torch

        from msmae.method.attention import patch_maps

        if self.model is None:
            return torch.ones(len(ids), *self.grid)
        encoder = self.model.encoder
        return torch.cat([patch_maps(encoder, self.images(ids[i : i + 256])) for i in range(0, len(ids), 256)])

    def restore(self, images: Tensor, plan: PatchPlan) -> Tensor:
        """Images with the masked patches reconstructed (blank without a model) and the dropped ones blank."""
        import torch

        from msmae.method.vit import gather_tokens, patchify, unpatchify

        patches = patchify(images, self.patch_size)  # [B, N, P]
        blank = torch.zeros(1, 1, patches.shape[-1])  # the mean of the data
        predicted = blank.expand(*plan.mask.shape, -1)
        if self.model is not None:
            with torch.no_grad():
                predicted = self.model(images, plan).pixels  # [B, M, P]
            if self.prepared.settings.pretrain.normalise_pixels:  # undo it with the true patch's mean and spread
                true = gather_tokens(patches, plan.mask)
                predicted = predicted * (true.var(dim=-1, keepdim=True) + 1e-6).sqrt() + true.mean(dim=-1, keepdim=True)
        for index, values in ((plan.mask, predicted), (plan.throw, blank.expand(*plan.throw.shape, -1))):
            patches.scatter_(1, index.unsqueeze(-1).expand(-1, -1, patches.shape[-1]), values)
        return unpatchify(patches, self.grid, images.shape[1])

    def draw(self, path: Path, ids: np.ndarray, maps: Tensor, plan: PatchPlan) -> None:
        """The four panels of each image, in one picture."""
        from msmae.evaluation.pictures import Views, draw_table

        store = self.prepared.store
        labels = self.prepared.manifest.table["label"].to_numpy()[ids]
        images = self.images(ids)
        restored = (self.restore(images, plan) * self.std + self.mean).numpy()
        roles = plan.roles().reshape(-1, *self.grid).numpy()
        outlines = store.fetch_masks(ids) if store.masks is not None else [None] * len(ids)
        parts = zip(labels, store.fetch(ids).astype("float32"), maps.numpy(), roles, restored, outlines, strict=True)
        draw_table(path, [Views(*part) for part in parts])


def choose(ids: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The first images of each class in turn, ``count`` in all."""
    import numpy as np

    by_class = [[i for i in ids if labels[i] == name] for name in sorted(set(labels[ids]))]
    turns = [group[k] for k in range(max(map(len, by_class))) for group in by_class if k < len(group)]
    return np.array(sorted(turns[:count], key=lambda i: (labels[i], i)))


WORDS = {"thrown": "dropped"}
"""What the paper's word is called here; the JSON keeps it."""


def tell(content: dict[str, Any], target: Path) -> None:
    """One sentence on the lesions, and where the picture is."""
    lesion = content["lesion"]
    if lesion:
        guided, random = lesion["guided"], lesion["random"]
        print(
            f"lesion patches of {count(lesion['images'], content['split'] + ' image')}: "
            + ", ".join(f"{100 * guided[k]:.0f} % {WORDS.get(k, k)} (random: {100 * random[k]:.0f} %)" for k in guided)
            + "; the most attended patch lies on the lesion in "
            f"{100 * lesion['most_attended_patch_on_lesion']:.0f} % of them"
        )
    print(f"  masks            {target / 'masks.png'}")
