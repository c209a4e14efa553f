"""A Slurm of one machine, for tests: ``python slurm_on_loopback.py FOLDER``, until its standard input is closed.

Its daemons (munged, slurmctld, slurmd) have keys, sockets, ports, state and logs of their own, in FOLDER, so that it
touches nothing outside, several can run side by side, and a killed test leaves nothing behind. It prints the path for
SLURM_CONF when it is ready. Partition ``main`` gives way to partition ``urgent``: its jobs are requeued.
"""

import contextlib
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job may start again after so many seconds, in place of 120; fewer are refused.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# No systemd, no control groups, no accounts.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
# Two cores, whatever the machine has.
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=500 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=60 State=UP PriorityTier=2 PreemptMode=OFF
"""


@contextlib.contextmanager
def daemon(folder: Path, *command: str) -> Iterator[None]:
    """A daemon in the foreground, its log in the folder; ended, by force if need be."""
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until(folder: Path, wanted: str, *command: str) -> None:
    """Wait until a command prints just this."""
    deadline = time.monotonic() + 300
    while (said := subprocess.run(command, capture_output=True, text=True)).stdout.strip() != wanted:
        if time.monotonic() > deadline:
            logs = "\n".join(log.read_text(errors="replace")[-1000:] for log in folder.glob("*.log"))
            raise TimeoutError(f"{' '.join(command)}: {said.stdout}{said.stderr}\n{logs}")
        time.sleep(0.1)


def host() -> str:
    """The machine's name as Slurm has it."""
    return platform.node().partition(".")[0]


def free_ports(count: int) -> list[int]:
    """Free ones that the system gives to nobody who asks for any: their servers take seconds to start."""
    given_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", 10_000 + secrets.randbelow(max(given_from, 20_000) - 10_000)))
                found.append(one.getsockname()[1])
    return found


def main(folder: Path) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the daemons are ended as after a Ctrl-C
    conf, key, munge = folder / "slurm.conf", folder / "munge.key", folder / "munge.socket"
    for path in (folder, folder / "state", folder / "spool"):
        path.mkdir(exist_ok=True)
    folder.chmod(0o711)
    user = subprocess.check_output(["id", "--user", "--name"], text=True).strip()
    conf.write_text(CONF.format(host=host(), ports=free_ports(2), user=user, folder=folder))
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    os.environ["SLURM_CONF"] = str(conf)
    files = [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "seed", "log")]
    with (
        daemon(folder, "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}", *files),
        daemon(folder, "slurmctld", "-D", "-f", str(conf)),
        daemon(folder, "slurmd", "-D", "-f", str(conf), "-N", host()),
    ):
        wait_until(folder, "idle", "sinfo", "--noheader", "--format=%T", "--partition=main")
        print(conf, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()
        subprocess.run(["scancel", f"--user={user}"], check=False)
        wait_until(folder, "", "squeue", "--noheader")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
