"""The supervised child: crashes, hangs and nonsense become named faults, and the next request is served."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cavendish.render.engines.worker import Limits, Worker, WorkerFault

CHILD = """
import os, signal, sys, time
from pathlib import Path
from cavendish.render.engines.worker import leave_with_parent, receive, send, take_over_pipes
requests, answers = take_over_pipes()
leave_with_parent()
print("a library prints this")
send(answers, {"pid": os.getpid()}, b"")
mark = Path(sys.argv[1])
while (message := receive(requests)) is not None:
    do = message[0]["do"]
    if do.startswith("once-") and mark.exists():
        do = "answer"
    elif do.startswith("once-"):
        mark.touch()
        do = do[5:]
    if do == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if do == "memory":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "exit":
        os._exit(7)
    if do == "hang":
        time.sleep(60)
    if do == "nonsense":
        answers.write(b"\\xff" * 64)
        answers.flush()
        continue
    send(answers, {"pid": os.getpid(), "echo": message[0]["do"]}, b"x" * 3_000_000)
"""


def make_worker(tmp_path: Path, timeout_s: float = 1.5, recycle_after: int = 100) -> Worker:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    root = str(Path(__file__).parents[3])
    command = [sys.executable, str(script), str(tmp_path / "mark")]
    return Worker(command, Limits(60, timeout_s, recycle_after), environment={"PYTHONPATH": root})


def test_answers_come_back_whole_and_prints_do_not_disturb_them(tmp_path: Path) -> None:
    worker = make_worker(tmp_path)
    header, blob = worker.ask({"do": "answer"})
    assert header["echo"] == "answer"
    assert blob == b"x" * 3_000_000
    worker.close()


@pytest.mark.parametrize("fault", ["crash", "memory", "exit", "nonsense"])
def test_one_fault_is_repaired_by_a_fresh_child(tmp_path: Path, fault: str) -> None:
    worker = make_worker(tmp_path)
    first = worker.start()["pid"]
    header, _ = worker.ask({"do": f"once-{fault}"})
    assert header["pid"] != first
    worker.close()


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("crash", "killed by SIGSEGV"),
        ("memory", "killed by SIGKILL .out of memory"),
        ("exit", "exited with code 7"),
        ("nonsense", "sent nonsense"),
        ("hang", "hung: no answer in 1.5 s"),
    ],
)
def test_a_fault_that_repeats_is_named_and_the_next_request_is_served(tmp_path: Path, fault: str, name: str) -> None:
    worker = make_worker(tmp_path)
    with pytest.raises(WorkerFault, match=name):
        worker.ask({"do": fault})
    assert worker.ask({"do": "answer"})[0]["echo"] == "answer"
    worker.close()


def test_a_child_that_never_starts_is_a_fault() -> None:
    worker = Worker([sys.executable, "-c", "import time; time.sleep(30)"], Limits(0.5, 1, 10))
    with pytest.raises(WorkerFault, match=r"no start in 0\.5 s"):
        worker.ask({})


def test_children_are_recycled(tmp_path: Path) -> None:
    worker = make_worker(tmp_path, recycle_after=2)
    pids = [worker.ask({"do": "answer"})[0]["pid"] for _ in range(5)]
    assert [pids[0] == pids[1], pids[1] == pids[2], pids[2] == pids[3], pids[3] == pids[4]] == [
        True,
        False,
        True,
        False,
    ]
    assert not psutil.pid_exists(pids[0])
    worker.close()


@pytest.mark.slow
def test_the_child_ends_with_a_killed_parent_even_while_busy(tmp_path: Path) -> None:
    make_worker(tmp_path).close()  # writes the script
    code = (
        "import sys, threading, time; from cavendish.render.engines.worker import Limits, Worker; "
        "w = Worker([sys.executable, *sys.argv[1:]], Limits(60, 60, 9)); print(w.start()['pid'], flush=True); "
        "w.ask({'do': 'hang'})"
    )
    root = str(Path(__file__).parents[3])
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "child.py"), str(tmp_path / "mark")],
        stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_child_that_dies_while_it_starts_gets_a_second_try(tmp_path: Path) -> None:
    tried = tmp_path / "tried"
    script = tmp_path / "slow_start.py"
    script.write_text(
        f"import os, sys\nif not os.path.exists({str(tried)!r}):\n"
        f"    open({str(tried)!r}, 'w').close()\n    os._exit(7)\n"
        f"sys.argv[1:] = [{str(tmp_path / 'mark')!r}]\n{CHILD}"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[3])}
    worker = Worker([sys.executable, str(script)], Limits(60, 5.0, 100), environment=environment)
    assert worker.start()["pid"]
    assert worker.ask({"do": "answer"})[0]["echo"] == "answer"
    worker.close()
    script.write_text("raise SystemExit(7)")
    with pytest.raises(WorkerFault, match="exited with code 7"):
        Worker([sys.executable, str(script)], Limits(60, 5.0, 100)).start()
