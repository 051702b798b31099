"""The clients of scripts/torture: they ask one server without a pause, each in its own way, judge every answer in full,
and remember what was lost. They know nothing of what is done to the server meanwhile."""

import collections
import random
import socket
import ssl
import threading
import time

RUN, PAUSE, OVER = range(3)
PATIENCE = 15

# How many of each kind, and how long one thinks before it asks again, in seconds. Not for two, with TLS: then a worker
# that leaves may let go of it, for its session cannot be handed over.
KINDS = {"kept": (6, (0, 0.06)), "pondering": (5, (0.1, 1.5)), "new": (4, (0, 0.05)), "slow": (3, (0, 0.3))}
CLIENTS = sum(count for count, _ in KINDS.values())

# `opened` and `at` are when the connection was and when the loss was noticed; `first` when the first answer on it was
# complete, if ever.
Loss = collections.namedtuple("Loss", "kind why port opened first at")


class Lost(Exception):
    """There was no answer, or a wrong one."""


def run(port, tls, files, state, busy, seed, results):
    """A process full of clients, until the state is OVER. Sends (asked, answered, losses, slowest) of each kind."""
    clients = []
    for kind, (count, pause) in KINDS.items():
        for _ in range(count):
            clients.append(Client(kind, pause, port, tls, files, state, busy, len(clients), seed))
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    results.send([(c.kind, c.asked, c.answered, c.losses, c.slowest) for c in clients])


class Client(threading.Thread):
    def __init__(self, kind, pause, port, tls, files, state, busy, number, seed):
        super().__init__(daemon=True)
        self.kind, self.pause, self.address, self.files = kind, pause, ("127.0.0.1", port), files
        self.state, self.busy, self.number = state, busy, number
        self.random = random.Random(f"{seed} {port} {number}")
        self.tls = None
        if tls:
            # Its certificate was made for the occasion.
            self.tls = ssl.create_default_context()
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.connection = None
        self.asked = self.answered = 0
        self.slowest = 0.0
        self.losses = []

    def run(self):
        while self.state.value != OVER:
            if self.state.value == PAUSE:
                self.close()
                self.busy[self.number] = 0
                time.sleep(0.005)
                continue
            self.busy[self.number] = 1
            self.ask()
            self.think(self.random.uniform(*self.pause))
        self.close()
        self.busy[self.number] = 0

    def think(self, seconds):
        end = time.monotonic() + seconds
        while self.state.value == RUN and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
            if self.connection and self.hears_of_end():
                self.lose("closed while idle")

    def ask(self):
        path = self.random.choices(list(self.files), weights=[9, 1])[0]
        # Whether it, or the other side, is the first to let go.
        close = self.kind == "new" and self.random.random() < 0.5
        begin = time.monotonic()
        self.asked += 1
        try:
            if not self.connection:
                self.open()
            closes = self.exchange(path, self.files[path], close)
        except Lost as why:
            return self.lose(str(why))
        self.answered += 1
        self.first = self.first or time.monotonic()
        if self.kind != "slow":
            self.slowest = max(self.slowest, time.monotonic() - begin)
        if closes or self.kind == "new":
            self.close()

    def open(self):
        self.port, self.opened, self.first = 0, time.monotonic(), None
        self.connection = connection = socket.socket()
        connection.settimeout(PATIENCE)
        if self.kind == "slow":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        try:
            connection.connect(self.address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as why:
            raise Lost(f"refused: {why}") from why
        self.port = connection.getsockname()[1]
        if self.tls:
            try:
                self.connection = self.tls.wrap_socket(connection, server_hostname="localhost")
            except TimeoutError as why:
                raise Lost("timeout in the handshake") from why
            except OSError as why:
                raise Lost("cut in the handshake") from why

    def exchange(self, path, expected, close):
        """Asks and judges. Returns whether the server closes the connection now."""
        got = b""
        try:
            self.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{'Connection: close' if close else 'Accept: */*'}\r\n\r\n")
            while b"\r\n\r\n" not in got:
                got += (chunk := self.receive())
                if not chunk:
                    raise ConnectionError
            head, _, body = got.partition(b"\r\n\r\n")
            status, fields = parse(head)
            if status != 200:
                raise Lost(f"status {status}")
            if fields.get("content-length") != str(len(expected)):
                raise Lost(f"wrong: Content-Length {fields.get('content-length')} of {len(expected)}")
            parts = [body]
            missing = len(expected) - len(body)
            while missing > 0:
                parts.append(chunk := self.receive())
                missing -= len(chunk)
                if not chunk:
                    raise ConnectionError
        except TimeoutError as why:
            raise Lost("timeout") from why
        except OSError as why:
            raise Lost("cut in the answer" if got else "stale close" if self.first else "unanswered") from why
        if b"".join(parts) != expected:
            raise Lost("wrong content")
        return fields.get("connection", "").lower() == "close"

    def send(self, head):
        head = head.encode()
        if self.kind != "slow":
            return self.connection.sendall(head)
        for byte in head:
            self.connection.sendall(bytes([byte]))
            time.sleep(self.random.uniform(0, 0.008))

    def receive(self):
        if self.kind == "slow":
            time.sleep(0.004)
            return self.connection.recv(16384)
        return self.connection.recv(1 << 18)

    def hears_of_end(self):
        self.connection.setblocking(False)
        try:
            return self.connection.recv(1) == b""
        except (BlockingIOError, ssl.SSLWantReadError):
            self.connection.settimeout(PATIENCE)
            return False
        except OSError:
            return True

    def lose(self, why):
        self.losses.append(Loss(self.kind, why, self.port, self.opened, self.first, time.monotonic()))
        self.close()

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None


def parse(head):
    lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), {name.lower(): value for name, value in fields.items()}
