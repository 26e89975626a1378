import dataclasses
import itertools

import numpy as np
import pytest
import torch

from cavendish.encoders.sample import Example, InputError
from cavendish.trainer.loss import draw_noise, draw_sigma, flow_matching_loss, make_batch, pool_weights
from cavendish.trainer.training.config import SigmaConfig
from tests.trainer.items import FakeItems
from tests.trainer.oracles import Oracle, knows, spec_of

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


def gradient_of_a_pixelwise_model(
    examples: list[Example], noise: torch.Tensor, pixel_weights: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss, and its gradient by the two numbers of a model that looks at each pixel alone."""
    numbers = torch.tensor([0.7, -0.2], requires_grad=True)
    model = Oracle(spec_of("x"), lambda noisy, sigma: numbers[0] * noisy + numbers[1])
    batch = make_batch(model, examples, pixel_weights)
    loss = flow_matching_loss(model, batch, torch.linspace(0.3, 0.8, len(examples)), noise)
    (gradient,) = torch.autograd.grad(loss.mean(), numbers)
    return loss.detach(), gradient


def test_pixels_of_weight_0_change_no_gradient_and_the_others_count_as_if_alone() -> None:
    rng = np.random.default_rng(3)
    noise = draw_noise(0, range(6), (3, 16, 16))
    spoiled, right = [], []
    for example in EXAMPLES:
        target, weight = example.target.copy(), np.full((16, 16), 0.25, np.float32)
        target[:, :6], weight[:, :6] = rng.integers(0, 256, (16, 6, 3)), 0
        spoiled.append(dataclasses.replace(example, target=target, weight=weight))
        source = None if example.source is None else example.source[:, 6:]
        right.append(dataclasses.replace(example, source=source, target=example.target[:, 6:]))
    ours = gradient_of_a_pixelwise_model(spoiled, noise, True)
    alone = gradient_of_a_pixelwise_model(right, noise[..., 6:], False)
    for one, other in zip(ours, alone):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    blind = gradient_of_a_pixelwise_model(spoiled, noise, False)
    assert not torch.allclose(blind[1], alone[1], rtol=1e-2)


def test_the_loss_is_the_mean_over_pixels_by_their_weight() -> None:
    weight = np.random.default_rng(0).uniform(0, 1, (16, 16)).astype(np.float32)
    weighted = [dataclasses.replace(EXAMPLES[0], weight=weight), EXAMPLES[1]]
    noise, levels = draw_noise(0, range(2), (3, 16, 16)), torch.full((2,), 0.5)
    guess = Oracle(spec_of("x"), lambda noisy, sigma: torch.zeros_like(noisy))
    batch = make_batch(guess, weighted, pixel_weights=True)
    loss = flow_matching_loss(guess, batch, levels, noise)
    squares = (batch.clean_BCHW.double().numpy() ** 2).mean(axis=1)
    assert loss[0].item() == pytest.approx(np.average(squares[0], weights=weight), rel=1e-5)
    assert loss[1].item() == pytest.approx(squares[1].mean(), rel=1e-5)
    nothing = make_batch(guess, [dataclasses.replace(EXAMPLES[0], weight=np.zeros_like(weight))], pixel_weights=True)
    assert flow_matching_loss(guess, nothing, levels[:1], noise[:1]).item() == 0


def test_weights_are_pooled_to_the_latent_grid() -> None:
    weight = np.zeros((16, 32), np.float32)
    weight[:8, 8:16], weight[8:12, :8] = 1, 0.5
    blank = np.zeros((16, 32, 3), np.uint8)
    examples = [Example("a.depth", "depth", "a", blank, blank, {}, w) for w in (weight, None)]
    pooled = pool_weights(examples, 8)
    assert pooled.shape == (2, 1, 2, 4)
    assert pooled[0, 0].tolist() == [[0, 1, 0, 0], [0.25, 0, 0, 0]]
    assert bool((pooled[1] == 1).all())


@pytest.mark.parametrize("at_one", [0.0, 0.2])
def test_the_shares_between_levels_are_those_of_the_draws(at_one: float) -> None:
    config = SigmaConfig(vision=1.5, std=0.8, vision_at_one=at_one)
    levels = draw_sigma(3, range(20_000), [1.5] * 20_000, 0.8, [at_one] * 20_000).numpy()
    assert (levels == 1).mean() == pytest.approx(at_one, abs=0.01)
    edges = (1e-9, 0.3, 0.8, 0.95, 1.0)
    for low, high in itertools.pairwise(edges):
        found = ((levels > low) & (levels <= high)).mean()
        assert config.share_between("vision", low, high) == pytest.approx(found, abs=0.01)
    assert config.share_between("editing", 1e-9, 1.0) == pytest.approx(1)
    plain = draw_sigma(3, range(50), [1.5] * 50, 0.8).numpy()
    same = levels[:50] < 1  # a draw at 1 moves no other
    np.testing.assert_array_equal(levels[:50][same], plain[same])
