"""A real SLURM of one node: Debian's munge and slurm-wlm as plain processes in one folder, ended with the block."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo", "scontrol")
PARTITION = "folds"
_START_SECONDS = 30

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SchedulerParameters=sched_interval=1,requeue_delay=1
MailProg=/bin/true
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName={partition} Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class CannotStartError(Exception):
    """SLURM cannot run here; the message says why."""


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start controller and node, and end them; yields the variables by which commands find them.

    Raises:
        CannotStartError: programs are missing, this is not root, or the node does not come up.
    """
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise CannotStartError(f"not installed: {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        raise CannotStartError("its daemons are configured for root")
    configuration = _prepare(folder)
    variables = {"SLURM_CONF": str(configuration)}
    processes: list[subprocess.Popen] = []
    munge = folder / "munge"
    socket_options = [f"--{name}={munge / name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
    try:
        _start(processes, ["munged", "--foreground", "--force", f"--key-file={munge / 'key'}", *socket_options])
        _wait_for(lambda: (munge / "socket").exists(), "munged makes no socket", munge / "log-file")
        _start(processes, ["slurmctld", "-D", "-f", str(configuration)], variables)
        _start(processes, ["slurmd", "-D", "-f", str(configuration)], variables)
        _wait_for(lambda: "idle" in _nodes(variables), "the node does not become idle", folder / "slurmd.log")
        yield variables
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):  # in any case the daemons must be ended
            subprocess.run(["scancel", "--user=root"], env={**os.environ, **variables}, capture_output=True, timeout=30)
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _prepare(folder: Path) -> Path:
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = {"controller_port": one.getsockname()[1], "node_port": other.getsockname()[1]}
    values = {"folder": folder, "host": socket.gethostname().split(".")[0], "partition": PARTITION}
    configuration = folder / "slurm.conf"
    configuration.write_text(_CONFIGURATION.format(**values, **ports, cores=os.cpu_count()))
    return configuration


def _start(processes: list[subprocess.Popen], argv: list[str], variables: dict[str, str] | None = None) -> None:
    processes.append(
        subprocess.Popen(
            argv,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    )


def _nodes(variables: dict[str, str]) -> str:
    with contextlib.suppress(subprocess.SubprocessError):
        query = ["sinfo", "--noheader", "--format=%T"]
        environment = {**os.environ, **variables}
        return subprocess.run(query, env=environment, capture_output=True, text=True, timeout=10, check=True).stdout
    return ""


def _wait_for(ready: Callable[[], bool], problem: str, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while not ready():
        if time.monotonic() > end:
            tail = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else ["no log"]
            raise CannotStartError(f"{problem}: {' / '.join(tail)}")
        time.sleep(0.2)
