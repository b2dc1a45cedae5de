"""The one description of a run: read from YAML, overridden by key, checked, written back.

A choice of words here (a backbone, a loss) is the key of the table that holds it; a test keeps
the two equal, so that this file needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cgan.errors import ConfigError, UnknownName, nearest

Backbone = Literal["mlp", "dcgan"]
GeneratorLabel = Literal["concat", "cbn"]
DiscriminatorLabel = Literal["concat", "projection", "auxiliary", "projection+auxiliary"]
LossName = Literal["nonsaturating", "least_squares", "hinge", "relativistic"]
UpdateName = Literal["alternating", "shared"]

DATA_NAMES = ("digits", "mnist", "fashion-mnist", "kmnist", "cifar10")
"""The data sets that have a name; anything else is a folder."""

FEWEST_UPDATES = 100
"""A budget of fewer updates than this is taken for a batch size that was forgotten."""


def parse_count(value: object) -> object:
    """``600k`` and ``2M`` as the whole numbers they mean; anything else is left to pydantic."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kM]?)", value.strip())
        if match:
            count = float(match[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]]
            return int(count) if count == int(count) else count
    return value


Count = Annotated[int, BeforeValidator(parse_count)]


class Section(BaseModel):
    """A part of a config: frozen, and every key is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Which pictures."""

    source: str = "digits"
    """A data set's name, or a folder with one folder of pictures a class."""
    data_dir: str | None = None
    """Where data sets lie or are downloaded to; null is ``$CGAN_DATA``, then the user's cache."""
    size: Annotated[int, Field(ge=8, le=512, multiple_of=4)] | None = None
    """Height and width in pixels that a folder's pictures are brought to; null chooses."""
    balanced: bool = False
    """Draw every class equally often, however few pictures it has."""
    skip_broken: bool = False
    """Leave out pictures that cannot be read instead of stopping."""


class ModelConfig(Section):
    """Which networks, and where the label enters them."""

    backbone: Backbone = "mlp"
    conditional: bool = True
    """False is the plain GAN: the same networks, told no label."""
    generator_label: GeneratorLabel = "cbn"
    discriminator_label: DiscriminatorLabel = "projection"
    latent_dim: Annotated[int, Field(ge=1, le=4096)] = 64
    width: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Units (mlp) or channels at half resolution (dcgan); null is the backbone's own."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the discriminator's features that is left out at random in each step."""


class PenaltyConfig(Section):
    """Gradient penalties of the discriminator, each with its γ; 0 leaves it out."""

    r1: Annotated[float, Field(ge=0)] = 0.0
    r2: Annotated[float, Field(ge=0)] = 0.0
    gradient_penalty: Annotated[float, Field(ge=0)] = 0.0
    every_steps: Annotated[int, Field(ge=1)] = 8
    """Penalise every so many steps, that many times as strongly (StyleGAN2's lazy form)."""


class Config(Section):
    """Everything that decides a run."""

    name: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")] = "digits-mlp"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()

    loss: LossName = "nonsaturating"
    auxiliary: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the auxiliary classifier, where D has one, in what G learns from: more obeys more
    strictly, less varies more."""
    penalty: PenaltyConfig = PenaltyConfig()
    update: UpdateName = "alternating"

    images: Annotated[Count, Field(ge=1)] | None = None
    """Budget in real pictures shown to the discriminator; or ``minutes``, never both."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Annotated[float, Field(gt=0, le=1)] = 2e-3
    """Adam's learning rate at the start, of both networks."""
    lr_final_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What is left of ``lr`` at the end of the budget; it falls on a cosine."""
    betas: tuple[
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[float, Field(ge=0, lt=1)],
    ] = (0.0, 0.99)
    ema_half_life_images: Annotated[Count, Field(ge=0)] = 9_000
    """Images after which an old weight counts half in the generator that is kept; 0 is none."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    bf16: bool = False
    """bfloat16 autocast; CUDA only (on a CPU it measured forty times slower)."""
    compile: bool = False
    """torch.compile of both networks; pays on CUDA, not on a CPU."""

    log_every_images: Annotated[Count, Field(ge=1)] = 10_000
    sample_every_images: Annotated[Count, Field(ge=1)] = 50_000
    eval_every_images: Annotated[Count, Field(ge=0)] = 100_000
    """How often the judge looks while training, and the best generator is kept; 0 is never."""
    save_every_seconds: Annotated[float, Field(gt=0)] = 30.0
    control_per_class: Annotated[int, Field(ge=0)] = 1_000
    """Pictures a class that the judge is asked about at the end; 0 asks nothing."""
    wandb: bool = False
    tensorboard: bool = False

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if (self.images is None) == (self.minutes is None):
            raise ValueError("give the budget in images or in minutes, one of the two")
        if self.data.size is not None and self.data.source in DATA_NAMES:
            raise ValueError(f"{self.data.source} has a size of its own: leave out data.size")
        if self.bf16 and self.device == "cpu":
            raise ValueError("bf16 needs a CUDA device: leave it off on the cpu")
        return self


RESUMABLE_CHANGES = frozenset(
    {"images", "minutes", "device", "data.data_dir", "wandb", "tensorboard", "control_per_class"}
    | {"log_every_images", "sample_every_images", "eval_every_images"}
    | {"save_every_seconds", "compile"}
)
"""Keys that may differ when a run is resumed: how long and where, never what is trained."""

DEFAULT_FOR_DATA = {
    "digits": "digits-mlp",
    "mnist": "mnist-dcgan",
    "fashion-mnist": "fashion-dcgan",
    "kmnist": "fashion-dcgan",
}


def default_config_name(source: str | None = None, backbone: str | None = None) -> str:
    """The packaged config for a data set; a folder and what is not listed get folder-dcgan."""
    if (source, backbone) == ("mnist", "mlp"):
        return "mnist-mlp"
    return DEFAULT_FOR_DATA.get(source or "digits", "folder-dcgan")


def config_folder() -> Path:
    """Where the packaged configs lie: in the wheel, or beside the package in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def config_names() -> list[str]:
    """Names of the packaged configs."""
    return sorted(path.stem for path in config_folder().glob("*.yaml"))


def load_config(
    name_or_path: str | Path = "digits-mlp", overrides: Mapping[str, object] | None = None
) -> Config:
    """Read a config and lay overrides over it.

    Args:
        name_or_path: a packaged config's name, or a YAML file (a run's ``config.yaml`` is one).
        overrides: values by dotted key, like ``{"model.width": 64, "images": "600k"}``. Setting
            one of ``images`` and ``minutes`` clears the other.

    Raises:
        ConfigError: no such config, unknown key, value out of range, contradiction.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if str(name_or_path) not in config_names():
            raise UnknownName("config", name_or_path, config_names())
        path = config_folder() / f"{name_or_path}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no config file {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read as YAML: {reason}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a config: it should hold keys and values")
    values.setdefault("name", path.stem)
    return make_config(values, overrides)


def make_config(values: Mapping[str, Any], overrides: Mapping[str, object] | None = None) -> Config:
    """Check plain values (nested dicts) and make a config of them.

    Raises:
        ConfigError: with every mistake in one sentence.
    """
    merged: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }
    for dotted, value in (overrides or {}).items():
        _set(merged, dotted, value)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(item) for item in error.errors())) from error


def parse_assignment(text: str) -> tuple[str, object]:
    """``"model.width=64"`` as ``("model.width", 64)``; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes key=value, like model.width=64, not {text!r}")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of {key.strip()} cannot be read: {value!r}") from error


def to_yaml(config: Config) -> str:
    """The config as a file that :func:`load_config` reads back equal."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(config: Config) -> dict[str, object]:
    """Every value by its dotted key."""
    return dict(_flatten(config.model_dump(mode="json")))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    return [
        pair
        for key, value in values.items()
        for pair in (
            _flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else [(f"{prefix}{key}", value)]
        )
    ]


def _set(values: dict[str, Any], dotted: str, value: object) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{dotted}: {section} is a single value, not a section")
        values = inner
    if not sections and key in ("images", "minutes") and value is not None:
        values["minutes" if key == "images" else "images"] = None
    values[key] = value


def _sentence(error: Any) -> str:
    """One clause for one of pydantic's errors, with its dotted path."""
    path = [part for part in error["loc"] if isinstance(part, str)]
    dotted = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"unknown key {dotted!r}{nearest(path[-1], _known_keys(path[:-1]))}"
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        name = str(error["input"])
        return f"{dotted}: no {path[-1]} {name!r}{nearest(name, choices)}"
    message = error["msg"].removeprefix("Value error, ")
    if not dotted:
        return str(message)
    return f"{dotted}: {message[0].lower()}{message[1:]}, not {error['input']!r}"


def _known_keys(path: list[str]) -> list[str]:
    section: Any = Config
    for part in path:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
