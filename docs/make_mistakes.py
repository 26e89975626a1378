"""Makes forty-odd mistakes a newcomer makes, for real, and writes docs/mistakes.md with what the command line says.

python docs/make_mistakes.py [PAGE]
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "mistakes.md"
RENDER = "render scenes.yaml --out new --workers 1"
TUNE = "train tune.yaml --out run"
_TIMED = re.compile(r": \d+/\d+, \d+:\d\d:\d\d")  # a line of progress
HEAD = """# Forty mistakes, and what is said

Every one was made for real by `python docs/make_mistakes.py`, which wrote this page; a test makes them again and
compares. A bad input is one line on stderr that names the file, the key and what to do, and exit code 2; exit code 1
says that the answer is no. Nothing is written, and what was finished before stays.
"""


@dataclass(frozen=True)
class Mistake:
    """One mistake: what it is, the words typed after `cavendish`, and what the user had done to the files before."""

    title: str
    words: str
    before: Callable[[], object] = lambda: None


def write(name: str, text: str) -> Callable[[], object]:
    """Return what writes a file, when its mistake's turn comes."""
    return lambda: Path(name).write_text(text)


def damage_a_shard() -> None:
    """Change one byte in the middle of a copy of a shard."""
    copy_shards("raw/damaged")
    path = Path("raw/damaged/shard-000000.tar")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lose_a_shard() -> None:
    """Copy the shards, but not the last row: a job that was interrupted."""
    copy_shards("raw/unfinished")
    Path("raw/unfinished/shard-000001.json").unlink()
    plan = json.loads(Path("raw/unfinished/dataset.json").read_text())
    Path("raw/unfinished/dataset.json").write_text(json.dumps({**plan, "totals": None}))


def copy_shards(to: str) -> None:
    """Copy the raw shards to another folder."""
    Path(to).mkdir(exist_ok=True)
    for path in Path("raw/scenes").iterdir():
        (Path(to) / path.name).write_bytes(path.read_bytes())


MISTAKES = (
    Mistake("The configuration is not where you said", "render absent.yaml --out new"),
    Mistake(
        "The configuration is not YAML", "render broken.yaml --out new", write("broken.yaml", "engine: [pyrender\n")
    ),
    Mistake("A key is misspelt", f"{RENDER} sceens=10"),
    Mistake("A number is none", f"{RENDER} scenes=many"),
    Mistake("A number is out of range", f"{RENDER} width=10"),
    Mistake("A setting without its =", f"{RENDER} scenes"),
    Mistake("A setting written as an option", f"{RENDER} --width 256"),
    Mistake("The configuration of another verb", "render mixture.yaml --out new"),
    Mistake("One thing where a list is due", "encode encode.yaml sources=raw/scenes --out examples"),
    Mistake("A file where a folder is due", "render scenes.yaml --out photo.png --workers 1"),
    Mistake("A preset that is not there", f"{RENDER} --tasks kitchen"),
    Mistake("Two keys that do not go together", f"{RENDER} depth_of_field=0.5"),
    Mistake("A folder of your own models that is not there", f"{RENDER} assets.folders=[models]"),
    Mistake("A split that is none", f"{RENDER} --split 3"),
    Mistake("A split beyond the last", f"{RENDER} --split 8/8"),
    Mistake("A runner that is not the same everywhere", f"{RENDER} --runner DirectRunner"),
    Mistake("Another configuration in the same folder", "render scenes.yaml seed=9 --out raw/scenes --workers 1"),
    Mistake("Shards that are not there", "encode encode.yaml --out examples"),
    Mistake("Shards of an interrupted job", "encode encode.yaml sources=[raw/unfinished] --out examples", lose_a_shard),
    Mistake("A task that does not exist", "encode encode.yaml sources=[raw/scenes] tasks.dpeth=1 --out examples"),
    Mistake(
        "A folder without pictures",
        "annotate photos.yaml --out raw/photos",
        lambda: Path("photos").mkdir(exist_ok=True),
    ),
    Mistake("Looking at what is not there", "show raw/absent"),
    Mistake("A folder of folders of shards", "show raw"),
    Mistake("A lock where shards are due", "show tune.lock.json"),
    Mistake("A sheet in a format that is none", "show raw/scenes --out sheet.pdf"),
    Mistake("A damaged shard", "show raw/damaged --verify", damage_a_shard),
    Mistake("A map without a space after its colon", "mix mixture.yaml ratios={generation:0.8} --out a.lock.json"),
    Mistake("A folder where the lock is due", "mix mixture.yaml --out raw"),
    Mistake("A percent", "mix mixture.yaml ratios.vision=5% --out a.lock.json"),
    Mistake("Ratios that are more than everything", "mix mixture.yaml ratios.generation=0.8 --out a.lock.json"),
    Mistake("A kind with a ratio, and no source for it", "mix mixture.yaml ratios.editing=0.1 --out a.lock.json"),
    Mistake("A task the shards cannot serve", "mix mixture.yaml sources.scenes.tasks.pose=1 --out a.lock.json"),
    Mistake("A mixture of nothing", "mix mixture.yaml sources={} --out a.lock.json"),
    Mistake("An audit report that is not there", "mix mixture.yaml audit=audit/report.json --out a.lock.json"),
    Mistake("Training without a lock", f"{TUNE} lock=absent.lock.json"),
    Mistake("Training from a base that was never trained", f"{TUNE} generator=null base=train/base/generator"),
    Mistake("Both a base and a fresh generator", f"{TUNE} base=train/base generator={{channels:32}}"),
    Mistake("Several processes without torchrun", f"{TUNE} parallel=ddp"),
    Mistake("A benchmark that is not there", "audit audit.yaml --out audit"),
    Mistake("A locked shard that is gone", TUNE, lambda: Path("raw/scenes/shard-000001.tar").unlink()),
    Mistake("Evaluating what was never trained", "evaluate evaluate.yaml --out scores"),
    Mistake(
        "A task in words that mean nothing", "predict photo.png --task dance --generator train/generator --out answers"
    ),
    Mistake(
        "A generator that is a folder of something else", "predict photo.png --task depth --generator raw --out answers"
    ),
    Mistake(
        "The folder of a training for its generator", "predict photo.png --task depth --generator train --out answers"
    ),
    Mistake("A verb without what it needs", "mix"),
    Mistake("A verb without where to write", "render scenes.yaml"),
    Mistake("A verb that does not exist", "rendr scenes.yaml"),
)


def prepare() -> None:
    """Write the files that the mistakes are made with, and render six scenes."""
    example = (ROOT / "examples" / "render_pyrender.yaml").read_text()
    Path("scenes.yaml").write_text(example)
    Path("mixture.yaml").write_text(
        "seed: 1\nratios: {generation: rest, vision: 0.3}\n"
        "sources:\n  scenes: {path: raw/scenes, tasks: {generate: 1, depth: 1}}\n"
    )
    Path("tune.yaml").write_text("lock: tune.lock.json\nsteps: 2\nbatch: 2\ngenerator: {}\nwarmup_steps: 0\n")
    Path("encode.yaml").write_text("sources: [raw/absent]\ntasks: {depth: 1}\n")
    Path("photo.png").write_bytes(b"")
    Path("photos.yaml").write_text("sources: [{name: photos, kind: folder, path: photos, licence: CC0-1.0}]\n")
    Path("evaluate.yaml").write_text((ROOT / "examples" / "evaluate.yaml").read_text())
    Path("audit.yaml").write_text("benchmarks: [{name: mine, folder: benchmark}]\nshards: [raw/scenes]\n")
    small = "scenes=2 scenes_per_shard=1 width=64 height=64 edits=0"
    assert say(f"render scenes.yaml {small} --out raw/scenes --workers 1")[0] == 0
    assert say("mix mixture.yaml --out tune.lock.json")[0] == 0
    assert say("train tune.yaml workers=0 --out train")[0] == 0


def say(words: str) -> tuple[int, str]:
    """Run the command line in this process; return its exit code, and what it said on stderr, else on stdout."""
    from cavendish.cli.main import main

    said, printed = io.StringIO(), io.StringIO()
    typed, sys.argv = sys.argv, ["cavendish", *shlex.split(words)]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
            main()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        sys.argv = typed
    lines = (said.getvalue() or printed.getvalue()).replace(f"{Path.cwd()}/", "").splitlines()
    return code, "\n".join(line for line in lines if not _TIMED.search(line)).strip()


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """Work in an empty folder, with a terminal wide enough for one line."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def page() -> str:
    """Make every mistake, and return the page."""
    parts = [HEAD]
    with elsewhere():
        prepare()
        for number, mistake in enumerate(MISTAKES, 1):
            mistake.before()
            code, said = say(mistake.words)
            lines = (f"cavendish {mistake.words}", "", *said.splitlines())
            shown = "".join(f"    {line}".rstrip() + "\n" for line in lines)
            parts.append(f"## {number}. {mistake.title}\n\nExit code {code}.\n\n{shown}")
    return "\n".join(parts)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else PAGE).resolve()
    target.write_text(page())
    print(target)
