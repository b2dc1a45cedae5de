"""The config of a run: every setting with its type, range, default and unit.

The names listed here (backbones, losses, …) repeat the keys of the registries, so that this module
does not import torch. A test checks that they are equal.
"""

from __future__ import annotations

import os
import re
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

MAX_SIZE = 512
"""Largest side of a folder's images in pixels."""
MAX_NAME_BYTES = 200
"""File names have at most 255 bytes, and a run folder's number is added to the name."""

NOT_IN_PATHS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and surrogates, which stand for bytes that are not UTF-8."""
NAME = re.compile(r"\w([\w.-]*[\w-])?")
DEVICE_NAME = re.compile(r"(con|prn|aux|nul|(com|lpt)[\d¹²³])(\..*)?", re.IGNORECASE)
"""Names of devices on Windows. They are invalid everywhere, so that runs can be copied."""
Backbone = Literal["mlp", "dcgan", "photo", "resnet"]
GeneratorLabel = Literal["concat", "cbn"]
LastLayer = Literal["transposed", "resize"]
DiscriminatorLabel = Literal["concat", "projection", "auxiliary", "projection+auxiliary"]
LossName = Literal["nonsaturating", "least_squares", "hinge", "relativistic"]
UpdateName = Literal["alternating", "simultaneous"]
AugmentationName = Literal["auto", "mirror", "colour", "hue", "translation", "cutout"]
DATA_NAMES = (
    "digits", "mnist", "fashion-mnist", "kmnist", "emnist-letters", "emnist-balanced",
    "cifar10", "cifar100", "svhn",
)  # fmt: skip
"""The named data sets. Any other source is a folder."""
MIN_UPDATES = 100
"""Training warns about a budget with fewer updates than this."""
MAX_COUNT = 10**12
"""Largest number of images. No run reaches it, and int64 and float64, in which images are counted,
hold it exactly."""
MAX_BATCH = 2**20
"""Largest batch: 512 times that of BigGAN (Brock et al. 2019), which is known for large batches."""
MAX_PER_CLASS = 10**6
"""Most images per class in an evaluation, which keeps the features of all of them in memory."""
MAX_MINUTES = 10**6
"""Longest budget: almost two years."""
MAX_WEIGHT = 1e6
"""Largest weight of a term of a loss; losses are float32."""
MAX_INTERVAL = 10**6
"""Most steps between two penalties."""
MAX_PATH = 4096
"""Longest path in characters. Linux has the same limit, in bytes."""
Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT)]
Probability = Annotated[float, Field(ge=0, le=1)]
REMOVED_KEYS = {"penalty.gradient_penalty": "use penalty.r1 and penalty.r2"}
"""Keys of versions before 0.4, and what to do instead. Files may hold them with the value 0."""
RESUMABLE_CHANGES = frozenset(
    {"images", "minutes", "device", "data.data_dir", "wandb", "tensorboard", "mlflow"}
    | {"control_per_class"}
    | {"steer"}  # the file may have been moved; a state knows its digest
    | {"log_every_images", "sample_every_images", "eval_every_images"}
    | {"save_every_seconds", "compile"}
)
"""Keys that may change when a run is resumed. A new budget changes the schedules."""


def parse_count(value: object) -> object:
    """Convert ``"600k"`` and ``"2M"`` to whole numbers; leave values other than text to pydantic.

    Raises:
        ValueError: the text is no number.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kM]?)", value.strip())
        if match:
            count = Decimal(match[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]]
            return int(count) if count == int(count) else float(count)
        if not re.fullmatch(r"\s*[+-]?\d+\s*", value):
            raise ValueError("a count is a number such as 600000, 600k or 2M")
    return value


def rename_update(value: object) -> object:
    """The name of an update scheme; versions before 0.4 call ``simultaneous`` ``shared``."""
    return "simultaneous" if value == "shared" else value


def parse_names(value: object) -> object:
    """A sequence of names without repetition, sorted; ``"a,b"`` is one too, and null is empty.

    Anything else is left to pydantic.
    """
    if value is None or value is False or value == "none":
        return ()
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(sorted(set(value)))
    return value


def parse_size(value: object) -> int | str | None:
    """A side, or ``WIDTHxHEIGHT`` for a rectangle; None stays None.

    Raises:
        ValueError: it is neither, or a side is out of range.
    """
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,4})(?:[x×](\d{1,4}))?", str(value).strip())
    sides = [int(side) for side in match.groups() if side] if match else []
    if isinstance(value, bool) or not sides or any(s % 4 or not 8 <= s <= MAX_SIZE for s in sides):
        raise ValueError(
            f"a size is a side, or two like 64x48, each a multiple of 4 from 8 to {MAX_SIZE}"
        )
    return sides[0] if len(set(sides)) == 1 else f"{sides[0]}x{sides[1]}"


def height_and_width(size: int | str) -> tuple[int, int]:
    """The height and width that a parsed size means."""
    width, _, height = str(size).partition("x")
    return int(height or width), int(width)


def size_of(image_shape: tuple[int, ...]) -> int | str:
    """The size of images (C, H, W), as a config has it."""
    _, height, width = image_shape
    return width if width == height else f"{width}x{height}"


def check_name(name: str) -> str:
    """Return a name that every file system accepts as a folder.

    Raises:
        ValueError: the message says why it is not one.
    """
    if not NAME.fullmatch(name):
        raise ValueError("a name has letters, digits, _, - and, inside, dots")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"a name has at most {MAX_NAME_BYTES} bytes")
    if DEVICE_NAME.fullmatch(name):
        raise ValueError("a name must not be one that Windows reserves")
    return name


def check_device(name: str) -> str:
    """Return the name of a device that may exist.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d{1,4})?", name):
        raise ValueError("a device is auto, cpu, cuda, cuda:1, mps or xpu")
    return name


def check_path(path: str) -> str:
    """Return a path that can be written into a config and a message.

    Raises:
        ValueError: it contains control characters, or is not UTF-8.
    """
    if NOT_IN_PATHS.search(path):
        raise ValueError("a path is UTF-8 text without line breaks or other control characters")
    return path


def is_shard_pattern(source: str) -> bool:
    """Whether a source is a pattern of tar files, such as ``{000..099}.tar`` or ``*.tar``."""
    has_mark = any(mark in source for mark in "{*?") and source.lower().endswith(".tar")
    return has_mark and not source.startswith("hf-datasets:") and not os.path.isfile(source)


Count = Annotated[int, BeforeValidator(parse_count), Field(le=MAX_COUNT)]
PathText = Annotated[str, Field(max_length=MAX_PATH), AfterValidator(check_path)]


class StrictModel(BaseModel):
    """A part of a config. It is frozen and rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(StrictModel):
    """Which images to train on."""

    source: PathText = "digits"
    """A named data set, or a folder with one subfolder of images per class."""
    data_dir: PathText | None = None
    """Folder of the data sets; missing ones are downloaded. Null: ``$CGAN_DATA``, or the cache."""
    size: Annotated[int | str | None, BeforeValidator(parse_size)] = None
    """Side in pixels that a folder's images are resized to, or ``WIDTHxHEIGHT``; null chooses a
    side."""
    balanced: bool = False
    """Draw every class equally often, even if some classes have few images."""
    skip_broken: bool = False
    """Skip images that cannot be read instead of raising an error."""
    skip_conflicts: bool = False
    """Leave out images that are in several classes."""
    background: Annotated[str, Field(pattern="^(auto|white|black|#[0-9a-fA-F]{6})$")] = "auto"
    """What shows through transparent parts of a folder's images: white, black or ``#rrggbb``; auto
    is white, or black if most drawings vanish on white."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How a folder's images get one shape: their centre, bars around them, or another aspect."""
    streaming: bool = False
    """Read ``hf-datasets:NAME`` or a folder of tar files in order, without loading all of it. A
    pattern of tar files is always read so."""

    @property
    def is_streamed(self) -> bool:
        """Whether the images are read in order."""
        return self.streaming or is_shard_pattern(self.source)


class ModelConfig(StrictModel):
    """Which networks to use, and where the label enters them."""

    backbone: Backbone = "mlp"
    conditional: bool = True
    """False is the unconditional GAN: the same networks without a label."""
    generator_label: GeneratorLabel = "concat"
    discriminator_label: DiscriminatorLabel = "projection+auxiliary"
    latent_dim: Annotated[int, Field(ge=1, le=4096)] = 64
    width: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Units (mlp), channels at half resolution (dcgan, photo) or at full resolution (resnet);
    null is the backbone's default."""
    last_layer: LastLayer = "transposed"
    """Last layer of the dcgan's generator: a transposed convolution, or bilinear resizing and a
    convolution, which is less prone to checkerboards. Other backbones have no such layer."""
    mirror: bool | None = None
    """Whether the third number of z says if the photo backbone's image is mirrored; null is yes if
    ``augment`` mirrors. Other backbones ignore it."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability in the discriminator."""
    flow_blocks: Annotated[int, Field(ge=1, le=64)] = 3
    """Pairs of couplings of the flow, with ``steer``."""
    flow_width: Annotated[int, Field(ge=1, le=4096)] = 192
    """Hidden units of each coupling of the flow."""


class PenaltyConfig(StrictModel):
    """Weights γ of the discriminator's gradient penalties; 0 turns a penalty off."""

    r1: Weight = 0.0
    r2: Weight = 0.0
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Fraction of the weights at the end of the budget; the schedule is a cosine."""
    lazy_interval: Annotated[int, Field(ge=1, le=MAX_INTERVAL)] = 8
    """Apply the penalties every ``lazy_interval`` steps, with weights multiplied by that number
    (Karras et al. 2020, StyleGAN2, section 3.1)."""


class TeacherConfig(StrictModel):
    """A pretrained reader of photographs that teaches D's auxiliary classifier on G's images. Other
    images have no teacher, nor has a D without that classifier."""

    weight: Weight = 0.0
    """Weight of its loss in D's loss; 0 is no teacher."""
    interval: Annotated[int, Field(ge=1, le=MAX_INTERVAL)] = 8
    """It teaches every ``interval`` steps, because it takes longer than a step, with the weight
    multiplied by that number."""


class Config(StrictModel):
    """All settings of a run."""

    name: Annotated[str, AfterValidator(check_name)] = "digits-mlp"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()

    warm_start: PathText | None = None
    """Run folder, generator file or packaged generator whose weights training starts from, where
    they fit; null is random weights."""

    steer: PathText | None = None
    """Generator without labels that stays as it is: a conditional flow learns to choose its latent
    vectors by class. Null trains a generator."""
    kl_weight: Weight = 0.015
    """Weight of the flow's KL divergence from N(0, I) in its loss. A higher weight gives more
    variety, a lower one more control."""

    loss: LossName = "nonsaturating"
    aux_weight: Weight = 1.0
    """Weight of the auxiliary classifier's loss in the generator's loss, if D has one. A higher
    weight gives more control, a lower one more variety."""
    penalty: PenaltyConfig = PenaltyConfig()
    teacher: TeacherConfig = TeacherConfig()
    update: Annotated[UpdateName, BeforeValidator(rename_update)] = "alternating"
    augment: Annotated[tuple[AugmentationName, ...], BeforeValidator(parse_names)] = ()
    """Augmentations of the images that D sees; ``mirror`` applies to the real images only, unless a
    generator is steered. ``auto`` is mirror, hue and translation for colour images, unless the
    classes are digits or letters."""
    augment_probability: Probability = 1.0
    """Probability of each augmentation but ``mirror``, for every image that D sees. ``hue`` changes
    an image with half of this probability."""
    augment_probability_final: Probability | None = None
    """The same at the end of the budget (cosine); null keeps it constant."""

    images: Annotated[Count, Field(ge=1)] | None = None
    """Budget in real images shown to the discriminator. Give either this or ``minutes``."""
    minutes: Annotated[float, Field(gt=0, le=MAX_MINUTES)] | None = None
    batch_size: Annotated[int, Field(ge=2, le=MAX_BATCH)] = 64
    lr: Annotated[float, Field(gt=0, le=1)] = 2e-3
    """Adam's initial learning rate for both networks."""
    lr_final_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Fraction of ``lr`` at the end of the budget; the schedule is a cosine."""
    betas: tuple[
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[float, Field(ge=0, lt=1)],
    ] = (0.0, 0.99)
    """Adam's β₁ and β₂."""
    beta2_final: Annotated[float, Field(ge=0, lt=1)] | None = None
    """β₂ at the end of the budget (cosine); null keeps it constant."""
    ema_half_life_images: Annotated[Count, Field(ge=0)] = 9_000
    """Half-life of the generator's moving average, in images; 0 turns it off. It is at most 5 % of
    the images seen so far, so a budget below 20 times as many images never reaches it."""
    ema_half_life_final_images: Annotated[Count, Field(ge=0)] | None = None
    """The same at the end of the budget (cosine); null keeps it constant."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Annotated[str, AfterValidator(check_device)] = "auto"
    bf16: bool = False
    """bfloat16 autocast. CUDA only."""
    compile: bool = False
    """torch.compile both networks."""

    log_every_images: Annotated[Count, Field(ge=1)] = 10_000
    sample_every_images: Annotated[Count, Field(ge=1)] = 50_000
    eval_every_images: Annotated[Count, Field(ge=0)] = 100_000
    """How often to evaluate during training and keep the best generator; 0 is never."""
    save_every_seconds: Annotated[float, Field(gt=0)] = 30.0
    control_per_class: Annotated[int, Field(ge=0, le=MAX_PER_CLASS)] = 1_000
    """Images per class in the final evaluation, together 50,000 at most; 0 skips it."""
    wandb: bool = False
    tensorboard: bool = False
    mlflow: bool = False

    @model_validator(mode="after")
    def _reject_contradictions(self) -> Self:
        if (self.images is None) == (self.minutes is None):
            raise ValueError("give the budget either in images or in minutes")
        if self.data.size is not None and self.data.source in DATA_NAMES:
            raise ValueError(f"{self.data.source} has a fixed image size: leave out data.size")
        if self.data.streaming and self.data.source in DATA_NAMES:
            raise ValueError(f"{self.data.source} is loaded whole: leave out data.streaming")
        if self.steer is not None and self.warm_start is not None:
            raise ValueError("a steered generator keeps its weights: leave out warm_start")
        if self.bf16 and not self.device.startswith(("auto", "cuda")):
            raise ValueError(f"bf16 needs a CUDA device: turn it off on {self.device}")
        return self
