import numpy as np
import pytest
import torch

from encoders.sample import Example, InputError
from tests.trainer.items import FakeItems
from tests.trainer.oracles import Oracle, knows, spec_of
from trainer.loss import draw_noise, draw_sigma, flow_matching_loss, make_batch

ITEMS = FakeItems(range(2), {"generate": 1, "edit": 1}, size=16)
EXAMPLES = [ITEMS[i].example for i in range(6)]


@pytest.mark.parametrize("prediction", ["x", "v"])
def test_the_perfect_generator_has_no_loss(prediction: str) -> None:
    batch = make_batch(knows(torch.zeros(1), "x"), EXAMPLES)
    loss = flow_matching_loss(
        knows(batch.clean_BCHW, prediction), batch, torch.linspace(0.2, 0.9, 6), draw_noise(0, range(6), (3, 16, 16))
    )
    torch.testing.assert_close(loss, torch.zeros(6), atol=1e-9, rtol=0)


def test_the_loss_of_guessing_zero_is_the_energy_of_the_truth() -> None:
    for prediction, energy in (("x", lambda clean, noise: clean), ("v", lambda clean, noise: noise - clean)):
        guess = Oracle(spec_of(prediction), lambda noisy, s: torch.zeros_like(noisy))
        batch = make_batch(guess, EXAMPLES)
        noise = draw_noise(0, range(6), (3, 16, 16))
        loss = flow_matching_loss(guess, batch, torch.full((6,), 0.5), noise)
        torch.testing.assert_close(loss, (energy(batch.clean_BCHW, noise) ** 2).mean((1, 2, 3)))


def test_noise_and_levels_depend_on_the_seed_and_the_index_alone() -> None:
    together = draw_noise(4, [10, 11, 12], (3, 8, 8))
    assert torch.equal(draw_noise(4, [11], (3, 8, 8))[0], together[1])
    assert not torch.equal(draw_noise(5, [11], (3, 8, 8))[0], together[1])
    levels = draw_sigma(4, [10, 11, 12], [0.0, 1.2, 0.0], 1.0)
    assert torch.equal(draw_sigma(4, [11], [1.2], 1.0)[0], levels[1])


def test_noise_is_standard_normal_and_levels_logit_normal() -> None:
    noise = draw_noise(0, range(64), (3, 16, 16)).double()
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    logits = torch.logit(draw_sigma(0, range(4000), [1.2] * 4000, 0.8).double())
    assert abs(logits.mean() - 1.2) < 0.05
    assert abs(logits.std() - 0.8) < 0.05
    assert abs(np.corrcoef(logits[:-1], logits[1:])[0, 1]) < 0.05


def test_a_missing_reference_is_zero_and_flagged() -> None:
    batch = make_batch(knows(torch.zeros(1), "x"), EXAMPLES)
    for row, example in enumerate(EXAMPLES):
        assert bool(batch.has_reference_B[row]) == (example.source is not None)
        assert bool(batch.reference_BCHW[row].any()) == (example.source is not None)


def test_one_size_per_batch() -> None:
    odd = Example("k.generate", "generate", "a", None, np.zeros((8, 8, 3), np.uint8), {})
    with pytest.raises(InputError, match="resize them to one size"):
        make_batch(knows(torch.zeros(1), "x"), [*EXAMPLES, odd])
