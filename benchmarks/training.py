"""A training step beside diffusers' own script, the trainer's overhead, and the time it waits for data.

    python benchmarks/training.py SCRATCH [--script PATH] [--compile] [--steps 60]     about five minutes

`steps`: CPU time of a LoRA step (rank 4, batch 4, 64 pixels, one thread) on a tiny random FLUX.2 Klein, the contenders
taking turns step by step in one process. The peer is a plain loop that does, with diffusers' public classes and
accelerate, what examples/dreambooth/train_dreambooth_lora_flux2_klein_img2img.py of diffusers does with latents and
text cached in memory; with --script PATH that file itself runs too (its torchvision and datasets imports are replaced
by a few functions). Ours reads and checks its examples in the same process, where they count, and keeps an average of
the weights, which the script does not; `cached` has text and latents from disk, `uncached` encodes them in the step.
`overhead`: CPU time of the trainer's process that is not in the forward pass with its loss, the backward pass, clipping
or the optimiser, reading in a worker process as always. `stall`: wall time the loop waits for a batch, beside all.
Runs in the checkout: the tiny model and the scenes are those of the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "TQDM_DISABLE": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from peft import LoraConfig
from PIL import Image

import cavendish.trainer.training.step as step_module
import cavendish.trainer.training.train as train_module
from cavendish.encoders.sample import Example
from cavendish.mixing.jobs.encode import EncodeConfig, encode
from cavendish.mixing.lock import write_lock
from cavendish.mixing.mixture.config import Mixture
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.mixing.shards.reader import read_dataset
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.precompute import precompute
from cavendish.trainer.training.train import open_mixture, train
from tests.shard_folder import write_shards
from tests.trainer.scenes import analytic_sample
from tests.trainer.tiny_models import TEXT_TOKENS, write_klein

SIZE, BATCH, RANK, SCENES, WARM = 64, 4, 4, 32, 5
TARGETS = [
    *("to_k", "to_q", "to_v", "to_out.0", "to_qkv_mlp_proj"),
    *(f"single_transformer_blocks.{block}.attn.to_out" for block in range(24)),
]
"""The layers that the script's LoRA changes unless told otherwise."""

Tick = Callable[[], None]


def prepare(scratch: Path) -> list[Example]:
    """Write the tiny model, frozen shards of depth and normals of analytic scenes, and their lock."""
    if not (scratch / "mixture.lock").exists():
        write_klein(scratch / "klein")
        write_shards(scratch / "raw", (analytic_sample(f"scene-{k}", k, SIZE) for k in range(SCENES)))
        settings = {"sources": ["raw"], "tasks": {"depth": 1, "normals": 1}, "size": SIZE}
        encode(EncodeConfig.model_validate(settings), scratch / "frozen", data=scratch)
        for name, source in (("mixture", {"path": "frozen"}), ("drawn", {"path": "raw", "tasks": TASKS})):
            mixture = Mixture.model_validate({"ratios": {"vision": "rest"}, "sources": {"scenes": source}})
            write_lock(scratch / f"{name}.lock", lock_mixture(mixture, scratch))
    return [record for record in read_dataset(scratch / "frozen") if isinstance(record, Example)]


TASKS = {"depth": 1, "normals": 1, "semantic": 1}


class Turns:
    """Runs a function in a thread, up to its next tick at a time, so that several can take turns step by step."""

    def __init__(self, function: Callable[[Tick], None]) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._ended = False

        def body() -> None:
            self._go.acquire()
            try:
                function(self._tick)
            finally:
                self._ended = True
                self._done.release()

        threading.Thread(target=body, daemon=True).start()

    def _tick(self) -> None:
        self._done.release()
        self._go.acquire()

    def step(self) -> float:
        """Let it take a step; return the CPU seconds of this process."""
        start = time.process_time()
        self._go.release()
        if not self._done.acquire(timeout=3000):
            raise RuntimeError("a contender takes no step")
        if self._ended:
            raise RuntimeError("a contender ended early; its error is above")
        return time.process_time() - start


def config_of(steps: int, **values: Any) -> TrainConfig:
    settings = {"lock": "mixture.lock", "base": "klein", "size": SIZE, "batch": BATCH, "steps": steps, "threads": 1}
    settings |= {"lora": {"rank": RANK, "alpha": RANK, "targets": TARGETS}, "learning_rate": 1e-4, "workers": 0}
    return TrainConfig.model_validate({**settings, "checkpoint_every": 10_000, **values})


def ours(scratch: Path, name: str, config: TrainConfig, tick: Tick) -> None:
    """Train for real, checkpoints and logging included."""
    out = scratch / "runs" / f"{name}-{os.getpid()}"
    train(config, out, scratch, lambda done, planned: tick())


def peer(scratch: Path, examples: list[Example], steps: int, tick: Tick) -> None:
    """Take the steps of the script in the plainest way: what it caches is cached in memory."""
    folder = scratch / "klein"
    accelerator = Accelerator(gradient_accumulation_steps=1)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    vae = AutoencoderKLFlux2.from_pretrained(folder / "vae").requires_grad_(False)
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    transformer = Flux2Transformer2DModel.from_pretrained(folder / "transformer").requires_grad_(False)
    settings = {"r": RANK, "lora_alpha": RANK, "init_lora_weights": "gaussian", "target_modules": TARGETS}
    transformer.add_adapter(LoraConfig(**settings))
    parameters = [p for p in transformer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-4)
    rates = get_scheduler("constant", optimizer=optimizer)
    batches = list(cached_batches(folder, vae, examples))
    transformer, optimizer, rates = accelerator.prepare(transformer, optimizer, rates)
    transformer.train()
    for step in range(steps):
        target, source, text, text_ids = batches[step % len(batches)]
        with accelerator.accumulate([transformer]):
            clean, reference = (
                (Flux2KleinPipeline._patchify_latents(latent.mode()) - mean) / std for latent in (target, source)
            )
            ids = Flux2KleinPipeline._prepare_latent_ids(clean)
            reference_ids = Flux2KleinPipeline._prepare_image_ids([reference[:1]]).expand(len(clean), -1, -1)
            noise = torch.randn_like(clean)
            u = compute_density_for_timestep_sampling("none", len(clean), 0.0, 1.0, 1.29)
            levels = scheduler.timesteps[(u * scheduler.config.num_train_timesteps).long()]
            rows = [(scheduler.timesteps == level).nonzero().item() for level in levels]
            sigmas = scheduler.sigmas[rows].view(-1, 1, 1, 1)
            noisy = Flux2KleinPipeline._pack_latents((1 - sigmas) * clean + sigmas * noise)
            predicted = transformer(
                hidden_states=torch.cat([noisy, Flux2KleinPipeline._pack_latents(reference)], dim=1),
                timestep=levels / 1000,
                guidance=None,
                encoder_hidden_states=text,
                txt_ids=text_ids,
                img_ids=torch.cat([ids, reference_ids], dim=1),
                return_dict=False,
            )[0][:, : noisy.shape[1]]
            predicted = Flux2KleinPipeline._unpack_latents_with_ids(predicted, ids)
            weight = compute_loss_weighting_for_sd3("none", sigmas).float()
            errors = weight * (predicted.float() - (noise - clean).float()) ** 2
            loss = errors.reshape(len(clean), -1).mean(1).mean()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(transformer.parameters(), 1.0)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
        accelerator.log({"loss": loss.detach().item(), "lr": rates.get_last_lr()[0]}, step=step)
        tick()


def cached_batches(folder: Path, vae: Any, examples: list[Example]) -> Iterator[tuple[Any, ...]]:
    """Yield target and source latents, text and its positions of each batch."""
    pipeline = Flux2KleinPipeline.from_pretrained(folder, vae=None, transformer=None, local_files_only=True)
    for start in range(0, len(examples) - BATCH + 1, BATCH):
        part = examples[start : start + BATCH]
        with torch.no_grad():
            latents = [
                vae.encode(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
                for pictures in ([e.target for e in part], [e.source for e in part if e.source is not None])
            ]
            text = pipeline.encode_prompt(prompt=[e.prompt for e in part], max_sequence_length=TEXT_TOKENS)
        yield (*latents, *text)


def script(path: Path, scratch: Path, examples: list[Example], steps: int, tick: Tick) -> None:
    """Run diffusers' file itself; it ticks where it logs a step."""
    sys.modules |= stand_ins(examples)
    Accelerator.init_trackers = lambda self, *_, **__: None
    mine, plain = threading.get_ident(), Accelerator.log

    def log(self: Accelerator, *values: Any, **named: Any) -> None:
        plain(self, *values, **named)
        if threading.get_ident() == mine:
            tick()

    Accelerator.log = log
    flags = {"pretrained_model_name_or_path": scratch / "klein", "dataset_name": "examples", "image_column": "target"}
    flags |= {"cond_image_column": "source", "caption_column": "prompt", "instance_prompt": "x", "resolution": SIZE}
    flags |= {"train_batch_size": BATCH, "max_train_steps": steps, "rank": RANK, "lora_alpha": RANK, "seed": 0}
    flags |= {"max_sequence_length": TEXT_TOKENS, "output_dir": scratch / "script", "learning_rate": 1e-4}
    flags |= {"checkpointing_steps": 10_000, "lr_warmup_steps": 0}
    sys.argv = [str(path), "--cache_latents", "--skip_final_inference"]
    sys.argv += [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    runpy.run_path(str(path), run_name="__main__")


def stand_ins(examples: list[Example]) -> dict[str, Any]:
    """Return modules that do what the script asks of torchvision and datasets, for pictures of the right size."""
    functional, transforms, torchvision, datasets = (
        types.ModuleType(name)
        for name in ("torchvision.transforms.functional", "torchvision.transforms", "torchvision", "datasets")
    )
    box = Image.Resampling.BILINEAR
    functional.resize = lambda image, size, interpolation: image.resize((size[1], size[0]), box)  # type: ignore[attr-defined]
    functional.crop = lambda image, i, j, h, w: image.crop((j, i, j + w, i + h))  # type: ignore[attr-defined]
    functional.to_tensor = lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255  # type: ignore[attr-defined]
    functional.normalize = lambda tensor, mean, std: (tensor - mean[0]) / std[0]  # type: ignore[attr-defined]
    functional.to_pil_image = lambda tensor: Image.fromarray(tensor.permute(1, 2, 0).numpy())  # type: ignore[attr-defined]
    transforms.functional = functional  # type: ignore[attr-defined]
    transforms.InterpolationMode = types.SimpleNamespace(BILINEAR=box)  # type: ignore[attr-defined]
    crop = types.SimpleNamespace(get_params=lambda image, output_size: (0, 0, *output_size))
    transforms.RandomCrop = crop  # type: ignore[attr-defined]
    torchvision.transforms = transforms  # type: ignore[attr-defined]
    datasets.load_dataset = lambda *_, **__: {"train": Rows(examples)}  # type: ignore[attr-defined]
    return {module.__name__: module for module in (functional, transforms, torchvision, datasets)}


class Rows:
    """Examples as the script reads a table."""

    column_names = ("target", "source", "prompt")

    def __init__(self, examples: list[Example]) -> None:
        self._rows = [
            {"target": Image.fromarray(e.target), "source": Image.fromarray(e.source), "prompt": e.prompt}
            for e in examples
            if e.source is not None
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int | str) -> Any:
        return [row[at] for row in self._rows] if isinstance(at, str) else self._rows[at]


def compare(scratch: Path, examples: list[Example], path: Path | None, steps: int, compiled: bool) -> dict[str, float]:
    """Return the median CPU milliseconds of a step of each contender, which take turns."""
    total = steps + WARM + 1
    kept = config_of(total)
    precompute(open_mixture(kept, scratch, scratch)[1], kept, scratch / f"kept-{total}", scratch)
    cached = config_of(total, precomputed={"folder": f"kept-{total}"})
    contenders = {
        "ours, cached": Turns(lambda tick: ours(scratch, "cached", cached, tick)),
        "ours, uncached": Turns(lambda tick: ours(scratch, "uncached", config_of(total), tick)),
        "diffusers, plain loop": Turns(lambda tick: peer(scratch, examples, total, tick)),
    }
    if compiled:
        config = config_of(total, precomputed={"folder": f"kept-{total}"}, compile=True)
        contenders["ours, cached, compiled"] = Turns(lambda tick: ours(scratch, "compiled", config, tick))
    if path is not None:
        contenders["diffusers, the script"] = Turns(lambda tick: script(path, scratch, examples, total, tick))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(WARM + steps):
        for name, contender in contenders.items():
            times[name].append(contender.step())
    return {name: 1000 * statistics.median(values[WARM:]) for name, values in times.items()}


@contextmanager
def timed(owner: Any, name: str, spent: dict[str, float], what: str) -> Iterator[None]:
    """Add the CPU time of a function to `spent[what]` while the context lasts."""
    plain = getattr(owner, name)

    def measured(*values: Any, **named: Any) -> Any:
        start = time.process_time()
        try:
            return plain(*values, **named)
        finally:
            spent[what] = spent.get(what, 0.0) + time.process_time() - start

    setattr(owner, name, measured)
    try:
        yield
    finally:
        setattr(owner, name, plain)


def account(scratch: Path, name: str, config: TrainConfig) -> dict[str, float]:
    """Train; return CPU milliseconds a step in and outside of the network, and the share of wall time spent waiting.

    The first steps are not counted: a worker process starts, and kernels are chosen.
    """
    spent: dict[str, float] = {}
    begun: dict[str, float] = {}
    waited = 0.0
    read = train_module._read_batches

    def waiting(*values: Any) -> Iterator[Any]:
        nonlocal waited
        batches = read(*values)
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            waited += time.perf_counter() - start
            yield batch

    def progress(done: int, planned: int) -> None:
        nonlocal waited
        if done == WARM:
            spent.clear()
            waited = 0.0
            begun.update(cpu=time.process_time(), wall=time.perf_counter())
        if done == planned:
            begun.update(cpu_end=time.process_time(), wall_end=time.perf_counter())

    train_module._read_batches = waiting
    optimizer = torch.optim.AdamW
    with (
        timed(step_module, "flow_matching_loss", spent, "forward"),
        timed(torch.Tensor, "backward", spent, "backward"),
        timed(torch.nn.utils, "clip_grad_norm_", spent, "optimiser"),
        timed(optimizer, "step", spent, "optimiser"),
    ):
        train(config, scratch / "runs" / f"{name}-{os.getpid()}", scratch, progress)
    train_module._read_batches = read
    cpu, wall, steps = begun["cpu_end"] - begun["cpu"], begun["wall_end"] - begun["wall"], config.steps - WARM
    parts = {part: 1000 * value / steps for part, value in spent.items()}
    overhead = 1 - sum(spent.values()) / cpu
    return {
        **parts,
        "step": 1000 * cpu / steps,
        "overhead": overhead,
        "stall": waited / wall,
        "wall": 1000 * wall / steps,
    }


def main() -> None:
    """Print the figures, and write them to SCRATCH/training.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("scratch", type=Path)
    arguments.add_argument("--script", type=Path)
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--compile", action="store_true", help="ours with compile: true too; takes minutes to begin")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    given.scratch.mkdir(parents=True, exist_ok=True)
    examples = prepare(given.scratch)
    steps = compare(given.scratch, examples, given.script, given.steps, given.compile)
    for name, value in steps.items():
        print(f"{name:24} {value:8.1f} CPU ms a step", flush=True)
    base = steps.get("diffusers, the script", steps["diffusers, plain loop"])
    for name in (name for name in steps if name.startswith("ours")):
        print(f"{name} / diffusers: {steps[name] / base:.2f}")
    total = given.steps + WARM
    kept = {"folder": f"kept-{total + 1}"}
    tiny = {"base": None, "lora": None, "generator": {"width": 48}, "lock": "drawn.lock", "batch": 32}
    runs = {
        "Klein LoRA, cached": config_of(total, precomputed=kept, workers=1),
        "Klein LoRA, uncached": config_of(total, workers=1),
        "tiny/1, batch 32": config_of(total, **tiny, workers=1),
    }
    found = {name: account(given.scratch, name.split(",")[0].replace("/", "-") + str(k), config)
             for k, (name, config) in enumerate(runs.items())}  # fmt: skip
    for name, row in found.items():
        print(
            f"{name:24} step {row['step']:.1f} CPU ms: forward {row['forward']:.1f}, backward {row['backward']:.1f}, "
            f"optimiser {row['optimiser']:.1f}; overhead {row['overhead']:.1%}; waiting {row['stall']:.1%} of wall time"
        )
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}")
    figures = {"steps": steps, "runs": found, "load": load, "torch": torch.__version__}
    (given.scratch / "training.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
