"""Settings: frozen groups of values, checked when made.

``None`` means "decided from the data and the machine"; what was decided is written to RUN/config.yaml.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from msmae.config.arms import Arm
from msmae.errors import UserError


def require(holds: bool, what: str, *, where: str, mend: str) -> None:
    """Raise ``UserError`` unless ``holds``."""
    if not holds:
        raise UserError(what, where=where, mend=mend)


@dataclass(frozen=True)
class DatasetSettings:
    """How the data is read and divided."""

    layout: str = "auto"
    """How the folder or table is laid out; `msmae check` names what it recognises."""
    image_column: str = "image_path"
    """Column of a CSV that holds the image paths."""
    label_column: str = "label"
    """Column of a CSV that holds the labels."""
    patient_column: str = "patient_id"
    """Column of a CSV that holds the patient; images of a patient stay in one split."""
    split_column: str = "split"
    """Column of a CSV that holds train, val or test."""
    mask_column: str = "mask_path"
    """Column of a CSV that holds the lesion masks."""
    site_column: str = "site"
    """Column of a CSV that holds where the image comes from."""
    patients: str = "auto"
    """Where a patient's name is found when no table gives it."""
    slices: str = ""
    """Cut volumes into slices, for instance axial:5 (every fifth axial slice); empty: one image a row."""
    window: str = "file"
    """Grey levels of DICOM: file (as the file asks), none (modality units), lung, brain, bone, soft-tissue,
    centre,width or low..high."""
    replace_nonfinite: float | None = None
    """The number to put where an image holds NaN or infinity; None: such an image is refused."""
    max_pixels: int = 300_000_000
    """Refuse images of more pixels: a small file may unfold to more than the memory holds."""
    val_fraction: float = 0.15
    """Share cut for validation where no validation split is given."""
    test_fraction: float = 0.2
    """Share cut for testing where no test split is given."""
    ordinal: bool | None = None
    """The classes are grades, in the order of their names (numbers, then the alphabet); None: where the layout says
    so."""
    on_error: Literal["stop", "skip"] = "stop"
    """What an unreadable image does: stop the run, or be left out and reported."""

    def __post_init__(self) -> None:
        for name in ("val_fraction", "test_fraction"):
            value = getattr(self, name)
            require(
                0 < value < 1, f"{value} is not a share", where=f"dataset.{name}", mend="give a number between 0 and 1"
            )


@dataclass(frozen=True)
class ModelSettings:
    """The encoder, the decoder and the images they see."""

    image_size: int | tuple[int, int] | None = None
    """Side, or (height, width), in pixels; None: the images' own size up to image_limit."""
    image_limit: int = 64
    """Largest side that None may choose."""
    channels: int | None = None
    """Image channels; None: as in the files."""
    patch_size: int | None = None
    """Side of a patch in pixels; None: 4 up to 40 px, 8 up to 128 px, else 16."""
    width: int = 192
    """Width of the encoder's tokens."""
    depth: int = 6
    """Blocks of the encoder."""
    heads: int = 6
    """Attention heads of the encoder."""
    decoder_width: int = 128
    """Width of the decoder's tokens."""
    decoder_depth: int = 1
    """Blocks of the decoder."""
    decoder_heads: int = 4
    """Attention heads of the decoder."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "decoder_width", "decoder_depth", "decoder_heads", "image_limit"):
            require(getattr(self, name) >= 1, "must be at least 1", where=f"model.{name}", mend="give a larger number")
        for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
            w, h = getattr(self, width), getattr(self, heads)
            require(
                w % h == 0 and w % 4 == 0,
                f"width {w} is not a multiple of 4 and of {h} heads",
                where=f"model.{width}",
                mend="choose a width that both divide",
            )
        sides = (self.image_size,) if isinstance(self.image_size, int) else (self.image_size or ())
        for side in sides:
            require(side >= 1, f"image size {side}", where="model.image_size", mend="give a positive number of pixels")
        if self.patch_size is not None:
            require(
                self.patch_size >= 1, "must be at least 1", where="model.patch_size", mend="give a number of pixels"
            )
            for side in sides:
                check_patch_size((side, side), self.patch_size)


def check_patch_size(image_size: tuple[int, int], patch_size: int) -> None:
    """Raise ``UserError`` unless both sides are multiples of the patch size."""
    for side in image_size:
        nearest = max(patch_size, round(side / patch_size) * patch_size)
        require(
            side >= patch_size and side % patch_size == 0,
            f"image size {side} is not a multiple of the patch size {patch_size}",
            where="model.image_size",
            mend=f"choose {nearest}, or another model.patch_size",
        )


@dataclass(frozen=True)
class PretrainSettings:
    """Supervised masked pre-training."""

    epochs: int | None = None
    """Passes over the training images; None: as many as `presentations` asks for."""
    presentations: int = 200_000
    """Images shown in all, where epochs is None."""
    batch_size: int = 128
    accumulate: int = 1
    """Batches whose gradients make one step: as if so many times `batch_size` were shown, in the memory of one."""
    base_lr: float = 1e-3
    """Learning rate for 256 images a step; scaled with `batch_size` x `accumulate` x devices."""
    weight_decay: float = 0.05
    lr_warmup: float = 0.1
    """Share of the schedule in which the learning rate rises; a half cosine follows."""
    uniform_epochs: int | None = None
    """First epochs with plain random masking at 75 %; None: 13 % of the epochs (paper: 40 of 300)."""
    refresh_every: int | None = None
    """Epochs between two refreshes of the maps; None: 13 % of the epochs (paper: 40 of 300)."""
    mask_ratio: float | None = None
    """Share of patches to reconstruct; None: the arm's."""
    throw_ratio: float | None = None
    """Share of patches that are neither encoded nor reconstructed; None: the arm's."""
    temperature: float = 1.0
    """How closely the draw follows the maps: above 1 less closely, under 1 more (paper: 1, as the maps say)."""
    uniform_share: float = 0.0
    """Share of the draw's weight that is spread evenly, whatever the maps say (paper: none)."""
    hints: float = 0.0
    """Share of the kept patches that the map draws; the rest, and what is masked, is then drawn evenly (paper: 0, the
    map draws what is masked)."""
    label_weight: float | None = None
    """Weight of the cross-entropy, in arms that learn labels (`mae` and `amt` do not); None: the arm's (paper: 0.1)."""
    normalise_pixels: bool = False
    """Reconstruct per-patch normalised pixels."""
    crop_scale: tuple[float, float] = (0.5, 1.0)
    """Least and largest share of the image's area in a training crop (paper: 0.2 to 1)."""
    flip: float = 0.5
    """Probability of a left-right flip."""

    def __post_init__(self) -> None:
        check_schedule(self, "pretrain")
        for name in ("uniform_epochs", "label_weight"):
            value = getattr(self, name)
            require(value is None or value >= 0, "is negative", where=f"pretrain.{name}", mend="give 0 or more")
        require(
            self.temperature > 0, "must be above 0", where="pretrain.temperature", mend="1 follows the maps as they are"
        )
        require(
            0 <= self.uniform_share <= 1,
            "is no share",
            where="pretrain.uniform_share",
            mend="give a number from 0 to 1",
        )
        require(0 <= self.hints <= 1, "is no share", where="pretrain.hints", mend="give a number from 0 to 1")
        self.ratios(Arm(mask_ratio=0.01, throw_ratio=0.0))

    def weight_of_labels(self, arm: Arm) -> float:
        """The weight of the cross-entropy under an arm; no setting makes an arm without labels learn them."""
        return arm.label_weight if self.label_weight is None or arm.label_weight == 0 else self.label_weight

    def ratios(self, arm: Arm) -> tuple[float, float]:
        """Mask and throw ratio under an arm. Raises ``UserError`` where they leave no patch to see."""
        mask = arm.mask_ratio if self.mask_ratio is None else self.mask_ratio
        throw = arm.throw_ratio if self.throw_ratio is None else self.throw_ratio
        require(
            mask > 0 and throw >= 0 and mask + throw < 1,
            f"mask ratio {mask} + throw ratio {throw} leaves no patch to see",
            where="pretrain.mask_ratio, pretrain.throw_ratio",
            mend="both at least 0, together under 1",
        )
        return mask, throw


@dataclass(frozen=True)
class FinetuneSettings:
    """Supervised training of the classifier."""

    epochs: int | None = None
    """Passes over the labelled training images; None: as many as `presentations` asks for."""
    presentations: int = 100_000
    """Images shown in all, where epochs is None."""
    batch_size: int = 64
    accumulate: int = 1
    """Batches whose gradients make one step: as if so many times `batch_size` were shown, in the memory of one."""
    base_lr: float = 1e-3
    """Learning rate for 256 images a step; scaled with `batch_size` x `accumulate` x devices."""
    weight_decay: float = 0.05
    lr_warmup: float = 0.1
    """Share of the schedule in which the learning rate rises; a half cosine follows."""
    layer_decay: float = 0.75
    """Each block learns at this share of the rate of the block above it."""
    drop_path: float = 0.1
    label_smoothing: float = 0.1
    ema: float = 0.99
    """Decay a step of the averaged weights that are validated and kept; 0 switches averaging off. Never averaged, since
    it keeps batch statistics: `resnet18`."""
    draw: Literal["all", "own"] = "all"
    """Patches seen in training: all of them, or the quarter that the arm's own masking keeps (paper)."""
    pool: Literal["cls", "mean"] | None = None
    """What the head reads: class token or mean of the patch tokens; None: the arm's."""
    refresh_every: int | None = None
    """Epochs between two refreshes of the maps when draw is own; None: a fifth of the epochs (paper: 20 of 100)."""
    balance: Literal["auto", "none", "class_weights", "logit_adjustment", "sampling"] = "auto"
    """What is done about rare classes; auto: class weights where the largest has over twice the smallest's images."""
    crop_scale: tuple[float, float] = (0.5, 1.0)
    """Least and largest share of the image's area in a training crop."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    jitter: float = 0.2
    """Standard deviation of random brightness and contrast changes, in standard deviations of the data."""

    def __post_init__(self) -> None:
        check_schedule(self, "finetune")
        for name, low, high in (("layer_decay", 0, 1), ("drop_path", 0, 0.99), ("label_smoothing", 0, 0.99)):
            value = getattr(self, name)
            require(low <= value <= high, f"{value} is out of range", where=f"finetune.{name}", mend=f"{low} to {high}")
        require(self.jitter >= 0, "is negative", where="finetune.jitter", mend="give 0 or more")
        require(0 <= self.ema < 1, f"{self.ema} is out of range", where="finetune.ema", mend="0 (off) to under 1")


@dataclass(frozen=True)
class SegmentSettings:
    """Supervised training of the segmenter."""

    decoder: Literal["light", "setr-pup"] = "light"
    """light: multi-level features joined with the image's own detail; setr-pup: the paper's (SETR)."""
    decoder_width: int = 64
    """Channels of the light decoder."""
    deep_supervision: bool = False
    """Train all four heads of setr-pup, the first three at a weight of 0.4; else the last alone (paper)."""
    classes: str = ""
    """Names of the classes 1, 2, ... in the masks, joined by commas; empty: one class, `lesion`."""
    mask_values: Literal["checked", "any"] = "checked"
    """Of one class: checked, all masks must use the same number for it; any, every pixel above 0 is inside."""
    healthy: str = "healthy,normal,no_finding"
    """Labels whose images have nothing to outline; any other image without a mask is an error (dataset.on_error)."""
    epochs: int | None = None
    """Passes over the training images; None: as many as `presentations` asks for."""
    presentations: int = 20_000
    """Images shown in all, where epochs is None."""
    patience: int = 20
    """Epochs without a better validation Dice after which training stops."""
    batch_size: int = 32
    accumulate: int = 1
    """Batches whose gradients make one step: as if so many times `batch_size` were shown, in the memory of one."""
    base_lr: float = 8e-3
    """Learning rate for 256 images a step; scaled with `batch_size` x `accumulate` x devices."""
    weight_decay: float = 0.05
    lr_warmup: float = 0.1
    """Share of the schedule in which the learning rate rises; a half cosine follows."""
    layer_decay: float = 0.75
    """Each block learns at this share of the rate of the block above it."""
    drop_path: float = 0.1
    ema: float = 0.99
    """Decay a step of the averaged weights that are validated and kept; 0 switches averaging off. Never averaged, since
    it keeps batch statistics: the decoder setr-pup."""
    crop_scale: tuple[float, float] = (0.5, 1.0)
    """Least and largest share of the image's area in a training crop."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    jitter: float = 0.2
    """Standard deviation of random brightness and contrast changes, in standard deviations of the data."""
    tolerance: float = 1.0
    """Distance in pixels, as the model sees the image, within which two outlines agree (surface Dice)."""

    def __post_init__(self) -> None:
        check_schedule(self, "segment")
        for name, low, high in (("layer_decay", 0, 1), ("drop_path", 0, 0.99), ("ema", 0, 0.99999)):
            value = getattr(self, name)
            require(low <= value <= high, f"{value} is out of range", where=f"segment.{name}", mend=f"{low} to {high}")
        for name in ("jitter", "tolerance"):
            require(getattr(self, name) >= 0, "is negative", where=f"segment.{name}", mend="give 0 or more")
        require(self.patience >= 1, "too few", where="segment.patience", mend="give at least 1")
        require(self.decoder_width >= 4, "too few", where="segment.decoder_width", mend="give at least 4")
        names = self.class_names
        require(len(set(names)) == len(names), "a class twice", where="segment.classes", mend="name each once")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers, the background left out."""
        return tuple(name.strip() for name in self.classes.split(",") if name.strip()) or ("lesion",)


def check_schedule(settings: PretrainSettings | FinetuneSettings | SegmentSettings, group: str) -> None:
    """The checks that the training stages share."""
    counts: list[tuple[str, int | None]] = [
        ("epochs", settings.epochs),
        ("batch_size", settings.batch_size),
        ("accumulate", settings.accumulate),
        ("presentations", settings.presentations),
    ]
    if not isinstance(settings, SegmentSettings):
        counts.append(("refresh_every", settings.refresh_every))
    for name, value in counts:
        require(value is None or value >= 1, f"{value} is too few", where=f"{group}.{name}", mend="give at least 1")
    require(settings.weight_decay >= 0, "is negative", where=f"{group}.weight_decay", mend="give 0 or more")
    require(0 <= settings.lr_warmup < 1, "is no share", where=f"{group}.lr_warmup", mend="give 0 to under 1")
    require(settings.base_lr > 0, "must be positive", where=f"{group}.base_lr", mend="for instance 1e-3")
    low, high = settings.crop_scale
    require(
        0 < low <= high <= 1, f"{low} to {high} is no range", where=f"{group}.crop_scale", mend="0 < least <= most <= 1"
    )
    require(0 <= settings.flip <= 1, "is no probability", where=f"{group}.flip", mend="give 0 to 1")


@dataclass(frozen=True)
class TrainerSettings:
    """The machine; passed on to Lightning's Trainer."""

    accelerator: str = "auto"
    """cpu, gpu, ... or auto."""
    devices: int | str = "auto"
    """How many devices, or which."""
    strategy: str = "auto"
    """Lightning's strategy: auto, ddp, fsdp, ..."""
    num_nodes: int = 1
    precision: str = "auto"
    """Lightning's precision; auto: bf16-mixed where this machine is faster in it (measured, some ms), else 32-true."""
    threads: int | None = None
    """CPU threads; None: all cores."""
    compile: bool = False
    """Compile the network (torch.compile): a minute first, then faster steps on a GPU; on a CPU hardly (docs)."""


@dataclass(frozen=True)
class EvaluateSettings:
    """How the evidence is computed."""

    resamples: int = 2000
    """Bootstrap resamples of the patients for the 95 % intervals."""

    def __post_init__(self) -> None:
        require(self.resamples >= 100, "too few", where="evaluate.resamples", mend="give at least 100")


@dataclass(frozen=True)
class Settings:
    """All settings of a run, by group."""

    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested plain values (tuples as lists), as written to config.yaml."""

        def plain(value: Any) -> Any:
            return list(value) if isinstance(value, tuple) else value

        return {
            group: {name: plain(value) for name, value in values.items()}
            for group, values in dataclasses.asdict(self).items()
        }
