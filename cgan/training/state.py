"""The state of a run (its checkpoint): everything that is saved, restored and broadcast.

It consists of both networks, the generator's EMA, both optimisers, three counters, and torch's
random state.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgan import __version__
from cgan.attributes import num_attributes_of, sort_for_display, split_classes
from cgan.config import DATA_NAMES, Config
from cgan.data.image_file import USUAL
from cgan.errors import DivergedError, RunError
from cgan.models import build_networks, resolve_width, steer_generator
from cgan.models.conditioning import share_values, to_class_rows
from cgan.models.flow import SteeredGenerator
from cgan.runtime.device import to_device
from cgan.runtime.distributed import World
from cgan.sampling.sampler import Sampler
from cgan.storage.checkpoint import GENERATOR, new_header, save_tensors
from cgan.storage.paths import GENERATOR_FILE
from cgan.storage.run_files import load_state, pack_state, save_state, unpack_state
from cgan.training.ema import frozen_copy
from cgan.training.plan import Plan


class Adam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)`` (Kingma and Ba 2015), bit for bit.

    Its ``step`` goes straight to torch's fused kernel. That of torch imports the compiler, which
    takes more than a second, and spends as long on preparations as on the update of a small
    network. Weight decay and the variants of Adam are left out.

    Args:
        parameters: of one floating-point dtype, on one device.
        lr: learning rate, a number or a tensor.
        betas: β₁ and β₂.
    """

    def __init__(self, parameters: Any, lr: float | Tensor, betas: tuple[float, float]) -> None:
        super().__init__(parameters, lr, betas, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters that have a gradient."""
        (group,) = self.param_groups
        parameters: list[Tensor] = []
        gradients: list[Tensor] = []
        means: list[Tensor] = []
        squares: list[Tensor] = []
        steps: list[Tensor] = []
        prepare: Any = self._init_group
        prepare(group, parameters, gradients, means, squares, [], steps)
        if not parameters:
            return
        beta1, beta2 = group["betas"]
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


@dataclass
class Counters:
    """The part of the state that is not a tensor."""

    images_seen: int = 0
    steps: int = 0
    seconds: float = 0.0

    def progress(self, config: Config) -> float:
        """Spent fraction of the budget, from 0 to 1."""
        if config.minutes is not None:
            return min(self.seconds / (60 * config.minutes), 1.0)
        return min(self.images_seen / (config.images or 1), 1.0)


class TrainState:
    """Networks, EMA, optimisers and counters of one run.

    Initial weights and every z use torch's global random state: seed it first.

    Args:
        plan: the run; its config, data, device and generator to steer.

    Attributes:
        generator, discriminator: the networks, on the device.
        generator_ema: the moving average of the generator, in evaluation mode.
        generator_optimizer, discriminator_optimizer: Adam.
        augmentations: of the images that D sees, by name.
        attributes: the values of each class, if classes combine several attributes, or None.
        teacher: the reader that teaches D's classifier, or None; it never changes.
        taught_by: the name of the reader that teaches these weights, or once did, or None.
        counters: images seen, steps, seconds.
        data_changed: whether the run was ever resumed with other training images.
    """

    def __init__(self, plan: Plan) -> None:
        config, dataset, device = plan.config, plan.dataset, plan.device
        plain, unlabelled = plan.plain, plan.unlabelled
        self.config, self.device, self.counters = config, device, Counters()
        self.augmentations, self.teacher = plan.augmentations, plan.teacher
        self.taught_by = None if plan.teacher is None else plan.teacher.name
        self.classes, self.image_shape = dataset.classes, dataset.image_shape
        self.num_attributes, self.conversion = dataset.num_attributes, dataset.conversion
        self.data_name, self.dataset_size = dataset.name, len(dataset)
        self.data_digest, self.data_changed = dataset.digest(), False
        self.unlabelled_digest = None if unlabelled is None else unlabelled.digest()
        self.class_counts = dataset.labels.bincount(minlength=len(dataset.classes))
        self.model = resolve_width(config.model, dataset.image_shape)
        if self.model.backbone == "photo" and self.model.mirror is None:
            mirrors = "mirror" in self.augmentations
            self.model = self.model.model_copy(update={"mirror": mirrors})
        pair = build_networks(self.model, dataset.image_shape, len(dataset.classes))
        self.plain = plain
        if plain is not None:
            surrogate = None
            if not plain.differentiable:
                unconditional = self.model.model_copy(update={"conditional": False})
                surrogate = build_networks(unconditional, dataset.image_shape, 0).generator
            steered = steer_generator(
                plain.network, self.model, len(dataset.classes), config.kl_weight, surrogate
            )
            pair = pair._replace(generator=steered)
        self.attributes = split_classes(self.classes, self.num_attributes)
        labelled = getattr(pair.generator, "flow", pair.generator), pair.discriminator
        for network in labelled if self.attributes else ():
            share_values(network, self.attributes or [])
        self.generator = to_device(pair.generator, device)
        self.discriminator = to_device(pair.discriminator, device)
        self.generator_ema: nn.Module
        if isinstance(self.generator, SteeredGenerator):  # only its flow changes
            flow = frozen_copy(self.generator.flow)
            self.generator_ema = SteeredGenerator(self.generator.generator, flow).eval()
        else:
            self.generator_ema = frozen_copy(self.generator)
        self.generator_optimizer = make_optimizer(self.generator, config)
        self.discriminator_optimizer = make_optimizer(self.discriminator, config)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Those that change, by their names in a state file; a steered generator does not."""
        generator, ema, D = self.generator, self.generator_ema, self.discriminator
        if isinstance(generator, SteeredGenerator) and isinstance(ema, SteeredGenerator):
            found = {"G": generator.flow, "D": D, "ema": ema.flow}
            return found if generator.surrogate is None else {**found, "S": generator.surrogate}
        return {"G": generator, "D": D, "ema": ema}

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By their names in a state file."""
        return {"opt_G": self.generator_optimizer, "opt_D": self.discriminator_optimizer}

    def save(self, folder: Path) -> None:
        """Write the state and the averaged generator.

        Raises:
            DivergedError: a weight is not finite; the files on disk are unchanged.
        """
        tensors = pack_state(self.networks, self.optimizers, self.device)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise DivergedError(
                    f"{name} is not finite after {self.counters.images_seen:,} images; the last "
                    f"good state is kept in {folder}: try a lower --lr"
                )
        header = {
            "classes": self.classes,
            "num_attributes": self.num_attributes,
            "data_digest": self.data_digest,
            **({"unlabelled_digest": one} if (one := self.unlabelled_digest) else {}),
            **({"steered_digest": self.plain.header["sha256"]} if self.plain else {}),
            "dataset_size": self.dataset_size,
            "data_changed": self.data_changed,
            **({"teacher": self.taught_by} if self.taught_by else {}),
            **asdict(self.counters),
        }
        save_state(folder, tensors, header)
        self.save_generator(folder / GENERATOR_FILE)

    def save_generator(self, path: Path, measured: dict[str, Any] | None = None) -> None:
        """Write the averaged generator with its header."""
        tensors = to_class_rows(self.generator_ema.state_dict(), self.attributes)
        if self.plain is not None and self.plain.onnx is not None:
            tensors = {key: one for key, one in tensors.items() if key.startswith("flow.")}
            tensors["generator.module.content"] = self.plain.onnx
        save_tensors(path, tensors, self.generator_header(measured))

    def restore(self, folder: Path, data_changed: bool = False) -> list[str]:
        """Load a run's newest readable state; returns the problems with newer ones.

        Raises:
            FileError: there is no readable state.
            RunError: it was trained on other classes, or on other images and ``data_changed`` is
                not set, or it steers another generator.
        """
        path, tensors, header, problems = load_state(folder)
        if self.plain and header.get("steered_digest") != self.plain.header["sha256"]:
            raise RunError(
                f"{folder} steers another generator than {self.config.steer}: restore that file"
            )
        self.check_same_data(folder, header, data_changed)
        unpack_state(tensors, self.networks, self.optimizers, self.device, path)
        self.counters = Counters(header["images_seen"], header["steps"], header["seconds"])
        self.taught_by = self.taught_by or header.get("teacher")
        return problems

    def check_same_data(self, folder: Path, header: dict[str, Any], data_changed: bool) -> None:
        """Raise ``RunError`` if the data is not that of a saved state."""
        classes = header.get("classes")  # version 0.2 did not store the data
        if classes is not None and tuple(classes) != self.classes:
            old, new = map(sort_for_display, (classes, self.classes))
            raise RunError(
                f"{folder} was trained on the classes {', '.join(old[:10])} and the data has "
                f"{', '.join(new[:10])}: restore the class folders"
            )
        attributes = self.num_attributes if classes is None else num_attributes_of(header)
        if attributes != self.num_attributes:
            raise RunError(
                f"the classes of {folder} combine {attributes} attributes, and those of the data "
                f"{self.num_attributes}: train again, or resume with the version that began the run"
            )
        differs = (header.get("data_digest"), header.get("unlabelled_digest")) != (
            self.data_digest,
            self.unlabelled_digest,
        )
        self.data_changed = differs or header.get("data_changed", False)
        if differs and not data_changed:
            before = f"{header['dataset_size']:,}" if "dataset_size" in header else "unknown"
            raise RunError(
                f"the training images of {folder} have changed ({before} before, "
                f"{self.dataset_size:,} now): restore them, or add --data-changed to continue "
                "with the current images"
            )

    def broadcast_state(self, world: World) -> None:
        """Copy the state of rank 0 to every process."""
        if world.size == 1:
            return
        counted = torch.tensor(list(asdict(self.counters).values()), dtype=torch.float64)
        packed = pack_state(self.networks, self.optimizers, self.device)
        packed = world.broadcast({**packed, "counters": counted})
        images_seen, steps, seconds = packed.pop("counters").tolist()
        self.counters = Counters(int(images_seen), int(steps), seconds)
        unpack_state(packed, self.networks, self.optimizers, self.device, Path("rank 0"))

    def generator_header(self, measured: dict[str, Any] | None = None) -> dict[str, Any]:
        """The header of the generator file. It names the data but not where it is stored."""
        config = self.config.model_dump(mode="json")
        source = self.config.data.source
        if source not in DATA_NAMES:
            source = Path(source).name  # not the name of a data set, which has a fixed size
            source = f"{source}-folder" if source in DATA_NAMES else source
        config["model"] = self.model.model_dump(mode="json")
        config["data"] |= {"source": source, "data_dir": None}
        for key in ("warm_start", "steer"):
            if config[key] is not None:
                config[key] = Path(config[key]).name
        return {
            **new_header(GENERATOR),
            "config": config,
            "data": self.data_name,
            "data_digest": self.data_digest,
            "data_changed": self.data_changed,
            "classes": self.classes,
            "num_attributes": self.num_attributes,
            "image_shape": self.image_shape,
            **({} if self.conversion == USUAL else {"conversion": self.conversion._asdict()}),
            "class_counts": self.class_counts.tolist(),
            "value_range": [-1, 1],
            **asdict(self.counters),
            "measured": measured or {},
            "versions": {"cgan": __version__, "torch": torch.__version__},
            **({"steered": self.plain.header} if self.plain is not None else {}),
            **({"teacher": self.taught_by} if self.taught_by else {}),
        }

    def sampler(self, folder: Path) -> Sampler:
        """The averaged generator as a sampler."""
        return Sampler(self.generator_ema, self.generator_header(), folder / GENERATOR_FILE)


def make_optimizer(network: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Adam for the parameters that are not frozen."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return Adam(trainable, config.lr, config.betas)
