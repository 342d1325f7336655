#!/usr/bin/env python3
"""bs server: one message in, one reply out, and no client makes another wait.

It imports five modules and no others: those of the exercise that it grew out of ("the notes"
below). So there are no threads, and no `select` to tell which client has spoken: it polls each of
them again and again. In your own server use `selectors` instead of polling; the rest stays the
same. Three ideas, each of which can be read without the others:

- `exchange`: what happens to one client, from top to bottom. It never blocks. Where there is
  nothing to read it yields, until it is polled again: a look (`Client.look`) resumes it there.
- `Waiting`: the scheduler of the clients that are not done: which of them are looked at now, and
  which is evicted when there is no room. The hosts share each round of looks fairly.
- `Server.run`: the event loop, in five steps. Between two passes it sleeps in accept(2).

Read on: tcp(7), accept(2), and RFC 1288 (finger), an exchange of the same shape: connect, one
line, one answer, close.
"""

import argparse
import logging.handlers
import re
import socket
import sys

VERSION = "1.0"

# The exchange
REPLIES = (  # the first row whose word is in the message decides; the empty one always is
    ("meo", "Meo à toi confrère."),
    ("waf", "ptdr t ki"),
    ("", "Mes respects humble humain."),
)
DECISIVE = REPLIES[0][0].encode()  # no later byte can change its reply
MESSAGE_MAX = 1024  # bytes that count: the notes' recv(1024)
RECEIVED_MAX = 1 << 20  # bytes (1 MiB) from one client: a thousand times what counts
CHUNK = 1 << 12  # bytes a recv(2): even a round of LOOKS_PER_ROUND of these fits into ROUND
SILENCE = 0.2  # seconds: the inter-byte timer (VTIME, termios(3)) of a message with no other end
LINGER = 2.0  # seconds, likewise, of the lingering close: what is under way has arrived by then
NEVER = float("inf")  # seconds: no SILENCE before the first byte

# The scheduler
SHORTEST_WAIT = 0.001  # seconds: poll(2) measures milliseconds
ROUND = 0.02  # seconds between two rounds of looks: no person feels that
LOOKS_PER_ROUND = 500  # that is 25,000 a second, about a tenth of a processor
NEWEST_ONE_IN = 4  # a quarter of a crowd's looks is for its newest: they are likeliest to speak
EXCHANGE_MAX = 300.0  # seconds that a client may take for all of it: time to look up what to type

# The loop
SLEEP_MAX = 1.0  # seconds: Windows delivers Ctrl-C only between waits
LONELY = 60.0  # seconds without a client before the log says so: its sentence speaks of a minute
BATCH = 16  # clients accepted in one pass of the loop, before the waiting ones are looked at
PASS_MAX = 0.02  # seconds of a pass, beyond its wait, that count: if more, the date was set
LAST_LOOKS = 16  # at each client when the loop ends: 64 KiB, about what loopback delivers at once
WAITING_MAX = 10000  # clients, where the descriptors suffice: some 20 MB
WARN_EVERY = 1.0  # seconds between two warnings that there is no room, whatever the flood
# What accept(2) raises where no client is to be had: none is in the queue, or it has already left
NO_CLIENT = (BlockingIOError, socket.timeout, ConnectionError)

# The listener
LISTEN = "0.0.0.0"  # every IPv4 address of this machine
PORT = 13337  # the lab's
PORT_MAX = 65535
PRIVILEGED_MAX = 1024  # as the notes count; the kernel's privileged ports end at 1023
BACKLOG = 65535  # connections that the kernel queues; each system cuts it to its own limit
IPPROTO_IPV6 = 41  # everywhere (IANA); on Windows `socket` has no name for it before Python 3.8
IPV4_MAPPED = re.compile(r"^::ffff:(?=\d+\.)")  # an IPv4 peer of an IPv6 socket: ipv6(7)

# The log
LOG_FILES = ("/var/log/bs_server/bs_server.log", "bs_server.log")  # the first that opens
LOG_REFUSED = 5  # exit code if the file given with --log-file does not open; client.py's is 1
LOG_BYTES = 10000  # that a file holds at most, with one backup: the notes' figures
LOG_BACKUPS = 1  # overwritten each time: more of them would have to be renamed
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
LOG_DATE = "%Y-%m-%d %H:%M:%S"
# What LOG_FORMAT does not use: not to look it up takes a fifth off a line's time (logging HOWTO)
LOG_UNUSED = ("logThreads", "logProcesses", "logMultiprocessing", "_srcfile")
NULL = "/dev/null"  # where it is missing (some chroots), no descriptor is kept for the backup
SPECIAL_FILES = re.compile(r"//?(dev/(?!shm/)|proc/)")  # what /dev/stdout leads to is not emptied
COLOURS = {"INFO": "\033[37mINFO\033[0m", "WARN": "\033[33mWARN\033[0m"}  # ECMA-48, SGR

# What is shown
RED = "\033[31m{}\033[0m"
SPACES = "\xa0\u202f"  # those of French typography, which str.isprintable rejects
CUT = "… (coupé)"  # the end of a text that is shown or logged in part


def reply_to(message: str) -> str:
    """Return the reply to `message`, by the first word of REPLIES that it contains."""
    for word, reply in REPLIES:
        if word in message:
            return reply


def exchange(connection: socket.socket, ip: str, log: logging.Logger):
    """Carry out the exchange with the client at `ip`, from its `connection` to its end.

    A generator, whose state is the line at which it stands: awaiting the first byte, receiving,
    replied, lingering. It yields where there is nothing to read, or where one look has read enough,
    and is sent the time (seconds) of the look that resumes it. Once begun, it closes the connection
    however it ends, also by close().
    """
    try:
        connection.setblocking(False)
        log.info("Un client %s s'est connecté.", ip)
        line, received = yield from receive(connection)
        if not received:
            return
        message = line[:MESSAGE_MAX].decode("utf-8", "backslashreplace")
        end = CUT if len(line) > MESSAGE_MAX else ""
        reply = reply_to(message)
        log.info('Le client %s a envoyé "%s%s".', ip, printable(message), end)
        connection.send(reply.encode("utf-8"))  # it fits any send buffer, so it never blocks
        # A lingering close: to close while the client still sends would reset the connection, and
        # the reply might be lost (RFC 1122, 4.2.2.13). So we half-close, and wait for its end.
        connection.shutdown(socket.SHUT_WR)
        log.info('Réponse envoyée au client %s : "%s".', ip, reply)
        while received <= RECEIVED_MAX:
            data = yield from read(connection, LINGER, received)
            if not data:
                break
            received += len(data)
    except EndlessMessage:
        log.warning("Le client %s envoie des octets sans fin : connexion coupée.", ip)
    except OSError as error:  # reset, or closed before its reply
        log.debug("Le client %s a rompu la connexion : %s", ip, reason(error))
    finally:
        attempt(connection.close)
        log.debug("Fin de la connexion du client %s.", ip)


class EndlessMessage(Exception):
    """A client has sent more than RECEIVED_MAX bytes, and its message has not ended."""


def receive(connection: socket.socket):
    """Return the message (bytes), and how many bytes have come: 0 if the client left without one.

    A generator like `exchange`. TCP is a stream and knows no messages. One ends at the first of: a
    newline; the end of the stream; the word that no later byte can outdo, with nothing more to
    read; and, for clients that end theirs with nothing at all, a silence. One that is longer than
    MESSAGE_MAX may be returned without its end. Raises EndlessMessage, and OSError if the client
    resets the connection.
    """
    line, received, silence = b"", 0, NEVER
    while received <= RECEIVED_MAX:
        data = yield from read(connection, silence, received)
        if not data:
            return line, received
        received += len(data)
        line, newline, _ = (line + data).partition(b"\n")
        if newline:
            return line[:-1] if line.endswith(b"\r") else line, received
        line = line[:MESSAGE_MAX + 2]  # one more byte tells that it is too long, one may be a \r
        silence = 0.0 if DECISIVE in line[:MESSAGE_MAX] else SILENCE
    raise EndlessMessage


def read(connection: socket.socket, silence: float, received: int):
    """Return the bytes that come next; b"" at the end of the stream, or after `silence` seconds.

    A generator like `exchange`. The silence counts from the first look that found nothing: the time
    of the one before may be older than the last byte. `received` is how many bytes came before:
    once that is more than a message, each CHUNK takes a look of its own, so that a client that
    pours keeps no other waiting. Raises OSError if the client resets the connection.
    """
    if received > MESSAGE_MAX:
        yield
    now, deadline = 0.0, NEVER if silence else 0.0
    while True:
        try:
            return connection.recv(CHUNK)
        except BlockingIOError:
            if now >= deadline:
                return b""
        now = yield
        deadline = min(deadline, now + silence)


class Client:
    """One client: a look resumes its exchange, and the caller need not know how far that is."""

    __slots__ = ("host", "ip", "steps")  # there may be ten thousand

    def __init__(self, connection: socket.socket, ip: str, log: logging.Logger) -> None:
        """Take the accepted socket, the address at its other end, and the log."""
        self.ip = ip
        # Whose client it is: an IPv4 address, or the /64 of an IPv6 one (RFC 6177)
        self.host = ip
        if ":" in ip:
            self.host = socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])[:8]
        self.steps = exchange(connection, ip, log)

    def look(self, now: "float | None" = None) -> bool:
        """Resume the exchange, as far as it goes without blocking; return True once it is done.

        `now` is the time in seconds; the first look, which begins it, has none (PEP 342).
        """
        try:
            self.steps.send(now)
        except StopIteration:
            return True
        return False

    def hang_up(self) -> None:
        """End the exchange where it stands, and close the connection."""
        self.steps.close()


def first(count: int, items) -> list:
    """Return the first `count` of `items`, or all, as itertools.islice would."""
    return [item for _, item in zip(range(count), items)]


class Group:
    """The waiting clients of one host. The keys of a dict are a set that keeps its order."""

    __slots__ = ("clients", "turns")

    def __init__(self) -> None:
        """Start with no client."""
        self.clients = {}  # all of them, the oldest first
        self.turns = {}  # those that are no longer newcomers, in the order of their turns

    def take_turns(self, count: int) -> list:
        """Return `count` clients whose turn it is, or all; they go to the end of the queue.

        Of those from a crowd, one in NEWEST_ONE_IN is among its newest.
        """
        if len(self.turns) <= count:  # or the newest would be taken twice
            return list(self.turns)
        backwards = reversed(list(self.clients))  # before 3.8 a dict cannot be reversed
        newest = first(count // NEWEST_ONE_IN, (each for each in backwards if each in self.turns))
        for client in newest:
            self.turns[client] = self.turns.pop(client)
        others = first(count - len(newest), self.turns)
        for client in others:
            self.turns[client] = self.turns.pop(client)
        return newest + others


class Waiting:
    """The scheduler: which of the waiting clients are looked at now, and which one is evicted.

    A newcomer is about to speak, and is looked at with exponential back-off, after 1, 2, 4, 8 and
    16 ms. From then on it takes its turn in rounds, a round robin that is max-min fair among the
    hosts. Nothing is fixed in advance: a round is shared among the clients that wait when it
    comes. There is no socket here and no clock: `now` is the time, in seconds.
    """

    def __init__(self) -> None:
        """Start with no client."""
        self.clients = {}  # client: when it came (seconds), the oldest first
        self.newcomers = {}  # client: when its next look is due (seconds)
        self.groups = {}  # host: its Group, in the order of the hosts' turns
        # A bucket queue. [count]: the Groups of at least so many clients; [-1] holds the largest
        self.at_least = [{}]
        self.next_round = 0.0  # seconds

    def add(self, client: Client, now: float) -> None:
        """Add `client`, which has arrived `now`."""
        group = self.groups.setdefault(client.host, Group())
        group.clients[client] = None
        if len(group.clients) == len(self.at_least):
            self.at_least.append({})
        self.at_least[len(group.clients)][group] = None
        self.clients[client] = now
        self.newcomers[client] = now + SHORTEST_WAIT

    def remove(self, client: Client) -> None:
        """Forget `client`, which waits."""
        group = self.groups[client.host]
        del self.at_least[len(group.clients)][group]
        if not self.at_least[-1]:
            self.at_least.pop()
        del group.clients[client]
        group.turns.pop(client, None)
        if not group.clients:
            del self.groups[client.host]
        del self.clients[client]
        self.newcomers.pop(client, None)

    def until_next(self, now: float) -> float:
        """Return the seconds until the next look is due; SLEEP_MAX where no client waits."""
        dues = list(self.newcomers.values())
        if len(dues) < len(self.clients):  # some are no longer newcomers
            dues.append(self.next_round)
        return min(dues) - now if dues else SLEEP_MAX

    def take_newcomers(self, now: float) -> list:
        """Return the newcomers whose look is due, each of which backs off to twice its age.

        A client older than ROUND is no longer a newcomer, and takes its turn in rounds.
        """
        due = []
        for client in [client for client, at in self.newcomers.items() if at <= now]:
            age = now - self.clients[client]
            if age > ROUND:
                del self.newcomers[client]
                self.groups[client.host].turns[client] = None
            else:
                self.newcomers[client] = now + age
                due.append(client)
        return due

    def take_round(self, now: float) -> list:
        """Return the clients whose turn it is: LOOKS_PER_ROUND at most, once every ROUND.

        The hosts share the looks max-min fairly: the one with the fewest clients takes first, an
        equal part of the looks that are left. Where there are more hosts than looks, the hosts too
        take turns.
        """
        if now < self.next_round:
            return []
        self.next_round = now + ROUND
        hosts = first(LOOKS_PER_ROUND, (host for host, group in self.groups.items() if group.turns))
        hosts.sort(key=lambda host: len(self.groups[host].turns))
        clients = []
        for number, host in enumerate(hosts):
            group = self.groups[host] = self.groups.pop(host)  # to the end of the queue
            clients += group.take_turns((LOOKS_PER_ROUND - len(clients)) // (len(hosts) - number))
        return clients

    def overdue(self, now: float) -> list:
        """Return the clients that have waited for EXCHANGE_MAX or longer."""
        clients = []
        for client, came in self.clients.items():
            if now - came < EXCHANGE_MAX:
                break
            clients.append(client)
        return clients

    def victim(self) -> Client:
        """Return the client to evict: the oldest of the host that has the most."""
        group = next(iter(self.at_least[-1]))
        return next(iter(group.clients))


class Clock:
    """The seconds that pass, by the time stamps of logging's records, for want of `time`."""

    def __init__(self) -> None:
        """Start at 0 seconds."""
        self.now = 0.0
        self.stamp = logging.makeLogRecord({}).created

    def advance(self, wait: float) -> None:
        """Set `now`, after the loop has waited for `wait` seconds at most.

        The stamp is a date. A step back counts for nothing, and a step forward for no more than the
        wait and PASS_MAX: the date was set, or the process was stopped or kept busy.
        """
        stamp = logging.makeLogRecord({}).created
        self.now += min(max(stamp - self.stamp, 0.0), wait + PASS_MAX)
        self.stamp = stamp


class Server:
    """The event loop: it accepts clients, begins their exchanges and carries them on."""

    def __init__(self, listener: socket.socket, log: logging.Logger) -> None:
        """Take the listening socket and the log.

        Raises OSError if no descriptor would be left for a client.
        """
        self.listener = listener
        self.log = log
        self.clock = Clock()
        self.waiting = Waiting()
        self.alone_since = 0.0  # when the last client was here, or the log last said that none is
        self.accept_error = None  # why accept(2) failed, until the log has said it
        self.evicted = []  # the addresses of the evicted clients, until the log has said it
        self.last_warn = 0.0  # when report() last called warn() (seconds)
        # Nothing ever comes to it. Made now, while a descriptor is left; some sandboxes forbid it
        self.sleeper = attempt(socket.socket, listener.family, socket.SOCK_DGRAM)
        if not self.has_descriptor():
            self.close()
            raise OSError("Il ne reste aucun descripteur pour un client.")

    def run(self) -> None:
        """Serve until KeyboardInterrupt. Raises OSError if the listener no longer listens."""
        while True:
            self.accept_clients()
            self.look_at(self.waiting.take_newcomers(self.clock.now))
            self.look_at(self.waiting.take_round(self.clock.now))
            self.hang_up_overdue(self.waiting.overdue(self.clock.now))
            self.report()

    def accept_clients(self) -> None:
        """Sleep until a client comes or the next look is due; accept BATCH clients at most.

        Each is begun before the next is accepted: one that is done at once frees its descriptor.
        """
        wait = max(self.waiting.until_next(self.clock.now), SHORTEST_WAIT)
        for _ in range(BATCH):
            accepted = self.accept(wait)
            if wait:  # nothing else takes long
                self.clock.advance(wait)
            if not accepted:
                break
            self.begin(*accepted)
            # It is faster without a wait, and so without poll(2). But then EMFILE proves nothing
            # (see accept) and ends the pass; with a wait a pass takes BATCH clients all the same
            wait = SHORTEST_WAIT if self.accept_error else 0.0

    def accept(self, wait: float) -> "tuple | None":
        """Return the next connection as (socket, address), or None if none comes in `wait` seconds.

        If no socket can be made either (EMFILE, ENFILE: no descriptor is left), one client is
        evicted, and accept(2) tried again; no other error costs a client its place. Raises OSError
        if the listening socket no longer listens.
        """
        self.listener.settimeout(wait)
        try:
            return self.listener.accept()
        except NO_CLIENT:
            return None
        except OSError as error:
            if not wait:
                # It proves nothing: Linux looks for a descriptor before it checks whether a client
                # is in the queue. The next call waits, in poll(2), which checks the queue alone.
                return None
            if attempt(self.listener.getsockopt, socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0:
                raise  # the system has taken it away (ss -K)
            self.accept_error = reason(error)
        accepted = None
        if self.waiting.clients and not self.has_descriptor():
            self.evict_one()
            accepted = attempt(self.listener.accept)  # another process may take the descriptor
        if not accepted:
            self.rest()
        return accepted

    def has_descriptor(self) -> bool:
        """Return True if the system still lets us make a socket."""
        probe = attempt(socket.socket, self.listener.family)
        if probe:
            probe.close()
        return bool(probe)

    def rest(self) -> None:
        """Sleep for a moment: accept(2) would fail again at once."""
        if self.sleeper:
            self.sleeper.settimeout(ROUND)
            attempt(self.sleeper.recv, 1)  # for want of `time`

    def begin(self, connection: socket.socket, address: tuple) -> None:
        """Begin the exchange of an accepted client, which waits unless that is done at once."""
        now = self.alone_since = self.clock.now  # report() sees only the clients that wait
        # macOS accepts a connection that is already gone, with no address at all
        ip = IPV4_MAPPED.sub("", address[0]) if address else "inconnu"
        client = Client(connection, ip, self.log)
        if not client.look():
            self.waiting.add(client, now)
            if len(self.waiting.clients) > WAITING_MAX:
                self.evict_one()

    def look_at(self, clients: list) -> None:
        """Look at each of `clients`; one that is done waits no longer."""
        for client in clients:
            if client.look(self.clock.now):
                self.waiting.remove(client)

    def hang_up_overdue(self, clients: list) -> None:
        """Hang up on each of `clients`, whose time is over."""
        for client in clients:
            if self.hang_up_on(client):
                self.log.warning("Le client %s tarde trop : connexion fermée.", client.ip)

    def evict_one(self) -> None:
        """Evict one client, since there is no room: `Waiting.victim` says which."""
        client = self.waiting.victim()
        if self.hang_up_on(client):
            self.evicted.append(client.ip)

    def hang_up_on(self, client: Client) -> bool:
        """Take a last look at `client`, and hang up. Returns True if it was not done by then.

        A message of MESSAGE_MAX bytes at most that has ended is answered.
        """
        self.waiting.remove(client)
        done = client.look(self.clock.now)
        client.hang_up()
        return not done

    def report(self) -> None:
        """Log the warnings that are due, none of them too often."""
        now = self.clock.now
        if self.waiting.clients:
            self.alone_since = now
        elif now - self.alone_since >= LONELY:
            self.log.warning("Aucun client depuis plus de une minute.")
            self.alone_since = now
        if now - self.last_warn >= WARN_EVERY:
            self.warn()
            self.last_warn = now

    def warn(self) -> None:
        """Log why accept(2) failed and how many clients were evicted since this was last said."""
        if self.accept_error:
            self.log.warning("Impossible d'accepter un client : %s", self.accept_error)
        if self.evicted:
            self.log.warning("Trop de clients en attente ; écartés : %d (le dernier : %s).",
                             len(self.evicted), self.evicted[-1])
        self.accept_error, self.evicted = None, []

    def close(self) -> None:
        """Log what is still to be said, take the last looks at each client, and hang up on it."""
        self.warn()
        for client in self.waiting.clients:
            for _ in range(LAST_LOOKS):
                client.look(self.clock.now)
            client.hang_up()
        if self.sleeper:
            self.sleeper.close()


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
    listener = None
    try:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        # In bytes: for a str Python would load the IDNA codec, which is for names
        host = ip.encode("utf-8", "surrogateescape")
        info = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        listener = socket.socket(family, socket.SOCK_STREAM)
        # A restarted server listens at once, although the kernel still holds connections of the
        # last one (socket(7)). On Windows that option shares the port, and another one forbids it.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        attempt(listener.setsockopt, socket.SOL_SOCKET, option, 1)
        # On Linux the reply leaves in one segment with the end of the stream: tcp(7)
        option = getattr(socket, "TCP_CORK", socket.TCP_NODELAY)
        attempt(listener.setsockopt, socket.IPPROTO_TCP, option, 1)
        # Urgent bytes (telnet's interrupt) are bytes of the message: RFC 6093, section 5
        attempt(listener.setsockopt, socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        # Or "::" is IPv6 only, as it always is on OpenBSD: ipv6(7). IPv4 has no such option
        attempt(listener.setsockopt, IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, *info[0][4][1:]))  # the port; of IPv6 the flow and the interface too
        listener.listen(BACKLOG)
    except (OSError, ValueError) as error:
        if listener:
            listener.close()
        place = printable(endpoint(ip, port))
        exit_with_error(f"Impossible d'écouter sur {place} : le port est peut-être déjà pris "
                        "(arrêtez l'autre serveur, ou choisissez un port avec -p), ou l'adresse "
                        f"n'est pas à cette machine ({reason(error)[:-1]}).", 4)
    return listener


# From here to Parser line for line as in client.py: each file runs alone


def endpoint(ip: str, port: int) -> str:
    """Return `ip` and `port` as one word, an IPv6 address in brackets (RFC 5952, section 6)."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def printable(text: str) -> str:
    """Return `text`, every character escaped that could forge a line or control a terminal.

    That is all that is not printable, except the spaces of French typography.
    """
    if text.isprintable():
        return text
    # Not by a codec: to load one opens a file, and no descriptor may be left
    return "".join(c if c.isprintable() or c in SPACES else repr(c)[1:-1] for c in text)


def attempt(call, *args):
    """Return what `call` returns for `args`, or None if it raises OSError or ValueError."""
    try:
        return call(*args)
    except (OSError, ValueError):
        return None


def reason(error: Exception) -> str:
    """Return what `error` says, as a sentence: the system's words, or else its own."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].upper() + text[1:].rstrip(".") + "."


def escaped(text: str, encoding: str) -> str:
    """Return `text` with the characters escaped that `encoding` lacks."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


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
            stream.write(escaped(text, stream.encoding))
        except (AttributeError, LookupError, TypeError, ValueError):  # a substitute stream
            stream.write(escaped(text, "ascii"))
    stream.flush()


def flush_streams() -> None:
    """Flush the standard streams, and close one that fails, or Python would exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, KeyboardInterrupt):  # none, a substitute stream, or one that blocks
            pass
        except (OSError, ValueError):
            attempt(getattr(stream, "close", bool))


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
    """What both handlers do differently from the stock ones: logging is most of the work.

    A stock handler takes its lock twice a line, which one thread does not need, and prints a
    traceback a line when it fails. This one writes the line at once. The first time that this fails
    it logs a warning, which the other handler writes; the next line is still tried.
    """

    failed = False

    def handle(self, record: logging.LogRecord) -> None:
        """Write the line of `record`; log a warning the first time that this fails."""
        try:
            self.write(self.formatter.format(record) + self.terminator)
        except (OSError, ValueError) as error:
            if not self.failed:  # once: a disk that is nearly full fails again and again
                self.failed = True
                logging.getLogger(__name__).warning("%s ne fonctionne plus : %s",
                                                    self.label, reason(error))


class Journal(OutputMixin, logging.handlers.RotatingFileHandler,
              logging.handlers.WatchedFileHandler):
    """The log file; unless it is a special file, neither it nor its backup exceeds LOG_BYTES.

    Stock rotation renames the file. That is refused where another program has it open (Windows),
    or where the file was given to us and not its folder, and replaces a link by a file. This one
    copies it and truncates it: the same file goes on. Only if that was moved or removed does a
    rotation leave it alone and begin another.
    """

    def __init__(self, path: str) -> None:
        """Open the file at `path` to append to. Raises OSError or ValueError if that cannot be."""
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=LOG_BACKUPS, encoding="utf-8")
        self._statstream()  # records for reopenIfNeeded which file this is
        # A spare descriptor, for the backup: all others may be in use (muduo's idleFd_)
        self.spare = attempt(open, NULL, "rb")
        self.label = f"Le journal {printable(self.baseFilename)}"
        self.backup = f"{self.baseFilename}.{self.backupCount}"
        self.warned = False  # whether the log has said that the backup cannot be written
        # Whether the last line lacks its end: that of a run that was killed. None: cannot be read
        self.half_line = attempt(self.newest, 1) not in (None, b"", b"\n")

    def _open(self):
        """Return the file, opened in bytes and with no buffer.

        First only to write, so that we never become the reader of a pipe; then, if it may be
        emptied, to read too. One descriptor does both: ext4 flushes a file when any of its
        descriptors is closed after a truncation, which takes longer than all the rest.
        """
        file = open(self.baseFilename, "ab", 0)
        self.may_empty = file.seekable() and not SPECIAL_FILES.match(self.baseFilename)
        readable = attempt(open, self.baseFilename, "a+b", 0) if self.may_empty else None
        if readable:
            attempt(file.close)
        return readable or file

    def size(self) -> int:
        """Return the size of the file in bytes. Raises OSError if that fails."""
        if not self.stream or self.stream.closed:  # it was moved, and no other could be opened yet
            self.stream = self._open()
            self._statstream()
        return self.stream.seek(0, 2)

    def newest(self, count: int) -> bytes:
        """Return the last `count` bytes of the file, or all. Raises OSError if that fails."""
        self.stream.seek(max(self.size() - count, 0))
        return self.stream.read(count)

    def write(self, line: str) -> None:
        """Append `line`, rotating first if it would not fit. Raises OSError if that fails."""
        data, failure = line.encode(self.encoding), None
        if self.half_line:
            self.append(b"\n")
        if self.may_empty:
            if len(data) > self.maxBytes:  # a path or a host can be that long
                end = (CUT + self.terminator).encode(self.encoding)
                kept = data[:self.maxBytes - len(end)].decode(self.encoding, "ignore")
                data = kept.encode(self.encoding) + end
            if self.size() + len(data) > self.maxBytes:
                failure = self.rotate(len(data))
        self.append(data)
        if failure and not self.warned:
            self.warned = True
            logging.getLogger(__name__).warning("La sauvegarde %s ne peut être écrite : %s",
                                                printable(self.backup), reason(failure))

    def append(self, data: bytes) -> None:
        """Append all of `data` to the file. Raises OSError if that fails."""
        while data:  # a short write is possible: write(2)
            count = self.stream.write(data)
            if count is None:  # a full pipe that does not block
                raise OSError("Personne ne lit ce qu'il contient déjà.")
            data = data[count:]
            self.half_line = bool(data)

    def rotate(self, size: int) -> "OSError | None":
        """Copy the newest bytes to the backup, and make room for `size` bytes even if that fails.

        Returns why it failed, or None. Raises OSError if no room can be made. Ctrl-C at worst
        leaves the same lines in both, and the end of an older backup.
        """
        failure = None
        if self.spare:
            attempt(self.spare.close)
        try:
            newest = self.newest(self.maxBytes)
            try:
                backup = open(self.backup, "r+b")
            except FileNotFoundError:
                backup = open(self.backup, "wb")
            with backup:  # overwritten, then truncated: ext4 flushes if it is the other way round
                backup.write(newest)
                backup.truncate()
        except OSError as error:
            failure = error
        try:
            self.reopenIfNeeded()  # the name may lead to another file now, or to none
        finally:
            self.spare = attempt(open, NULL, "rb")
        if self.may_empty and self.size() + size > self.maxBytes:
            self.stream.truncate(0)
        return failure

    def close(self) -> None:
        """Close the file."""
        if self.spare:
            attempt(self.spare.close)
        attempt(super().close)  # a full disk may be reported only now (NFS)


class Console(OutputMixin, logging.StreamHandler):
    """The log on standard error; INFO and WARN are coloured on a terminal, except on Windows."""

    label = "La console"

    def __init__(self) -> None:
        """Take standard error."""
        super().__init__()
        self.coloured = is_coloured(self.stream)
        self.half_line = False  # whether the last line may lack its end

    def write(self, line: str) -> None:
        """Write `line`. Raises OSError or ValueError if that cannot be."""
        if self.coloured:
            day, time, level, message = line.split(" ", 3)
            line = f"{day} {time} {COLOURS.get(level, level)} {message}"
        line, self.half_line = "\n" * self.half_line + line, False
        try:
            say(line, self.stream)
        except OSError:
            self.half_line = True
            raise


def open_journal(path: "str | None") -> "Journal | None":
    """Return the log file at `path`, or where that is None the first of LOG_FILES that opens.

    Returns None if neither of them does. Raises SystemExit if a `path` that was given does not.
    """
    if path is None:
        return attempt(Journal, LOG_FILES[0]) or attempt(Journal, LOG_FILES[1])
    try:
        return Journal(path)
    except (OSError, ValueError) as error:
        exit_with_error(f"Impossible d'ouvrir le journal {printable(path)} : {reason(error)}",
                        LOG_REFUSED)


class Log:
    """The log of one run: a context manager that gives the logger, and restores `logging`."""

    def __init__(self, journal: "Journal | None", verbose: bool, console: bool) -> None:
        """Take the log file; `verbose` is for DEBUG lines, `console` for standard error too."""
        self.log = logging.getLogger(__name__)
        self.level = logging.DEBUG if verbose else logging.INFO
        self.found = {name: getattr(logging, name) for name in LOG_UNUSED}
        self.level_found, self.propagate_found = self.log.level, self.log.propagate
        self.outputs = [logging.NullHandler()]  # with none at all logging would print by itself
        if journal:
            self.outputs.append(journal)
        if console and sys.stderr:
            self.outputs.append(Console())

    def __enter__(self) -> logging.Logger:
        """Add the handlers, and set the level."""
        vars(logging).update(dict.fromkeys(LOG_UNUSED))
        formatter = LineFormatter()
        for output in self.outputs:
            output.setFormatter(formatter)
            self.log.addHandler(output)
        self.log.setLevel(self.level)
        self.log.propagate = False  # or a handler of the root would write each line again
        return self.log

    def __exit__(self, *error) -> None:
        """Restore `logging` as it was found."""
        vars(logging).update(self.found)
        self.log.setLevel(self.level_found)
        self.log.propagate = self.propagate_found
        for output in self.outputs:
            self.log.removeHandler(output)
            output.close()


class Parser(argparse.ArgumentParser):
    """An argparse parser that prints in any locale, and is silent where a stream is closed."""

    def _print_message(self, message: str, file) -> None:
        """Write `message` to `file`, as argparse asks: None where a standard stream is closed."""
        attempt(say, message, file)

    def error(self, message: str) -> None:
        """Exit with 2, the usage and argparse's `message`. Stock code may use standard output."""
        exit_with(f"{self.format_usage()}{self.prog}: error: {message}", 2)


def parse(argv: "list | None") -> argparse.Namespace:
    """Return the options in `argv` (None: sys.argv). Raises SystemExit on misuse."""
    parser = Parser(description="Serveur bs. Un message, une réponse, et aucun client n'en fait "
                                "attendre un autre.", add_help=False)
    parser.color = False  # 3.14 colours a usage on standard error if standard output is a terminal
    add = parser.add_argument_group("options").add_argument
    add("-h", "--help", action="help", help="affiche cette aide et quitte")
    add("-p", "--port", type=int, default=PORT, metavar="PORT",
        help=f"port d'écoute, de {PRIVILEGED_MAX + 1} à {PORT_MAX}, car ici les ports jusqu'à "
             f"{PRIVILEGED_MAX} comptent comme privilégiés (par défaut %(default)s)")
    add("-l", "--listen", default=LISTEN, metavar="ADRESSE",
        help="adresse IPv4 ou IPv6 de cette machine sur laquelle écouter (par défaut %(default)s)")
    add("--log-file", metavar="FICHIER",
        help="journal (par défaut {}, sinon {} dans le dossier courant)".format(*LOG_FILES))
    add("-v", "--verbosity", action="store_true",
        help="écrit aussi les lignes DEBUG, soit la fin de chaque connexion et, si elle a été "
             "rompue, pourquoi")
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
            exit_with_error(f"Impossible de démarrer : {reason(error)}", 4)
        try:
            log.info("Le serveur tourne sur %s", printable(endpoint(ip, port)))
            if journal and not journal.failed:
                log.info("Journal : %s", printable(journal.baseFilename))
            elif not journal:
                log.warning("Aucun journal ne peut être ouvert : "
                            "seule la console reçoit les lignes.")
            server.run()
        except OSError as error:
            log.error("Le serveur ne peut plus écouter : %s", reason(error))
            sys.exit(4)
        finally:
            server.close()


def main(argv: "list | None" = None) -> int:
    """Run the server with the options in `argv` (None: sys.argv).

    Returns the exit code: 0 after Ctrl-C, else one of README's table.
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
