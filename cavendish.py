"""The command line: one thin verb per stage; they are in commands/.

Exit codes: 0 fine, 1 the answer is no (leak found, verification failed, job not complete), 2 bad input or usage;
`audit` adds 3 (coverage incomplete) and 4 (only pairs to review).
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from commands import audit, card, data, mixture, planning, show, training  # noqa: F401  (the verbs, in the order of the help)
from commands.app import Out, Workers, app, complain, console, errors, progress_bar
from encoders.sample import InputError


@app.command()
def demo(
    out: Out = Path("demo-output"),
    workers: Workers = os.cpu_count() or 1,
) -> None:
    """Run every stage on the configurations of examples/, in about ten minutes, and write one page that shows it."""
    from demo.pipeline import run_demo

    run_demo(out, workers, progress_bar, console.print)


def main() -> None:
    """Run the command line; a bad input is one line on stderr and exit code 2, a full disk one and exit code 1."""
    from mixing.engine import JobFailed

    logging.basicConfig(level=logging.ERROR)  # Beam and its kin log routine matters as warnings
    try:
        app()
    except InputError as error:
        complain(f"cavendish: {error}")
        sys.exit(2)
    except JobFailed as error:
        complain(f"cavendish: {error}")
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        told = f"{where}{error.strerror or error}. What is finished is safe: run the same command again to continue"
        complain(f"cavendish: {told}")
        sys.exit(2 if isinstance(error, FileNotFoundError | PermissionError) else 1)
    except KeyboardInterrupt:
        errors.print("cavendish: interrupted; what is committed is kept, run the same command to continue")
        sys.exit(130)


if __name__ == "__main__":
    main()
