"""What scripts/torture does to a Regrow. Each act waits until the server is whole again, and notes what it may have cost:
the requests on the connections of a worker that it killed, and no others."""

import collections
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time

from measuring import plain_environment
from torture_server import Failed, connected_ports, limit_descriptors, open_descriptors, ports_of

DEADLY = ["SIGKILL", "SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE", "SIGXCPU"]
IGNORED = ["SIGINT", "SIGHUP", "SIGWINCH", "SIGPIPE"]
MODES = ["processPool = 2", "processPool = 6", "threadPool = 4", "threading = 1", "forking = 1", ""]

# How often each comes in a round, in which all come in any order. `RARE` ones take long, and come in the first only.
ROUND = {"reload": 8, "reload_badly": 2, "upgrade": 3, "upgrade_badly": 1, "kill": 4, "kill_all": 1, "kill_amid_reload": 1,
         "freeze": 1, "thaw": 1, "ask_to_leave": 1, "send_ignored": 1, "reopen": 1, "scale": 1, "crowd_reloads": 1,
         "fill_disk": 1, "starve_worker": 1, "starve_master": 1, "kill_reporter": 1}
RARE = {"upgrade_to_one_that_hangs": 1}
UPGRADES = {"upgrade", "upgrade_badly", "upgrade_to_one_that_hangs"}

# `ports` are those of the clients whose connections the worker had when they were listed, at `listed`.
Kill = collections.namedtuple("Kill", "ports listed killed")


class Journal:
    """What was done, how long it took, what it may have cost, and what went wrong."""

    def __init__(self):
        self.done = collections.Counter()
        self.times = collections.defaultdict(list)
        self.kills = []
        self.leavers = []
        self.shortages = []
        self.wrong = []

    def excuse(self, loss):
        """Why this may be lost; None where it may not."""
        # A worker without descriptors lets go of what is idle, to accept, and cannot open files.
        idle = loss.why in ("closed while idle", "stale close")
        if (idle or loss.why == "status 503") and any(begin <= loss.at <= end for begin, end in self.shortages):
            return "without a descriptor"
        # Whoever signals a worker, and not the master, is taken for a service manager that stops all.
        if idle and any(was_there(loss, leaver) for leaver in self.leavers):
            return "with its worker"
        if any(was_there(loss, kill) for kill in self.kills):
            return "with its worker"
        return None


def was_there(loss, kill):
    if loss.opened > kill.killed or loss.at < kill.listed:
        return False
    # The worker may have accepted it after the list was made.
    unlisted = (loss.first is None or loss.first > kill.listed) and loss.at < kill.killed + 10
    return loss.port in kill.ports or unlisted


class Acts:
    def __init__(self, regrow, random, journal):
        self.regrow, self.random, self.journal = regrow, random, journal

    def play(self, name):
        try:
            getattr(self, name)()
            self.journal.done[name] += 1
        except (Failed, OSError, subprocess.TimeoutExpired) as why:
            self.journal.wrong.append(f"{name}, until {time.strftime('%H:%M:%S', time.gmtime())}: {why}")
            self.recover()

    def recover(self):
        self.regrow.configure()
        with contextlib.suppress(Failed):
            self.regrow.settle()

    # Reloads

    def reload(self):
        mode = self.random.choice(MODES) if self.random.random() < 0.4 else "processPool = 4"
        self.regrow.configure(
            mode=mode,
            accessLog=self.random.choice(["log/access.log", "log/access.log", "log/other.log", "off"]),
            log=self.random.choice(["", "accessFormat = json"]),
            supervisor=self.random.choice(["", "healthPath = /small.txt", "maxRequests = 500\nmaxRequestsJitter = 200"]),
            status=self.random.choice(["", "statusPort = 0"]))
        self.expect_reload()
        wanted = int(mode.split()[-1]) if mode.startswith("processPool") else 1
        there = self.regrow.status()["workers"]["wanted"]
        if there != wanted:
            raise Failed(f"{there} workers are wanted after a reload to {mode or 'a single worker'}")

    def expect_reload(self):
        _, took = self.regrow.command("reload")
        self.journal.times["reload"].append(took)

    def reload_badly(self):
        taken = socket.create_server(("127.0.0.1", 0))
        with taken:
            bad = {
                "no equals sign": {"more": "nonsense"},
                "unknown option": {"more": "nonsense = 1"},
                "missing folder": {"site": "nowhere"},
                "health path": {"supervisor": "healthPath = /nowhere"},
                "taken port": {"status": f"statusPort = {taken.getsockname()[1]}"},
                "bad certificate": {"tls": "sslKeyFile = site.conf\nsslCertificateFile = site.conf"},
            }
            kind = self.random.choice(list(bad))
            self.regrow.configure(**bad[kind])
            try:
                said, _ = self.regrow.command("reload")
            except Failed as refused:
                if "not reloaded: " not in str(refused):
                    raise
            else:
                raise Failed(f"{kind}: {said}")
            finally:
                self.regrow.configure()

    def crowd_reloads(self):
        """Collected into one or two; each is told the truth."""
        crowd = [self.begin_reload() for _ in range(4)]
        for one in crowd:
            said, _ = one.communicate(timeout=60)
            if one.returncode:
                raise Failed(said)

    def begin_reload(self):
        command = [self.regrow.program, "reload", "--controlSocket", self.regrow.path("control")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env=plain_environment())

    # Upgrades

    def upgrade(self):
        old = self.regrow.master()
        # What an installation does: another file under the same name.
        shutil.copy(self.regrow.program, self.regrow.path("next"))
        os.replace(self.regrow.path("next"), self.regrow.path("regrow"))
        _, took = self.regrow.command("upgrade", *self.random.choice([[], [self.regrow.path("regrow")]]))
        self.journal.times["upgrade"].append(took)
        if self.regrow.master() == old:
            raise Failed("the pid file names the old master after an upgrade")
        self.regrow.bury(old)

    def upgrade_badly(self):
        self.expect_no_upgrade("/bin/false", "ended before it was ready: exit code 1")

    def upgrade_to_one_that_hangs(self):
        self.expect_no_upgrade(self.regrow.path("hangs"), "was not ready within")

    def expect_no_upgrade(self, program, words):
        old = self.regrow.master()
        try:
            said, _ = self.regrow.command("upgrade", program)
        except Failed as refused:
            if words not in str(refused):
                raise
        else:
            raise Failed(f"{program}: {said}")
        if self.regrow.master() != old:
            raise Failed(f"{program}: the pid file names another master")

    # Deaths

    def kill(self, name=None):
        self.regrow.settle()
        self.end(self.victims(1), name or self.random.choice(DEADLY))

    def kill_all(self):
        self.regrow.settle()
        self.end(self.victims(64), "SIGKILL")

    def victims(self, count):
        return self.random.sample(there := self.regrow.workers(), min(count, len(there)))

    def end(self, victims, name):
        self.strike(victims, name)
        self.regrow.settle(without=victims)

    def strike(self, victims, name, on_their_way=False):
        """Sends it, and notes whose requests that may cost: also what is handed over to a victim just then, if so told."""
        self.journal.kills.append(self.send(victims, name, on_their_way))
        self.journal.done["workers killed"] += len(victims)

    def send(self, victims, name, on_their_way=False):
        listed = time.monotonic()
        connected = connected_ports()
        ports = set(connected.values()) if on_their_way else set().union(*(ports_of(pid, connected) for pid in victims))
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, getattr(signal, name))
        return Kill(ports, listed, time.monotonic())

    def kill_amid_reload(self):
        self.regrow.settle()
        reload = self.begin_reload()
        time.sleep(self.random.uniform(0, 0.1))
        victims = self.victims(1)
        self.strike(victims, "SIGKILL", on_their_way=True)
        said, _ = reload.communicate(timeout=60)
        self.regrow.settle(without=victims)
        if reload.returncode:
            raise Failed(said)

    def freeze(self):
        self.regrow.settle()
        begin = time.monotonic()
        self.end(self.victims(1), "SIGSTOP")
        self.journal.times["frozen worker replaced"].append(time.monotonic() - begin)

    def thaw(self):
        self.regrow.settle()
        victim = self.victims(1)[0]
        os.kill(victim, signal.SIGSTOP)
        time.sleep(self.random.uniform(0.1, 0.5))
        os.kill(victim, signal.SIGCONT)
        self.regrow.settle()
        if victim not in self.regrow.workers():
            raise Failed("a worker that stood still for less than half a second was replaced")

    def ask_to_leave(self):
        self.regrow.settle()
        victims = self.victims(1)
        self.journal.leavers.append(self.send(victims, self.random.choice(["SIGTERM", "SIGQUIT"])))
        self.regrow.settle(without=victims)

    def send_ignored(self):
        self.regrow.settle()
        before = self.regrow.workers()
        for victim in before:
            os.kill(victim, getattr(signal, self.random.choice(IGNORED)))
        time.sleep(0.1)
        if set(before) - set(self.regrow.workers()):
            raise Failed("a worker left because of a signal that it is to ignore")

    def kill_reporter(self):
        victim = self.regrow.reporter()
        os.kill(victim, signal.SIGKILL)
        self.regrow.wait(lambda: self.regrow.status() and self.regrow.reporter() != victim, "reporting again")

    # Everything else

    def scale(self):
        self.regrow.configure()
        self.expect_reload()
        wanted = self.random.randint(2, 7)
        self.regrow.command("scale", str(wanted))
        self.regrow.settle(wanted)

    def reopen(self):
        for name in ["access.log", "other.log"]:
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.regrow.path(f"log/{name}"), self.regrow.path("log/old.log"))
        self.regrow.command("reopen")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.regrow.path("log/old.log"))

    def fill_disk(self):
        """The file system of the access log, where it is one of its own."""
        if not os.path.ismount(self.regrow.path("log")):
            return
        filler = self.regrow.path("log/filler")
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        time.sleep(0.3)
        os.unlink(filler)

    def starve_worker(self):
        self.regrow.settle()
        begin = time.monotonic()
        with self.starved(self.victims(1)[0]):
            time.sleep(0.5)
        self.journal.shortages.append((begin, time.monotonic() + 0.5))

    def starve_master(self):
        """It cannot fork as it is to, and says so; what there is goes on."""
        self.regrow.settle()
        begin = time.monotonic()
        with self.starved(self.regrow.master()):
            victims = self.victims(1)
            self.strike(victims, "SIGKILL")
            time.sleep(0.3)
            with contextlib.suppress(Failed):
                self.regrow.command("reload")
        # What was forked meanwhile has inherited the limit.
        self.expect_reload()
        self.regrow.settle(without=victims)
        self.journal.shortages.append((begin, time.monotonic() + 0.5))

    @contextlib.contextmanager
    def starved(self, pid):
        before = limit_descriptors(pid, len(open_descriptors(pid)))
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                limit_descriptors(pid, before)
