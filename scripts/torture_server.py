"""A Regrow that scripts/torture can break: its configuration, its commands, and what /proc says of its processes."""

import collections
import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time

from measuring import free_port, plain_environment, stat, tree

COMMAND_PATIENCE = 60
SETTLE_PATIENCE = 30

# What reloads change; the rest of the configuration stays.
USUAL = {"mode": "processPool = 4", "site": "site", "accessLog": "log/access.log", "supervisor": "", "log": "", "status": "",
         "more": ""}
CONFIGURATION = """
[server]
socketHost = 127.0.0.1
socketPort = {port}
socketQueueSize = 1024
{mode}
{tls}

[staticContent]
/ = {site}

[limits]
headerTimeout = 60s

[supervisor]
requestTimeout = 3s
gracefulTimeout = 10s
startTimeout = 5s
pidFile = pid
controlSocket = control
{supervisor}

[log]
errorLog = error.log
accessLog = {accessLog}
{log}

[status]
{status}
{more}
"""


class Failed(Exception):
    """Regrow did not do what it is to do."""


class Regrow:
    """One, in a folder of its own."""

    def __init__(self, name, program, folder, credentials=None):
        self.name, self.program, self.folder = name, program, folder
        self.port = free_port()
        self.tls = "sslKeyFile = {}\nsslCertificateFile = {}".format(*credentials) if credentials else ""
        os.makedirs(self.path("log"), exist_ok=True)
        self.configure()
        self.process = subprocess.Popen([program, "serve", "-c", self.path("site.conf")], stdin=subprocess.DEVNULL,
                                        env=plain_environment())
        self.wait(lambda: self.status()["ok"], "ready")

    def path(self, name):
        return os.path.join(self.folder, name)

    def configure(self, **changes):
        words = USUAL | changes | {"port": self.port, "tls": changes.get("tls", self.tls)}
        with open(self.path("site.conf"), "w") as file:
            file.write(CONFIGURATION.format(**words))

    def command(self, *words):
        """(what it said, seconds), or Failed with what it said."""
        begin = time.monotonic()
        done = subprocess.run([self.program, *words, "--controlSocket", self.path("control")], capture_output=True, text=True,
                              env=plain_environment(), timeout=COMMAND_PATIENCE)
        took = time.monotonic() - begin
        said = (done.stdout + done.stderr).strip()
        if done.returncode:
            raise Failed(f"{' '.join(words)}: exit code {done.returncode}: {said}")
        return said, took

    def status(self):
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        with contextlib.closing(connection):
            connection.sock.connect(self.path("control"))
            connection.request("GET", "/status")
            return json.load(connection.getresponse())

    def wait(self, condition, what, patience=SETTLE_PATIENCE):
        """Whatever else is wrong meanwhile."""
        deadline = time.monotonic() + patience
        last = None
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                last = self.status()
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                if condition():
                    return
            time.sleep(0.01)
        raise Failed(f"not {what} within {patience} s; it says: {last}")

    def settle(self, wanted=None, without=()):
        """Waits until all workers serve, none of those, and none of a generation before is left."""
        def settled():
            workers = self.status()["workers"]
            there = self.workers()
            return (workers["serving"] == workers["wanted"] == len(there) and wanted in (None, len(there))
                    and not set(there) & set(without))
        self.wait(settled, f"settled with {wanted or 'all'} workers")

    def bury(self, master):
        """Waits for the end of one that has left everything to another."""
        begin = time.monotonic()
        while True:
            pid, status = os.waitpid(master, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > begin + SETTLE_PATIENCE:
                raise Failed(f"the master pid={master} did not leave within {SETTLE_PATIENCE} s")
            time.sleep(0.005)
        if code := os.waitstatus_to_exitcode(status):
            raise Failed(f"the master pid={master} ended with {code}")

    def master(self):
        with open(self.path("pid")) as file:
            return int(file.read())

    def workers(self):
        """Also those that leave, and the new master of an upgrade, while there are any."""
        return [pid for pid in children(self.master()) if name_of(pid) != "regrow-reporter"]

    def reporter(self):
        return next(pid for pid in children(self.master()) if name_of(pid) == "regrow-reporter")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def name_of(pid):
    """Without a name where there is no such process."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def descriptors(pid):
    """What each is, without the number that tells it from others of its kind."""
    return collections.Counter(re.sub(r":\[.*", "", os.readlink(f"/proc/{pid}/fd/{name}")) for name in open_descriptors(pid))


def open_descriptors(pid):
    return os.listdir(f"/proc/{pid}/fd")


def memory_of(pid):
    """Proportional set size, in KiB."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def limit_descriptors(pid, count):
    """Returns what it was."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, hard))
    return soft


def connected_ports():
    """{inode: the client's port}, of everything on this machine that is connected over IPv4 (proc(5), /proc/net/tcp)."""
    with open("/proc/net/tcp") as file:
        lines = (line.split() for line in file.readlines()[1:])
        return {fields[9]: int(fields[2].rpartition(":")[2], 16) for fields in lines if fields[9] != "0"}


def ports_of(pid, connected):
    """Of the clients whose connections a process has."""
    ports = set()
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                kind, _, inode = os.readlink(f"/proc/{pid}/fd/{descriptor}").partition(":[")
                if kind == "socket":
                    ports.add(connected.get(inode.rstrip("]")))
    return ports - {None}


def end(pid):
    """A process and all below it."""
    for member in tree(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def is_zombie(pid):
    with contextlib.suppress(OSError):
        return stat(pid)[0] == "Z"
    return False
