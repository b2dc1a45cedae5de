"""A training step captured once as a CUDA graph and replayed.

With small networks, launching kernels takes longer than running them. Replaying a graph takes one
launch. A replay repeats the same work on the same memory without Python, so a captured step reads
everything that changes (images, labels, learning rate, EMA decay) from tensors and never reads a
result back.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cgan.errors import one_line
from cgan.updates import PenaltyWeights, StepLosses

Step = Callable[[Tensor, Tensor, PenaltyWeights], StepLosses]
"""(real, labels, penalty weights) to losses; changes networks and optimisers in place."""

Capture = Callable[[Callable[[], StepLosses]], Callable[[], StepLosses]]
"""Captures a function without running it, and returns a function that replays it."""

WARMUP_STEPS = 3
"""Uncaptured steps per set of penalty weights, in which optimisers and libraries initialise."""

logger = logging.getLogger("cgan")


def capture_cuda_graph(work: Callable[[], StepLosses]) -> Callable[[], StepLosses]:
    """Capture as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    try:
        # Other threads, such as the DataLoader's for pinned memory, may use CUDA meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            losses = work()
    except RuntimeError:
        # torch leaves its generator in the state of a capture, in which it refuses to draw.
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(generator.clone_state())
        raise

    def replay() -> StepLosses:
        graph.replay()
        return losses  # the next replay overwrites them

    return replay


class GraphedStep:
    """Captures a step once per set of penalty weights, and then replays it.

    If the step cannot be captured, it runs without capture, with one warning.
    """

    def __init__(self, step: Step, capture: Capture = capture_cuda_graph) -> None:
        self.step, self.capture = step, capture
        self.calls = Counter[PenaltyWeights]()
        self.replays: dict[PenaltyWeights, Callable[[], StepLosses]] = {}
        self.enabled = True
        self.inputs: tuple[Tensor, Tensor] | None = None

    def __call__(self, real: Tensor, labels: Tensor, weights: PenaltyWeights) -> StepLosses:
        """Run one step. The next step overwrites the returned losses."""
        if not self.enabled:
            return self.step(real, labels, weights)
        if self.inputs is None:
            self.inputs = real.clone(), labels.clone()
        for static, given in zip(self.inputs, (real, labels), strict=True):
            static.copy_(given)
        if weights not in self.replays:
            work = partial(self.step, *self.inputs, weights)
            self.calls[weights] += 1
            if self.calls[weights] <= WARMUP_STEPS:
                return run_on_side_stream(work, real.device)
            try:
                self.replays[weights] = self.capture(work)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                logger.warning("the step cannot be captured, so it is slower: %s", one_line(error))
                self.enabled = False
                return self.step(real, labels, weights)
        return self.replays[weights]()


def run_on_side_stream(work: Callable[[], StepLosses], device: torch.device) -> StepLosses:
    """Run on a separate stream, as CUDA requires before a capture."""
    if device.type != "cuda":
        return work()
    stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        losses = work()
    current.wait_stream(stream)
    return losses
