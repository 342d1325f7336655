#!/usr/bin/env python3
"""How server.py compares, side by side in one run: `make bench`, a minute and a half.

Its peers are what one would write instead, with the same replies and the notes' logging; and, as
the limit of what Python reaches on the same load, an accept loop with no log at all: that one waits
for the load, and its processor time tells. Speeds are measured in interleaved rounds, and each
figure is the median of them; a ratio is the median of the rounds' ratios, and not that of two such
figures. Every process but this one is this file again, with a role (see ROLES)
and its arguments.
"""

import asyncio
import contextlib
import json
import logging.handlers
import os
import platform
import random
import re
import resource
import select
import socket
import socketserver
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import server
from test_bs import MEO, Connection, command, environment, free_port

ROUNDS = 3
SECONDS = 0.35  # of load in each round
SILENT = 9800  # connections that say nothing, of one address
POUR = 4000  # of them a second
CROWDS = ((1024, "127.0.1.1"), (16384, "127.0.1.1"), (16384, "127.0.0.1"))  # descriptors that
# server.py may have beside them, and their address; the load comes from the last one
KINDS = {True: "half-closes", False: "does not"}  # what a client does before it reads
LIMIT = "accept loop, no log"
PEERS = ("server.py", LIMIT, "serial accept loop", "ThreadingTCPServer", "asyncio.start_server")
IP_BIND_ADDRESS_NO_PORT = 24  # which the socket module has no name for before 3.12
IMPORTS = "import argparse, logging.handlers, re, socket, sys"


# The peers


def stock_logger():
    """Return a logger set up as the notes say, with a file in the current folder."""
    logger = logging.getLogger(__name__)
    logger.setLevel(logging.INFO)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s",
                                  datefmt="%Y-%m-%d %H:%M:%S")
    file_handler = logging.handlers.RotatingFileHandler("peer.log", maxBytes=10000, backupCount=1,
                                                        encoding="utf-8")
    file_handler.setFormatter(formatter)
    logger.addHandler(file_handler)
    console_handler = logging.StreamHandler()
    console_handler.setFormatter(formatter)
    logger.addHandler(console_handler)
    return logger


def answer(logger, ip, data):
    """Log the message in `data` (bytes) from `ip` and return the reply to it (bytes)."""
    message = data.decode("utf-8", "backslashreplace").rstrip("\r\n")
    logger.info('Le client %s a envoyé "%s".', ip, message)
    return server.reply_to(message).encode("utf-8")


def serve_serial(port):
    """Serve on `port` as one would first write it: one client after the other."""
    logger = stock_logger()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", port))
        listener.listen(server.BACKLOG)
        while True:
            connection, (ip, _) = listener.accept()
            with connection:
                logger.info("Un client %s s'est connecté.", ip)
                reply = answer(logger, ip, connection.recv(1024))
                connection.sendall(reply)
                logger.info('Réponse envoyée au client %s : "%s".', ip, reply.decode("utf-8"))


def serve_bare(port):
    """Serve on `port` with no log, one client after the other: the limit."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", port))
        listener.listen(server.BACKLOG)
        while True:
            connection, _ = listener.accept()
            with connection:
                message = connection.recv(1024).decode("utf-8", "backslashreplace").rstrip("\r\n")
                connection.sendall(server.reply_to(message).encode("utf-8"))


def serve_threads(port):
    """Serve on `port` with socketserver's thread for each client."""
    logger = stock_logger()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            ip = self.client_address[0]
            logger.info("Un client %s s'est connecté.", ip)
            reply = answer(logger, ip, self.request.recv(1024))
            self.request.sendall(reply)
            logger.info('Réponse envoyée au client %s : "%s".', ip, reply.decode("utf-8"))

    class Threads(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = server.BACKLOG

    with Threads(("0.0.0.0", port), Handler) as threads:
        threads.serve_forever()


def serve_asyncio(port):
    """Serve on `port` with asyncio's streams."""
    logger = stock_logger()

    async def handle(reader, writer):
        ip = writer.get_extra_info("peername")[0]
        logger.info("Un client %s s'est connecté.", ip)
        reply = answer(logger, ip, await reader.readline())
        writer.write(reply)
        await writer.drain()
        logger.info('Réponse envoyée au client %s : "%s".', ip, reply.decode("utf-8"))
        writer.close()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(
        asyncio.start_server(handle, "0.0.0.0", port, backlog=server.BACKLOG))
    loop.run_forever()


# The clients


def raise_limit():
    """Let this process have as many descriptors as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def load(port, clients, half_close, seconds=SECONDS, exchanges=None):
    """Load the server on `port` with so many `clients` at a time, each of one exchange.

    It ends after `seconds`, or after so many `exchanges`; what is not answered two seconds after
    that is an error. Prints as JSON the exchanges a second, the seconds that one took at the 50th
    and at the 99th percentile, the errors, the longest of the seconds, and how long it took.
    """
    poll, open_, latencies, errors, started = select.poll(), {}, [], 0, 0
    begin = time.perf_counter()

    def start():
        nonlocal started
        # one loopback address after another: a closed connection keeps its pair of ports a while
        address = (f"127.0.0.{1 + started % 64}", port)
        started += 1
        at = time.perf_counter()
        connection = socket.create_connection(address, 5)
        connection.sendall(b"meo bench\n")
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        poll.register(connection, select.POLLIN)
        open_[connection.fileno()] = connection, at, []

    def more():
        return started < exchanges if exchanges else time.perf_counter() - begin < seconds

    for _ in range(clients):
        start()
    while open_:
        ready = poll.poll(2000)
        if not ready:
            errors += len(open_)
            break
        for descriptor, _ in ready:
            connection, at, got = open_[descriptor]
            try:
                data = connection.recv(1024)
            except OSError:
                data = b""
            if data:
                got.append(data)
                continue
            latencies.append(time.perf_counter() - at)
            errors += b"".join(got) != MEO.encode("utf-8")
            poll.unregister(connection)
            del open_[descriptor]
            connection.close()
            if more():
                start()
    duration = time.perf_counter() - begin
    latencies.sort()
    json.dump([len(latencies) / duration] + [latencies[len(latencies) * part // 100]
              if latencies else 0.0 for part in (50, 99)]
              + [errors, max(latencies, default=0.0), duration], sys.stdout)


def connect_from(address, port):
    """Return a connection to `port` from the loopback `address`."""
    connection = socket.socket()
    # The kernel finds a port when it knows both ends, or thousands would use up all: ip(7)
    connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((address, 0))
    connection.settimeout(5)
    connection.connect(("127.0.0.65", port))
    return connection


def hold(port, count, address):
    """Connect `count` silent clients of one `address`, POUR a second at most, and hold them.

    Says "pouring", then "held"; then, for each line on standard input, lets one of them speak and
    prints the seconds until its reply.
    """
    raise_limit()
    held, begin = [], time.perf_counter()
    print("pouring", flush=True)
    for number in range(count):
        time.sleep(max(begin + number / POUR - time.perf_counter(), 0))
        held.append(connect_from(address, port))
    print("held", flush=True)
    for _ in sys.stdin:
        print(speak(held.pop(random.randrange(len(held)))), flush=True)


def speak(connection):
    """Send a message on `connection` and return the seconds until the whole reply."""
    begin = time.perf_counter()
    with connection:
        connection.sendall(b"meo\n")
        got = b"".join(iter(lambda: connection.recv(1024), b""))
    assert got == MEO.encode("utf-8"), got
    return time.perf_counter() - begin


def sit(port, people, process):
    """Let so many `people` sit at the prompt, each at an address of their own; some speak.

    Prints as JSON the share of a processor that `process` (its number) took while all were silent,
    and the median and the longest of the seconds until a reply.
    """
    raise_limit()
    seated = [connect_from(f"127.1.{number // 250}.{1 + number % 250}", port)
              for number in range(people)]
    time.sleep(1)  # until they are looked at as rarely as they will be
    before, begin = processor(process), time.perf_counter()
    time.sleep(1.5)
    share = (processor(process) - before) / (time.perf_counter() - begin)
    random.shuffle(seated)
    delays = []
    for connection in seated[:25]:
        time.sleep(random.uniform(0.02, 0.05))
        delays.append(speak(connection))
    json.dump([share, statistics.median(delays), max(delays)], sys.stdout)


def processor(process):
    """Return the seconds of processor time that `process` (its number) has used."""
    with open(f"/proc/{process}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


def resident(process):
    """Return the kB of memory that `process` (its number) holds."""
    with open(f"/proc/{process}/status") as file:
        return int(re.search(r"VmRSS:\s*(\d+)", file.read()).group(1))


# The measurements

ROLES = {LIMIT: serve_bare, "serial accept loop": serve_serial, "ThreadingTCPServer": serve_threads,
         "asyncio.start_server": serve_asyncio, "load": load, "hold": hold,
         "sit": sit}


def role(name, *arguments):
    """Return the argv that runs one of ROLES in a process of its own."""
    return [sys.executable, os.path.abspath(__file__), name] + [json.dumps(argument)
                                                               for argument in arguments]


class Bench:
    """One run: its folder, what it has measured, and its progress on standard error."""

    def __init__(self, folder):
        """Work in `folder`."""
        self.folder = folder
        self.begin = time.perf_counter()
        self.results = {}

    def tell(self, text):
        """Show progress."""
        print(f"{time.perf_counter() - self.begin:4.0f} s  {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def started(self, peer, descriptors=1024):
        """Give the port and the Popen of a running `peer`, for as long as the context lasts."""
        port = free_port()
        if peer == "server.py":
            argv = command("server", ["-p", str(port), "--log-file", "bs_server.log"])
        else:
            argv = role(peer, port)
        limited = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"] + argv
        with subprocess.Popen(limited, cwd=self.folder, stderr=subprocess.DEVNULL,
                              env=environment()) as popen:
            try:
                for _ in range(500):
                    time.sleep(0.02)
                    with contextlib.suppress(OSError):
                        Connection(port).send(b"meo\n").expect(MEO)
                        break
                yield port, popen
            finally:
                popen.kill()

    @contextlib.contextmanager
    def beside(self, *arguments):
        """Run one of ROLES until the context ends, and give its Popen once it has said a line."""
        with subprocess.Popen(role(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              universal_newlines=True, env=environment()) as popen:
            try:
                popen.stdout.readline()
                yield popen
            finally:
                popen.kill()

    def run(self, *arguments):
        """Return what one of ROLES prints, or None if it fails."""
        try:
            output = subprocess.check_output(role(*arguments), env=environment(),
                                             stderr=subprocess.DEVNULL, timeout=30)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
        return json.loads(output.decode())

    def note(self, what, result):
        """Keep the `result` of one round of `what`."""
        self.results.setdefault(what, []).append(result)

    def median(self, what, column):
        """Return the median over the rounds of one column of `what`."""
        return statistics.median(result[column] for result in self.results[what])

    def ratio(self, what, other, column=0):
        """Return the median over the rounds of how many times `other` is `what`, in a column."""
        return statistics.median(
            mine[column] / theirs[column]
            for mine, theirs in zip(self.results[what], self.results[other]))

    def by_processor(self, clients, kind):
        """Return how fast server.py is beside LIMIT, by what a second of the processor brings."""
        return f"{self.ratio((clients, kind, 'server.py'), (clients, kind, LIMIT), 6):.2f} ×"

    def throughput(self):
        """Measure each peer for each kind of client, one at a time and 64 at once: one round."""
        for clients in (1, 64):
            for kind in KINDS:
                for peer in PEERS:
                    with self.started(peer) as (port, popen):
                        before = processor(popen.pid)
                        result = self.run("load", port, clients, kind)
                        if result:
                            used = processor(popen.pid) - before
                            result.append(result[0] * result[5] / used)  # exchanges a second of it
                        self.note((clients, kind, peer), result)
            self.tell(f"{clients} clients")

    def silence(self):
        """Measure server.py while silent connections pour in, and beside them: one round."""
        for count, address in CROWDS:
            with self.started("server.py", count) as (port, popen):
                self.note(("alone", count, address), self.run("load", port, 64, True))
                before = resident(popen.pid)
                with self.beside("hold", port, SILENT, address) as holder:
                    self.note(("pour", count, address), self.run("load", port, 64, True, 1.5))
                    holder.stdout.readline()
                    time.sleep(0.5)  # until all of them are accepted, or evicted
                    kept = len(os.listdir(f"/proc/{popen.pid}/fd"))
                    self.note(("kept", count, address),
                              (kept, (resident(popen.pid) - before) / kept))
                    self.note(("beside", count, address), self.run("load", port, 64, True, 1.0))
                    if count > SILENT:
                        for _ in range(5):
                            print(file=holder.stdin, flush=True)
                            self.note(("speak", address), (float(holder.stdout.readline()),))
            self.tell(f"{SILENT} silent connections of {address}, {count} descriptors")

    def prompts(self):
        """Measure what people at the prompt cost and how long they wait: once."""
        for people in (30, 500):
            with self.started("server.py", 4096) as (port, popen):
                self.note(("sit", people), self.run("sit", port, people, popen.pid))
            self.tell(f"{people} people at the prompt")

    def footprint(self):
        """Measure a run of client.py and the memory of server.py beside a bare Python's."""
        with self.started("server.py") as (port, popen):
            argvs = ([sys.executable, "-c", IMPORTS],
                     command("client", ["-p", str(port), "--log-file", "bs_client.log", "meo"]))
            for _ in range(9):
                for argv in argvs:
                    begin = time.perf_counter()
                    subprocess.check_call(argv, cwd=self.folder, stdout=subprocess.DEVNULL,
                                          env=environment())
                    self.note(argv is argvs[0], (time.perf_counter() - begin,))
            waiting = IMPORTS + "; print(flush=True); sys.stdin.read()"
            with subprocess.Popen([sys.executable, "-c", waiting], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE) as python:
                python.stdout.readline()
                bare = resident(python.pid)
                python.stdin.close()
            before = resident(popen.pid)
            self.run("load", port, 64, False, 60, 20000)
            after = resident(popen.pid)
        self.tell("client.py, memory")
        print(f"\nA run of client.py: {self.median(False, 0) * 1e3:.0f} ms, "
              f"{self.ratio(False, True):.2f} times a Python that imports the same modules"
              f"\nMemory of server.py: {before} kB, after 20000 exchanges {after} kB, "
              f"{after / bare:.2f} times such a Python's")

    def print_all(self):
        """Print the tables."""
        rows = [("clients", "before it reads, a client", "server", "exchanges/s", "",
                 "server.py is", "by processor time", "p50 ms", "p99 ms", "errors")]
        for clients in (1, 64):
            fastest = max(self.median((clients, kind, peer), 0) for kind in KINDS for peer in PEERS
                          if None not in self.results[clients, kind, peer])
            for kind, words in KINDS.items():
                for peer in PEERS:
                    what = clients, kind, peer
                    rounds = self.results[what]
                    if None in rounds:
                        rows.append((clients, words, peer, "does not answer", *[""] * 6))
                        continue
                    speed = self.median(what, 0)
                    rows.append((
                        clients, words, peer, f"{speed:.0f}", "█" * round(20 * speed / fastest),
                        f"{self.ratio((clients, kind, 'server.py'), what):.2f} ×",
                        self.by_processor(clients, kind) if peer == LIMIT else "",
                        f"{self.median(what, 1) * 1e3:.2f}", f"{self.median(what, 2) * 1e3:.2f}",
                        sum(result[3] for result in rounds)))
        print_table(rows)
        rows = [("descriptors", f"address of the {SILENT}", "speed while they pour in",
                 "beside them", "longest ms", "kept", "kB each", "errors")]
        for count, address in CROWDS:
            pour, beside, alone, kept = ((name, count, address)
                                         for name in ("pour", "beside", "alone", "kept"))
            rows.append((
                count, "that of the load" if address == CROWDS[-1][1] else "another",
                f"{self.ratio(pour, alone):.2f} ×", f"{self.ratio(beside, alone):.2f} ×",
                f"{self.most(beside, 4):.0f}", f"{self.median(kept, 0):.0f}",
                f"{self.median(kept, 1):.1f}",
                sum(result[3] for what in (pour, beside) for result in self.results[what])))
        print_table(rows)
        rows = [(f"one of the {SILENT} speaks, and is answered after", "at most")]
        for address in ("127.0.1.1", "127.0.0.1"):
            rows.append((f"{self.median(('speak', address), 0) * 1e3:.0f} ms",
                         f"{self.most(('speak', address), 0):.0f} ms"))
        print_table(rows)
        rows = [("people at the prompt", "of a core", "answered after", "at most")]
        for people in (30, 500):
            what = "sit", people
            rows.append((people, f"{self.median(what, 0):.1%}",
                         f"{self.median(what, 1) * 1e3:.0f} ms", f"{self.most(what, 2):.0f} ms"))
        print_table(rows)

    def most(self, what, column):
        """Return the largest of one column of `what`, in milliseconds."""
        return max(result[column] for result in self.results[what]) * 1e3


def print_table(rows):
    """Print `rows`, the first of which is the head, as a table whose columns are aligned."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows)]
    print()
    for number, row in enumerate(rows):
        print("| " + " | ".join(str(cell).ljust(width) for cell, width in zip(row, widths)) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def main():
    """Measure server.py and its peers side by side and print the tables."""
    raise_limit()
    with tempfile.TemporaryDirectory(prefix="bs-") as folder:
        bench = Bench(folder)
        for number in range(ROUNDS):
            bench.tell(f"round {number + 1} of {ROUNDS}")
            bench.throughput()
            if number > 0:
                bench.silence()
        bench.prompts()
        bench.print_all()
        bench.footprint()
    print(f"\nPython {platform.python_version()}, {platform.system()} {platform.release()}, "
          f"{os.cpu_count()} cores; medians of {ROUNDS} rounds of {SECONDS} s, interleaved")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ROLES:
        ROLES[sys.argv[1]](*map(json.loads, sys.argv[2:]))
    else:
        main()
