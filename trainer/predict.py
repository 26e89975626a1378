"""Draws answers to examples."""

from __future__ import annotations

from collections.abc import Sequence

from encoders.sample import Example, UInt8Image
from trainer.generators.protocol import Generator
from trainer.loss import make_batch
from trainer.parallel import ALONE, Place, device_of, gathered_by_first, moved, turns
from trainer.sampler import sample


def predict_examples(
    generator: Generator,
    examples: Sequence[Example],
    steps: int,
    seed: int,
    batch_size: int = 32,
    place: Place = ALONE,
) -> list[UInt8Image]:
    """Draw the answer to each example's prompt and source; the target is not looked at, only its size.

    Args:
        steps: Euler steps. 4 is a good value; 1 is fine for depth.
        seed: with the position of an example in `examples` it decides the noise; the batch size does not matter
            beyond the rounding of sums (at most one grey level).
        place: of several processes, all of which must ask for the same: each draws a part.

    Returns:
        (H, W, 3) uint8 images in the order of `examples`; of several processes the first gets them, the others nothing.
    """
    answers: dict[int, UInt8Image] = {}
    module = generator.module()
    training = module.training
    module.eval()
    of_size: dict[tuple[int, ...], list[int]] = {}
    for position, example in enumerate(examples):
        of_size.setdefault(example.target.shape, []).append(position)
    for alike in of_size.values():
        for turn in turns(len(alike), batch_size, place):
            positions = [alike[i] for i in turn]
            batch = moved(make_batch(generator, [examples[i] for i in positions]), device_of(generator))
            answers |= zip(positions, generator.decode(sample(generator, batch, positions, steps, seed)))
    module.train(training)
    whole: dict[int, UInt8Image] = {}
    for part in gathered_by_first(answers, place):
        whole |= part
    return [whole[i] for i in sorted(whole)]
