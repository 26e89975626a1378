"""Every command of every document can be typed, and is run by a test or listed with the reason why not."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from cavendish.mixing.config import read_config
from tests.documents import test_demo_folder, test_elsewhere, test_klein, test_tutorials
from tests.documents.not_run import NOT_COMMANDS, NOT_RUN
from tests.documents.pages import EXAMPLES, PAGES, ROOT, Command, blocks, commands, is_shell, left, name_of, parse

RUN = {*test_demo_folder.RUN, *test_elsewhere.RUN, *test_klein.RUN, *test_tutorials.RUN}
MISTAKES = "docs/mistakes.md"  # test_pages.py makes them
ALL = [page for page in (*PAGES, *EXAMPLES) if name_of(page) != MISTAKES]


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_every_command_is_run_or_has_a_reason(page: Path) -> None:
    found, reasons = commands(page), NOT_RUN.get(name_of(page), {})
    for start in reasons:
        assert any(one.text.startswith(start) for one in found), f"{name_of(page)} has no command {start!r} any more"
    if name_of(page) not in RUN:
        assert not left(found, reasons), f"{name_of(page)}: no test runs it; add it to one, or say why not in NOT_RUN"


def test_a_page_that_is_run_is_there() -> None:
    assert {name_of(page) for page in ALL} >= RUN
    assert {name_of(page) for page in ALL} >= set(NOT_RUN)


@pytest.mark.parametrize("page", [page for page in ALL if page.suffix == ".md"], ids=name_of)
def test_every_block_is_of_commands_or_is_known_not_to_be(page: Path) -> None:
    for block in blocks(page):
        first = next(line for line in block.lines if line.strip())
        if is_shell(block) or block.language in ("python", "yaml", "diff"):
            continue
        if first.startswith(NOT_COMMANDS.get(name_of(page), ("\0",))):
            continue
        assert isinstance(yaml.safe_load("\n".join(block.lines)), dict), (
            f"{name_of(page)}: {first!r} is no known command, nor YAML: add it to PROGRAMS or to NOT_COMMANDS"
        )


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_every_command_can_be_typed(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    configurations = reference().CONFIGURATIONS
    for command in commands(page):
        found = parse(command.text)
        if found is None:
            continue
        group, values = found
        config = values.get("config") or values.get("mixture")
        if config is not None and str(config).startswith("examples/"):
            job = values["job"].value if "job" in values else values["verb"]  # `plan JOB CONFIG`
            module, _, kind = configurations["audit" if group == "audit" else job][0].partition(":")
            read_config(getattr(importlib.import_module(module), kind), config, values["override"] or ())


def of_program(name: str) -> list[Command]:
    return [one for page in ALL for one in commands(page) if name in shlex.split(one.text)]


@pytest.mark.parametrize("command", of_program("--runner"), ids=lambda one: shlex.split(one.text)[6])
def test_the_engines_that_were_not_at_hand_are_not_refused(command: Command) -> None:
    from cavendish.cli.app import engine_of

    parsed = parse(command.text)
    assert parsed is not None
    engine_of(parsed[1]["workers"], parsed[1]["runner"], parsed[1]["split"], parsed[1]["beam_option"])


def test_what_pip_is_asked_for_is_what_this_package_declares() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    for command in of_program("pip"):
        for word in shlex.split(command.text):
            for extra in re.findall(r"^(?:cavendish|\.)\[(.*)\]$", word):
                assert set(extra.split(",")) <= set(extras), command.text
            if "==" in word:
                assert word in pins or word in extras["train"], command.text
