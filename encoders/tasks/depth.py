"""Metric depth: drawn with the cube walk, or in a color map over a range that the prompt names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.codecs.colormaps import (
    COLORMAPS,
    ColormapCodec,
    colormap_codec,
    decode_colormap,
    encode_colormap,
)
from cavendish.encoders.codecs.depth import CUBE_WALK, DecodedDepth, decode_depth, depth_codec, encode_depth
from cavendish.encoders.draws import one_of
from cavendish.encoders.sample import Sample, UInt8Image
from cavendish.encoders.tasks.task import (
    Instruction,
    Options,
    Question,
    Task,
    draw_wording,
    pass_rng,
    read_field,
    word_question,
)

COLORMAP_PROBABILITY = 0.25
"""How often depth is drawn with a color map named in the prompt, rather than with the cube walk."""

MIN_KNOWN_SHARE = 0.5
"""A sample needs this share of pixels whose depth is not NaN."""


class DepthTask(Task):
    """Planar depth in meters."""

    name = "depth"
    fields = ("depth_m", "weight")
    hub_category = "depth-estimation"
    usage = "depth"

    def serves(self, sample: Sample) -> bool:
        """Tell whether half of the depth is known, and some of it finite."""
        depth_m = sample.depth_m
        return depth_m is not None and bool(
            (~np.isnan(depth_m)).mean() >= MIN_KNOWN_SHARE and np.isfinite(depth_m).mean() >= 0.01
        )

    def make(self, sample: Sample, rng: np.random.Generator, options: Options) -> Instruction:
        """Draw with the cube walk, or in a color map with a range that holds the depths."""
        depth_m = sample.depth_m
        assert depth_m is not None
        shares = options.colormap_shares
        chance = COLORMAP_PROBABILITY if shares is None else sum(shares.values())
        if rng.random() >= chance:
            return Instruction(draw_wording(DEPTH, {}, rng), encode_depth(depth_m), {"codec": CUBE_WALK.id})
        near_m, far_m = _depth_range(depth_m, rng)
        if shares is None:
            name = one_of(COLORMAPS, rng)
        else:
            names = [name for name in COLORMAPS if shares.get(name, 0) > 0]
            name = names[int(rng.choice(len(names), p=[shares[name] / chance for name in names]))]
        codec = ColormapCodec(name, near_m, far_m)
        unit = one_of((" m", " m", " meters", "m", " metres"), rng)
        slots = {"colormap": codec.name, "near": f"{near_m:g}{unit}", "far": f"{far_m:g}{unit}"}
        prompt = draw_wording(DEPTH_COLORMAP, slots, rng)
        return Instruction(prompt, encode_colormap(depth_m, codec), {"codec": codec.id})

    def decode(self, spec: Mapping[str, Any], rgb_u8: UInt8Image) -> DecodedDepth:
        codec = read_field(spec, "codec", str)
        if codec.startswith("cube-walk/"):
            return decode_depth(rgb_u8, codec=depth_codec(codec))
        return decode_colormap(rgb_u8, colormap_codec(codec))

    def ask_again(self, spec: Mapping[str, Any], pass_number: int) -> Question:
        """Ask in other words, always for the cube walk."""
        prompt = word_question(DEPTH, {}, pass_rng(pass_number), pass_number)
        return Question(prompt, {"task": self.name, "codec": CUBE_WALK.id})


def _depth_range(depth_m: NDArray[np.float32], rng: np.random.Generator) -> tuple[float, float]:
    """Return round limits that hold every finite depth, or all but the farthest 5 %."""
    finite = depth_m[np.isfinite(depth_m)]
    low, high = float(finite.min()), float(np.quantile(finite, one_of((0.95, 1.0, 1.0), rng)))
    step = 10.0 ** np.floor(np.log10(max(high, 0.1)))
    far_m = float(np.ceil(high / step * 2 + 1e-6) * step / 2)
    near_m = float(np.floor(low / step * 10) * step / 10) if rng.random() < 0.5 else 0.0
    return round(near_m, 6), round(max(far_m, near_m + step / 2), 6)


# How people ask. A prompt for the cube walk says no more than that; a color map and its range have slots in every line.
DEPTH = (
    "[Generate|Create|Produce] a metric depth map of this [image|photo|picture].",
    "[Estimate|Predict] the metric depth of [this image|this scene|every pixel].",
    "Depth map[, please|].",
    "Metric depth[.|]",
    "[Draw|Render|Paint] this scene as a depth map in metric colors.",
    "How far away is everything in this [picture|photo]? [Draw|Show] it as a depth map.",
    "Turn this [photo|image] into a metric depth map.",
    "[Convert|Translate] the [image|picture] to depth.",
    "Show me the distance of every pixel from the camera as a depth image.",
    "Please [make|give me] a depth map of this scene, in absolute distances.",
    "Can you [estimate|work out] the depth here and draw it in color?",
    "Compute a dense metric depth map from this single image.",
    "[Visualize|Visualise] the metric depth of the scene.",
    "I need the depth of this [image|photo|scene]. Use the standard depth colors.",
    "Monocular depth estimation: encode the [distance|depth in meters] of each pixel as a color.",
    "Depth estimation[, metric|].",
    "For each pixel, [paint|draw] the color that stands for its depth in metres.",
    "Replace every pixel with its depth color.",
    "Draw how far each surface is from the camera, in real-world units.",
    "Give the scene's geometry as a metric depth image.",
    "[Make|Draw] a color-coded depth map, near surfaces starting at black and the far end in white.",
    "Depth map in the cube-walk colors: black, red, yellow, green, cyan, blue, magenta, white from near to far.",
    "Where is near and where is far? [Answer|Reply] with a metric depth map.",
    "what's the depth of this scene? draw it",
    "depth map pls",
    "can you do a metric depth map of this",
    "Output only a metric depth map of the input.",
    "Task: metric depth. Input: this image. Output: the depth map.",
    "From this photograph, infer how many metres away each point is and paint that as a depth map.",
    "I'd like to measure distances in this [room|scene|picture]. Please draw its depth map for me.",
    "Imagine a depth camera took this picture. [Draw|Show] what it would have recorded.",
    "What would a range sensor see here? Render it as metric depth.",
    "Recover the 3D layout of this image as a depth map.",
    "Reconstruct the depth [behind|of] this photograph, in meters, color-coded as usual.",
    "Give me pixelwise depth in metres, encoded in RGB.",
    "Repaint the picture so that color means distance along the camera axis.",
    "Every color should tell the planar depth of what is there. Nothing else.",
    "Please estimate absolute depth (not relative) and return it as an image.",
    "A metric depth map, same size and framing as the input.",
    "Keep the framing and show depth instead of [appearance|color and texture].",
    "Infer metric depth from monocular cues and visualize it.",
    "Distance map of this image, in metres.",
    "Do depth estimation on this [frame|image|photo].",
    "Make the depth visible: one color per distance.",
)

DEPTH_COLORMAP = (
    "[Generate|Create|Produce] a depth map of this [image|photo] with the {colormap} color map from {near} to {far}.",
    "[Estimate|Predict] the depth of this [image|scene]. Color map: {colormap}, range {near} to {far}.",
    "Depth map, {colormap}, {near} to {far}[, please|].",
    "{colormap} depth map, {near} to {far}",
    "Draw the depth of this scene in {colormap}; the color map starts at {near} and ends at {far}.",
    "How far away is everything? Use the {colormap} colormap, with {near} at its start and {far} at its end.",
    "Turn this [photo|image] into a depth map using {colormap} colors between {near} and {far}.",
    "Convert the image to depth ({colormap}, {near} to {far}).",
    "Show the distance of every pixel with the {colormap} palette, scaled from {near} to {far}.",
    "Please make a depth map in the {colormap} color scheme. The nearest value is {near}, the farthest {far}.",
    "Can you draw the depth in {colormap}? Let the range go from {near} to {far}.",
    "Compute dense metric depth and apply the {colormap} colormap over the range {near} to {far}.",
    "[Visualize|Visualise] the depth with {colormap}, clipped to {near} to {far}.",
    "I need the depth of this picture as a {colormap} image. Scale: {near} to {far}.",
    "Monocular depth estimation. Encode it linearly with {colormap}, low end {near}, high end {far}.",
    "Depth estimation with matplotlib's {colormap} colormap, vmin {near}, vmax {far}.",
    "For each pixel, paint the {colormap} color of its depth, where the map runs from {near} to {far}.",
    "Replace every pixel with its depth in {colormap}, from {near} up to {far}.",
    "Draw how far each surface is from the camera. Colors: {colormap}. Limits: {near} and {far}.",
    "Give the scene's geometry as a depth image in {colormap} with limits {near} and {far}.",
    "[Make|Draw] a color-coded depth map: {colormap}, where the first color is {near} and the last is {far}.",
    "Where is near and where is far? Answer with a {colormap} depth map spanning {near} to {far}.",
    "what's the depth of this scene? draw it with {colormap}, {near} to {far}",
    "depth map pls, {colormap} from {near} to {far}",
    "can you do a {colormap} depth map of this, {near} to {far}",
    "Output only a depth map of the input in {colormap}, {near} through {far}.",
    "Task: depth. Color map: {colormap}. Near: {near}. Far: {far}.",
    "From this photograph, infer how far each point is and paint it in {colormap}, going from {near} to {far}.",
    "I'd like to measure distances here. Draw the depth in {colormap} between {near} and {far}.",
    "Imagine a depth camera with a range of {near} to {far}. Show its picture in {colormap}.",
    "What would a range sensor see between {near} and {far}? Use {colormap}.",
    "Recover the 3D layout as a {colormap} depth map, {near} at one end and {far} at the other.",
    "Reconstruct the depth behind this photograph and color it with {colormap} ({near} to {far}).",
    "Pixelwise depth, {colormap}, from {near} to {far}; anything farther gets the last color.",
    "Repaint the picture so that color means distance: {colormap}, {near} to {far}, linear.",
    "Depth from {near} to {far}, shown in {colormap}.",
    "Please estimate depth and return it with {colormap}, minimum {near}, maximum {far}.",
    "A {colormap}-colored depth map with the same framing as the input, covering {near} to {far}.",
    "Keep the framing and show depth in {colormap} instead of appearance, over {near} to {far}.",
    "Infer depth and visualize it in {colormap}; {near} maps to the low end and {far} to the high end.",
    "Distance map of this image, {colormap}, {near} to {far}.",
    "Do depth estimation on this frame. Use {colormap} with a range of {near} to {far}.",
    "Make the depth visible with {colormap}, spreading the colors over {near} to {far}.",
    "Linear depth, {near} to {far}, {colormap} colors[.|, thanks.]",
)

TASK = DepthTask()
