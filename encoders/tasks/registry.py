"""All tasks, and what is done with any of them: make and decode examples, read what a person asks for.

Everything random goes through `rng`, so the same sample, task and seed give the same bytes. `decode_example` needs the
spec alone; `encoders.legends.parser.parse_legend` recovers the colors from the prompt alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from cavendish.encoders.codecs.colors import check_picture
from cavendish.encoders.codecs.palettes import BLACK
from cavendish.encoders.legends.parser import BACKGROUND, near_colors, parse_legend
from cavendish.encoders.sample import Example, InputError, Sample, UInt8Image
from cavendish.encoders.tasks.segmentation import legend_spec
from cavendish.encoders.tasks.semantic import SemanticTask
from cavendish.encoders.tasks.task import NEGATIVE_PROBABILITY, Options, Question, Task, after_verb, read_field

TASK_NAMES = (
    "depth",
    "normals",
    "semantic",
    "instance",
    "referring",
    "generate",
    "edit",
)
"""Each is the name of a file beside this one; a vision task is scored by `trainer/evaluation/tasks/NAME.py`."""

TASKS: tuple[Task, ...] = tuple(import_module(f"cavendish.encoders.tasks.{name}").TASK for name in TASK_NAMES)
VISION_TASKS: tuple[str, ...] = tuple(task.name for task in TASKS if task.kind == "vision")

USAGE = "; ".join([*(task.usage for task in TASKS), "prompt TEXT (sent as typed, its legend is read from it)"])
"""What a person may type after `predict --task`."""

_BY_NAME: Mapping[str, Task] = dict(zip(TASK_NAMES, TASKS))


def find_task(name: str) -> Task:
    """Return a task by its name.

    Raises:
        InputError: there is none.
    """
    if name not in _BY_NAME:
        raise InputError(f"task {name!r} is not known; known: {', '.join(TASK_NAMES)}")
    return _BY_NAME[name]


def tasks_of(sample: Sample) -> tuple[str, ...]:
    """Return the names of the tasks that this sample can serve, in the order of TASKS."""
    return tuple(task.name for task in TASKS if task.serves(sample))


def make_example(
    sample: Sample,
    task: str,
    rng: np.random.Generator,
    negative_probability: float = NEGATIVE_PROBABILITY,
    colormap_shares: Mapping[str, float] | None = None,
) -> Example:
    """Draw one instruction for a sample.

    Args:
        sample: what is known of an image.
        task: one of `tasks_of(sample)`.
        rng: every draw; the Example is a function of (sample, task, the state of rng).
        negative_probability, colormap_shares: see `Options`.

    Returns:
        The Example. Its source is the sample's image, None for "generate"; its weight is the sample's, but None for
        "generate" and "edit", whose targets are images and not what was measured or guessed of one.

    Raises:
        InputError: the sample cannot serve the task.

    Example:
        >>> import numpy as np
        >>> image, depth_m = np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 2.0, np.float32)
        >>> sample = cavendish.Sample("mine-000", image, "mine", "CC0-1.0", depth_m=depth_m)
        >>> example = cavendish.make_example(sample, "depth", np.random.default_rng(1))
        >>> example.prompt, example.target.shape
        ('Where is near and where is far? Answer with a metric depth map.', (32, 32, 3))
    """
    asked = find_task(task)
    serial = int(rng.integers(2**32))
    if not asked.serves(sample):
        raise InputError(f"{sample.key}: cannot serve task {task!r}; it serves {', '.join(tasks_of(sample)) or 'none'}")
    made = asked.make(sample, rng, Options(negative_probability, colormap_shares))
    return Example(
        key=f"{sample.key}.{task}.{serial:08x}",
        task=task,
        prompt=made.prompt,
        source=sample.image if asked.has_source else None,
        target=made.target,
        spec={"task": task, **made.spec},
        weight=sample.weight if asked.weighted else None,
    )


def decode_example(spec: Mapping[str, Any], rgb_u8: UInt8Image) -> Any:
    """Read an image that was drawn for an Example.

    Args:
        spec: `Example.spec`, or its json.
        rgb_u8: (H, W, 3) uint8; any image, such as a generator's answer.

    Returns:
        By task: depth: DecodedDepth; normals: (H, W, 3) float32; semantic, referring: Segmentation; instance:
        DecodedInstances; generate, edit: the image itself.

    Raises:
        InputError: not an image, or a spec with a missing or odd field.

    Example:
        >>> import numpy as np
        >>> image = cavendish.encode_depth(np.full((2, 2), 3.0))
        >>> cavendish.decode_example({"task": "depth", "codec": "cube-walk/1"}, image).depth_m.round(2).tolist()
        [[3.0, 3.0], [3.0, 3.0]]
    """
    check_picture(rgb_u8)
    name = read_field(spec, "task", str)
    if name not in _BY_NAME:
        raise InputError(f"spec task {name!r} is not known; known: {', '.join(TASK_NAMES)}")
    return _BY_NAME[name].decode(spec, rgb_u8)


def read_question(text: str, pass_number: int = 0) -> Question:
    """Turn a task as a person types it into a question.

    Args:
        text: see USAGE.
        pass_number: draws wording and colors; the decoded answer means the same for every pass.

    Raises:
        InputError: not of any of the forms, a legend that cannot be read, or one with two equal colors.
    """
    text = text.strip()
    for task in TASKS:
        if (question := task.ask(text, pass_number)) is not None:
            return question
    if prompt := after_verb(text, "prompt"):
        legend = parse_legend(prompt)
        background = legend.pop(BACKGROUND, BLACK)
        if not legend:
            raise InputError(f"prompt {prompt!r}: no name with a color in it; write such as 'paint the mug red'")
        spec = {"task": SemanticTask.name, **legend_spec(legend, background)}
        return Question(prompt, spec, tuple(near_colors(legend, background)))
    raise InputError(f"task {text!r} is not known; write one of: {USAGE}")


def ask_again(spec: Mapping[str, Any], pass_number: int) -> Question:
    """Ask the question of a decode spec in other words and colors; the decoded answer means the same.

    Raises:
        InputError: the task has only one way of asking.
    """
    return find_task(spec["task"]).ask_again(spec, pass_number)
