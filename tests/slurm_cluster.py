"""A real SLURM with two nodes on this machine's loopback, for tests: started in a second, stopped by process handle.

The nodes are two slurmd on two ports; authentication is a munged of its own; there is no accounting, so `sacct` knows
nothing. It needs Debian's packages slurmctld, slurmd, slurm-client and munge, and a host name that resolves to 127.x.
"""

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
NODES = ("n1", "n2")
SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

CONFIGURATION = """\
ClusterName=test
FirstJobId={first}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={home}/run/munge.sock,cred_expire=5
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool/%n
SlurmctldPidFile={home}/run/slurmctld.pid
SlurmdPidFile={home}/run/slurmd.%n.pid
SlurmctldLogFile={home}/log/slurmctld.log
SlurmdLogFile={home}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
DefMemPerCPU=100
JobRequeue=1
KillWait=5
MinJobAge=86400
MaxArraySize=51
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=10
BatchStartTimeout=10
ReturnToService=2
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=4 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE DefaultTime=5 PriorityTier=1 GraceTime=20 State=UP
PartitionName=high Nodes=n[1-2] MaxTime=INFINITE DefaultTime=5 PriorityTier=10 PreemptMode=OFF State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here, in one sentence; None when one can."""
    if absent := [program for program in NEEDED if shutil.which(program, path=SBIN) is None]:
        return f"SLURM's daemons are not installed: {', '.join(absent)} not found."
    try:
        address = socket.gethostbyname(os.uname().nodename)
    except OSError:
        return f"The host name {os.uname().nodename} does not resolve; SLURM's daemons need it to be 127.x."
    if not address.startswith("127."):
        return f"The host name {os.uname().nodename} resolves to {address}; SLURM's daemons need 127.x here."
    return None


def until(seconds: float, condition: Callable[[], bool], what: str, *, every: float = 0.05) -> None:
    """Waits for `condition`, at most `seconds`; raises TimeoutError naming `what` did not happen."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"Waited {seconds:g} s in vain: {what}.")
        time.sleep(every)


class Cluster:
    """One cluster in a directory of its own. `up` and `down` are called once each, `down` also after a failed `up`."""

    def __init__(self) -> None:
        # A unix socket's path ends at 108 characters, so a long TMPDIR will not do.
        parent = tempfile.gettempdir() if len(tempfile.gettempdir()) < 50 else "/tmp"
        self.home = Path(tempfile.mkdtemp(prefix="an", dir=parent))
        self.port = free_ports(3)
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.env = os.environ | {"SLURM_CONF": str(self.home / "slurm.conf"), "PATH": SBIN}

    def up(self) -> None:
        """Starts munged, the controller and both nodes, and waits until the nodes are idle (about a second)."""
        for folder in ("run", "log", "state", "spool/n1", "spool/n2"):
            (self.home / folder).mkdir(parents=True)
        key = self.home / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        self._configure()
        self.start_munged()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        until(30, self.idle, "the nodes became idle")

    def _configure(self) -> None:
        host = os.uname().nodename.split(".")[0]
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        first = int(time.time()) % 60_000_000 + 1  # ids must not repeat from one cluster to the next
        text = CONFIGURATION.format(
            first=first, host=host, user=user, home=self.home, port=self.port, n1=self.port + 1, n2=self.port + 2
        )
        (self.home / "slurm.conf").write_text(text)

    def start_munged(self) -> None:
        run = self.home / "run"
        places = {
            "socket": run / "munge.sock",
            "key-file": self.home / "munge.key",
            "pid-file": run / "munged.pid",
            "seed-file": run / "munge.seed",
            "log-file": self.home / "log" / "munged.log",
        }
        self.start("munged", ["munged", "--foreground", "--force", *(f"--{name}={at}" for name, at in places.items())])
        until(10, (run / "munge.sock").exists, "munged made its socket")

    def start_controller(self) -> None:
        """Also after it was killed: it keeps its state, so the jobs come back."""
        self.start("slurmctld", ["slurmctld", "-D"])
        until(20, lambda: listens(self.port), "slurmctld listened on its port")

    def start_node(self, node: str) -> None:
        self.start(node, ["slurmd", "-D", "-N", node])

    def start(self, name: str, argv: list[str]) -> None:
        program = shutil.which(argv[0], path=SBIN)
        assert program is not None, argv[0]
        # A daemon dies with this process even if that is killed, wherever util-linux can arrange it.
        leash = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv", path=SBIN) else []
        with (self.home / "log" / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [*leash, program, *argv[1:]],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def sh(self, *argv: str, timeout: float = 20) -> str:
        """Output of a client command; raises CalledProcessError with its words, or TimeoutExpired."""
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
        return done.stdout

    def idle(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return self.sh("sinfo", "-h", "-N", "-p", "main", "-o", "%t").split() == ["idle", "idle"]
        return False

    def jobs(self) -> list[str]:
        """Ids of the jobs (array tasks singly) that have not ended."""
        return self.sh("squeue", "-h", "-r", "-o", "%i").split()

    def clear(self) -> None:
        """Cancels every job and waits for an empty queue: what each test starts from."""
        if jobs := set(self.sh("squeue", "-h", "-o", "%A").split()):
            with contextlib.suppress(subprocess.CalledProcessError):  # one may have ended meanwhile
                self.sh("scancel", *jobs)
            until(200, lambda: not self.jobs(), "the cancelled jobs left the queue", every=0.2)

    def down(self) -> None:
        """Stops everything that `up` and the jobs started, and removes the directory."""
        with contextlib.suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired, TimeoutError):
            self.clear()
        for daemon in reversed(self.daemons.values()):
            end(daemon)
        for pid in self.left_over():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.home)

    def left_over(self) -> list[int]:
        """Steps and tasks that outlived their slurmd, told by our SLURM_CONF in their environment."""
        mine, found = f"SLURM_CONF={self.home}/slurm.conf".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it may end while we look
                environment = (process / "environ").read_bytes().split(b"\0")
                task = any(entry.startswith(b"SLURM_JOB_ID=") for entry in environment)
                step = (process / "comm").read_text() == "slurmstepd\n"
                if mine in environment and int(process.name) != os.getpid() and (task or step):
                    found.append(int(process.name))
        return found


def end(daemon: subprocess.Popen[bytes]) -> None:
    """TERM (after CONT, in case a test stopped it), ten seconds, KILL."""
    if daemon.poll() is None:
        daemon.send_signal(signal.SIGCONT)
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
    daemon.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports nobody listens on, below the range that outgoing connections use."""
    for _ in range(100):
        first = random.SystemRandom().randrange(20_000, 32_000 - count)
        if all(bindable(first + i) for i in range(count)):
            return first
    raise OSError(f"Found no {count} neighbouring free ports between 20000 and 32000.")


def bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
