from dataclasses import replace

import numpy as np
import pytest
import torch

from cavendish.encoders.sample import Example
from cavendish.trainer.generators.tiny import TinyConfig, TinyGenerator
from cavendish.trainer.inference.sampler import predict_examples, sample
from cavendish.trainer.loss import make_batch
from tests.trainer.items import FakeItems
from tests.trainer.oracles import gaussian, knows

BLANK = [Example(f"k{i}.generate", "generate", "a", None, np.zeros((16, 16, 3), np.uint8), {}) for i in range(24)]


@pytest.mark.parametrize("prediction", ["x", "v"])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_perfect_generator_draws_its_one_picture(prediction: str, steps: int) -> None:
    clean = torch.rand(1, 3, 16, 16) * 2 - 1
    oracle = knows(clean, prediction)
    drawn = sample(oracle, make_batch(oracle, BLANK), range(24), steps, seed=0)
    torch.testing.assert_close(drawn, clean.expand(24, 3, 16, 16), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_many_steps_draw_the_right_distribution(shift: float) -> None:
    oracle = gaussian(0.4, shift)
    drawn = sample(oracle, make_batch(oracle, BLANK), range(24), 200, seed=0).double()
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 0.4) < 0.02


def test_guidance_goes_through_the_conditional_prediction() -> None:
    items = FakeItems(range(3), {"edit": 1}, size=32)
    examples = [items[i].example for i in range(2)]
    generator = TinyGenerator(TinyConfig(width=16, text_width=16), seed=0)
    blank = [replace(example, prompt="") for example in examples]
    plain, empty, doubled, same = (
        np.stack(predict_examples(generator, asked, 1, seed=0, guidance=scale)).astype(int)
        for asked, scale in ((examples, 1.0), (blank, 1.0), (examples, 2.0), (blank, 2.0))
    )
    assert np.abs(empty - same).max() <= 1  # nothing to go through
    inside = np.all([(image > 0) & (image < 255) for image in (plain, empty, doubled)], axis=0)
    assert inside.mean() > 0.2
    assert np.abs(doubled - (2 * plain - empty))[inside].max() <= 2
    assert not np.array_equal(plain, doubled)


def test_answers_do_not_depend_on_the_batch() -> None:
    items = FakeItems(range(3), {"generate": 1, "edit": 1, "depth": 1}, size=32)
    examples = [items[i].example for i in range(7)]
    generator = TinyGenerator(TinyConfig(width=16, text_width=16), seed=0)
    answers = [predict_examples(generator, examples, 3, seed=1, batch_size=size) for size in (7, 3, 1)]
    for others in answers[1:]:
        for one, other in zip(answers[0], others):
            assert np.abs(one.astype(int) - other).max() <= 1
    again = predict_examples(generator, examples, 3, seed=1)
    assert all(np.array_equal(one, other) for one, other in zip(answers[0], again))
    different = predict_examples(generator, examples, 3, seed=2)
    assert not np.array_equal(answers[0][0], different[0])


def test_the_target_is_not_looked_at() -> None:
    items = FakeItems(range(3), {"edit": 1}, size=32)
    example = items[0].example
    blank = Example(example.key, example.task, example.prompt, example.source, np.zeros_like(example.target), {})
    generator = TinyGenerator(TinyConfig(width=16, text_width=16), seed=0)
    one, other = (predict_examples(generator, [e], 2, seed=0)[0] for e in (example, blank))
    np.testing.assert_array_equal(one, other)
