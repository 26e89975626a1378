"""Draws answers to examples."""

from __future__ import annotations

from collections.abc import Sequence

from cavendish.encoders.sample import Example, UInt8Image
from cavendish.trainer.generators.protocol import Generator
from cavendish.trainer.inference.sampler import sample
from cavendish.trainer.training.loss import make_batch
from cavendish.trainer.training.parallel import ALONE, Process, device_of, moved, put_together, turns_by_size


def predict_examples(
    generator: Generator,
    examples: Sequence[Example],
    steps: int,
    seed: int,
    batch_size: int = 32,
    process: Process = ALONE,
) -> list[UInt8Image]:
    """Draw the answer to each example's prompt and source; the target is not looked at, only its size.

    Args:
        steps: Euler steps. 4 is a good value; 1 is fine for depth.
        seed: with the position of an example in `examples` it decides the noise; the batch size does not matter
            beyond the rounding of sums (at most one grey level).
        process: of several processes, all of which must ask for the same: each draws a part.

    Returns:
        (H, W, 3) uint8 images in the order of `examples`; of several processes the first gets them, the others nothing.
    """
    answers: dict[int, UInt8Image] = {}
    module = generator.module()
    training = module.training
    module.eval()
    for positions in turns_by_size([e.target.shape for e in examples], batch_size, process):
        batch = moved(make_batch(generator, [examples[i] for i in positions]), device_of(generator))
        answers |= zip(positions, generator.decode(sample(generator, batch, positions, steps, seed)))
    module.train(training)
    return put_together(answers, process)
