"""The loop of a run: learn, report, draw, look, save, until its budget is spent or a signal."""

from __future__ import annotations

import logging
import math
import time
from contextlib import closing
from pathlib import Path

from torch import Tensor

from cgan.checkpoint import GENERATOR, GENERATOR_VERSION, read_header
from cgan.data import Loader, PictureFolder, Pictures, Split, load_split
from cgan.errors import Diverged
from cgan.interrupts import signals
from cgan.learner import Counters, Learner
from cgan.loggers import Figures, Loggers
from cgan.metrics.control import Control
from cgan.places import BEST_FILE, GENERATOR_FILE
from cgan.png import make_grid, save_png, to_pixels
from cgan.updates import Losses
from cgan.watch import Watch

GRID_COLUMNS = 10
GRID_CLASSES = 32

logger = logging.getLogger("cgan")


class Loop:
    """Between a learner, its folder and its loggers; only the first of several processes has
    loggers, looks and writes."""

    def __init__(
        self,
        learner: Learner,
        pictures: Pictures | PictureFolder,
        folder: Path,
        loggers: Loggers | None,
    ) -> None:
        self.learner, self.pictures, self.folder, self.loggers = learner, pictures, folder, loggers
        self.config, self.device, self.world = learner.config, learner.device, learner.world
        self.stop = 0
        self.watch: Watch | None = None
        self.looked_at = -1
        self.forget()

    def run(self) -> int | None:
        """Learn until the budget is spent (None) or a signal comes (its number)."""
        config, counters = self.config, self.learner.counters
        batch = config.batch_size
        seed, balanced = config.seed, config.data.balanced
        loader = Loader(self.pictures, batch, self.device, seed, balanced, world=self.world)
        leads = self.world.leads
        if leads and counters.steps == 0:
            self.learner.save(self.folder)
        saved = time.monotonic()
        reached = config.images is None or config.images >= config.eval_every_images
        looks = leads and config.eval_every_images and reached and len(self.pictures.classes) > 1
        if looks and self.watch is None:  # now, while a missing test part or Ctrl-C costs nothing
            self.watch = Watch(self.split, self.device, self.folder)

        def due(every_images: int) -> bool:
            seen = counters.images_seen
            return seen // every_images > (seen - batch) // every_images

        batches = loader.batches(counters.images_seen)
        with signals() as caught, closing(batches):
            clock = time.perf_counter()
            while not self.ended(caught):
                real, labels = next(batches)
                self.remember(self.learner.step(real, labels))
                counters.seconds += time.perf_counter() - clock
                clock = time.perf_counter()
                if due(config.log_every_images):
                    self.report()
                if leads and due(config.sample_every_images):
                    self.draw_grid()
                if looks and due(config.eval_every_images):
                    self.look()
                    clock = time.perf_counter()
                if leads and time.monotonic() - saved > config.save_every_seconds:
                    self.save()
                    saved = time.monotonic()
            self.report()
            if leads:
                self.save()
        if leads:
            self.draw_grid()
        return self.stop if counters.share(config) < 1 else None

    def ended(self, caught: list[int]) -> bool:
        """Whether the budget is spent or a signal has come; all processes agree on both."""
        counters = self.learner.counters
        counters.seconds, stop = self.world.most(counters.seconds, caught[0] if caught else 0)
        self.stop = int(stop)
        return counters.share(self.config) >= 1 or bool(self.stop)

    def remember(self, losses: Losses) -> None:
        """Add up losses where they are: reading them would make a GPU wait."""
        for name, value in losses.items():
            self.totals[name] = self.totals.get(name, 0) + value

    def forget(self) -> None:
        """Begin new means."""
        counters = self.learner.counters
        self.totals: dict[str, Tensor] = {}
        self.since = Counters(counters.images_seen, counters.steps, counters.seconds)

    def means(self) -> dict[str, float]:
        """Mean losses since the last report.

        Raises:
            Diverged: one is not a number.
        """
        counters, since = self.learner.counters, self.since
        steps = max(counters.steps - since.steps, 1)
        means = {name: float(total) / steps for name, total in self.totals.items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise Diverged(
                    f"{name} became {mean} between {since.images_seen:,} and "
                    f"{counters.images_seen:,} images; the last good state is kept in "
                    f"{self.folder}: try a lower --lr or a stronger --set penalty.r1=…"
                )
        return means

    def report(self) -> None:
        """Log the means since the last report; raises as :meth:`means`."""
        counters, since = self.learner.counters, self.since
        if counters.steps == since.steps:
            return
        self.world.mean_(list(self.totals.values()))
        share, means = counters.share(self.config), self.means()
        images, seconds = counters.images_seen - since.images_seen, counters.seconds - since.seconds
        self.log(
            {
                "images_seen": counters.images_seen,
                "steps": counters.steps,
                "seconds": round(counters.seconds, 3),
                "seconds_left": round(counters.seconds * (1 / share - 1), 3),
                "share": share,
                "images_per_second": images / seconds,
                "lr": self.learner.learning_rate,
                **means,
            }
        )
        self.forget()

    def log(self, figures: Figures) -> None:
        """Tell the loggers, where there are any: the first process has them."""
        if self.loggers is not None:
            self.loggers.log(figures)

    def save(self) -> None:
        """Write state and generator, after a look at the losses that led to them."""
        self.means()
        self.learner.save(self.folder)

    def draw_grid(self) -> None:
        """One row a class (a plain GAN: ten rows), the same seeds each time."""
        sampler = self.learner.sampler(self.folder)
        if sampler.conditional:
            shown = sampler.sample(list(sampler.classes[:GRID_CLASSES]), GRID_COLUMNS)
        else:
            shown = sampler.sample(None, GRID_COLUMNS**2)
        images_seen = self.learner.counters.images_seen
        path = self.folder / "samples" / f"{images_seen:09d}.png"
        save_png(make_grid(to_pixels(shown), GRID_COLUMNS), path)
        if self.loggers is not None:
            self.loggers.picture(path, images_seen)

    def split(self, split: Split) -> Pictures | PictureFolder:
        """The pictures that are learned from, which are there, or those held out."""
        return self.pictures if split == "train" else load_split(self.config.data, split)

    def look(self) -> None:
        """Let the judge look: figures to the loggers, alarms, and the best generator kept."""
        self.means()  # a run that has diverged is not worth a look
        assert self.watch is not None
        self.looked_at = images_seen = self.learner.counters.images_seen
        verdict = self.watch.look(self.learner.sampler(self.folder))
        self.log({"images_seen": images_seen, **verdict.figures()})
        if self.watch.is_best(verdict):
            self.learner.save_generator(self.folder / BEST_FILE, self.watch.best)
        self.watch.warn(verdict, self.folder, self.learner.counters.share(self.config))

    def measure(self) -> Control | None:
        """Ask the judge at length, and write its answer into the generator's file."""
        if self.loggers is None:  # the first process does
            return None
        self.loggers.leave_terminal()
        images_seen = self.learner.counters.images_seen
        if self.watch is None:
            self.watch = Watch(self.split, self.device, self.folder)
        elif self.looked_at != images_seen:
            self.look()
        per_class = self.config.control_per_class
        verdict = self.watch.look(self.learner.sampler(self.folder), per_class)
        self.learner.save_generator(self.folder / GENERATOR_FILE, verdict.to_dict())
        # Not its FID, which would be no point of that curve: FID falls with the number of pictures.
        control = verdict.control
        self.log(
            {
                "images_seen": images_seen,
                "control_accuracy": control.accuracy,
                "control_accuracy_worst_class": control.per_class[control.worst],
            }
        )
        best = self.folder / BEST_FILE
        if best.exists():
            best_at = read_header(best, GENERATOR, GENERATOR_VERSION)["images_seen"]
            if best_at != images_seen:
                logger.info(
                    "the generator after %s images was the best, by control accuracy and FID "
                    "together: it is kept in %s",
                    f"{best_at:,}",
                    best,
                )
        return control
