"""Settings: frozen groups of values, checked when made.

``None`` means "decided from the data and the machine"; what was decided is written to RUN/config.yaml. The bounds of a
number stand beside its type and are read by one checker (bounds.py).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from msmae.config.arms import Arm
from msmae.config.bounds import (
    Below1,
    Between,
    Count,
    Group,
    NotNegative,
    Positive,
    Rising,
    Share,
    TrueShare,
    require,
)


@dataclass(frozen=True)
class DatasetSettings(Group):
    """How the data is read and divided."""

    group: ClassVar[str] = "dataset"

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
    max_pixels: Count = 300_000_000
    """Refuse images of more pixels: a small file may unfold to more than the memory holds."""
    val_fraction: TrueShare = 0.15
    """Share cut for validation where no validation split is given."""
    test_fraction: TrueShare = 0.2
    """Share cut for testing where no test split is given."""
    ordinal: bool | None = None
    """The classes are grades, in their order (see class_order); None: where the layout says so."""
    class_order: str = ""
    """The classes in their order, separated by semicolons; empty: numbers, then names in natural order (2 before
    10)."""
    on_error: Literal["stop", "skip"] = "stop"
    """What an unreadable image does: stop the run, or be left out and reported."""


@dataclass(frozen=True)
class ModelSettings(Group):
    """The encoder, the decoder and the images they see."""

    group: ClassVar[str] = "model"

    image_size: Annotated[int | tuple[int, int] | None, Between(1)] = None
    """Side, or (height, width), in pixels; None: the images' own size up to image_limit."""
    image_limit: Count = 64
    """Largest side that None may choose."""
    channels: Count | None = None
    """Image channels; None: as in the files."""
    patch_size: Count | None = None
    """Side of a patch in pixels; None: 4 up to 40 px, 8 up to 128 px, else 16."""
    width: Count = 192
    """Width of the encoder's tokens."""
    depth: Count = 6
    """Blocks of the encoder."""
    heads: Count = 6
    """Attention heads of the encoder."""
    decoder_width: Count = 128
    """Width of the decoder's tokens."""
    decoder_depth: Count = 1
    """Blocks of the decoder."""
    decoder_heads: Count = 4
    """Attention heads of the decoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
            w, h = getattr(self, width), getattr(self, heads)
            require(
                w % h == 0 and w % 4 == 0,
                f"width {w} is not a multiple of 4 and of {h} heads",
                where=f"model.{width}",
                mend="choose a width that both divide",
            )
        sides = (self.image_size,) if isinstance(self.image_size, int) else (self.image_size or ())
        if self.patch_size is not None:
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
class Schedule(Group):
    """What every training has: how long, in which batches, at which rate, and what is done to its images."""

    epochs: Count | None = None
    """Passes over the training images; None: as many as `presentations` asks for."""
    presentations: Count = 100_000
    """Images shown in all, where epochs is None."""
    batch_size: Count = 64
    """Images a device holds at a time."""
    accumulate: Count = 1
    """Batches whose gradients make one step: as if so many times `batch_size` were shown, in the memory of one."""
    base_lr: Positive = 1e-3
    """Learning rate for 256 images a step; scaled with `batch_size` x `accumulate` x devices."""
    weight_decay: NotNegative = 0.05
    """Weight decay of AdamW; biases, norms, tokens and positions have none."""
    lr_warmup: Below1 = 0.1
    """Share of the schedule in which the learning rate rises; a half cosine follows."""
    crop_scale: Annotated[tuple[float, float], Rising(0, 1, above=True)] = (0.5, 1.0)
    """Least and largest share of the image's area in a training crop (paper: 0.2 to 1 in pre-training)."""
    flip: Share = 0.5
    """Probability of a left-right flip."""


@dataclass(frozen=True)
class SupervisedSchedule(Schedule):
    """What the two trainings that start from an encoder share."""

    layer_decay: Share = 0.75
    """Each block learns at this share of the rate of the block above it."""
    drop_path: Annotated[float, Between(0, 0.99)] = 0.1
    """Probability that a training image skips a block, at the last block; less in those before it."""
    ema: Below1 = 0.99
    """Decay a step of the averaged weights that are validated and kept; 0 switches averaging off. Never averaged, since
    they keep batch statistics: `resnet18`, the decoder setr-pup."""
    jitter: NotNegative = 0.2
    """Standard deviation of random brightness and contrast changes, in standard deviations of the data."""


@dataclass(frozen=True)
class PretrainSettings(Schedule):
    """Supervised masked pre-training."""

    group: ClassVar[str] = "pretrain"
    presentations: Count = 200_000
    batch_size: Count = 128
    uniform_epochs: Annotated[int, Between(0)] | None = None
    """First epochs with plain random masking at 75 %; None: 13 % of the epochs (paper: 40 of 300)."""
    refresh_every: Count | None = None
    """Epochs between two refreshes of the maps; None: 13 % of the epochs (paper: 40 of 300)."""
    mask_ratio: Below1 | None = None
    """Share of patches to reconstruct; None: the arm's."""
    throw_ratio: Below1 | None = None
    """Share of patches that are neither encoded nor reconstructed; None: the arm's."""
    hints: Share = 0.0
    """Share of the kept patches that the map draws; the rest, and what is masked, is then drawn evenly (paper: 0, the
    map draws what is masked)."""
    label_weight: NotNegative | None = None
    """Weight of the cross-entropy, in arms that learn labels (`mae` and `amt` do not); None: the arm's (paper: 0.1)."""
    normalise_pixels: bool = False
    """Reconstruct per-patch normalised pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
class FinetuneSettings(SupervisedSchedule):
    """Supervised training of the classifier."""

    group: ClassVar[str] = "finetune"
    label_smoothing: Annotated[float, Between(0, 0.99)] = 0.1
    """Share of each label's weight that goes to the other classes."""
    draw: Literal["all", "uniform", "attention", "half", "own"] = "all"
    """Patches seen in training: all; a share of them drawn uniformly, by the attention map, or half of it by each; or
    own: those that the arm's masking keeps (paper)."""
    share: TrueShare | Literal["mixed"] | None = None
    """Share of the patches that the draws uniform, attention and half keep; None: a quarter. mixed: a quarter, or in
    every fourth batch a half, and all patches in the last eighth of the steps: one model for every token share."""
    pool: Literal["cls", "mean", "both", "attentive"] | None = None
    """What the head reads: class token, mean of the patches, both, or what a learned query takes; None: the arm's."""
    lora: Annotated[int, Between(0)] = 0
    """Rank of a low-rank change of attention's weights, which alone learns in the blocks; 0: all weights learn."""
    freeze: Annotated[int, Between(0)] = 0
    """First blocks of the encoder that do not learn; the embedding does not either then."""
    refresh_every: Count | None = None
    """Epochs between two refreshes of the attention maps that the draw follows, the first before the first step; None:
    a fifth of the epochs for own (paper: 20 of 100), else half of them."""
    balance: Literal["auto", "none", "class_weights", "logit_adjustment", "sampling"] = "auto"
    """What is done about rare classes; auto: class weights where the largest has over twice the smallest's images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.share is None or self.draw not in ("all", "own"),
            f"the draw {self.draw} takes no share",
            where="finetune.share",
            mend="leave it out, or set --finetune.draw to uniform, attention or half",
        )


@dataclass(frozen=True)
class SegmentSettings(SupervisedSchedule):
    """Supervised training of the segmenter."""

    group: ClassVar[str] = "segment"
    presentations: Count = 20_000
    batch_size: Count = 32
    base_lr: Positive = 8e-3
    decoder: Literal["light", "setr-pup"] = "light"
    """light: multi-level features joined with the image's own detail; setr-pup: the paper's (SETR)."""
    classes: str = ""
    """Names of the classes 1, 2, ... in the masks, joined by commas; empty: one class, `lesion`."""
    mask_values: Literal["checked", "any"] = "checked"
    """Of one class: checked, all masks must use the same number for it; any, every pixel above 0 is inside."""
    healthy: str = "healthy,normal,no_finding"
    """Labels whose images have nothing to outline; any other image without a mask is an error (dataset.on_error)."""
    patience: Count = 20
    """Epochs without a better validation Dice after which training stops."""
    tolerance: NotNegative = 1.0
    """Distance in pixels, as the model sees the image, within which two outlines agree (surface Dice)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.class_names
        require(len(set(names)) == len(names), "a class twice", where="segment.classes", mend="name each once")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers, the background left out."""
        return tuple(name.strip() for name in self.classes.split(",") if name.strip()) or ("lesion",)


@dataclass(frozen=True)
class TrainerSettings(Group):
    """The machine; passed on to Lightning's Trainer."""

    group: ClassVar[str] = "trainer"

    accelerator: str = "auto"
    """cpu, gpu, ... or auto."""
    devices: int | str = "auto"
    """How many devices, or which."""
    strategy: str = "auto"
    """Lightning's strategy: auto, ddp, fsdp, ..."""
    num_nodes: Count = 1
    """Machines that train together."""
    precision: str = "auto"
    """Lightning's precision; auto: bf16-mixed where this machine is faster in it (measured, some ms), else 32-true."""
    threads: Count | None = None
    """CPU threads; None: all cores."""
    compile: bool = False
    """Compile the network (torch.compile): a minute first, then faster steps on a GPU; on a CPU hardly (docs)."""


@dataclass(frozen=True)
class EvaluateSettings(Group):
    """How the evidence is computed."""

    group: ClassVar[str] = "evaluate"
    resamples: Annotated[int, Between(100)] = 2000
    """Bootstrap resamples of the patients for the 95 % intervals."""


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
