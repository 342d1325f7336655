#!/usr/bin/env python3
"""The promises of server.py and client.py, each a test on the real program over a real socket.

A test is three words, connect, send and expect. To add one, put this into the class it belongs to,
break what it is about in the script, see it fail (`make test T=Replies`), and mend the script:

    def test_a_waf_gets_its_reply(self):
        bs = self.serve()
        bs.connect().send(b"waf\n").expect(WAF)
        bs.expect_line('INFO Le client 127.0.0.1 a envoyé "waf".')

Each server has a port and a folder of its own. A test waits for what happens (a reply, a line in
the log, an exit), never for time to pass. What takes time, and what needs no kernel, is shown in
`.ci/worlds.py`.
"""

import ast
import contextlib
import errno
import importlib
import io
import logging.handlers
import os
import pty
import random
import re
import resource
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
import unittest.mock

import client
import server

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 30  # seconds that anything may take on a busy machine before a test gives it up
NEVER = 3600  # seconds that no test lasts: what waits for this does not happen
MEO, WAF, HUMAN = "Meo à toi confrère.", "ptdr t ki", "Mes respects humble humain."
CONNECTED = "Un client 127.0.0.1 s'est connecté."
DATE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
LINE = DATE + "(DEBUG|INFO|WARN|ERROR) "


# The vocabulary


def command(script, options=(), constants=None, first=""):
    """Return the argv that runs `script` with `options`.

    With `constants` (dict) or the statements `first`, it is imported, given them, and main() run.
    """
    if constants is None and not first:
        return [sys.executable, os.path.join(HERE, script + ".py"), *options]
    lines = ["import sys", f"sys.path.insert(0, {HERE!r})", first, "import " + script]
    lines += [f"{script}.{name} = {value!r}" for name, value in (constants or {}).items()]
    lines += [f"sys.exit({script}.main())"]
    return [sys.executable, "-c", "\n".join(lines), *options]


def environment(**changes):
    """Return the environment that a script runs in: UTF-8, buffers, no files written by Python."""
    names = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PYTHONIOENCODING="utf-8")
    names.pop("PYTHONUNBUFFERED", None)
    names.update(changes)
    return names


def run(argv, folder, stdin=b"", **changes):
    """Run `argv` in `folder` to its end; return its exit code, standard output and error (str)."""
    with subprocess.Popen(argv, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment(**changes)) as popen:
        try:
            output, console = popen.communicate(stdin, PATIENCE)
        finally:
            popen.kill()
    return popen.returncode, output.decode("utf-8"), console.decode("utf-8")


def raise_limit():
    """Let this process have as many descriptors as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limited(count):
    """Return the statements that limit a process to `count` descriptors, for `command`."""
    return f"from resource import *; setrlimit(RLIMIT_NOFILE, ({count}, {count}))"


def free_port():
    """Return a TCP port that nobody listens on, below those that connections are given."""
    while True:
        port = random.randrange(10000, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port


def reset(connection):
    """Close a socket with a reset instead of the end of its stream: socket(7), SO_LINGER."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Connection:
    """A client's end of a connection, which sends each piece at once, as a segment of its own."""

    def __init__(self, port, host="127.0.0.1", source=""):
        """Connect to `port` on `host` from the address `source`."""
        self.socket = socket.create_connection((host, port), PATIENCE, (source, 0))
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

    def __init__(self, argv, folder, port=None, **options):
        """Start `argv` in `folder`; it is to listen on `port`."""
        options.setdefault("env", environment())
        self.port = port
        self.popen = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL,
                                      stderr=subprocess.PIPE, **options)
        self.lines = []
        self.ended = False
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self.collect)
        self.reader.start()

    def collect(self):
        """Keep each line of standard error and tell who waits."""
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
        return Connection(self.port, host, source)

    def expect_line(self, text, count=1):
        """Return the lines that contain `text`, once there are `count`."""
        with self.news:
            self.news.wait_for(lambda: self.ended or len(self.matching(text)) >= count, PATIENCE)
        if len(self.matching(text)) < count:
            raise AssertionError(f"not {count} times {text!r} in {self.lines[-9:]}")
        return self.matching(text)

    def matching(self, text):
        """Return the lines so far that contain `text`."""
        return [line for line in self.lines if text in line]

    def messages(self):
        """Return the lines so far without their dates."""
        return [re.sub("^" + DATE, "", line) for line in self.lines]

    def end(self, signum=signal.SIGINT):
        """Send `signum` if the process runs, wait for its end, and return its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signum)
        try:
            return self.popen.wait(PATIENCE)
        finally:
            self.popen.kill()
            self.reader.join(PATIENCE)

    def status(self, name):
        """Return a number of its status: proc(5)."""
        with open(f"/proc/{self.popen.pid}/status") as file:
            return int(re.search(rf"\n{name}:\s*(\d+)", file.read()).group(1))

    def processor(self):
        """Return the seconds of processor time that it has used."""
        with open(f"/proc/{self.popen.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Scene(unittest.TestCase):
    """A test with a folder of its own, and servers that must end well."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="bs-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.log_file = os.path.join(self.folder, "bs_server.log")

    def serve(self, *options, log_file=None, constants=None, first="", **popen):
        """Start a server on a free port and return its Process once it listens.

        `constants` are server.py's to set, `first` what runs before its import.
        """
        for _ in range(5):  # between free_port() and listen() somebody else may take the port
            port = free_port()
            argv = ["-p", str(port), "--log-file", log_file or self.log_file, *options]
            bs = self.start(command("server", argv, constants, first), port, **popen)
            if not bs.matching("ERROR Impossible d'écouter"):
                break
        bs.expect_line("Le serveur tourne sur")
        return bs

    def start(self, argv, port, folder=None, **popen):
        """Run the server's `argv` and return its Process once it has said a line, or has ended."""
        bs = Process(argv, folder or self.folder, port, **popen)
        self.addCleanup(self.check_end, bs)
        with bs.news:
            bs.news.wait_for(lambda: bs.ended or bs.lines, PATIENCE)
        return bs

    def check_end(self, bs):
        """End `bs` with Ctrl-C if it runs; it must never have shown a traceback."""
        running = bs.popen.poll() is None
        code = bs.end()
        self.assertEqual(bs.matching("Traceback"), [])
        if running:
            self.assertEqual(code, 0, bs.lines[-9:])

    def connect_many(self, count, bs, first=b""):
        """Return `count` connections to `bs` that have sent `first` and stay open."""
        many = []
        for number in range(count):
            # Another loopback address for each few hundred: local ports are counted per address
            many.append(bs.connect(f"127.0.{number // 500}.1").send(first))
            self.addCleanup(many[-1].close)
        return many

    def client(self, *options, stdin=b"", **changes):
        """Run client.py in the folder; return its exit code, standard output and error."""
        argv = ["--log-file", os.path.join(self.folder, "bs_client.log"), *options]
        return run(command("client", argv), self.folder, stdin, **changes)

    def fake(self, behave):
        """Start a server of one client, treated by `behave(connection)`; return its port."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        listener.settimeout(PATIENCE)

        def one_client():
            connection, _ = listener.accept()
            connection.settimeout(PATIENCE)
            with connection, contextlib.suppress(OSError):
                behave(connection)

        thread = threading.Thread(target=one_client)
        thread.start()
        self.addCleanup(listener.close)
        self.addCleanup(thread.join, PATIENCE)
        return listener.getsockname()[1]

    def read(self, path):
        """Return the text of the file `path`."""
        with open(path, encoding="utf-8") as file:
            return file.read()

    def wait_for(self, happens):
        """Return once `happens()` is true."""
        for _ in range(PATIENCE * 100):
            if happens():
                return
            time.sleep(0.01)
        self.fail("it does not happen")

    def expect_refusal(self, script, options, code, sentence):
        """Check that `script` with `options` ends with `code` and, last, this `sentence`."""
        result = run(command(script.__name__, options), self.folder)
        self.assertEqual((result[0], result[2].splitlines()[-1:]), (code, [sentence]), options)
        self.assertNotIn("Traceback", result[2])

    def expect_refusals(self, script, many, code, sentence):
        """Check the same for `many` options, the first in a process and all by calling main()."""
        self.expect_refusal(script, many[0], code, sentence(many[0][-1]))
        for options in many:
            with contextlib.redirect_stderr(io.StringIO()) as console, \
                    unittest.mock.patch.object(sys, "argv", [script.__name__ + ".py"]):
                self.assertEqual(script.main(options), code, options)
            self.assertEqual(console.getvalue().splitlines()[-1], sentence(options[-1]))


# The exchange


class Replies(Scene):
    """What the message contains decides the reply."""

    table = (
        ("meo", MEO), ("waf", WAF), ("waf meo", MEO), ("meowaf", MEO), ("homeopathie", MEO),
        ("bonjour", HUMAN), ("MEO", HUMAN), ("Waf", HUMAN), ("wa f", HUMAN), ("", HUMAN),
    )

    def test_the_rule_gives_each_reply(self):
        for message, reply in self.table:
            self.assertEqual(server.reply_to(message), reply, message)

    def test_the_server_gives_each_reply_byte_for_byte(self):
        bs = self.serve()
        for message, reply in self.table:
            bs.connect().send(message.encode() + b"\n").expect(reply)

    def test_bytes_that_are_not_utf8_do_not_hide_a_meo(self):
        bs = self.serve()
        bs.connect().send(b"\xff meo\n").expect(MEO)
        bs.connect().send(b"\xff\n").expect(HUMAN)
        bs.expect_line(r'a envoyé "\xff meo".')

    def test_only_the_first_1024_bytes_count(self):
        bs = self.serve()
        bs.connect().send(b"x" * 1021 + b"meo\n").expect(MEO)
        bs.connect().send(b"x" * 1022 + b"meo\n").expect(HUMAN)
        bs.connect().send(b"meo" + b"x" * 60000 + b"\n").expect(MEO)
        bs.connect().send(b"x" * 60000 + b"meo\n").expect(HUMAN)

    def test_what_follows_the_newline_does_not_count(self):
        bs = self.serve()
        bs.connect().send(b"bonjour\nmeo\n").expect(HUMAN)
        bs.expect_line('a envoyé "bonjour".')

    def test_the_reply_arrives_although_the_client_still_sends(self):
        bs = self.serve()
        for first, reply in ((b"waf\n", WAF), (b"meo", MEO)):
            connection = bs.connect().send(first)
            got = connection.receive()
            for _ in range(8):  # a connection closed under us would be reset by these
                connection.send(b"x" * 20000)
            self.assertEqual(got + connection.half_close().read_all(), reply)

    def test_random_bytes_get_the_reply_that_the_rule_gives(self):
        draw = random.Random(20261122)
        bs = self.serve(constants={"SILENCE": NEVER})
        for _ in range(300):
            parts = [draw.choice([b"meo", b"waf", b"\r", b"\n", b"\xff", b"me", b"af", b"\x00",
                                  bytes(draw.getrandbits(8) for _ in range(50)),
                                  b"x" * draw.randrange(1200)])
                     for _ in range(draw.randrange(6))]
            message = b"".join(parts)
            counts = message.split(b"\n")[0][:1024].decode("utf-8", "replace")
            reply = MEO if "meo" in counts else WAF if "waf" in counts else HUMAN
            bs.connect().send(*parts).half_close().expect(reply if message else "")
        bs.end()
        self.assertTrue(all(line.isprintable() for line in bs.lines))


class MessageEnds(Scene):
    """A message may come in pieces, and has four ends; no cut changes the reply."""

    def setUp(self):
        super().setUp()
        self.bs = self.serve(constants={"SILENCE": NEVER})

    def pieces(self, *pieces):
        """Return a Connection that has sent `pieces`, the second once the first may be read."""
        before = len(self.bs.matching(CONNECTED))
        connection = self.bs.connect()
        for piece in pieces:
            connection.send(piece)
            self.bs.expect_line(CONNECTED, before + 1)
        return connection

    def test_a_newline_ends_it_at_once(self):
        for pieces in ([b"waf\n"], [b"waf\r\n"], [b"waf\r", b"\n"], [b"w", b"af\n"]):
            self.pieces(*pieces).expect(WAF)
        self.bs.expect_line('a envoyé "waf".', 4)

    def test_only_one_return_before_the_newline_is_its_own(self):
        self.pieces(b"waf\r\r\n").expect(WAF)
        self.pieces(b"x" * 1023 + b"\rabc", b"\n").expect(HUMAN)
        self.bs.expect_line(r'a envoyé "waf\r".')
        self.bs.expect_line(r'xxx\r".')

    def test_an_empty_line_is_a_message(self):
        self.pieces(b"\n").expect(HUMAN)
        self.pieces(b"\r\n").expect(HUMAN)
        self.bs.expect_line('a envoyé "".', 2)

    def test_the_end_of_the_stream_ends_it_at_once(self):
        self.pieces(b"waf").half_close().expect(WAF)
        self.pieces(b"w", b"a", b"f").half_close().expect(WAF)

    def test_meo_ends_it_at_once(self):
        self.pieces(b"meo").expect(MEO)
        self.pieces(b"waf", b" m", b"eo").expect(MEO)

    def test_silence_ends_it(self):
        self.bs = self.serve()
        self.pieces(b"waf").expect(WAF)
        self.pieces(b"bon", b"jour").expect(HUMAN)

    def test_a_message_cut_in_two_gets_the_reply_of_the_whole(self):
        for message, reply in ((b"waf\n", WAF), (b"waf meo\n", MEO), (b"a b\r\n", HUMAN)):
            for cut in range(1, len(message)):
                self.pieces(message[:cut], message[cut:]).expect(reply)

    def test_a_newline_after_the_bytes_that_count_ends_it_too(self):
        self.pieces(b"waf" + b"x" * 3000, b"x" * 3000 + b"\n").expect(WAF)

    def test_a_client_that_leaves_without_a_byte_gets_nothing_and_one_line(self):
        self.bs.connect().half_close().expect("")
        self.bs.connect().send(b"waf\n").expect(WAF)
        self.bs.expect_line("Réponse envoyée")
        self.assertEqual(len(self.bs.lines), 2 + 1 + 3)

    def test_somebody_who_sits_at_the_prompt_is_answered_when_they_speak(self):
        self.bs = self.serve(constants={"SILENCE": 0.01})
        connection = self.bs.connect()
        self.bs.connect().send(b"waf\n").expect(WAF)
        self.bs.connect().send(b"waf").expect(WAF)  # some silences have gone by
        connection.send(b"meo\n").expect(MEO)


# The command lines


class CommandLines(Scene):
    """What both scripts share: help, version, misuse, port, log file."""

    def test_help_names_every_option_with_its_default_in_80_columns(self):
        both = ("options:", "--help affiche cette aide", "--port PORT", "(défaut : 13337)",
                "--log-file FICHIER", "--verbosity", "--version affiche la version")
        own = {server: ("Serveur bs : un message, une réponse", "--listen ADRESSE",
                        "(défaut : 0.0.0.0)", "-v, --verbosity écrit aussi"),
               client: ("Client bs : envoie un message", "--host HÔTE",
                        "(défaut : 127.0.0.1)", "--timeout SECONDES",
                        "(défaut : 10)", "'waf' ou 'meo'", "-v, --verbosity montre aussi")}
        for script, words in own.items():
            name = script.__name__
            code, text, _ = run(command(name, ["--help"]), self.folder, COLUMNS="80")
            self.assertEqual((code, text.split(" [")[0]), (0, f"usage: {name}.py"))
            self.assertLessEqual(max(map(len, text.splitlines())), 80)
            for word in (*both, *words, *script.LOG_FILES):
                self.assertIn(word, " ".join(text.split()))

    def test_version(self):
        for script in (server, client):
            name = script.__name__ + ".py"
            result = run(command(script.__name__, ["--version"]), self.folder)
            self.assertEqual(result, (0, f"{name} {script.VERSION}\n", ""))
            copy = os.path.join(self.folder, "\u00e9" + name)
            shutil.copy(os.path.join(HERE, name), copy)
            result = run([sys.executable, copy, "--version"], self.folder, PYTHONIOENCODING="ascii")
            self.assertEqual(result, (0, f"\\xe9{name} {script.VERSION}\n", ""))

    def test_misuse_exits_2_with_the_usage(self):
        for script, misuses in ((server, (["--nope"], ["x"], ["-p"])),
                                (client, (["--nope"], ["meo", "waf"], ["-t", "0"], ["-t", "-1"],
                                          ["-t", "nan"], ["-t", "inf"], ["-t", "x"],
                                          ["-t", "86401"]))):
            for options in misuses:
                with contextlib.redirect_stderr(io.StringIO()) as console:
                    self.assertEqual(script.main(options), 2, options)
                lines = console.getvalue().splitlines()
                self.assertTrue(lines[0].startswith("usage: "))
                self.assertEqual(len([line for line in lines if ": error: " in line]), 1)
            code, _, console = run(command(script.__name__, misuses[0]), self.folder)
            self.assertEqual((code, console[:7]), (2, "usage: "))

    def test_a_port_that_is_no_number_exits_2(self):
        for script in (server, client):
            self.expect_refusals(
                script, [["-p", port] for port in ("x", "1.5", "", "\033[31m")], 2,
                lambda port, name=script.__name__: f"{name}.py: error: argument -p/--port: "
                f"invalid int value: {port!r}")

    def test_a_port_outside_0_to_65535_exits_1(self):
        for script in (server, client):
            self.expect_refusals(
                script, [["-p", port] for port in ("-1", "65536", "99999999999999999999")], 1,
                lambda port: "ERROR Le port spécifié n'est pas un port possible (de 0 à 65535).")

    def test_a_log_file_that_does_not_open_exits_5_or_1(self):
        for script, code, options in ((server, 5, ["-p", str(free_port())]), (client, 1, ["meo"])):
            for path, error in ((self.folder, errno.EISDIR), ("no/x", errno.ENOENT)):
                self.expect_refusal(script, [*options, "--log-file", path], code,
                                    f"ERROR Impossible d'ouvrir le journal {path} : "
                                    f"{os.strerror(error)}.")

    def test_no_usage_is_coloured(self):  # Python 3.14 would, if standard output is a terminal
        for script in (server, client):
            with unittest.mock.patch.object(script.Parser, "parse_args", autospec=True,
                                            return_value=types.SimpleNamespace(port=2000, listen="::")) as parse:
                script.parse([])
            self.assertIs(parse.call_args[0][0].color, False)


class ServerExits(Scene):
    """The rows of the table of exit codes that are the server's own."""

    def test_a_privileged_port_exits_2(self):
        self.expect_refusals(
            server, [["--port", port] for port in ("0", "80", "1024")], 2,
            lambda port: "ERROR Le port spécifié est un port privilégié. "
                         "Spécifiez un port au dessus de 1024.")
        self.assertEqual(os.listdir(self.folder), [])

    def test_what_is_not_an_ip_address_exits_3(self):
        self.expect_refusals(
            server, [["-l", ip] for ip in ("1.2.3", "localhost", "", "256.0.0.1", "1.2.3.4.5",
                                           ":::1", "::g", "a" * 99, "1.2.3.4 ", "::1/64",
                                           "\033[31m")], 3,
            lambda ip: f"ERROR L'adresse spécifiée {client.printable(ip)} n'est pas une adresse IP "
                       "valide.")
        self.assertEqual(os.listdir(self.folder), [])

    def test_an_address_of_another_machine_exits_4(self):
        self.expect_refusal(server, ["-l", "192.0.2.1"], 4, "ERROR Impossible d'écouter sur "
                            f"192.0.2.1:13337 : {os.strerror(errno.EADDRNOTAVAIL)}.")

    def test_a_port_that_is_taken_exits_4(self):
        bs = self.serve("-l", "127.0.0.1")
        self.expect_refusal(server, ["-l", "127.0.0.1", "-p", str(bs.port)], 4,
                            f"ERROR Impossible d'écouter sur 127.0.0.1:{bs.port} : "
                            f"{os.strerror(errno.EADDRINUSE)}.")

    def test_too_few_descriptors_to_start_with_exit_4(self):
        argv = command("server", ["-p", str(free_port())], first=limited(8))
        self.assertEqual(run(argv, self.folder), (
            4, "", f"ERROR Impossible de démarrer : {os.strerror(errno.EMFILE)}.\n"))

    def test_ctrl_c_exits_0_and_says_so(self):
        bs = self.serve()
        self.assertEqual(bs.end(signal.SIGINT), 0)
        self.assertEqual(bs.messages()[-1], "INFO Arrêt du serveur.")

    def test_port_1025_and_the_default_port_are_accepted(self):
        self.assertEqual(server.parse(["-p", "1025"]).port, 1025)
        self.assertEqual(server.parse(["-p", "65535"]).port, 65535)
        self.assertEqual(vars(server.parse([])), {
            "port": 13337, "listen": "0.0.0.0", "log_file": None, "verbosity": False})


# The server's log


class ServerLog(Scene):
    """Every event is one line, on the console and in the file."""

    def exchange(self):
        """Return a server's Process after one exchange."""
        bs = self.serve()
        bs.connect().send(b"meo\n").expect(MEO)
        bs.expect_line("Réponse envoyée")
        return bs

    def test_an_exchange_is_three_info_lines_in_the_notes_format(self):
        bs = self.exchange()
        bs.end()
        self.assertEqual(bs.messages(), [
            f"INFO Le serveur tourne sur 0.0.0.0:{bs.port}",
            f"INFO Journal : {self.log_file}",
            "INFO Un client 127.0.0.1 s'est connecté.",
            'INFO Le client 127.0.0.1 a envoyé "meo".',
            'INFO Réponse envoyée au client 127.0.0.1 : "Meo à toi confrère.".',
            "INFO Arrêt du serveur.",
        ])
        for line in bs.lines:
            self.assertRegex(line, "^" + DATE)

    def test_the_file_holds_what_the_console_showed_after_what_it_held(self):
        with open(self.log_file, "w") as file:
            file.write("before\n")
        bs = self.exchange()
        bs.end()
        self.assertEqual(self.read(self.log_file).splitlines(), ["before", *bs.lines])

    def test_only_verbosity_adds_debug_lines(self):
        for options, count in (((), 0), (("-v",), 1)):
            bs = self.serve(*options)
            connection = bs.connect().send(b"wa")
            bs.expect_line(CONNECTED)
            connection.reset()
            bs.connect().send(b"waf").expect(WAF)  # its silence outlasts some turns
            self.assertEqual(len(bs.matching(" DEBUG Le client 127.0.0.1 a rompu : "
                                             f"{os.strerror(errno.ECONNRESET)}.")), count)

    def test_the_file_rotates_at_10000_bytes_with_one_backup(self):
        bs = self.serve()
        for number in range(150):
            bs.connect().send(("é" * (3 * number) + " meo\n").encode()).expect(MEO)
            for name in os.listdir(self.folder):
                with contextlib.suppress(FileNotFoundError):  # renamed since it was listed
                    self.assertLessEqual(os.path.getsize(os.path.join(self.folder, name)), 10000)
        bs.expect_line("Réponse envoyée", 150)
        bs.end()
        self.assertEqual(sorted(os.listdir(self.folder)), ["bs_server.log", "bs_server.log.1"])
        kept = (self.read(self.log_file + ".1") + self.read(self.log_file)).splitlines()
        self.assertEqual(kept, bs.lines[-len(kept):])
        self.assertGreater(os.path.getsize(self.log_file + ".1"), 9000)

    def test_a_message_forges_no_line_and_acts_on_no_screen(self):
        bs = self.serve()
        evil = "\r2026-01-01 00:00:00 INFO faux\v\033[31m\x07\u202e\u2028\x85\x9b2J\u200b\t\ufeff"
        bs.connect().send(evil.encode() + b"\n").expect(HUMAN)
        bs.expect_line("Réponse envoyée")
        bs.end()
        shown = (r"\r2026-01-01 00:00:00 INFO faux"
                 r"\x0b\x1b[31m\x07\u202e\u2028\x85\x9b2J\u200b\t\ufeff")
        for lines in (bs.lines, self.read(self.log_file).splitlines()):
            self.assertEqual(len(lines), 6)
            self.assertTrue(lines[3].endswith(f'a envoyé "{shown}".'), lines[3])
            self.assertTrue("".join(lines).isprintable())

    def test_the_default_file_falls_back_to_the_current_folder(self):
        here = os.path.join(self.folder, "bs_server.log")
        port = free_port()
        argv = command("server", ["-p", str(port)], {"LOG_FILES": ("no/x.log", here)})
        bs = self.start(argv, port)
        bs.expect_line("Le serveur tourne sur")
        self.assertIn("Le serveur tourne sur", self.read(here))
        self.assertEqual(bs.matching("WARN"), [])

    def test_with_no_file_at_all_the_console_alone_gets_the_log_and_a_warning(self):
        port = free_port()
        argv = command("server", ["-p", str(port)], {"LOG_FILES": ("no/x", "no/y")})
        bs = self.start(argv, port)
        bs.expect_line("Le serveur tourne sur")
        bs.expect_line("Aucun journal")
        self.assertEqual(bs.messages()[1], "WARN Aucun journal ne peut être ouvert : "
                                           "la console seule reçoit les lignes.")
        bs.connect().send(b"meo\n").expect(MEO)
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_terminal_sees_the_levels_in_colour_and_the_file_does_not(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        argv = command("server", ["-p", str(free_port()), "--log-file", self.log_file],
                       {"SLEEP": 0.05, "LONELY": 0.1})
        with subprocess.Popen(argv, cwd=self.folder, stderr=slave, env=environment()) as popen:
            os.close(slave)
            screen = ""
            while "Aucun client" not in screen:
                screen += os.read(master, 4096).decode("utf-8")
            popen.send_signal(signal.SIGINT)
        self.assertRegex(screen, r"\d \x1b\[37mINFO\x1b\[0m Le serveur tourne")
        self.assertRegex(screen, r"\d \x1b\[33mWARN\x1b\[0m Aucun client")
        self.assertNotIn("\x1b", self.read(self.log_file))
        self.assertIn(" WARN Aucun client", self.read(self.log_file))

    def test_ctrl_c_while_a_date_is_made_spoils_no_later_line(self):
        line = server.Line(server.LOG_FORMAT, server.LOG_DATE)
        first, record = (logging.makeLogRecord({"levelname": "INFO", "msg": "x"}) for _ in "12")
        with unittest.mock.patch.object(line, "formatTime", side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, line.format, first)
        self.assertRegex(line.format(record), "^" + DATE + "INFO x$")

    def test_the_date_of_a_line_is_that_of_its_second(self):
        line = server.Line(server.LOG_FORMAT, server.LOG_DATE)
        for created, shown in ((0.9, ":00 INFO x"), (1.1, ":01 INFO x"), (61.0, ":01 INFO x")):
            record = logging.makeLogRecord({"levelname": "INFO", "msg": "x", "created": created})
            self.assertTrue(line.format(record).endswith(shown))
        self.assertRegex(line.format(record), "^" + DATE.replace(r":\d\d ", ":01 "))


# No client makes another wait


class NobodyWaits(Scene):
    """Nothing that a client does or leaves undone holds up the next one."""

    def let_go(self, bs):
        """Return how many the log of `bs` says were let go."""
        return sum(int(re.search(r"attente : (\d+) écarté", line).group(1))
                   for line in bs.matching("Trop de clients en attente"))

    def test_silent_connections_hold_up_nobody_and_are_served_when_they_speak(self):
        bs = self.serve()
        silent = self.connect_many(500, bs)
        bs.expect_line(CONNECTED, 500)
        for _ in range(50):
            bs.connect().send(b"waf\n").expect(WAF)
        for connection in silent[::50]:
            connection.send(b"meo\n").expect(MEO)
        self.assertEqual(bs.matching("WARN"), [])

    def test_of_3000_half_sent_messages_the_oldest_are_let_go(self):
        bs = self.serve(constants={"SILENCE": NEVER}, first=limited(1024))
        half_sent = self.connect_many(3000, bs, b"wa")
        bs.connect().send(b"meo\n").expect(MEO)
        half_sent[0].expect_hang_up()
        half_sent[-1].send(b"f\n").expect(WAF)
        bs.end()
        self.assertIn(self.let_go(bs), range(3000 - 1024, 3000 - 1000))
        for kind in ("Trop de clients", f"accepter un client : {os.strerror(errno.EMFILE)}."):
            lines = bs.matching(kind)
            self.assertLessEqual(len(lines), len({line[:19] for line in lines}) + 1)
            self.assertTrue(lines)

    def test_a_host_can_push_out_only_its_own(self):
        bs = self.serve(constants={"WAITING_MAX": 20, "SILENCE": NEVER})
        honest = [bs.connect(source=f"127.0.2.{number}").send(b"un petit ") for number in range(3)]
        bs.expect_line("Un client 127.0.2.", 3)
        hostile = self.connect_many(100, bs)
        bs.expect_line(CONNECTED, 100)
        hostile[0].expect_hang_up()
        for connection in honest:
            connection.send(b"waf\n").expect(WAF)
        bs.end()
        self.assertEqual(self.let_go(bs), 100 + 3 - 20)
        self.assertEqual(bs.matching("WARN"), bs.matching("dont 127.0.0.1."))

    def test_a_burst_that_is_done_at_once_pushes_out_nobody(self):
        bs = self.serve(first=limited(40))
        honest = [bs.connect(source=f"127.0.2.{number}") for number in range(25)]
        bs.expect_line("Un client 127.0.2.", 25)
        for _ in range(4):
            bs.popen.send_signal(signal.SIGSTOP)  # so that all of the burst waits in the queue
            burst = [bs.connect().send(b"waf\n").half_close() for _ in range(30)]
            bs.popen.send_signal(signal.SIGCONT)
            for connection in burst:
                connection.expect(WAF)
        for connection in honest:
            connection.send(b"waf\n").expect(WAF)
        self.assertEqual(bs.matching("WARN"), [])

    def test_clients_that_drip_are_each_answered_and_hold_up_nobody(self):
        bs = self.serve(constants={"SILENCE": NEVER})
        dripping = self.connect_many(200, bs)
        for byte in b"goutte":
            for connection in dripping:
                connection.send(bytes([byte]))
            bs.connect().send(b"waf\n").expect(WAF)
        for connection in dripping:
            connection.send(b" waf\n")
        for connection in dripping:
            connection.expect(WAF)
        bs.expect_line('a envoyé "goutte waf".', 200)

    def test_resets_before_during_and_after_the_message_do_no_harm(self):
        bs = self.serve("-v")
        for sent in (b"", b"wa", b"waf\n", b"waf\nwaf"):
            for _ in range(20):
                bs.connect().send(sent).reset()
            bs.connect().send(b"meo\n").expect(MEO)
        self.assertEqual(bs.matching("WARN"), [])

    def test_a_scan_is_one_line_each(self):
        bs = self.serve()
        for _ in range(20):
            bs.connect().close()
        bs.connect().send(b"waf\n").expect(WAF)
        bs.expect_line("Réponse envoyée")
        bs.end()
        self.assertEqual(len(bs.lines), 2 + 20 + 3 + 1)

    def test_an_endless_sender_is_cut_off_without_a_reply(self):
        bs = self.serve(constants={"SILENCE": NEVER})
        connection = bs.connect()
        with self.assertRaises(OSError):
            for _ in range(1024):  # 64 MiB: what the kernel holds for both ends, and then some
                connection.send(b"x" * 65536)
        connection.close()
        bs.expect_line("WARN Le client 127.0.0.1 envoie sans fin : connexion coupée.")
        self.assertEqual(bs.matching("a envoyé"), [])
        bs.connect().send(b"meo\n").expect(MEO)

    def test_a_mebibyte_with_an_end_is_answered(self):
        bs = self.serve(constants={"SILENCE": NEVER})
        bs.connect().send(b"waf" + b"x" * ((1 << 20) - 4) + b"\n").expect(WAF)

    @unittest.skipUnless(hasattr(resource, "prlimit"), "no prlimit(2)")
    def test_without_any_descriptor_it_waits_and_serves_again_when_there_is_one(self):
        bs = self.serve(constants={"WARN_EVERY": 0.1})
        pid, limits = bs.popen.pid, resource.prlimit(bs.popen.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        waiting = self.connect_many(3, bs, b"meo\n")
        failed = f"WARN Impossible d'accepter un client : {os.strerror(errno.EMFILE)}."
        bs.expect_line(failed)
        used = bs.processor()
        bs.expect_line(failed, 6)
        self.assertLess(bs.processor() - used, 0.2)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        for connection in waiting:
            connection.expect(MEO)

    def test_it_sleeps_while_nobody_is_aside(self):
        bs = self.serve(constants={"SLEEP": NEVER})
        for connection in self.connect_many(20, bs):
            connection.close()
        bs.connect().send(b"waf").expect(WAF)
        bs.expect_line("Réponse envoyée")

        def sleeps():
            before = bs.status("voluntary_ctxt_switches")
            time.sleep(0.2)  # polling would be seen as 10 switches at least
            return bs.status("voluntary_ctxt_switches") == before
        self.wait_for(sleeps)

    def test_killed_under_load_and_started_again_it_listens(self):
        bs = self.serve()
        self.connect_many(50, bs, b"wa")
        bs.connect().send(b"meo\n").expect(MEO)
        bs.end(signal.SIGKILL)
        argv = command("server", ["-p", str(bs.port), "--log-file", self.log_file])
        again = self.start(argv, bs.port)
        again.expect_line("Le serveur tourne sur")
        again.connect().send(b"meo\n").expect(MEO)

    def test_thousands_of_exchanges_leave_three_lines_each_and_the_memory_flat(self):
        bs = self.serve()
        for number in range(2000):
            if number == 500:
                before = bs.status("VmRSS")
            message, reply = Replies.table[number % len(Replies.table)]
            bs.connect().send(message.encode() + b"\n").expect(reply)
        bs.expect_line("Réponse envoyée", 2000)
        self.assertLess(bs.status("VmRSS"), 1.1 * before)
        bs.end()
        self.assertEqual(len(bs.lines), 3 * 2000 + 3)


class Addresses(Scene):
    """IPv4 and IPv6, by address and by name."""

    def test_a_host_is_an_ipv4_address_or_the_first_64_bits_of_an_ipv6_one(self):
        def host(ip):
            return server.Client(None, ip, None).host
        self.assertEqual(host("2001:db8::1"), host("2001:db8:0:0:ffff::2"))
        self.assertNotEqual(host("2001:db8::1"), host("2001:db8:0:1::1"))
        self.assertNotEqual(host("192.0.2.1"), host("192.0.2.2"))
        self.assertEqual(host("fe80::1%eth0"), host("fe80::2"))

    def test_one_ipv4_address_is_not_the_others(self):
        bs = self.serve("-l", "127.0.0.2")
        bs.connect("127.0.0.2").send(b"meo\n").expect(MEO)
        with self.assertRaises(ConnectionRefusedError):
            bs.connect()

    def test_localhost_finds_the_server_on_each_address_it_has(self):
        for info in socket.getaddrinfo("localhost", None, 0, socket.SOCK_STREAM):
            bs = self.serve("-l", info[4][0])
            self.assertEqual(self.client("-H", "localhost", "-p", str(bs.port), "meo")[0], 0)


def has_ipv6():
    """Return True if this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


@unittest.skipUnless(has_ipv6(), "no ::1")
class IPv6(Scene):
    """The same, where there is IPv6."""

    def test_ipv6_is_served_and_logged(self):
        bs = self.serve("-l", "::1")
        self.assertEqual(bs.messages()[0], f"INFO Le serveur tourne sur [::1]:{bs.port}")
        code, text, _ = self.client("-H", "::1", "-p", str(bs.port), "meo")
        self.assertEqual(code, 0)
        self.assertIn(f"Connecté avec succès au serveur ::1 sur le port {bs.port}\n", text)
        bs.expect_line("Un client ::1 s'est connecté.")
        self.assertIn(f"Connexion réussie à [::1]:{bs.port}.\n",
                      self.read(os.path.join(self.folder, "bs_client.log")))

    def test_one_socket_serves_both_and_logs_ipv4_as_ipv4(self):
        bs = self.serve("-l", "::")
        for host in ("::1", "127.0.0.1"):
            bs.connect(host).send(b"meo\n").expect(MEO)
            bs.expect_line(f"Un client {host} s'est connecté.")
            bs.expect_line(f"Réponse envoyée au client {host} :")

    def test_an_ipv6_address_that_cannot_be_exits_4(self):
        self.expect_refusal(server, ["-l", "2001:db8::1", "-p", "20000"], 4,
                     "ERROR Impossible d'écouter sur [2001:db8::1]:20000 : "
                            f"{os.strerror(errno.EADDRNOTAVAIL)}.")


class LogFailures(Scene):
    """A log that stops working is one WARN on the other output, and the service goes on."""

    def failing(self, bs, warning, exchanges=100):
        """Check that `bs` keeps every line of so many `exchanges`, and has one `warning`."""
        for _ in range(exchanges):
            bs.connect().send(b"meo\n").expect(MEO)
        bs.expect_line("Réponse envoyée", exchanges)
        self.assertEqual(bs.end(), 0)
        self.assertEqual([line for line in bs.messages() if line.startswith("WARN")],
                         [f"WARN {warning}."])
        self.assertEqual(len(bs.lines), 3 * exchanges + 4)

    def test_a_full_disk(self):
        self.failing(self.serve(log_file="/dev/full"),
                     f"Le journal /dev/full ne fonctionne plus : {os.strerror(errno.ENOSPC)}")

    def test_a_folder_that_vanishes(self):
        folder = os.path.join(self.folder, "logs")
        os.mkdir(folder)
        path = os.path.join(folder, "bs.log")
        bs = self.serve(log_file=path)
        shutil.rmtree(folder)
        self.failing(bs, f"La sauvegarde {path}.1 ne peut être écrite : "
                         f"{os.strerror(errno.ENOENT)}")

    def test_a_backup_that_cannot_be_written_is_said_once_and_the_file_goes_on(self):
        os.mkdir(self.log_file + ".1")
        self.failing(self.serve(), f"La sauvegarde {self.log_file}.1 ne peut être écrite : "
                                   f"{os.strerror(errno.EISDIR)}")
        self.assertIn("Arrêt du serveur.", self.read(self.log_file))
        self.assertLessEqual(os.path.getsize(self.log_file), 10000)

    def test_a_device_is_never_rotated(self):
        os.symlink("/dev/null", self.log_file)
        bs = self.serve(constants={"LOG_BYTES": 10})
        bs.connect().send(b"meo\n").expect(MEO)
        bs.expect_line("Réponse envoyée")
        bs.end()
        self.assertEqual((bs.matching("WARN"), len(bs.lines)), ([], 6))
        self.assertEqual(os.listdir(self.folder), ["bs_server.log"])

    def test_what_stands_under_dev_is_never_emptied(self):
        path = os.path.join(self.folder, "out.txt")
        with open(path, "w") as out:
            bs = self.serve(log_file="/dev/fd/3", first=f"import os; os.dup2({out.fileno()}, 3)",
                            pass_fds=[out.fileno()])
        for _ in range(60):
            bs.connect().send(b"meo\n").expect(MEO)
        bs.end()
        self.assertEqual(self.read(path).splitlines(), bs.lines)
        self.assertEqual(os.listdir(self.folder), ["out.txt"])

    def test_a_link_stays_a_link_and_the_file_the_same(self):
        target = os.path.join(self.folder, "target")
        os.symlink(target, self.log_file)
        bs = self.serve()
        inode = os.stat(target).st_ino
        for _ in range(60):
            bs.connect().send(b"meo\n").expect(MEO)
        bs.end()
        self.assertTrue(os.path.islink(self.log_file))
        self.assertEqual(os.stat(target).st_ino, inode)
        kept = (self.read(self.log_file + ".1") + self.read(target)).splitlines()
        self.assertEqual(kept, bs.lines[-len(kept):])

    def test_a_large_old_log_leaves_its_newest_bytes_and_half_a_line_is_ended(self):
        with open(self.log_file, "w") as file:
            file.write("old\n" * 9000 + "half")
        bs = self.serve()
        bs.end()
        self.assertEqual(self.read(self.log_file + ".1"), ("old\n" * 9000 + "half\n")[-10000:])
        self.assertEqual(self.read(self.log_file).splitlines(), bs.lines)

    def test_ctrl_c_in_the_middle_of_a_rotation_loses_nothing(self):
        for number, place in enumerate(("builtins.open", "socket.socket", "Journal.newest",
                                        "Stream.truncate")):
            log_file = f"{self.log_file}.{number}"
            bs = self.serve(log_file=log_file, constants={"LOG_BYTES": 320}, first=f"""
import builtins, socket, server
from server import Journal
class Stream:
    def __init__(self, file): self.file = file
    def __getattr__(self, name): return getattr(self.file, name)
    def truncate(self, size): return self.file.truncate(size)
stock, opened = Journal.doRollover, Journal._open
Journal._open = lambda self: Stream(opened(self))
def interrupted(self):
    before = {place}
    def interrupt(*args):
        {place} = before
        raise KeyboardInterrupt
    {place} = interrupt
    Journal.doRollover = stock
    stock(self)
Journal.doRollover = interrupted""")
            with contextlib.suppress(ConnectionError):
                for _ in range(9):
                    bs.connect().send(b"meo\n").read_all()
            self.assertEqual(bs.popen.wait(PATIENCE), 0, place)
            bs.end()
            self.assertEqual(bs.matching("WARN"), [])
            kept = [self.read(path) for path in (log_file + ".1", log_file) if os.path.exists(path)]
            self.assertEqual(set("".join(kept).splitlines()), set(bs.lines), place)
            self.assertEqual(bs.lines[-1][20:], "INFO Arrêt du serveur.")

    @unittest.skipIf(sys.version_info < (3, 7), "open() to append seeks, which no pipe can")
    def test_a_pipe_as_the_log_gets_every_line(self):
        reader, writer = os.pipe()
        bs = self.serve(log_file=f"/dev/fd/{writer}", constants={"LOG_BYTES": 10},
                        pass_fds=[writer])
        os.close(writer)
        bs.connect().send(b"meo\n").expect(MEO)
        bs.expect_line("Réponse envoyée")
        bs.end()
        with open(reader, encoding="utf-8") as file:
            self.assertEqual(file.read().splitlines(), bs.lines)

    def test_a_console_that_nobody_reads_any_more(self):
        reader, writer = os.pipe()
        port = free_port()
        argv = command("server", ["-p", str(port), "--log-file", self.log_file])
        with subprocess.Popen(argv, cwd=self.folder, stderr=writer, env=environment()) as popen:
            os.close(writer)
            with open(reader, encoding="utf-8") as console:
                self.assertIn("Le serveur tourne sur", console.readline())
            for _ in range(3):
                Connection(port).send(b"meo\n").expect(MEO)
            self.wait_for(lambda: self.read(self.log_file).count("Réponse envoyée") == 3)
            popen.send_signal(signal.SIGINT)
            self.assertEqual(popen.wait(PATIENCE), 0)
        lines = [line[20:] for line in self.read(self.log_file).splitlines()]
        failed = f"WARN La console ne fonctionne plus : {os.strerror(errno.EPIPE)}."
        self.assertEqual((lines.count(failed), len(lines)), (1, 2 + 1 + 9 + 1))


# The client


class Checks(unittest.TestCase):
    """The three checks of a message, called directly."""

    def test_a_message_with_waf_or_meo_passes(self):
        for message in ("waf", "meo", "un homeo", "é" * 510 + "waf"):
            self.assertEqual(client.check_message(message), message)

    def test_what_is_not_a_string_is_a_type_error(self):
        for message in (b"meo", None, 3):
            with self.assertRaises(TypeError):
                client.check_message(message)

    def test_a_message_without_waf_or_meo_is_a_value_error(self):
        for message in ("", "bonjour", "MEO", "w af"):
            with self.assertRaisesRegex(ValueError, "doit contenir le mot 'waf' ou 'meo'"):
                client.check_message(message)

    def test_a_message_too_long_or_with_a_newline_is_a_value_error(self):
        self.assertEqual(len(client.check_message("meo" + "x" * 1021)), 1024)
        for message in ("meo" + "x" * 1022, "meo" + "é" * 511, "meo\n", "waf\nmeo"):
            with self.assertRaises(ValueError):
                client.check_message(message)


class ClientRuns(Scene):
    """Connect, ask, check, send, receive, close, exit."""

    def refused(self, options, cause, code=1, **others):
        """Check that a run with `options` ends with `cause` on standard error; return stdout."""
        result = self.client(*options, **others)
        self.assertEqual((result[0], result[2].splitlines()[-1:]), (code, [cause]))
        return result[1]

    def test_a_message_on_the_command_line_is_sent_and_its_reply_printed(self):
        port = self.serve().port
        code, text, console = self.client("-p", str(port), "waf")
        self.assertEqual((code, console), (0, ""))
        self.assertEqual(text, f"Connecté avec succès au serveur 127.0.0.1 sur le port {port}\n"
                               "Le serveur a répondu : ptdr t ki\n")

    def test_a_message_is_asked_for_and_read_from_a_pipe(self):
        port = self.serve().port
        code, text, console = self.client("-p", str(port), stdin="été meo\n".encode())
        self.assertEqual((code, console), (0, ""))
        self.assertEqual(text, f"Connecté avec succès au serveur 127.0.0.1 sur le port {port}\n"
                               "Que veux-tu envoyer au serveur : "
                               "Le serveur a répondu : Meo à toi confrère.\n")

    def test_the_prompt_works_on_a_terminal(self):
        port = self.serve().port
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        argv = command("client", ["-p", str(port), "--log-file", "log"])
        with subprocess.Popen(argv, cwd=self.folder, stdin=slave, stdout=slave, stderr=slave,
                              env=environment()) as popen:
            os.close(slave)
            screen = b""
            while b"serveur : " not in screen:
                screen += os.read(master, 4096)
            os.write(master, b"un waf\n")
            with contextlib.suppress(OSError):  # the end of a terminal: EIO
                for piece in iter(lambda: os.read(master, 4096), b""):
                    screen += piece
            self.assertEqual(popen.wait(PATIENCE), 0)
        self.assertTrue(screen.endswith(b"un waf\r\nLe serveur a r\xc3\xa9pondu : ptdr t ki\r\n"))

    def test_it_sends_the_message_and_a_newline_and_does_not_half_close(self):
        got = []

        def behave(connection):
            got.append(connection.recv(1024))
            connection.settimeout(0.1)
            with self.assertRaises(socket.timeout):  # the end of its stream would be b""
                got.append(connection.recv(1024))
            connection.sendall(b"ok")

        port = self.fake(behave)
        self.assertEqual(self.client("-p", str(port), "é meo \xff".encode("latin-1"))[0], 0)
        self.assertEqual(got, ["é meo \xff\n".encode("latin-1")])  # as typed, UTF-8 or not

    def test_no_byte_is_sent_that_a_server_of_this_family_would_leave_unread(self):
        def behave(connection):  # as the notes do it; to close with a byte unread would be a reset
            connection.recv(1024)
            connection.sendall(b"ok")
        for size in (1023, 1024):
            port = self.fake(behave)
            code, text, console = self.client("-p", str(port), "waf" + "x" * (size - 3))
            self.assertEqual((code, text.splitlines()[1:], console),
                             (0, ["Le serveur a répondu : ok"], ""))
        code, text, _ = self.client("-p", str(self.serve().port), "x" * 1021 + "waf")
        self.assertEqual((code, text.splitlines()[1:]), (0, ["Le serveur a répondu : " + WAF]))

    def test_the_log_file_gets_three_info_lines(self):
        port = self.serve().port
        self.assertEqual(self.client("-p", str(port), "meo")[0], 0)
        lines = self.read(os.path.join(self.folder, "bs_client.log")).splitlines()
        self.assertEqual([re.sub("^" + LINE, r"\1 ", line) for line in lines], [
            f"INFO Connexion réussie à 127.0.0.1:{port}.",
            'INFO Message envoyé au serveur 127.0.0.1 : "meo".',
            'INFO Réponse reçue du serveur 127.0.0.1 : "Meo à toi confrère.".',
        ])

    def test_the_default_log_falls_back_to_the_current_folder_and_then_to_none(self):
        port = str(self.serve().port)
        here = os.path.join(self.folder, "here.log")
        for files, found in ((("no/x", here), True), (("no/x", "no/y"), False)):
            argv = command("client", ["-p", port, "meo"], {"LOG_FILES": files})
            code, _, console = run(argv, self.folder)
            self.assertEqual((code, console), (0, ""))
            self.assertEqual(os.path.exists(here), found)
            with contextlib.suppress(OSError):
                os.remove(here)
        self.assertEqual(client.LOG_FILES, ("/var/log/bs_client/bs_client.log", "bs_client.log"))

    def test_the_log_and_its_backup_hold_10000_bytes_each_whatever_is_said(self):
        def behave(connection):
            connection.recv(1024)
            connection.sendall(b"\xff" * 70000)
        log = os.path.join(self.folder, "bs_client.log")
        for size in (0, 9700, 9990, 10000):  # bytes of a log that is there already
            with open(log, "w", encoding="utf-8") as file:
                file.write("é" * (size // 2 - 1) + "\n")
            port = str(self.fake(behave))
            self.assertEqual(self.client("-p", port, "meo" + "é" * 500)[0], 0)
            sizes = [os.path.getsize(path) for path in (log, log + ".1") if os.path.exists(path)]
            self.assertLessEqual(max(sizes), 10000, size)
            last = self.read(log).splitlines()[-1]
            self.assertRegex(last, r'Réponse reçue du serveur 127.0.0.1 : "(\\xff){2000}… \(coupé\)".$')
            with contextlib.suppress(OSError):
                os.remove(log + ".1")
        self.client("-p", "2000", "-H", "x" * 20000, "meo")
        self.assertRegex(self.read(log), "x… \\(coupé\\)\n$")
        self.assertLessEqual(os.path.getsize(log), 10000)

    @unittest.skipIf(sys.version_info < (3, 7), "open() to append seeks, which no pipe can")
    def test_a_pipe_as_the_log_gets_every_line(self):
        reader, writer = os.pipe()
        argv = command("client", ["--log-file", f"/dev/fd/{writer}", "-p", str(self.serve().port),
                                  "meo"], {"LOG_BYTES": 10})
        code = subprocess.call(argv, cwd=self.folder, env=environment(), pass_fds=[writer],
                               stdout=subprocess.DEVNULL)
        os.close(writer)
        with open(reader, encoding="utf-8") as file:
            self.assertEqual((code, len(file.readlines())), (0, 3))

    def test_verbosity_shows_the_log_on_the_console(self):
        port = self.serve().port
        code, _, console = self.client("-v", "-p", str(port), "meo")
        self.assertEqual((code, len(re.findall("(?m)^" + LINE, console))), (0, 4))

    def test_no_server_exits_1_and_is_logged(self):
        port = free_port()
        sentence = f"ERROR Impossible de se connecter au serveur 127.0.0.1 sur le port {port}."
        self.assertEqual(self.refused(["-p", str(port), "meo"], sentence), "")
        log = self.read(os.path.join(self.folder, "bs_client.log"))
        self.assertRegex(log, "^" + LINE + re.escape(sentence[len("ERROR "):]) + "\n$")
        console = self.client("-v", "-p", str(port), "meo")[2]
        lines = [re.sub("^" + DATE, "", line) for line in console.splitlines()]
        self.assertEqual(lines, [f"DEBUG Journal : {self.folder}/bs_client.log",
                                 f"DEBUG Cause : {os.strerror(errno.ECONNREFUSED)}.", sentence])
        self.assertIn("DEBUG Cause : ", self.client("-v", "-H", "a..b", "meo")[2])

    def test_every_error_is_one_line_of_the_log(self):
        port = self.fake(lambda connection: connection.recv(1024))
        for options in (["bonjour"], ["-p", str(port), "meo"], ["-p", str(free_port()), "meo"]):
            code, _, console = self.client(*options)
            lines = self.read(os.path.join(self.folder, "bs_client.log")).splitlines()
            self.assertEqual((code, len([line for line in lines if " ERROR " in line])), (1, 1))
            self.assertTrue(lines[-1].endswith(" ERROR " + console.rstrip().replace("ERROR ", "")))
            os.remove(os.path.join(self.folder, "bs_client.log"))

    def test_the_addresses_of_a_name_share_the_time_to_connect(self):
        port = self.serve("-l", "127.0.0.1").port
        with socket.socket() as silent, contextlib.ExitStack() as queue:
            silent.bind(("127.0.0.2", port))
            silent.listen(0)
            for _ in range(4):  # a queue that is full: the kernel answers no more, listen(2)
                connection = queue.enter_context(socket.socket())
                connection.setblocking(False)
                connection.connect_ex(("127.0.0.2", port))
            for addresses, code in ((["127.0.0.2", "127.0.0.1"], 0), (["127.0.0.2"] * 8, 1)):
                name = ("import socket; find = socket.getaddrinfo; socket.getaddrinfo = "
                        f"lambda host, *rest: [info for ip in ({addresses} if host == 'bs' else "
                        "[host]) for info in find(ip, *rest)]")
                start = time.monotonic()
                self.assertEqual(run(command("client", ["-H", "bs", "-p", str(port), "-t", "0.5",
                                                        "meo"], first=name), self.folder)[0], code)
                if code:
                    self.assertLess(time.monotonic() - start, 0.5 * len(addresses))

    def test_no_connection_is_said_in_red_on_a_terminal(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        argv = command("client", ["-p", str(free_port()), "--log-file", "log", "meo"])
        self.assertEqual(subprocess.call(argv, cwd=self.folder, stderr=slave, env=environment()), 1)
        os.close(slave)
        self.assertRegex(os.read(master, 4096).decode("utf-8"),
                         r"^\x1b\[31mERROR Impossible de se connecter.*\.\x1b\[0m\r\n$")

    def test_a_name_that_is_none_exits_1(self):
        for host in ("", "a..b", "x" * 70, "no.such.host.invalid", "\033[31m", "*", "１２７.0.0.1",
                     "::１", "\u200blocalhost", "local host", "[localhost]", "localhost\n"):
            shown = client.printable(host)
            self.refused(["-H", host, "-p", "2000", "meo"],
                         f"ERROR Impossible de se connecter au serveur {shown} sur le port 2000.")

    def test_a_refusal_is_not_coloured_because_standard_output_is_a_terminal(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        with subprocess.Popen(command("client", ["--nope"]), cwd=self.folder, stdout=slave,
                              stderr=subprocess.PIPE, env=environment(TERM="xterm")) as popen:
            os.close(slave)
            self.assertNotIn(b"\033", popen.communicate(timeout=PATIENCE)[1])

    def test_a_message_that_is_refused_exits_1_before_connecting(self):
        connected = []
        port = str(self.fake(connected.append))
        missing = "Une erreur est survenue: Le message doit contenir le mot 'waf' ou 'meo'."
        self.assertEqual(self.refused(["-p", port, "bonjour"], missing), "")
        self.assertEqual(self.refused(["-p", port, ""], missing), "")
        for message, cause in (("meo" * 400, "dépasser 1024 octets en UTF-8"),
                               ("meo\nwaf", "contenir de retour à la ligne")):
            self.refused(["-p", port, message],
                         f"Une erreur est survenue: Le message ne doit pas {cause}.")
        self.assertEqual(connected, [])
        socket.create_connection(("127.0.0.1", int(port))).close()  # ends the fake server

    def test_a_message_typed_that_is_refused_exits_1(self):
        for typed in (b"bonjour\n", b"\n"):
            port = self.fake(lambda connection: connection.recv(1024))
            self.refused(["-p", str(port)], "Une erreur est survenue: Le message doit "
                         "contenir le mot 'waf' ou 'meo'.", stdin=typed)

    def test_nothing_typed_exits_1(self):
        port = self.fake(lambda connection: connection.recv(1024))
        text = self.refused(["-p", str(port)], "Une erreur est survenue: rien n'a été saisi.")
        self.assertTrue(text.endswith(" : \n"))  # what the shell says next begins a line

    def test_what_cannot_be_decoded_exits_1(self):
        port = self.fake(lambda connection: connection.recv(1024))
        self.refused(["-p", str(port)], "Une erreur est survenue: la saisie n'est pas du texte en "
                     "utf-8.", stdin=b"meo \xff\n", PYTHONIOENCODING="utf-8:strict")

    def prompt(self, port):
        """Return a client (Popen) of the server at `port`, with pipes, once it asks."""
        argv = command("client", ["-p", str(port), "--log-file", "log"])
        popen = subprocess.Popen(argv, cwd=self.folder, stdin=subprocess.PIPE, env=environment(),
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        text, byte = b"", b" "
        while byte and not text.endswith(b"serveur : "):
            byte = popen.stdout.read(1)
            text += byte
        self.assertTrue(byte, "no prompt")
        return popen

    def interrupt(self, popen):
        """Send Ctrl-C to the client `popen` and check how it ends."""
        with popen:
            for _ in range(PATIENCE):  # input() loses one that comes while it flushes its prompt
                popen.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    popen.wait(1)
                    break
            self.assertEqual(popen.communicate(timeout=PATIENCE), (b"", b"\n"))
            self.assertEqual(popen.returncode, 130)

    def test_ctrl_c_exits_130_without_a_traceback(self):
        self.interrupt(self.prompt(self.fake(lambda connection: connection.recv(1024))))

    def test_ctrl_c_while_the_server_thinks_exits_130(self):
        asked, done = threading.Event(), threading.Event()

        def behave(connection):
            connection.recv(1024)
            asked.set()
            done.wait(PATIENCE)
        popen = self.prompt(self.fake(behave))
        self.addCleanup(done.set)
        popen.stdin.write(b"meo\n")
        popen.stdin.flush()
        self.assertTrue(asked.wait(PATIENCE))
        self.interrupt(popen)

    def leaving(self, *pieces, end=socket.socket.close):
        """Return how a client ends (as `run`) whose server says `pieces` and leaves at the prompt.

        `end(connection)` is how it leaves.
        """
        asked, left = threading.Event(), threading.Event()

        def behave(connection):
            asked.wait(PATIENCE)
            for piece in pieces:
                connection.sendall(piece)
            end(connection)
            left.set()
        popen = self.prompt(self.fake(behave))
        asked.set()
        self.assertTrue(left.wait(PATIENCE))
        with popen:
            output, console = popen.communicate(b"meo\n", PATIENCE)
        return popen.returncode, output.decode("utf-8"), console.decode("utf-8")

    left = "Une erreur est survenue: le serveur a fermé la connexion sans répondre.\n"

    def test_what_a_server_said_before_it_left_at_the_prompt_is_shown(self):
        said = "Le serveur a dit : Serveur plein.\n"
        self.assertEqual(self.leaving(b"Serveur ", b"plein.\n"), (1, said, self.left))
        self.assertEqual(self.leaving(b"Serveur ", b"plein.", end=reset), (
            1, said, f"Une erreur est survenue: {os.strerror(errno.ECONNRESET)}\n"))

    def test_a_greeting_is_shown_apart_and_is_not_the_reply(self):
        greeted = threading.Event()

        def behave(connection):
            connection.sendall("Bienvenue été !\r\n".encode())
            greeted.set()
            connection.recv(1024)
            time.sleep(0.3)  # a reply that comes later than the silence of the lab's clients
            connection.sendall(b"ok\n")
        popen = self.prompt(self.fake(behave))
        self.assertTrue(greeted.wait(PATIENCE))
        with popen:
            output, console = popen.communicate(b"meo\n", PATIENCE)
        self.assertEqual((popen.returncode, output.decode(), console), (
            0, "Le serveur a dit : Bienvenue été !\nLe serveur a répondu : ok\n", b""))
        self.assertIn('INFO Le serveur 127.0.0.1 a dit : "Bienvenue été !".\n',
                      self.read(os.path.join(self.folder, "log")))

    def test_a_server_that_left_at_the_prompt_without_a_word_exits_1(self):
        self.assertEqual(self.leaving(), (1, "", self.left))
        self.assertEqual(self.leaving(end=reset), (
            1, "", f"Une erreur est survenue: {os.strerror(errno.ECONNRESET)}\n"))

    def test_a_silent_server_exits_1(self):
        done = threading.Event()
        port = self.fake(lambda connection: done.wait(PATIENCE))
        self.addCleanup(done.set)
        self.refused(["-p", str(port), "-t", "0.3", "meo"],
                     "Une erreur est survenue: le serveur n'a pas répondu en 0.3 s.")

    def drip(self, connection):
        """Answer a byte each 0.02 s until the client is gone."""
        connection.recv(1024)
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    def test_a_server_that_drips_exits_1_after_the_timeout(self):
        # the second client's date is set back while it reads
        dates = ("import itertools, logging.handlers, time, types; "
                 "dates = itertools.chain([9e9, 0], iter(time.time, None)); "
                 "logging.makeLogRecord = lambda _: types.SimpleNamespace(created=next(dates))")
        for first in ("", dates):
            options = ["-p", str(self.fake(self.drip)), "-t", "0.25", "meo"]
            code, text, console = run(command("client", options, first=first), self.folder)
            self.assertEqual(code, 1)
            self.assertEqual(console, "Une erreur est survenue: le serveur n'a pas fini de "
                                      "répondre en 0.25 s.\n")
            self.assertRegex(text, "Le serveur a répondu : x+\n$")

    def test_a_date_that_is_set_forward_cuts_no_reply_short(self):
        def behave(connection):
            connection.recv(1024)
            for piece in (b"Meo", b" lent"):
                time.sleep(0.1)
                connection.sendall(piece)
        hours = ("import itertools, logging.handlers, types; hours = itertools.count(0, 3600); "
                 "logging.makeLogRecord = lambda _: types.SimpleNamespace(created=next(hours))")
        argv = command("client", ["-p", str(self.fake(behave)), "meo"], first=hours)
        code, text, _ = run(argv, self.folder)
        self.assertEqual((code, text.splitlines()[1:]), (0, ["Le serveur a répondu : Meo lent"]))

    def test_a_server_that_closes_without_a_word_exits_1(self):
        port = self.fake(lambda connection: connection.recv(1024))
        self.refused(["-p", str(port), "meo"],
                     "Une erreur est survenue: le serveur a fermé la connexion sans répondre.")

    def test_a_server_that_resets_exits_1(self):
        def behave(connection):
            connection.recv(1024)
            reset(connection)
        self.refused(["-p", str(self.fake(behave)), "meo"],
                     f"Une erreur est survenue: {os.strerror(errno.ECONNRESET)}")

    def test_a_reset_in_the_middle_of_a_reply_shows_its_beginning_and_exits_1(self):
        def behave(connection):
            connection.recv(1024)
            connection.sendall("Meo à".encode())
            reset(connection)
        text = self.refused(["-p", str(self.fake(behave)), "meo"], "Une erreur est survenue: "
                            "la réponse est peut-être incomplète "
                            f"({os.strerror(errno.ECONNRESET)}).")
        self.assertEqual(text.splitlines()[1:], ["Le serveur a répondu : Meo à"])

    def test_a_server_that_answers_and_never_closes_is_understood(self):
        done = threading.Event()

        def behave(connection):
            connection.recv(1024)
            connection.sendall("Meo à ".encode())
            connection.sendall(b"toi")
            done.wait(PATIENCE)
        port = self.fake(behave)
        self.addCleanup(done.set)
        code, text, console = self.client("-p", str(port), "-t", str(NEVER), "meo")
        self.assertEqual((code, console), (0, ""))
        self.assertEqual(text.splitlines()[-1], "Le serveur a répondu : Meo à toi")

    def test_a_reply_in_pieces_is_shown_whole(self):
        def behave(connection):
            connection.recv(1024)
            for byte in b"Meo a toi " * 6:  # a piece must not count for more time than it took
                connection.sendall(bytes([byte]))
                time.sleep(0.004)
        text = self.client("-p", str(self.fake(behave)), "-t", "5", "meo")[1]
        self.assertTrue(text.endswith("Le serveur a répondu : " + "Meo a toi " * 6 + "\n"), text)

    def test_a_reply_acts_on_no_screen_and_forges_no_line(self):
        def behave(connection):
            connection.recv(1024)
            connection.sendall(b"\x1b[2J\r\nfaux \xff\xe2\x80\xae")
        text = self.client("-p", str(self.fake(behave)), "meo")[1]
        shown = r"\x1b[2J\r\nfaux \xff\u202e"
        self.assertEqual(text.splitlines()[1:], ["Le serveur a répondu : " + shown])
        self.assertIn(f'reçue du serveur 127.0.0.1 : "{shown}".\n',
                      self.read(os.path.join(self.folder, "bs_client.log")))

    def test_of_a_reply_2000_bytes_are_shown_and_what_is_longer_is_cut(self):
        for size, end in ((2000, "x\n"), (2001, "x… (coupé)\n"), (1 << 22, "x… (coupé)\n")):
            def behave(connection, size=size):
                connection.recv(1024)
                connection.sendall(b"x" * size)
            code, text, _ = self.client("-p", str(self.fake(behave)), "meo")
            self.assertEqual((code, text.count("x")), (0, 2000))
            self.assertTrue(text.endswith(end))

    def test_one_line_end_at_the_end_is_not_shown(self):
        for said, shown in ((b"ok\n", "ok"), (b"ok\r\n", "ok"), (b"ok\n\n", r"ok\n"), (b"\n", ""),
                            (b"ok\r", r"ok\r")):
            def behave(connection, said=said):
                connection.recv(1024)
                connection.sendall(said)
            text = self.client("-p", str(self.fake(behave)), "meo")[1]
            self.assertEqual(text.splitlines()[1:], ["Le serveur a répondu : " + shown])
            self.assertTrue(self.read(os.path.join(self.folder, "bs_client.log")).endswith(
                f'"{shown}".\n'))

    def test_the_kernels_timeout_is_told_in_the_kernels_words(self):
        lost = """
import socket
class Lost(socket.socket):
    def recv(self, *args):
        if self.gettimeout():
            raise TimeoutError(110, "Connection timed out")
        raise BlockingIOError
socket.socket = Lost"""
        port = self.fake(lambda connection: connection.recv(1024))
        argv = command("client", ["-p", str(port), "meo"], first=lost)
        self.assertEqual(run(argv, self.folder)[::2], (
            1, "Une erreur est survenue: Connection timed out\n"))

    def test_a_connection_to_itself_is_none(self):
        itself = """
import socket
stock = socket.create_connection
def itself(address, timeout):
    connection = socket.socket()
    connection.bind(address)
    connection.connect(address)
    return connection
socket.create_connection = itself"""
        port = free_port()
        argv = command("client", ["-p", str(port), "meo"], first=itself)
        self.assertEqual(run(argv, self.folder), (
            1, "", "ERROR Impossible de se connecter au serveur 127.0.0.1 sur le port "
            f"{port}.\n"))

    def test_an_address_in_brackets_is_that_address(self):
        if has_ipv6():
            bs = self.serve("-l", "[::1]")
            code, text, _ = self.client("-H", "[::1]", "-p", str(bs.port), "meo")
            self.assertEqual(code, 0)
            self.assertIn(f"au serveur ::1 sur le port {bs.port}\n", text)

    def type(self, *keys, until=b""):
        """Return the bytes that a server gets of what is typed on a terminal, and the exit code.

        Each of `keys` (bytes) is typed once the one before is read.
        """
        got = []

        def behave(connection):
            got.append(connection.recv(2048))
            connection.sendall(b"ok")
        port = self.fake(behave)
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        argv = command("client", ["-p", str(port), "--log-file", "log"])
        errors = os.path.join(self.folder, "errors")
        with open(errors, "wb") as console, \
                subprocess.Popen(argv, cwd=self.folder, stdin=slave, stdout=slave, stderr=console,
                                 env=environment()) as popen:
            screen = b""
            while b"serveur : " not in screen:  # the question is on the terminal, 2>err or not
                screen += os.read(master, 4096)
            for piece in keys:
                os.write(master, piece)
                time.sleep(0.05)  # a Ctrl-D ends a read, or nothing
            os.close(slave)
            with contextlib.suppress(OSError):
                while os.read(master, 4096):
                    pass
            code = popen.wait(PATIENCE)
        self.assertEqual(self.read(errors), "")
        return code, b"".join(got)

    def test_what_is_typed_arrives_as_typed(self):
        for keys, sent in (((b"waf\n",), b"waf\n"), ((b"waf", b"\x04", b"\x04"), b"waf\n"),
                           ((b"waf!", b"\x04", b"\n"), b"waf!\n"), ((b"\x00waf\n",), b"\x00waf\n"),
                           ((b"w\x1b[Daf meo\n",), b"w\x1b[Daf meo\n")):
            self.assertEqual(self.type(*keys), (0, sent), keys)

    def test_what_comes_through_a_pipe_arrives_as_it_is_or_is_refused(self):
        long = "Une erreur est survenue: Le message ne doit pas dépasser 1024 octets en UTF-8.\n"
        for sent, got in ((b"waf", b"waf\n"), (b"waf\r\n", b"waf\n"), (b"waf\nmeo\n", b"waf\n"),
                          (b"\xef\xbb\xbfwaf\n", b"\xef\xbb\xbfwaf\n"), (b"\x00waf\n", b"\x00waf\n"),
                          (b"waf" + b"x" * 1021 + b"\n", b"waf" + b"x" * 1021),
                          (b"waf" + b"x" * 1022 + b"\n", long), (b"waf" * 999999, long)):
            heard = []
            port = self.fake(lambda connection, heard=heard: heard.append(connection.recv(2048)))
            code, _, console = self.client("-p", str(port), stdin=sent)
            self.assertEqual(code, 1)
            self.assertEqual(console if got is long else heard, got if got is long else [got])

    def test_a_line_without_end_is_refused_in_little_memory(self):
        port = self.fake(lambda connection: connection.recv(1024))
        argv = command("client", ["-p", str(port)],
                       first="from resource import *; setrlimit(RLIMIT_AS, (1 << 29, 1 << 29))")
        with open("/dev/zero", "rb") as zeros:
            process = subprocess.run(argv, cwd=self.folder, env=environment(), stdin=zeros,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     timeout=PATIENCE)
        self.assertEqual((process.returncode, process.stderr.decode()), (
            1, "Une erreur est survenue: Le message doit contenir le mot 'waf' ou 'meo'.\n"))

    def test_it_works_where_the_locale_is_ascii(self):
        port = self.serve().port
        code, text, console = self.client("-p", str(port), "é meo".encode(), LC_ALL="C",
                                          PYTHONIOENCODING="ascii")
        self.assertEqual((code, console), (0, ""))
        self.assertEqual(text.splitlines()[1:],
                         [r"Le serveur a r\xe9pondu : Meo \xe0 toi confr\xe8re."])
        code, text, _ = self.client("--help", PYTHONIOENCODING="ascii")
        self.assertEqual((code, "d\\xe9faut" in text), (0, True))

    def test_a_log_that_fails_is_no_concern_of_the_users(self):
        port = self.serve().port
        code, _, console = self.client("-p", str(port), "meo", "--log-file", "/dev/full")
        self.assertEqual((code, console), (0, ""))


class Surroundings(Scene):
    """No terminal, no standard stream, no UTF-8: each is somebody's host."""

    def shell(self, line, **changes):
        """Run `line` in sh, $server and $client being the scripts' commands; return as `run`."""
        names = {script: " ".join(command(script, [])) for script in ("server", "client")}
        return run(["sh", "-c", line], self.folder, **dict(names, **changes))

    def test_help_into_a_closed_pipe_is_no_traceback(self):
        for script in ("server", "client"):
            line = f"{{ ${script} --help; echo $? >code; }} | true; cat code"
            self.assertEqual(self.shell(line), (0, "0\n", ""))
            for end in ("--help >&-", "--help >/dev/full", "--version >/dev/full"):
                self.assertEqual(self.shell(f"${script} {end}"), (0, "", ""))

    def test_a_reply_that_nobody_reads_exits_1(self):
        port = self.serve().port
        line = f"{{ $client -p {port} --log-file l meo; echo $? >code; }} | true; cat code"
        self.assertEqual(self.shell(line), (
            0, "1\n", f"Une erreur est survenue: {os.strerror(errno.EPIPE)}\n"))

    def test_a_refusal_without_standard_error_keeps_its_code(self):
        for line, code in (("$server -p 1", 2), ("$server --nope", 2), ("$server -l x", 3),
                           ("$client bonjour", 1), ("$client --nope", 2)):
            for console in ("2>&-", "2>/dev/full"):
                self.assertEqual(self.shell(f"{line} {console}"), (code, "", ""))

    def test_no_standard_input_exits_1(self):
        port = self.fake(lambda connection: connection.recv(1024))
        code, _, console = self.shell(f"$client -p {port} --log-file l <&-")
        self.assertEqual(code, 1)
        self.assertEqual(console, "Une erreur est survenue: il n'y a pas d'entrée où saisir un "
                                  "message.\n")

    def test_no_standard_error_at_the_prompt_is_no_matter(self):
        port = self.serve().port
        line = f"echo meo | $client -p {port} --log-file l 2>&-"
        code, text, _ = self.shell(line, PYTHONIOENCODING="utf-8")
        self.assertEqual((code, text.splitlines()[1:]), (
            0, ["Que veux-tu envoyer au serveur : Le serveur a répondu : Meo à toi confrère."]))

    def test_no_standard_output_exits_1_and_is_not_taken_for_the_input(self):
        for message in ("", "meo"):
            port = self.fake(lambda connection: connection.recv(1024))
            code, _, console = self.shell(f"$client -p {port} --log-file l {message} >&-")
            self.assertEqual(code, 1)
            self.assertEqual(console, "Une erreur est survenue: il n'y a pas de sortie où afficher "
                                      "la réponse.\n")

    def test_the_server_needs_no_standard_stream(self):
        port = free_port()
        line = f"exec $server -p {port} --log-file log <&- >&- 2>&-"
        names = environment(server=" ".join(command("server", [])))
        with subprocess.Popen(["sh", "-c", line], cwd=self.folder, env=names,
                              start_new_session=True) as popen:
            log = os.path.join(self.folder, "log")
            self.wait_for(lambda: os.path.exists(log) and "tourne sur" in self.read(log))
            Connection(port).send(b"meo\n").expect(MEO)
            self.wait_for(lambda: "Réponse envoyée" in self.read(log))
            popen.send_signal(signal.SIGINT)
            self.assertEqual(popen.wait(PATIENCE), 0)
        self.assertEqual(len(self.read(log).splitlines()), 6)

    def test_an_ascii_console_does_not_spoil_the_file(self):
        bs = self.serve(env=environment(PYTHONIOENCODING="ascii", LC_ALL="C"))
        bs.connect().send("é meo\n".encode()).expect(MEO)
        bs.expect_line(r"Meo \xe0 toi confr\xe8re.")
        bs.end()
        code, text, _ = run(command("server", ["--help"]), self.folder, PYTHONIOENCODING="ascii")
        self.assertEqual((code, "d\\xe9faut" in text), (0, True))
        self.assertIn('a envoyé "é meo".', self.read(self.log_file))

    def test_a_terminal_that_is_not_utf8_shows_and_takes_accents(self):
        bs = self.serve()
        argv = command("client", ["-p", str(bs.port), "--log-file", "l"])
        with subprocess.Popen(argv, cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=environment(PYTHONIOENCODING="latin-1")) as popen:
            text = popen.communicate("éte meo\n".encode("latin-1"), PATIENCE)[0].decode("latin-1")
        self.assertEqual(popen.returncode, 0)
        self.assertTrue(text.endswith("Le serveur a répondu : Meo à toi confrère.\n"))
        bs.expect_line('a envoyé "éte meo".')

    @unittest.skipIf(os.getuid() == 0, "root may write everywhere")
    def test_a_folder_that_is_read_only_leaves_the_console(self):
        os.chmod(self.folder, 0o500)
        port = free_port()
        argv = command("server", ["-p", str(port)], {"LOG_FILES": ("no/x", "bs_server.log")})
        self.start(argv, port).expect_line("WARN Aucun journal ne peut être ouvert")

    def test_nothing_is_wrong_for_a_strict_python(self):
        names = environment(PYTHONWARNINGS="error", PYTHONDEVMODE="1")
        bs = self.serve(env=names)
        code, _, console = self.client("-p", str(bs.port), "meo", **names)
        self.assertEqual((code, console), (0, ""))
        bs.expect_line("Réponse envoyée")
        bs.end()
        self.assertEqual(len(bs.lines), 2 + 3 + 1)
        for options, code in ((["-l", "192.0.2.1"], 4), (["--log-file", "no/x"], 5)):
            options += ["-p", str(free_port())]
            result = run(command("server", options), self.folder, **names)
            self.assertEqual((result[0], len(result[2].splitlines())), (code, 1))


# The card, and the figures


class Modules(Scene):
    """Five modules, one file each, and nothing borrowed through another."""

    allowed = frozenset(["socket", "re", "argparse", "sys", "logging.handlers"])

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
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    name = f"{node.value.id}.{node.attr}"
                    self.assertNotEqual(name, "sys.modules")
                    if node.value.id in {module.split(".")[0] for module in self.allowed}:
                        value = getattr(importlib.import_module(node.value.id), node.attr, None)
                        self.assertFalse(isinstance(value, types.ModuleType)
                                         and value is not logging.handlers, name)

    def test_a_copy_of_one_file_alone_in_an_empty_folder_works(self):
        for flags in (["-B"], ["-B", "-I", "-S"]):
            port = free_port()
            folders = {}
            for script in ("server.py", "client.py"):
                folders[script] = tempfile.mkdtemp(dir=self.folder)
                shutil.copy(os.path.join(HERE, script), folders[script])
            argv = [sys.executable, *flags, "server.py", "-p", str(port), "--log-file", "log"]
            bs = self.start(argv, port, folders["server.py"])
            bs.expect_line("Le serveur tourne sur")
            argv = [sys.executable, *flags, "client.py", "-p", str(port), "--log-file", "log",
                    "meo"]
            self.assertEqual(run(argv, folders["client.py"])[0], 0)
            bs.end()


class Figures(Scene):
    """What README states is what the scripts hold: neither changes without the other."""

    stated = (
        (server.PORT, 13337, "| `-p`, `--port` | 13337 | 1025 to 65535 |"),
        (server.PORT_MAX, 65535, "| 1 | the port is outside 0 to 65535 |"),
        (server.PRIVILEGED_MAX, 1024, "| 2 | the port is 0 to 1024; any other misuse |"),
        (server.LISTEN, "0.0.0.0", "| `-l`, `--listen` | `0.0.0.0` |"),
        (server.LOG_FILES, ("/var/log/bs_server/bs_server.log", "bs_server.log"),
         "| `--log-file` | `/var/log/bs_server/bs_server.log`, else `bs_server.log` here |"),
        (server.MESSAGE_MAX, 1024, "| the first 1024 bytes of a message count |"),
        (server.ENDLESS, 1024 * 1024, "| a client that sends more than 1 MiB is cut off"),
        (server.SILENCE, 0.2, "| 0.2 s of silence end a message that nothing else ends |"),
        (server.LINGER, 2.0, "| 2 s of silence after the reply, and the server closes |"),
        (server.PATIENCE, 5 * 60, "| five minutes for all of an exchange |"),
        (server.WAITING_MAX, 10000, "| 10,000 clients that wait"),
        (server.SOON, 0.001, "| a newcomer is looked at after 1 ms,"),
        (server.ROUND, 0.02, "from then on in rounds, one every 20 ms, of 200 looks,"),
        (server.LOOKS, 200, "from then on in rounds, one every 20 ms, of 200 looks,"),
        (server.LONELY, 60.0, "| nobody was connected for 60 s; again every minute |"),
        (server.WARN_EVERY, 1.0, "| there was no room; at most once a second |"),
        (server.LOG_BYTES, 10000, "Both log to a file of at most 10,000 bytes"),
        (server.LOG_BACKUPS, 1, "with one backup (`.1`)"),
        (client.LOG_BYTES, 10000, "Both log to a file of at most 10,000 bytes"),
        (client.LOG_BACKUPS, 1, "with one backup (`.1`)"),
        (client.HOST, "127.0.0.1", "| `-H`, `--host` | `127.0.0.1` |"),
        (client.PORT, 13337, "| `-p`, `--port` | 13337 | |"),
        (client.TIMEOUT, 10.0, "| `-t`, `--timeout` | 10 | seconds for the connection"),
        (client.TIMEOUT_MAX, 86400.0, "then for the whole reply; at most a day |"),
        (client.PORT_MAX, 65535, "| 1 | no connection; port outside 0 to 65535;"),
        (client.LOG_FILES, ("/var/log/bs_client/bs_client.log", "bs_client.log"),
         "| `--log-file` | `/var/log/bs_client/bs_client.log`, else `bs_client.log` here, else"),
        (client.MESSAGE_MAX, 1024, "be at most 1024 bytes long in UTF-8"),
        (client.REPLY_MAX, 2000, "| a reply of more than 2,000 bytes is cut by the client |"),
        (client.SILENCE, 0.5, "or at 0.5 s of silence for servers that answer and never close"),
    )

    def test_readme_and_the_scripts_state_the_same_figures(self):
        readme = self.read(os.path.join(HERE, "README.md"))
        for value, figure, sentence in self.stated:
            self.assertEqual(value, figure, sentence)
            self.assertIn(sentence, readme)

    def test_readme_has_the_replies(self):
        readme = self.read(os.path.join(HERE, "README.md"))
        for word, reply in zip(("`meo`", "else `waf`", "neither"), (MEO, WAF, HUMAN)):
            self.assertIn(f"| {word} | `{reply}` |", readme)

    def test_the_listener_asks_for_the_longest_queue_that_a_system_may_give(self):
        self.assertEqual(server.BACKLOG, 65535)


def setUpModule():
    """Heed Ctrl-C: a test run in the background ignores it, and so would the servers it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    raise_limit()


if __name__ == "__main__":
    unittest.main()
