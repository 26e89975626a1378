"""The house: small rooms without circles, one import package, and public names that explain themselves."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import grimp
import networkx
import pytest

import cavendish

ROOT = Path(__file__).parents[1]
ROOMS = ("annotate", "encoders", "mixing", "render", "trainer")
MOST_FILES = 16
FORMER = (*ROOMS, "commands", "demo")
"""Import roots of former times; in a checkout each would be a second copy of a package of cavendish."""


def product() -> list[Path]:
    return [path for folder in (*ROOMS, "cavendish") for path in (ROOT / folder).rglob("*.py")]


def test_no_folder_holds_more_files_than_one_can_see_through() -> None:
    sizes = Counter(str(path.parent.relative_to(ROOT)) for path in product() if path.name != "__init__.py")
    assert sizes.most_common(1)[0][1] <= MOST_FILES, sizes.most_common(3)


def test_no_module_imports_itself_through_others() -> None:
    graph = grimp.build_graph("cavendish", exclude_type_checking_imports=True, cache_dir=None)
    modules = graph.modules - {"cavendish"}  # its table of public names is for users: no module imports it
    arrows = networkx.DiGraph()
    for module in modules:
        arrows.add_edges_from((module, other) for other in graph.find_modules_directly_imported_by(module) & modules)
    circles = [sorted(names) for names in networkx.strongly_connected_components(arrows) if len(names) > 1]
    assert circles == []


def test_no_module_imports_from_the_table_of_public_names() -> None:
    for path in product():
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert all(node.module != "cavendish" and not node.level for node in imports), path


def bare_names(text: str) -> Iterator[str]:
    """Yield what names a room without its package where no linter looks: in strings, scripts and documents."""
    rooms = "|".join(FORMER)
    yield from re.findall(rf"-m (?:{rooms})(?:\.\w+)*\b", text)
    yield from re.findall(rf"^\s*(?:from (?:{rooms})(?:\.\w+)* import |import (?:{rooms})\b).*", text, re.MULTILINE)
    yield from re.findall(rf"PackageLoader\(\"(?:{rooms})\b.*", text)


def test_no_string_names_a_room_without_its_package() -> None:
    found = defaultdict(list)
    visible = (path for path in ROOT.rglob("*") if not path.relative_to(ROOT).parts[0].startswith("."))
    for path in visible:
        if path.suffix in (".py", ".md", ".sh", ".yaml", ".toml"):
            found[path] += bare_names(path.read_text())
    assert {path: names for path, names in found.items() if names and path != Path(__file__)} == {}


@pytest.mark.parametrize("name", cavendish.__all__)
def test_a_public_name_explains_itself_with_an_example(name: str) -> None:
    text = getattr(cavendish, name).__doc__
    assert len(text.splitlines()[0]) > 20
    assert f"cavendish.{name}" in text.partition(">>>")[2]
