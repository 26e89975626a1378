"""The command line: one thin verb per stage.

Exit codes: 0 fine, 1 the answer is no (leak found, verification failed, job not complete), 2 bad input or usage,
130 stopped by Ctrl-C; `audit` adds 3 (coverage incomplete) and 4 (only pairs to review).
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

# isort: off
from cavendish.cli import data, audit, mixture, training, show, planning  # noqa: F401  (the verbs, in the order of the help)

# isort: on
from cavendish.cli.app import LOOK, Out, Workers, app, complain, counted, here_only, progress_bar, say
from cavendish.encoders.sample import InputError
from cavendish.mixing.extras import EXTRAS, missing_extra, require_extra

INTERRUPTED = 130
_SAME_AGAIN = (errno.ENOENT, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EROFS)
"""Errors of the system that the same command would meet again."""
_ClickError: Any = typer.BadParameter.__mro__[2]  # of every error of usage; typer may bring its own copy of click


@app.command(rich_help_panel=LOOK)
def demo(
    out: Out = Path("demo-output"),
    workers: Workers = os.cpu_count() or 1,
) -> None:
    """Run every stage on the example configurations, in about ten minutes, and write one page that shows it."""
    extras = ("render", "annotate", "train", "evaluate", "demo")
    require_extra("demo", *(module for extra in extras for module in EXTRAS[extra]))
    from cavendish.demo.pipeline import run_demo

    run_demo(out, workers, progress_bar, say)


@app.command(rich_help_panel=LOOK)
def examples(
    folder: Annotated[Path, typer.Argument(metavar="DIR", callback=here_only, help="The folder to write, a new one.")],
) -> None:
    """Write the example configurations: a commented YAML for each verb, to start from."""
    from cavendish.demo import EXAMPLES

    if folder.exists():
        raise InputError(f"{folder}: exists already, and nothing is overwritten; name a new folder")
    shutil.copytree(EXAMPLES, folder)
    say(f"{folder}: {counted(len(list(folder.rglob('*.yaml'))), 'configuration')}")


def main() -> None:
    """Run the command line; what goes wrong is one line on stderr, and the exit code says of what kind it is."""
    from cavendish.mixing.jobs.runners import JobFailed

    logging.basicConfig(level=logging.ERROR)  # Beam and its kin log routine matters as warnings
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        code = app(prog_name="cavendish", standalone_mode=False)
    except InputError as error:
        _leave(2, str(error))
    except JobFailed as error:
        _leave(1, str(error))
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        _leave(2, str(missing))
    except _ClickError as error:
        _leave(2, _usage(error))
    except FileExistsError as error:
        _leave(2, f"{error.filename}: is a file, and a folder is due there")
    except (NotADirectoryError, IsADirectoryError) as error:
        _leave(2, _of_file(error))
    except OSError as error:
        wrong = isinstance(error, FileNotFoundError | PermissionError)
        safe = ". What is finished is safe: run the same command again to continue"
        _leave(2 if wrong else 1, _of_file(error) + ("" if error.errno in _SAME_AGAIN else safe))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # children are ended now; that takes a few seconds
        _leave(INTERRUPTED, "interrupted; what is finished is kept, run the same command again to continue")
    sys.exit(code if isinstance(code, int) else 0)


def _leave(code: int, text: str) -> None:
    if text:
        complain(f"cavendish: {text}")
    sys.exit(code)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    logging.disable(logging.CRITICAL)  # that threads and libraries were cut off in their work is no news
    raise KeyboardInterrupt


def _of_file(error: OSError) -> str:
    name = re.sub(r"\.tmp-[^/]*$", "", str(error.filename or ""))  # of the file that was to be, not of its draft
    return f"{name}: {error.strerror}" if name else str(error.strerror or error)


def _usage(error: Any) -> str:
    if type(error).__name__ == "NoArgsIsHelpError":  # the help was its message
        return ""
    told = str(error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None:
        return told
    option = getattr(error, "option_name", "")
    if told.startswith("No such option") and any(each.name == "override" for each in context.command.params):
        told += f"; a setting of the configuration is written {option.lstrip('-')}=VALUE"
    verb = context.command_path.partition(" ")[2]
    return f"{verb}{': ' if verb else ''}{told[:1].lower()}{told[1:]} (see: {context.command_path} --help)"


if __name__ == "__main__":
    main()
