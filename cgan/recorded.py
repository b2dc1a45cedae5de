"""A training step recorded once and replayed: on CUDA the launches of small kernels, not their
arithmetic, are what takes the time, and a replayed CUDA graph needs one launch for all of them.

What is replayed is the same work on the same memory, without Python. So a step that is to be
recorded reads whatever changes (pictures, labels, learning rate, decay) from tensors, and waits for
no result.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cgan.updates import Losses, Penalty

Step = Callable[[Tensor, Tensor, Penalty], Losses]
"""(real, labels, penalty) to losses; changes networks and optimisers in place."""

Record = Callable[[Callable[[], Losses]], Callable[[], Losses]]
"""Takes work and gives what does it again, on the same memory; must not do it itself."""

WARM_UP = 3
"""Steps of each kind that are run as they are: optimisers and libraries set themselves up."""

logger = logging.getLogger("cgan")


def record_cuda_graph(work: Callable[[], Losses]) -> Callable[[], Losses]:
    """As a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = work()

    def replay() -> Losses:
        graph.replay()
        return losses  # read before the next replay writes there

    return replay


class RecordedStep:
    """A step that is recorded once for each kind of penalty, and replayed from then on.

    A step that can't be recorded is run as it is, and that is said once.
    """

    def __init__(self, step: Step, record: Record = record_cuda_graph) -> None:
        self.step, self.record = step, record
        self.run = Counter[Penalty]()
        self.replays: dict[Penalty, Callable[[], Losses]] = {}
        self.works = True
        self.inputs: tuple[Tensor, Tensor] | None = None

    def __call__(self, real: Tensor, labels: Tensor, penalty: Penalty) -> Losses:
        """Do the step; the losses are overwritten by the next one."""
        if not self.works:
            return self.step(real, labels, penalty)
        if self.inputs is None:
            self.inputs = real.clone(), labels.clone()
        for kept, given in zip(self.inputs, (real, labels), strict=True):
            kept.copy_(given)
        if penalty not in self.replays:
            work = partial(self.step, *self.inputs, penalty)
            self.run[penalty] += 1
            if self.run[penalty] <= WARM_UP:
                return aside(work, real.device)
            try:
                self.replays[penalty] = self.record(work)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                reason = str(error).partition("\n")[0]
                logger.warning("the step can't be recorded, so it is slower: %s", reason)
                self.works = False
                return self.step(real, labels, penalty)
        return self.replays[penalty]()


def aside(work: Callable[[], Losses], device: torch.device) -> Losses:
    """Do it on a stream of its own, as CUDA asks of what is recorded later."""
    if device.type != "cuda":
        return work()
    stream, here = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        losses = work()
    here.wait_stream(stream)
    return losses
