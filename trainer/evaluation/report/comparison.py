"""A blind page on which people compare two generators' pictures, and what their answers say.

The page shows pairs under random codes in random order with shuffled sides; which picture is whose stands only in
`key.json`, beside the page's folder, which is not given to those who judge. Same prompt and seed
for both generators; a tie is half a win; the interval is a bootstrap over prompts.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from cavendish.encoders.sample import InputError
from cavendish.mixing.images import decode_rgb, encode_png
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import read_json, write_atomic

KEY_SCHEMA = "cavendish-comparison/1"
ANSWERS_SCHEMA = "cavendish-judgements/1"
_WINNER = {("left", True): "a", ("left", False): "b", ("right", True): "b", ("right", False): "a"}
PROTOCOL = "win-rate/1;paired prompt and seed;sides shuffled;tie=.5;bootstrap over prompts"
_POINTS = {"a": 1.0, "tie": 0.5, "b": 0.0}


@dataclass(frozen=True)
class Judgement:
    """One answer: which of generator a's and b's pictures for a prompt is better. `group` is the kind of prompt."""

    prompt: str
    winner: str
    group: str = ""


def write_comparison(requests: Path, a: Path, b: Path, out: Path, question: str, seed: int) -> int:
    """Write `out/page/` (index.html and pictures) and `out/key.json`; return the number of pairs.

    Args:
        requests: requests.jsonl of `cavendish evaluate --requests`: file, prompt, image (the input, or null).
        a, b: folders with a picture by each of those names.
        question: what is asked of every pair.
        seed: of the order and the sides.

    Raises:
        InputError: a request or a picture is missing or damaged; the message names it.
    """
    asked = {str(line["file"]): line for line in _read_requests(requests)}
    rng = np.random.default_rng([0xC0E, seed])
    page = out / "page"
    shutil.rmtree(page, ignore_errors=True)
    (page / "pictures").mkdir(parents=True)
    pairs: list[dict[str, Any]] = []
    key: list[dict[str, Any]] = []
    for name, a_is_left in shuffle_sides(sorted(asked), rng):
        code = rng.bytes(6).hex()
        sides = (a, b) if a_is_left else (b, a)
        pictures = {"left": sides[0] / name, "right": sides[1] / name}
        if asked[name].get("image") is not None:
            pictures["source"] = requests.parent / str(asked[name]["image"])
        for side, path in pictures.items():
            write_atomic(page / "pictures" / f"{code}-{side}.png", _clean_png(path))
        pairs.append({"code": code, "prompt": str(asked[name]["prompt"]), "source": "source" in pictures})
        group = str(asked[name].get("group", ""))
        key.append({"code": code, "file": name, "a_is_left": a_is_left, "group": group})
    identity = secrets.token_hex(8)  # answers to an older page must not be read with this key
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    template = environment.get_template("comparison.html")
    write_atomic(page / "index.html", template.render(pairs=pairs, question=question, page=identity).encode())
    values = {"schema": KEY_SCHEMA, "page": identity, "a": str(a), "b": str(b), "question": question, "pairs": key}
    write_atomic(out / "key.json", canonical_json(values))
    return len(pairs)


def _read_requests(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; `cavendish evaluate CONFIG --requests --out DIR` writes it")
    found = False
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            values = json.loads(line)
            _ = values["file"], values["prompt"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is not a request: {error!r}") from None
        found = True
        yield values
    if not found:
        raise InputError(f"{path}: no requests in it")


def _clean_png(path: Path) -> bytes:
    """Encode a picture anew: names and metadata in the file could tell whose it is."""
    if not path.is_file():
        raise InputError(f"{path}: no such picture")
    return encode_png(decode_rgb(path.read_bytes(), str(path)))


def read_answers(key: Path, answers: Sequence[Path]) -> list[Judgement]:
    """Read what people saved from the page, one file each, as judgements.

    Raises:
        InputError: not such files, or answers to another page.
    """
    known = _read_key(key)
    pairs: Mapping[str, Mapping[str, Any]] = {pair["code"]: pair for pair in known["pairs"]}
    judgements = []
    for path in answers:
        values = read_json(path, "answers saved from a comparison page")
        if not isinstance(values, dict) or values.get("schema") != ANSWERS_SCHEMA:
            raise InputError(f"{path}: not a {ANSWERS_SCHEMA} file")
        if values.get("page") != known["page"]:
            raise InputError(f"{path}: answers to another page than the one {key} belongs to")
        given = values.get("answers")
        if not isinstance(given, dict):
            raise InputError(f"{path}: answers is not a map")
        for code, side in given.items():
            if code not in pairs or side not in ("left", "right", "tie"):
                raise InputError(f"{path}: answer {code!r}: {side!r} is not left, right or tie on a pair of the page")
            pair = pairs[code]
            winner = "tie" if side == "tie" else _WINNER[side, pair["a_is_left"]]
            judgements.append(Judgement(pair["file"], winner, pair["group"]))
    return judgements


def _read_key(path: Path) -> dict[str, Any]:
    known = read_json(path, "the key of a comparison page")
    if not isinstance(known, dict) or known.get("schema") != KEY_SCHEMA:
        raise InputError(f"{path}: not a {KEY_SCHEMA} file")
    wanted = {"code": str, "file": str, "group": str, "a_is_left": bool}
    pairs = known.get("pairs")
    if (
        not all(isinstance(known.get(name), str) for name in ("page", "a", "b"))
        or not isinstance(pairs, list)
        or not all(isinstance(one, dict) and all(type(one.get(k)) is t for k, t in wanted.items()) for one in pairs)
    ):
        raise InputError(f"{path}: damaged key of a comparison page: make the page again")
    return known


def judge(out: Path, answers: Sequence[Path], seed: int = 0) -> dict[str, Any]:
    """Write `out/result.json`: the win rate of generator a with its 95 % interval; return its content.

    Raises:
        InputError: see `read_answers`; or no answer at all.
    """
    known = _read_key(out / "key.json")
    result = win_rate(read_answers(out / "key.json", answers), np.random.default_rng(seed))
    values = {"a": known["a"], "b": known["b"], "pairs": len(known["pairs"]), "judges": len(answers), **result}
    write_atomic(out / "result.json", canonical_json(values))
    return values


def shuffle_sides(names: Sequence[str], rng: np.random.Generator) -> list[tuple[str, bool]]:
    """Return the items in a random order, each with whether generator a is shown on the left."""
    order = rng.permutation(len(names))
    left = rng.random(len(names)) < 0.5
    return [(names[int(i)], bool(left[int(i)])) for i in order]


def win_rate(judgements: Sequence[Judgement], rng: np.random.Generator, draws: int = 2000) -> dict[str, Any]:
    """Return how often generator a wins against b.

    Several answers to one prompt are averaged first, so that a prompt weighs the same however often it was judged.

    Returns:
        protocol, prompts, judgements, win_rate in 0..1, low and high (its 95 % bootstrap interval), wins, ties,
        losses, and `groups` with the win rate of each kind of prompt.

    Raises:
        InputError: no judgement.
    """
    if not judgements:
        raise InputError("win rate: no judgements")
    by_prompt: dict[str, list[float]] = {}
    by_group: dict[str, list[float]] = {}
    for judgement in judgements:
        by_prompt.setdefault(judgement.prompt, []).append(_POINTS[judgement.winner])
        by_group.setdefault(judgement.group, []).append(_POINTS[judgement.winner])
    points = np.array([np.mean(values) for values in by_prompt.values()])
    means = [float(points[rng.integers(len(points), size=len(points))].mean()) for _ in range(draws)]
    low, high = np.quantile(means, (0.025, 0.975))
    winners = [judgement.winner for judgement in judgements]
    return {
        "protocol": PROTOCOL,
        "prompts": len(points),
        "judgements": len(judgements),
        "win_rate": float(points.mean()),
        "low": float(low),
        "high": float(high),
        "wins": winners.count("a"),
        "ties": winners.count("tie"),
        "losses": winners.count("b"),
        "groups": {group: float(np.mean(values)) for group, values in sorted(by_group.items())},
    }
