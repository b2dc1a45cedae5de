"""``cgan.train``: a run as a pipeline.

resolve device → find run → load data → build state and step → open run folder → loop
→ final evaluation
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cgan.config import Config
from cgan.config_io import load_config, to_yaml
from cgan.errors import CganError, RunError
from cgan.evaluation.control import Control
from cgan.evaluation.report import curves_html, format_share
from cgan.runtime.device import (
    configure_backends,
    explain_out_of_memory,
    seeded,
    torch_defaults,
)
from cgan.runtime.distributed import World, process_group
from cgan.runtime.process import is_restart
from cgan.sampling.wrap import PlainGenerator, load_plain
from cgan.storage.atomic import lock, write_atomically
from cgan.storage.paths import CONFIG_FILE, GENERATOR_FILE
from cgan.storage.run_files import read_curves
from cgan.training.loggers import Logger, Loggers
from cgan.training.loop import TrainLoop
from cgan.training.setup import (
    check_batch_fits,
    check_same_config,
    load_training_data,
    log_start,
    new_run,
    resolve_device,
    run_to_resume,
)
from cgan.training.state import TrainState
from cgan.training.step import TrainStep
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
        device = resolve_device(config, world)
        folder = find_existing_run(config, out, resume) if world.is_main else None
        if config.steer is not None and plain is None:
            plain = load_plain(config.steer)
        dataset, unlabelled = load_training_data(config, world)
        with configure_backends(device), seeded(config.seed, device):
            with explain_out_of_memory(
                f"preparing the networks on {device}", "free memory, or lower --set model.width=…"
            ):
                state = TrainState(config, dataset, device, unlabelled, plain)
                if config.warm_start is not None and folder is None and world.is_main:
                    warm_start(state)
                step = TrainStep(state, world)
                check_batch_fits(state, world.size)
            check_same_data_across_ranks(state, world)
            with open_run(state, world, folder, out, progress, data_changed, loggers) as (
                folder,
                all_loggers,
            ):
                loop = TrainLoop(step, dataset, folder, all_loggers, unlabelled)
                stopped_by = run_loop(loop)
                control = None
                if stopped_by is None and config.control_per_class and len(dataset.classes) > 1:
                    control = loop.final_evaluation()
                if stopped_by is None and all_loggers is not None:
                    generator = folder / GENERATOR_FILE
                    all_loggers.log_result(generator, state.counters.images_seen, control)
    counters = state.counters
    return Run(
        folder, config, counters.images_seen, counters.seconds, control, stopped_by, world.is_main
    )


def find_existing_run(config: Config, out: str | Path | None, resume: bool) -> Path | None:
    """The folder of the run to resume, or that torchrun restarted; None for a new run.

    Raises:
        RunError: there is no run to resume, or its config differs.
    """
    folder = None
    if resume:
        folder = run_to_resume(config, out)
    elif is_restart():
        with suppress(RunError):
            folder = run_to_resume(config, out, numbered=True)
    if folder is not None:
        check_same_config(config, load_config(folder / CONFIG_FILE, warn=False), folder)
    return folder


@contextmanager
def open_run(
    state: TrainState,
    world: World,
    folder: Path | None,
    out: str | Path | None,
    progress: bool,
    data_changed: bool = False,
    own_loggers: Sequence[Logger] = (),
) -> Iterator[tuple[Path, Loggers | None]]:
    """Create and lock the run folder, restore a resumed state, and send the state to all processes.

    Yields:
        the folder, and the loggers (None in every process but rank 0).
    """
    if not world.is_main:
        state.broadcast_state(world)
        yield Path(world.broadcast_text("")), None
        return
    config, is_new = state.config, folder is None
    folder = folder or new_run(config, out)
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
                shutil.rmtree(folder, ignore_errors=True)
            raise
        with closing(loggers):
            state.broadcast_state(world)
            world.broadcast_text(str(folder))
            yield folder, loggers


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
