#!/usr/bin/env python3
"""The promises of server.py and client.py, each a test on the real program over a real socket.

A test starts the script as a subprocess with a port and a folder of its own, and waits for what
happens (a line in the log, a reply, an exit), never for time to pass. Where time is the subject,
the script runs with the constant shrunk, or stretched so that it cannot be what ended the wait.
"""

import ast
import contextlib
import errno
import importlib
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
LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (DEBUG|INFO|WARN|ERROR) "


# Helpers


def command(script, options, constants=None, first=""):
    """Return the argv that runs `script` with `options`.

    With `constants` (dict) or the statements `first`, it is imported, given them, and main() run.
    """
    if constants is None and not first:
        return [sys.executable, os.path.join(HERE, script + ".py")] + list(options)
    lines = ["import sys", f"sys.path.insert(0, {HERE!r})", first, "import " + script]
    lines += ["{}.{} = {!r}".format(script, *item) for item in (constants or {}).items()]
    lines += [f"{script}.leave({script}.main())"]
    return [sys.executable, "-c", "\n".join(lines)] + list(options)


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


def limited(count):
    """Return the statements that limit a process to `count` descriptors, for `command`."""
    return f"from resource import *; setrlimit(RLIMIT_NOFILE, ({count}, {count}))"


def raise_limit():
    """Let this process have as many descriptors as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port():
    """Return a TCP port that nobody listens on, below those that connections are given."""
    while True:
        port = random.randrange(10000, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port


def dial(port, host="127.0.0.1"):
    """Return a socket connected to `port` that sends each piece at once, as its own segment."""
    connection = socket.create_connection((host, port), PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_all(connection):
    """Return what comes on `connection` (str) until its end, and close it."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode("utf-8")


def ask(port, message, host="127.0.0.1"):
    """Return the reply to `message` (bytes), sent as it is to `port`, without a half-close."""
    connection = dial(port, host)
    connection.sendall(message)
    return read_all(connection)


def reset(connection):
    """Close `connection` with a reset instead of the end of its stream: socket(7), SO_LINGER."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Process:
    """A running script whose standard error is collected line by line, as it comes."""

    def __init__(self, argv, folder, **options):
        """Start `argv` in `folder`."""
        options.setdefault("env", environment())
        self.popen = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL,
                                      stderr=subprocess.PIPE, **options)
        self.lines = []
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self.collect)
        self.reader.start()

    def collect(self):
        """Keep each line of standard error and tell who waits; None stands for its end."""
        with self.popen.stderr as console:
            for line in console:
                with self.news:
                    self.lines.append(line.decode("utf-8").rstrip("\n"))
                    self.news.notify_all()
        with self.news:
            self.lines.append(None)
            self.news.notify_all()

    def wait_for(self, text, count=1):
        """Return the lines that contain `text` once there are `count`, or once the process ends."""
        def there():
            return None in self.lines[-1:] or len(self.matching(text)) >= count
        with self.news:
            if not self.news.wait_for(there, PATIENCE):
                raise AssertionError(f"no {text!r} in {self.lines[-5:]}")
        return self.matching(text)

    def matching(self, text):
        """Return the lines so far that contain `text`."""
        return [line for line in self.lines if line is not None and text in line]

    def end(self, signum=signal.SIGINT):
        """Send `signum` if the process runs, wait for its end, and return its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signum)
        try:
            return self.popen.wait(PATIENCE)
        finally:
            self.popen.kill()
            self.reader.join(PATIENCE)


class Scene(unittest.TestCase):
    """A test with a folder of its own, and servers that must end well."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="bs-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.log_file = os.path.join(self.folder, "bs_server.log")

    def serve(self, *options, log_file=None, constants=None, first="", **popen):
        """Start a server on a free port and return its Process, `port` included, once it listens.

        `constants` are server.py's to set, `first` what runs before its import.
        """
        for _ in range(5):  # between free_port() and listen() somebody else may take the port
            port = free_port()
            argv = ["-p", str(port), "--log-file", log_file or self.log_file] + list(options)
            process = self.start(command("server", argv, constants, first), **popen)
            process.port = port
            if process.matching("Le serveur tourne sur"):
                return process
        raise AssertionError(f"the server does not start: {process.lines}")

    def start(self, argv, folder=None, **popen):
        """Run the server's `argv` and return its Process once it listens, or has ended."""
        process = Process(argv, folder or self.folder, **popen)
        self.addCleanup(self.check_end, process)
        process.wait_for("Le serveur tourne sur")
        return process

    def check_end(self, process):
        """End `process` with Ctrl-C if it runs; it must never have shown a traceback."""
        running = process.popen.poll() is None
        code = process.end()
        self.assertEqual(process.matching("Traceback"), [])
        if running:
            self.assertEqual(code, 0)

    def client(self, *options, stdin=b"", **changes):
        """Run client.py in the folder; return its exit code, standard output and error."""
        argv = ["--log-file", os.path.join(self.folder, "bs_client.log")] + list(options)
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

    def wait_for_line(self, path, text, count=1):
        """Return once the file `path` contains `text` so many times."""
        for _ in range(PATIENCE * 100):
            if os.path.exists(path) and self.read(path).count(text) >= count:
                return
            time.sleep(0.01)
        self.fail(f"no {text!r} in {path}")


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
        port = self.serve().port
        for message, reply in self.table:
            self.assertEqual(ask(port, message.encode() + b"\n"), reply, message)

    def test_bytes_that_are_not_utf8_do_not_hide_a_meo(self):
        process = self.serve()
        self.assertEqual(ask(process.port, b"\xff meo\n"), MEO)
        self.assertEqual(ask(process.port, b"\xff\n"), HUMAN)
        process.wait_for(r'a envoyé "\xff meo".')

    def test_only_the_first_1024_bytes_count(self):
        port = self.serve().port
        self.assertEqual(ask(port, b"x" * 1021 + b"meo\n"), MEO)
        self.assertEqual(ask(port, b"x" * 1022 + b"meo\n"), HUMAN)
        self.assertEqual(ask(port, b"meo" + b"x" * 60000 + b"\n"), MEO)
        self.assertEqual(ask(port, b"x" * 60000 + b"meo\n"), HUMAN)

    def test_what_follows_the_newline_does_not_count(self):
        process = self.serve()
        self.assertEqual(ask(process.port, b"bonjour\nmeo\n"), HUMAN)
        process.wait_for('a envoyé "bonjour".')

    def test_the_reply_arrives_although_the_client_still_sends(self):
        port = self.serve().port
        for first in (b"waf\n", b"meo"):
            connection = dial(port)
            connection.sendall(first)
            reply = connection.recv(1024)
            for _ in range(8):  # a connection closed under us would be reset by these
                connection.sendall(b"x" * 20000)
            connection.shutdown(socket.SHUT_WR)
            self.assertEqual((reply + read_all(connection).encode()).decode(),
                             WAF if b"waf" in first else MEO)


class MessageEnds(Scene):
    """A message may come in pieces, and has four ends; no cut changes the reply."""

    def pieces(self, process, *pieces, half_close=False):
        """Send `pieces` (bytes), the second once the first was read, and return the reply."""
        connection = dial(process.port)
        before = len(process.matching(CONNECTED))
        for piece in pieces:
            connection.sendall(piece)
            process.wait_for(CONNECTED, before + 1)  # a first byte is what gets a client accepted
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)

    def test_a_newline_ends_it_at_once(self):
        process = self.serve(constants={"SILENCE": NEVER})
        self.assertEqual(self.pieces(process, b"waf\n"), WAF)
        self.assertEqual(self.pieces(process, b"waf\r\n"), WAF)
        self.assertEqual(self.pieces(process, b"waf\r", b"\n"), WAF)
        self.assertEqual(len(process.wait_for('a envoyé "waf".', 3)), 3)

    def test_an_empty_line_is_a_message(self):
        process = self.serve(constants={"SILENCE": NEVER})
        self.assertEqual(self.pieces(process, b"\n"), HUMAN)
        self.assertEqual(self.pieces(process, b"\r\n"), HUMAN)
        self.assertEqual(len(process.wait_for('a envoyé "".', 2)), 2)

    def test_the_end_of_the_stream_ends_it_at_once(self):
        process = self.serve(constants={"SILENCE": NEVER})
        self.assertEqual(self.pieces(process, b"waf", half_close=True), WAF)
        self.assertEqual(self.pieces(process, b"w", b"a", b"f", half_close=True), WAF)

    def test_meo_ends_it_at_once(self):
        process = self.serve(constants={"SILENCE": NEVER})
        self.assertEqual(self.pieces(process, b"meo"), MEO)
        self.assertEqual(self.pieces(process, b"waf", b" m", b"eo"), MEO)

    def test_silence_ends_it(self):
        process = self.serve()
        self.assertEqual(self.pieces(process, b"waf"), WAF)
        self.assertEqual(self.pieces(process, b"bon", b"jour"), HUMAN)

    def test_a_message_cut_in_two_gets_the_reply_of_the_whole(self):
        process = self.serve(constants={"SILENCE": NEVER})
        for message, reply in ((b"waf\n", WAF), (b"waf meo\n", MEO), (b"a b\r\n", HUMAN)):
            for cut in range(1, len(message)):
                self.assertEqual(self.pieces(process, message[:cut], message[cut:]), reply)

    def test_a_newline_after_the_bytes_that_count_ends_it_too(self):
        process = self.serve(constants={"SILENCE": NEVER})
        self.assertEqual(self.pieces(process, b"waf" + b"x" * 3000, b"x" * 3000 + b"\n"), WAF)

    def test_a_client_that_leaves_without_a_byte_gets_nothing_and_one_line(self):
        process = self.serve()
        connection = dial(process.port)
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(read_all(connection), "")
        self.assertEqual(ask(process.port, b"waf\n"), WAF)
        process.wait_for("Réponse envoyée")
        self.assertEqual(len(process.lines), 1 + 1 + 3)

    def test_somebody_who_sits_at_the_prompt_is_answered_when_they_speak(self):
        process = self.serve(constants={"SILENCE": 0.01})
        connection = dial(process.port)
        self.assertEqual(ask(process.port, b"waf\n"), WAF)
        self.assertEqual(ask(process.port, b"waf"), WAF)  # some silences have gone by
        connection.sendall(b"meo\n")
        self.assertEqual(read_all(connection), MEO)


# The server's command line


class ServerExits(Scene):
    """Every row of the table of exit codes, with its sentence, and never a traceback."""

    def check(self, options, code, sentence):
        """Run the server with `options` and compare exit code and standard error."""
        result = run(command("server", options), self.folder)
        self.assertEqual((result[0], result[2].rstrip("\n")), (code, sentence), options)
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_port_outside_0_to_65535_exits_1(self):
        for port in ("-1", "65536", "99999999999999999999"):
            self.check(["-p", port], 1, "ERROR Le port spécifié n'est pas un port possible "
                                        "(de 0 à 65535).")

    def test_a_privileged_port_exits_2(self):
        for port in ("0", "80", "1024"):
            self.check(["--port", port], 2, "ERROR Le port spécifié est un port privilégié. "
                                            "Spécifiez un port au dessus de 1024.")

    def test_misuse_exits_2_with_the_usage(self):
        for options in (["-p", "abc"], ["-p", "13.5"], ["-p", ""], ["-p"], ["--nope"], ["x"]):
            code, _, console = run(command("server", options), self.folder)
            self.assertEqual(code, 2, options)
            self.assertTrue(console.startswith("usage: "), console)
            self.assertNotIn("Traceback", console)

    def test_what_is_not_an_ip_address_exits_3(self):
        for address in ("1.2.3", "localhost", "", "256.0.0.1", "1.2.3.4.5", ":::1", "::g", "a" * 99,
                        "1.2.3.4 ", "::1/64", "\033[31m"):
            shown = address.replace("\033", "\\x1b")
            sentence = f"ERROR L'adresse spécifiée {shown} n'est pas une adresse IP valide."
            self.check(["-l", address], 3, sentence)

    def test_an_address_of_another_machine_exits_4(self):
        self.check(["-l", "192.0.2.1"], 4, "ERROR Impossible d'écouter sur 192.0.2.1:13337 : "
                                           "Cannot assign requested address.")

    def test_a_port_that_is_taken_exits_4(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen(1)
            port = other.getsockname()[1]
            self.check(["-l", "127.0.0.1", "-p", str(port)], 4, "ERROR Impossible d'écouter sur "
                       f"127.0.0.1:{port} : Address already in use.")

    def test_too_few_descriptors_to_start_with_exit_4(self):
        argv = command("server", ["-p", str(free_port())], first=limited(5))
        self.assertEqual(run(argv, self.folder),
                         (4, "", "ERROR Impossible de démarrer : Too many open files.\n"))

    def test_a_log_file_that_does_not_open_exits_5(self):
        for path, cause in ((self.folder, "Is a directory"), ("no/x", "No such file or directory")):
            self.check(["-p", str(free_port()), "--log-file", path], 5,
                       f"ERROR Impossible d'ouvrir le journal {path} : {cause}.")

    def test_help_and_version_exit_0(self):
        code, text, _ = run(command("server", ["--help"]), self.folder, COLUMNS="80")
        self.assertEqual(code, 0)
        for option in ("--port", "--listen", "--log-file", "--verbosity", "--version", "13337"):
            self.assertIn(option, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        code, text, _ = run(command("server", ["--version"]), self.folder)
        self.assertEqual((code, text), (0, f"server.py {server.VERSION}\n"))

    def test_ctrl_c_exits_0_and_says_so(self):
        process = self.serve()
        self.assertEqual(process.end(signal.SIGINT), 0)
        self.assertRegex(process.matching("Arrêt")[0], LINE + r"Arrêt du serveur\.$")


# The server's log


class ServerLog(Scene):
    """Every event is one line, on the console and in the file."""

    def exchange(self):
        """Return a server's Process after one exchange, and that exchange's three messages."""
        process = self.serve()
        self.assertEqual(ask(process.port, b"meo\n"), MEO)
        process.wait_for("Réponse envoyée")
        return process, [
            f"Le serveur tourne sur 0.0.0.0:{process.port}", CONNECTED,
            'Le client 127.0.0.1 a envoyé "meo".',
            'Réponse envoyée au client 127.0.0.1 : "Meo à toi confrère.".',
        ]

    def test_an_exchange_is_three_info_lines_in_the_notes_format(self):
        process, messages = self.exchange()
        self.assertEqual([re.sub("^" + LINE, r"\1 ", line) for line in process.lines],
                         ["INFO " + message for message in messages])

    def test_the_file_holds_what_the_console_showed(self):
        process, _ = self.exchange()
        process.end()
        self.assertEqual(self.read(self.log_file).splitlines(), process.lines[:-1])
        self.assertIn("Arrêt du serveur.", process.lines[-2])

    def test_the_file_is_appended_to(self):
        with open(self.log_file, "w") as file:
            file.write("before\n")
        self.exchange()
        self.assertTrue(self.read(self.log_file).startswith("before\n2"))

    def test_only_verbosity_adds_debug_lines(self):
        for options, count in (((), 0), (("-v",), 1)):
            process = self.serve(*options)
            connection = dial(process.port)
            connection.sendall(b"wa")
            process.wait_for(CONNECTED)
            reset(connection)
            self.assertEqual(ask(process.port, b"waf"), WAF)  # its silence outlasts some turns
            self.assertEqual(len(process.matching(" DEBUG Le client 127.0.0.1 a rompu")), count)

    def test_the_file_rotates_at_10000_bytes_with_one_backup(self):
        process = self.serve()
        for number in range(150):
            self.assertEqual(ask(process.port, ("é" * (3 * number) + " meo\n").encode()), MEO)
            for name in os.listdir(self.folder):
                with contextlib.suppress(FileNotFoundError):  # renamed since it was listed
                    self.assertLessEqual(os.path.getsize(os.path.join(self.folder, name)), 10000)
        process.wait_for("Réponse envoyée", 150)
        process.end()
        self.assertEqual(sorted(os.listdir(self.folder)), ["bs_server.log", "bs_server.log.1"])
        kept = (self.read(self.log_file + ".1") + self.read(self.log_file)).splitlines()
        self.assertEqual(kept, process.lines[:-1][-len(kept):])
        self.assertGreater(os.path.getsize(self.log_file + ".1"), 9000)

    def test_a_message_forges_no_line_and_acts_on_no_screen(self):
        process = self.serve()
        evil = "\r2026-01-01 00:00:00 INFO faux\v\033[31m\x07\u202e\u2028\x85\x9b2J\u200b\t\ufeff"
        self.assertEqual(ask(process.port, evil.encode() + b"\n"), HUMAN)
        process.wait_for("Réponse envoyée")
        process.end()
        shown = (r"\r2026-01-01 00:00:00 INFO faux"
                 r"\x0b\x1b[31m\x07\u202e\u2028\x85\x9b2J\u200b\t\ufeff")
        for lines in (process.lines[:-1], self.read(self.log_file).splitlines()):
            self.assertEqual(len(lines), 5)
            self.assertTrue(lines[2].endswith(f'a envoyé "{shown}".'), lines[2])
            self.assertTrue("\n".join(lines).replace("\n", "").isprintable())

    def test_a_minute_without_a_client_is_said_and_said_again(self):
        process = self.serve(constants={"WAIT": 0.05, "LONELY": 0.1})
        lines = process.wait_for("Aucun client", 2)
        self.assertRegex(lines[0], LINE.replace("DEBUG|INFO|WARN|ERROR", "WARN")
                         + r"Aucun client depuis plus de une minute\.$")

    def test_the_default_file_falls_back_to_the_current_folder(self):
        port = str(free_port())
        here = os.path.join(self.folder, "bs_server.log")
        process = self.start(command("server", ["-p", port], {"LOG_FILES": ("no/x.log", here)}))
        self.assertIn("Le serveur tourne sur", self.read(here))
        self.assertEqual(process.matching("WARN"), [])
        self.assertEqual(server.LOG_FILES, ("/var/log/bs_server/bs_server.log", "bs_server.log"))

    def test_with_no_file_at_all_the_console_alone_gets_the_log_and_a_warning(self):
        port = free_port()
        process = self.start(command("server", ["-p", str(port)], {"LOG_FILES": ("no/x", "no/y")}))
        self.assertEqual(len(process.matching("WARN Aucun journal ne peut être ouvert")), 1)
        self.assertEqual(ask(port, b"meo\n"), MEO)
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_terminal_sees_the_levels_in_colour_and_the_file_does_not(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        port = str(free_port())
        argv = command("server", ["-p", port, "--log-file", self.log_file],
                       {"WAIT": 0.05, "LONELY": 0.1})
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


# No client makes another wait


class NobodyWaits(Scene):
    """Nothing that a client does or leaves undone holds up the next one."""

    def hold(self, count, port, first=b""):
        """Return `count` connections to `port` that have sent `first` and stay open."""
        held = []
        for number in range(count):
            # Another loopback address for each few hundred: local ports are counted per address
            connection = socket.create_connection(
                (f"127.0.{number // 500}.1", port), PATIENCE)
            self.addCleanup(connection.close)
            connection.sendall(first)
            held.append(connection)
        return held

    def check_gone(self, connection):
        """Check that the server has closed `connection`: a reset, if it had not read all."""
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(connection.recv(1), b"")

    def descriptors(self, process):
        """Return how many descriptors `process` has open."""
        return len(os.listdir(f"/proc/{process.popen.pid}/fd"))

    def cpu(self, process):
        """Return the seconds of processor time that `process` has used."""
        fields = self.read(f"/proc/{process.popen.pid}/stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def let_go(self, process):
        """Return how many the log of `process` says were let go."""
        return sum(int(re.search(r"attente : (\d+) écarté", line).group(1))
                   for line in process.matching("Trop de clients en attente"))

    def test_silent_connections_hold_up_nobody_and_are_served_when_they_speak(self):
        process = self.serve()
        silent = self.hold(500, process.port)
        process.wait_for("s'est connecté.", 500)
        for _ in range(50):
            self.assertEqual(ask(process.port, b"waf\n"), WAF)
        for connection in silent[::50]:
            connection.sendall(b"meo\n")
            self.assertEqual(read_all(connection), MEO)
        self.assertEqual(process.matching("WARN"), [])
        used = self.cpu(process)
        time.sleep(1)  # what looking costs is a share of time
        self.assertLess(self.cpu(process) - used, 0.3)

    def test_of_3000_half_sent_messages_the_oldest_are_let_go(self):
        process = self.serve(constants={"SILENCE": NEVER}, first=limited(1024))
        half_sent = self.hold(3000, process.port, b"wa")
        self.assertEqual(ask(process.port, b"meo\n"), MEO)
        self.check_gone(half_sent[0])
        half_sent[-1].sendall(b"f\n")
        self.assertEqual(read_all(half_sent[-1]), WAF)
        process.end()
        self.assertIn(self.let_go(process), range(3000 - 1024, 3000 - 1000))

    def test_a_host_can_push_out_only_its_own(self):
        process = self.serve(constants={"ASIDE_MAX": 20, "SILENCE": NEVER})
        honest = []
        for number in range(3):
            connection = socket.create_connection(("127.0.0.1", process.port), PATIENCE,
                                                  (f"127.0.2.{number}", 0))
            connection.sendall(b"un petit ")
            honest.append(connection)
        process.wait_for("Un client 127.0.2.", 3)
        hostile = self.hold(100, process.port)
        process.wait_for(CONNECTED, 100)
        self.check_gone(hostile[0])
        for connection in honest:
            connection.sendall(b"waf\n")
            self.assertEqual(read_all(connection), WAF)
        process.end()
        self.assertEqual(self.let_go(process), 100 + 3 - 20)
        self.assertEqual(len(process.matching("WARN")),
                         len(process.matching("dont 127.0.0.1.")))

    def test_clients_that_drip_are_each_answered_and_hold_up_nobody(self):
        process = self.serve(constants={"SILENCE": NEVER})
        dripping = self.hold(200, process.port)
        for byte in b"goutte":
            for connection in dripping:
                connection.sendall(bytes([byte]))
            self.assertEqual(ask(process.port, b"waf\n"), WAF)
        for connection in dripping:
            connection.sendall(b" waf\n")
        for connection in dripping:
            self.assertEqual(read_all(connection), WAF)
        self.assertEqual(len(process.wait_for('a envoyé "goutte waf".', 200)), 200)

    def test_a_stream_of_other_clients_does_not_put_off_the_end_of_a_message(self):
        process = self.serve()
        unterminated = dial(process.port)
        unterminated.sendall(b"waf")
        unterminated.settimeout(0.005)
        for _ in range(400):  # 0.2 s are some 40 of these; counting turns by clients takes 1280
            self.assertEqual(ask(process.port, b"meo\n"), MEO)
            with contextlib.suppress(socket.timeout):
                self.assertEqual(unterminated.recv(1024).decode(), WAF)
                break
        else:
            self.fail("no reply")
        unterminated.close()

    def test_resets_before_during_and_after_the_message_do_no_harm(self):
        process = self.serve("-v")
        for sent in (b"", b"wa", b"waf\n", b"waf\nwaf"):
            for _ in range(20):
                connection = dial(process.port)
                connection.sendall(sent)
                reset(connection)
            self.assertEqual(ask(process.port, b"meo\n"), MEO)
        self.assertEqual(process.matching("WARN"), [])

    def test_a_scan_is_one_line_at_most(self):
        process = self.serve()
        for _ in range(20):
            dial(process.port).close()
        self.assertEqual(ask(process.port, b"waf\n"), WAF)
        process.wait_for("Réponse envoyée")
        process.end()
        self.assertLessEqual(len(process.lines), 1 + 20 + 3 + 2)
        self.assertEqual(len(process.matching("a envoyé")), 1)

    def test_an_endless_sender_is_cut_off_without_a_reply(self):
        process = self.serve(constants={"SILENCE": NEVER})
        connection = dial(process.port)
        sent = 0
        with self.assertRaises(OSError):
            while sent < 64 << 20:  # what the kernel holds for both ends, and then some
                sent += connection.send(b"x" * 65536)
        connection.close()
        process.wait_for("WARN Le client 127.0.0.1 envoie sans fin : connexion coupée.")
        self.assertEqual(process.matching("a envoyé"), [])
        self.assertEqual(ask(process.port, b"meo\n"), MEO)

    def test_a_mebibyte_with_an_end_is_answered(self):
        process = self.serve(constants={"SILENCE": NEVER})
        self.assertEqual(ask(process.port, b"waf" + b"x" * ((1 << 20) - 4) + b"\n"), WAF)

    def test_nobody_stays_aside_longer_than_the_patience(self):
        process = self.serve(constants={"SILENCE": NEVER, "PATIENCE": 0.3})
        connection = dial(process.port)
        connection.settimeout(0.01)
        with contextlib.suppress(ConnectionError):
            for _ in range(PATIENCE * 20):
                connection.sendall(b"x")  # speaking does not help
                with contextlib.suppress(socket.timeout):
                    self.assertEqual(connection.recv(1), b"")
                    break
            else:
                self.fail("still connected")
        connection.close()
        process.wait_for("WARN Le client 127.0.0.1 tarde trop : connexion fermée.")

    def test_who_has_the_reply_and_goes_on_sending_is_let_go_after_the_patience(self):
        process = self.serve(constants={"PATIENCE": 1})
        connection = dial(process.port)
        connection.sendall(b"waf\n")
        self.assertEqual(connection.recv(1024).decode(), WAF)
        with self.assertRaises(ConnectionError):
            for _ in range(PATIENCE * 20):
                connection.sendall(b"x")
                time.sleep(0.01)
        connection.close()
        process.wait_for("WARN Le client 127.0.0.1 tarde trop : connexion fermée.")

    def test_who_has_the_reply_and_does_not_leave_is_let_go_without_a_word(self):
        process = self.serve(constants={"LINGER": 0.1})
        connection = dial(process.port)
        connection.sendall(b"waf\n")
        self.assertEqual(connection.recv(1024).decode(), WAF)
        held = self.descriptors(process)
        for _ in range(PATIENCE * 100):
            if self.descriptors(process) < held:
                break
            time.sleep(0.01)
        self.assertLess(self.descriptors(process), held)
        connection.close()
        self.assertEqual(process.matching("WARN"), [])

    def test_without_descriptors_the_oldest_is_let_go_and_the_log_is_not_flooded(self):
        process = self.serve(constants={"SILENCE": NEVER}, first=limited(12))
        half_sent = self.hold(50, process.port, b"wa")
        half_sent[-1].sendall(b"f\n")
        self.assertEqual(read_all(half_sent[-1]), WAF)
        self.check_gone(half_sent[0])
        self.assertEqual(ask(process.port, b"meo\n"), MEO)
        warnings = process.matching("WARN")
        self.assertIn("Impossible d'accepter un client : Too many open files.", warnings[0])
        self.assertLessEqual(len(warnings), len({line[:19] for line in warnings}) + 1)

    @unittest.skipUnless(hasattr(resource, "prlimit"), "no prlimit(2)")
    def test_without_any_descriptor_it_waits_and_serves_again_when_there_is_one(self):
        process = self.serve()
        pid, limits = process.popen.pid, resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        waiting = self.hold(3, process.port, b"meo\n")
        process.wait_for("WARN Impossible d'accepter un client : Too many open files.")
        used = self.cpu(process)
        process.wait_for("WARN Impossible d'accepter un client", 3)  # two seconds later
        self.assertLess(self.cpu(process) - used, 0.2)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        for connection in waiting:
            self.assertEqual(read_all(connection), MEO)

    def test_it_sleeps_while_nobody_is_aside(self):
        process = self.serve(constants={"WAIT": NEVER})
        for connection in self.hold(20, process.port):
            connection.close()
        self.assertEqual(ask(process.port, b"waf"), WAF)
        process.wait_for("Réponse envoyée")

        def switches():
            return re.findall(r"\nvoluntary_ctxt_switches:\s*(\d+)",
                              self.read(f"/proc/{process.popen.pid}/status"))
        for _ in range(PATIENCE):
            before = switches()
            time.sleep(0.2)  # polling would be seen as 4 switches at least
            if switches() == before:
                break
        else:
            self.fail("it polls")

    def test_killed_under_load_and_started_again_it_listens(self):
        process = self.serve()
        self.hold(50, process.port, b"wa")
        self.assertEqual(ask(process.port, b"meo\n"), MEO)
        process.end(signal.SIGKILL)
        argv = ["-p", str(process.port), "--log-file", self.log_file]
        again = self.start(command("server", argv))
        self.assertEqual(len(again.matching("Le serveur tourne sur")), 1)
        self.assertEqual(ask(process.port, b"meo\n"), MEO)

    def test_random_bytes_get_the_reply_that_the_rule_gives(self):
        random_ = random.Random(20261122)
        process = self.serve(constants={"SILENCE": NEVER})
        for _ in range(300):
            parts = [random_.choice([b"meo", b"waf", b"\r", b"\n", b"\xff", b"me", b"af", b"\x00",
                                     bytes(random_.getrandbits(8) for _ in range(50)),
                                     b"x" * random_.randrange(1200)])
                     for _ in range(random_.randrange(6))]
            message = b"".join(parts)
            counts = message.split(b"\n")[0][:1024].decode("utf-8", "replace")
            connection = dial(process.port)
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
            reply = MEO if "meo" in counts else WAF if "waf" in counts else HUMAN
            self.assertEqual(read_all(connection), reply if message else "", message)
        process.end()
        self.assertTrue(all(line.isprintable() for line in process.lines[:-1]))

    def test_thousands_of_exchanges_leave_three_lines_each_and_the_memory_flat(self):
        process = self.serve()

        def resident():
            return int(re.search(r"VmRSS:\s*(\d+)",
                                 self.read(f"/proc/{process.popen.pid}/status")).group(1))
        for number in range(3000):
            if number == 500:
                before = resident()
            message, reply = random.choice([("meo", MEO), ("waf", WAF), ("bof", HUMAN)])
            self.assertEqual(ask(process.port, message.encode() + b"\n"), reply)
        process.wait_for("Réponse envoyée", 3000)
        self.assertLess(resident(), 1.1 * before)
        process.end()
        self.assertEqual(len(process.matching(" INFO ")), 3 * 3000 + 2)
        self.assertEqual(len(process.lines), 3 * 3000 + 3)
        for path in (self.log_file, self.log_file + ".1"):
            self.assertLessEqual(os.path.getsize(path), 10000)


class Calls(unittest.TestCase):
    """What the kernel does rarely, or on other systems, and time that passes: called directly."""

    def server(self, *accepted):
        """Return a Server whose accept(2) gives, one after the other, what is `accepted`."""
        listener = unittest.mock.Mock()
        listener.accept.side_effect = accepted
        served = server.Server(listener, unittest.mock.Mock())
        self.addCleanup(served.close)
        return served

    def test_a_connection_that_was_aborted_is_passed_over(self):
        came = unittest.mock.Mock(), ("192.0.2.1", 1)
        served = self.server(ConnectionAbortedError(), came, BlockingIOError())
        self.assertEqual(served.accept(1), [came])

    def test_a_connection_without_an_address_is_a_client_too(self):
        ours, theirs = socket.socketpair()
        theirs.close()
        served = self.server()
        served.start(ours, None)
        served.log.info.assert_called_once_with("Un client %s s'est connecté.", "inconnu")

    def test_a_host_is_an_ipv4_address_or_the_64_first_bits_of_an_ipv6_one(self):
        def network(ip):
            return server.Client(None, ip, 0.0).network
        self.assertEqual(network("2001:db8::1"), network("2001:db8:0:0:ffff::2"))
        self.assertNotEqual(network("2001:db8::1"), network("2001:db8:0:1::1"))
        self.assertNotEqual(network("192.0.2.1"), network("192.0.2.2"))
        network("fe80::1%eth0")
        network("inconnu")

    def test_the_date_of_a_line_is_that_of_its_second(self):
        line, fields = server.Line({}), {"levelname": "INFO", "msg": "x"}
        for created, shown in ((0.9, ":00 INFO x"), (1.1, ":01 INFO x"), (61.0, ":01 INFO x")):
            record = logging.makeLogRecord(dict(fields, created=created))
            self.assertTrue(line.format(record).endswith(shown))
        self.assertRegex(line.format(record), r"^\d{4}-\d\d-\d\d \d\d:\d1:01 ")

    def test_a_date_that_somebody_sets_is_not_time_that_passes(self):
        with unittest.mock.patch.object(server.logging, "makeLogRecord") as stamp:
            stamp.return_value.created = 1000.0
            clock = server.Clock()
            for created, now in ((1000.5, 0.5), (5000.0, 1.5 + server.TURN),
                                 (10.0, 1.5 + server.TURN), (10.25, 1.75 + server.TURN)):
                stamp.return_value.created = created
                clock.read(1.0)
                self.assertEqual(clock.now, now)


class LogFailures(Scene):
    """A log that stops working is one WARN on the console, which from then on is the log."""

    def failing(self, process, path, cause, exchanges=100):
        """Check that `process` keeps every line of so many `exchanges`, and warns once."""
        for _ in range(exchanges):
            self.assertEqual(ask(process.port, b"meo\n"), MEO)
        process.wait_for("Réponse envoyée", exchanges)
        self.assertEqual(process.end(), 0)
        warnings = process.matching("WARN")
        self.assertEqual([line[20:] for line in warnings],
                         [f"WARN Le journal {path} ne fonctionne plus : {cause}."])
        self.assertEqual(len(process.lines), 3 * exchanges + 4)

    def test_a_full_disk(self):
        process = self.serve(log_file="/dev/full")
        self.failing(process, "/dev/full", "No space left on device")

    def test_a_folder_that_vanishes(self):
        folder = os.path.join(self.folder, "logs")
        os.mkdir(folder)
        path = os.path.join(folder, "bs.log")
        process = self.serve(log_file=path)
        shutil.rmtree(folder)
        self.failing(process, path, "No such file or directory")

    def test_a_rotation_that_is_refused(self):
        os.makedirs(self.log_file + ".1/x")
        process = self.serve()
        self.failing(process, self.log_file, "Is a directory")

    def test_a_device_is_never_rotated(self):
        os.symlink("/dev/null", self.log_file)  # a rotation would rename this, not the device
        process = self.serve(constants={"LOG_BYTES": 10})
        self.assertEqual(ask(process.port, b"meo\n"), MEO)
        process.wait_for("Réponse envoyée")
        process.end()
        self.assertEqual(process.matching("WARN"), [])
        self.assertEqual(len(process.matching(" INFO ")), 5)
        self.assertEqual(os.listdir(self.folder), ["bs_server.log"])
        self.assertTrue(os.path.islink(self.log_file))

    def test_ctrl_c_in_the_middle_of_a_rotation_is_an_end_as_any(self):
        steps = ("self.stream.close()", "self.stream = None", "os.rename(path, path + '.1')")
        for count in range(len(steps) + 1):
            log_file = f"{self.log_file}.{count}"
            done = "; ".join(steps[:count])
            process = self.serve(log_file=log_file, constants={"LOG_BYTES": 100}, first=f"""
import logging.handlers, os
stock = logging.handlers.RotatingFileHandler.doRollover
def interrupted(self):
    path = self.baseFilename
    {done or "pass"}
    logging.handlers.RotatingFileHandler.doRollover = stock
    raise KeyboardInterrupt
logging.handlers.RotatingFileHandler.doRollover = interrupted""")
            with contextlib.suppress(ConnectionError):
                ask(process.port, b"meo\n")
            self.assertEqual(process.popen.wait(PATIENCE), 0)
            process.end()
            self.assertEqual(process.matching("WARN"), [])
            self.assertIn("Arrêt du serveur.\n", self.read(log_file))
            self.assertLessEqual(os.path.getsize(log_file), 100)

    @unittest.skipIf(sys.version_info < (3, 7), "open() to append seeks, which no pipe can")
    def test_a_pipe_as_the_log_gets_every_line(self):
        reader, writer = os.pipe()
        path = f"/dev/fd/{writer}"
        process = self.serve(log_file=path, pass_fds=[writer])
        os.close(writer)
        self.assertEqual(ask(process.port, b"meo\n"), MEO)
        process.wait_for("Réponse envoyée")
        process.end()
        with open(reader, encoding="utf-8") as file:
            self.assertEqual(file.read().splitlines(), process.lines[:-1])

    def test_a_console_that_nobody_reads_any_more(self):
        reader, writer = os.pipe()
        port = str(free_port())
        argv = command("server", ["-p", port, "--log-file", self.log_file])
        with subprocess.Popen(argv, cwd=self.folder, stderr=writer, env=environment()) as popen:
            os.close(writer)
            with open(reader, encoding="utf-8") as console:
                self.assertIn("Le serveur tourne sur", console.readline())
            for _ in range(3):
                self.assertEqual(ask(port, b"meo\n"), MEO)
            self.wait_for_line(self.log_file, "Réponse envoyée", 3)
            popen.send_signal(signal.SIGINT)
            self.assertEqual(popen.wait(PATIENCE), 0)
        lines = [line[20:] for line in self.read(self.log_file).splitlines()]
        self.assertEqual(lines.count("WARN La console ne fonctionne plus : Broken pipe."), 1)
        self.assertEqual(len(lines), 1 + 1 + 9 + 1)


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

    def test_the_log_and_its_backup_hold_10000_bytes_each_whatever_the_server_says(self):
        def behave(connection):
            connection.recv(1024)
            connection.sendall(b"\xff" * 70000)
        log = os.path.join(self.folder, "bs_client.log")
        for size in (0, 9700, 9990, 10000, 30000):  # bytes of a log that is there already
            with open(log, "w", encoding="utf-8") as file:
                file.write("é" * (size // 2))
            port = str(self.fake(behave))
            self.assertEqual(self.client("-p", port, "meo" + "é" * 500)[0], 0)
            sizes = [os.path.getsize(path) for path in (log, log + ".1") if os.path.exists(path)]
            self.assertLessEqual(max(sizes), 10000, size)
            last = self.read(log).splitlines()[-1]
            self.assertRegex(last, r'Réponse reçue du serveur 127.0.0.1 : "(\\xff)+.*… \(coupé\)$')
            self.assertLessEqual(len(last.encode()), 5000)
            lines = self.read(log) + (self.read(log + ".1") if len(sizes) == 2 else "")
            self.assertEqual(lines.count("Message envoyé"), 1, size)
            with contextlib.suppress(OSError):
                os.remove(log + ".1")

    def test_verbosity_shows_the_log_on_the_console(self):
        port = self.serve().port
        code, _, console = self.client("-v", "-p", str(port), "meo")
        self.assertEqual((code, len(re.findall("(?m)^" + LINE, console))), (0, 3))

    def test_no_server_exits_1_and_is_logged(self):
        port = free_port()
        sentence = f"ERROR Impossible de se connecter au serveur 127.0.0.1 sur le port {port}."
        self.assertEqual(self.refused(["-p", str(port), "meo"], sentence), "")
        log = self.read(os.path.join(self.folder, "bs_client.log"))
        self.assertRegex(log, "^" + LINE + re.escape(sentence[len("ERROR "):]) + "\n$")
        console = self.client("-v", "-p", str(port), "meo")[2]
        self.assertIn(f"DEBUG Cause : {os.strerror(errno.ECONNREFUSED)}.", console)

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
        for host in ("", "a..b", "x" * 70, "no.such.host.invalid", "\033[31m"):
            shown = host.replace("\033", "\\x1b")
            self.refused(["-H", host, "-p", "2000", "meo"],
                         f"ERROR Impossible de se connecter au serveur {shown} sur le port 2000.")

    def test_a_port_outside_0_to_65535_exits_1(self):
        for port in ("-1", "65536"):
            self.refused(["-p", port, "meo"], "ERROR Le port spécifié n'est pas un port possible "
                                              "(de 0 à 65535).")

    def test_a_port_that_is_no_number_is_refused_in_french(self):
        for port, shown in (("x", "x"), ("1.5", "1.5"), ("", ""), ("\033[31m", "\\x1b[31m")):
            self.refused(["-p", port], "client.py: erreur: argument -p/--port: "
                         f"« {shown} » n'est pas un nombre entier", 2)

    def test_a_refusal_is_not_coloured_because_standard_output_is_a_terminal(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        with subprocess.Popen(command("client", ["--nope"]), cwd=self.folder, stdout=slave,
                              stderr=subprocess.PIPE, env=environment(TERM="xterm")) as popen:
            os.close(slave)
            self.assertNotIn(b"\033", popen.communicate(timeout=PATIENCE)[1])
        options = types.SimpleNamespace(port=1)
        with unittest.mock.patch.object(client.Parser, "parse_args", autospec=True,
                                        return_value=options) as parse_args:
            client.parse([])
        self.assertIs(parse_args.call_args[0][0].color, False)  # what Python 3.14 looks at

    def test_misuse_exits_2_with_the_usage(self):
        for options in (["-p", "x"], ["-t", "0"], ["-t", "-1"], ["-t", "nan"], ["-t", "inf"],
                        ["-t", "x"], ["-t", "1e99"], ["--nope"], ["meo", "waf"]):
            code, _, console = self.client(*options)
            self.assertEqual((code, console[:7]), (2, "usage: "), options)
            self.assertEqual(console.count("erreur: "), 1)

    def test_help_and_version_exit_0(self):
        code, text, _ = self.client("--help", COLUMNS="80")
        self.assertEqual(code, 0)
        for option in ("--host", "--port", "--timeout", "--log-file", "--verbosity", "127.0.0.1"):
            self.assertIn(option, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertEqual(self.client("--version")[:2], (0, f"client.py {client.VERSION}\n"))

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
        self.refused(["-p", str(port)], "Une erreur est survenue: rien n'a été saisi.")

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

    def test_what_a_server_said_before_it_left_at_the_prompt_is_shown(self):
        for end in (socket.socket.close, reset):
            self.assertEqual(self.leaving(b"Serveur ", b"plein.", end=end),
                             (0, "Le serveur a répondu : Serveur plein.\n", ""))

    def test_a_server_that_left_at_the_prompt_without_a_word_exits_1(self):
        for end in (socket.socket.close, reset):
            self.assertEqual(self.leaving(end=end), (
                1, "", "Une erreur est survenue: le serveur a fermé la connexion sans répondre.\n"))

    def test_a_silent_server_exits_1(self):
        done = threading.Event()
        port = self.fake(lambda connection: done.wait(PATIENCE))
        self.addCleanup(done.set)
        for seconds in ("0.1", "0.5"):  # less than the silence that ends a reply, and more
            self.refused(["-p", str(port), "-t", seconds, "meo"],
                         f"Une erreur est survenue: le serveur n'a pas répondu en {seconds} s.")

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
            options = ["-p", str(self.fake(self.drip)), "-t", "0.5", "meo"]
            code, text, console = run(command("client", options, first=first), self.folder)
            self.assertEqual(code, 1)
            self.assertEqual(console, "Une erreur est survenue: le serveur n'a pas fini de "
                                      "répondre en 0.5 s.\n")
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
        code, text, console = self.client("-p", str(port), "meo")
        self.assertEqual((code, console), (0, ""))
        self.assertEqual(text.splitlines()[-1], "Le serveur a répondu : Meo à toi")

    def test_a_reply_in_pieces_is_shown_whole(self):
        def behave(connection):
            connection.recv(1024)
            for byte in "Meo à toi".encode():
                connection.sendall(bytes([byte]))
        text = self.client("-p", str(self.fake(behave)), "meo")[1]
        self.assertTrue(text.endswith("Le serveur a répondu : Meo à toi\n"))

    def test_a_reply_acts_on_no_screen_and_forges_no_line(self):
        def behave(connection):
            connection.recv(1024)
            connection.sendall(b"\x1b[2J\r\nfaux \xff\xe2\x80\xae")
        text = self.client("-p", str(self.fake(behave)), "meo")[1]
        shown = r"\x1b[2J\r\nfaux \xff\u202e"
        self.assertEqual(text.splitlines()[1:], ["Le serveur a répondu : " + shown])
        self.assertIn(f'reçue du serveur 127.0.0.1 : "{shown}".\n',
                      self.read(os.path.join(self.folder, "bs_client.log")))

    def test_a_server_that_talks_without_end_is_cut_short(self):
        def behave(connection):
            connection.recv(1024)
            for _ in range(100):
                connection.sendall(b"x" * 65536)
        code, text, _ = self.client("-p", str(self.fake(behave)), "meo")
        self.assertEqual((code, text.count("x")), (0, 65536))
        self.assertTrue(text.endswith("x… (coupé)\n"))

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

    def test_a_log_file_that_does_not_open_exits_1(self):
        self.refused(["--log-file", "no/x", "meo"],
                     f"ERROR Impossible d'ouvrir le journal no/x : {os.strerror(errno.ENOENT)}.")


# Any host


def has_ipv6():
    """Return True if this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


@unittest.skipUnless(has_ipv6(), "no ::1")
class Addresses(Scene):
    """IPv4 and IPv6, by address and by name."""

    def test_ipv6_is_served_and_logged(self):
        process = self.serve("-l", "::1")
        self.assertIn(f"Le serveur tourne sur [::1]:{process.port}", process.lines[0])
        code, text, _ = self.client("-H", "::1", "-p", str(process.port), "meo")
        self.assertEqual(code, 0)
        self.assertIn(f"Connecté avec succès au serveur ::1 sur le port {process.port}\n", text)
        process.wait_for("Un client ::1 s'est connecté.")
        self.assertIn(f"Connexion réussie à [::1]:{process.port}.\n",
                      self.read(os.path.join(self.folder, "bs_client.log")))

    def test_one_socket_serves_both_and_logs_ipv4_as_ipv4(self):
        process = self.serve("-l", "::")
        for host in ("::1", "127.0.0.1"):
            self.assertEqual(ask(process.port, b"meo\n", host), MEO)
            process.wait_for(f"Un client {host} s'est connecté.")
            process.wait_for(f"Réponse envoyée au client {host} :")

    def test_one_ipv4_address_is_not_the_others(self):
        process = self.serve("-l", "127.0.0.2")
        self.assertEqual(ask(process.port, b"meo\n", "127.0.0.2"), MEO)
        with self.assertRaises(ConnectionRefusedError):
            dial(process.port)

    def test_localhost_finds_the_server_on_each_address_it_has(self):
        for info in socket.getaddrinfo("localhost", None, 0, socket.SOCK_STREAM):
            process = self.serve("-l", info[4][0])
            self.assertEqual(self.client("-H", "localhost", "-p", str(process.port), "meo")[0], 0)

    def test_an_ipv6_address_that_cannot_be_exits_4(self):
        code, _, console = run(command("server", ["-l", "2001:db8::1", "-p", "20000"]), self.folder)
        self.assertEqual(code, 4)
        self.assertEqual(console, "ERROR Impossible d'écouter sur [2001:db8::1]:20000 : "
                                  "Cannot assign requested address.\n")


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

    def test_no_standard_input_is_not_read(self):  # PyPy's input() would raise AttributeError
        port = self.fake(lambda connection: connection.recv(1024))
        argv = command("client", ["-p", str(port)], first="import builtins; builtins.input = None")
        line = "exec \"$@\" <&-"
        code, _, console = run(["sh", "-c", line, "sh"] + argv, self.folder)
        self.assertEqual((code, "pas d'entrée" in console), (1, True))

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
            self.wait_for_line(log, "Le serveur tourne sur")
            self.assertEqual(ask(port, b"meo\n"), MEO)
            self.wait_for_line(log, "Réponse envoyée")
            popen.send_signal(signal.SIGINT)
            self.assertEqual(popen.wait(PATIENCE), 0)
        self.assertEqual(len(self.read(log).splitlines()), 5)

    def test_an_ascii_console_does_not_spoil_the_file(self):
        process = self.serve(env=environment(PYTHONIOENCODING="ascii", LC_ALL="C"))
        self.assertEqual(ask(process.port, "é meo\n".encode()), MEO)
        process.wait_for(r"Meo \xe0 toi confr\xe8re.")
        process.end()
        code, text, _ = run(command("server", ["--help"]), self.folder, PYTHONIOENCODING="ascii")
        self.assertEqual((code, "d\\xe9faut" in text), (0, True))
        self.assertIn('a envoyé "é meo".', self.read(self.log_file))

    def test_a_terminal_that_is_not_utf8_shows_and_takes_accents(self):
        process = self.serve()
        argv = command("client", ["-p", str(process.port), "--log-file", "l"])
        with subprocess.Popen(argv, cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=environment(PYTHONIOENCODING="latin-1")) as popen:
            text = popen.communicate("éte meo\n".encode("latin-1"), PATIENCE)[0].decode("latin-1")
        self.assertEqual(popen.returncode, 0)
        self.assertTrue(text.endswith("Le serveur a répondu : Meo à toi confrère.\n"))
        process.wait_for('a envoyé "éte meo".')

    @unittest.skipIf(os.getuid() == 0, "root may write everywhere")
    def test_a_folder_that_is_read_only_leaves_the_console(self):
        os.chmod(self.folder, 0o500)
        process = self.start(command("server", ["-p", str(free_port())],
                                     {"LOG_FILES": ("no/x", "bs_server.log")}))
        self.assertEqual(len(process.matching("WARN Aucun journal ne peut être ouvert")), 1)

    def test_nothing_is_wrong_for_a_strict_python(self):
        names = environment(PYTHONWARNINGS="error", PYTHONDEVMODE="1")
        process = self.serve(env=names)
        code, _, console = self.client("-p", str(process.port), "meo", **names)
        self.assertEqual((code, console), (0, ""))
        process.wait_for("Réponse envoyée")
        process.end()
        self.assertEqual(len(process.lines), 1 + 3 + 1 + 1)
        for options, code in ((["-l", "192.0.2.1"], 4), (["--log-file", "no/x"], 5)):
            options += ["-p", str(free_port())]
            result = run(command("server", options), self.folder, **names)
            self.assertEqual((result[0], len(result[2].splitlines())), (code, 1))


# The card


class Card(Scene):
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
            port = str(free_port())
            for script in ("server.py", "client.py"):
                os.mkdir(os.path.join(self.folder, script[0]))
                shutil.copy(os.path.join(HERE, script), os.path.join(self.folder, script[0]))
            argv = [sys.executable] + flags + ["server.py", "-p", port, "--log-file", "log"]
            process = self.start(argv, os.path.join(self.folder, "s"))
            argv = [sys.executable] + flags + ["client.py", "-p", port, "--log-file", "log", "meo"]
            self.assertEqual(run(argv, os.path.join(self.folder, "c"))[0], 0)
            process.end()
            shutil.rmtree(os.path.join(self.folder, "s"))
            shutil.rmtree(os.path.join(self.folder, "c"))


def setUpModule():
    """Heed Ctrl-C: a test run in the background ignores it, and so would the servers it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    raise_limit()


if __name__ == "__main__":
    setUpModule()
    unittest.main()
