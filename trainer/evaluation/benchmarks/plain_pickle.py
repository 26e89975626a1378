"""Read a pickle that holds plain data only; anything that could call code is refused.

The published refs(umd).p files are pickles of lists, dicts, strings and numbers, written by Python 2. The opcodes that
name a global (and so could run code) are refused before anything is unpickled, and the unpickler resolves none.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.benchmarks.files import ODD, read_bytes

_CALLING = {
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX",
    "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER",
}  # fmt: skip

_MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("holds a persistent id")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of lists, dicts, tuples, strings, bytes, numbers, booleans and None.

    Raises:
        InputError: it names a class or function, or is damaged; the line tells how to convert it to json.
    """
    data = read_bytes(path)
    advice = "if you trust it, convert it to json (json.dump(pickle.load(...))) beside it with the name ending in .json"
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _CALLING:
                raise InputError(f"{path}: the pickle holds more than plain data ({opcode.name} {argument}); {advice}")
            if opcode.name in _MEMO and int(argument or 0) > len(data):  # the unpickler allocates a table of this size
                raise InputError(f"{path}: damaged pickle (memo {argument} in {len(data)} bytes); {advice}")
        return _PlainUnpickler(io.BytesIO(data), encoding="utf-8", errors="replace").load()
    except (pickle.UnpicklingError, EOFError, MemoryError, RecursionError, *ODD) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged pickle ({' '.join(str(error).split())}); {advice}") from None
