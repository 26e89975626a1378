"""Imports of others without what they would import only because it happens to be installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(name: str) -> Iterator[None]:
    """Let imports inside the `with` block find no module `name`, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what makes `import name` an ImportError
    try:
        yield
    finally:
        del sys.modules[name]
