"""The child's side of an engine: makes views until its stdin closes. The first message is the job's configuration."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cavendish.encoders.sample import InputError, Rejection, Sample
from cavendish.mixing.shards.sample_format import parse_raw_sample, raw_sample
from cavendish.render.engines.worker import leave_with_parent, receive, send, take_over_pipes

if TYPE_CHECKING:
    from cavendish.render.config import RenderConfig
    from cavendish.render.views import Paint


def main() -> None:
    """Read the job's configuration, load its engine, say so, then answer requests."""
    requests, answers = take_over_pipes()
    leave_with_parent()
    from cavendish.render.assets.catalogue import importer
    from cavendish.render.assets.folders import open_folders
    from cavendish.render.config import RenderConfig, ViewRequest
    from cavendish.render.views import ViewMaker

    first = receive(requests)
    if first is None:
        return
    config = RenderConfig.model_validate(first[0]["config"])
    try:
        open_folders(config.assets.folders if config.assets else ())
        paint, versions = load_engine(config)
    except InputError as error:
        send(answers, {"error": str(error)}, b"")
        return
    maker = ViewMaker(config, paint, versions)
    send(answers, {"versions": versions}, b"")
    while (message := receive(requests)) is not None:
        if "inspect" in message[0]:
            send(answers, inspect_file(message[0]["inspect"]), b"")
            continue
        request = ViewRequest(**message[0]["view"])
        try:
            answer = encode_answer(maker.make(request, message[0]["own"]))
        except Exception as error:  # one scene's fault must not cost the others; the shard's row names it
            key = config.view_key(request.shard, request.index, request.view)
            answer = encode_answer(Rejection(key, f"{type(error).__name__}: {error}"))
        send(answers, *answer)
        importer().rest()
    importer().close()
    os._exit(0)  # bpy can crash while the interpreter tears it down


def inspect_file(name: str) -> dict[str, str]:
    """Read one of the user's own files; return the role it plays in scenes, or why it cannot be used."""
    from cavendish.render.assets.catalogue import load_map, model_info
    from cavendish.render.assets.folders import own_file, role_of
    from cavendish.render.geometry.models import model_mesh

    try:
        if own_file(name).is_map:
            load_map(name)
            return {"role": "map"}
        model_mesh(name)
        info = model_info(name)
        return {"role": role_of(info.noun, info.size_m)}
    except InputError as error:
        return {"error": str(error)}
    except Exception as error:  # a file nobody foresaw must cost itself only
        return {"error": f"{type(error).__name__}: {error}"}


def load_engine(config: RenderConfig) -> tuple[Paint, dict[str, str]]:
    """Return the engine's paint function and the versions of what makes the images."""
    versions = {name: version(name) for name in ("embreex", "numpy")}
    size = config.width, config.height
    if config.engine == "blender":
        from cavendish.render.engines.blender import Cycles

        return Cycles(*size, config.samples, config.cross_check).paint, {**versions, "bpy": version("bpy")}
    from cavendish.render.engines.pyrender import Raster
    from cavendish.render.light.lighting import paint_with

    return paint_with(Raster(*size), config.cross_check), {**versions, "pyrender": version("pyrender")}


def encode_answer(made: Sample | Rejection) -> tuple[dict[str, Any], bytes]:
    """Serialise a sample or a rejection: json for what is small, raw bytes for the arrays."""
    if isinstance(made, Rejection):
        return {"rejected": asdict(made)}, b""
    return raw_sample(made)


def decode_answer(header: dict[str, Any], blob: bytes) -> Sample | Rejection:
    """Undo `encode_answer`."""
    return Rejection(**header["rejected"]) if "rejected" in header else parse_raw_sample(header, blob)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the parent is gone
        os._exit(3)
