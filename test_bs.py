#!/usr/bin/env python3
"""The promises of server.py and client.py, each a test on the real program over a real socket.

A test is three words, connect, send and expect. To add one, put this into the class it belongs to,
break what it is about in the script, see it fail (`make test T=Replies`), and mend the script:

    def test_a_waf_gets_its_reply(self):
        bs = self.serve()
        bs.connect().send(b"waf\n").expect(WAF)
        bs.expect_line('INFO Le client 127.0.0.1 a envoyé "waf".')

For the client the server is a fake one, which follows the steps that it is given:

    def test_a_reply_is_shown(self):
        fake = self.fake(hear, b"ok")
        self.assertEqual(self.ask(fake, "meo"), (0, answered("ok"), ""))
        self.assertEqual(fake.heard(), [b"meo\n"])

Each server has a port and a folder of its own. A test waits for what happens (a reply, a line in
the log, an exit), not for time to pass. What needs no process of its own calls main() in this one
(`Scene.call`). What takes time, and what needs no kernel, is shown in `.ci/worlds.py`, beside which
there is one example here of each thing that it shows.

The scripts run anywhere, but these tests on Linux alone: they need its pseudo-terminals, its limits
of resources, /proc, and more loopback addresses than one.
"""

import ast
import collections
import contextlib
import errno
import importlib
import inspect
import io
import itertools
import logging.handlers
import os
import random
import re
import runpy
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
from unittest import mock

import client
import server

try:
    import pty
    import resource
except ImportError:  # see setUpModule
    pty = resource = None

HERE = os.path.dirname(os.path.abspath(__file__))
TIMEOUT = 15  # seconds that anything may take on a busy machine before a test gives it up
NEVER = 3600  # seconds that no test lasts: what waits for this does not happen
MEO, WAF, HUMAN = "Meo à toi confrère.", "ptdr t ki", "Mes respects humble humain."
WORDS = "'waf' ou 'meo'"  # that a message must contain, as the client says it
CONNECTED = "Un client 127.0.0.1 s'est connecté."
# The lines of one exchange(), and how many a start, an exchange (LINES in worlds.py too) and an end
# have
EXCHANGE = [f"INFO {CONNECTED}", 'INFO Le client 127.0.0.1 a envoyé "meo".',
            f'INFO Réponse envoyée au client 127.0.0.1 : "{MEO}".']
START, LINES, END = 2, len(EXCHANGE), 1
RESET, NO_DESCRIPTOR = os.strerror(errno.ECONNRESET), os.strerror(errno.EMFILE)
DATE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
# After the imports, since they look at it too
WINDOWS = "import argparse, logging.handlers, socket; sys.platform = 'win32'"
PIPES = unittest.skipIf(sys.version_info < (3, 7), "open() to append seeks, which no pipe can")
STRICT = {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"}  # as `python -W error -X dev`


# The vocabulary


def command(script, options=(), constants=None, first=""):
    """Return the argv that runs `script` with `options`.

    With `constants` (dict) or the statements `first`, it is imported, given them, and main() run.
    Without site-packages (-S): they may hold anything, and cost time at each start.
    """
    python = [sys.executable, "-S"]
    if not (constants or first):
        return [*python, os.path.join(HERE, script + ".py"), *options]
    lines = ["import sys", f"sys.path.insert(0, {HERE!r})", first, "import " + script]
    lines += [f"{script}.{name} = {value!r}" for name, value in (constants or {}).items()]
    lines += [f"sys.exit({script}.main())"]
    return [*python, "-c", "\n".join(lines), *options]


def environment(**changes):
    """Return the environment that a script runs in: UTF-8, buffers, no files written by Python.

    What the caller's environment says to Python, git, make or a shell is left out: in a git hook,
    say, GIT_DIR and GIT_INDEX_FILE are the caller's repository.
    """
    names = {name: value for name, value in os.environ.items()
             if not re.match("GIT_|PYTHON|XDG_|MAKE|MFLAGS|BASH_ENV|ENV$|CDPATH", name)}
    names.update(PYTHONDONTWRITEBYTECODE="1", PYTHONIOENCODING="utf-8", LC_ALL="C.UTF-8",
                 TERM="xterm", COLUMNS="80", HOME=os.devnull, GIT_CONFIG_NOSYSTEM="1")
    names.update(changes)
    return names


def spawn(argv, folder, changes, **options):
    """Return the Popen of `argv` (in UTF-8) in `folder`, with `changes` to the environment."""
    argv = [argument.encode("utf-8", "surrogateescape") for argument in argv]
    return subprocess.Popen(argv, cwd=folder, env=environment(**changes), **options)


@contextlib.contextmanager
def ending(popen):
    """Give `popen` for a `with`, at whose end it is killed if it still runs."""
    with popen:
        try:
            yield popen
        finally:
            popen.kill()


Ended = collections.namedtuple("Ended", "code text console")  # what was on which standard stream


def finish(popen, stdin=b""):
    """Give `popen` what is left to read and return how it Ended."""
    with ending(popen):
        streams = popen.communicate(stdin, TIMEOUT)
    return Ended(popen.returncode, *((stream or b"").decode("utf-8") for stream in streams))


def run(argv, folder, stdin=b"", **changes):
    """Run `argv` in `folder` to its end and return how it Ended."""
    return finish(spawn(argv, folder, changes, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE), stdin)


@contextlib.contextmanager
def captured():
    """Give two streams for a `with`, which standard output and standard error go to."""
    with contextlib.redirect_stdout(io.StringIO()) as text, \
            contextlib.redirect_stderr(io.StringIO()) as console:
        yield text, console


def prelude(function, *args):
    """Return the statements that call `function` in another process, for `command`; `args` are
    given as their repr()."""
    return f"{inspect.getsource(function)}{function.__name__}({', '.join(map(repr, args))})"


def limited(count):
    """Return the statements that limit a process to `count` descriptors, for `command`."""
    return f"from resource import *; setrlimit(RLIMIT_NOFILE, ({count}, {count}))"


def undated(lines):
    """Return `lines` of a log without their dates."""
    return [re.sub("^" + DATE, "", line) for line in lines]


def free_port():
    """Return a TCP port that no server listens on, below those that connections are given.

    It has five digits, so that one can tell how long a line with it is.
    """
    while True:
        port = random.randrange(10000, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port


def has_ipv6():
    """Return True if this machine has ::1."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


class Connection:
    """A client's end of a connection, which sends each piece at once, as a segment of its own."""

    def __init__(self, port, host="127.0.0.1", source=""):
        """Connect to `port` on `host` from the address `source`."""
        self.socket = socket.create_connection((host, port), TIMEOUT, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *pieces):
        """Send each of the `pieces` (bytes)."""
        for piece in pieces:
            self.socket.sendall(piece)
        return self

    def half_close(self):
        """End the stream."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def receive(self):
        """Return what has come so far (str), once something has."""
        return self.socket.recv(65536).decode("utf-8")

    def read_all(self):
        """Return what comes until the end of the stream (str), and close."""
        with self.socket:
            return b"".join(iter(lambda: self.socket.recv(65536), b"")).decode("utf-8")

    def expect(self, reply):
        """Fail unless `reply` (str) comes, all of it and nothing else."""
        got = self.read_all()
        if got != reply:
            raise AssertionError(f"expected {reply!r}, got {got!r}")

    def expect_hang_up(self):
        """Fail unless the server closes without a word; a reset, if it had not read all."""
        with contextlib.suppress(ConnectionError):
            self.expect("")

    def close(self):
        """Close."""
        self.socket.close()

    def reset(self):
        """Close with a reset."""
        reset(self.socket)


class Process:
    """A running server, whose standard error is collected line by line, as it comes."""

    def __init__(self, argv, folder, port, changes, **options):
        """Start `argv` in `folder`; it is to listen on `port`."""
        self.port = port
        self.popen = spawn(argv, folder, changes, stdin=subprocess.DEVNULL,
                           stderr=subprocess.PIPE, **options)
        self.lines = []
        self.ended = False
        self.connections = []
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self.collect, daemon=True)
        self.reader.start()

    def collect(self):
        """Keep each line of standard error, and notify who waits for it."""
        with self.popen.stderr as console:
            for line in console:
                with self.news:
                    self.lines.append(line.decode("utf-8").rstrip("\n"))
                    self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def connect(self, host="127.0.0.1", source=""):
        """Return a new Connection."""
        self.connections.append(Connection(self.port, host, source))
        return self.connections[-1]

    def connect_many(self, count, first=b""):
        """Return `count` connections that have sent `first` and stay open."""
        # Another loopback address for each few hundred: local ports are counted per address
        return [self.connect(f"127.0.{number // 500}.1").send(first) for number in range(count)]

    def expect_line(self, text, count=1):
        """Return the lines that contain `text`, once there are `count`."""
        with self.news:
            self.news.wait_for(lambda: self.ended or len(self.matching(text)) >= count, TIMEOUT)
        if len(self.matching(text)) < count:
            raise AssertionError(f"not {count} times {text!r} in {self.lines[-9:]}")
        return self.matching(text)

    def matching(self, text):
        """Return the lines so far that contain `text`."""
        return [line for line in self.lines if text in line]

    def messages(self, start=""):
        """Return the lines so far without their dates, those that begin with `start`."""
        return [line for line in undated(self.lines) if line.startswith(start)]

    def exchange(self, count=1):
        """Have `count` clients answered, one after another, and wait for all lines of that."""
        before = len(self.matching(EXCHANGE[-1]))
        for _ in range(count):
            self.connect().send(b"meo\n").expect(MEO)
        self.expect_line(EXCHANGE[-1], before + count)

    def end(self, signum=signal.SIGINT):
        """Send `signum` if the process runs, wait for its end, and return its exit code."""
        if not self.ended:
            self.popen.send_signal(signum)
        try:
            return self.popen.wait(TIMEOUT)
        finally:
            self.popen.kill()
            self.reader.join(TIMEOUT)
            for connection in self.connections:
                connection.close()

    def status(self, name):
        """Return a number of its status: proc(5)."""
        with open(f"/proc/{self.popen.pid}/status") as file:
            return int(re.search(rf"\n{name}:\s*(\d+)", file.read()).group(1))

    def processor(self):
        """Return the seconds of processor time that it has used."""
        with open(f"/proc/{self.popen.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self):
        """Return how many it has open."""
        return len(os.listdir(f"/proc/{self.popen.pid}/fd"))

    def limit(self, count):
        """Limit it to `count` descriptors (int) from now on; return how many it might have."""
        hard = resource.prlimit(self.popen.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(self.popen.pid, resource.RLIMIT_NOFILE, (count, hard))
        return hard


def waits(pid):
    """Return True if the process `pid` waits for something in the kernel: proc(5).

    A Ctrl-C that comes just before is noticed by Python only when the wait is over.
    """
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


def next_of(descriptor, count=65536):
    """Return the next `count` bytes, or what there is of them."""
    if not select.select([descriptor], [], [], TIMEOUT)[0]:
        raise AssertionError("nothing comes")
    return os.read(descriptor, count)


class Terminal:
    """A process that runs on a terminal."""

    def __init__(self, argv, folder, **streams):
        """Start `argv` in `folder`, each standard stream the terminal but for `streams`."""
        self.master, slave = pty.openpty()
        self.popen = spawn(argv, folder, {}, **dict(
            {"stdin": slave, "stdout": slave, "stderr": slave}, **streams))
        os.close(slave)
        self.screen = ""

    def read(self):
        """Add to the screen what is shown next; return False at the end."""
        try:
            self.screen += next_of(self.master).decode("utf-8", "surrogateescape")
        except OSError:  # EIO: no process has the terminal open any more
            return False
        return True

    def expect(self, text):
        """Wait until the screen shows `text`."""
        while text not in self.screen:
            if not self.read():
                raise AssertionError(f"no {text!r} on the screen {self.screen!r}")
        return self

    def type(self, keys):
        """Press `keys` (bytes)."""
        os.write(self.master, keys)
        return self

    def end(self):
        """Wait for the end of the process; return its exit code and the screen."""
        while self.read():
            pass
        os.close(self.master)
        return self.popen.wait(TIMEOUT), self.screen.encode("utf-8", "surrogateescape").decode()


def hear(connection):
    """Return what comes next: a step of a Fake."""
    return connection.recv(2048)


def stay(connection):
    """Return when the client has left: a step of a Fake."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def reset(connection):
    """Close a socket with a reset instead of the end of its stream: socket(7), SO_LINGER."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Fake(threading.Thread):
    """A server of one client, with which it does each of its steps and closes.

    A step is bytes to send, seconds to sleep, or a function of the connection, whose result is what
    was `heard`.
    """

    def __init__(self, *steps):
        """Listen, and begin."""
        super().__init__()
        self.steps = steps
        self.results = []
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1)
        self.listener.settimeout(TIMEOUT)
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        """Take the steps with the client that connects."""
        connection, _ = self.listener.accept()
        connection.settimeout(TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, contextlib.suppress(OSError):
            for step in self.steps:
                if isinstance(step, bytes):
                    connection.sendall(step)
                elif callable(step):
                    self.results.append(step(connection))
                else:
                    time.sleep(step)

    def heard(self):
        """Return what each function has given, once the last step is taken."""
        self.join(TIMEOUT)
        return self.results

    def end(self):
        """Wait for the last step; if no client has connected, one does so now."""
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self.join(TIMEOUT)
        self.listener.close()


# Preludes: what a script finds in its process when it begins. Each imports what it needs


def tell_what_is_opened():
    """Have open() say so on standard error."""
    import builtins
    stock = builtins.open

    def opening(*rest):
        print("opening", file=sys.stderr, flush=True)
        return stock(*rest)
    builtins.open = opening


def break_files(error, calls, cause=""):
    """Have these `calls` of each file that is open without a buffer raise `error`, and so to open a
    path that ends like one of them: while the path `cause` is there, or with none the first time.
    A close that fails has closed the file."""
    import builtins
    import io
    import os
    stock, raised = builtins.open, []

    def come_to(call):
        if call.endswith(calls) and (os.path.exists(cause) if cause else not raised):
            raised.append(call)
            raise error

    class Broken(io.FileIO):
        def __getattribute__(self, name):
            if name != "close":
                come_to(name)
            return super().__getattribute__(name)

        def close(self):
            super().close()
            come_to("close")

    def opening(path, mode="r", buffering=-1, **names):
        come_to(path)
        return stock(path, mode, buffering, **names) if buffering else Broken(path, mode)
    builtins.open = opening


def drop_what_a_handler_logs():
    """Have logging drop what is logged while a record is handled, as Python 3.13.4 does."""
    import logging
    stock, busy = logging.Logger.handle, []

    def handle(self, record):
        if not busy:
            busy.append(record)
            try:
                stock(self, record)
            finally:  # Ctrl-C may come here
                busy.pop()
    logging.Logger.handle = handle


class Scene(unittest.TestCase):
    """A test with a folder of its own, and servers that must end well."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="bs-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.log_file = self.path("bs_server.log")
        self.client_log = self.path("bs_client.log")

    def path(self, name):
        """Return the path of `name` in the folder."""
        return os.path.join(self.folder, name)

    def serve(self, *options, **others):
        """Start a server (see launch) and return its Process once it has said where it is."""
        bs = self.launch(*options, **others)
        bs.expect_line("Le serveur tourne sur")
        bs.expect_line("", START)
        return bs

    def launch(self, *options, log_file=None, constants=None, first="", changes=(), **popen):
        """Start a server on a free port; return its Process once it has said a line, or has ended.

        `log_file` is "" for the default one, `constants` are server.py's to set, `first` is what
        runs before its import, and `changes` are the environment's.
        """
        log_file = self.log_file if log_file is None else log_file
        options = [*options, *(["--log-file", log_file] if log_file else [])]
        for _ in range(5):  # between free_port() and listen() another process may take the port
            port = free_port()
            argv = command("server", ["-p", str(port), *options], constants, first)
            bs = self.start(argv, port, changes=changes, **popen)
            if not bs.matching(os.strerror(errno.EADDRINUSE)):
                break
        return bs

    def log_of_unread_console(self, *wrap, **streams):
        """Have a server that `wrap` (argv) runs, and whose console is in `streams`, answer three
        clients and end with Ctrl-C; return the lines of its log without their dates."""
        port = free_port()
        argv = [*wrap, *command("server", ["-p", str(port), "--log-file", self.log_file])]
        with ending(spawn(argv, self.folder, {}, start_new_session=True, **streams)) as popen:
            self.wait_for(lambda: os.path.exists(self.log_file) and
                          "Journal" in self.read(self.log_file))
            for _ in range(3):
                Connection(port).send(b"meo\n").expect(MEO)
            self.wait_for(lambda: self.read(self.log_file).count(EXCHANGE[-1]) == 3)
            popen.send_signal(signal.SIGINT)
            self.assertEqual(popen.wait(TIMEOUT), 0)
        return undated(self.kept())

    def start(self, argv, port, folder=None, changes=(), **popen):
        """Run `argv`, a server's on `port`, in `folder` (None: the test's), with these `changes` to
        the environment; return its Process once it has said a line, or has ended."""
        bs = Process(argv, folder or self.folder, port, dict(changes), **popen)
        self.addCleanup(self.check_end, bs)
        with bs.news:
            bs.news.wait_for(lambda: bs.ended or bs.lines, TIMEOUT)
        return bs

    def check_end(self, bs):
        """End `bs` with Ctrl-C if it runs; it must never have shown a traceback."""
        running = not bs.ended
        code = bs.end()
        self.assertEqual(bs.matching("Traceback"), [])
        if running:
            self.assertEqual(code, 0, bs.lines[-9:])

    def terminal(self, script, *options, constants=None, first="", **streams):
        """Return the Terminal on which `script` runs, with its log in the folder."""
        argv = command(script, ["--log-file", "log", *options], constants, first)
        terminal = Terminal(argv, self.folder, **streams)
        self.addCleanup(terminal.popen.kill)
        return terminal

    def fake(self, *steps):
        """Return a Fake that takes these steps."""
        fake = Fake(*steps)
        self.addCleanup(fake.end)
        return fake

    def client(self, *options, first="", stdin=b"", **changes):
        """Run client.py with its log in the folder and return how it Ended."""
        argv = command("client", ["--log-file", self.client_log, *options], first=first)
        return run(argv, self.folder, stdin, **changes)

    def ask(self, server, *options, **others):
        """Have client.py (see client) ask `server`; of the text only what follows `Connecté …`."""
        ended = self.client("-p", str(server.port), *options, **others)
        said = connected("127.0.0.1", server.port)
        self.assertEqual(ended.text[:len(said)], said)
        return Ended(ended.code, ended.text[len(said):], ended.console)

    def call(self, script, *options, stdin=None):
        """Call main() of `script` in this process, with its log in the folder and `stdin` (nothing,
        if None); return as `run`."""
        def give_up(*_):
            raise AssertionError(f"{script.__name__}.main() does not end")
        log_file = self.log_file if script is server else self.client_log
        stock = signal.signal(signal.SIGALRM, give_up)
        signal.alarm(TIMEOUT)
        try:
            with mock.patch("sys.stdin", stdin or io.StringIO()), captured() as (text, console):
                code = script.main(["--log-file", log_file, *options])
        except KeyboardInterrupt:  # which would end the tests
            self.fail("it does not handle Ctrl-C")
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, stock)
        return Ended(code, text.getvalue(), console.getvalue())

    def read(self, path):
        """Return the text of the file `path`."""
        with open(path, encoding="utf-8") as file:
            return file.read()

    def write(self, path, text):
        """Write `text` to the file `path`."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def kept(self, path=None):
        """Return the lines of the log at `path` and of its backup."""
        path = path or self.log_file
        backup = self.read(path + ".1") if os.path.isfile(path + ".1") else ""
        return (backup + self.read(path)).splitlines()

    def wait_for(self, happens):
        """Return once `happens()` is true."""
        end = time.monotonic() + TIMEOUT
        while not happens():
            self.assertLess(time.monotonic(), end, "it does not happen")
            time.sleep(0.01)

    def need_descriptors(self, count):
        """Skip the test if a process may have fewer than `count` descriptors."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if most < count:
            self.skipTest(f"it needs {count} descriptors, and there are {most}")

    def exit_of(self, function, *args):
        """Return the exit code with which `function` refuses `args`, and what it says."""
        with captured() as (_, console), self.assertRaises(SystemExit) as end:
            function(*args)
        return end.exception.code, console.getvalue()


def connected(ip, port):
    """Return what the client shows once it is connected."""
    return f"Connecté avec succès au serveur {ip} sur le port {port}\n"


def answered(text):
    """Return what the client shows of a reply."""
    return f"Le serveur a répondu : {text}\n"


def trouble(cause):
    """Return what the client says of an exchange that failed."""
    return f"Une erreur est survenue: {cause}\n"


CLOSED = trouble("Le serveur a fermé la connexion sans répondre.")
NO_WORD = trouble(
    f"Le message doit contenir le mot {WORDS}.\nLe mot s'écrit en minuscules ; l'adresse du "
    "serveur se donne avec -H et son port avec -p (-h montre l'aide).")
REFUSED = ("Cause : Aucun serveur n'écoute à cette adresse et sur ce port ; lancez le serveur, ou "
           f"corrigez -H ou -p ({os.strerror(errno.ECONNREFUSED)}).")
BROKEN = f"Le serveur a rompu la connexion ; réessayez, ou lisez son journal ({RESET})."
LATE = "Pas de réponse dans le délai ; vérifiez l'adresse, le port et le pare-feu"
NOTHING = trouble("Rien n'a été saisi.")
TOO_LONG = trouble("Le message ne doit pas dépasser 1024 octets en UTF-8.")
QUESTION = "Que veux-tu envoyer au serveur : "


# The exchange


class Replies(Scene):
    """What the message contains decides the reply."""

    table = (
        ("meo", MEO), ("waf", WAF), ("waf meo", MEO), ("meowaf", MEO), ("homeopathie", MEO),
        ("bonjour", HUMAN), ("MEO", HUMAN), ("Waf", HUMAN), ("wa f", HUMAN), ("", HUMAN),
    )

    def test_the_rule_gives_each_reply(self):
        bs = self.serve()
        for message, reply in self.table:
            self.assertEqual(server.reply_to(message), reply, message)
            bs.connect().send(message.encode() + b"\n").expect(reply)
        self.assertEqual({reply for _, reply in self.table}, {reply for _, reply in server.REPLIES})

    def test_urgent_bytes_are_part_of_the_message(self):
        connection = self.serve(constants={"SILENCE": NEVER}).connect().send(b"wa")
        connection.socket.send(b"f", socket.MSG_OOB)
        connection.send(b"\n").expect(WAF)


class MessageEnds(Scene):
    """A message may come in pieces, and has four ends."""

    def test_a_newline_meo_or_the_end_of_the_stream_ends_it_at_once(self):
        bs = self.serve(constants={"SILENCE": NEVER})
        bs.connect().send(b"waf\r", b"\n").expect(WAF)
        bs.connect().send(b"w", b"af\nmeo").expect(WAF)
        bs.connect().send(b"waf m", b"eo").expect(MEO)
        bs.connect().send(b"w", b"af").half_close().expect(WAF)
        bs.expect_line('a envoyé "waf".', 3)

    def test_silence_ends_it(self):
        bs = self.serve()
        bs.connect().send(b"w", b"af").expect(WAF)

    def test_a_client_that_leaves_without_a_byte_gets_nothing_and_one_line(self):
        bs = self.serve()
        bs.connect().half_close().expect("")
        for _ in range(20):  # a scan
            bs.connect().close()
        bs.exchange()
        bs.end()
        self.assertEqual(len(bs.lines), START + 1 + 20 + LINES + END)


# The command lines


class CommandLines(Scene):
    """What both scripts share: help, version, misuse, port, log file."""

    def test_help_names_every_option_with_its_default_in_80_columns(self):
        both = "--help affiche cette aide", "(par défaut 13337)", "--version affiche la version"
        own = {server: ("Serveur bs. Un message, une réponse", "Ctrl-C",
                        "(par défaut 0.0.0.0, soit toutes ses adresses IPv4)",
                        "-v, --verbosity écrit aussi"),
               client: ("Client bs. Envoie un message", "(par défaut 127.0.0.1)",
                        "(par défaut 10)", WORDS, "-v, --verbosity affiche aussi")}
        usage = {server: "[-h] [-p PORT] [-l ADRESSE] [--log-file FICHIER] [-v] [--version]",
                 client: "[-h] [-H HÔTE] [-p PORT] [-t SECONDES] [--log-file FICHIER] [-v] "
                         "[--version] [message "}
        for script, said in own.items():
            name = script.__name__
            code, text, _ = run(command(name, ["--help"]), self.folder, COLUMNS="80")
            self.assertEqual((code, text.split(" [")[0]), (0, f"usage: {name}.py"))
            self.assertLessEqual(max(map(len, text.splitlines())), 80)
            self.assertNotRegex(text, r"(?m)^ *[:;]")  # which French parts by a space
            self.assertIn(usage[script], " ".join(text.split()))
            for phrase in (*both, *said, *script.LOG_FILES):
                self.assertRegex(" ".join(text.split()), re.escape(phrase) + r"(?!\w)")

    def test_version_and_help_are_printed_in_any_locale(self):
        for script in ("server.py", "client.py"):
            copy = self.path("é" + script)  # which spawn() gives in UTF-8 too
            shutil.copy(os.path.join(HERE, script), copy.encode("utf-8"))
            version, usage = [run([sys.executable, copy, option], self.folder,
                                  PYTHONIOENCODING="ascii") for option in ("--version", "--help")]
            self.assertEqual(version, (0, f"\\xe9{script} 1.0\n", ""))
            self.assertEqual((usage.code, "d\\xe9faut" in usage.text, usage.console), (0, True, ""))

    # Scripts, options ("{}" stands for each of the values), values, exit code and last line
    refusals = (
        ("client", "-t {}", ("0", "-1", "nan", "inf", "86401", "2,5"), 2,
         ("error: argument -t/--timeout: doit être un nombre de secondes, par exemple 2.5 (avec un "
          "point), supérieur à 0 et inférieur ou égal à 86400 (un jour)")),
        ("server client", "-p {}", ("treize", "1.5", "", "\033[31m"), 2,
         "error: argument -p/--port: doit être un nombre entier, par exemple 13337"),
        ("server client", "{}", ("-p",), 2, "error: argument -p/--port: expected one argument"),
        ("server client", "{}", ("--nope", "–p", "—p", "−−port"), 2,
         "error: unrecognized arguments: {}"),
        ("server", "{}", ("x",), 2, "error: unrecognized arguments: {}"),
        ("server client", "-p {}", ("-1", "65536", "99999999999999999999"), 1,
         "ERROR Le port spécifié n'est pas un port possible (de 0 à 65535)."),
        ("server", "-p {}", ("0", "80", "1024"), 2,
         "ERROR Le port spécifié est un port privilégié. Spécifiez un port au dessus de 1024."),
        ("server", "-l {}", ("localhost",), 3,
         "ERROR L'adresse spécifiée {} n'est pas une adresse IP valide."),
        ("server", "-p 20000 --log-file {}", ("no/x",), 5,
         f"ERROR Impossible d'ouvrir le journal {{}} : {os.strerror(errno.ENOENT)}."),
        ("client", "meo --log-file {}", ("no/x",), 1,
         f"ERROR Impossible d'ouvrir le journal {{}} : {os.strerror(errno.ENOENT)}."),
    )

    def test_each_refusal_has_its_exit_code_and_its_sentence(self):
        for scripts, options, values, code, sentence in self.refusals:
            for name, value in itertools.product(scripts.split(), values):
                argv = [option.format(value) for option in options.split()]
                with self.subTest(argv, script=name):
                    if value == values[0]:
                        ended = run(command(name, argv), self.folder)
                    else:
                        ended = self.call(importlib.import_module(name), *argv)
                    said = re.escape(sentence.format(client.printable(value)))
                    if sentence.startswith("error: "):
                        said = r"usage: (.*\n)+.*: " + said
                    self.assertEqual((ended.code, ended.text), (code, ""))
                    self.assertRegex(ended.console, f"^{said}\n$")
        self.assertEqual(os.listdir(self.folder), [])

    def test_the_first_and_the_last_of_what_may_be_is_not_refused(self):
        for options, name, value in ((["-p", "0"], "port", 0), (["-p", "65535"], "port", 65535),
                                     (["-t", "86400"], "timeout", 86400)):
            self.assertEqual(getattr(client.parse(options), name), value)
        for port in (1025, 65535):
            self.assertEqual(server.parse(["-p", str(port)]).port, port)

    def test_a_path_that_python_itself_refuses_is_no_log_file(self):  # on Windows CON too
        for script in (server, client):
            code, console = self.exit_of(script.open_journal, "a\0b")
            self.assertEqual(code, script.LOG_REFUSED)
            self.assertRegex(console, r"^ERROR Impossible d'ouvrir le journal a\\x00b : .*\.\n$")

    def test_no_usage_is_coloured(self):  # Python 3.14 would, if standard output is a terminal
        tell = ("import argparse; argparse.ArgumentParser.parse_args = "
                "lambda parser, argv: sys.exit(str(parser.color))")
        for name in ("server", "client"):
            self.assertEqual(run(command(name, first=tell), self.folder), (1, "", "False\n"))
            code, screen = self.terminal(name, "--nope").end()
            self.assertEqual((code, screen[:6], "\033" in screen), (2, "usage:", False))


class ServerExits(Scene):
    """The rows of the table of exit codes that are the server's own."""

    def cannot_listen(self, address, port):
        """Check that the server cannot listen there, and return the system's words for it."""
        argv = command("server", ["-l", address, "-p", port, "--log-file", self.log_file])
        ended = run(argv, self.folder)
        said = (f"ERROR Impossible d'écouter sur {client.printable(client.endpoint(address, port))}"
                " : le port est peut-être déjà pris (arrêtez l'autre serveur, ou choisissez un port"
                " avec -p), ou l'adresse n'est pas à cette machine (")
        self.assertEqual((ended.code, ended.text, ended.console[:len(said)]), (4, "", said))
        self.assertEqual(ended.console[-3:], ").\n")
        return ended.console[len(said):-3]

    def test_what_is_not_an_ip_address_exits_3(self):
        for ip in ("", "\udcff", "*", "1.2.3", "127.1", "2130706433", "0x7f.0.0.1", "256.0.0.1",
                   "1.2.3.4.5", "1.2.3.4 ", "\u200b127.0.0.1", "１２７.0.0.1", "::１",
                   "[127.0.0.1]", "[::1", "[]", ":::1", "::g", "::1/64", "::1\u200b", "\033[31m"):
            shown = client.printable(ip)
            self.assertEqual(self.exit_of(server.address_of, ip), (
                3, f"ERROR L'adresse spécifiée {shown} n'est pas une adresse IP valide.\n"))

    def test_an_address_that_this_machine_does_not_have_exits_4(self):
        elsewhere = os.strerror(errno.EADDRNOTAVAIL)
        for port in ("1025", "65535"):
            self.assertEqual(self.cannot_listen("192.0.2.1", port), elsewhere)
        if has_ipv6():
            self.assertEqual(self.cannot_listen("2001:db8::1", "20000"), elsewhere)
            self.cannot_listen("fe80::1%\udcff", "20000")
            for zone in ("none", "a..b", "x" * 70, "é+0"):  # which no interface is called
                code, console = self.exit_of(server.listen, "fe80::1%" + zone, 20000)
                self.assertEqual(code, 4)
                self.assertRegex(console, "^ERROR Impossible d'écouter sur "
                                          rf"\[fe80::1%{re.escape(zone)}\]:20000 : [^\n]*\.\n$")

    def test_sigterm_ends_it_at_once_without_a_last_line(self):
        bs = self.serve()
        self.assertEqual(bs.end(signal.SIGTERM), -signal.SIGTERM)
        self.assertEqual(len(bs.lines), START)

    def test_a_port_that_is_taken_exits_4(self):
        port = str(self.serve("-l", "127.0.0.1").port)
        self.assertEqual(self.cannot_listen("127.0.0.1", port), os.strerror(errno.EADDRINUSE))

    def test_what_is_neither_the_ports_fault_nor_the_addresss_is_told_as_it_is(self):
        cannot = "ERROR Impossible d'écouter sur {}:20000 : {}.\n"
        argv = command("server", ["-p", "20000", "--log-file", "log"], first=limited(4))
        self.assertEqual(run(argv, self.folder), (4, "", cannot.format("0.0.0.0", NO_DESCRIPTOR)))
        with mock.patch("socket.has_ipv6", False):
            self.assertEqual(self.exit_of(server.listen, "::1", 20000), (
                4, cannot.format("[::1]", "Ce Python a été construit sans IPv6")))
            server.listen("127.0.0.1", free_port()).close()


# The server's log


class ServerLog(Scene):
    """Every event is one line, on the console and in the file."""

    def test_an_exchange_is_three_info_lines_in_the_notes_format(self):
        self.write(self.log_file, "before\n")
        bs = self.serve()
        bs.exchange()
        self.assertEqual(bs.end(), 0)
        self.assertEqual(bs.messages(), [
            f"INFO Le serveur tourne sur 0.0.0.0:{bs.port}",
            f"INFO Journal : {self.log_file}",
            *EXCHANGE,
            "INFO Arrêt du serveur.",
        ])
        for line in bs.lines:
            self.assertRegex(line, "^" + DATE)
        self.assertEqual(self.kept(), ["before", *bs.lines])

    def test_only_verbosity_adds_debug_lines(self):
        reset = f"DEBUG Le client 127.0.0.1 a rompu la connexion : {RESET}."
        end = "DEBUG Fin de la connexion du client 127.0.0.1."
        for options, debug in (([], []), (["-v"], [reset, end, end, end, end])):
            bs = self.serve(*options, constants={"SILENCE": 0.05})
            connection = bs.connect().send(b"wa")
            bs.expect_line(CONNECTED)
            connection.reset()
            bs.connect().send(b"waf").expect(WAF)  # its silence outlasts some rounds
            bs.connect().half_close().expect("")
            bs.exchange()
            bs.expect_line(end, debug.count(end))
            bs.end()
            self.assertEqual(bs.messages("DEBUG"), debug)

    def test_the_file_rotates_at_10000_bytes_with_one_backup(self):
        bs = self.serve()
        for number in range(100):
            bs.connect().send(("é" * (4 * number) + " meo\n").encode()).expect(MEO)
            for name in os.listdir(self.folder):
                self.assertLessEqual(os.path.getsize(self.path(name)), 10000)
        bs.expect_line("Réponse envoyée", 100)
        bs.end()
        self.assertEqual(sorted(os.listdir(self.folder)), ["bs_server.log", "bs_server.log.1"])
        self.assertEqual(self.kept(), bs.lines[-len(self.kept()):])
        self.assertGreater(os.path.getsize(self.log_file + ".1"), 9000)

    def test_a_message_forges_no_line_and_acts_on_no_screen(self):
        bs = self.serve()
        evil = "\r2026-01-01 00:00:00 INFO faux\v\033[31m\x07\u202e\u2028\x85\x9b2J\u200b\t\ufeff"
        bs.connect().send(evil.encode() + b"\n").expect(HUMAN)
        french = "«\xa0Bien reçu\u202f!\xa0»"  # whose spaces Python does not call printable
        bs.connect().send(french.encode() + b"\n").expect(HUMAN)
        bs.expect_line(f'a envoyé "{french}".')
        bs.end()
        shown = (r"\r2026-01-01 00:00:00 INFO faux"
                 r"\x0b\x1b[31m\x07\u202e\u2028\x85\x9b2J\u200b\t\ufeff")
        for lines in (bs.lines, self.kept()):
            self.assertTrue(lines[3].endswith(f'a envoyé "{shown}".'), lines[3])
            self.assertTrue(re.sub("[\xa0\u202f]", "", "".join(lines)).isprintable())

    def test_the_default_file_falls_back_to_the_current_folder_and_then_to_the_console_alone(self):
        bs = self.serve(log_file="", constants={"LOG_FILES": ("no/x", "no/y")})
        bs.exchange()
        self.assertEqual(bs.messages()[1], "WARN Aucun journal ne peut être ouvert : "
                                           "seule la console reçoit les lignes.")
        self.assertEqual(os.listdir(self.folder), [])
        for files in (("no/x", "bs_server.log"), ("bs_server.log", "no/x")):
            bs = self.serve(log_file="", constants={"LOG_FILES": files})
            bs.end()
            self.assertEqual(bs.messages()[1], f"INFO Journal : {self.log_file}")
            self.assertEqual(self.kept()[-len(bs.lines):], bs.lines)

    def test_a_terminal_sees_the_levels_in_colour_but_on_windows_and_the_file_does_not(self):
        for first, info, warn in (("", "\x1b[37mINFO\x1b[0m", "\x1b[33mWARN\x1b[0m"),
                                  (WINDOWS, "INFO", "WARN")):
            terminal = self.terminal("server", "-p", str(free_port()), first=first,
                                     constants={"SLEEP_MAX": 0.05, "LONELY": 0.1})
            terminal.expect("Aucun client")
            terminal.popen.send_signal(signal.SIGINT)
            code, screen = terminal.end()
            self.assertEqual(code, 0)
            self.assertRegex(screen, DATE + re.escape(info) + " Le serveur tourne")
            self.assertRegex(screen, DATE + re.escape(warn) + " Aucun client")
            self.assertEqual("\x1b" in screen, not first)
        self.assertNotIn("\x1b", self.read(self.path("log")))

    def test_the_date_of_a_line_is_that_of_its_second_also_after_ctrl_c_while_it_is_made(self):
        line = server.LineFormatter()

        def record(created):
            return logging.makeLogRecord({"levelname": "INFO", "msg": "x", "created": created})
        with mock.patch.object(line, "formatTime", side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, line.format, record(0.5))
        for created, end in ((0.9, ":00 INFO x"), (1.1, ":01 INFO x"), (61.0, ":01 INFO x")):
            self.assertRegex(line.format(record(created)), "^" + DATE.replace(r":\d\d ", end))


class LogGoesOn(Scene):
    """A full file is copied and emptied; what fails is one WARN, and the service goes on."""

    def failed(self, path, error):
        """Return the warning that the log at `path` does not work."""
        return f"WARN Le journal {path} ne fonctionne plus : {os.strerror(error)}."

    def failing(self, error, calls, cause):
        """Return the statements with which these `calls` of the log fail with `error` (errno) while
        the path `cause` is there."""
        return prelude(break_files, OSError(error, os.strerror(error)), calls, cause)

    def small(self, exchanges, log_file=None):
        """Return the constants with which a server's log is full after so many exchanges."""
        lines = ["INFO Le serveur tourne sur 0.0.0.0:12345",
                 f"INFO Journal : {log_file or self.log_file}", *EXCHANGE * exchanges]
        return {"LOG_BYTES": sum(len(f"2026-11-25 12:58:10 {line}\n".encode()) for line in lines)}

    def expect_newest(self, bs, more_than):
        """Check that the log and its backup hold the newest lines of `bs`, and so many."""
        kept = self.kept()
        self.assertEqual(kept, bs.lines[-len(kept):])
        self.assertGreater(len(kept), more_than)

    def expect_left_alone(self, bs, archive, exchanges):
        """Check that `archive` is what a log was that is full after so many exchanges."""
        self.assertEqual(self.read(archive).splitlines(), bs.lines[:START + LINES * exchanges])

    def pipe(self):
        """Have a pipe in the log's place; return the descriptor of its reader."""
        os.mkfifo(self.log_file)
        reader = os.open(self.log_file, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        return reader

    def test_a_file_whose_backup_cannot_be_written_goes_on_without_one(self):
        os.mkdir(self.log_file + ".1")
        warning = (f"WARN La sauvegarde {self.log_file}.1 ne peut être écrite : "
                   f"{os.strerror(errno.EISDIR)}.")
        bs = self.serve(constants=self.small(2))
        inode = os.stat(self.log_file).st_ino
        bs.exchange(3)
        self.assertEqual(undated(self.kept()), [EXCHANGE[0], warning, *EXCHANGE[1:]])
        bs.exchange(9)
        self.assertEqual((os.stat(self.log_file).st_ino, bs.messages("WARN")), (inode, [warning]))
        self.expect_newest(bs, 0)
        os.rename(self.log_file, self.path("archive"))
        os.mkdir(self.log_file)
        bs.exchange(9)
        os.rmdir(self.log_file)
        bs.exchange(9)
        self.assertEqual(bs.messages("WARN"), [warning, self.failed(self.log_file, errno.EISDIR)])

    def test_a_disk_that_goes_and_comes_back_has_the_next_lines_and_meanwhile_no_file_is_made(self):
        gone, away = self.path("gone"), self.path("away")
        bs = self.serve(first=self.failing(errno.EIO, ("write", "truncate"), gone))
        expected = bs.lines[:]
        for _ in range(2):
            bs.exchange()
            expected += bs.lines[-LINES:]
            self.write(gone, "")
            bs.exchange()
            os.rename(self.log_file, away)  # unmounted: its name leads to the bare mount point
            bs.exchange()
            os.remove(gone)
            bs.exchange()
            self.assertEqual(os.listdir(self.folder), ["away"])
            os.rename(away, self.log_file)
            bs.exchange()
            expected += bs.lines[-LINES:]
            self.assertEqual(self.kept(), expected)
        self.assertEqual(bs.messages("WARN"), [self.failed(self.log_file, errno.EIO)])
        os.rename(self.log_file, away)
        self.write(away, "full\n" * 2000)
        bs.exchange()
        self.assertEqual(self.read(self.log_file).splitlines(), bs.lines[-LINES:])

    def test_where_another_disk_is_mounted_over_a_full_one_a_log_is_begun(self):
        full = self.path("full")
        bs = self.serve(first=self.failing(errno.ENOSPC, ("write",), full))
        self.write(full, "")
        bs.exchange()
        os.remove(self.log_file)
        os.remove(full)
        bs.exchange()
        self.assertEqual(self.kept(), bs.lines[-LINES:])

    def test_what_fails_is_said_once_and_also_where_logging_drops_what_a_handler_logs(self):
        for first in ("", prelude(drop_what_a_handler_logs)):
            with self.subTest(first):
                bs = self.serve(log_file="/dev/full", first=first)
                bs.exchange(9)
                bs.end()
                self.assertEqual(bs.messages("WARN"), [self.failed("/dev/full", errno.ENOSPC)])
                self.assertEqual(bs.messages("INFO Journal"), [])  # where it is, if it works
                self.assertEqual(len(bs.lines), 1 + 1 + LINES * 9 + END)

    def test_a_log_that_is_moved_is_left_alone_and_one_that_is_removed_comes_back(self):
        for name in ("archive", "bs_server.log.1", None):
            with self.subTest(name):
                bs = self.serve(constants=self.small(13))
                if name:
                    os.rename(self.log_file, self.path(name))
                else:
                    os.remove(self.log_file)
                bs.exchange(25)  # of which 13 go to the file that the name led to
                bs.end()
                self.assertEqual(bs.messages("WARN"), [])
                self.expect_newest(bs, 24 * LINES)
                if name == "archive":
                    self.expect_left_alone(bs, self.path(name), 13)
            for left in os.listdir(self.folder):
                os.remove(self.path(left))

    def test_a_file_that_has_taken_the_place_of_a_moved_log_is_appended_to(self):
        bs = self.serve(constants=self.small(13))
        os.rename(self.log_file, self.path("archive"))
        self.write(self.log_file, "theirs\n")
        bs.exchange(20)
        self.assertEqual(self.read(self.log_file).splitlines(), ["theirs", *bs.lines[-7 * LINES:]])
        self.expect_left_alone(bs, self.path("archive"), 13)

    @PIPES
    def test_a_pipe_that_has_taken_the_place_of_a_moved_log_misses_no_line(self):
        bs = self.serve(constants=self.small(13))
        os.rename(self.log_file, self.path("archive"))
        reader = self.pipe()
        bs.exchange(20)
        moved = self.read(self.path("archive")) + os.read(reader, 65536).decode()
        self.assertEqual(moved.splitlines(), bs.lines)
        self.assertEqual(bs.messages("WARN"), [])

    def test_a_moved_log_whose_close_fails_is_begun_anew(self):  # NFS may say so late
        full = self.path("full")
        bs = self.serve(first=self.failing(errno.ENOSPC, ("close",), full), constants=self.small(1))
        bs.exchange()
        self.assertEqual(os.listdir(self.folder), ["bs_server.log"])  # they fit: no backup yet
        os.rename(self.log_file, self.path("archive"))
        self.write(full, "")
        bs.exchange()
        self.assertEqual(undated(self.read(self.log_file).splitlines()),
                         [self.failed(self.log_file, errno.ENOSPC), *EXCHANGE[1:]])

    def test_a_log_that_is_moved_where_no_other_can_be_made_is_begun_anew_once_it_can(self):
        def block(path):
            self.write(path, "")

        def remake(path):
            with contextlib.suppress(OSError):
                os.remove(path)
            os.mkdir(path)
        for folder, moved, archive, fill, clear, error in (
                ("a", "a/log", "a.old", os.mkdir, os.rmdir, errno.EISDIR),
                ("b", "b", "b.old/log", block, remake, errno.ENOTDIR),
                ("c", "c", "c.old/log", None, remake, errno.ENOENT)):
            with self.subTest(os.strerror(error)):
                folder, moved, archive = map(self.path, (folder, moved, archive))
                os.mkdir(folder)
                log_file = os.path.join(folder, "log")
                bs = self.serve(log_file=log_file, constants=self.small(13, log_file))
                os.rename(moved, folder + ".old")
                if fill:
                    fill(moved)
                bs.exchange(20)
                clear(moved)
                bs.exchange()
                self.assertEqual(self.read(log_file).splitlines(), bs.lines[-LINES:])
                self.expect_left_alone(bs, archive, 13)
                self.assertEqual(bs.messages("WARN"), [self.failed(log_file, error)])

    def test_the_log_and_its_backup_have_the_mode_of_the_umask_or_keep_their_own(self):
        for first, made, mode in (("import os; os.umask(0o077)", False, 0o600), ("", True, 0o640)):
            with self.subTest(oct(mode)):
                log_file = f"{self.log_file}.{mode:o}"
                for name in (log_file, log_file + ".1"):
                    if made:
                        self.write(name, "")
                        os.chmod(name, mode)
                bs = self.serve(log_file=log_file, first=first, constants=self.small(1, log_file))
                bs.exchange(2)
                modes = [os.stat(name).st_mode & 0o777 for name in (log_file, log_file + ".1")]
                self.assertEqual(modes, [mode] * 2)

    def test_a_link_stays_a_link_and_the_file_the_same_even_if_it_leads_to_proc(self):
        with open(self.path("target"), "w") as file:
            for target in (file.name, f"/proc/{os.getpid()}/fd/{file.fileno()}"):
                with self.subTest(target):
                    os.symlink(target, self.log_file)
                    bs = self.serve(constants=self.small(13))
                    inode = os.stat(file.name).st_ino
                    bs.exchange(20)
                    bs.end()
                    self.assertTrue(os.path.islink(self.log_file))
                    self.assertEqual(os.stat(file.name).st_ino, inode)
                    self.expect_newest(bs, 13 * LINES)
                    file.truncate(0)
                    os.remove(self.log_file)

    def test_a_large_old_log_leaves_its_newest_bytes(self):
        self.write(self.log_file, "".join(f"{number:9}\n" for number in range(9000)))
        bs = self.serve()
        bs.end()
        self.assertEqual(self.read(self.log_file + ".1"),
                         "".join(f"{number:9}\n" for number in range(8000, 9000)))
        self.assertEqual(self.read(self.log_file).splitlines(), bs.lines)

    @unittest.skipUnless(os.access("/dev/shm", os.W_OK), "no /dev/shm")
    def test_a_file_in_dev_shm_is_emptied_and_copied_as_any_other(self):
        folder = tempfile.mkdtemp(dir="/dev/shm")
        self.addCleanup(shutil.rmtree, folder)
        self.log_file = os.path.join(folder, "log")
        bs = self.serve(constants=self.small(13))
        bs.exchange(20)
        self.expect_newest(bs, 13 * LINES)
        self.assertEqual(sorted(os.listdir(folder)), ["log", "log.1"])

    def test_what_stands_under_dev_or_proc_is_never_emptied_nor_copied(self):
        for path in ("/dev/fd/{}", "//dev/fd/{}", "/proc/self/fd/{}"):
            with self.subTest(path):
                with open(self.log_file, "w") as file:
                    bs = self.serve(log_file=path.format(file.fileno()), pass_fds=[file.fileno()],
                                    constants={"LOG_BYTES": 10})
                bs.exchange(2)
                bs.end()
                self.assertEqual(self.kept(), bs.lines)
                self.assertEqual(os.listdir(self.folder), ["bs_server.log"])

    def test_ctrl_c_in_the_middle_of_a_rotation_loses_nothing(self):
        for place in ("read", ".log.1", "truncate"):  # of the file, or to open its backup
            with self.subTest(place):
                log_file = self.path(place + ".log")
                bs = self.serve(log_file=log_file, constants=self.small(2, log_file),
                                first=prelude(break_files, KeyboardInterrupt(), (place,)))
                with contextlib.suppress(ConnectionError):
                    for _ in range(9):
                        bs.connect().send(b"meo\n").read_all()
                self.assertEqual(bs.popen.wait(TIMEOUT), 0)
                bs.end()
                self.assertEqual(bs.messages("WARN"), [])
                self.assertEqual(set(self.kept(log_file)), set(bs.lines))
                self.assertEqual(bs.messages()[-1], "INFO Arrêt du serveur.")

    @PIPES
    def test_a_pipe_gets_every_line_and_until_it_has_a_reader_no_client_can_connect(self):
        os.mkfifo(self.log_file)
        tell = prelude(tell_what_is_opened)
        self.assertEqual(self.launch(first=tell).end(), 0)  # Ctrl-C while it waits
        bs = self.launch(first=tell, constants={"LOG_BYTES": 10})
        bs.expect_line("opening")
        with self.assertRaises(ConnectionRefusedError):
            bs.connect()
        with open(self.log_file, "rb", 0) as reader:
            bs.expect_line("Le serveur tourne sur")
            bs.exchange()
            text, count = b"", START + LINES
            while text.count(b"\n") < count:
                text += next_of(reader.fileno())
            self.assertEqual(text.decode("utf-8").splitlines(), bs.lines[-count:])
        bs.exchange()  # the reader is gone
        bs.expect_line(self.failed(self.log_file, errno.EPIPE))
        bs.end()

    @PIPES
    def test_half_a_line_is_completed_in_a_pipe_and_taken_back_from_a_file(self):
        stock, turns, lines = open, itertools.count(), [f"INFO {number}" for number in range(9)]

        class Half(io.FileIO):
            def write(self, data):
                return super().write(data[:len(data) // 2] if next(turns) % 3 == 2 else data)

        def opening(path, mode="r", buffering=-1, **names):
            return stock(path, mode, buffering, **names) if buffering else Half(path, mode)

        def logged(read):
            with mock.patch("builtins.open", opening), \
                    server.Log(server.Journal(self.log_file), False, console=False) as log:
                for line in lines:
                    log.info(line[5:])
                return [line[20:] for line in read().splitlines()]
        lost = f"WARN Le journal {self.log_file} ne fonctionne plus : Il n'y a plus de place."
        # Each third write is a half, and the warning is a write too
        self.assertEqual(logged(lambda: self.read(self.log_file)), [
            "INFO 0", "INFO 1", lost, "INFO 3", "INFO 5", "INFO 6", "INFO 8"])
        os.remove(self.log_file)
        reader = self.pipe()
        self.assertEqual(logged(lambda: os.read(reader, 65536).decode()), lines)

    def test_a_console_whose_reader_is_gone(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        lines = self.log_of_unread_console(stderr=writer)
        failed = f"WARN La console ne fonctionne plus : {os.strerror(errno.EPIPE)}."
        self.assertEqual((lines.count(failed), len(lines)), (1, START + 1 + 3 * LINES + END))


# No client makes another wait


class NoClientWaits(Scene):
    """Nothing that a client does or fails to do keeps the next one waiting."""

    def test_clients_that_are_silent_or_drip_hold_up_none_and_are_answered_when_they_end(self):
        self.need_descriptors(600)
        bs = self.serve(constants={"SILENCE": NEVER})
        silent, dripping = bs.connect_many(400), bs.connect_many(100)
        bs.expect_line(CONNECTED, 500)
        for byte in b"goutte":
            for connection in dripping:
                connection.send(bytes([byte]))
            bs.exchange(5)
        for connection in silent[::40] + dripping:
            connection.send(b" waf\n")
        for connection in silent[::40] + dripping:
            connection.expect(WAF)
        bs.expect_line('a envoyé "goutte waf".', 100)
        self.assertEqual(bs.messages("WARN"), [])

    def test_of_3000_half_sent_messages_the_oldest_of_the_host_that_has_the_most_are_evicted(self):
        self.need_descriptors(3100)
        bs = self.serve(constants={"SILENCE": NEVER}, first=limited(1024))
        honest = bs.connect(source="127.0.0.2").send(b"un petit ")
        bs.expect_line("Un client 127.0.0.2")
        half_sent = bs.connect_many(3000, b"wa")
        bs.connect().send(b"meo\n").expect(MEO)
        half_sent[0].expect_hang_up()
        half_sent[-1].send(b"f\n").expect(WAF)
        honest.send(b"waf\n").expect(WAF)
        bs.end()
        counts = [int(re.search(r"écartés : (\d+)", line).group(1))
                  for line in bs.matching("Trop de clients")]
        self.assertIn(sum(counts), range(3000 - 1024 + server.RESERVE, 3000 - 1000))
        lines = bs.messages("WARN")
        self.assertLessEqual(len(lines), len({line[:19] for line in bs.lines}) + 1)
        self.assertEqual(len(lines), len(counts))  # and none of a descriptor that was not there

    def test_as_many_silent_clients_as_there_are_descriptors_are_all_kept(self):
        bs = self.serve(first=limited(32))
        silent = bs.connect_many(32 - bs.descriptors() - server.RESERVE)
        bs.expect_line(CONNECTED, len(silent))
        with open(self.log_file, "a") as file:  # full: its backup takes a descriptor too
            file.write("\n" * 10000)
        silent[-1].send(b"waf").expect(WAF)  # some rounds later
        for connection in silent[:-1]:
            connection.send(b"meo\n")
        for connection in silent[:-1]:
            connection.expect(MEO)
        self.assertEqual(bs.messages("WARN"), [])

    def test_resets_before_during_and_after_the_message_do_no_harm(self):
        bs = self.serve("-v")
        for sent in (b"", b"wa", b"waf\n", b"waf\nwaf"):
            for _ in range(20):
                bs.connect().send(sent).reset()
            bs.exchange()
        self.assertEqual(bs.messages("WARN"), [])

    def test_a_client_that_pours_is_answered_at_once_and_read_to_its_end(self):
        bs = self.serve("-v", constants={"SILENCE": NEVER, "ROUND": 0.001})
        pouring = [each.send(b"waf", *[b"x" * 65536] * 16) for each in bs.connect_many(20)]
        for each in pouring:
            self.assertEqual(each.receive(), WAF)
            each.half_close()
        for each in pouring:  # a connection that is closed with a byte unread is reset
            each.expect("")
        bs.expect_line("Fin de la connexion", 20)
        self.assertEqual((bs.matching("a rompu"), bs.messages("WARN")), ([], []))

    def test_without_any_descriptor_it_waits_and_serves_again_when_there_is_one(self):
        bs = self.serve(constants={"WARN_EVERY": 0.1})
        most = bs.limit(3)
        waiting = bs.connect_many(3, b"meo\n")
        failed = f"WARN Impossible d'accepter un client : {NO_DESCRIPTOR}."
        bs.expect_line(failed)
        used = bs.processor()
        bs.expect_line(failed, 3)
        self.assertLess(bs.processor() - used, 0.1)
        bs.limit(most)
        for connection in waiting:
            connection.expect(MEO)

    def test_a_limit_that_is_lowered_costs_a_crowd_its_places_and_nobody_else_the_reply(self):
        bs = self.serve(constants={"WARN_EVERY": 0.1})
        crowd = bs.connect_many(100)
        bs.expect_line(CONNECTED, 100)
        bs.limit(50)
        honest = bs.connect(source="127.0.0.2").send(b"waf")  # without an end: it has to wait
        honest.expect(WAF)
        bs.expect_line("Trop de clients")
        crowd[0].expect_hang_up()
        crowd[-1].send(b"meo\n").expect(MEO)

    def test_whatever_descriptors_there_are_it_refuses_or_serves_and_closes_what_it_opened(self):
        started = [self.launch(first=limited(count), constants={"SILENCE": NEVER}, changes=STRICT)
                   for count in range(4, 5 + server.RESERVE + 6)]
        for bs in started:
            if bs.matching("Le serveur tourne sur"):
                bs.connect(), bs.connect().send(b"wa")
                bs.exchange()
                bs.connect_many(20)
                bs.exchange()
            else:
                bs.popen.wait(TIMEOUT)
        # Ctrl-C just while a socket is handed over leaves it to the collector, and a strict Python
        # says so: not in the middle of the crowd
        time.sleep(0.1)
        for bs in started:
            if bs.end():
                self.assertEqual(len(bs.messages("ERROR Impossible d")), len(bs.lines), bs.lines)
        codes = {bs.popen.returncode for bs in started}
        self.assertTrue({0, 4} <= codes <= {0, 4, 5}, codes)  # 5: none was left for the log
        refusal = "ERROR Impossible de démarrer : Il ne reste aucun descripteur pour un client."
        self.assertIn((4, [refusal]), [(bs.popen.returncode, bs.lines) for bs in started])

    def test_on_windows_descriptors_are_not_counted(self):
        self.serve(first=f"{WINDOWS}\n{limited(12)}").exchange()

    def test_it_sleeps_while_no_client_is_there(self):
        bs = self.serve(constants={"SLEEP_MAX": NEVER})
        for connection in bs.connect_many(20):
            connection.close()
        bs.exchange()

        def sleeps():
            before = bs.status("voluntary_ctxt_switches")
            time.sleep(0.2)  # polling would be seen as 10 switches at least
            return bs.status("voluntary_ctxt_switches") == before
        self.wait_for(sleeps)

    def test_killed_under_load_and_started_again_it_listens(self):
        bs = self.serve()
        bs.connect_many(50, b"wa")
        bs.exchange()
        bs.end(signal.SIGKILL)
        argv = command("server", ["-p", str(bs.port), "--log-file", self.log_file])
        self.start(argv, bs.port).exchange()

    def test_thousands_of_exchanges_leave_their_lines_and_less_than_a_kilobyte_each(self):
        bs = self.serve()
        bs.exchange(500)
        before = bs.status("VmRSS")
        bs.exchange(1500)
        self.assertLess(bs.status("VmRSS"), before + 1500)
        bs.end()
        self.assertEqual(len(bs.lines), START + LINES * 2000 + END)


class Addresses(Scene):
    """IPv4 and IPv6, by address and by name."""

    def test_a_host_is_an_ipv4_address_or_the_first_64_bits_of_an_ipv6_one(self):
        def host(ip):
            return server.Client(mock.Mock(), ip, None).host
        self.assertEqual(host("2001:db8::1"), host("2001:db8:0:0:ffff::2"))
        self.assertNotEqual(host("2001:db8::1"), host("2001:db8:0:1::1"))
        self.assertNotEqual(host("192.0.2.1"), host("192.0.2.2"))
        self.assertEqual(host("fe80::1%eth0"), host("fe80::2"))

    def test_localhost_finds_the_server_on_each_address_it_has_and_no_other_does(self):
        for info in socket.getaddrinfo("localhost", None, 0, socket.SOCK_STREAM):
            bs = self.serve("-l", info[4][0])
            self.assertEqual(self.client("-H", "localhost", "-p", str(bs.port), "meo").code, 0)
            with self.assertRaises(ConnectionRefusedError):
                bs.connect("127.0.0.2")

    @unittest.skipUnless(has_ipv6(), "no ::1")
    def test_ipv6_is_served_and_logged_in_brackets_or_without(self):
        for address in ("::1", "[::1]"):
            bs = self.serve("-l", address)
            self.assertEqual(bs.messages()[0], f"INFO Le serveur tourne sur [::1]:{bs.port}")
            ended = self.client("-H", address, "-p", str(bs.port), "meo")
            self.assertEqual((ended.code, ended.text),
                             (0, connected("::1", bs.port) + answered(MEO)))
            bs.expect_line("Un client ::1 s'est connecté.")
            self.assertIn(f"INFO Connexion réussie à [::1]:{bs.port}.\n",
                          self.read(self.client_log))

    @unittest.skipUnless(os.path.exists("/proc/net/if_inet6"), "no IPv6")
    def test_the_interface_of_an_address_is_the_one_that_it_listens_on(self):
        for line in self.read("/proc/net/if_inet6").splitlines():
            digits, _, _, scope, _, interface = line.split()
            if scope == "20":  # link-local: without its interface it is no address
                address = ":".join(re.findall("....", digits)) + "%" + interface
                bs = self.serve("-l", address)
                ended = self.client("-H", address, "-p", str(bs.port), "meo")
                self.assertEqual(ended.text.partition("\n")[2], answered(MEO))
                return
        self.skipTest("no interface has a link-local address")

    @unittest.skipUnless(has_ipv6(), "no ::1")
    def test_one_socket_serves_both_and_logs_ipv4_as_ipv4(self):
        bs = self.serve("-l", "::")
        for host in ("::1", "127.0.0.1"):
            bs.connect(host).send(b"meo\n").expect(MEO)
            bs.expect_line(f"Un client {host} s'est connecté.")
            bs.expect_line(f"Réponse envoyée au client {host} :")

    def test_each_option_is_set_where_the_system_has_it_and_done_without_where_it_is_refused(self):
        on_windows = {"SO_EXCLUSIVEADDRUSE": 99, "TCP_CORK": None}
        for names, reuse, whole in (({}, socket.SO_REUSEADDR, socket.TCP_CORK),
                                    (on_windows, 99, socket.TCP_NODELAY)):
            kind = mock.Mock()
            listener = kind.return_value
            listener.setsockopt.side_effect = OSError
            with mock.patch.multiple("socket", create=True, socket=kind, **names):
                if names:
                    del socket.TCP_CORK
                self.assertIs(server.listen("127.0.0.1", 20000), listener)
            self.assertEqual([call[0] for call in listener.mock_calls],
                             ["setsockopt"] * 5 + ["bind", "listen"])
            listener.listen.assert_called_once_with(65535)
            self.assertCountEqual([call[0] for call in listener.setsockopt.call_args_list], [
                (socket.SOL_SOCKET, reuse, 1), (socket.IPPROTO_TCP, whole, 1),
                (socket.SOL_SOCKET, socket.SO_RCVBUF, 16384),
                (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1), (41, socket.IPV6_V6ONLY, 0)])


# The client


class Checks(unittest.TestCase):
    """The checks of a message, called directly."""

    def test_a_message_with_waf_or_meo_passes(self):
        for message in ("waf", "meo", "un homeo", "é" * 510 + "waf", "meo" + "x" * 1021):
            self.assertEqual(client.check_message(message), message)

    def test_what_may_not_be_sent_is_refused_with_the_reason(self):
        for kind, cause, messages in (
                (TypeError, "^Le message doit être une chaîne de carac", (b"meo", None, 3)),
                (client.NoWord, f"contenir le mot {WORDS}", ("", "bonjour", "MEO", "w af")),
                (ValueError, "dépasser 1024 octets", ("meo" + "x" * 1022, "meo" + "é" * 511)),
                (ValueError, "retour à la ligne", ("meo\n", "waf\nmeo", "waf\r", "w\raf"))):
            for message in messages:
                with self.subTest(message), self.assertRaisesRegex(kind, cause):
                    client.check_message(message)


class ClientAsks(Scene):
    """Connect, ask, check, send: what is typed arrives as typed, or is refused."""

    def prompt(self, fake, constants=None):
        """Return a client (Popen) of `fake`, with pipes, once it asks."""
        argv = command("client", ["-p", str(fake.port), "--log-file", self.client_log], constants)
        popen = spawn(argv, self.folder, {}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                      stderr=subprocess.PIPE)
        self.addCleanup(popen.kill)
        text = b""
        while not text.endswith(QUESTION.encode()):
            text += next_of(popen.stdout.fileno(), 1) or self.fail(f"no question after {text}")
        return popen

    def test_a_message_is_taken_from_the_command_line_or_else_asked_for(self):
        for words, sent in ((["un waf"], "un waf"), (["un", "petit", "waf"], "un petit waf"),
                            (["--", "-waf"], "-waf"), (["--", "—p", "waf"], "—p waf"),
                            (["", "waf", ""], " waf ")):
            self.assertEqual(client.parse(words).message, sent)
        bs = self.serve()
        self.assertEqual(self.ask(bs, "un", "waf"), (0, answered(WAF), ""))
        self.assertEqual(self.ask(bs, stdin="été meo\n".encode()),
                         (0, QUESTION + answered(MEO), ""))
        bs.expect_line('a envoyé "un waf".')
        bs.expect_line('a envoyé "été meo".')

    def test_a_person_at_a_terminal_sees_what_readme_shows(self):
        readme, bs = self.read(os.path.join(HERE, "README.md")), self.serve()
        shown = readme.partition("$ python3 client.py\n")[2].partition("```")[0]
        shown = shown.replace("13337", str(bs.port)).replace("\n", "\r\n")
        terminal = self.terminal("client", "-p", str(bs.port)).expect(QUESTION)
        self.assertEqual(terminal.type(b"un petit waf\n").end(), (0, shown))

    def test_what_is_typed_arrives_as_typed_and_standard_error_stays_empty(self):
        errors = self.path("errors")
        for keys, sent in ((b"waf\n", b"waf\n"), (b"waf\x04\x04", b"waf\n"),
                           (b"waf!\x04\n", b"waf!\n"), (b"\x00w\x1b[Daf meo\n",) * 2):
            with self.subTest(keys):
                fake = self.fake(hear, b"ok")
                with open(errors, "wb") as console:
                    terminal = self.terminal("client", "-p", str(fake.port), stderr=console)
                code, screen = terminal.expect(QUESTION).type(keys).end()
                self.assertEqual((code, screen.splitlines()[2:]), (0, [answered("ok").rstrip()]))
                self.assertEqual((fake.heard(), self.read(errors)), ([sent], ""))

    def test_the_question_is_asked_where_a_person_can_read_it(self):
        reply = self.path("reply.txt")
        with open(reply, "wb") as file:
            terminal = self.terminal("client", "-p", str(self.fake(hear, b"ok").port), stdout=file)
        self.assertEqual(terminal.expect(QUESTION).type(b"waf\x04\x04").end(),
                         (0, QUESTION + "waf\r\n"))
        self.assertEqual(self.read(reply).partition("\n")[2], answered("ok"))
        master, window = pty.openpty()  # another, in which errors are shown
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, window)
        terminal = self.terminal("client", "-p", str(self.fake(hear, b"ok").port), stderr=window)
        self.assertEqual(terminal.expect(QUESTION).type(b"waf\n").end()[0], 0)

    def test_what_comes_through_a_pipe_arrives_as_it_is_or_is_refused(self):
        for typed, sent, cause in (
                (b" waf ", b" waf \n", ""), (b"waf\r\n", b"waf\n", ""),
                ("\ufeff\x00waf\nmeo\n".encode(), "\ufeff\x00waf\n".encode(), ""),
                (b"waf" + b"x" * 1021 + b"\n", b"waf" + b"x" * 1021, ""),
                (b"\n", b"", NO_WORD), (b"", b"", NOTHING),
                (b"waf" * 999999, b"", TOO_LONG), (b"x" * 1022 + b"meo\n", b"", TOO_LONG),
                (b"meo \xff\n", b"", trouble("La saisie n'est pas du texte en UTF-8."))):
            with self.subTest(typed[:9]):
                fake = self.fake(hear, b"ok")
                end = "" if typed[:1026].endswith(b"\n") else "\n"  # what is said begins a line
                reply = "" if cause else answered("ok")
                ended = self.ask(fake, stdin=typed, PYTHONIOENCODING="utf-8:strict")
                self.assertEqual(ended, (bool(cause), QUESTION + end + reply, cause))
                self.assertEqual(fake.heard(), [sent])

    def test_a_message_that_is_refused_exits_1_before_connecting(self):
        fake = self.fake(hear)
        for words, cause in (([""], NO_WORD), (["x" * 1022 + "meo"], TOO_LONG), (["MEO"], NO_WORD),
                             (["waf\r\n"], trouble("Le message ne doit pas contenir de retour à la "
                                                   "ligne.")),
                             (["192.168.1.20", "13337"], NO_WORD)):
            self.assertEqual(self.call(client, "-p", str(fake.port), *words), (1, "", cause), words)
        self.assertTrue(fake.is_alive())

    def test_it_sends_the_message_and_a_newline_and_does_not_half_close(self):
        def hear_no_more(connection):
            connection.settimeout(0.1)
            with contextlib.suppress(socket.timeout):  # the end of its stream would be b""
                return connection.recv(1024)
        fake = self.fake(hear, hear_no_more, b"ok")
        self.assertEqual(self.ask(fake, "é meo \udcff").code, 0)
        self.assertEqual(fake.heard(), ["é meo ".encode() + b"\xff\n", None])

    def test_no_byte_is_sent_that_a_server_of_this_family_would_leave_unread(self):
        for size in (1023, 1024):  # to close with a byte unread would be a reset
            fake = self.fake(lambda connection: connection.recv(1024), b"ok")
            self.assertEqual(self.ask(fake, "waf" + "x" * (size - 3)), (0, answered("ok"), ""))

    def interrupt(self, popen):
        """Send Ctrl-C to the client `popen`, once it waits, and check how it ends."""
        self.wait_for(lambda: waits(popen.pid))
        popen.send_signal(signal.SIGINT)
        # A shell calls both 130
        code = -signal.SIGINT if sys.version_info >= (3, 8) else 130
        self.assertEqual(finish(popen), (code, "", "\n"))

    def test_ctrl_c_at_the_prompt_and_while_the_server_thinks_ends_it_by_sigint(self):
        self.interrupt(self.prompt(self.fake(stay)))
        asked = threading.Event()
        popen = self.prompt(self.fake(hear, lambda _: asked.set(), stay))
        popen.stdin.write(b"meo\n")
        popen.stdin.flush()
        self.assertTrue(asked.wait(TIMEOUT))
        self.interrupt(popen)

    @unittest.skipUnless(shutil.which("bash") and shutil.which("setsid"), "no bash or no setsid")
    @unittest.skipUnless(os.path.exists(f"/proc/self/task/{os.getpid()}/children"), "no children")
    @unittest.skipIf(sys.version_info < (3, 8), "Python exits with 130, as one that handles Ctrl-C")
    def test_ctrl_c_ends_the_loop_around_it_too(self):
        argv = command("client", ["-p", str(self.fake(stay).port), "--log-file", self.client_log])
        loop = 'for i in 1 2 3; do "$@" || test $? = 130; done; echo after'
        terminal = Terminal(["setsid", "-c", "bash", "-c", loop, "bash", *argv], self.folder)
        self.addCleanup(terminal.popen.kill)
        terminal.expect(QUESTION)
        children = f"/proc/{terminal.popen.pid}/task/{terminal.popen.pid}/children"
        self.wait_for(lambda: waits(self.read(children).strip()))
        code, screen = terminal.type(b"\x03").end()
        self.assertEqual((screen.count(QUESTION), "after" in screen), (1, False), screen)
        self.assertIn(code, (-signal.SIGINT, 130))

    def test_ctrl_c_leaves_a_program_around_it_alone(self):
        stdin = mock.Mock(**{"readline.side_effect": KeyboardInterrupt})
        argv = ["client.py", "-p", str(self.serve().port), "--log-file", self.client_log]
        with mock.patch.multiple("sys", stdin=stdin, argv=argv, excepthook=None):
            ended = self.call(client, *argv[1:], stdin=stdin)
            self.assertEqual((ended.code, ended.console), (130, "\n"))
            by_sigint = KeyboardInterrupt if sys.version_info >= (3, 8) else SystemExit
            for platform, end in (("linux", by_sigint), ("win32", SystemExit)):
                with mock.patch("sys.platform", platform), captured(), \
                        self.assertRaises((KeyboardInterrupt, SystemExit)) as raised:
                    runpy.run_path(client.__file__, run_name="__main__")
                self.assertIs(type(raised.exception), end)
        for error in (KeyboardInterrupt, ValueError):  # as in python -i
            with mock.patch("sys.excepthook") as stock:
                self.assertRaises(KeyboardInterrupt, client.die_of_interrupt)
                sys.excepthook(error, "it", None)
                self.assertEqual(stock.called, error is ValueError)
                self.assertIs(sys.excepthook, stock)

    def leaving(self, *steps):
        """Return how a client Ended whose server takes `steps` and leaves while it asks."""
        asked = threading.Event()
        fake = self.fake(lambda _: asked.wait(TIMEOUT), *steps)
        popen = self.prompt(fake)
        asked.set()
        fake.join(TIMEOUT)
        return finish(popen, b"meo\n")

    def test_a_server_that_left_at_the_prompt_exits_1_and_what_it_said_is_shown(self):
        said = "Le serveur a dit : Serveur plein.\n"
        self.assertEqual(self.leaving(b"Serveur ", b"plein.\n"), (1, said, CLOSED))
        self.assertEqual(self.leaving(b"Serveur ", b"plein.", reset), (1, said, trouble(BROKEN)))
        self.assertEqual(self.leaving(), (1, "", CLOSED))

    def test_a_greeting_is_shown_apart_and_is_not_the_reply(self):
        for greeting, shown, pause in (  # a longer one than the silence that ends a reply
                ("Bienvenue été !\r\n".encode(), "Bienvenue été !", 0.15),
                (b"x" * 9000, "x" * 2000 + "… (coupé)", 0)):
            greeted = threading.Event()
            fake = self.fake(greeting, lambda _, greeted=greeted: greeted.set(), hear, pause, b"ok")
            popen = self.prompt(fake, {"SILENCE": 0.05})
            self.assertTrue(greeted.wait(TIMEOUT))
            self.assertEqual(finish(popen, b"meo\n"),
                             (0, f"Le serveur a dit : {shown}\n" + answered("ok"), ""))
            self.assertIn(f'INFO Le serveur 127.0.0.1 a dit : "{shown}".\n',
                          self.read(self.client_log))

    def test_a_greeting_without_end_is_not_read_to_the_end(self):
        endless = mock.Mock()
        endless.recv.side_effect = [b"x" * 65536] * 99  # and then an error
        client.read_greeting(endless, bytearray())


class ClientConnects(Scene):
    """To a name or an address, and to nothing else."""

    def no_connection(self, host, port):
        """Return the sentence of a client that cannot connect there."""
        return f"ERROR Impossible de se connecter au serveur {host} sur le port {port}."

    no_name = ("Ce n'est ni une adresse ni un nom (lettres, chiffres, points et tirets), ou Python "
               "ne sait pas le convertir (donnez sa forme en « xn-- »).")
    no_port = "Donnez l'adresse seule avec -H, et le port avec l'option -p."

    def test_no_server_exits_1_and_the_cause_is_said_once(self):
        port = free_port()
        for options in ([], ["-v"]):
            ended = self.client("-p", str(port), "meo", *options)
            self.assertEqual((ended.code, ended.text), (1, ""))
            lines = undated(ended.console.splitlines())
            if options:  # each line of the log, and nothing twice
                self.assertEqual(lines.pop(0), f"DEBUG Journal : {self.client_log}")
                lines[1] = lines[1].replace("ERROR ", "")
            self.assertEqual(lines, [self.no_connection("127.0.0.1", port), REFUSED])

    def test_each_cause_is_told_in_french_with_what_to_look_at(self):
        for host, error, cause in (
                ("a b", None, self.no_name), ("straße", None, self.no_name),
                ("127.0.0.1:2000", None, self.no_port), ("[::1]:2000", None, self.no_port),
                ("bs", socket.gaierror(-2, "unknown"),
                 ("Nom ou adresse introuvable ; vérifiez l'orthographe (sans http://) et le réseau "
                  "(Unknown).")),
                ("bs", socket.timeout("timed out"), f"{LATE} (Timed out)."),
                ("bs", TimeoutError(errno.ETIMEDOUT, "late"), f"{LATE} (Late)."),
                ("bs", OSError(errno.ENETDOWN, "down"),
                 "Serveur injoignable ; vérifiez l'adresse, le réseau et le pare-feu (Down).")):
            with self.subTest(cause), mock.patch("socket.getaddrinfo", side_effect=error):
                self.assertEqual(self.call(client, "-H", host, "-p", "2000", "meo"), (
                    1, "", f"{self.no_connection(host, 2000)}\nCause : {cause}\n"))

    def test_what_is_no_name_and_no_address_exits_1(self):
        bs = self.serve("-l", "::" if has_ipv6() else "0.0.0.0")
        for host in ("", "*", "a..b", "x" * 70, "[127.0.0.1]", "[::1", "::１", "127.0.0.1\n",
                     "\033[m"):
            code, text, console = self.call(client, "-p", str(bs.port), "meo", "-H", host)
            self.assertEqual((code, text, console.splitlines()[0]),
                             (1, "", self.no_connection(client.printable(host), bs.port)))
        for host in ("", "local host", "[localhost]", "１２７.0.0.1", "\u200blocalhost",
                     "localhost\n", "é..fr"):
            with self.assertRaisesRegex(ValueError, "^Ce n'est ni une adresse ni un nom"):
                client.name_of(host)

    def test_a_name_is_looked_up_as_its_idna_form_and_a_zone_as_it_is(self):
        for host, wanted in (("bücher.example", b"xn--bcher-kva.example"),
                             ("fe80::1%é+0", "fe80::1%é+0".encode())):
            with mock.patch("socket.getaddrinfo", side_effect=OSError) as find:
                self.call(client, "-H", host, "meo")
            self.assertEqual(find.call_args[0][0], wanted)

    def test_an_error_is_red_on_a_terminal_but_on_windows(self):
        port = free_port()
        for first, screen in (("", "\x1b[31m{}\x1b[0m\r\n"), (WINDOWS, "{}\r\n")):
            said = screen.format(self.no_connection("127.0.0.1", port)) + REFUSED + "\r\n"
            self.assertEqual(self.terminal("client", "-p", str(port), "meo", first=first).end(),
                             (1, said))
        self.assertEqual(self.terminal("server", "-p", "1").end()[1][:11], "\x1b[31mERROR ")

    def shares(self, taken, looking_up=0.0):
        """Return the timeouts (seconds) that `connect` gives to three addresses out of 12 s: each
        uses the fraction `taken` of its own and refuses; the lookup takes `looking_up` seconds."""
        shares, now = [], [1.7e9]
        addresses = socket.getaddrinfo("127.0.0.1", 2000, 0, socket.SOCK_STREAM) * 3

        def look_up(*_):
            now[0] += looking_up
            return addresses

        def refuse(_, timeout):
            shares.append(timeout)
            now[0] += taken * timeout
            raise ConnectionRefusedError
        with mock.patch("socket.getaddrinfo", look_up), \
                mock.patch("socket.create_connection", refuse), \
                mock.patch("client.wall_clock", lambda: now[0]):
            log = mock.Mock()
            self.assertRaises(ConnectionRefusedError, client.connect, "bs", 2000, 12.0, log)
        self.assertEqual([call[0][0] for call in log.debug.call_args_list], ["Cause : %s."] * 2)
        return [round(share, 3) for share in shares]

    def test_the_addresses_of_a_name_share_the_time_and_what_one_leaves_over_is_the_next_ones(self):
        self.assertEqual(self.shares(0.0, looking_up=99.0), [4.0, 6.0, 12.0])
        self.assertEqual(self.shares(0.5), [4.0, 5.0, 7.5])
        self.assertEqual(self.shares(1.0), [4.0, 4.0, 4.0])

    def test_a_python_without_ipv6_uses_the_addresses_that_it_can(self):
        bs, stock = self.serve(), socket.getaddrinfo

        def find(host, port, family, *rest):  # it finds IPv6 ones too, but cannot tell them
            untold = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (10, bytes(26)))
            untold = [untold] if (host, family) == (b"localhost", socket.AF_UNSPEC) else []
            return untold + stock(host, port, family, *rest)
        with mock.patch("socket.has_ipv6", False), mock.patch("socket.getaddrinfo", find):
            ended = self.call(client, "-H", "localhost", "-p", str(bs.port), "meo")
            self.assertEqual((ended.code, ended.text.partition("\n")[2]), (0, answered(MEO)))
            ended = self.call(client, "-H", "::1", "-p", str(bs.port), "meo")
        self.assertEqual((ended.code, ended.console.splitlines()[0]),
                         (1, self.no_connection("::1", bs.port)))
        self.assertRegex(ended.console, "\nCause : Nom ou adresse introuvable ; [^\n]*\\)\\.\n$")


class ClientReceives(Scene):
    """What has arrived is shown, whatever happens afterwards, and the exit code is true."""

    def test_what_the_server_does_is_what_is_shown_and_the_exit_code_is_true(self):
        def never_end(connection):
            while True:
                connection.sendall(b"x" * 65536)
        pieces = [step for byte in b"Meo a toi " * 4 for step in (bytes([byte]), 0.004)]
        hostile = b"\x1b[2J\r\nfaux \xff" + "\u202e\xa0\u202f!".encode()
        for steps, shown, cause in (
                ([], "", CLOSED), ([reset], "", trouble(BROKEN)),
                (["Meo à".encode(), reset], "Meo à",
                 trouble(f"La réponse est peut-être incomplète : {BROKEN}")),
                (pieces, "Meo a toi " * 4, ""),
                # A pause is no end: a lost segment takes as long
                (["Meo à ".encode(), 0.3, b"toi", stay], "Meo à toi", ""),
                ([hostile], r"\x1b[2J\r\nfaux \xff\u202e" + "\xa0\u202f!", ""),
                ([b"x" * 2000], "x" * 2000, ""), ([b"x" * 2001], "x" * 2000 + "… (coupé)", ""),
                ([never_end], "x" * 2000 + "… (coupé)", ""), ([b"ok\n"], "ok", "")):
            with self.subTest(steps):
                ended = self.ask(self.fake(hear, *steps), "-t", str(NEVER), "meo")
                text = answered(shown) if shown else ""
                self.assertEqual(ended, (1 if cause else 0, text, cause))
                self.assertEqual(f'reçue du serveur 127.0.0.1 : "{shown}".' in
                                 self.read(self.client_log), bool(shown))

    def test_the_seconds_are_told_as_they_were_given(self):
        silent = mock.Mock()
        silent.recv.side_effect = [socket.timeout] * 9999  # and then an error
        for seconds, said in ((2.0, "en 2 s."), (0.25, "en 0.25 s."), (3600.0, "en 3600 s.")):
            with self.assertRaisesRegex(OSError, f"^Le serveur n'a pas répondu {said}$"):
                client.receive(silent, seconds, bytearray())

    def test_the_kernels_timeout_is_told_in_the_kernels_words(self):
        error = TimeoutError(errno.ETIMEDOUT, "late")
        lost = mock.Mock(**{"recv.side_effect": error})
        with self.assertRaises(TimeoutError) as raised:
            client.receive(lost, NEVER, bytearray())
        self.assertIs(raised.exception, error)
        with mock.patch("client.receive", side_effect=error):
            ended = self.call(client, "-p", str(self.fake(hear).port), "meo")
        self.assertEqual((ended.code, ended.console), (1, trouble(f"{LATE} (Late).")))

    def clock_of(self, dates):
        """Return a `with` in which the system clock shows `dates` (seconds) one after another."""
        stamps = (types.SimpleNamespace(created=date) for date in dates)
        return mock.patch("logging.makeLogRecord", side_effect=stamps)

    def test_a_server_that_is_silent_or_drips_exits_1_after_the_timeout_whatever_the_date(self):
        drip = [b"x", 0.02] * 999
        for steps, dates, done in (([stay], [], "répondu"), (drip, [], "fini de répondre"),
                                   (drip, [0, 9e9, 0], "fini de répondre")):  # which is set back
            fake, dates = self.fake(hear, *steps), itertools.chain(dates, iter(time.time, None))
            with self.subTest(done), self.clock_of(dates):
                ended = self.call(client, "-p", str(fake.port), "-t", "0.2", "meo")
                self.assertEqual((ended.code, ended.console), (
                    1, trouble(f"Le serveur n'a pas {done} en 0.2 s.")))
                self.assertEqual("Le serveur a répondu : x" in ended.text, steps is drip)

    def test_a_date_that_is_set_forward_cuts_no_reply_short(self):
        fake = self.fake(hear, 0.1, b"Meo", 0.1, b" lent")
        with self.clock_of(itertools.count(0, 3600)):
            ended = self.call(client, "-p", str(fake.port), "meo")
        self.assertEqual((ended.code, ended.text.partition("\n")[2]), (0, answered("Meo lent")))

    def test_one_line_end_at_the_end_is_not_shown(self):
        for said, shown in ((b"ok\n", "ok"), (b"ok\r\n", "ok"), (b"ok\n\n", r"ok\n"), (b"\n", ""),
                            (b"ok\r", r"ok\r")):
            self.assertEqual(client.shown(bytearray(said)), shown, said)


class ClientLog(Scene):
    """Three INFO lines, or one ERROR, in the file; with `-v` on the console too."""

    def test_the_file_gets_three_info_lines_and_verbosity_shows_them(self):
        bs = self.serve()
        endpoint = f"127.0.0.1:{bs.port}"
        lines = [f"INFO Connexion réussie à {endpoint}.",
                 'INFO Message envoyé au serveur 127.0.0.1 : "meo".',
                 'INFO Réponse reçue du serveur 127.0.0.1 : "Meo à toi confrère.".']
        for options, shown in ((["meo"], []),
                               (["-v", "meo"], [f"DEBUG Journal : {self.client_log}", *lines])):
            console = self.ask(bs, *options).console
            self.assertEqual(undated(console.splitlines()), shown)
            logged = undated(self.kept(self.client_log))
            self.assertEqual(logged, shown or lines)
            os.remove(self.client_log)

    def test_what_the_user_is_told_of_an_error_is_in_the_file_too(self):
        fake = self.fake(hear)
        for options in (["bonjour"], ["-p", str(fake.port), "meo"],
                        ["-p", str(free_port()), "meo"]):
            lines = self.call(client, *options).console.replace("ERROR ", "").splitlines()
            self.assertIn(len(lines), (1, 2))
            logged = undated(self.kept(self.client_log))
            self.assertEqual([line[6:] for line in logged if line.startswith("ERROR ")], lines)
            os.remove(self.client_log)

    def test_without_any_log_file_it_does_the_same(self):
        fake = self.fake(hear, b"ok")
        for message, ended in (("meo", (0, connected("127.0.0.1", fake.port) + answered("ok"), "")),
                               ("bonjour", (1, "", NO_WORD))):  # said once
            argv = command("client", ["-p", str(fake.port), message],
                           {"LOG_FILES": ("no/x", "no/y")})
            self.assertEqual(run(argv, self.folder), ended)

    def test_a_line_fits_the_log_whatever_is_said(self):
        for _ in range(2):
            port = self.fake(hear, b"\xff" * 70000).port
            self.call(client, "-p", str(port), "meo" + "é" * 500)
            line = self.read(self.client_log).splitlines()[-1]
            self.assertRegex(line, r'Réponse reçue du serveur 127.0.0.1 : "(\\xff){2000}… \(cou')
        for name in (self.client_log, self.client_log + ".1"):
            self.assertLessEqual(os.path.getsize(name), 10000)

    def test_a_log_that_fails_is_told_with_verbosity_alone(self):
        failed = f"WARN Le journal /dev/full ne fonctionne plus : {os.strerror(errno.ENOSPC)}."
        for options, warnings in (([], []), (["-v"], [failed])):
            port = self.fake(hear, b"ok").port
            ended = self.call(client, "-p", str(port), "meo", "--log-file", "/dev/full", *options)
            self.assertEqual((ended.code, ended.text.partition("\n")[2]), (0, answered("ok")))
            self.assertEqual([line for line in undated(ended.console.splitlines())
                              if line.startswith("WARN")], warnings)


# Any host, any program around


class Hosts(Scene):
    """What hosts lack, and what they have of their own: sandboxes, notebooks, make, git."""

    def test_a_log_that_may_be_written_and_not_read_goes_on_and_its_backup_fails(self):
        stock = open

        def opening(path, mode="r", *rest, **names):
            if "+" in mode:
                raise PermissionError(errno.EACCES, "not here")
            return stock(path, mode, *rest, **names)
        with mock.patch("builtins.open", opening), \
                server.Log(server.Journal(self.log_file), verbose=False, console=False) as log:
            for _ in range(3):
                log.info("x" * 6000)
        self.assertEqual(undated(self.kept()), ["INFO " + "x" * 6000])

    def test_without_datagrams_or_the_codec_of_names_both_scripts_do_what_they_can(self):
        listener = mock.Mock(family=socket.AF_INET6)
        with mock.patch("socket.socket", side_effect=PermissionError) as kind:
            self.assertIsNone(server.Server(listener, None).sleeper)
        kind.assert_called_once_with(socket.AF_INET6, socket.SOCK_DGRAM)
        lacking = "import sys; sys.modules['encodings.idna'] = None"
        bs = self.serve(first=lacking)
        self.assertEqual(self.ask(bs, "meo", first=lacking).code, 0)
        self.assertRegex(self.client("-H", "bücher.example", "meo", first=lacking).console,
                         "^ERROR [^\n]*\nCause : [^\n]*idna[^\n]*\\.\n$")

    def test_what_is_escaped_is_what_is_not_printable_but_for_the_spaces_of_french(self):
        every = "".join(map(chr, range(sys.maxunicode + 1)))
        for script in (server, client):
            self.assertTrue(script.printable(every) == "".join(
                c if c.isprintable() or c in "\xa0\u202f" else repr(c)[1:-1] for c in every))
            for few in itertools.product("\0\n'\"\\aé\xa0\u202f\ud800", repeat=4):
                self.assertEqual(script.printable("".join(few)), "".join(
                    repr(c)[1:-1] if c in "\0\n\ud800" else c for c in few))

    def test_a_listening_socket_that_the_system_takes_away_ends_the_server_with_4(self):
        gone = OSError(errno.EINVAL, "gone")  # worlds.py shows when
        with mock.patch.object(server.Server, "run", side_effect=gone):
            ended = self.call(server, "-p", str(free_port()))
        self.assertEqual((ended.code, undated(ended.console.splitlines())[START:]),
                         (4, ["ERROR Le serveur ne peut plus écouter : Gone."]))

    def test_where_input_is_the_programs_own_it_asks(self):  # in a notebook
        for answer, sent, code, text, console in (
                ("un meo", b"un meo\n", 0, answered("ok"), ""), ("bonjour", b"", 1, "", NO_WORD),
                ("meo\r\n", b"meo\n", 0, answered("ok"), ""), (None, b"", 1, "", NOTHING),
                (EOFError, b"", 1, "", NOTHING), (NotImplementedError, b"", 1, "", NOTHING)):
            fake = self.fake(hear, b"ok")
            with self.subTest(answer), mock.patch("builtins.input", side_effect=[answer]) as asking:
                asking.__module__ = "notebook"
                ended = self.call(client, "-p", str(fake.port))
                self.assertEqual((ended.code, ended.text.partition("\n")[2], ended.console),
                                 (code, text, console))
                asking.assert_called_once_with(QUESTION)
                self.assertEqual(fake.heard(), [sent])

    @unittest.skipUnless(shutil.which("make") or shutil.which("bmake"), "no make")
    def test_make_runs_what_it_is_told_to_and_heeds_no_environment(self):
        others = {"HOST": "x86_64-conda-linux-gnu", "PORT": "80", "LISTEN": "x", "N": "9", "T": "x"}
        worlds = "PYTHONPATH=.ci:. python3 -B -m unittest worlds"
        for make in filter(shutil.which, ("make", "bmake")):
            for given, said in (
                    ("-n run-server", "server.py -p 13337 -l 0.0.0.0"),
                    ("-n run-client", "client.py -p 13337 -H 127.0.0.1"),
                    ("-n run-client PORT=2000 HOST=::1", "client.py -p 2000 -H ::1"),
                    ("-n worlds", "N=1000 SEED= " + worlds),
                    ("-n worlds N=50 SEED=7", "N=50 SEED=7 " + worlds),
                    ("test PYTHON=echo", "-B -m unittest worlds test_bs"),
                    ("test PYTHON=echo T=Replies", "-B -m unittest -k Replies worlds test_bs")):
                with self.subTest(given, make=make):
                    argv = [make, "-C", HERE, *given.split()]
                    self.assertIn(said + "\n", run(argv, self.folder, **others).text)

    def copy_of_the_project(self):
        """Return a folder that holds what a clone of the project does, but logs nowhere else."""
        folder = self.path("clone")
        shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns(".git", "*cache*", "*.log*"))
        for name in ("Makefile", "server.py", "client.py"):
            path = os.path.join(folder, name)
            self.write(path, self.read(path).replace("/var/log/", "./"))
        return folder

    @unittest.skipUnless(shutil.which("make"), "no make")
    def test_make_runs_the_scripts_and_tells_by_its_exit_code_that_one_has_failed(self):
        folder = self.copy_of_the_project()
        python = f"PYTHON={sys.executable}"
        for target, given in (("run-server", "PORT=80"), ("run-client", "PORT=-1")):
            self.assertEqual(run(["make", target, python, given], folder).code, 2)
        port = free_port()
        bs = self.start(["make", "run-server", python, f"PORT={port}"], port, folder,
                        start_new_session=True)
        bs.expect_line("Le serveur tourne sur")
        self.assertIn(answered(WAF), run(["make", "run-client", python, f"PORT={port}"], folder,
                                         b"waf\n").text)
        os.killpg(bs.popen.pid, signal.SIGINT)  # Ctrl-C
        self.assertIn(bs.popen.wait(TIMEOUT), (130, -signal.SIGINT))
        bs.reader.join(TIMEOUT)
        self.assertTrue(bs.matching("Arrêt du serveur."))

    @unittest.skipUnless(shutil.which("make"), "no make")
    def test_make_clean_removes_logs_and_caches_and_nothing_else(self):
        folder = self.copy_of_the_project()
        before = sorted(os.listdir(folder))
        os.mkdir(os.path.join(folder, "__pycache__"))
        for name in ("bs_server.log", "bs_server.log.1", "bs_client.log", "bs_client.log.1"):
            self.write(os.path.join(folder, name), "")
        self.assertEqual(run(["make", "clean"], folder).code, 0)
        self.assertEqual(sorted(os.listdir(folder)), before)

    @unittest.skipUnless(shutil.which("git"), "no git")
    def test_a_clone_on_windows_has_no_carriage_return(self):
        for name in (".gitattributes", "server.py", "Makefile"):
            shutil.copy(os.path.join(HERE, name), self.folder)
        windows = ["git", "-c", "core.autocrlf=true"]
        for rest in (["init", "-q"], ["add", "."], ["checkout-index", "-a", "--prefix=out/"]):
            self.assertEqual(run(windows + rest, self.folder).code, 0)
        for name in ("server.py", "Makefile"):
            with open(self.path(f"out/{name}"), "rb") as file:
                self.assertNotIn(b"\r", file.read())


class Surroundings(Scene):
    """No terminal, no standard stream, no UTF-8: there are such hosts."""

    def shell(self, line, **changes):
        """Run `line` in sh, $server and $client being the scripts' commands; return as `run`."""
        for script in ("server", "client"):
            line = line.replace(f"${script}", " ".join(map(shlex.quote, command(script))))
        return run(["sh", "-c", line], self.folder, **changes)

    def test_help_that_nobody_can_read_is_no_traceback(self):
        for script, end in (("server", "--help >&-"), ("client", "--version >/dev/full")):
            line = f"{{ ${script} --help; echo $? >code; }} | true; cat code"
            self.assertEqual(self.shell(line), (0, "0\n", ""))
            self.assertEqual(self.shell(f"${script} {end}"), (0, "", ""), script)

    def test_a_refusal_without_standard_error_keeps_its_code(self):
        for line, code in (("$server -p 1 2>&-", 2), ("$server --nope 2>/dev/full", 2),
                           ("$client --log-file l bonjour 2>&-", 1), ("$client --nope 2>&-", 2),
                           ("$client --log-file l bonjour 2>/dev/full", 1)):
            self.assertEqual(self.shell(line), (code, "", ""), line)

    def test_a_standard_stream_that_is_closed_is_said_if_it_matters(self):
        no_output = trouble("Il n'y a pas de sortie où afficher la réponse.")
        for line, code, text, console in (
                ("$client <&-", 1, QUESTION,
                 trouble("Il n'y a pas d'entrée standard où lire un message.")),
                ("$client >&-", 1, "", no_output), ("$client meo >&-", 1, "", no_output),
                ("$client meo >/dev/full", 1, "", trouble(f"{os.strerror(errno.ENOSPC)}.")),
                ("echo meo | $client 2>&-", 0, QUESTION + answered("ok"), "")):
            with self.subTest(line):
                options = f"-p {self.fake(hear, b'ok').port} --log-file l"
                ended = self.shell(line.replace("$client", f"$client {options}"))
                self.assertEqual((ended.code, ended.text.partition("\n")[2], ended.console),
                                 (code, text, console))

    def test_a_reply_into_a_pipe_that_nobody_reads_exits_1(self):
        reader, writer = os.pipe()
        os.close(reader)
        argv = command("client", ["-p", str(self.fake(stay).port), "--log-file", "l", "meo"])
        popen = spawn(argv, self.folder, {}, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        self.assertEqual(finish(popen), (1, "", trouble(f"{os.strerror(errno.EPIPE)}.")))

    def test_a_line_without_end_is_refused_in_little_memory(self):
        fake = self.fake(hear)
        ended = self.shell(f"ulimit -v {1 << 20}; $client -p {fake.port} --log-file l </dev/zero")
        self.assertEqual((ended.code, ended.console), (1, TOO_LONG))

    def test_the_server_needs_no_standard_stream(self):
        lines = self.log_of_unread_console("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
        self.assertEqual(len(lines), START + 3 * LINES + END)

    def test_where_the_locale_is_ascii_nothing_is_spoilt(self):
        ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
        bs = self.serve(changes=ascii_only)
        ended = self.client("-p", str(bs.port), "é meo", **ascii_only)
        self.assertEqual((ended.code, ended.text.partition("\n")[2], ended.console), (
            0, "Le serveur a r\\xe9pondu : Meo \\xe0 toi confr\\xe8re.\n", ""))
        bs.expect_line(r"Meo \xe0 toi confr\xe8re.")
        self.assertIn('a envoyé "é meo".', self.read(self.log_file))

    def test_nothing_is_wrong_for_a_strict_python(self):
        bs = self.serve(changes=STRICT)
        self.assertEqual(self.ask(bs, "meo", **STRICT), (0, answered(MEO), ""))
        bs.expect_line("Réponse envoyée")
        bs.end()
        self.assertEqual(len(bs.lines), START + LINES + END)
        for options in (["-l", "192.0.2.1", "--log-file", "log"], ["--log-file", "no/x"]):
            argv = command("server", [*options, "-p", str(free_port())])
            self.assertRegex(run(argv, self.folder, **STRICT).console, "^ERROR [^\n]*\n$")


class OtherSystems(unittest.TestCase):
    """Where these tests cannot run they say so."""

    def test_elsewhere_than_on_linux_they_are_skipped_with_one_sentence(self):
        for hidden in ("", "sys.modules['pty'] = sys.modules['resource'] = None"):
            then = f"import sys, unittest\nsys.platform = 'other'\n{hidden}\n" \
                   "unittest.main('test_bs', argv=['test_bs'])"
            ended = run([sys.executable, "-c", then], HERE)
            self.assertIn(ended.code, (0, 5))  # 3.12.1 calls a run in which all is skipped empty
            self.assertIn("skipped=1", ended.console)
            self.assertNotIn("Traceback", ended.console)


class OtherPrograms(Scene):
    """A script may be run inside another program, and leaves that as it was."""

    def test_a_profiler_a_debugger_and_a_prompt_go_on_when_a_script_has_ended(self):
        for script, flags, stdin, end in (
                ("server.py", ["-m", "cProfile"], b"", "function calls"),
                ("client.py", ["-m", "pdb"], b"c\nq\n", "exited via sys.exit"),
                ("server.py", ["-i"], b"print('alive')\n", "alive\n")):
            self.write(self.path("host.py"), f"""
import runpy, sys
sys.argv = [{script!r}, "--version"]
runpy.run_path({os.path.join(HERE, script)!r}, run_name="__main__")""")
            ended = run([sys.executable, *flags, "host.py"], self.folder, stdin)
            self.assertIn(end, ended.text.partition(f"{script} 1.0\n")[2], flags)

    def test_a_standard_error_of_the_programs_own_is_neither_a_traceback_nor_closed(self):
        closed = io.TextIOWrapper(io.BytesIO())
        closed.close()
        bare = types.SimpleNamespace(write=lambda text: None, flush=lambda: None)
        for stream in (io.StringIO(), io.TextIOWrapper(io.BytesIO(), "ascii"), bare, closed):
            for message, code in (("é meo", 0), ("é", 1)):
                with self.subTest(stream), captured() as (text, _), \
                        mock.patch("sys.stderr", stream):
                    port = str(self.fake(hear, b"ok").port)
                    options = ["-v", "-p", port, "--log-file", self.client_log, message]
                    self.assertEqual(client.main(options), code)
                    self.assertEqual(answered("ok") in text.getvalue(), message == "é meo")
                    self.assertTrue(stream is closed or not getattr(stream, "closed", False))

    def test_a_standard_input_of_the_programs_own_is_no_traceback(self):
        for stream in (io.BytesIO(b"meo"), types.SimpleNamespace(readline=lambda: "meo")):
            ended = self.call(client, "-p", str(self.fake(hear).port), stdin=stream)
            self.assertEqual(ended.code, 1, stream)
            self.assertRegex(ended.console, "^Une erreur est survenue: [^\n]*\n$")

    def test_an_address_that_no_command_line_can_give_is_refused_too(self):
        ended = self.call(server, "-l", "::1%\ud800", "-p", "20000")
        self.assertEqual(ended.code, 4)
        self.assertRegex(ended.console, "^ERROR Impossible d'écouter sur [^\n]*\n$")

    def test_a_stream_shows_what_it_can_encode_and_the_rest_as_escapes(self):
        latin = io.TextIOWrapper(io.BytesIO(), "latin-1")
        for script in (server, client):
            script.say("é€", latin)
            for encoding in (None, "unknown", "utf-8"):
                own = mock.Mock(spec=["write", "flush", "encoding", "isatty"])
                own.encoding = encoding
                own.write.side_effect = lambda text: text.encode("ascii")
                script.say("é", own)
                own.write.assert_called_with("\\xe9")
            del own.encoding
            script.say("é", own)
            own.write.assert_called_with("\\xe9")
            own.isatty = mock.Mock(side_effect=OSError("gone"))
            self.assertFalse(script.is_terminal(own))
            own.write.side_effect = OSError("gone")
            self.assertRaisesRegex(OSError, "gone", script.say, "é", own)  # which has no close()
            for own.flush.side_effect in (KeyboardInterrupt, OSError):  # where it blocks, or fails
                with mock.patch("sys.stderr", own):
                    script.flush_streams()
        self.assertEqual(latin.buffer.getvalue(), b"\xe9\\u20ac" * 2)

    def state(self, log):
        """Return what logging holds, and what `log` does."""
        return (dict(vars(logging)), dict(logging._levelToName), dict(logging._nameToLevel),
                logging.root.handlers[:], log.handlers[:], log.level, log.propagate, log.disabled)

    def test_main_called_three_times_writes_each_line_once_a_call_and_leaves_logging_alone(self):
        bs = self.serve()
        host, own = logging.StreamHandler(io.StringIO()), logging.NullHandler()
        self.addCleanup(logging.root.removeHandler, host)
        logging.root.addHandler(host)
        levels = mock.patch.dict(logging._levelToName, {logging.WARNING: "ATTENTION"})
        levels.start()
        self.addCleanup(levels.stop)
        for script, options, count in ((server, ["-p", str(free_port()), "-l", "127.0.0.1"], 3),
                                       (client, ["-v", "-p", str(bs.port), "meo"], 4)):
            log, log_file = logging.getLogger(script.__name__), self.path(script.__name__)
            self.addCleanup(log.setLevel, log.level)
            self.addCleanup(log.removeHandler, own)
            log.addHandler(own)
            log.setLevel(35)
            before = self.state(log)
            with mock.patch.object(server.Server, "run", side_effect=KeyboardInterrupt):
                calls = [self.call(script, *options, "--log-file", log_file) for _ in range(3)]
            self.assertEqual(self.state(log), before)
            self.assertEqual([(ended.code, ended.console.count("\n")) for ended in calls],
                             [(0, count)] * 3)
            self.assertEqual(len(self.kept(log_file)), 3 * count)
            self.assertEqual(host.stream.getvalue(), "")
            log.error("at last")
            self.assertEqual(host.stream.getvalue(), "at last\n")
            host.stream.truncate(host.stream.seek(0))


# The card, and the figures
class Modules(Scene):
    """Five modules, one file each, and nothing borrowed through another."""

    allowed = frozenset(["socket", "re", "argparse", "sys", "logging.handlers"])

    def named(self, node):
        """Return what the expression `node` names in the five modules or below; None if nothing."""
        if isinstance(node, ast.Name) and node.id in {name.split(".")[0] for name in self.allowed}:
            return importlib.import_module(node.id)
        if isinstance(node, ast.Attribute):
            return getattr(self.named(node.value), node.attr, None)
        return None

    def test_the_scripts_import_the_five_modules_and_borrow_none_through_them(self):
        for script in ("server.py", "client.py"):
            tree = ast.parse(self.read(os.path.join(HERE, script)))
            imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                        for alias in node.names]
            self.assertLessEqual(set(imported), self.allowed)
            for node in ast.walk(tree):
                self.assertNotIsInstance(node, ast.ImportFrom)
                if isinstance(node, ast.Name):
                    self.assertNotIn(node.id, ("__import__", "exec", "eval", "globals"))
                value = self.named(node)
                self.assertFalse(value is sys.modules)
                if isinstance(node, ast.Attribute) and isinstance(value, types.ModuleType):
                    self.assertEqual((node.value.id, node.attr), ("logging", "handlers"))

    def test_a_copy_of_one_file_alone_in_an_empty_folder_works(self):
        folders = {}
        for script in ("server.py", "client.py"):
            folders[script] = tempfile.mkdtemp(dir=self.folder)
            shutil.copy(os.path.join(HERE, script), folders[script])
        for flags in (["-B"], ["-B", "-I", "-S"]):
            port = free_port()
            options = ["-p", str(port), "--log-file", "log"]
            bs = self.start([sys.executable, *flags, "server.py", *options], port,
                            folders["server.py"])
            bs.expect_line("Le serveur tourne sur")
            self.assertEqual(run([sys.executable, *flags, "client.py", *options, "meo"],
                                 folders["client.py"]).code, 0)

    def test_what_both_scripts_share_is_the_same_text(self):
        shared = [self.read(os.path.join(HERE, script)).partition("each file runs alone\n")[2]
                  .partition("par exemple 13337")[0] for script in ("server.py", "client.py")]
        self.assertEqual(*shared)
        self.assertIn("\ndef integer(", shared[0])


class Readme(Scene):
    """What README states is what the scripts hold: neither changes without the other."""

    def setUp(self):
        super().setUp()
        self.readme = self.read(os.path.join(HERE, "README.md"))

    def figures(self):
        """Return each phrase of README that has a figure; what the scripts have is theirs."""
        ports = (server.PORT, server.PRIVILEGED_MAX + 1, server.PORT_MAX, client.PORT,
                 client.PORT_MAX)
        stay = f"{server.EXCHANGE_MAX / 60:g} minutes"
        # As many lines as one file holds, or both
        exchange = len(EXCHANGE) * 20 + sum(len(f"{text}\n".encode()) for text in EXCHANGE)
        lonely = 20 + len("WARN Aucun client depuis plus de une minute.\n")
        exchanges = [files * server.LOG_BYTES // exchange for files in (1, 2)]
        hours = [files * server.LOG_BYTES // lonely * server.LONELY / 3600 for files in (1, 2)]
        return (
            f"laisser passer le port {server.PORT} en TCP",
            f"if nothing more has come, or the {server.MESSAGE_MAX}th;",
            f"{server.SILENCE:g} s without another byte",
            f"whose round trip takes {server.SILENCE:g} s",
            f"be no longer than {client.MESSAGE_MAX} bytes in UTF-8",
            f"or after {client.SILENCE:g} s of silence; {client.REPLY_MAX} bytes of it are shown",
            "| {}; from {} to {} | {}; from 0 to {} |".format(*ports),
            f"| `{server.LISTEN}`: every IPv4 address",
            f"| `{client.HOST}`; a name or an address |",
            f"| {client.TIMEOUT:g} seconds to connect,",
            f"then for the whole reply; at most {client.TIMEOUT_MAX:.0f} |",
            "`{}`, else `{}` here, else none".format(*server.LOG_FILES),
            "`{}`, else `{}` here, else none".format(*client.LOG_FILES),
            f"| 1 | the port is not from 0 to {server.PORT_MAX} |",
            "| 0 | Ctrl-C,", f"| 2 | the port is not above {server.PRIVILEGED_MAX};",
            "| 3 | the address of `-l`", "| 4 | it cannot listen",
            f"| {server.LOG_REFUSED} | the file of `--log-file`",
            f"| {client.INTERRUPTED} | Ctrl-C under `make`, which makes 2 of every failure |",
            "The exit code is 0 if it was answered", "exit code 4 |",
            f"{LINES} INFO lines an exchange",
            f"at most {server.LOG_BYTES:,} bytes with one backup (`.{server.LOG_BACKUPS}`)",
            f"{24 * 60 * 60 / server.LONELY:.0f} lines a day",
            f"it has stayed for {stay}", f"A client may stay for {stay}.",
            f"- {server.MESSAGE_MAX} bytes of a message count.",
            f"is silent for {server.LINGER:g} s.",
            f"- {server.WAITING_MAX:,} clients may wait",
            f"descriptors for, less {server.RESERVE}.",
            "the last {} to {} short exchanges".format(*exchanges),
            "beside 9,800 silent ones", "within 0.5 s, and", "within 1.5 s.",  # see worlds.py
            "the lines of the last {:.1f} to {:.1f} hours".format(*hours),
            f"if fewer than {server.WAITING_MAX:,} wait",
            # Not of the scripts, but Python 3.6, which runs all this
            "Python 3.6 or later", "Python 3.6 suffit", "with Python 3.7 and 3.12",
            "`ulimit -n 16384`", "`umask 077`",
        )

    def test_each_figure_of_readme_is_that_of_the_scripts(self):
        text = re.sub(r"```.*?```", "", self.readme, flags=re.DOTALL)
        text = " ".join(re.sub(r"## How it compares.*?(?=## )", "", text, flags=re.DOTALL).split())
        for figure in self.figures():
            with self.subTest(figure):
                self.assertEqual(text.count(figure), 1)
            text = text.replace(figure, "")
        for other in ("UTF-8", "IPv[46]", "/64", "python3", r"192\.168\.1\.20", "2>/dev/null",
                      "--add-port=13337", r"(?<= )[1-4]\. "):
            text = re.sub(other, "", text)
        self.assertEqual(re.findall(r".{20}\d.{20}", text), [])  # no other figure is left

    def test_readme_has_each_reply_whose_word_the_client_takes(self):
        table = re.findall(r"^\| (?:else )?(`\w+`|neither) \| `([^`]+)` \|$", self.readme,
                           re.MULTILINE)
        self.assertEqual([(word.strip("`"), reply) for word, reply in table],
                         [(word or "neither", reply) for word, reply in server.REPLIES])
        words = [word for word, _ in server.REPLIES if word]
        with self.assertRaises(ValueError) as refusal:
            client.check_message("")
        self.assertCountEqual(re.findall(r"'(\w+)'", str(refusal.exception)), words)
        self.assertEqual([client.check_message(word) for word in words], words)

    def test_readme_has_each_warning_and_each_option(self):
        source = self.read(os.path.join(HERE, "server.py"))
        sentences = re.findall(r'(?:log\.(?:warning|error)|warn_once)\(\s*f?"([^"]*)', source)
        self.assertEqual(len(sentences), 8)
        for sentence in sentences:
            for words in re.split(r"%[sd]|\{[^ ]*\}", sentence):
                self.assertIn(words.strip(" :.()"), self.readme)
        for script in (server, client):
            text = run(command(script.__name__, ["-h"]), self.folder).text
            for option in re.findall(r"--[\w-]+", text):
                self.assertTrue(f"`{option}`" in self.readme, option)

    @unittest.skipUnless(shutil.which("bash"), "no bash")
    def test_the_other_clients_that_readme_shows_get_their_reply(self):
        bs = self.serve()
        lines = re.findall(r"^\$ (.*\b127\.0\.0\.1\b.*\b13337\b.*)$", self.readme, re.MULTILINE)
        self.assertEqual(len(lines), 3)
        for line in lines:
            with self.subTest(line):
                if " nc " in line and not shutil.which("nc"):
                    self.skipTest("no nc")
                line = line.replace("13337", str(bs.port)).replace("python3", sys.executable)
                self.assertIn(WAF, run(["bash", "-c", line], self.folder).text)


def setUpModule():
    """Heed Ctrl-C: a test run in the background ignores it, and so would the servers it starts.

    And open the three standard streams, and raise the limit of descriptors to what it may be.
    """
    if sys.platform != "linux":
        raise unittest.SkipTest("the tests of whole processes need Linux")
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor < 3:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    unittest.main()
