"""Classes and objects of a sample: visible, countable, its main subject, surely absent; and the words for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from cavendish.encoders.draws import one_of, shuffled
from cavendish.encoders.expressions.programs import NO, category_match
from cavendish.encoders.sample import Instance, Sample

MAX_INSTANCES = 60
"""A class with more of them is not asked for one by one."""

SALIENT_CATEGORIES = ("salient object", "main subject")
"""How a sample names the one thing a photo is of."""

SALIENT_WORDS = (
    *("salient object", "main subject", "main object", "foreground object", "foreground subject", "primary subject"),
    *("most prominent object", "central object", "focal subject", "dominant object", "subject of the photo"),
)
"""What a prompt may call it as a class."""

SALIENT_EXPRESSIONS = (
    *("the main subject", "the main subject of the photo", "the salient object", "the most prominent object"),
    *("the object in the foreground", "the focal point of this picture", "whatever stands out most", "the main thing"),
    *("what this photo is about", "the thing that catches the eye first"),
    *("the dominant object", "the star of the shot"),
    *("the foreground subject", "what the photographer focused on"),
    *("the most eye-catching object", "the primary subject"),
    *("the object of interest", "the subject the camera is aimed at", "the main object", "the most noticeable object"),
)

VOCABULARY = (
    *("person", "car", "bus", "truck", "train", "bicycle", "motorcycle", "boat", "airplane", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant"),
    *("bear", "zebra", "giraffe", "backpack", "umbrella", "suitcase", "frisbee", "snowboard", "kite", "skateboard"),
    *("surfboard", "tennis racket", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "sofa", "potted plant", "bed"),
    *("dining table", "toilet", "television", "laptop", "keyboard", "cell phone", "microwave", "oven", "toaster"),
    *("sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair dryer", "toothbrush"),
    *("bathtub", "bookshelf", "curtain", "pillow", "lamp", "mirror", "piano", "guitar", "violin", "drum kit"),
    *("tent", "ladder", "wheelbarrow", "lawn mower", "windmill", "lighthouse", "fountain", "statue", "bridge"),
    *("tower", "fence", "tree", "waterfall", "mountain", "snowman", "helicopter", "tractor", "crane", "rocket"),
    *("dinosaur", "penguin", "kangaroo", "octopus", "butterfly", "snail", "pumpkin", "pineapple", "watermelon"),
    *("hammer", "screwdriver", "drill", "paintbrush", "telescope", "microscope", "globe", "trophy", "candle"),
)
"""Classes a prompt may ask for in vain."""

_AMBIGUOUS = ("object", "thing", "item", *SALIENT_CATEGORIES)


PARTS: Mapping[str, tuple[str, ...]] = {
    "bookcase": ("book",),
    "bookshelf": ("book",),
    "shelf": ("book", "vase", "bowl"),
    "desk": ("book", "keyboard", "lamp"),
    "bed": ("pillow",),
    "futon": ("pillow",),
    "sofa": ("pillow",),
    "computer": ("keyboard", "television"),
    "laptop": ("keyboard",),
    "piano": ("keyboard",),
    "island": ("sink", "oven"),
    "cabinet": ("sink", "mirror"),
    "wardrobe": ("mirror",),
    "stove": ("oven",),
    "fruit": ("apple", "banana", "pineapple", "watermelon"),
    "apples": ("apple",),
    "cake": ("candle",),
    "lantern": ("candle",),
    "fireplace": ("candle", "clock"),
    "picture": ("person", "tree", "mountain", "boat", "bird"),
    "frame": ("person", "mirror"),
    "playground": ("ladder",),
    "slide": ("ladder",),
    "building": ("tower", "clock"),
    "ground": ("tree", "mountain"),
    "helmet": ("bicycle",),
}
"""What may be seen on, in or as a part of something without being an object of its own in the sample."""


def spoken(category: str) -> str:
    """Return a category as it is said: underscores and doubled spaces become one space."""
    return " ".join(category.replace("_", " ").split())


def absent_categories(
    present: Collection[str], count: int, rng: np.random.Generator, vocabulary: Collection[str] = VOCABULARY
) -> tuple[str, ...]:
    """Draw classes that are surely not in a picture: no synonym of what is there, no common word, no likely part.

    Args:
        present: every category of a picture in which every object is known.
        count: how many; fewer come back when the vocabulary has no more.
    """
    if any(category in _AMBIGUOUS for category in present):
        return ()
    words = {word for category in present for word in spoken(category).lower().split()}
    parts = {part for word in words for part in PARTS.get(word, ())}
    free = [
        candidate
        for candidate in vocabulary
        if not words & set(candidate.split())
        and candidate not in parts
        and all(category_match(candidate, c) == NO for c in present)
    ]
    return tuple(shuffled(free, rng)[:count])


def draw_class_word(name: str, rng: np.random.Generator) -> str:
    """Return a class as a prompt calls it: the main subject by any of its words, others by their name."""
    return one_of(SALIENT_WORDS, rng) if name in SALIENT_CATEGORIES else name


def present_instances(sample: Sample) -> list[Instance]:
    """Return the instances with at least one pixel."""
    if sample.instance_ids is None:
        return []
    pixels = np.bincount(sample.instance_ids.reshape(-1), minlength=65536)
    return [instance for instance in sample.instances if pixels[instance.id]]


def classes_of(sample: Sample) -> dict[str, tuple[int, ...]]:
    """Return class name to the ids of its visible instances."""
    classes: dict[str, tuple[int, ...]] = {}
    for instance in present_instances(sample):
        name = spoken(instance.category)
        classes[name] = (*classes.get(name, ()), instance.id)
    return classes


def countable_classes(sample: Sample) -> dict[str, tuple[int, ...]]:
    """Return the classes of things, without those another class of the picture could be meant by, to their ids."""
    things = {spoken(instance.category) for instance in sample.instances if instance.is_thing}
    everything = {spoken(instance.category) for instance in sample.instances}
    return {
        name: ids
        for name, ids in classes_of(sample).items()
        if name in things
        and len(ids) <= MAX_INSTANCES
        and all(category_match(name, other) == NO for other in everything - {name})
    }


def salient_instance(sample: Sample) -> Instance | None:
    """Return the one instance of a photo whose main subject is all that is known of it."""
    present = present_instances(sample)
    return present[0] if len(present) == 1 and present[0].category in SALIENT_CATEGORIES else None


def main_subject(sample: Sample) -> Instance | None:
    """Return the instance that facts["main_subject"] names."""
    named = sample.facts.get("main_subject")
    return next((instance for instance in present_instances(sample) if instance.id == named), None)


def complete_classes(sample: Sample) -> tuple[str, ...]:
    """Return the classes of which a sample that is not exhaustive has all."""
    return tuple(sample.facts.get("complete", ()))


def knows_absence(sample: Sample) -> bool:
    """Tell whether it is known of some class that it is not in the picture."""
    return sample.exhaustive or bool(sample.facts.get("absent"))


def draw_absent(sample: Sample, count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw classes that are not in the picture: any of the vocabulary when every object is known, else such as the
    sample says are absent."""
    present = [instance.category for instance in sample.instances]
    if sample.exhaustive:
        return absent_categories(present, count, rng)
    named = [category for category in present if category not in SALIENT_CATEGORIES]
    return absent_categories(named, count, rng, sample.facts["absent"])
