"""The clients of scripts/cluster: they ask ADDRESS:PORT without a pause, on kept and on new connections, with GET and
POST, some of it slow, and print which requests were lost in each act of the play.

The play is told on standard input: `act NAME` begins an act, `killed` says that a machine is dead since just now, the end
ends it. A request belongs to the act in which it ended. By a kill those may be lost that had begun before it; anything
else that is lost makes the exit code 1."""

import collections
import http.client
import itertools
import signal
import sys
import threading
import time

# Each asks again as soon as it is answered, after a short pause.
KEPT, NEW = 12, 6
PAUSE = 0.01
PATIENCE = 15
# What they ask for, in turns; the pauses are as long as a handler may wait for a database.
REQUESTS = [("GET", 0), ("POST", 20), ("GET", 50), ("POST", 0), ("GET", 0), ("POST", 400), ("GET", 5), ("GET", 400)]


class Act:
    def __init__(self, name):
        self.name = name
        self.answered = 0
        self.lost = collections.Counter()
        self.losses = []
        # Where there was a kill: when, and how many requests were in flight then.
        self.killed_at = None
        self.in_flight = None

    def wrongly_lost(self):
        """What ended before one knew of the kill had begun before it."""
        return [why for begun, why in self.losses if self.killed_at is None or begun > self.killed_at]


class Play:
    def __init__(self):
        self.lock = threading.Lock()
        self.acts = []
        self.over = False
        self.running = set()

    def begin_act(self, name):
        with self.lock:
            self.acts.append(Act(name))

    def killed(self):
        with self.lock:
            act = self.acts[-1]
            act.killed_at = time.monotonic()
            act.in_flight = len(self.running) + len(act.losses)

    def begin(self, client):
        with self.lock:
            self.running.add(client)
            return time.monotonic()

    def end(self, client, begun, method, loss):
        with self.lock:
            self.running.discard(client)
            act = self.acts[-1]
            if loss is None:
                act.answered += 1
            else:
                act.lost[method] += 1
                act.losses.append((begun, f"{method}, lost {time.monotonic() - begun:.3f} s after its begin: {loss}"))


def main(address):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    play = Play()
    play.begin_act("start")
    clients = [threading.Thread(target=ask_throughout, args=(play, address, n, n < KEPT)) for n in range(KEPT + NEW)]
    for client in clients:
        client.daemon = True
        client.start()
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        if word == "act":
            play.begin_act(name)
        elif word == "killed":
            play.killed()
    play.over = True
    for client in clients:
        client.join()
    return tell(play.acts)


def ask_throughout(play, address, number, keep):
    connection = None
    for method, ms in itertools.islice(itertools.cycle(REQUESTS), number, None):
        if play.over:
            return
        begun = play.begin(number)
        connection = connection or http.client.HTTPConnection(address, timeout=PATIENCE)
        loss = ask(connection, method, ms)
        play.end(number, begun, method, loss)
        if loss or not keep:
            connection.close()
            connection = None
        time.sleep(PAUSE)


def ask(connection, method, ms):
    """None, or why there was no answer."""
    try:
        connection.request(method, f"/?ms={ms}", body=b"x" * 10_000 if method == "POST" else None)
        response = connection.getresponse()
        response.read()
        return None if response.status == 200 else f"status {response.status}"
    except (OSError, http.client.HTTPException) as why:
        return f"{type(why).__name__}: {why}"


def tell(acts):
    print(f"\n{'act':<16}{'answered':>10}{'GET lost':>10}{'POST lost':>11}{'in flight at the kill':>24}")
    for act in acts:
        in_flight = "" if act.in_flight is None else act.in_flight
        print(f"{act.name:<16}{act.answered:>10}{act.lost['GET']:>10}{act.lost['POST']:>11}{in_flight:>24}")
    wrong = [f"{act.name}: {loss}" for act in acts for loss in act.wrongly_lost()]
    print("\n" + "\n".join(["cluster: lost, and should not have been:", *wrong] if wrong else ["cluster: fine"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
