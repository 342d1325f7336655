#!/usr/bin/env python3
"""bs server: one message in, one reply out, and no client makes another wait.

A program that talks to many people at once usually has threads (a slow client holds one each), or
asks the system who is ready (`select`). This one has neither, because the kernel can wait for it.
With TCP_DEFER_ACCEPT a connection stays in the kernel until its first byte is there: somebody who
sits at a prompt costs no descriptor, no memory and no turn of the loop. So the loop is: accept,
read what is there, answer, close. Whoever is not done (half a message, or a system that cannot
defer) is set aside with a non-blocking socket and looked at again, the more rarely the longer it is
silent; with nobody aside the listener sleeps in accept(). Read on: tcp(7), accept(2), and RFC 1288
(finger), an exchange of the same shape: connect, one line, one answer, close.
"""

import argparse
import logging.handlers
import re
import socket
import sys

VERSION = "1.0"

# The exchange
REPLIES = (  # the first word that the message contains decides; the empty one is in every message
    ("meo", "Meo à toi confrère."),
    ("waf", "ptdr t ki"),
    ("", "Mes respects humble humain."),
)
MESSAGE_MAX = 1024  # bytes that count: the notes' recv(1024)
ENDLESS = 1 << 20  # bytes (1 MiB) without an end: a thousand times what counts is no message
CHUNK = 1 << 16  # bytes a recv(2): about what loopback delivers in one segment
SILENCE = 0.2  # seconds that end a message which nothing else ends: longer than most round trips
LINGER = 2.0  # seconds of silence after the reply: what was still under way has arrived by then
MORE = getattr(socket, "MSG_MORE", 0)  # Linux: reply and end of stream in one segment, send(2)

# The loop
WAIT = 1.0  # seconds that one wait lasts at most: Windows delivers Ctrl-C only between waits
LONELY = 60.0  # seconds without a client before the log says so
BATCH = 64  # clients accepted in a row, some milliseconds, before those aside have their turn
SOON = 0.001  # seconds until a client set aside is looked at: what was under way is there by then
LATE = 0.05  # seconds between two looks at a silent client at most: nobody feels that
PATIENCE = 300.0  # seconds aside at most, speaking or not: time enough to look up what to type
ASIDE_MAX = 500  # clients: leaves half of the usual 1024 descriptors free
WARN_EVERY = 1.0  # seconds between two warnings that accept() fails: it would fail at once again

# The listener
LISTEN = "0.0.0.0"
PORT = 13337
PORT_MAX = 65535
PRIVILEGED_MAX = 1024  # as the notes count; the kernel's privileged ports end at 1023
BACKLOG = 4096  # connections that the kernel queues: Linux's own limit, net.core.somaxconn
DEFER = 60  # seconds that the kernel keeps a silent connection to itself
IPV4_MAPPED = re.compile(r"^::ffff:(?=\d+\.)")  # an IPv4 peer of an IPv6 socket: ipv6(7)

# The log
LOG_FILES = ("/var/log/bs_server/bs_server.log", "bs_server.log")  # the first that opens
LOG_BYTES = 10000  # that a file holds at most, with one backup: the notes' figures
LOG_BACKUPS = 1
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
LOG_DATE = "%Y-%m-%d %H:%M:%S"
LOG_MUTED = logging.CRITICAL + 1  # the level of an output that has failed: nothing reaches it
COLOURS = {  # the level's word in white, yellow, red: ECMA-48, SGR
    "INFO": "\033[37mINFO\033[0m", "WARN": "\033[33mWARN\033[0m", "ERROR": "\033[31mERROR\033[0m",
}


class ExitError(Exception):
    """The program cannot start; `args` are the text for the user (str) and the exit code (int)."""


def reply_to(message: str) -> str:
    """Return the reply to `message`, by the first word of REPLIES that it contains."""
    return next(reply for word, reply in REPLIES if word in message)


def printable(text: str) -> str:
    """Return `text`, every character escaped that could forge a line or act on a screen."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def endpoint(ip: str, port: int) -> str:
    """Return `ip` and `port` as one word, an IPv6 address in brackets (RFC 5952, section 6)."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


class Clock:
    """The seconds that pass, by the stamps that logging puts on its records, for want of `time`."""

    def __init__(self) -> None:
        """Start at 0 seconds."""
        self.now = 0.0
        self.stamp = logging.makeLogRecord({}).created

    def read(self) -> float:
        """Return the seconds that have passed.

        No wait outlasts WAIT: what steps further, or back, is the date that somebody has set.
        """
        stamp = logging.makeLogRecord({}).created
        self.now += min(max(stamp - self.stamp, 0.0), WAIT)
        self.stamp = stamp
        return self.now


class Client:
    """One client and its exchange: the message comes in, the reply goes out, the client closes."""

    def __init__(self, connection: socket.socket, ip: str, log: logging.Logger, now: float) -> None:
        """Take the accepted `connection`, its peer's `ip`, and the time in seconds."""
        connection.setblocking(False)
        self.connection = connection
        self.ip = ip
        self.log = log
        self.message = b""  # its first MESSAGE_MAX bytes
        self.received = 0  # bytes, those that do not count included
        self.line_ended = False  # a newline came
        self.half_closed = False  # its stream has ended
        self.answered = False
        self.set_aside(now)

    def set_aside(self, now: float) -> None:
        """Count the client's patience and silence from `now` (seconds), and look at it soon."""
        self.aside_at = self.heard_at = now
        self.due = now + SOON

    def advance(self, now: float) -> bool:
        """Carry the exchange as far as it goes without waiting; return True once it is over.

        `now` is in seconds. A client that stays silent is due ever more rarely.
        """
        try:
            if self.receive():
                self.heard_at = now
            silence = now - self.heard_at
            if not self.answered and self.message_ended(silence):
                self.answer()
            over = self.half_closed or self.is_cut_off(silence, now - self.aside_at)
        except OSError as error:  # reset, or gone before its reply
            self.log.debug("Le client %s a rompu : %s.", self.ip, error.strerror)
            over = True
        if over:
            self.connection.close()
        else:
            interval = min(max(silence / 2, SOON), LATE)
            self.due = now - now % interval + interval  # those who wait alike are due together
        return over

    def receive(self) -> bool:
        """Read all that is waiting and keep what counts; return True if anything came.

        Raises OSError if the client has reset the connection.
        """
        before = self.received
        while self.received <= ENDLESS:
            try:
                data = self.connection.recv(CHUNK)
            except BlockingIOError:
                break
            if not data:
                self.half_closed = True
                break
            self.received += len(data)
            if not self.line_ended:
                self.message = (self.message + data)[:MESSAGE_MAX]
                self.line_ended = b"\n" in data
        return self.received > before

    def message_ended(self, silence: float) -> bool:
        """Return True if the message is whole, `silence` seconds after its last byte.

        TCP carries a stream and knows no messages. One ends at a newline; at the end of the stream;
        at the word that no later byte can outdo, with nothing more waiting; and, for clients that
        end theirs with nothing at all, with some silence.
        """
        if self.line_ended:
            return True
        if self.received > ENDLESS or not self.received:
            return False
        return self.half_closed or REPLIES[0][0].encode() in self.message or silence >= SILENCE

    def answer(self) -> None:
        """Log the message, send the reply and log it. Raises OSError if the client is gone."""
        line = self.message.partition(b"\n")[0]
        if self.line_ended and line.endswith(b"\r"):
            line = line[:-1]
        message = line.decode("utf-8", "backslashreplace")
        reply = reply_to(message)
        self.log.info('Le client %s a envoyé "%s".', self.ip, printable(message))
        # To close under a client that still sends resets the connection, and the reply may be lost
        # with it (RFC 1122, 4.2.2.13). So it gets the end of our stream, and we await that of its.
        self.connection.sendall(reply.encode("utf-8"), MORE)
        self.connection.shutdown(socket.SHUT_WR)
        self.log.info('Réponse envoyée au client %s : "%s".', self.ip, reply)
        self.answered = True

    def is_cut_off(self, silence: float, age: float) -> bool:
        """Return True if the client sent too much, or `silence` or `age` (seconds) is too long."""
        endless, late = self.received > ENDLESS, age >= PATIENCE
        if self.answered:
            return endless or late or silence >= LINGER
        if endless:
            self.log.warning("Le client %s envoie sans fin : connexion coupée.", self.ip)
        elif late:
            self.log.warning("Le client %s tarde trop : connexion fermée.", self.ip)
        return endless or late


class Server:
    """The loop: accept clients, carry on their exchanges, set aside who is not done."""

    def __init__(self, listener: socket.socket, log: logging.Logger) -> None:
        """Take the listening socket. Raises OSError if there is no descriptor for two more."""
        self.listener = listener
        self.log = log
        self.clock = Clock()
        self.aside = []  # the clients that are not done, oldest first
        self.due = 0.0  # when to look at the first of them, in the clock's seconds
        self.warned_at = -WARN_EVERY  # when the log last said that accept() fails, likewise
        self.lonely = 0.0  # seconds waited since the last client
        self.napper, self.other_end = socket.socketpair()  # now: later no descriptor may be left

    def run(self) -> None:
        """Serve until KeyboardInterrupt: wait for a client, accept all who queue, look aside."""
        while True:
            wait = max(self.due - self.clock.now, SOON) if self.aside else WAIT
            self.listener.settimeout(wait)
            if self.accept():
                self.listener.setblocking(False)
                for _ in range(BATCH):
                    if not self.accept():
                        break
            if self.aside:
                self.look_aside()

    def accept(self) -> bool:
        """Accept a client and carry its exchange as far as it goes; return False if none came."""
        try:
            connection, address = self.listener.accept()
        except BlockingIOError:
            return False
        except socket.timeout:
            self.lonely += self.listener.gettimeout()
            if self.lonely >= LONELY:
                self.log.warning("Aucun client depuis plus de une minute.")
                self.lonely = 0.0
            return False
        except ConnectionAbortedError:
            return True  # the client left between the kernel's queue and accept(2)
        except OSError as error:
            self.make_room(error)
            return False
        self.lonely = 0.0
        # macOS accepts a connection that is already gone, with no address at all
        ip = IPV4_MAPPED.sub("", address[0]) if address else "inconnu"
        self.log.info("Un client %s s'est connecté.", ip)
        client = Client(connection, ip, self.log, self.clock.now)
        if not client.advance(self.clock.now):
            self.set_aside(client)
        return True

    def set_aside(self, client: Client) -> None:
        """Keep `client` to look at again, and let one go if that is one too many."""
        client.set_aside(self.clock.read())
        self.due = min(self.due, client.due) if self.aside else client.due
        self.aside.append(client)
        if len(self.aside) > ASIDE_MAX:
            gone = self.let_one_go()
            if not gone.answered:
                self.log.warning("Trop de clients en attente : %s est écarté.", gone.ip)

    def look_aside(self) -> None:
        """Carry on the exchanges of those set aside who are due."""
        now = self.clock.read()
        if now >= self.due:
            self.aside = [client for client in self.aside
                          if client.due > now or not client.advance(now)]
            self.due = min((client.due for client in self.aside), default=now)

    def let_one_go(self) -> Client:
        """Close and return one client of those aside: the oldest answered one, else the oldest."""
        gone = next((client for client in self.aside if client.answered), self.aside[0])
        self.aside.remove(gone)
        gone.connection.close()
        return gone

    def make_room(self, error: OSError) -> None:
        """Go on after accept() failed with `error`: most likely no descriptor is left."""
        now = self.clock.read()
        if now - self.warned_at >= WARN_EVERY:
            self.log.warning("Impossible d'accepter un client : %s.", error.strerror)
            self.warned_at = now
        if self.aside:
            self.let_one_go()
            return
        try:  # accept() would fail again at once: sleep, without `time`
            self.napper.settimeout(LATE)
            self.napper.recv(1)
        except socket.timeout:
            pass

    def close(self) -> None:
        """Close every socket."""
        connections = [client.connection for client in self.aside]
        for connection in [self.listener, self.napper, self.other_end, *connections]:
            connection.close()


def listen(ip: str, port: int) -> socket.socket:
    """Return a socket that listens on `ip`, IPv4 or IPv6, and `port`.

    Raises ExitError if `ip` is not an address, or if the system will not have us listen there, and
    OSError if it gives no such socket at all.
    """
    family = socket.AF_INET if re.match(r"[\d.]+$", ip) else socket.AF_INET6
    try:
        if family == socket.AF_INET:
            socket.inet_pton(family, ip)  # getaddrinfo(3) would take 1.2.3 for 1.2.0.3
        info = socket.getaddrinfo(ip, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        sentence = f"ERROR L'adresse spécifiée {printable(ip)} n'est pas une adresse IP valide."
        raise ExitError(sentence, 3) from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    if not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
        # A restarted server listens at once, although the kernel still holds connections of the
        # last one (socket(7)). Windows has both options, and takes this one for port sharing.
        wish(listener, "SOL_SOCKET", "SO_REUSEADDR", 1)
    wish(listener, "IPPROTO_TCP", "TCP_DEFER_ACCEPT", DEFER)  # else the silent are set aside
    if family == socket.AF_INET6:
        wish(listener, "IPPROTO_IPV6", "IPV6_V6ONLY", 0)  # else "::" is IPv6 alone
    try:
        listener.bind(info[0][4])
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        sentence = f"ERROR Impossible d'écouter sur {endpoint(ip, port)} : {error.strerror}."
        raise ExitError(sentence, 4) from None
    return listener


def wish(listener: socket.socket, level: str, option: str, value: int) -> None:
    """Set the socket `option`, by its name in `socket`, where the system has it."""
    try:
        listener.setsockopt(getattr(socket, level), getattr(socket, option), value)
    except (AttributeError, OSError):
        pass


class Line(logging.Formatter):
    """A record's line, and the date in it, each made once.

    Logging is most of what an exchange costs. Stock handlers ask for the line of a record three
    times (for the file's size, for the file, for the console), and the date changes once a second.
    """

    def __init__(self, words: dict) -> None:
        """Take the `words` to write instead of the levels' names."""
        super().__init__(LOG_FORMAT, LOG_DATE)
        self.words = words
        self.record = self.second = None

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`, without a newline."""
        if record is not self.record:
            if int(record.created) != self.second:
                self.second = int(record.created)
                self.date = self.formatTime(record, LOG_DATE)
            self.line = LOG_FORMAT % {
                "asctime": self.date,
                "levelname": self.words.get(record.levelname, record.levelname),
                "message": record.getMessage(),
            }
            self.record = record
        return self.line


class FailSafe:
    """What makes a handler's failure one line on the other output instead of a traceback a line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Mute this output and say why; the service goes on."""
        cause = sys.exc_info()[1]
        self.setLevel(LOG_MUTED)
        try:
            self.stream.close()  # or what is left in its buffer would fail again at exit
        except (AttributeError, OSError):
            pass
        cause = getattr(cause, "strerror", None) or cause
        logging.getLogger(__name__).warning("%s ne fonctionne plus : %s.", self.what, cause)


class Journal(FailSafe, logging.handlers.RotatingFileHandler):
    """The log file; neither it nor its backup grows past LOG_BYTES."""

    def __init__(self, path: str) -> None:
        """Open the file at `path` to append to. Raises OSError if that cannot be."""
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=LOG_BACKUPS, encoding="utf-8")
        self.what = f"Le journal {printable(self.baseFilename)}"

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """Return True if the line of `record` would make the file too large.

        Stock logging counts characters, and asks the file system about the path for every line.
        """
        size = self.stream.buffer.tell() if self.stream.seekable() else 0
        if not size:  # a device or a pipe, which has none, or an empty file: nothing to rotate
            return False
        line = self.format(record) + self.terminator
        return size + len(line.encode("utf-8")) > LOG_BYTES


class Console(FailSafe, logging.StreamHandler):
    """The log on standard error."""

    what = "La console"


def set_up(log: logging.Logger, path: "str | None", verbose: bool) -> None:
    """Give `log` its outputs: the file at `path` (None: see LOG_FILES) and standard error.

    `verbose` is for DEBUG lines. Raises ExitError if a `path` that was asked for does not open.
    """
    logging.addLevelName(logging.WARNING, "WARN")
    # What the format does not use need not be looked up: logging HOWTO, "Optimization"
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
    line = Line({})
    for candidate in LOG_FILES if path is None else [path]:
        try:
            journal = Journal(candidate)
        except OSError as error:
            cause = error.strerror
        else:
            journal.setFormatter(line)
            log.addHandler(journal)
            break
    if path is not None and not log.handlers:
        raise ExitError(f"ERROR Impossible d'ouvrir le journal {printable(path)} : {cause}.", 5)
    if sys.stderr:
        console = Console()
        console.setFormatter(Line(COLOURS) if sys.stderr.isatty() else line)
        log.addHandler(console)
        if len(log.handlers) == 1:
            log.warning("Aucun journal ne peut être ouvert : la console seule reçoit les lignes.")


class Parser(argparse.ArgumentParser):
    """An argparse parser whose help prints in any locale and whose misuse is an ExitError."""

    def print_help(self, file=None) -> None:
        """Print the help, whatever standard output can encode, as far as somebody reads it."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        text = self.format_help().encode(encoding, "backslashreplace").decode(encoding)
        try:
            print(text, end="", flush=True)
        except OSError:
            pass

    def error(self, message: str) -> None:
        """Raise ExitError with the usage and argparse's `message`."""
        raise ExitError(f"{self.format_usage()}{self.prog}: erreur: {message}", 2)


def parse(argv: "list | None") -> argparse.Namespace:
    """Return the options in `argv` (None: sys.argv). Raises ExitError on misuse."""
    parser = Parser(description="Serveur bs : un message, une réponse, et personne n'attend.",
                    add_help=False)
    add = parser.add_argument_group("options").add_argument
    add("-h", "--help", action="help", help="affiche cette aide et termine")
    add("-p", "--port", type=int, default=PORT, metavar="PORT",
        help="port d'écoute (défaut : %(default)s)")
    add("-l", "--listen", default=LISTEN, metavar="ADRESSE",
        help="adresse IPv4 ou IPv6 de cette machine où écouter (défaut : %(default)s)")
    add("--log-file", metavar="FICHIER",
        help="journal (défaut : {}, sinon {} dans le dossier courant)".format(*LOG_FILES))
    add("-v", "--verbosity", action="store_true", help="écrit aussi les lignes DEBUG")
    add("--version", action="version", version=f"%(prog)s {VERSION}",
        help="affiche la version et termine")
    args = parser.parse_args(argv)
    if not 0 <= args.port <= PORT_MAX:
        sentence = f"ERROR Le port spécifié n'est pas un port possible (de 0 à {PORT_MAX})."
        raise ExitError(sentence, 1)
    if args.port <= PRIVILEGED_MAX:
        sentence = ("ERROR Le port spécifié est un port privilégié. "
                    f"Spécifiez un port au dessus de {PRIVILEGED_MAX}.")
        raise ExitError(sentence, 2)
    return args


def main(argv: "list | None" = None) -> int:
    """Run the server with the options in `argv` (None: sys.argv).

    Returns the exit code: 0 after Ctrl-C, else one of the README's table.
    """
    log = logging.getLogger(__name__)
    try:
        args = parse(argv)
        server = Server(listen(args.listen, args.port), log)
        try:
            set_up(log, args.log_file, args.verbosity)
            log.info("Le serveur tourne sur %s", endpoint(args.listen, args.port))
            server.run()
        finally:
            server.close()
    except KeyboardInterrupt:
        log.info("Arrêt du serveur.")
        return 0
    except ExitError as refusal:
        sentence, code = refusal.args
    except OSError as error:  # no descriptor even to start with, or no IPv6 here
        sentence, code = f"ERROR Impossible de démarrer : {error.strerror}.", 4
    except SystemExit as end:  # argparse has printed the help or the version
        return end.code
    try:
        sys.stderr.write(f"{sentence}\n")
    except (AttributeError, OSError):
        pass  # nobody can read it there: the code says it
    return code


def leave(code: int) -> None:
    """Exit with `code`, without a word on an output that nobody reads any more (`| head`)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.close()
        except (AttributeError, OSError):
            pass
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
