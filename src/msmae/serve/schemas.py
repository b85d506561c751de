"""What the API answers: the shapes that OpenAPI shows."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Named(BaseModel):
    """A file that could not be used, and why."""

    index: int = Field(description="place of the file in the request, from 0", ge=0)
    name: str
    reason: str


class Problem(BaseModel):
    """Why a request was refused, in one sentence."""

    code: str = Field(examples=["unreadable"])
    error: str = Field(examples=["notes.txt: this is not an image that can be read: give PNG, JPEG, TIFF or DICOM"])
    files: list[Named] = []


class Window(BaseModel):
    """A linear window in the image's units: centre - width / 2 is black, centre + width / 2 white."""

    centre: float
    width: float


class Grey(BaseModel):
    """Grey levels of a deep image, at most 512 pixels a side, to apply a window to: value = low + step * level."""

    width: int
    height: int
    low: float
    step: float
    levels: str = Field(description="16-bit little-endian numbers, row by row, in base64")
    window: Window
    named: dict[str, Window] = Field(description="customary windows; of CT images only")


class Case(BaseModel):
    """A training image that looks like the upload."""

    label: str
    cosine: float
    picture: str = Field(description="PNG in base64")


class Layer(BaseModel):
    """Where a class is, by a segmenter."""

    share: float = Field(description="share of the image's pixels", ge=0, le=1)
    mask: str | None = Field(None, description="PNG in base64, white inside; where pictures were asked for")


class Image(BaseModel):
    """The answer to one image."""

    name: str = Field(examples=["scan.png"])
    height: int
    width: int
    probabilities: dict[str, float] | None = Field(
        None, description="calibrated on the validation images; null of a segmenter", examples=[{"a": 0.9, "b": 0.1}]
    )
    predicted: str | None = Field(None, description="several classes are joined by ;", examples=["a"])
    conformal_set: list[str] | None = Field(
        None,
        description="classes that a coverage of 90 % needs; null where nothing was fitted for it",
        examples=[["a"]],
    )
    present: dict[str, bool] | None = Field(
        None, description="whether each class reaches its own threshold, chosen on the validation images"
    )
    map: list[list[float]] | None = Field(None, description="attention of each patch, 0 to 1, row by row")
    kept: list[int] | None = Field(None, description="patches that were encoded, row by row from 0; null: all of them")
    milliseconds: float = Field(description="of the prediction alone, an image's share of its batch")
    flags: list[str] = Field(description="what makes the answer less sure", examples=[["small"]])
    layers: dict[str, Layer] | None = Field(None, description="of a segmenter: where each class is")
    picture: str | None = Field(None, description="the image as PNG in base64; where pictures were asked for")
    grey: Grey | None = Field(None, description="of a deep grey image; where pictures were asked for")
    reconstruction: str | None = Field(None, description="PNG in base64; where pictures were asked for and can be made")
    neighbours: list[Case] | None = Field(None, description="only of a server started with --neighbours")


class Patient(BaseModel):
    """The answer to all images together: the mean of their probabilities."""

    images: int
    probabilities: dict[str, float] | None = None
    predicted: str | None = None
    conformal_set: list[str] | None = None


class Prediction(BaseModel):
    """Answers in the files' order."""

    images: list[Image]
    patient: Patient


class Features(BaseModel):
    """What the encoder says of one image."""

    name: str
    features: list[float]


class Embedding(BaseModel):
    """Features in the files' order."""

    images: list[Features]


class Bounds(BaseModel):
    """What one request may hold."""

    upload_bytes: int
    files: int
    pixels: int


class Information(BaseModel):
    """What the server's model is."""

    task: Literal["classification", "segmentation"]
    classes: list[str]
    multilabel: bool
    image_size: tuple[int, int]
    grid: tuple[int, int] = Field(description="rows and columns of patches")
    channels: int
    coverage: float | None = Field(None, description="of the conformal sets; null where there are none")
    thresholds: dict[str, float] | None = None
    validation_images: int
    least_keep: float
    selector: str = Field(description="what chooses the patches when some are dropped")
    prepared: bool = Field(description="whether `msmae budget` prepared the model for dropping patches")
    reconstructs: bool
    neighbours: bool
    limits: Bounds


class Health(BaseModel):
    """Whether the server answers, and with which model."""

    status: Literal["ok"] = "ok"
    model_file: Literal["as loaded", "changed since it was loaded"] = "as loaded"
