"""Files of folders and members of tars made by others, grouped to records; what is none is counted by reason.

Nothing is extracted, and contents decide: a file whose ending says nothing is known by its first bytes.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from cavendish.mixing.accounting import add_counts
from cavendish.mixing.sources.decode import image_kind, unreadable
from cavendish.mixing.sources.items import Item, Listing, Part
from cavendish.mixing.sources.tars import SPARSE, is_tar, read_slice, read_tar, tar_stem
from cavendish.mixing.sources.text import printable, unique_key

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
"""Of files that are taken for images without a look into them."""

_HEAD_BYTES = 64
_HIDDEN = "hidden: its name begins with a dot"
_MACOS = "made by macOS beside another file (._ or __MACOSX)"
_NO_IMAGE = "no image under this key"
_APART = "its members are not neighbours in the tar, and some names are there twice: sort the tar by name"


@dataclass(frozen=True)
class Fields:
    """Which member of a record is what.

    Args:
        endings: for each field those that mean it, after the first dot of a name; the first that is there wins. Where
            all of them are endings of images, any image in their place is meant: `input.jpg` also reads `input.tif`.
        several: whether a record may hold several images, of which the first by `endings` counts.
    """

    endings: Mapping[str, Sequence[str]]
    several: bool = True

    def rank(self, suffix: str, is_image: bool) -> tuple[str, int] | None:
        """Return the field that a suffix means and its place among the endings of it, None when it means none."""
        for name, endings in self.endings.items():
            if suffix in endings:
                return name, list(endings).index(suffix)
        for before in (suffix, suffix.rpartition(".")[0]) if is_image else ():  # an image may have no ending
            for name, endings in self.endings.items():
                split = [ending.rpartition(".") for ending in endings]
                places = [place for place, (prefix, _, _) in enumerate(split) if prefix == before]
                if places and all(last in IMAGE_ENDINGS for _, _, last in split):
                    return name, len(endings) + places[0]
        return None


IMAGE_WITH_SIDECARS = Fields({"image": IMAGE_ENDINGS, "text": ("txt",), "meta": ("json",)}, several=False)
"""An image, a caption and a json of facts, as WebDataset, img2dataset and folders of photographs have them."""


def folders_of(path: Path | str | tuple[Path, ...], data: Path) -> tuple[Path, ...]:
    """Return the folders of a path, or of a list of paths, of a configuration."""
    return tuple(data / each for each in (path if isinstance(path, tuple) else (path,)))


def list_source(name: str, folders: Sequence[Path], list_folder: Callable[[Path], Listing]) -> Listing:
    """List the folders of a source with a lister of this module; every item gets a key that is unique in the source.

    Items of the first folder are named as they lie in it, those of further ones with the name of the folder in front,
    so that a source that grows by a folder keeps its keys.
    """
    items: list[Item] = []
    left: list[Mapping[str, int]] = []
    for number, folder in enumerate(folders):
        listing = list_folder(folder)
        left.append(listing.left_aside)
        for item in listing:
            parts = {field: replace(part, folder=number) for field, part in item.parts.items()}
            label = f"{printable(folder.name)}/{item.name}" if number else item.name
            items.append(replace(item, name=label, parts=parts))
    return Listing(with_keys(name, items), add_counts(left))


def with_keys(source: str, items: Iterable[Item], others: Iterable[str] = ()) -> list[Item]:
    """Give each item a key that shards accept and that is none of the others'.

    What had to be changed to fit carries a hash of its full name.
    """
    keys = set(others)
    return [
        replace(
            item, key=unique_key(source, item.name, os.path.splitext(item.name)[0] if item.image else item.name, keys)
        )
        for item in items
    ]


@dataclass(frozen=True)
class Files:
    """What is below a folder: files in the order of their paths, folders that cannot be read, and what is no input."""

    paths: Sequence[Path]
    problems: Sequence[Item]
    left_aside: Counter[str]


@dataclass(frozen=True)
class _Member:
    """A file of a record: its name, where it is, and why it is not read, "" where it is."""

    name: str
    part: Part
    problem: str = ""
    archive: int = 0

    @property
    def record(self) -> str:
        """The name of the record that it is of."""
        folder, _, base = self.name.rpartition("/")
        stem = base.partition(".")[0]
        return f"{folder}/{stem}" if folder else stem


def list_records(root: Path, fields: Fields) -> Listing:
    """List the records of a tar, or of a folder with all tars and files below it, in a fixed order.

    Files of one record share their name up to its first dot; the rest of the name tells the field.
    """
    tars, files = _find_tars(root)
    items = [*files.problems]
    items += [item for path in tars for item in _list_tar(root, path, fields, files.left_aside)]
    items += _list_groups(root, files.paths, fields, files.left_aside)
    return Listing(items, files.left_aside)


def list_tars(root: Path) -> Listing:
    """List the images in a tar, or in all tars below a folder; what lies beside the tars is left aside."""
    tars, files = _find_tars(root)
    files.left_aside.update(f"{ending_of(path.name)}: not a tar" for path in files.paths)
    items = [item for path in tars for item in _list_tar(root, path, IMAGE_WITH_SIDECARS, files.left_aside)]
    return Listing([*files.problems, *items], files.left_aside)


def list_photos(root: Path) -> Listing:
    """List the images below a folder, each with a caption (.txt) and facts (.json) of its name beside it."""
    tars, files = _find_tars(root)
    left = files.left_aside
    left.update(f"{ending_of(path.name)}: a tar among files" for path in tars)
    sidecars = {_lower(path): path for path in files.paths if path.suffix.lower() in (".txt", ".json")}
    used = set[Path]()
    items = list(files.problems)
    for path in files.paths:
        if _lower(path) in sidecars:
            continue
        beside = {"text": sidecars.get(path.with_suffix(".txt")), "meta": sidecars.get(path.with_suffix(".json"))}
        there = {field: each for field, each in beside.items() if each is not None}
        item = _list_image(root, path, there)
        if item is None:
            left[f"{ending_of(path.name)}: not an image"] += 1
        else:
            items.append(item)
            used.update(there.values())
    left.update(f"{ending_of(path.name)}: no image of its name" for path in sidecars.values() if path not in used)
    return Listing(sorted(items, key=lambda item: item.name), left)


def list_images(root: Path) -> Listing:
    """List every image in a folder and in the tars below it, or in a tar, by contents, whatever its name ends in.

    For jobs that look at all images of others, such as those of a benchmark. An item is an image or, with a `problem`,
    a file that is or may be one and cannot be read; everything else is counted in `left_aside`.
    """
    tars, files = _find_tars(root)
    items = list(files.problems)
    for path in files.paths:
        item = _list_image(root, path, {})
        if item is None:
            files.left_aside[f"{ending_of(path.name)}: not an image"] += 1
        else:
            items.append(item)
    for path in tars:
        name, members, damage = _tar_members(root, path, files.left_aside)
        for member in members:
            is_image, problem = _look(path, member)
            if is_image:
                items.append(Item("", f"{name}/{member.name}", {"image": member.part}, problem))
            else:
                files.left_aside[f"{ending_of(member.name)}: not an image"] += 1
        items += [Item("", f"{name}/damaged", problem=damage)] if damage else []
    return Listing(with_keys("image", items), files.left_aside)


def walk_files(root: Path) -> Files:
    """Find the files below a folder; hidden ones, those of macOS and links to other folders are counted."""
    left: Counter[str] = Counter()
    problems: list[Item] = []
    paths: list[Path] = []

    def note(error: OSError) -> None:
        if error.filename != str(root):
            where = Path(str(error.filename)).relative_to(root).as_posix()
            problems.append(Item("", printable(where), problem=f"a folder that cannot be read: {error.strerror}"))

    for folder, folders, names in os.walk(root, onerror=note):
        here = Path(folder)
        left.update(_describe_link(here / name, root) for name in folders if (here / name).is_symlink())
        for name in names:
            if name.startswith("._") or "__MACOSX" in here.relative_to(root).parts:
                left[_MACOS] += 1
            elif name.startswith("."):
                left[_HIDDEN] += 1
            else:
                paths.append(here / name)
    return Files(sorted(paths), sorted(problems, key=lambda item: item.name), left)


def _find_tars(root: Path) -> tuple[list[Path], Files]:
    """Return the tars below a folder, or the file that `root` is, and the files that are none."""
    if root.is_file():
        return [root], Files([], [], Counter())
    files = walk_files(root)
    tars = [path for path in files.paths if _is_tar_file(path)]
    there = set(tars)
    return tars, replace(files, paths=[path for path in files.paths if path not in there])


def _is_tar_file(path: Path) -> bool:
    known = path.suffix[1:].lower() in (*IMAGE_ENDINGS, "txt", "json")
    return tar_stem(path.name) is not None or (not known and path.is_file() and is_tar(path))


def _describe_link(path: Path, root: Path) -> str:
    name = printable(path.relative_to(root).as_posix())
    if path.resolve().is_relative_to(root.resolve()):
        return f"link {name}: to a folder that is read where it lies"
    return f"link {name}: to a folder outside; name that folder as a path of its own to read it"


def _list_image(root: Path, path: Path, beside: Mapping[str, Path]) -> Item | None:
    """Make the item of an image with what belongs to it; None where a file is no image."""
    members = {field: _file_member(root, each) for field, each in {"image": path, **beside}.items()}
    is_image, problem = _look(path, members["image"])
    if not is_image:
        return None
    problem = next((member.problem for member in members.values() if member.problem), problem)
    parts = {} if problem else {field: member.part for field, member in members.items()}
    return Item("", members["image"].name, parts, problem)


def _file_member(root: Path, path: Path) -> _Member:
    """Describe a file of a folder, and why it is not read."""
    relative = path.relative_to(root).as_posix()
    name, suffix = printable(relative), path.name.partition(".")[2].lower()
    problem = ""
    if not _is_utf8(relative):
        problem = "its file name is not UTF-8"
    elif path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        problem = f"{path.name} is a link that leaves the folder"
    elif not path.is_file():
        problem = f"{path.name} is not a file"
    if problem:
        return _Member(name, Part(name, 0, 0, printable(suffix)), problem)
    return _Member(name, Part(relative, 0, path.stat().st_size, suffix))


def _tar_members(root: Path, path: Path, left: Counter[str]) -> tuple[str, list[_Member], str]:
    """Return the name of a tar for its records, its members, and what is wrong with it, "" for nothing."""
    relative = "" if path == root else path.relative_to(root).as_posix()
    shown = relative or path.name
    name = printable(tar_stem(shown) or shown)
    if not _is_utf8(relative):
        return name, [], "the tar's file name is not UTF-8"
    listed, damage = read_tar(path)
    members = []
    for each in listed:
        base = each.name.rpartition("/")[2]
        if base.startswith("._") or each.name.startswith("__MACOSX/"):
            left[_MACOS] += 1
        elif base.startswith("."):
            left[_HIDDEN] += 1
        elif each.problem and each.problem != SPARSE:
            left[each.problem] += 1
        else:
            suffix = printable(base.partition(".")[2].lower())
            part = Part(relative, each.offset, each.size, suffix)
            members.append(_Member(printable(each.name), part, each.problem, each.archive))
    return name, members, f"{path.name}: {damage}" if damage else ""


def _list_tar(root: Path, path: Path, fields: Fields, left: Counter[str]) -> Iterator[Item]:
    """Yield the records of a tar: neighbours that share the name up to the first dot, as WebDataset has them.

    Members of one record that are no neighbours, as in a tar with all images first, are put together where none of
    them is there twice.
    """
    name, members, damage = _tar_members(root, path, left)
    runs = [list(run) for _, run in groupby(members, key=lambda member: (member.archive, member.record))]
    by_record: dict[str, list[_Member]] = defaultdict(list)
    for run in runs:
        by_record[run[0].record] += run
    for run in runs:
        record = run[0].record
        together = by_record[record]
        apart = len(together) > len(run) and len({each.part.suffix for each in together}) < len(together)
        if not apart and run[0] is not together[0]:
            continue  # it was put to the first run of its record
        item = _make_item(lambda _: path, f"{name}/{record}", run if apart else together, fields, left)
        if item is not None and "image" not in item.parts and not item.problem:
            item = replace(item, problem=f"{_NO_IMAGE}: {_APART}" if apart else _NO_IMAGE)
        if item is not None:
            yield item
    if damage:
        yield Item("", f"{name}/damaged", problem=damage)


def _list_groups(root: Path, paths: Sequence[Path], fields: Fields, left: Counter[str]) -> Iterator[Item]:
    """Yield the records of files that share their folder, and their name up to the first dot."""
    groups: dict[str, list[_Member]] = defaultdict(list)
    for path in paths:
        member = _file_member(root, path)
        groups[member.record].append(member)
    for record in sorted(groups):
        item = _make_item(lambda part: root / part.path, record, groups[record], fields, left)
        if item is not None and item.parts and item.parts.keys() <= {"caption", "meta"} and not item.problem:
            left.update(f".{part.suffix}: no image of its name" for part in item.parts.values())
        elif item is not None:
            yield item


def _make_item(
    file_of: Callable[[Part], Path], name: str, members: Sequence[_Member], fields: Fields, left: Counter[str]
) -> Item | None:
    """Choose the member of each field; None where no member is of any: those are counted.

    Args:
        file_of: the file that a member is in.
    """
    ranked: dict[str, list[tuple[int, _Member, str]]] = defaultdict(list)
    others: list[_Member] = []
    for member in members:
        rank = fields.rank(member.part.suffix, False)
        problem = member.problem
        if rank is None:
            is_image, problem = _look(file_of(member.part), member)
            rank = fields.rank(member.part.suffix, is_image)
        if rank is None:
            others.append(member)
        else:
            ranked[rank[0]].append((rank[1], member, problem))
    formats = {ending.rpartition(".")[2] for endings in fields.endings.values() for ending in endings}
    if not ranked and any(member.part.suffix.rpartition(".")[2] in formats for member in others):
        return Item("", name, problem=f"no field ends in {' or '.join(f'.{member.part.suffix}' for member in others)}")
    left.update(f"{ending_of(member.name)}: no part of a record" for member in others)
    parts: dict[str, Part] = {}
    problems: list[str] = []
    for field, found in ranked.items():
        found.sort(key=lambda each: each[0])
        (rank_, first, problem), rest = found[0], found[1:]
        parts |= {} if problem else {field: first.part}
        problems.append(problem)
        if rest and field == "image" and not fields.several:
            problems.append("two images under one key")
        elif rest and rest[0][0] == rank_:
            problems.append(f"two members end in .{first.part.suffix}")
        left.update(f"{ending_of(member.name)}: another {field} of its record" for _, member, _ in rest)
    return Item("", name, parts, next(filter(None, problems), "")) if ranked else None


def _look(path: Path, member: _Member) -> tuple[bool, str]:
    """Tell by its ending, or else by its first bytes, whether a file is an image, and why it is not read."""
    if member.part.suffix.rpartition(".")[2] in IMAGE_ENDINGS:
        return True, member.problem
    if member.problem:
        return False, member.problem
    try:
        kind = image_kind(read_slice(path, member.part.offset, min(member.part.size, _HEAD_BYTES)))
    except OSError as error:
        return False, f"cannot be read: {error.strerror or error}"
    return bool(kind), unreadable(kind)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lower(path: Path) -> Path:
    return path.with_suffix(path.suffix.lower())


def ending_of(name: str) -> str:
    """Return the ending of a name with its dot, for counting by it."""
    return printable(os.path.splitext(name.rpartition("/")[2])[1].lower())[:16] or "no ending"
