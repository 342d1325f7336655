#!/usr/bin/env python3
"""bs server: one message in, one reply out, and no client makes another wait.

A program that talks to many people at once usually has threads (a slow client holds one each) or
asks the system who is ready (`select`). Here neither is needed: a client is a generator that never
waits. `exchange` reads from top to bottom what happens to one; where nothing has come to be read it
yields, and the loop, `Server.run`, turns to the others: those set aside who are due, then those
who have just connected. The longer a client is silent the more rarely it is looked at, and no
address may use more than its share of the looks, so that looking costs a bounded part of the time
and no host can take another's. Between two turns the loop sleeps in accept(). Read on: tcp(7),
accept(2), and RFC 1288 (finger), an exchange of the same shape: connect, one line, one answer,
close.
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
LONELY = 60.0  # seconds without a client before the log says so: its sentence speaks of a minute
BATCH = 32  # clients accepted and begun, some milliseconds, before those aside have their turn
TURN = 0.02  # seconds a turn may take beside its wait: a longer step of the date is none of time
SOON = 0.001  # seconds until a client set aside is looked at: what was under way is there by then
LATE = 0.02  # seconds between two looks at a silent client: nobody feels that
LOOKS = 10000  # a second, shared among the addresses: less than a tenth of a processor
SLOT = 0.001  # seconds: clients due in the same slot are looked at together
GRID = 25  # slots rounded to one where a look can wait: to wake up costs more than to look
PATIENCE = 300.0  # seconds a client may take for all of it: time enough to look up what to type
ASIDE_MAX = 10000  # clients, where the descriptors suffice: some 20 MB
WARN_EVERY = 1.0  # seconds between two such warnings: a flood of clients shall not be one of lines

# The listener
LISTEN = "0.0.0.0"  # every IPv4 address of this machine
PORT = 13337  # the lab's
PORT_MAX = 65535
PRIVILEGED_MAX = 1024  # as the notes count; the kernel's privileged ports end at 1023
BACKLOG = 65535  # connections that the kernel queues; each system cuts it to its own limit
IPV4_MAPPED = re.compile(r"^::ffff:(?=\d+\.)")  # an IPv4 peer of an IPv6 socket: ipv6(7)

# The log
LOG_FILES = ("/var/log/bs_server/bs_server.log", "bs_server.log")  # the first that opens
LOG_BYTES = 10000  # that a file holds at most, with one backup: the notes' figures
LOG_BACKUPS = 1
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
LOG_DATE = "%Y-%m-%d %H:%M:%S"
LOG_MUTED = logging.CRITICAL + 1  # the level of an output that has failed: nothing reaches it
COLOURS = {"INFO": "\033[37mINFO\033[0m", "WARN": "\033[33mWARN\033[0m"}  # ECMA-48, SGR


def reply_to(message: str) -> str:
    """Return the reply to `message`, by the first word of REPLIES that it contains."""
    return next(reply for word, reply in REPLIES if word in message)


def exchange(connection: socket.socket, ip: str, clock: "Clock", log: logging.Logger):
    """Carry out the exchange with the client at `ip`, from its `connection` to its end.

    A generator: it yields for how many seconds it need not be resumed. However it ends, also where
    the loop closes it to hang up, it closes the connection.
    """
    try:
        connection.setblocking(False)
        log.info("Un client %s s'est connecté.", ip)
        line, received = yield from receive(connection, clock)
        if line is None:
            log.warning("Le client %s envoie sans fin : connexion coupée.", ip)
            return
        if not received:
            return  # it has left without a byte
        message = line.decode("utf-8", "backslashreplace")
        reply = reply_to(message)
        log.info('Le client %s a envoyé "%s".', ip, printable(message))
        # To close under a client that still sends resets the connection, and the reply may be lost
        # with it (RFC 1122, 4.2.2.13). So it gets the end of our stream, and we await that of its.
        connection.sendall(reply.encode("utf-8"), MORE)
        connection.shutdown(socket.SHUT_WR)
        log.info('Réponse envoyée au client %s : "%s".', ip, reply)
        while received <= ENDLESS:
            data = yield from read(connection, clock, LINGER)
            if not data:
                break
            received += len(data)
    except OSError as error:  # reset, or gone before its reply
        log.debug("Le client %s a rompu : %s.", ip, error.strerror)
    finally:
        connection.close()


def receive(connection: socket.socket, clock: "Clock"):
    """Return the message (bytes; None if ENDLESS is passed without its end), and the bytes so far.

    A generator as `exchange`. TCP carries a stream and knows no messages. One ends at the first of:
    a newline; the end of the stream; the word that no later byte can outdo, with nothing more
    waiting; and, for clients that end theirs with nothing at all, some silence. Raises OSError if
    the client resets the connection.
    """
    line, received, silence = b"", 0, PATIENCE  # which the loop ends first: who says nothing waits
    while received <= ENDLESS:
        # Who has only just come is about to speak: it asks to be resumed at once
        data = yield from read(connection, clock, silence, SOON if received else 0.0)
        if not data:
            return line[:MESSAGE_MAX], received
        received += len(data)
        line, newline, _ = (line + data).partition(b"\n")
        if newline:
            return (line[:-1] if line.endswith(b"\r") else line)[:MESSAGE_MAX], received
        line = line[:MESSAGE_MAX + 1]  # one more, or a \r that is last by the cut alone would go
        silence = 0.0 if REPLIES[0][0].encode() in line[:MESSAGE_MAX] else SILENCE
    return None, received


def read(connection: socket.socket, clock: "Clock", silence: float, rest: float = SOON):
    """Return the bytes that come next, none at the end of the stream; None after `silence` seconds.

    A generator as `exchange`: it asks to be resumed in `rest` seconds, then ever more rarely.
    Raises OSError if the client resets the connection.
    """
    since = clock.now
    while True:
        try:
            return connection.recv(CHUNK)
        except BlockingIOError:
            pass
        if clock.now - since >= silence:
            return None
        yield rest
        rest = min(max(2 * rest, SOON), LATE)


class Server:
    """The loop: accept clients, carry on their exchanges, set aside who is not done."""

    def __init__(self, listener: socket.socket, log: logging.Logger) -> None:
        """Take the listening socket and the log. Raises OSError if no two descriptors are left."""
        self.listener = listener
        self.log = log
        self.clock = Clock()
        self.aside = Aside()
        self.last_client = 0.0  # when there last was one, in the clock's seconds
        self.failure = None  # of accept(2), that the log has not said yet
        self.let_go = []  # the addresses of those let go that the log has not said yet
        self.warned = -WARN_EVERY  # when the log last said either, in the clock's seconds
        self.idle, self.idle_peer = socket.socketpair()  # now: later no descriptor may be left

    def run(self) -> None:
        """Serve until KeyboardInterrupt."""
        while True:
            wait = self.aside.wait(self.clock.now)
            self.listener.settimeout(wait)
            came = self.accept()
            self.clock.read(wait)
            for client in self.aside.due(self.clock.now):
                self.resume(client)
            self.listener.setblocking(False)
            count = 0
            while came:
                client = self.start(*came)
                count += 1
                came = self.accept() if count < BATCH else None
            if count == 1 and client:
                self.wait_for(client)
            self.report(count > 0)

    def accept(self) -> "tuple | None":
        """Return who has connected, as (socket, address), or None if nobody has.

        Where there is no room, one client aside is let go.
        """
        for _ in range(2):
            try:
                return self.listener.accept()
            except (BlockingIOError, socket.timeout):  # noqa: UP041  (3.6 knows no other name)
                return None
            except ConnectionAbortedError:
                return None  # it has left between the kernel's queue and accept(2)
            except OSError as error:  # no descriptor is left, or what else accept(2) passes on
                self.failure = error.strerror
                if not self.aside.count:
                    self.nap()
                    return None
                self.let_one_go()
        return None

    def nap(self) -> None:
        """Rest a moment: accept() would fail again at once, and there is no `time` to sleep."""
        self.idle.settimeout(LATE)
        try:
            self.idle.recv(1)
        except OSError:
            pass

    def start(self, connection: socket.socket, address: tuple) -> "Client | None":
        """Carry the exchange of a new client as far as it goes; return it if it is yet silent."""
        # macOS accepts a connection that is already gone, with no address at all
        ip = IPV4_MAPPED.sub("", address[0]) if address else "inconnu"
        steps = exchange(connection, ip, self.clock, self.log)
        rest = next(steps, None)
        if rest is None:
            return None
        client = Client(connection, steps, ip, self.clock.now + PATIENCE)
        self.aside.add(client)
        self.aside.schedule(client, rest)
        if self.aside.count > ASIDE_MAX:
            self.let_one_go()
        return client if rest == 0.0 else None

    def wait_for(self, client: "Client") -> None:
        """Wait SOON seconds for `client`, who came alone: it shall not be set aside for them."""
        client.connection.settimeout(SOON)
        try:
            client.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            pass  # silent as yet, or gone: its exchange will see
        client.connection.setblocking(False)
        self.resume(client)

    def resume(self, client: "Client") -> None:
        """Carry the exchange of `client`, who is due, as far as it goes."""
        if self.clock.now >= client.deadline:
            self.log.warning("Le client %s tarde trop : connexion fermée.", client.ip)
            client.exchange.close()
        rest = next(client.exchange, None)  # None once it is over, or closed
        if rest is None:
            self.aside.remove(client)
        else:
            self.aside.schedule(client, rest)

    def let_one_go(self) -> None:
        """Hang up on one client aside, of the network that has the most: no other shall pay."""
        client = self.aside.oldest_of_most()
        self.aside.remove(client)
        client.exchange.close()
        self.let_go.append(client.ip)

    def report(self, came: bool) -> None:
        """Say what is to be said, none of it too often; `came` is whether somebody connected."""
        now = self.clock.now
        if came or self.aside.count:
            self.last_client = now
        elif now - self.last_client >= LONELY:
            self.log.warning("Aucun client depuis plus de une minute.")
            self.last_client = now
        if (self.failure or self.let_go) and now - self.warned >= WARN_EVERY:
            self.warn()
            self.warned = now

    def warn(self) -> None:
        """Say why accept(2) failed and how many were let go since this was last said."""
        if self.failure:
            self.log.warning("Impossible d'accepter un client : %s.", self.failure)
        if self.let_go:
            count = len(self.let_go)
            self.log.warning("Trop de clients en attente : %d écarté%s, dont %s.",
                             count, "s" * (count > 1), self.let_go[-1])
        self.failure, self.let_go = None, []

    def close(self) -> None:
        """Log what is held back, and close every socket."""
        self.warn()
        for clients in self.aside.networks.values():
            for client in clients:
                client.exchange.close()
        for connection in (self.listener, self.idle, self.idle_peer):
            connection.close()


class Client:
    """A client that the loop carries on: its exchange, and what decides when it is looked at."""

    # There may be ten thousand
    __slots__ = ("connection", "deadline", "exchange", "ip", "network", "slot")

    def __init__(self, connection: socket.socket, exchange, ip: str, deadline: float) -> None:
        """Take the socket, the generator, the address, and when the patience ends (seconds)."""
        self.connection = connection
        self.exchange = exchange
        self.ip = ip
        # What one host has at its disposal: an IPv4 address, or the /64 of an IPv6 one (RFC 6177)
        self.network = (socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])[:8]
                        if ":" in ip else ip)
        self.deadline = deadline
        self.slot = 0  # of time, in which it is due


class Aside:
    """The clients that are not done: by network, the oldest first, and by when they are due.

    No step goes through them all. The keys of a dict are a set that keeps its order.
    """

    def __init__(self) -> None:
        """Start with nobody."""
        self.count = 0
        self.networks = {}  # network: its clients, oldest first
        self.crowds = [{}]  # number: the networks that have so many clients aside, or more
        self.slots = {}  # slot of time: the clients due in it
        self.slot = 0  # the last one looked at

    def add(self, client: Client) -> None:
        """Count `client` in."""
        clients = self.networks.setdefault(client.network, {})
        clients[client] = None
        if len(clients) == len(self.crowds):
            self.crowds.append({})
        self.crowds[len(clients)][client.network] = None
        self.count += 1

    def remove(self, client: Client) -> None:
        """Count `client` out, and forget when it is due."""
        clients = self.networks[client.network]
        del self.crowds[len(clients)][client.network]
        if not self.crowds[-1]:
            self.crowds.pop()
        del clients[client]
        if not clients:
            del self.networks[client.network]
        self.count -= 1
        self.slots.get(client.slot, {}).pop(client, None)

    def oldest_of_most(self) -> Client:
        """Return the oldest client of the network that has the most."""
        network = next(iter(self.crowds[-1]))
        return next(iter(self.networks[network]))

    def schedule(self, client: Client, rest: float) -> None:
        """Let `client` be due in `rest` seconds, or when its network's looks allow it."""
        share = len(self.networks[client.network]) * len(self.networks) / LOOKS
        steps = int(max(rest, share, SLOT) / SLOT)
        grid = min(steps, GRID)
        waits = -(-steps // grid)  # rounded up; from the last line of the grid, so that who is late
        slot = (self.slot // grid + waits) * grid  # once is not late for ever
        self.slots.get(client.slot, {}).pop(client, None)
        client.slot = max(min(slot, int(client.deadline / SLOT)), self.slot + 1)
        self.slots.setdefault(client.slot, {})[client] = None

    def due(self, now: float) -> list:
        """Return the clients that are due by `now` (seconds), each to be scheduled or removed."""
        last, self.slot = self.slot, int(now / SLOT)
        passed = range(last + 1, self.slot + 1) if self.slots else ()
        return [client for slot in passed for client in self.slots.pop(slot, ())]

    def wait(self, now: float) -> float:
        """Return the seconds from `now` until somebody is due, at most WAIT."""
        if self.slots:  # else there is nothing to search for
            for slot in range(self.slot + 1, self.slot + int(WAIT / SLOT)):
                if slot in self.slots:
                    return max(slot * SLOT - now, 0.0)
        return WAIT


class Clock:
    """The seconds that pass, by the stamps that logging puts on its records, for want of `time`."""

    def __init__(self) -> None:
        """Start at 0 seconds."""
        self.now = 0.0
        self.stamp = logging.makeLogRecord({}).created

    def read(self, wait: float) -> None:
        """Set `now`, at the end of a turn of the loop that asked to wait for `wait` seconds.

        The stamp is a date. A step back counts for nothing, and one forward for no more than a turn
        can take: the date was set, or the process was stopped.
        """
        stamp = logging.makeLogRecord({}).created
        self.now += min(max(stamp - self.stamp, 0.0), wait + TURN)
        self.stamp = stamp


class ExitError(Exception):
    """The program cannot start; `args` are the text for the user (str) and the exit code (int)."""


def endpoint(ip: str, port: int) -> str:
    """Return `ip` and `port` as one word, an IPv6 address in brackets (RFC 5952, section 6)."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


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
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        try:  # or "::" is IPv6 alone, as it always is on OpenBSD: ipv6(7)
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        except OSError:
            pass
    try:
        listener.bind(info[0][4])
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        sentence = f"ERROR Impossible d'écouter sur {endpoint(ip, port)} : {error.strerror}."
        raise ExitError(sentence, 4) from None
    return listener


def printable(text: str) -> str:
    """Return `text`, every character escaped that could forge a line or act on a screen."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Line(logging.Formatter):
    """The line of a record, made once for all who ask, and its date once a second."""

    def __init__(self, words: dict) -> None:
        """Take the `words` to write instead of the levels' names."""
        super().__init__(LOG_FORMAT, LOG_DATE)
        self.words = words
        self.record = self.second = None

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`, without a newline."""
        if record is not self.record:
            if int(record.created) != self.second:
                self.date = self.formatTime(record, LOG_DATE)
                self.second = int(record.created)  # after it: Ctrl-C may come in between
            word = self.words.get(record.levelname, record.levelname)
            self.line = LOG_FORMAT % {"asctime": self.date, "levelname": word,
                                      "message": record.getMessage()}
            self.record = record
        return self.line


class Output:
    """What both handlers do otherwise than the stock ones, since logging is most of an exchange.

    A stock handler takes two locks a line, which one thread does not need, and shows a traceback a
    line when it fails. This one writes the line at once; if it fails, the other output says why,
    once, and the service goes on.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        """Write the line of `record`, or mute this output and say why; return True."""
        try:
            self.write(self.format(record) + self.terminator)
        except (OSError, ValueError) as error:
            self.setLevel(LOG_MUTED)
            try:
                self.stream.close()  # or what is left in its buffer would fail again at exit
            except (AttributeError, OSError):
                pass
            cause = getattr(error, "strerror", None) or error
            logging.getLogger(__name__).warning("%s ne fonctionne plus : %s.", self.what, cause)
        return True


class Journal(Output, logging.handlers.RotatingFileHandler):
    """The log file; neither it nor its backup grows past LOG_BYTES.

    A stock handler counts characters, and asks the file system about the file for every line.
    """

    def __init__(self, path: str) -> None:
        """Open the file at `path` to append to. Raises OSError if that cannot be."""
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=LOG_BACKUPS, encoding="utf-8")
        self.what = f"Le journal {printable(self.baseFilename)}"
        self.size = LOG_BYTES  # bytes in the file, as far as we know: the first line asks

    def write(self, line: str) -> None:
        """Append `line`, in a new file if this one is full. Raises OSError if that cannot be."""
        data = line.encode("utf-8")
        if self.size + len(data) > LOG_BYTES:
            self.make_room(len(data))
        self.size += len(data)
        self.stream.buffer.write(data)
        self.stream.buffer.flush()

    def make_room(self, count: int) -> None:
        """Rotate the file if it cannot take `count` bytes more. Raises OSError if it may not."""
        if self.stream is None or self.stream.closed:  # Ctrl-C has ended a rotation half-way
            self.stream = self._open()
        # A device and a pipe have no size, and must not be renamed
        self.size = self.stream.seek(0, 2) if self.stream.seekable() else 0
        if self.size and self.size + count > LOG_BYTES:
            self.size = LOG_BYTES  # should Ctrl-C come now
            self.doRollover()
            self.size = 0


class Console(Output, logging.StreamHandler):
    """The log on standard error."""

    what = "La console"

    def write(self, line: str) -> None:
        """Write `line`. Raises OSError if that cannot be."""
        self.stream.write(line)
        self.stream.flush()


def set_up(log: logging.Logger, path: "str | None", verbose: bool) -> None:
    """Give `log` its outputs: the file at `path` (None: see LOG_FILES) and standard error.

    `verbose` is for DEBUG lines. Raises ExitError if a `path` that was asked for does not open.
    """
    logging.addLevelName(logging.WARNING, "WARN")
    # What the format does not use need not be looked up: logging HOWTO, "Optimization"
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False  # or a handler of the root would write each line again
    line = Line({})
    for candidate in LOG_FILES if path is None else [path]:
        try:
            journal = Journal(candidate)
        except OSError as error:
            if path is not None:
                raise ExitError(f"ERROR Impossible d'ouvrir le journal {printable(path)} : "
                                f"{error.strerror}.", 5) from None
        else:
            journal.setFormatter(line)
            log.addHandler(journal)
            break
    if sys.stderr:
        console = Console()
        console.setFormatter(Line(COLOURS) if sys.stderr.isatty() else line)
        log.addHandler(console)
        if len(log.handlers) == 1:
            log.warning("Aucun journal ne peut être ouvert : la console seule reçoit les lignes.")


class Parser(argparse.ArgumentParser):
    """An argparse parser that prints in any locale, and whose misuse is an ExitError."""

    def _print_message(self, message: str, file=None) -> None:
        """Print the help or version, whatever standard output can encode, if somebody reads it."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        text = message.encode(encoding, "backslashreplace").decode(encoding)
        try:
            print(text, end="", flush=True)
        except OSError:
            pass

    def error(self, message: str) -> None:
        """Raise ExitError with the usage and argparse's `message`."""
        raise ExitError(f"{self.format_usage()}{self.prog}: erreur: {message}", 2)


def whole(text: str) -> int:
    """Return the whole number in `text`. Raises argparse.ArgumentTypeError if it spells none."""
    try:
        return int(text)
    except ValueError:
        sentence = f"« {printable(text)} » n'est pas un nombre entier"
        raise argparse.ArgumentTypeError(sentence) from None


def parse(argv: "list | None") -> argparse.Namespace:
    """Return the options in `argv` (None: sys.argv). Raises ExitError on misuse."""
    parser = Parser(description="Serveur bs : un message, une réponse, et personne n'attend.",
                    add_help=False)
    parser.color = False  # 3.14 colours for standard output what may be read somewhere else
    add = parser.add_argument_group("options").add_argument
    add("-h", "--help", action="help", help="affiche cette aide et termine")
    add("-p", "--port", type=whole, default=PORT, metavar="PORT",
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
