from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from scripts.benchmark import process
from scripts.benchmark.machine import available_cores
from scripts.benchmark.process import BenchError, Child, free_port, wait_for_answer
from tests.integration.basics import until

if TYPE_CHECKING:
    from pathlib import Path


def child(directory: Path, code: str) -> Child:
    return Child("one", [sys.executable, "-u", "-c", code], directory, available_cores())


def await_log(one: Child, text: str) -> None:
    while text not in one.log.read_text():
        one.ensure_alive()


SERVE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    answered = 0
    def do_GET(self):
        Handler.answered += 1
        self.send_response(200 if Handler.answered > 2 else 503)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int({port})), Handler).serve_forever()
"""


def test_a_child_that_ended_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    one = child(tmp_path, "print('no such listener'); raise SystemExit(3)")
    with pytest.raises(BenchError, match=r"one ended with status 3:\n  \| no such listener"):
        wait_for_answer([one], ("127.0.0.1", free_port()), "/", {})
    one.stop()


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot start /no/such: No such file"):
        Child("one", ["/no/such"], tmp_path, available_cores())


def test_a_child_has_started_when_it_answers_200(tmp_path: Path) -> None:
    port = free_port()
    one = child(tmp_path, SERVE.format(port=port))
    try:
        seconds = wait_for_answer([one], ("127.0.0.1", port), "/", {})
    finally:
        one.stop()
    assert 0 < seconds < process.START_SECONDS
    assert one.log_tail().count('" 503') == 2
    assert repr(one).endswith(f"ended -{signal.SIGTERM:d}>")


def test_a_child_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_SECONDS", 0.3)
    one = child(tmp_path, "print('dreaming'); import signal; signal.pause()")
    await_log(one, "dreaming")
    try:
        with pytest.raises(BenchError, match=r"(?s)no good answer .*refused.*dreaming"):
            wait_for_answer([one], ("127.0.0.1", free_port()), "/", {})
    finally:
        one.stop()


def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.2)
    one = child(
        tmp_path,
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(f'<{os.getpid()}>' if os.fork() else f'<<{os.getpid()}>>'); signal.pause()",
    )
    await_log(one, "<<")
    await_log(one, ">>")
    grandchild = int(one.log.read_text().partition("<<")[2].partition(">>")[0])
    alone = child(tmp_path, "import signal; signal.pause()")
    assert one.rss_mb() > 1.5 * process._rss_bytes(one.pid) / 2**20
    one.stop()
    alone.stop()
    assert "ended -9" in repr(one)
    # It is init's to reap; until then it is a zombie, which holds nothing once the kernel is done.
    until(lambda: process._rss_bytes(grandchild) == 0, "end of the grandchild")


def test_what_a_child_would_leave_behind_is_killed_too(tmp_path: Path) -> None:
    one = child(tmp_path, "import os, signal; print(f'<{os.fork()}>', flush=True); signal.pause()")
    await_log(one, ">")
    found = one.log.read_text()
    grandchild = max(int(part.partition(">")[0]) for part in found.split("<")[1:])
    one.stop()
    until(lambda: process._rss_bytes(grandchild) == 0, "end of the grandchild")


def test_ctrl_c_at_the_terminal_reaches_the_benchmark_alone(tmp_path: Path) -> None:
    one = child(tmp_path, "import signal; signal.pause()")
    try:
        assert os.getpgid(one.pid) == one.pid != os.getpgrp()
    finally:
        one.stop()


def test_a_child_stays_on_its_cores(tmp_path: Path) -> None:
    core = frozenset({min(available_cores())})
    one = Child("one", [sys.executable, "-c", "import signal; signal.pause()"], tmp_path, core)
    try:
        assert os.sched_getaffinity(one.pid) == core
    finally:
        one.stop()


def test_processor_time_is_that_of_all_its_processes(tmp_path: Path) -> None:
    work = (
        "import signal, time\nwhile time.process_time() < 0.2: pass\nprint('done'); signal.pause()"
    )
    parent = f"import os\nos.fork()\n{work}"
    one = child(tmp_path, parent)
    try:
        while one.log.read_text().count("done") < 2:
            one.ensure_alive()
        assert one.cpu_seconds() >= 0.38
    finally:
        one.stop()
