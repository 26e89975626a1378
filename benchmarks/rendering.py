"""What rendering costs: beside BlenderProc and a plain bpy script, by stage, by setting, and in memory.

    python benchmarks/rendering.py frames SCRATCH [--peer PYTHON BLENDERPROC_DIR] [--sizes 256 512] [--scenes 6]
    python benchmarks/rendering.py stages SCRATCH      # import, build, sync, sample, denoise, read-back, encode
    python benchmarks/rendering.py quality SCRATCH     # noise by samples and denoiser
    python benchmarks/rendering.py overhead SCRATCH    # the job beside a bare loop
    python benchmarks/rendering.py memory SCRATCH [--engine pyrender|blender] [--scenes 500]

All figures are CPU seconds of one thread: wall time would be that of a busy machine. The peers (rendering_peers.py) get
our finished scenes as .blend files, the cheapest they can load, at the same samples: drawing a scene, reading its
models and checking it costs them nothing. PYTHON has bpy 4.5 and what BlenderProc asks for; BLENDERPROC_DIR is a
checkout of it (its PyPI wheel cannot use an installed bpy).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cavendish.encoders.sample import Sample
from cavendish.mixing.shards.reader import read_dataset
from cavendish.mixing.shards.sample_format import sample_parts
from cavendish.render import job, views
from cavendish.render.engines.child import encode_answer, load_engine
from cavendish.render.job import RenderConfig, close_workers, render

SAMPLES = 8
THREADS = ("OMP_NUM_THREADS", "LP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def config_of(engine: str, size: int, scenes: int, **more: Any) -> RenderConfig:
    values = {"engine": engine, "seed": 77, "scenes": scenes, "scenes_per_shard": scenes, "samples": SAMPLES}
    return RenderConfig.model_validate({**values, "width": size, "height": size, "edits": 0, **more})


def bare_loop(config: RenderConfig, paint: Callable[..., Any]) -> Iterator[Sample]:
    """Make the samples of a job in this process, with nothing around them."""
    maker = views.ViewMaker(config, paint, {})
    for shard in range(-(-config.scenes // config.scenes_per_shard)):
        for made in job.make_views(config, shard, partial(maker.make, own={})):
            if isinstance(made, Sample):
                yield made


def write_tar(samples: Iterator[Sample], path: Path) -> int:
    """Write samples the way a plain script would."""
    count = 0
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            for name, data in sample_parts(sample).items():
                entry = tarfile.TarInfo(f"{sample.key}.{name}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
            count += 1
    return count


def frames(scratch: Path, sizes: list[int], scenes: int, peer: list[str]) -> None:
    """Print frames per CPU minute of ours and of the peers, on the same scenes (4 views: of half of them)."""
    for size in sizes:
        folder = scratch / f"scenes-{size}"
        folder.mkdir(parents=True, exist_ok=True)
        _run("export", folder, size, scenes, sys.executable)
        rows = {
            "ours, Blender": _run("bare", folder, size, scenes, sys.executable, "blender"),
            "ours, Blender, 4 views of a scene": _run(
                "views", folder, size, -(-scenes // 2), sys.executable, "blender"
            ),
            "ours, Blender, half the samples": _run("half", folder, size, scenes, sys.executable, "blender"),
            "ours, pyrender": _run("bare", folder, size, scenes, sys.executable, "pyrender"),
        }
        script = str(Path(__file__).with_name("rendering_peers.py"))
        if peer:
            for name in ("bpy", "blenderproc", "blenderproc-equal"):
                words = [peer[0], script, name, str(folder), str(size), str(SAMPLES), peer[1]]
                rows[f"peer: {name}"] = json.loads(subprocess.check_output(words, text=True).splitlines()[-1])
        print(f"\n{size} x {size}, {SAMPLES} samples, {scenes} scenes")
        print(f"{'':36} CPU s a frame, of it making the scene, frames a CPU minute, the same from finished scenes")
        for name, row in rows.items():
            each, made = row["cpu_s"] / row["frames"], row["making_s"] / row["frames"]
            print(f"{name:36} {each:7.2f} {made:7.2f} {60 / each:7.1f} {60 / (each - made):7.1f}", flush=True)


def _run(what: str, folder: Path, size: int, scenes: int, python: str, engine: str = "blender") -> dict[str, float]:
    """Run one measurement in a process of its own."""
    words = [python, __file__, f"_{what}", str(folder), str(size), str(scenes), engine]
    result: dict[str, float] = json.loads(subprocess.check_output(words, text=True).splitlines()[-1])
    return result


def _measure(what: str, folder: Path, size: int, scenes: int, engine: str) -> dict[str, float]:
    per_scene = 4 if what == "views" else 1
    samples = SAMPLES // 2 if what == "half" else SAMPLES
    config = config_of(engine, size, scenes, views_per_scene=per_scene, samples=samples)
    paint, _ = load_engine(config)
    making: dict[str, float] = {}
    _time_calls(views, "draw_recipe", making, "making")
    _time_calls(views, "build_scene", making, "making")
    start_s = time.process_time()
    if what == "export":
        import bpy

        def paint_and_save(recipe: Any, scene: Any, truth: Any) -> Any:
            picture = paint(recipe, scene, truth)
            saved.append((recipe, picture))
            for image in bpy.data.images:
                image.pack()
            for thing in bpy.data.objects:
                thing["category_id"] = thing.pass_index
            bpy.ops.wm.save_as_mainfile(filepath=str(folder / f"{len(saved) - 1:03d}.blend"), copy=True, compress=False)
            return picture

        saved: list[Any] = []
        kept = sum(1 for _ in bare_loop(config, paint_and_save))
        return {"frames": kept}
    count = write_tar(bare_loop(config, paint), folder / f"{engine}-{what}.tar")
    return {"frames": count, "cpu_s": time.process_time() - start_s, "making_s": making["making"]}


def stages(scratch: Path) -> None:
    """Print where the CPU time of a Blender view goes."""
    begun = time.process_time()
    import bpy

    spent: dict[str, float] = {"import bpy, once": time.process_time() - begun}
    from cavendish.render.engines import blender

    size, count = 256, 6
    _time_calls(views, "draw_recipe", spent, "draw the recipe")
    _time_calls(views, "build_scene", spent, "build meshes and textures")
    _time_calls(views, "cast_scene", spent, "cast the labels")
    _time_calls(views, "check_view", spent, "check the view")
    _time_calls(views, "find_instances", spent, "read the facts")
    _time_calls(blender.Cycles, "_stand", spent, "bring the scene to Blender")
    _time_calls(blender.Cycles, "_render", spent, "render (sample, denoise, read back)")
    _time_calls(blender, "_read_channels", spent, "of it: read back the EXR")
    engine = blender.Cycles(size, size, SAMPLES)
    fixed: dict[str, list[float]] = {"sync and trees": [], "denoise": []}

    def paint_and_split(recipe: Any, scene: Any, truth: Any) -> Any:
        engine._stand(recipe, scene)
        fixed["sync and trees"].append(_render_cost(bpy, samples=1, percent=4, denoise=False))
        picture = engine.paint(recipe, scene, truth)  # the trees are there already
        with_it, without = (_render_cost(bpy, samples=1, percent=100, denoise=on) for on in (True, False))
        fixed["denoise"].append(with_it - without)
        return picture

    start = time.process_time()
    samples = list(bare_loop(config_of("blender", size, count), paint_and_split))
    total = time.process_time() - start
    start = time.process_time()
    written = [sample_parts(sample) for sample in samples]
    spent["encode to PNG and json"] = time.process_time() - start
    del written
    print(
        f"{len(samples)} views of {size} x {size} at {SAMPLES} samples; CPU s a view ({total:.0f} s with the splitting)"
    )
    for label, seconds in spent.items():
        print(f"{label:44} {seconds / (1 if 'once' in label else len(samples)):7.3f}")
    for label, values in fixed.items():
        print(f"{'of it or besides: ' + label:44} {np.median(values):7.3f}")


def _time_calls(module: Any, name: str, spent: dict[str, float], label: str) -> None:
    """Add the CPU time of all calls of a function to `spent`."""
    function = getattr(module, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[label] = spent.get(label, 0.0) + time.process_time() - start

    setattr(module, name, wrapper)


def _render_cost(bpy: Any, samples: int, percent: int, denoise: bool) -> float:
    render, cycles = bpy.context.scene.render, bpy.context.scene.cycles
    saved = render.resolution_percentage, cycles.samples, cycles.use_denoising
    render.resolution_percentage, cycles.samples, cycles.use_denoising = percent, samples, denoise
    start = time.process_time()
    bpy.ops.render.render(write_still=False)
    cost = time.process_time() - start
    render.resolution_percentage, cycles.samples, cycles.use_denoising = saved
    return cost


def quality(scratch: Path, scenes: int) -> None:
    """Print PSNR against 256 samples without denoiser, and CPU seconds, by samples and denoiser."""
    import bpy

    from cavendish.render.camera.sensor import develop, find_exposure
    from cavendish.render.engines.blender import Cycles

    size = 128
    engine = Cycles(size, size, SAMPLES)
    modes = [("none", "", ""), ("fast", "FAST", "FAST"), ("balanced", "BALANCED", "FAST"), ("high", "HIGH", "FAST"),
             ("high, accurate prefilter", "HIGH", "ACCURATE")]  # fmt: skip
    table: dict[tuple[str, int], list[tuple[float, float]]] = {}

    def paint(recipe: Any, scene: Any, truth: Any) -> Any:
        picture = engine.paint(recipe, scene, truth)
        cycles = bpy.context.scene.cycles
        saved = cycles.samples, cycles.denoising_quality, cycles.denoising_prefilter
        # with data kept between renders, Cycles does not notice another number of samples
        bpy.context.scene.render.use_persistent_data = False

        def shoot(samples: int, quality: str, prefilter: str, seed: int) -> tuple[Any, float]:
            cycles.samples, cycles.use_denoising, cycles.seed = samples, bool(quality), seed
            if quality:
                cycles.denoising_quality, cycles.denoising_prefilter = quality, prefilter
            start = time.process_time()
            channels = engine._render()
            return np.stack([channels[f"Combined.{c}"] for c in "RGB"], axis=-1), time.process_time() - start

        light, _ = shoot(256, "", "", 5)
        exposure = find_exposure(light)
        reference = develop(light, exposure).astype(float)

        def score(name: str, samples: int, quality: str, prefilter: str) -> None:
            light, cost = shoot(samples, quality, prefilter, 0)
            error = np.mean((develop(light, exposure) - reference) ** 2)
            table.setdefault((name, samples), []).append((10 * np.log10(255**2 / error), cost))

        for name, quality, prefilter in modes:
            for samples in (2, 4, 8, 16):
                score(name, samples, quality, prefilter)
        bounces = cycles.max_bounces, cycles.glossy_bounces, cycles.transmission_bounces
        cycles.max_bounces, cycles.glossy_bounces, cycles.transmission_bounces = 3, 0, 0
        score("as BlenderProc does", SAMPLES, "HIGH", "ACCURATE")
        cycles.max_bounces, cycles.glossy_bounces, cycles.transmission_bounces = bounces
        cycles.samples, cycles.denoising_quality, cycles.denoising_prefilter = saved
        cycles.use_denoising, cycles.seed = True, 0
        return picture

    count = sum(1 for _ in bare_loop(config_of("blender", size, scenes), paint))
    print(f"{count} scenes of {size} x {size}: PSNR (dB) and CPU s of the render call, means")
    for (name, samples), values in table.items():
        psnr, cost = np.mean(values, axis=0)
        print(f"{name:26} {samples:3d} samples {psnr:6.1f} dB {cost:6.2f} s")


def overhead(scratch: Path) -> None:
    """Print what the job costs beside the making and encoding of its samples."""
    for engine, size, scenes in (("pyrender", 256, 12), ("blender", 256, 6)):
        render(config_of(engine, size, 1, seed=5), scratch / f"warm-{engine}")  # imports, the pipeline's first run
        config = config_of(engine, size, scenes)
        worker = job._renderer(config)
        assert worker._process is not None
        child = psutil.Process(worker._process.pid)
        parent_s, child_s = time.process_time(), sum(child.cpu_times()[:2])
        saved, job.close_workers = job.close_workers, lambda: None
        render(config, scratch / f"job-{engine}")
        job.close_workers = saved
        parent_s, child_s = time.process_time() - parent_s, sum(child.cpu_times()[:2]) - child_s
        close_workers()
        samples = [record for record in read_dataset(scratch / f"job-{engine}") if isinstance(record, Sample)]
        start = time.process_time()
        for sample in samples:
            sample_parts(sample)
        encode_s = time.process_time() - start
        start = time.process_time()
        for sample in samples:
            encode_answer(sample)
        pack_s = time.process_time() - start
        useful = child_s - pack_s + encode_s
        extra = parent_s - encode_s + pack_s
        print(
            f"{engine} {size} px, {len(samples)} samples: child {child_s:.2f}, parent {parent_s:.2f} (encoding "
            f"{encode_s:.2f}) CPU s: {extra / len(samples):.3f} s a sample around it, {extra / useful:.1%}"
        )


def memory(scratch: Path, engine: str, scenes: int) -> None:
    """Print the resident memory of one worker's process over many scenes, and its slope in the second half."""
    size, more = (80, {"max_model_kb": 400}) if engine == "pyrender" else (64, {"samples": 1, "max_model_kb": 400})
    config = config_of(engine, size, scenes, scenes_per_shard=12, **more)
    paint, _ = load_engine(config)
    process, sizes = psutil.Process(), []
    for number, _sample in enumerate(bare_loop(config, paint)):
        sizes.append(process.memory_info().rss / 1e6)
        if (number + 1) % 50 == 0:
            print(f"{number + 1:5d} scenes {sizes[-1]:7.0f} MB", flush=True)
    half = np.array(sizes[len(sizes) // 2 :])
    slope = np.polyfit(np.arange(len(half)), half, 1)[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{engine}: {slope * 100:+.1f} MB per 100 scenes over the second half; highest {peak:.0f} MB")


def main() -> None:
    if os.environ.get(THREADS[0]) != "1":  # read when numpy is imported: start again
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **dict.fromkeys(THREADS, "1")})
    if len(sys.argv) > 1 and sys.argv[1].startswith("_"):
        what, folder, size, scenes, engine = sys.argv[1:6]
        print(json.dumps(_measure(what[1:], Path(folder), int(size), int(scenes), engine)), flush=True)
        os._exit(0)  # bpy can crash while the interpreter tears it down
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["frames", "stages", "quality", "overhead", "memory"])
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--peer", nargs=2, default=[], metavar=("PYTHON", "BLENDERPROC_DIR"))
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--scenes", type=int)
    parser.add_argument("--engine", choices=["pyrender", "blender"], default="pyrender")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    match arguments.what:
        case "frames":
            frames(arguments.scratch, arguments.sizes, arguments.scenes or 6, arguments.peer)
        case "memory":
            memory(arguments.scratch, arguments.engine, arguments.scenes or 500)
        case "stages":
            stages(arguments.scratch)
        case "quality":
            quality(arguments.scratch, arguments.scenes or 5)
        case "overhead":
            overhead(arguments.scratch)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
