"""What scripts/bench and scripts/bench-modes measure with: a release build, servers that end with the measurement, the
load of wrk, and the CPU time and memory of a process tree."""

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICKS = os.sysconf("SC_CLK_TCK")


def prepare():
    """Ends where wrk is missing, and opens the way for many connections, here and in the servers."""
    if not shutil.which("wrk"):
        sys.exit("bench: wrk is missing; apt-get install wrk")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def build(program, *options):
    """The path of a program of the release."""
    target = os.path.abspath(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")))
    script = ('root=$1; target=$2; shift 2; . "$root/scripts/setup"; set_up_build; cd "$root"; '
              'exec cargo build --release --locked --target-dir "$target" "$@"')
    if subprocess.run(["sh", "-euc", script, "bench", ROOT, target, *options]).returncode:
        sys.exit("bench: the build failed")
    return os.path.join(target, "release", program)


def plain_environment():
    """Without options of Regrow."""
    return {name: value for name, value in os.environ.items() if not name.startswith("REGROW_")}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Server:
    """A running server, which is stopped at the end."""

    def __init__(self, name, make_command, path, scheme="http"):
        self.name, self.make_command, self.path, self.scheme = name, make_command, path, scheme
        command, self.port, environment = make_command()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)

    def __enter__(self):
        deadline = time.monotonic() + 20
        while True:
            try:
                # Its certificate was made for the occasion.
                urllib.request.urlopen(self.url(self.path), timeout=5, context=ssl._create_unverified_context()).read()
                return self
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    sys.exit(f"bench: {self.name} does not answer: {error}")
                time.sleep(0.05)

    def __exit__(self, *_):
        family = tree(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()

    def url(self, path):
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"


class Load:
    """What wrk and the server made of a load. `memory` is the server's in the middle of it."""

    def __init__(self, server, path, connections, seconds, *options, timeout=10):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{timeout}s", "--latency", *options]
        before = cpu_seconds(server.process.pid)
        wrk = subprocess.Popen(command + [server.url(path)], stdout=subprocess.PIPE, text=True)
        try:
            time.sleep(seconds / 2)
            self.memory = memory(server.process.pid)
            self.said = wrk.communicate(timeout=seconds + 60)[0]
        finally:
            wrk.kill()
        self.cpu = cpu_seconds(server.process.pid) - before
        requests, took = re.search(r"(\d+) requests in ([\d.]+\w+)", self.said).groups()
        self.requests, self.seconds = int(requests), seconds_of(took)
        self.p99 = seconds_of(re.search(r"99%\s+([\d.]+\w+)", self.said)[1])
        if wrong := re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", self.said):
            warn(f"{server.name} {path}, {connections} clients: {wrong[0]}")


def seconds_of(text):
    """`1.50ms`, as wrk writes it."""
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}[unit]


def progress(text):
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)


def warn(text):
    progress("")
    print(text, file=sys.stderr)


def pids():
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def stat(pid):
    """The fields of proc(5) stat from the third on; the second, in parentheses, may hold anything."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def parents(some):
    """(pid, parent) of those that are still there."""
    for pid in some:
        with contextlib.suppress(OSError):
            yield pid, int(stat(pid)[1])


def tree(pid):
    """A process and all below it."""
    family = [pid]
    known = list(parents(pids()))
    for member in family:
        family += [child for child, parent in known if parent == member]
    return family


def cpu_seconds(pid):
    """Of a tree: of its processes, with their threads that have ended, as exactly as the kernel has it; and of children
    that have ended, in their parents' cutime and cstime, which are told in hundredths of a second."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            # The clock of another process: clock_getcpuclockid(3).
            total += time.clock_gettime((~member << 3) | 2)
            total += sum(map(int, stat(member)[13:15])) / TICKS
    return total


def memory(pid):
    """Bytes, pages shared by n processes counting 1/n in each."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError), open(f"/proc/{member}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    return total
