"""Processes that need not import torch and the models anew: forks of one that has, also under the name of ``python``."""

import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

TESTS = Path(__file__).parent
PYTHON = sys.executable
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    told = dict(arguments=sys.argv[1:], environment=dict(os.environ), folder=os.getcwd())
    socket.send_fds(server, [json.dumps(told).encode()], [0, 1, 2])
    sys.exit(int(server.recv(16) or 1))
"""
"""Asks for a process with its own arguments, environment, folder and output, and exits as that does."""


started = None
"""The process that these are forked from, once it is there."""


def processes() -> ForkServerContext:
    """Give processes that are forked from one which has imported what a training imports."""
    global started
    context, server = multiprocessing.get_context("forkserver"), forkserver._forkserver
    if started is None or server._forkserver_pid != started:
        if server._forkserver_pid is not None:  # for the decoders of a test, which need less
            os.kill(server._forkserver_pid, signal.SIGKILL)
            server._stop()
        context.set_forkserver_preload(["training_imports"])
        with pytest.MonkeyPatch.context() as patch:  # the server has no other way of finding what it is to import
            patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (TESTS, TESTS.parent))), prepend=os.pathsep)
            server.ensure_running()
        started = server._forkserver_pid
        first = context.Process(target=_see_imports)
        first.start()
        first.join()
        assert first.exitcode == 0, "it imports nothing ahead, and says nothing"
    return context


def _see_imports() -> None:
    assert "training_imports" in sys.modules


def run_code(code: str, **names: Any) -> str:
    """Run code, in which these names stand for values, in such a process; returns what it printed."""
    receives, sends = multiprocessing.Pipe(duplex=False)
    process = processes().Process(target=_tell, args=(code, names, sends))
    process.start()
    sends.close()
    try:
        printed = receives.recv()
    except EOFError:
        printed = None
    process.join()
    assert process.exitcode == 0, "its error is in the output of this process"
    return printed


def _tell(code: str, names: dict[str, Any], sends: Connection) -> None:
    torch.set_num_threads(1)
    with redirect_stdout(StringIO()) as printed:
        exec(code, names)
    sends.send(printed.getvalue())


@contextmanager
def quick_python(folder: Path) -> Iterator[None]:
    """Write a program ``python`` into a folder that runs its script, module or code in such a process, while a block lasts."""
    address = str(folder / "python.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        server = processes().Process(target=_serve, args=(listening,))
        server.start()
    (folder / "python").write_text(CLIENT.format(python=PYTHON, address=address))
    (folder / "python").chmod(0o755)
    yield
    server.kill()
    server.join()


def _serve(listening: socket.socket) -> None:
    """Give each client a process that looks after its script."""
    forks = multiprocessing.get_context("fork")
    torch.set_num_threads(1)
    while True:
        client, _ = listening.accept()
        multiprocessing.active_children()  # joins those that have ended
        forks.Process(target=_look_after, args=(client, forks)).start()
        client.close()


def _look_after(client: socket.socket, forks: ForkContext) -> None:
    """Run a client's script, tell the client how it ended, and end it with the client."""
    told, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
    script = forks.Process(target=_run_script, args=(json.loads(told), streams))
    script.start()
    ended, _, _ = select.select([script.sentinel, client], [], [])
    if client in ended:
        script.kill()
    script.join()
    with suppress(OSError):
        client.send(str(script.exitcode & 0xFF).encode())


def _run_script(told: dict[str, Any], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.environ.clear()
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    kind, *rest = [each for each in told["arguments"] if each != "-u"]
    if kind == "-c":
        sys.argv = [kind, *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")
