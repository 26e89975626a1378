"""The programs of benchmarks/ and the commands inside sentences: their words are what the programs take."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer

from tests.documents.not_run import NOT_RUN
from tests.documents.pages import PAGES, ROOT, Command, commands, kept_back, name_of, parse

NOT_INSTALLED = ("benchmarks/audit.py", "benchmarks/audit_neighbours.py", "benchmarks/audit_scale.py")
"""Programs that import packages which are no dependency, also to take their words."""


def in_sentences(page: Path) -> list[Command]:
    """Return the commands between backticks, outside of blocks; not those that leave something out."""
    found = re.findall(r"`((?:cavendish|python|pytest|torchrun) [^`]*)`", page.read_text())
    texts = (" ".join(text.split()) for text in found)
    return [Command(name_of(page), text) for text in texts if "[" not in text and "..." not in text]


PAGES_OF_USE = [page for page in PAGES if page.name != "mistakes.md"]
SPOKEN = [one for page in PAGES_OF_USE for one in in_sentences(page)]
SCRIPTS = [
    one
    for page in PAGES_OF_USE
    for one in (*in_sentences(page), *kept_back(commands(page), NOT_RUN.get(name_of(page), {})))
    if re.search(r"\bpython ", one.text)
]
"""Those that no test runs."""


class Taken(BaseException):
    """A program took its words."""


def take(*_: Any, **__: Any) -> NoReturn:
    raise Taken


@pytest.mark.slow
@pytest.mark.parametrize("command", SCRIPTS, ids=lambda one: one.text)
def test_a_program_takes_the_words_it_is_given(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command.text)
    words = words[words.index("python") + 1 :]
    module = words[0] == "-m"
    name, *rest = words[module:]
    if name.startswith("apache_beam"):
        assert importlib.util.find_spec(name) is not None
        return
    path = ROOT / (name.replace(".", "/") + ".py" if module else name)
    if not path.exists():
        path = path.with_suffix("") / "__main__.py"
    assert path.exists(), command.text
    if "ArgumentParser" not in path.read_text() or str(path.relative_to(ROOT)) in NOT_INSTALLED:
        return
    monkeypatch.setattr(sys, "argv", [str(path), *rest])
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(os, "execve", lambda *_: None)  # some start themselves again with one thread
    for method in ("parse_args", "parse_intermixed_args"):
        whole = getattr(argparse.ArgumentParser, method)
        monkeypatch.setattr(argparse.ArgumentParser, method, lambda *a, whole=whole, **b: take(whole(*a, **b)))
    with pytest.raises(Taken):
        runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("command", SPOKEN, ids=lambda one: one.text)
def test_a_command_in_a_sentence_can_be_typed(command: Command) -> None:
    if command.text.startswith("pytest"):
        for word in re.sub(r" -k \S+", "", command.text).split()[1:]:
            assert word.startswith("-") or (ROOT / word).exists(), command.text
    elif "cavendish" in command.text.split():
        with contextlib.suppress(typer._click.exceptions.MissingParameter):  # a sentence need not say everything
            parse(command.text)
