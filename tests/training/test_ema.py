"""The moving average by hand."""

import torch
from torch import nn

from cgan.training.ema import ema_decay, frozen_copy, update_ema


def test_decay_is_a_half_after_the_half_life() -> None:
    assert ema_decay(100, 100, 10**9) == 0.5
    assert ema_decay(50, 100, 10**9) == 0.5**0.5


def test_warm_up_shortens_the_half_life() -> None:
    """After 1,000 images the half-life is at most 50 of them."""
    assert ema_decay(50, 10_000, 1_000) == 0.5
    assert ema_decay(50, 0, 1_000) == 0.0


def test_average_by_hand_with_buffers_and_counters() -> None:
    network = nn.BatchNorm1d(2)
    average = frozen_copy(network)
    with torch.no_grad():
        network.weight.fill_(3.0)  # from 1
        network.running_mean.fill_(4.0)  # from 0
        network.num_batches_tracked.fill_(7)
    update_ema(average, network, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    assert average.running_mean.tolist() == [1.0, 1.0]
    assert average.num_batches_tracked.item() == 7


def test_decay_zero_is_a_copy() -> None:
    network, average = nn.Linear(3, 2), frozen_copy(nn.Linear(3, 2))
    update_ema(average, network, 0.0)
    assert torch.equal(average.weight, network.weight)


def test_copy_is_apart_frozen_and_in_evaluation_mode() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    average = frozen_copy(network)
    with torch.no_grad():
        network[0].weight.zero_()
    assert not average.training
    assert not any(p.requires_grad for p in average.parameters())
    assert average[0].weight.abs().sum() > 0
