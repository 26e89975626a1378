"""The command line as a user meets it: help for every verb, one line and exit code 2 for every bad input."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import get_type_hints

import psutil
import pytest
import typer
from typer.models import ParameterInfo
from typer.testing import CliRunner

from cavendish.cli.app import complain, here_only, progress_bar, say
from cavendish.cli.audit import say_verdict
from cavendish.cli.main import app, main
from cavendish.cli.show import print_trace
from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.report.write import Verdict
from cavendish.mixing.provenance.lineage import Link
from cavendish.mixing.storage.place import expand_user, parse_place
from cavendish.mixing.storage.sync import published

ROOT = Path(__file__).parents[2]
VERBS = ("render", "annotate", "encode", "audit", "mix", "train", "evaluate", "show", "demo")


def cavendish(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cavendish", *words], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"])
    assert shown.exit_code == 0
    assert "--out" in shown.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("render", "absent.yaml", "--out", "x"), "absent.yaml: no such configuration file"),
        (("render", "bad.yaml", "--out", "x"), "unknown key 'colour'"),
        (("render", "examples/render_pyrender.yaml", "scenes=-1", "--out", "x"), "scenes"),
        (("render", "examples/render_pyrender.yaml", "--out", "x", "--split", "3"), "write it as I/N"),
        (("render", "examples/render_pyrender.yaml", "--out", "x", "--runner", "DirectRunner"), "use FnApiRunner"),
        (("encode", "examples/encode.yaml", "--out", "x"), "raw/blender"),
        (("mix", "examples/mixture.yaml", "--out", "x.json"), "no such file"),
        (("mix",), "give a mixture file and --out"),
        (("mix", "examples/mixture.yaml", "--stats", "x.json"), "mix --stats: MIXTURE has no effect; leave it out"),
        (("mix", "--stats", "x.json", "--out", "y.json"), "mix --stats: --out has no effect; leave it out"),
        (
            ("mix", "--diff", "a.json", "b.json", "--simulate", "9"),
            "mix --diff: --simulate has no effect",
        ),
        (("mix", "examples/mixture.yaml", "--out", "x.json", "--size", "32"), "mix without --preview: --size has no"),
        (("rendr",), "Did you mean 'render'?"),
        (("render", "examples/render_pyrender.yaml"), "missing option '--out' (see: cavendish render --help)"),
        (
            ("render", "examples/render_pyrender.yaml", "--width", "9"),
            "a setting of the configuration is written width=",
        ),
        (("render", "examples/mixture.yaml", "--out", "x"), "is it for another verb?"),
        (("render", "examples/render_pyrender.yaml", "--out", "bad.yaml"), "is a file, and a folder is due there"),
        (("show", "bad.yaml"), "not a shard (.tar) or a directory of shards"),
        (("train", "examples/train_tune.yaml", "--out", "x"), "tune.lock.json: no such file"),
        (("evaluate", "examples/evaluate.yaml", "--out", "x"), "run its training first"),
        (("show", "nowhere"), "no such shard or directory"),
        (("show", "nowhere", "--verify"), "no such file"),
    ],
)
def test_a_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "bad.yaml").write_text("colour: red\n")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = cavendish(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("x/shard-*"))


def verbs(group: typer.Typer) -> Iterator[Callable[..., object]]:
    yield from (verb.callback for verb in group.registered_commands if verb.callback is not None)
    for below in group.registered_groups:
        assert below.typer_instance is not None
        yield from verbs(below.typer_instance)


def test_every_path_of_every_verb_may_be_a_url_or_is_refused_as_one() -> None:
    found = Counter[str]()
    for verb in verbs(app):
        for name, hint in get_type_hints(verb, include_extras=True).items():
            told = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, ParameterInfo)]
            taken = [one for one in told if one.parser is parse_place]
            if taken or "Path" in str(hint):
                found["taken" if taken else "refused"] += 1
                assert taken or told[0].callback is here_only, f"{verb.__name__}: {name}"
    assert found["taken"] >= 20
    assert found["refused"] >= 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("convert", "c.yaml", "--out", "x", "--data", "s3://b/d"), "--data s3://b/d: has to be on this machine"),
        (("encode", "s3://b/c.yaml", "--out", "x"), "CONFIG s3://b/c.yaml: has to be on this machine"),
        (("mix", "--diff", "a.json", "s3://b/c.json"), "--diff s3://b/c.json: has to be on this machine"),
        (
            ("predict", "a.png", "s3://b/c.png", "--task", "depth", "--generator", "g", "--out", "x"),
            "PICTURES s3://b/c",
        ),
        (("convert", "file:///nowhere/c.yaml", "--out", "x"), "/nowhere/c.yaml: no such configuration file"),
        (
            ("convert", "examples/convert.yaml", "path=s3://b/d", "--out", "x"),
            "examples/convert.yaml: path: a URL cannot",
        ),
        (
            ("encode", "examples/encode.yaml", "sources=[raw,s3://b/d]", "--out", "x"),
            "examples/encode.yaml: sources: a URL",
        ),
    ],
)
def test_a_url_for_what_is_read_on_this_machine_is_one_line(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    ran = CliRunner().invoke(app, words)
    assert isinstance(ran.exception, InputError)
    assert str(ran.exception).startswith(message)


def test_no_torch_is_needed_to_look_into_shards() -> None:
    code = (
        "import sys, cavendish.cli.main, cavendish.mixing.visualize\n"
        "sys.exit(bool({'torch', 'bpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_version_can_be_told() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"cavendish {version('cavendish')}\n"


def test_the_examples_are_written_once_and_never_over_something(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["examples", str(tmp_path / "mine")])
    assert shown.exit_code == 0
    written = {path.relative_to(tmp_path / "mine") for path in (tmp_path / "mine").rglob("*.yaml")}
    assert written == {path.relative_to(ROOT / "examples") for path in (ROOT / "examples").rglob("*.yaml")}
    (tmp_path / "mine/audit.yaml").write_text("changed")
    again = CliRunner().invoke(app, ["examples", str(tmp_path / "mine")])
    assert isinstance(again.exception, InputError)
    assert (tmp_path / "mine/audit.yaml").read_text() == "changed"


def test_the_help_is_quick(tmp_path: Path) -> None:
    took_s = []
    for _ in range(3):
        began = time.monotonic()
        assert cavendish("--help", cwd=tmp_path).returncode == 0
        took_s.append(time.monotonic() - began)
    assert min(took_s) < 1.5  # 0.4 s on an idle machine; the bound is for a busy one


def test_a_home_folder_is_read_where_the_shell_leaves_it() -> None:
    assert parse_place("~/data") == Path.home() / "data"
    assert expand_user(Path("a/~/b")) == Path("a/~/b")


def test_ctrl_c_is_one_line_and_exit_code_130(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.yaml")  # whoever reads it waits
    with started("render", "never.yaml", "--out", "x", cwd=tmp_path) as job:
        writing = until_read(tmp_path / "never.yaml")
        os.killpg(job.pid, signal.SIGINT)
        _, told = job.communicate()
    os.close(writing)
    assert job.returncode == 130
    assert told == "cavendish: interrupted; what is finished is kept, run the same command again to continue\n"


def until_read(fifo: Path) -> int:
    """Wait until somebody reads a pipe; return the end that keeps it waiting."""
    for _ in range(600):
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody yet
            time.sleep(0.1)
    raise AssertionError("nobody read it")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_a_rendering_and_its_children_without_a_traceback(tmp_path: Path, workers: str) -> None:
    words = (str(ROOT / "examples/render_pyrender.yaml"), "scenes=9", "scenes_per_shard=1", "width=64", "height=64")
    with started("render", *words, "--out", "x", "--workers", workers, cwd=tmp_path) as job:
        while not list(tmp_path.glob("x/shard-*.json")):
            assert job.poll() is None, job.communicate()
            time.sleep(0.2)
        children = psutil.Process(job.pid).children(recursive=True)
        os.killpg(job.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
        _, told = job.communicate()
    assert job.returncode == 130
    assert told.splitlines() == [
        "cavendish: interrupted; what is finished is kept, run the same command again to continue"
    ]
    assert children
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert cavendish("show", "x", cwd=tmp_path).returncode == 0


def started(*words: str, cwd: Path) -> subprocess.Popen[str]:
    """Start a verb that Ctrl-C can stop, also when these tests run in the background of a shell, where it cannot."""
    script = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + (
        "runpy.run_module('cavendish', run_name='__main__')"
    )
    command = [sys.executable, "-c", script, *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, start_new_session=True
    )


def test_a_file_gets_a_line_of_progress_a_minute_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress_bar("render") as report:
        for done in range(1001):
            report(done, 1000)
    assert capsys.readouterr().out.splitlines() == ["render: 1000/1000, 0:00:00"]
    monkeypatch.setattr("cavendish.cli.app.LINE_EVERY_S", 0.0)
    with progress_bar("render") as report:
        report(1, 2)
    assert capsys.readouterr().out.splitlines() == ["render: 1/2, 0:00:00"] * 2


def test_what_fails_before_it_begins_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError), progress_bar("render"):
        raise InputError("no such folder")
    assert capsys.readouterr().out == ""


def test_a_line_is_told_as_it_is_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    text = "my data/[red] größe/" + "long/" * 30
    say(text)
    complain(text)
    assert capsys.readouterr() == (f"{text}\n", f"{text}\n")


def test_a_trace_is_whole_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    with pytest.raises(typer.Exit):
        print_trace(Link("sample", "key", "ok", (Link("tar", "f" * 64),)), as_json=False)
    assert capsys.readouterr().out == f"ok sample  key\n└── tar  {'f' * 64}\nlinks: 1 ok, 0 missing, 0 changed\n"


def test_a_leak_does_not_hide_what_was_not_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = ("benchmark two: 9 of its images or labels could not be read",)
    verdict = Verdict(
        "leak", 1, 0, 0, 0, missing, (), tmp_path / "a.json", tmp_path / "a.html", tmp_path / "exclude.json"
    )
    with pytest.raises(typer.Exit) as left, published(tmp_path) as work:
        say_verdict(verdict, None, work)
    assert left.value.exit_code == 1
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["leak: benchmark images, labels or texts in 1 place", f"and not fully checked: {missing[0]}"]


@pytest.mark.parametrize(("number", "helps"), [(errno.ENAMETOOLONG, False), (errno.ENOSPC, True), (errno.EIO, True)])
def test_running_again_is_advised_where_it_helps(
    number: int, helps: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise OSError(number, os.strerror(number), "out/x.png")

    monkeypatch.setattr("cavendish.cli.main.app", fail)
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err
    assert left.value.code == 1
    assert said.startswith(f"cavendish: out/x.png: {os.strerror(number)}")
    assert ("run the same command again" in said) == helps
