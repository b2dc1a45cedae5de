"""Dropout: the masks of the global batch, whatever the number of processes."""

import pytest
import torch

from cgan.models.layers import Dropout, shard_dropout


@pytest.mark.parametrize("shape", [(8, 5), (8, 3, 4, 6)])
def test_each_process_gets_its_shard_of_the_masks_of_one_process(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    torch.manual_seed(0)
    alone = Dropout(0.4)(x)
    after = torch.get_rng_state()
    for size in (2, 4):
        shards = []
        for rank in range(size):
            dropout = torch.nn.Sequential(Dropout(0.4))
            shard_dropout(dropout, rank, size)
            torch.manual_seed(0)
            shards.append(dropout(x.chunk(size)[rank]))
            assert torch.equal(torch.get_rng_state(), after)
        assert torch.equal(torch.cat(shards), alone)
        assert not torch.equal(shards[0] == 0, shards[1] == 0)


def test_kept_values_are_scaled_and_the_share_of_zeros_is_p() -> None:
    torch.manual_seed(0)
    dropped = Dropout(0.25)(torch.full((100, 100), 3.0))
    assert set(dropped.unique().tolist()) == {0.0, 4.0}
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.02)


def test_off_in_evaluation_and_at_0() -> None:
    x, state = torch.randn(4, 4), torch.get_rng_state()
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_format_stays_channels_last() -> None:
    x = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)
    assert Dropout(0.5)(x).is_contiguous(memory_format=torch.channels_last)
