"""What the owner of a picture says about its use: robots.txt, X-Robots-Tag, TDM reservation. Respected by default."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from protego import Protego

from cavendish.annotate.download.fetch import Refused, Response, host_of

OPT_OUT_TAGS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})
MAX_ROBOTS_BYTES = 500 * 1024


def opted_out(headers: Mapping[str, str], agent: str) -> str:
    """Return which header of an answer forbids its use, or "".

    Reads `X-Robots-Tag` (also with a "robot:" prefix, where only ours counts) and `TDM-Reservation: 1`.

    Args:
        headers: with lower-case names.
        agent: the first word of our user agent, lower case.

    Source: W3C TDM Reservation Protocol; noai and noimageai as introduced by DeviantArt, read by img2dataset.
    """
    if headers.get("tdm-reservation", "").split(",")[0].strip() == "1":
        return "tdm-reservation: 1"
    speaks_to_us = True
    for entry in headers.get("x-robots-tag", "").lower().split(","):
        robot, colon, rest = entry.partition(":")
        if colon and not robot.strip().startswith(("max-", "unavailable_after")):
            speaks_to_us = robot.strip() in (agent, "*")
            entry = rest
        tag = entry.strip()
        if speaks_to_us and tag in OPT_OUT_TAGS:
            return f"x-robots-tag: {tag}"
    return ""


class Robots:
    """The robots.txt of every host, asked once and kept; one object for all threads.

    A host without one allows everything; one that cannot be asked (a server error, no answer) allows nothing, as RFC
    9309 has it.
    """

    def __init__(self, get: Callable[[str], Response], agent: str) -> None:
        self._get, self._agent = get, agent
        self._rules: dict[str, Protego | str] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def forbids(self, url: str) -> str:
        """Return why robots.txt forbids a URL, or "".

        Raises:
            Refused: not a URL.
        """
        rules = self._of(host_of(url))
        if isinstance(rules, str):
            return rules
        return "" if rules.can_fetch(url, self._agent) else "robots.txt disallows it"

    def delay_s(self, url: str) -> float:
        """Return the crawl delay a host asks for, at most 30 seconds; 0 for none."""
        rules = self._of(host_of(url))
        delay = None if isinstance(rules, str) else rules.crawl_delay(self._agent)
        return min(30.0, float(delay or 0))

    def _of(self, host: str) -> Protego | str:
        with self._guard:
            lock = self._locks.setdefault(host, threading.Lock())
        with lock:
            if host not in self._rules:
                self._rules[host] = self._ask(host)
            return self._rules[host]

    def _ask(self, host: str) -> Protego | str:
        try:
            answer = self._get(f"{host}/robots.txt")
        except Refused as error:
            return f"robots.txt cannot be read: {error}"
        if 400 <= answer.status < 500:
            return Protego.parse("")
        if answer.status != 200:
            return f"robots.txt cannot be read: status {answer.status}"
        return Protego.parse(answer.body[:MAX_ROBOTS_BYTES].decode("utf-8", "replace"))
