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
    """Layout of the folder or table. auto: msmae recognises it; `msmae check` says which it is."""
    image_column: str = "image_path"
    """Column of a CSV that holds the image paths. Of a folder of volumes: the channel, as the files' names end
    (flair), or its number in 4-D volumes."""
    label_column: str = "label"
    """Column of a CSV that holds the labels. Or one column per finding: 'Edema;Mass' (-1 and empty cells are not
    known, unless ';unknown=zeros', empty_zeros or ones follows). Or an expression searched in the paths:
    'path:_([01])\\.png'. Or a table with one row per patient: patients.csv:diagnosis."""
    patient_column: str = "patient_id"
    """Column of a CSV that holds the patient; images of a patient stay in one split."""
    split_column: str = "split"
    """Column of a CSV that holds train, val or test."""
    mask_column: str = "mask_path"
    """Column of a CSV that holds the lesion masks. Of a folder: the folder that holds them; none: masks are left
    out."""
    site_column: str = "site"
    """Column of a CSV that holds the site, for instance the hospital."""
    patients: str = "auto"
    """Where the patient's name is found if no table gives it: auto, none, folder, or an expression such as
    'p(\\d+)_'."""
    slices: str = ""
    """Cut volumes into slices: axial:5 takes every fifth axial slice. Unless given: one image per row."""
    window: str = "file"
    """Grey levels of DICOM: file (as the file asks), none (modality units), lung, brain, bone, soft-tissue,
    centre,width or low..high."""
    replace_nonfinite: float | None = None
    """Number that replaces NaN and infinity in an image. Unless given: such an image is refused."""
    max_pixels: Count = 300_000_000
    """Images with more pixels are refused: a small file can fill the memory when it is decoded."""
    val_fraction: TrueShare = 0.15
    """Share of the images outside the test split that is cut for validation, if the data gives no validation split."""
    test_fraction: TrueShare = 0.2
    """Share of the images cut for testing, if the data gives no test split."""
    ordinal: bool | None = None
    """Whether the classes are grades, in the order of class_order. Unless given: as the layout says."""
    class_order: str = ""
    """The classes in their order, separated by semicolons. Unless given: numbers, then names in natural order (2
    before 10)."""
    unit: str = "auto"
    """Column whose images also get one answer together, for instance lesion_id or study. auto: the patients, where they
    are named; none: images only. Images without a label get their unit's, where a column is named."""
    on_error: Literal["stop", "skip"] = "stop"
    """What happens at an unreadable image. stop: the run stops; skip: the image is left out and reported."""


@dataclass(frozen=True)
class ModelSettings(Group):
    """The encoder, the decoder and the images they see."""

    group: ClassVar[str] = "model"

    image_size: Annotated[int | tuple[int, int] | None, Between(1)] = None
    """Side, or (height, width), in pixels. Unless given: the images' own size, at most image_limit."""
    image_limit: Count = 64
    """Largest side in pixels if image_size is not given."""
    channels: Count | None = None
    """Image channels. Unless given: as in the files."""
    patch_size: Count | None = None
    """Side of a patch in pixels. Unless given: 4 for images up to 40 px, 8 up to 128 px, else 16."""
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
    """Passes over the training images. Unless given: until `presentations` images were shown."""
    presentations: Count = 100_000
    """Images shown in all, if epochs is not given."""
    batch_size: Count = 64
    """Images of one batch on each device."""
    accumulate: Count = 1
    """Batches that make one step. Two batches of 64 give the step of one batch of 128, in the memory of 64."""
    base_lr: Positive = 1e-3
    """Learning rate for 256 images a step; scaled with `batch_size` x `accumulate` x devices."""
    weight_decay: NotNegative = 0.05
    """Weight decay of AdamW. Biases, norms, tokens and positions have none."""
    lr_warmup: Below1 = 0.1
    """Share of the steps in which the learning rate rises. Then it falls along a half cosine."""
    crop_scale: Annotated[tuple[float, float], Rising(0, 1, above=True)] = (0.5, 1.0)
    """Smallest and largest share of the image's area in a training crop (paper, pre-training: 0.2 to 1)."""
    flip: Share = 0.5
    """Probability of a left-right flip."""


@dataclass(frozen=True)
class SupervisedSchedule(Schedule):
    """What the two trainings that start from an encoder share."""

    layer_decay: Share = 0.75
    """Each block learns at this share of the rate of the block above it."""
    drop_path: Annotated[float, Between(0, 0.99)] = 0.1
    """Probability that a training image skips the last block. It is less for the blocks before."""
    ema: Below1 = 0.99
    """Decay per step of the averaged weights, which are validated and kept. 0: no averaging. `resnet18` and the decoder
    setr-pup are never averaged, since they keep batch statistics."""
    jitter: NotNegative = 0.2
    """Random changes of brightness and contrast: their standard deviation, in standard deviations of the data."""
    rotate: Annotated[float, Between(0, 180)] = 0.0
    """Training crops are turned by up to so many degrees to either side. 180: any angle, where up and down mean
    nothing."""
    patience: Count | None = None
    """Training stops after so many validations without a better one (fine-tuning: loss; segmentation: Dice). Unless
    given: fine-tuning trains all its epochs."""


@dataclass(frozen=True)
class PretrainSettings(Schedule):
    """Supervised masked pre-training."""

    group: ClassVar[str] = "pretrain"
    presentations: Count = 200_000
    batch_size: Count = 128
    uniform_epochs: Annotated[int, Between(0)] | None = None
    """First epochs, with random masking of 75 % of the patches. Unless given: 13 % of the epochs (paper: 40 of 300)."""
    refresh_every: Count | None = None
    """Epochs between two refreshes of the attention maps. Unless given: 13 % of the epochs (paper: 40 of 300)."""
    mask_ratio: Below1 | None = None
    """Share of the patches that are masked and reconstructed. Unless given: the arm's own."""
    throw_ratio: Below1 | None = None
    """Share of the patches that are dropped: neither encoded nor reconstructed. Unless given: the arm's own."""
    hints: Share = 0.0
    """Share of the kept patches that the attention map draws. Above 0, all other patches are drawn at random (paper:
    0, the map draws the masked patches)."""
    label_weight: NotNegative | None = None
    """Weight of the label's loss in arms that learn labels; `mae` and `amt` do not. Unless given: the arm's own
    (paper: 0.1)."""
    normalise_pixels: bool = False
    """Reconstruct pixels that are normalised patch by patch."""

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
    draw: Literal["all", "uniform", "attention", "half", "own", "coarse"] = "all"
    """Patches seen in training. all; or a share, drawn at random (uniform), by the attention map (attention) or half by
    each (half); own: the patches that the arm's masking keeps (paper); coarse: the whole image at 112 px, and the
    patches close up that a locator chooses, in prediction too."""
    share: TrueShare | Literal["mixed"] | None = None
    """Share of the patches that the draws uniform, attention and half keep. Unless given: a quarter. mixed: a quarter,
    in every fourth batch a half, and all in the last eighth of the steps: one model for every token share. Of the draw
    coarse: the whole image's tokens and those close up. Unless given: half as many close up."""
    pool: Literal["cls", "mean", "both", "attentive"] | None = None
    """What the head reads: the class token (cls), the mean of the patches, both, or what a learned query attends to
    (attentive). Unless given: the arm's own."""
    lora: Annotated[int, Between(0)] = 0
    """Rank of LoRA: in the blocks, only low-rank changes of the attention's weights learn. 0: all weights learn."""
    freeze: Annotated[int, Between(0)] = 0
    """Number of first blocks that do not learn. Above 0, the patch embedding does not learn either."""
    refresh_every: Count | None = None
    """Epochs between two refreshes of the attention maps that draw the patches; the first comes before the first step.
    Unless given: a fifth of the epochs for the draw own (paper: 20 of 100), else half of them."""
    balance: Literal["auto", "none", "class_weights", "logit_adjustment", "sampling"] = "auto"
    """What is done about rare classes. auto: class weights, if the largest class has over twice as many images as the
    smallest; from a pretrained encoder and over ten times as many, logit adjustment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.share is None or self.draw not in ("all", "own"),
            f"the draw {self.draw} takes no share",
            where="finetune.share",
            mend="leave it out, or set --finetune.draw to uniform, attention, half or coarse",
        )
        require(
            self.draw != "coarse" or self.share != "mixed",
            "the draw coarse keeps as many tokens in every step",
            where="finetune.share",
            mend="give a number, or leave it out",
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
    """Names of the classes 1, 2, ... in the masks, separated by commas. Unless given: one class, `lesion`."""
    mask_values: Literal["checked", "any"] = "checked"
    """For one class. checked: all masks must use the same number for it; any: every pixel above 0 is inside."""
    healthy: str = "healthy,normal,no_finding"
    """Labels whose images have nothing to outline. Any other image without a mask is an error (dataset.on_error)."""
    patience: Count | None = 20
    tolerance: NotNegative = 1.0
    """Surface Dice: two outlines agree within this distance, in pixels as the model sees the image."""

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
    """The machine. These settings are passed on to Lightning's Trainer."""

    group: ClassVar[str] = "trainer"

    accelerator: str = "auto"
    """cpu, gpu, ... or auto."""
    devices: int | str = "auto"
    """How many devices, or which. Under torchrun or srun, auto is one for each process."""
    precision: str = "auto"
    """Lightning's precision. auto: bf16-mixed if a short measurement finds it faster on this machine, else 32-true."""
    logger: Literal["tensorboard", "mlflow", "wandb"] = "tensorboard"
    """Where figures are logged beside RUN/logs: tensorboard (there too), mlflow or wandb (packages of their own)."""
    threads: Count | None = None
    """CPU threads. Unless given: all cores."""
    compile: bool = False
    """Compile the network (torch.compile). It takes a minute first; then steps are faster on a GPU, hardly on a CPU."""
    checkpoint_minutes: Positive = 10.0
    """Minutes after which a checkpoint is written within an epoch too. At its end: half a minute, if that is sooner."""


@dataclass(frozen=True)
class EvaluateSettings(Group):
    """How the figures are computed."""

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
