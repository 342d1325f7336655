#!/usr/bin/env python3
"""bs server: one message in, one reply out, and no client makes another wait.

It imports five modules and no others: those of the exercise that it grew out of ("the notes"
below). So there are no threads, and no `select` to tell which client has spoken: it polls each of
them again and again, and calls one such poll a look. In your own server use `selectors`: that
replaces the rounds of looks, but then each deadline needs a timer. Three parts of this file can be
read separately, and the log is a fourth:

- `exchange`: what happens to one client, from top to bottom. It never blocks: where there is
  nothing to read it yields, and the next look (`Client.look`) carries it on from there.
- `Waiting`: the scheduler of the clients that are not done: which of them are looked at now, and
  which is evicted when there is no room.
- `Server.run`: the event loop, in four lines. Each pass begins with a wait for a client.

See also tcp(7), accept(2), and RFC 1288 (finger), an exchange of the same shape: connect, one
line, one answer, close.
"""

import argparse
import logging.handlers
import re
import socket
import sys

VERSION = "1.0"

REPLIES = (  # the first row whose word is in the message wins; "" always matches
    ("meo", "Meo à toi confrère."),
    ("waf", "ptdr t ki"),
    ("", "Mes respects humble humain."),
)
DECISIVE = REPLIES[0][0].encode()  # once it is there, no later byte can change the reply
MESSAGE_MAX = 1024  # bytes that count: the notes' recv(1024)
CHUNK = 1 << 12  # bytes per recv(2): small enough that 500 of them fit into a round
SILENCE = 0.2  # seconds: the inter-byte timer (VTIME, termios(3)) of a message with no other end
LINGER = 2.0  # seconds of silence that end a lingering close: what is in flight arrives by then
NEVER = float("inf")  # seconds of silence: the first byte may take any time


def reply_to(message: str) -> str:
    """Return the reply to `message`, by the first word of REPLIES that it contains."""
    for word, reply in REPLIES:
        if word in message:
            return reply


def exchange(connection: socket.socket, ip: str, log: logging.Logger):
    """Carry out the exchange with the client at `ip`, from its `connection` to its end.

    A generator, whose state is the line at which it stands: awaiting the first byte, receiving, or
    lingering. It yields when a look has read what there is, or enough, and is sent the time
    (seconds) of the look that carries it on. Once begun, it closes the connection however it ends,
    even by close().
    """
    try:
        connection.setblocking(False)
        log.info("Un client %s s'est connecté.", ip)
        message = yield from receive(connection)
        if message is None:
            return
        text = message.decode("utf-8", "backslashreplace")
        reply = reply_to(text)
        log.info('Le client %s a envoyé "%s".', ip, printable(text))
        connection.send(reply.encode("utf-8"))  # all of it: it fits any send buffer
        # A lingering close: to close while the client still sends would reset the connection, and
        # the reply might be lost (RFC 1122, 4.2.2.13). So we half-close, and wait for its end.
        connection.shutdown(socket.SHUT_WR)
        log.info('Réponse envoyée au client %s : "%s".', ip, reply)
        while (yield from read(connection, LINGER)):
            yield  # one CHUNK a look, so that a client that pours keeps no other waiting
    except OSError as error:  # reset, or closed before its reply
        log.debug("Le client %s a rompu la connexion : %s.", ip, reason(error))
    finally:
        attempt(connection.close)
        log.debug("Fin de la connexion du client %s.", ip)


def receive(connection: socket.socket):
    """Return the message (bytes), or None if the client leaves without one.

    A generator like `exchange`. TCP is a stream and knows no messages. One ends at the first of: a
    newline; the end of the stream; MESSAGE_MAX bytes; DECISIVE, once nothing more is there to read;
    and, for clients that end theirs with nothing at all, SILENCE. Raises OSError if the client
    resets the connection.
    """
    message, silence = b"", NEVER
    while len(message) < MESSAGE_MAX:
        data = yield from read(connection, silence)
        if not data:
            return message or None
        message, newline, _ = (message + data)[:MESSAGE_MAX].partition(b"\n")
        if newline:
            return message[:-1] if message.endswith(b"\r") else message
        silence = 0.0 if DECISIVE in message else SILENCE
    return message


def read(connection: socket.socket, silence: float):
    """Return the bytes that come next; b"" at the end of the stream, or after `silence` seconds.

    A generator like `exchange`. The silence counts from the next look: the time of this one may
    predate the last byte. Raises OSError if the client resets the connection.
    """
    began, waited = None, 0.0
    while True:
        try:
            return connection.recv(CHUNK)
        except BlockingIOError:
            if waited >= silence:
                return b""
        now = yield
        if began is None:
            began = now
        waited = now - began


class Client:
    """One client: a look carries its exchange on; the caller need not know how far it has got."""

    __slots__ = ("exchange", "host", "ip")  # there may be ten thousand

    def __init__(self, connection: socket.socket, ip: str, log: logging.Logger) -> None:
        """Take the accepted socket, the address at its other end, and the log."""
        self.ip = ip
        # Whose client it is: an IPv4 address, or the /64 of an IPv6 one (RFC 4291)
        self.host = ip
        if ":" in ip:
            self.host = socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])[:8]
        self.exchange = exchange(connection, ip, log)

    def look(self, now: "float | None" = None) -> bool:
        """Carry the exchange on, as far as it goes without blocking; return True once it is done.

        `now` is the time in seconds; the first look begins it, and has none (a generator's first
        send() takes None: PEP 342).
        """
        try:
            self.exchange.send(now)
        except StopIteration:
            return True
        return False

    def hang_up(self) -> None:
        """End the exchange where it stands, and close the connection."""
        self.exchange.close()


SHORTEST_WAIT = 0.001  # seconds: poll(2) measures milliseconds
NEWCOMER = 0.3  # seconds: whoever is about to speak has spoken by then
ROUND = 0.02  # seconds between two rounds of looks: too short for a person to notice
LOOKS_PER_ROUND = 500  # that is 25,000 a second, about a tenth of a processor
SLEEP_MAX = 1.0  # seconds: Windows delivers Ctrl-C only between waits


class Waiting:
    """The scheduler: which of the waiting clients are looked at now, and which one is evicted.

    All are one queue: in each round its first LOOKS_PER_ROUND are looked at and go to its end
    (round robin). A newcomer is about to speak, so for NEWCOMER seconds it is looked at in between
    too, with exponential back-off: after 1, 2, 4 ms and so on. There is no socket here and no
    clock: `now` is the time, in seconds.
    """

    def __init__(self) -> None:
        """Start with no client. The keys of a dict are a set that keeps its order."""
        self.clients = {}  # client: when it came (seconds), in the order of their turns
        self.newcomers = {}  # client: when its next look between rounds is due (seconds)
        self.next_round = 0.0  # seconds
        self.hosts = {}  # host: its clients, the oldest first
        # [count]: the hosts with so many clients or more; so the last one has the busiest hosts
        self.at_least = [{}]

    def add(self, client: Client, now: float) -> None:
        """Add `client`, which arrived at `now`."""
        self.clients[client] = now
        self.newcomers[client] = now + SHORTEST_WAIT
        same_host = self.hosts.setdefault(client.host, {})
        same_host[client] = None
        if len(same_host) == len(self.at_least):
            self.at_least.append({})
        self.at_least[len(same_host)][client.host] = None

    def remove(self, client: Client) -> None:
        """Forget `client`, which waits."""
        del self.clients[client]
        self.newcomers.pop(client, None)
        same_host = self.hosts[client.host]
        del self.at_least[len(same_host)][client.host]
        if not self.at_least[-1]:
            self.at_least.pop()
        del same_host[client]
        if not same_host:
            del self.hosts[client.host]

    def until_next(self, now: float) -> float:
        """Return the seconds until the next look is due; SLEEP_MAX where no client waits."""
        if not self.clients:
            return SLEEP_MAX
        return min([self.next_round, *self.newcomers.values()]) - now

    def take_due(self, now: float) -> list:
        """Return the clients to look at now, each of them once.

        A second look would be given a time that may be older than what the first one has read.
        """
        return list(dict.fromkeys(self.take_newcomers(now) + self.take_round(now)))

    def take_newcomers(self, now: float) -> list:
        """Return the newcomers whose look is due; each is next due at twice its present age."""
        due = [client for client, due_at in self.newcomers.items() if due_at <= now]
        for client in due:
            age = now - self.clients[client]
            if 2 * age <= NEWCOMER:
                self.newcomers[client] = now + age
            else:
                del self.newcomers[client]
        return due

    def take_round(self, now: float) -> list:
        """Return the clients whose turn it is: LOOKS_PER_ROUND at most, once every ROUND."""
        if now < self.next_round:
            return []
        self.next_round = now + ROUND
        turn = list(self.clients)[:LOOKS_PER_ROUND]
        for client in turn:
            self.clients[client] = self.clients.pop(client)
        return turn

    def victim(self) -> Client:
        """Return the client to evict: the oldest of the host that has the most."""
        host = next(iter(self.at_least[-1]))
        return next(iter(self.hosts[host]))


BUSY_MAX = 0.04  # seconds between two readings, beyond the wait, that count: far below SILENCE


class Clock:
    """The seconds that pass, by the time stamps of logging's records: we may not import `time`."""

    def __init__(self) -> None:
        """Start at 0 seconds."""
        self.now = 0.0
        self.stamp = logging.makeLogRecord({}).created

    def advance(self, wait: float) -> None:
        """Set `now`, after the loop has waited for `wait` seconds at most.

        The stamp is wall-clock time, which may be set. So a step back does not count, and a step
        forward, or a time for which we were stopped, no more than the wait and BUSY_MAX: a silence
        may end early by that much.
        """
        before, self.stamp = self.stamp, logging.makeLogRecord({}).created
        self.now += min(max(self.stamp - before, 0.0), wait + BUSY_MAX)


BATCH = 16  # clients accepted in one pass of the loop, before the waiting ones are looked at
EXCHANGE_MAX = 300.0  # seconds that a client may stay: time to look up what to type
LONELY = 60.0  # seconds without a client before the log says so: the message says one minute
WARN_EVERY = 1.0  # seconds between two warnings of evictions and failed accepts
WAITING_MAX = 10000  # clients, if there are descriptors for them: some 15 MB
RESERVE = 8  # descriptors that are kept free for everything else, such as the log's backup
# What accept(2) raises when there is no client: none is in the queue, or it has already left
NO_CLIENT = (BlockingIOError, socket.timeout, ConnectionError)
IPV4_MAPPED = re.compile(r"^::ffff:(?=\d+\.)")  # an IPv4 peer of an IPv6 socket: ipv6(7)


class Server:
    """The event loop: it accepts clients, begins their exchanges and carries them on."""

    def __init__(self, listener: socket.socket, log: logging.Logger) -> None:
        """Take the listening socket and the log.

        Raises OSError if the descriptors do not suffice for a single client.
        """
        self.listener = listener
        self.log = log
        self.clock = Clock()
        self.waiting = Waiting()
        self.alone_since = 0.0  # when the last client was here, or the log last said that none is
        self.accept_error = None  # why accept(2) failed, until the log has said it
        self.evicted = []  # the addresses of the evicted clients, until the log has said it
        self.last_warn = 0.0  # when report() last called flush_warnings() (seconds)
        # A socket that never receives, to sleep without `time`; None where a sandbox forbids UDP
        self.sleeper = attempt(socket.socket, listener.family, socket.SOCK_DGRAM)
        self.room = WAITING_MAX  # how many clients may wait
        if sys.platform != "win32":  # it has no such limit, and counting is slow there
            self.room = self.free_descriptors(WAITING_MAX + RESERVE) - RESERVE
        if self.room < 1:
            self.close()
            raise OSError("Il ne reste aucun descripteur pour un client.")

    def free_descriptors(self, most: int) -> int:
        """Return how many descriptors are free, `most` at most, by taking them all for a moment."""
        taken = []
        while len(taken) < most:
            descriptor = attempt(self.listener.dup)
            if not descriptor:
                break
            taken.append(descriptor)
        for descriptor in taken:
            descriptor.close()
        return len(taken)

    def run(self) -> None:
        """Serve until KeyboardInterrupt. Raises OSError if the listener no longer listens."""
        while True:
            self.accept_clients()
            self.look_at(self.waiting.take_due(self.clock.now))
            self.report()

    def accept_clients(self) -> None:
        """Sleep until a client comes or the next look is due; accept BATCH clients at most."""
        wait = max(self.waiting.until_next(self.clock.now), SHORTEST_WAIT)
        for _ in range(BATCH):
            accepted = self.accept(wait)
            if wait:  # only the first accept waits
                self.clock.advance(wait)
            if not accepted:
                break
            self.begin(*accepted)
            wait = 0.0
            if self.waiting.clients:  # a slow log must not delay the looks that are due
                self.clock.advance(wait)
                if self.clock.now >= self.waiting.next_round:
                    break

    def accept(self, wait: float) -> "tuple | None":
        """Return the next connection as (socket, address); None if none comes in `wait` seconds.

        Raises OSError if the listening socket no longer listens.
        """
        if self.listener.gettimeout() != wait:  # to set it is a system call
            self.listener.settimeout(wait)
        try:
            return self.listener.accept()
        except NO_CLIENT:
            return None
        except OSError as error:
            if attempt(self.listener.getsockopt, socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0:
                raise  # the system has taken it away (ss -K)
            self.accept_error = reason(error)
        self.restore_reserve()
        if self.sleeper:  # for a moment, or accept(2) would fail again at once
            self.sleeper.settimeout(ROUND)
            attempt(self.sleeper.recv, 1)
        return None

    def restore_reserve(self) -> None:
        """If fewer than RESERVE descriptors are free, evict clients to free them, and keep it so.

        The room was counted at the start: since then the limit has been lowered, or a program
        around us has opened files.
        """
        missing = RESERVE - self.free_descriptors(RESERVE)
        if missing and self.waiting.clients:
            self.room = max(len(self.waiting.clients) - missing, 1)
            self.evict()

    def begin(self, connection: socket.socket, address: tuple) -> None:
        """Begin the exchange of an accepted client; unless it is done at once, the client waits."""
        now = self.clock.now
        self.alone_since = now  # here too, since report() sees only the clients that wait
        # macOS accepts a connection that is already gone, with no address at all
        ip = IPV4_MAPPED.sub("", address[0]) if address else "inconnu"
        client = Client(connection, ip, self.log)
        if not client.look():
            self.waiting.add(client, now)
            self.evict()

    def look_at(self, clients: list) -> None:
        """Look at each of `clients`, and remove those that are done or have stayed too long."""
        now = self.clock.now
        for client in clients:
            if client.look(now):
                self.waiting.remove(client)
            elif now - self.waiting.clients[client] >= EXCHANGE_MAX:
                self.waiting.remove(client)
                client.hang_up()
                self.log.warning("Le client %s tarde trop : connexion fermée.", client.ip)

    def evict(self) -> None:
        """Evict clients until no more wait than there is room for: `Waiting.victim` says which."""
        while len(self.waiting.clients) > self.room:
            client = self.waiting.victim()
            self.waiting.remove(client)
            if not client.look(self.clock.now):  # a last look: its message may be complete
                client.hang_up()
                self.evicted.append(client.ip)

    def report(self) -> None:
        """Log the warnings that are due, none of them too often."""
        now = self.clock.now
        if self.waiting.clients:
            self.alone_since = now
        elif now - self.alone_since >= LONELY:
            self.log.warning("Aucun client depuis plus de une minute.")
            self.alone_since = now
        if now - self.last_warn >= WARN_EVERY:
            self.flush_warnings()
            self.last_warn = now

    def flush_warnings(self) -> None:
        """Log why accept(2) failed and how many clients were evicted since this was last said."""
        if self.accept_error:
            self.log.warning("Impossible d'accepter un client : %s.", self.accept_error)
        if self.evicted:
            self.log.warning("Trop de clients en attente ; écartés : %d (le dernier : %s).",
                             len(self.evicted), self.evicted[-1])
        self.accept_error, self.evicted = None, []

    def close(self) -> None:
        """Log the last warnings, take a last look at each client, and hang up on it."""
        self.flush_warnings()
        for client in self.waiting.clients:
            client.look(self.clock.now)
            client.hang_up()
        if self.sleeper:
            self.sleeper.close()


IPPROTO_IPV6 = 41  # everywhere (IANA); on Windows `socket` has no name for it before Python 3.8
BACKLOG = 65535  # connections that the kernel queues; each system cuts it to its own limit
RECEIVE_BUFFER = 1 << 14  # bytes (doubled by Linux): a message is short, and some clients pour


def address_of(text: str) -> str:
    """Return the IPv4 or IPv6 address that `text` is, without the brackets of an endpoint.

    Raises SystemExit if it is not one, by inet_pton(3): getaddrinfo(3) would take full-width
    digits, 1.2.3 for 1.2.0.3, and `*` for ::1.
    """
    ip = re.sub(r"^\[(?=.*:)(.*)\]$", r"\1", text)
    try:
        if ":" in ip:
            socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])
        else:
            socket.inet_pton(socket.AF_INET, ip)
    except (OSError, ValueError):
        exit_with_error(
            f"L'adresse spécifiée {printable(text)} n'est pas une adresse IP valide.", 3)
    return ip


def listen(ip: str, port: int) -> socket.socket:
    """Return a socket that listens on `ip`, IPv4 or IPv6, and `port`.

    Raises SystemExit if we cannot listen there.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    listener = None
    try:
        if family == socket.AF_INET6 and not socket.has_ipv6:
            raise OSError("Ce Python a été construit sans IPv6")
        listener = socket.socket(family, socket.SOCK_STREAM)
        # In bytes: for a str Python would load the IDNA codec, which is for names
        host = ip.encode("utf-8", "surrogateescape")
        info = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        # A restarted server listens at once, although the kernel still holds connections of the
        # last one (socket(7)). On Windows that option shares the port, and another one forbids it.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        attempt(listener.setsockopt, socket.SOL_SOCKET, option, 1)
        # On Linux the reply leaves in one segment with the end of the stream (tcp(7)); elsewhere
        # it leaves at once
        option = getattr(socket, "TCP_CORK", socket.TCP_NODELAY)
        attempt(listener.setsockopt, socket.IPPROTO_TCP, option, 1)
        attempt(listener.setsockopt, socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        # Urgent bytes (telnet's interrupt) are bytes of the message: RFC 6093, section 5
        attempt(listener.setsockopt, socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        # So that "::" takes IPv4 too, except on OpenBSD: ipv6(7). IPv4 has no such option
        attempt(listener.setsockopt, IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, *info[0][4][1:]))  # with the port; of IPv6 flow and interface too
        listener.listen(BACKLOG)
    except (OSError, ValueError) as error:
        cause = reason(error)
        if listener:
            listener.close()
            cause = ("le port est peut-être déjà pris (arrêtez l'autre serveur, ou choisissez un "
                     f"port avec -p), ou l'adresse n'est pas à cette machine ({cause})")
        place = printable(endpoint(ip, port))
        exit_with_error(f"Impossible d'écouter sur {place} : {cause}.", 4)
    return listener


# From here to `integer` all is line for line as in client.py: each file runs alone


RED = "\033[31m{}\033[0m"
# From a character that repr() may escape up to the next one that it would escape and we do not: a
# quote, a backslash, or a space of French typography
NOT_PLAIN = re.compile("[^ -~\xa0\u202f][^'\\\\\xa0\u202f]*")


def endpoint(ip: str, port: int) -> str:
    """Return `ip` and `port` as one word, an IPv6 address in brackets (RFC 5952, section 6)."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def printable(text: str) -> str:
    """Return `text` with escapes for whatever could forge a line or control a terminal.

    That is each character that is not printable, except the spaces of French typography.
    """
    return NOT_PLAIN.sub(lambda run: repr(run.group())[1:-1], text)


def attempt(call, *args):
    """Return what `call` returns for `args`, or None if it raises OSError or ValueError."""
    try:
        return call(*args)
    except (OSError, ValueError):
        return None


def reason(error: Exception) -> str:
    """Return what `error` says, the system's words or else its own, without a full stop."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].upper() + text[1:].rstrip(".")


def say(text: str, stream) -> None:
    """Write `text` to `stream`, a standard one, with escapes for what it cannot encode.

    Raises OSError if there is no stream (None), or it fails; ValueError if it is closed.
    """
    if stream is None:
        raise OSError("Il n'y a pas de sortie où afficher la réponse.")
    try:
        stream.write(text)
    except UnicodeEncodeError:
        try:
            stream.write(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding))
        except (AttributeError, LookupError, TypeError, ValueError):  # a substitute stream
            stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
    stream.flush()


def flush_streams() -> None:
    """Flush the standard streams, and close one that fails, or Python would exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, KeyboardInterrupt):  # none, a substitute stream, or one that blocks
            pass
        except (OSError, ValueError):
            attempt(getattr(stream, "close", bool))  # a substitute stream may have none


def is_terminal(stream) -> bool:
    """Return True if `stream`, a standard one, is a terminal."""
    try:
        return stream.isatty()
    except (AttributeError, OSError, ValueError):  # none, a substitute stream, or closed
        return False


def is_coloured(stream) -> bool:
    """Return True if `stream`, a standard one, is a terminal that interprets colours."""
    return sys.platform != "win32" and is_terminal(stream)


def exit_with(text: str, code: int) -> None:
    """Write `text` to standard error, if there is one, and exit: raises SystemExit(`code`)."""
    attempt(say, f"{text}\n", sys.stderr)
    sys.exit(code)


def error_line(sentence: str) -> str:
    """Return `sentence` as an ERROR for standard error: red on a terminal."""
    return (RED if is_coloured(sys.stderr) else "{}").format(f"ERROR {sentence}")


def exit_with_error(sentence: str, code: int) -> None:
    """Write `sentence` as an ERROR and exit: raises SystemExit(`code`)."""
    exit_with(error_line(sentence), code)


LOG_BYTES = 10000  # that a file holds at most, with one backup: the notes' figures
LOG_BACKUPS = 1  # overwritten each time: more of them would have to be renamed
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
LOG_DATE = "%Y-%m-%d %H:%M:%S"
COLOURS = {"INFO": "\033[37mINFO\033[0m", "WARN": "\033[33mWARN\033[0m"}  # ECMA-48, SGR
SPECIAL_FILES = re.compile(r"//?(dev/(?!shm/)|proc/)")  # never emptied: see /dev/stdout


class LineFormatter(logging.Formatter):
    """The notes' format, with WARN for WARNING. A record's line is kept for the second handler."""

    record = second = None

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`, without a newline."""
        if record is not self.record:
            if int(record.created) != self.second:
                self.date = self.formatTime(record, LOG_DATE)
                self.second = int(record.created)
            level = "WARN" if record.levelno == logging.WARNING else record.levelname
            self.line = LOG_FORMAT % {"asctime": self.date, "levelname": level,
                                      "message": record.getMessage()}
            self.record = record  # last, as `second` above, or Ctrl-C could leave a stale line
        return self.line


class OutputMixin:
    """What replaces Handler.handle in both handlers, for speed: logging is most of the work.

    The stock one takes a lock for each line, which one thread does not need, and prints a traceback
    for each that fails. This one says once, on all outputs, what has failed (a disk that is nearly
    full fails again and again), and tries each line all the same.
    """

    warned = ()  # what has failed so far

    def handle(self, record: logging.LogRecord) -> None:
        """Write the line of `record`."""
        try:
            self.write(self.formatter.format(record) + self.terminator)
        except (OSError, ValueError) as error:
            self.recover()
            self.warn_once(f"{self.label} ne fonctionne plus", error)

    def recover(self) -> None:
        """Prepare for the next line after a write has failed; a console needs nothing."""

    def warn_once(self, what: str, error: Exception) -> None:
        """Log that `what` has failed with `error`, once a run."""
        if what not in self.warned:
            self.warned += (what,)
            log = logging.getLogger(__name__)
            # Not log.warning(): Python 3.13.4 drops what is logged by a handler (gh-91555)
            log.callHandlers(log.makeRecord(log.name, logging.WARNING, "", 0,
                                            f"{what} : {reason(error)}.", (), None))


class Journal(OutputMixin, logging.handlers.RotatingFileHandler,
              logging.handlers.WatchedFileHandler):
    """The log file; unless it is a special file, neither it nor its backup exceeds LOG_BYTES.

    RotatingFileHandler is the notes' class, and keeps their figures. But it renames a full file,
    which is refused if another program has it open (Windows) or if we may write the file but not
    its folder, and which replaces a link by a file. So this class copies the file and truncates it.
    WatchedFileHandler knows whether the name still leads to it. If not (it was moved or removed), a
    rotation leaves it alone and begins another.
    """

    may_create = True  # whether the next opening may make the file

    def __init__(self, path: str) -> None:
        """Open the file at `path` to append to. Raises OSError or ValueError if that fails."""
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=LOG_BACKUPS, encoding="utf-8")
        self.label = f"Le journal {printable(self.baseFilename)}"
        self.backup = f"{self.baseFilename}.{self.backupCount}"

    def _open(self):
        """Return the file, opened in bytes and with no buffer.

        It is first opened only to write, so that we never become the reader of a pipe; then, if it
        may be emptied, to read too. It stays open for both: if another descriptor were closed after
        a truncation, ext4 would flush the file, which is slow.
        """
        if not self.may_create:
            open(self.baseFilename, "rb").close()  # raises if it is not there
        file = open(self.baseFilename, "ab", 0)
        self.may_empty = file.seekable() and not SPECIAL_FILES.match(self.baseFilename)
        readable = attempt(open, self.baseFilename, "a+b", 0) if self.may_empty else None
        if readable:
            attempt(file.close)
        self.may_create = True
        self.stream = readable or file
        self._statstream()  # so that reopenIfNeeded knows the file
        return self.stream

    def write(self, line: str) -> None:
        """Append `line`; if it would not fit, first empty the file, even if its backup fails.

        Raises OSError if the line cannot be written. Ctrl-C at worst leaves the same lines in both
        files, and the end of an older backup.
        """
        data = line.encode(self.encoding)
        failure, file = None, self.stream or self._open()  # anew, once it has failed
        if self.may_empty and file.seek(0, 2) + len(data) > self.maxBytes:
            failure = self.back_up()
            self.reopenIfNeeded()  # the name may lead to another file by now, or to none
            if self.stream is file:
                file.truncate(0)
        written = self.stream.write(data)
        if written != len(data) and not self.may_empty:
            self.stream.write(data[written:])  # a full pipe, after Ctrl-Z and fg
        elif written != len(data):
            self.stream.truncate(self.stream.seek(-written, 1))  # half a line, on a full disk
            raise OSError("Il n'y a plus de place")
        if failure:  # its warning is a line of this file too
            self.warn_once(f"La sauvegarde {printable(self.backup)} ne peut être écrite", failure)

    def back_up(self) -> "OSError | None":
        """Overwrite the backup with the newest bytes of the file; return the error if it fails."""
        try:
            self.stream.seek(max(self.stream.seek(0, 2) - self.maxBytes, 0))
            newest = self.stream.read()
            open(self.backup, "ab").close()  # makes it if it is not there
            with open(self.backup, "r+b") as backup:
                backup.write(newest)
                backup.truncate()  # not before: ext4 would flush the file when it is closed
        except OSError as error:
            return error
        return None

    def recover(self) -> None:
        """Close a file that has failed: the next line opens what its name leads to by then.

        If it cannot even be truncated, its file system is gone (a file server's, an unplugged
        disk's), and its name leads into the bare mount point, where no file is to be made.
        """
        if self.stream and self.may_empty:  # to open a pipe blocks until it has a reader: fifo(7)
            try:
                self.stream.truncate(self.stream.seek(0, 2))
            except (OSError, ValueError):
                self.may_create = self.stream.closed  # if it is, only its close has failed
            attempt(self.stream.close)
            self.stream = None


class Console(OutputMixin, logging.StreamHandler):
    """The log on standard error; INFO and WARN are coloured on a terminal, except on Windows."""

    label = "La console"

    def __init__(self) -> None:
        """Take standard error."""
        super().__init__()
        self.coloured = is_coloured(self.stream)

    def write(self, line: str) -> None:
        """Write `line`. Raises OSError or ValueError if that fails."""
        if self.coloured:
            day, time, level, message = line.split(" ", 3)
            line = f"{day} {time} {COLOURS.get(level, level)} {message}"
        say(line, self.stream)


def open_journal(path: "str | None") -> "Journal | None":
    """Return the log file at `path`, or where that is None the first of LOG_FILES that opens.

    Returns None if neither of them does. Raises SystemExit if a `path` that was given does not.
    """
    if path is None:
        return attempt(Journal, LOG_FILES[0]) or attempt(Journal, LOG_FILES[1])
    try:
        return Journal(path)
    except (OSError, ValueError) as error:
        exit_with_error(f"Impossible d'ouvrir le journal {printable(path)} : {reason(error)}.",
                        LOG_REFUSED)


class Log:
    """The log of one run: a context manager that gives the logger, and restores `logging`."""

    def __init__(self, journal: "Journal | None", verbose: bool, console: bool) -> None:
        """Take the log file; `verbose` is for DEBUG lines, `console` for standard error too."""
        self.log = logging.getLogger(__name__)
        self.level = logging.DEBUG if verbose else logging.INFO
        self.outputs = [logging.NullHandler()]  # with none at all logging would print by itself
        if journal:
            self.outputs.append(journal)
        if console and sys.stderr:
            self.outputs.append(Console())

    def __enter__(self) -> logging.Logger:
        """Add the handlers, and set the level."""
        self.saved = (logging.logThreads, logging.logProcesses, logging.logMultiprocessing,
                      logging._srcfile, self.log.level, self.log.propagate)
        # What LOG_FORMAT does not use: to look it up takes a fifth of a line's time (logging HOWTO)
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        logging._srcfile = None
        formatter = LineFormatter()
        for output in self.outputs:
            output.setFormatter(formatter)
            self.log.addHandler(output)
        self.log.setLevel(self.level)
        self.log.propagate = False  # or a handler of the root would write each line again
        return self.log

    def __exit__(self, *error) -> None:
        """Restore `logging` as it was found."""
        (logging.logThreads, logging.logProcesses, logging.logMultiprocessing,
         logging._srcfile, level, self.log.propagate) = self.saved
        self.log.setLevel(level)
        for output in self.outputs:
            self.log.removeHandler(output)
            attempt(output.close)  # NFS may report a full disk only now


class Parser(argparse.ArgumentParser):
    """An argparse parser that prints in any locale, and is silent if a stream is closed.

    A typographic dash begins an option too, an unknown one: otherwise « –p 2000 waf », copied from
    a word processor, would be taken for a message.
    """

    def __init__(self, description: str) -> None:
        """Take what the program does."""
        super().__init__(description=description, add_help=False, prefix_chars="-–—−")
        self.color = False  # 3.14 colours a usage even if standard error is no terminal

    def _print_message(self, message: str, file) -> None:
        """Write `message` to `file`, as argparse asks: None if a standard stream is closed."""
        attempt(say, message, file)

    def error(self, message: str) -> None:
        """Exit with 2, the usage and argparse's `message`, never on standard output."""
        exit_with(f"{self.format_usage()}{self.prog}: error: {message}", 2)


def integer(text: str) -> int:
    """Return the whole number in `text`. Raises ArgumentTypeError if it spells none."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("doit être un nombre entier, par exemple 13337")


LISTEN = "0.0.0.0"  # every IPv4 address of this machine
PORT = 13337  # the lab's
PORT_MAX = 65535
PRIVILEGED_MAX = 1024  # as the notes count; the kernel's privileged ports end at 1023
LOG_FILES = ("/var/log/bs_server/bs_server.log", "bs_server.log")  # the first that opens
LOG_REFUSED = 5  # exit code if the file given with --log-file does not open; client.py's is 1


def parse(argv: "list | None") -> argparse.Namespace:
    """Return the options in `argv` (None: sys.argv). Raises SystemExit on misuse."""
    parser = Parser("Serveur bs. Un message, une réponse, et aucun client n'en fait attendre un "
                    "autre. Ctrl-C l'arrête.")
    add = parser.add_argument_group("options").add_argument
    add("-h", "--help", action="help", help="affiche cette aide et quitte")
    add("-p", "--port", type=integer, default=PORT, metavar="PORT",
        help=f"port d'écoute, de {PRIVILEGED_MAX + 1} à {PORT_MAX}, car ici les ports jusqu'à "
             f"{PRIVILEGED_MAX} comptent comme privilégiés (par défaut %(default)s)")
    add("-l", "--listen", default=LISTEN, metavar="ADRESSE",
        help="adresse IPv4 ou IPv6 de cette machine sur laquelle écouter (par défaut %(default)s, "
             "soit toutes ses adresses IPv4)")
    add("--log-file", metavar="FICHIER",
        help="journal (par défaut {}, sinon {} dans le dossier courant)".format(*LOG_FILES))
    add("-v", "--verbosity", action="store_true",
        help="écrit aussi les lignes DEBUG (la fin de chaque connexion, et pourquoi si elle a été "
             "rompue)")
    add("--version", action="version", version=f"%(prog)s {VERSION}",
        help="affiche la version et quitte")
    args = parser.parse_args(argv)
    if not 0 <= args.port <= PORT_MAX:
        exit_with_error(f"Le port spécifié n'est pas un port possible (de 0 à {PORT_MAX}).", 1)
    if args.port <= PRIVILEGED_MAX:
        exit_with_error("Le port spécifié est un port privilégié. "
                        f"Spécifiez un port au dessus de {PRIVILEGED_MAX}.", 2)
    args.listen = address_of(args.listen)
    return args


def serve(ip: str, port: int, journal: "Journal | None", log: logging.Logger) -> None:
    """Serve on `ip` and `port` until KeyboardInterrupt. Raises SystemExit if that fails."""
    with listen(ip, port) as listener:
        try:
            server = Server(listener, log)
        except OSError as error:
            exit_with_error(f"Impossible de démarrer : {reason(error)}.", 4)
        try:
            log.info("Le serveur tourne sur %s", printable(endpoint(ip, port)))
            if not journal:
                log.warning("Aucun journal ne peut être ouvert : "
                            "seule la console reçoit les lignes.")
            elif not journal.warned:
                log.info("Journal : %s", printable(journal.baseFilename))
            server.run()
        except OSError as error:
            log.error("Le serveur ne peut plus écouter : %s.", reason(error))
            sys.exit(4)
        finally:
            server.close()


def main(argv: "list | None" = None) -> int:
    """Run the server with the options in `argv` (None: sys.argv).

    Returns the exit code: 0 after Ctrl-C, else one from README's table.
    """
    try:
        args = parse(argv)
        # Before it listens: to open a pipe blocks until it has a reader (fifo(7))
        journal = open_journal(args.log_file)
        with Log(journal, args.verbosity, console=True) as log:
            try:
                serve(args.listen, args.port, journal, log)
            except KeyboardInterrupt:
                log.info("Arrêt du serveur.")
    except KeyboardInterrupt:
        pass  # before it served
    except SystemExit as end:  # an error, the help or the version
        return end.code
    finally:
        flush_streams()
    return 0


if __name__ == "__main__":
    sys.exit(main())
