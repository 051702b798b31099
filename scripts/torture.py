"""Breaks two Regrows, one of them with TLS, in every way we know while clients ask; then says what was lost and why.
scripts/torture, which builds PROGRAM, starts this."""

import argparse
import collections
import contextlib
import ctypes
import multiprocessing
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
import torture_clients as clients
from measuring import progress, tree
from torture_acts import RARE, ROUND, UPGRADES, Acts, Journal
from torture_server import Failed, Regrow, children, descriptors, end, is_zombie, memory_of

SMALL, BIG = 1000, 2 << 20
SHORT_SECONDS = 14
# A new pool may have touched pages that the one before had not.
GROWTH_KIB = 1024

Side = collections.namedtuple("Side", "regrow acts journal crowd")


def main():
    options = arguments()
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    print(f"torture: seed {seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    adopt_orphans()
    with contextlib.ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="regrow-torture-"))
        sides = [begin(ends, options.program, folder, name, seed) for name in ("plain", "tls")]
        try:
            found = play(sides, options, seed)
        except BaseException:
            tell_logs(sides)
            raise
        found.wrong += stop(sides)
        failed = tell(sides, options, found)
        if failed:
            tell_logs(sides)
            print(f"\ntorture: seed {seed}: failed:\n" + "\n".join(failed))
            sys.exit(1)
        print("\ntorture: fine")


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/torture")
    parser.add_argument("program")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    if not 0.5 <= options.minutes <= 600:
        parser.error("--minutes goes from 0.5 to 600")
    options.seconds = SHORT_SECONDS if options.short else options.minutes * 60
    options.quiet_kills = 10 if options.short else 30
    options.reloads = 15 if options.short else int(40 * options.minutes)
    options.upgrades = 5 if options.short else int(10 * options.minutes)
    options.kills = 20 if options.short else int(40 * options.minutes)
    return options


def adopt_orphans():
    """The master of an upgrade is a child of the one before, which ends: then it is ours (PR_SET_CHILD_SUBREAPER)."""
    if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0):
        sys.exit("torture: the kernel does not let this process adopt orphans")


def begin(ends, program, folder, name, seed):
    """A server, and what asks it and breaks it."""
    folder = os.path.join(folder, name)
    files = make_site(folder)
    if name == "plain":
        mount_log(ends, os.path.join(folder, "log"))
    # An upgrade replaces it.
    own = shutil.copy(program, os.path.join(folder, "regrow"))
    credentials = make_credentials(folder) if name == "tls" else None
    regrow = Regrow(name, own, folder, credentials)
    ends.callback(lambda: end_all(regrow))
    journal = Journal()
    crowd = Crowd(ends, regrow.port, bool(credentials), files, seed)
    return Side(regrow, Acts(regrow, random.Random(f"{seed} {name}"), journal), journal, crowd)


def make_site(folder):
    site = os.path.join(folder, "site")
    os.makedirs(site)
    files = {"/small.txt": os.urandom(SMALL // 2).hex().encode(), "/big.bin": os.urandom(BIG)}
    for name, content in files.items():
        with open(site + name, "wb") as file:
            file.write(content)
        # What was written just now may be written to again, and is read instead of sent from the page cache.
        os.utime(site + name, (0, time.time() - 3600))
    hangs = os.path.join(folder, "hangs")
    with open(hangs, "w") as file:
        file.write("#!/bin/sh\nexec sleep 1000\n")
    os.chmod(hangs, 0o755)
    return files


def make_credentials(folder):
    key, certificate = (os.path.join(folder, name) for name in ("key.pem", "certificate.pem"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                    "30", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return key, certificate


def mount_log(ends, folder):
    os.makedirs(folder)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        print(f"torture: no full disk this time: {mounted.stderr.strip()}")
    else:
        ends.callback(lambda: subprocess.run(["umount", "--lazy", folder]))


class Crowd:
    """The clients of a server: a process of theirs, which does not take our time."""

    def __init__(self, ends, port, tls, files, seed):
        fork = multiprocessing.get_context("fork")
        self.state, self.busy = fork.RawValue("i", clients.PAUSE), fork.RawArray("b", clients.CLIENTS)
        self.results, theirs = fork.Pipe(duplex=False)
        self.process = fork.Process(target=clients.run, args=(port, tls, files, self.state, self.busy, seed, theirs))
        self.process.start()
        ends.callback(self.process.kill)

    def go_on(self):
        self.state.value = clients.RUN

    def pause(self):
        """Until all have closed their connections."""
        self.state.value = clients.PAUSE
        while any(self.busy):
            time.sleep(0.005)

    def stop(self):
        self.state.value = clients.OVER
        return self.results.recv()


class Found:
    def __init__(self):
        self.wrong = []
        self.states = {}
        self.new_pid, self.answered = [], []
        self.zombies = 0


def play(sides, options, seed):
    found = Found()
    begun = time.monotonic()
    look(sides, "before", found)
    for side in sides:
        side.crowd.go_on()
    # First without upgrades, so that one master sees many reloads; then with them.
    break_all(sides, begun + options.seconds / 3, False, {})
    look(sides, "after reloads", found)
    break_all(sides, begun + options.seconds, True, {} if options.short else RARE)
    make_up(sides, options, begun + 2 * options.seconds)
    for side in sides:
        side.crowd.pause()
    progress("killing in quiet")
    kill_in_quiet(sides[0], options.quiet_kills, found)
    look(sides, "after upgrades", found)
    found.zombies = sum(is_zombie(pid) for side in sides for pid in tree(side.regrow.master()))
    found.clients = [side.crowd.stop() for side in sides]
    progress("")
    return found


def look(sides, when, found):
    """Each time in the same condition."""
    for regrow in (side.regrow for side in sides):
        regrow.configure()
        regrow.command("reload")
        regrow.settle(4)
        master = regrow.master()
        if first := found.states.get((regrow.name, "before")):
            # A reporter that another has followed may still have a question to answer.
            with contextlib.suppress(Failed):
                regrow.wait(lambda: not descriptors(master) - first[0], "as before", 5)
        workers = [memory_of(pid) for pid in regrow.workers()]
        found.states[regrow.name, when] = (descriptors(master), memory_of(master), sum(workers))


def break_all(sides, deadline, upgrades, rare):
    """Both at once, each in an order of its own."""
    threads = [threading.Thread(target=break_one, args=(side, deadline, upgrades, rare), daemon=True)
               for side in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(1)
            progress(f"{max(0, deadline - time.monotonic()):.0f} s to go")


def break_one(side, deadline, upgrades, rare):
    while time.monotonic() < deadline:
        names = [name for name, count in (ROUND | rare).items() for _ in range(count) if upgrades or name not in UPGRADES]
        side.acts.random.shuffle(names)
        while names and time.monotonic() < deadline:
            side.acts.play(names.pop())
        rare = {}


def make_up(sides, options, deadline):
    """For what the machine was too busy."""
    for name, least in [("upgrade", options.upgrades), ("reload", options.reloads)]:
        while time.monotonic() < deadline and sum(len(side.journal.times[name]) for side in sides) < least:
            sides[0].acts.play(name)


def kill_in_quiet(side, kills, found):
    """With a single worker, nobody else asking: how long until there is a new one, and until a client has its answer."""
    regrow = side.regrow
    regrow.configure(mode="", accessLog="off")
    regrow.command("reload")
    regrow.settle(1)
    for _ in range(kills):
        # A slot forks ten times a second at most.
        time.sleep(0.15)
        new_pid, answered = kill_and_ask(regrow)
        found.new_pid.append(new_pid)
        found.answered.append(answered)
        side.journal.done["workers killed"] += 1
        regrow.settle(1)


def kill_and_ask(regrow):
    """Seconds from the kill to a new process, and to an answer."""
    master, old = regrow.master(), set(children(regrow.master()))
    begin = time.monotonic()
    os.kill(regrow.workers()[0], signal.SIGKILL)
    with socket.create_connection(("127.0.0.1", regrow.port), timeout=10) as connection:
        connection.sendall(b"GET /small.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while not set(children(master)) - old:
            if time.monotonic() > begin + 10:
                sys.exit("torture: no new worker within 10 s")
        new_pid = time.monotonic() - begin
        if not connection.recv(4096).startswith(b"HTTP/1.1 200 "):
            sys.exit("torture: no answer after a kill")
        return new_pid, time.monotonic() - begin


def stop(sides):
    """Returns what went wrong."""
    wrong = []
    for regrow in (side.regrow for side in sides):
        try:
            master = regrow.master()
            family = tree(master)
            regrow.command("stop")
            regrow.bury(master)
            left = [pid for pid in family if os.path.exists(f"/proc/{pid}")]
            wrong += [f"{regrow.name}: left behind by the stop: {left}"] if left else []
        except Exception as why:
            wrong.append(f"{regrow.name}: stop: {why}")
    return wrong


def end_all(regrow):
    """Where there was no orderly stop."""
    for pid in children(os.getpid()):
        if pid == regrow.process.pid or f"{regrow.folder}/" in command_line(pid):
            end(pid)


def command_line(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as file:
        return file.read()
    return ""


def tell(sides, options, found):
    """Prints all of it, and returns what is to be held against Regrow."""
    failed = list(found.wrong)
    failed += [f"{side.regrow.name}: {wrong}" for side in sides for wrong in side.journal.wrong]
    failed += tell_clients(sides, found)
    done = sum((side.journal.done for side in sides), collections.Counter())
    times = {name: [t for side in sides for t in side.journal.times[name]]
             for name in ("reload", "upgrade", "frozen worker replaced")}
    print("\n" + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(done.items())))
    tell_times({"kill to new pid": found.new_pid, "kill to answer": found.answered} | times)
    failed += tell_states(sides, found)
    for name, count, least in [("reloads", len(times["reload"]), options.reloads),
                               ("upgrades", len(times["upgrade"]), options.upgrades),
                               ("killed workers", done["workers killed"], options.kills)]:
        if count < least:
            failed.append(f"only {count} {name}, {least} were to be: is this machine very busy?")
    return failed


def tell_clients(sides, found):
    columns = ["clients", "asked", "answered", "with worker", "no descriptor", "lost", "idle closed", "slowest ms"]
    print("\n" + f"{columns[0]:<17}" + "".join(f"{column:>14}" for column in columns[1:]))
    failed, totals = [], collections.Counter()
    for side, told in zip(sides, found.clients):
        for kind in clients.KINDS:
            counts, wrong = count(side, [one for one in told if one[0] == kind])
            failed += wrong
            totals.update({name: value for name, value in counts.items() if name != "slowest ms"})
            tell_row(f"{side.regrow.name} {kind}", counts, columns)
    tell_row("all", totals, columns)
    return failed


def tell_row(name, counts, columns):
    print(f"{name:<17}" + "".join(f"{counts[column]:>14}" for column in columns[1:]))


def count(side, told):
    """What clients of a kind have met, and what of it should not have been."""
    counts, wrong = collections.Counter(), []
    for kind, asked, answered, losses, slowest in told:
        counts.update({"asked": asked, "answered": answered})
        counts["slowest ms"] = max(counts["slowest ms"], round(slowest * 1e3))
        for loss in losses:
            excuse = side.journal.excuse(loss)
            if loss.why == "closed while idle":
                counts["idle closed"] += 1
                # A session of TLS cannot be handed over.
                excuse = excuse or (side.regrow.name == "tls" and "when it had been quiet")
            elif excuse:
                counts["with worker" if excuse == "with its worker" else "no descriptor"] += 1
            else:
                counts["lost"] += 1
            if not excuse:
                wrong.append(f"{side.regrow.name} {kind} port {loss.port}: {loss.why}, {loss.at - loss.opened:.3f} s after "
                             f"it was opened, at {clock(loss.at)}")
    return counts, wrong


def clock(instant):
    """As the error log has it."""
    wall = time.time() - time.monotonic() + instant
    return time.strftime("%H:%M:%S", time.gmtime(wall)) + f".{int(wall % 1 * 1000):03}"


def tell_times(times):
    print(f"\n{'ms':<24}{'count':>8}{'median':>10}{'p99':>10}{'max':>10}")
    for name, values in times.items():
        if values:
            ms = sorted(value * 1e3 for value in values)
            p99 = ms[min(len(ms) - 1, int(len(ms) * 0.99))]
            print(f"{name:<24}{len(ms):>8}{statistics.median(ms):>10.1f}{p99:>10.1f}{ms[-1]:>10.1f}")


def tell_states(sides, found):
    print(f"\n{'':<24}{'descriptors':>14}{'master, KiB':>14}{'workers, KiB':>14}")
    failed = []
    for (name, when), state in sorted(found.states.items()):
        print(f"{name + ' ' + when:<24}{state[0].total():>14}{state[1]:>14}{state[2]:>14}")
        first = found.states[name, "before"]
        if more := state[0] - first[0]:
            failed.append(f"{name}, {when}: the master has more descriptors than before: {dict(more)}")
        if state[1] > first[1] + GROWTH_KIB:
            failed.append(f"{name}, {when}: the master has {state[1]} KiB of memory, and had {first[1]}")
        if state[2] > first[2] * 2 + GROWTH_KIB:
            failed.append(f"{name}, {when}: the workers have {state[2]} KiB of memory, and had {first[2]}")
    print(f"zombies: {found.zombies}")
    return failed + ([f"{found.zombies} zombies"] if found.zombies else [])


def tell_logs(sides):
    for regrow in (side.regrow for side in sides):
        kept = shutil.copy(regrow.path("error.log"), os.path.join(tempfile.gettempdir(), f"regrow-torture-{regrow.name}.log"))
        print(f"\nthe error log of {regrow.name} is kept as {kept}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
