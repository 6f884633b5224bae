"""Run installed commands in processes of their own that need not import PyTorch and its friends again.

A server imports what nnU-Net's commands import of other packages, which takes most of the time that they need to start,
and forks a process for each command. That process gets the command's environment, folder and streams, imports nnU-Net
and ours, and runs the installed script to its end, as a shell would. Tests that signal commands or the processes they
start, and those of shell scripts, start commands as usual.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

# None of them reads nnU-Net's environment variables.
_IMPORTED = (
    *("torch", "torch._dynamo", "SimpleITK", "pandas", "matplotlib.pyplot", "seaborn", "nibabel", "blosc2", "cc3d"),
    *("scipy.ndimage", "scipy.stats", "skimage.measure", "skimage.transform", "sklearn.model_selection"),
    *("acvl_utils.cropping_and_padding.padding", "batchgenerators.utilities.file_and_folder_operations"),
    *("batchgeneratorsv2.transforms.base.basic_transform", "dynamic_network_architectures.architectures.unet"),
)
_STREAMS = 3


class ForkedCommands:
    """A server, started with an environment; it ends with ``close`` or with this process."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = os.path.join(self._folder.name, "commands")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self._path)
            listening.listen()
            number = listening.fileno()
            command = [sys.executable, __file__, str(number)]
            self._process = subprocess.Popen(command, env=dict(env), pass_fds=[number], stdin=subprocess.PIPE)

    def run(self, argv: Sequence[str], env: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a Python script with arguments, as ``subprocess.run`` does with ``capture_output`` and ``text``.

        Raises:
            TimeoutError: it takes longer, and goes on.
        """
        with (
            tempfile.TemporaryFile("w+", errors="replace") as out,
            tempfile.TemporaryFile("w+", errors="replace") as err,
            open(os.devnull) as nothing,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            connection.settimeout(timeout)
            connection.connect(self._path)
            socket.send_fds(connection, [b"\n"], [nothing.fileno(), out.fileno(), err.fileno()])
            connection.sendall(json.dumps({"argv": list(argv), "env": dict(env), "folder": os.getcwd()}).encode())
            connection.shutdown(socket.SHUT_WR)
            status = connection.recv(16)
            assert status, f"the server of commands ended before {argv}"
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(argv), int(status), out.read(), err.read())

    def close(self) -> None:
        """End the server; commands that it has started go on."""
        self._process.communicate()
        self._folder.cleanup()


def _serve(listening: socket.socket) -> NoReturn:
    for name in _IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that ended children need no wait
    while listening in select.select([listening, sys.stdin], [], [])[0]:  # the end of stdin is that of the tests
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            _run_and_report(connection)
        connection.close()
    sys.exit()


def _run_and_report(connection: socket.socket) -> NoReturn:
    """Fork the command and send its exit status, negative for a signal."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    streams = socket.recv_fds(connection, 1, _STREAMS)[1]
    request = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
    command = os.fork()
    if command == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _run_script(request["argv"], request["env"], request["folder"])
    status = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    connection.sendall(str(status).encode())
    os._exit(0)


def _run_script(argv: Sequence[str], env: Mapping[str, str], folder: str) -> NoReturn:
    """Be a new process that runs the script: only its imports are not new."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    _seed()
    sys.argv = list(argv)
    paths = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [str(Path(argv[0]).parent), *paths, *(path for path in sys.path[1:] if path not in paths)]
    status: object = 0
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
    except BaseException:  # a process that ends by any exception prints it
        sys.excepthook(*sys.exc_info())
        status = 1
    _finish()
    os._exit(status if isinstance(status, int) else int(status is not None))


def _seed() -> None:
    """Numbers drawn without a seed differ between commands, as in processes that share nothing."""
    import numpy as np

    random.seed()
    np.random.seed()


def _finish() -> None:
    """What Python does at the end of a process."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
