"""Adam: torch's own, without the compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from cgan.training.state import Adam

TRAIN = """
import sys, tempfile, cgan
changes = {"images": 128, "control_per_class": 0, "eval_every_images": 0, "device": "cpu"}
cgan.train(cgan.load_config("digits-mlp", changes), tempfile.mkdtemp() + "/run")
print([name for name in ("torch._dynamo", "sklearn", "torchvision") if name in sys.modules])
"""


@pytest.mark.parametrize("tensor_lr", [False, True])
def test_it_is_that_of_torch_bit_for_bit(tensor_lr: bool) -> None:
    found = []
    for make in (lambda p: torch.optim.Adam(p, 0.1, (0.0, 0.99), fused=True),
                 lambda p: Adam(p, 0.1, (0.0, 0.99))):  # fmt: skip
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 2), nn.Linear(3, 3))
        network[0].bias.requires_grad_(False)
        optimizer = make(network.parameters())
        for step in range(4):
            lr = 0.1 / (step + 1)
            lr = torch.tensor(lr) if tensor_lr else lr
            optimizer.param_groups[0].update(lr=lr, betas=(0.1 * step, 0.9 + 0.01 * step))
            optimizer.zero_grad()
            network[:2](torch.randn(4, 5)).square().sum().backward()  # the third gets no gradient
            if step == 2:
                again = make(network.parameters())
                again.load_state_dict(optimizer.state_dict())
                optimizer = again
            optimizer.step()
        moments = [m for one in optimizer.state.values() for m in one.values()]
        found.append([*network.parameters(), *moments])
    assert len(found[0]) == len(found[1]) == 6 + 3 * 3
    assert all(map(torch.equal, *found))


def test_hooks_run() -> None:
    called = []
    parameter = nn.Parameter(torch.ones(2))
    optimizer = Adam([parameter], 0.1, (0.9, 0.99))
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    optimizer.step()  # without a gradient
    assert called == ["before", "after"]
    assert torch.equal(parameter, torch.ones(2))


def test_training_imports_no_compiler_and_no_scikit_learn() -> None:
    """Each takes about a second."""
    words = (sys.executable, "-c", TRAIN)
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "[]\n"
