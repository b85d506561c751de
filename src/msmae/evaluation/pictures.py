"""Pictures of what a model sees: the image, where it looks, what is masked, what it makes of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msmae.reporting.figures.fonts import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROLE_COLOURS = ("#c8553d", "#3b3b45", "#e9dcc0")  # masked, dropped, kept
OUTLINE = "#ffb000"
MOST_PIXELS = 800
"""Longest side of the pictures with outlines."""
OUTLINE_INCHES = 3.0
OUTLINES = (OUTLINE, "#648fff", "#dc267f", "#2dd4a8", "#fe6100", "#b28dff")


@dataclass(frozen=True)
class Views:
    """One image's panels. ``image`` and ``restored`` [C, H, W] in the file's own units, ``map`` and ``roles`` [h, w]
    (see ``PatchPlan.roles``), ``outline`` [H, W] the lesion mask; what is None is not drawn."""

    title: str
    image: np.ndarray
    map: np.ndarray
    roles: np.ndarray
    restored: np.ndarray | None = None
    outline: np.ndarray | None = None


def draw_table(path: Path, rows: Sequence[Views]) -> None:
    """One column an image; image, attention, plan and reconstruction below one another."""
    figure = new_figure(1.55 * len(rows) + 0.6, 7.1)
    axes = figure.subplots(4, len(rows), squeeze=False)
    titles, fonts = drawable([views.title for views in rows])
    for column, (views, title) in enumerate(zip(rows, titles, strict=True)):
        draw_views(list(axes[:, column]), views)
        axes[0, column].set_title(title, fontsize=9, family=fonts, parse_math=False)
    for row, name in enumerate(("image", "attention", "plan", "reconstruction")):
        axes[row, 0].set_ylabel(name, fontsize=10)
    add_legend(figure)
    save(figure, path, dpi=110)


def draw_strip(path: Path, views: Views) -> None:
    """One image's panels side by side: image, attention, plan and what was kept of the image."""
    figure = new_figure(7.2, 2.1)
    axes = list(figure.subplots(1, 4))
    draw_views(axes[:3], views)
    low, high = span(views.image)
    kept = np.kron(
        views.roles == 2, np.ones([n // m for n, m in zip(views.image.shape[1:], views.roles.shape, strict=True)])
    )
    axes[3].imshow(shown(np.where(kept, views.image, low), low, high), cmap="gray", vmin=0, vmax=1)
    for axis, title in zip(axes, ("image", "attention", "plan", "kept patches"), strict=True):
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    save(figure, path, dpi=90)


def draw_selection(path: Path, image: np.ndarray, seen: np.ndarray, *, outline: np.ndarray | None = None) -> None:
    """One image [C, H, W] in the file's own units, and beside it the encoded patches: ``seen`` [h, w] is bright, the
    rest dim; the outline is the lesion mask's [H, W]."""
    figure = new_figure(3.6, 1.9)
    axes = list(figure.subplots(1, 2))
    picture = shown(image, *span(image))
    size = [n // m for n, m in zip(image.shape[1:], seen.shape, strict=True)]
    light = np.where(np.kron(seen, np.ones(size)) > 0, 1.0, 0.25)
    axes[0].imshow(picture, cmap="gray", vmin=0, vmax=1)
    axes[1].imshow(picture * (light if picture.ndim == 2 else light[..., None]), cmap="gray", vmin=0, vmax=1)
    for axis, title in zip(axes, ("image", "encoded patches"), strict=True):
        if outline is not None and outline.any():
            axis.contour(outline > 0, levels=[0.5], colors=[OUTLINE], linewidths=1)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    save(figure, path, dpi=90)


def draw_views(axes: Sequence[Axes], views: Views) -> None:
    """Draw image, attention, plan and (where there is one) reconstruction into the axes given."""
    from matplotlib.colors import ListedColormap

    low, high = span(views.image)
    picture = shown(views.image, low, high)
    extent = (-0.5, picture.shape[1] - 0.5, picture.shape[0] - 0.5, -0.5)
    axes[0].imshow(picture, cmap="gray", vmin=0, vmax=1)
    if views.outline is not None and views.outline.any():
        axes[0].contour(views.outline, levels=[0.5], colors=[OUTLINE], linewidths=1)
    axes[1].imshow(picture, cmap="gray", vmin=0, vmax=1)
    axes[1].imshow(views.map, cmap="inferno", alpha=0.65, extent=extent, interpolation="nearest")
    axes[2].imshow(views.roles, cmap=ListedColormap(ROLE_COLOURS), vmin=-0.5, vmax=2.5, interpolation="nearest")
    if views.restored is not None:
        axes[3].imshow(shown(views.restored, low, high), cmap="gray", vmin=0, vmax=1)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])


def span(image: np.ndarray) -> tuple[float, float]:
    """The range a picture is shown in: its least and greatest value."""
    return float(image.min()), float(image.max())


def shown(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """[C, H, W] in the file's own units -> [H, W] or [H, W, 3] in [0, 1]."""
    scaled = ((image - low) / max(high - low, 1e-9)).clip(0, 1)
    return scaled.transpose(1, 2, 0) if len(scaled) == 3 else scaled.mean(axis=0)


def new_figure(width: float, height: float) -> Figure:
    """A figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def add_legend(figure: Figure) -> None:
    """What the colours of the plan mean."""
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(color=colour, label=name)
        for colour, name in zip(ROLE_COLOURS, ("masked", "dropped", "kept"), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def save(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a PNG that is the same to the byte for the same picture."""
    figure.savefig(path, dpi=dpi, metadata={"Software": None})


def draw_outlines(path: Path, image: np.ndarray, *, predicted: np.ndarray, reference: np.ndarray | None = None) -> None:
    """One image [C, H, W] in the file's own units, and where classes are, bool [classes, H, W]: the prediction's
    outlines solid, the reference's dashed. Large images are drawn from every n-th pixel."""
    step = -(-max(image.shape[1:]) // MOST_PIXELS)
    picture = shown(image, *span(image))[::step, ::step]
    height, width = picture.shape[:2]
    longest = max(height, width)
    figure = new_figure(OUTLINE_INCHES * width / longest, OUTLINE_INCHES * height / longest)
    figure.set_layout_engine("none")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="bilinear", aspect="auto")
    for layers, style in ((reference, (0, (2, 1.5))), (predicted, "solid")):
        for number, layer in enumerate(() if layers is None else layers):
            inside = np.pad(layer[::step, ::step], 1)  # a region at the border has an outline there too
            if inside.any():
                axis.contour(
                    np.arange(-1, width + 1), np.arange(-1, height + 1), inside, levels=[0.5],
                    colors=[OUTLINES[number % len(OUTLINES)]], linewidths=1.4, linestyles=[style],
                )  # fmt: skip
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)
    axis.set_axis_off()
    save(figure, path, dpi=max(90, round(longest / OUTLINE_INCHES)))
