"""``cgan.train``: a run as a pipeline.

plan → state and step → run folder → loop → final evaluation
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cgan.augment import PHOTO_AUGMENTATIONS
from cgan.config import Config
from cgan.config_io import load_config, to_yaml
from cgan.errors import CganError, RunError
from cgan.evaluation.control import Control
from cgan.evaluation.report import curves_html, format_share
from cgan.runtime.device import (
    Purpose,
    configure_backends,
    derive_seed,
    explain_out_of_memory,
    seeded,
    torch_defaults,
)
from cgan.runtime.distributed import World, process_group
from cgan.sampling.wrap import PlainGenerator
from cgan.storage.atomic import lock, write_atomically
from cgan.storage.paths import CONFIG_FILE, GENERATOR_FILE
from cgan.storage.run_files import new_run, read_curves
from cgan.training.loggers import Logger, Loggers
from cgan.training.loop import TrainLoop
from cgan.training.plan import Plan, make_plan
from cgan.training.state import TrainState
from cgan.training.step import TrainStep, check_batch_fits
from cgan.training.warm_start import warm_start

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class Run:
    """The result of training.

    Attributes:
        folder: the run folder.
        config: the config of the run.
        images_seen: real images shown to the discriminator.
        seconds: total training time, including earlier sessions of the run.
        control: the final evaluation; None if there was none.
        stopped_by: the signal that stopped the run before its budget was spent, or None.
        written_here: False in every process but rank 0.
    """

    folder: Path
    config: Config
    images_seen: int
    seconds: float
    control: Control | None = None
    stopped_by: int | None = None
    written_here: bool = True

    @property
    def generator(self) -> Path:
        """The generator file, for ``cgan.load``."""
        return self.folder / GENERATOR_FILE

    def __fspath__(self) -> str:
        return str(self.folder)

    def _repr_html_(self) -> str:
        """The curves of the run, for notebooks."""
        title = f"{self.folder}: {self.images_seen:,} images"
        if self.control is not None:
            title += f", control accuracy {format_share(self.control.accuracy)}"
        return curves_html(title, read_curves(self.folder))


@torch_defaults()
def train(
    config: Config | str | Path,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    data_changed: bool = False,
    progress: bool = False,
    plain: PlainGenerator | None = None,
    loggers: Sequence[Logger] = (),
) -> Run:
    """Train a GAN.

    If ``torchrun`` started several processes, they train it together.

    Args:
        config: a config, or anything that ``cgan.load_config`` reads.
        out: the run folder; default ``runs/<config name>``. An existing folder is never
            overwritten: a number is added.
        resume: continue the run in that folder (without ``out``, the newest of that name). On a
            CPU, with a budget in images, it ends with the same weights, bit for bit, as a run
            that was never stopped.
        data_changed: resume even if training images were added, removed or changed. The classes
            must be the same.
        progress: show progress on the terminal.
        plain: the generator to steer, in place of the file that ``config.steer`` names.
        loggers: your own loggers, with the protocol of ``cgan.training.loggers.Logger``.

    Returns:
        The run. ``stopped_by`` is set if Ctrl-C or SIGTERM stopped it; its state is saved.

    Raises:
        CganError: config, data, device or folder cannot be used.
        RunError: training failed (out of memory, a process ended); the last state is kept.
        DivergedError: a loss is no longer finite; the last good state is kept.
    """
    config = config if isinstance(config, Config) else load_config(config)
    with process_group() as world:
        plan = make_plan(config, world, out, resume, plain)
        seed = derive_seed(config.seed, Purpose.NETWORKS)
        with configure_backends(plan.device), seeded(seed, plan.device):
            step = make_step(plan)
            state = step.state
            with open_run(plan, state, progress, data_changed, loggers) as (folder, all_loggers):
                loop = TrainLoop(plan, step, folder, all_loggers)
                stopped_by = run_loop(loop)
                control = None
                if stopped_by is None and config.control_per_class and len(state.classes) > 1:
                    control = loop.final_evaluation()
                if stopped_by is None and all_loggers is not None:
                    generator = folder / GENERATOR_FILE
                    all_loggers.log_result(generator, state.counters.images_seen, control)
    counters = state.counters
    return Run(
        folder, config, counters.images_seen, counters.seconds, control, stopped_by, world.is_main
    )


def make_step(plan: Plan) -> TrainStep:
    """The networks and the training step, alike in all processes.

    Raises:
        RunError: the device has not enough memory, or a process has other images than rank 0.
        CganError: the weights of ``warm_start`` cannot be used.
    """
    with explain_out_of_memory(
        f"preparing the networks on {plan.device}", "lower --set model.width=…"
    ):
        state = TrainState(plan)
        if plan.config.warm_start is not None and plan.folder is None and plan.world.is_main:
            warm_start(state)
        step = TrainStep(state, plan.world)
        check_batch_fits(state, plan.world.size)
    check_same_data_across_ranks(state, plan.world)
    return step


@contextmanager
def open_run(
    plan: Plan, state: TrainState, progress: bool, data_changed: bool, own_loggers: Sequence[Logger]
) -> Iterator[tuple[Path, Loggers | None]]:
    """Create and lock the run folder, restore a resumed state, and send the state to all processes.

    Yields:
        the folder, and the loggers (None in every process but rank 0).
    """
    config, world = plan.config, plan.world
    if not world.is_main:
        state.broadcast_state(world)
        yield Path(world.broadcast_text("")), None
        return
    is_new = plan.folder is None
    was_there = is_new and plan.base.is_dir()
    folder = plan.folder or new_run(plan.base)
    with lock(folder):
        if not is_new:
            restore(state, folder, data_changed)
        write_atomically(folder / CONFIG_FILE, to_yaml(config).encode())
        log_start(state, world, folder)
        try:
            seen = state.counters.images_seen
            loggers = Loggers(config, folder, seen, progress, own_loggers)
        except CganError:
            if is_new:
                remove_run(folder, keep_folder=was_there and folder.samefile(plan.base))
            raise
        with closing(loggers):
            state.broadcast_state(world)
            world.broadcast_text(str(folder))
            yield folder, loggers


def remove_run(folder: Path, keep_folder: bool) -> None:
    """Remove a run that did not start; an empty folder that the user gave stays."""
    with suppress(OSError):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not keep_folder:
            folder.rmdir()


def check_same_data_across_ranks(state: TrainState, world: World) -> None:
    """Check that all processes have loaded the same images.

    Raises:
        RunError: a process has other images than rank 0; it is raised in all of them.
    """
    digests = f"{state.data_digest} {state.unlabelled_digest}"
    differs = world.broadcast_text(digests) != digests
    (anywhere,) = world.all_reduce_max(float(differs))
    if anywhere:
        raise RunError(
            f"the {world.size} processes read different training images: give all of them the same"
        )


def restore(state: TrainState, folder: Path, data_changed: bool) -> None:
    """Restore the state of a run."""
    for problem in state.restore(folder, data_changed):
        logger.warning("%s; resuming from the state before it", problem)
    logger.info("resuming after %s images", f"{state.counters.images_seen:,}")
    if state.counters.progress(state.config) >= 1:
        logger.info("its budget is spent: raise --images or --minutes to continue")


def log_start(state: TrainState, world: World, folder: Path) -> None:
    """Log the GAN, its data, the device and the folder."""
    kind = "conditional" if state.config.model.conditional else "plain"
    logger.info(
        "%s GAN (%s) on %s: %d images of %d classes%s, on %s%s, in %s",
        kind if state.plain is None else "steered",
        state.config.model.backbone,
        state.data_name,
        state.dataset_size,
        len(state.classes),
        " in the sample" if state.config.data.is_streamed else "",
        state.device,
        f" in {world.size} processes" if world.size > 1 else "",
        folder,
    )
    config = state.config
    if config.augment:
        logger.info("augmentation: %s", ", ".join(state.augmentations) or _why_none(state))


def _why_none(state: TrainState) -> str:
    """Why ``augment: auto`` is nothing for these images."""
    if state.image_shape[0] == 1:
        return "none, because the images are grey"
    return (
        "none, because the classes are named like characters "
        f'(--set "augment=[{", ".join(PHOTO_AUGMENTATIONS)}]" for photographs)'
    )


def run_loop(loop: TrainLoop) -> int | None:
    """Run the loop.

    Raises:
        RunError: memory ran out; the message says whether in training, sampling or evaluation.
    """
    with explain_out_of_memory(
        f"training on batches of {loop.config.batch_size:,} on {loop.state.device}",
        f"lower --batch-size; the last state is kept in {loop.folder}",
    ):
        return loop.run()
