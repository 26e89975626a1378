"""Work is shared so that nothing is left over and no process waits for another's forward pass for ever."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from cavendish.trainer.training.parallel import Process, turns


@given(count=st.integers(1, 200), batch=st.integers(1, 20), world=st.integers(1, 9))
def test_every_position_is_taken_and_every_process_has_as_many_turns(count: int, batch: int, world: int) -> None:
    shared = [turns(count, batch, Process(rank, world, torch.device("cpu"))) for rank in range(world)]
    assert len({len(mine) for mine in shared}) == 1
    taken = [position for mine in shared for turn in mine for position in turn]
    assert set(taken) == set(range(count))
    assert all(1 <= len(turn) <= batch for mine in shared for turn in mine)
    assert len(taken) - count <= world  # all but the last position once
    if world == 1:
        assert taken == list(range(count))
