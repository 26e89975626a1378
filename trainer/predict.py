"""Draws answers to examples."""

from __future__ import annotations

from collections.abc import Sequence

from encoders.sample import Example, UInt8Image
from trainer.generators.protocol import Generator
from trainer.loss import make_batch
from trainer.sampler import sample


def predict_examples(
    generator: Generator, examples: Sequence[Example], steps: int, seed: int, batch_size: int = 32
) -> list[UInt8Image]:
    """Draw the answer to each example's prompt and source; the target is not looked at, only its size.

    Args:
        steps: Euler steps. 4 is a good value; 1 is fine for depth.
        seed: with the position of an example in `examples` it decides the noise; the batch size does not matter
            beyond the rounding of sums (at most one grey level).

    Returns:
        (H, W, 3) uint8 images in the order of `examples`.
    """
    answers: list[UInt8Image] = []
    module = generator.module()
    training = module.training
    module.eval()
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        batch = make_batch(generator, part)
        answers += generator.decode(sample(generator, batch, range(start, start + len(part)), steps, seed))
    module.train(training)
    return answers
