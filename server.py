#!/usr/bin/env python3
"""bs server: one message in, one reply out, and no client makes another wait.

It imports five modules and no other: those of the exercise that it grew out of ("the notes"
below). So there are no threads, and no `select` to tell who has spoken: it looks at each client
again and again. Where you may, ask `selectors`; the rest here stays the same. Three ideas, each of
which can be read without the others:

- `exchange`: what happens to one client, from top to bottom. It never waits. Where nothing has
  come to be read it stops, and the next look (`Client.look`) carries it on from there.
- `Waiting`: the clients that are not done, whose turn it is to be looked at, and who goes when
  there is no room. Looking costs a bounded part of the time, shared equally among the hosts, so
  that no host can take another's.
- `Server.run`: the loop, in five steps. Between two looks it sleeps in accept(2).

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
REPLIES = (  # the first word that the message contains decides; the empty one is in every message
    ("meo", "Meo à toi confrère."),
    ("waf", "ptdr t ki"),
    ("", "Mes respects humble humain."),
)
DECISIVE = REPLIES[0][0].encode()  # no later byte can change its reply
MESSAGE_MAX = 1024  # bytes that count: the notes' recv(1024)
ENDLESS = 1 << 20  # bytes (1 MiB) without an end: a thousand times what counts is no message
CHUNK = 1 << 12  # bytes a recv(2): LOOKS of these, from clients that pour, are no longer than ROUND
SILENCE = 0.2  # seconds that end a message which nothing else ends: longer than most round trips
LINGER = 2.0  # seconds of silence after the reply: what was still under way has arrived by then
FOREVER = float("inf")  # seconds: who has said nothing has no silence that could end a message

# Those who wait
SOON = 0.001  # seconds: a newcomer's first look, and the shortest wait that poll(2) can measure
ROUND = 0.02  # seconds between two rounds: nobody feels that
LOOKS = 500  # in a round: 25,000 a second are some tenth of a processor
NEWEST = 4  # one look in so many is for the newest of a crowd: they are the likeliest to speak
PATIENCE = 300.0  # seconds a client may take for all of it: time enough to look up what to type

# The loop
SLEEP = 1.0  # seconds at most: Windows delivers Ctrl-C only between waits
LONELY = 60.0  # seconds without a client before the log says so: its sentence speaks of a minute
BATCH = 16  # clients begun in a pass of the loop, before those who wait are looked at
PASS = 0.02  # seconds that count beside a wait, at most: what takes longer is a date that was set
WAITING_MAX = 10000  # clients, where the descriptors suffice: some 20 MB
WARN_EVERY = 1.0  # seconds between two warnings that there is no room: a flood is not one of lines
# What accept(2) says where there is nobody to begin: none is at the door, or who was has left
NOBODY = (BlockingIOError, socket.timeout, ConnectionError)

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
LOG_REFUSED = 5  # exit code where a file that was asked for does not open: not the client's
LOG_BYTES = 10000  # that a file holds at most, with one backup: the notes' figures
LOG_BACKUPS = 1  # which is written over: for more, they would have to be moved on
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
LOG_DATE = "%Y-%m-%d %H:%M:%S"
# What LOG_FORMAT does not use: not to look it up takes a fifth off a line's time (logging HOWTO)
LOG_UNUSED = ("logThreads", "logProcesses", "logMultiprocessing", "_srcfile")
NULL = "/dev/null"  # where it is missing (some chroots), no descriptor is kept for the backup
EVERYBODYS = re.compile(r"//?(dev/(?!shm/)|proc/)")  # what /dev/stdout leads to is not ours
COLOURS = {"INFO": "\033[37mINFO\033[0m", "WARN": "\033[33mWARN\033[0m"}  # ECMA-48, SGR

# What is shown
RED = "\033[31m{}\033[0m"
SPACES = "\xa0\u202f"  # of French typography: not printable, says Python
CUT = "… (coupé)"  # ends what is shown or logged in part


def reply_to(message: str) -> str:
    """Return the reply to `message`, by the first word of REPLIES that it contains."""
    for word, reply in REPLIES:
        if word in message:
            return reply


def exchange(connection: socket.socket, ip: str, log: logging.Logger):
    """Carry out the exchange with the client at `ip`, from its `connection` to its end.

    A generator: it yields where nothing has come to be read, or enough for one look, and is sent
    the time (seconds) of the look that carries it on. Once begun, however it ends, also by close(),
    it closes the connection.
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
        # To close under a client that still sends resets the connection, and the reply may be lost
        # with it (RFC 1122, 4.2.2.13). So it gets the end of our stream, and we await that of its.
        connection.send(reply.encode("utf-8"))  # it fits any send buffer: no wait
        connection.shutdown(socket.SHUT_WR)
        log.info('Réponse envoyée au client %s : "%s".', ip, reply)
        while received <= ENDLESS:
            data = yield from read(connection, LINGER, received)
            if not data:
                break
            received += len(data)
    except Endless:
        log.warning("Le client %s envoie sans fin : connexion coupée.", ip)
    except OSError as error:  # reset, or gone before its reply
        log.debug("Le client %s a rompu la connexion : %s", ip, reason(error))
    finally:
        attempt(connection.close)
        log.debug("Fin de la connexion du client %s.", ip)


class Endless(Exception):
    """A client has sent more than ENDLESS bytes, and its message has not ended."""


def receive(connection: socket.socket):
    """Return the message (bytes), and how many bytes have come: 0 if the client left without one.

    A generator as `exchange`. TCP carries a stream and knows no messages. One ends at the first of:
    a newline; the end of the stream; the word that no later byte can outdo, with nothing more
    waiting; and, for clients that end theirs with nothing at all, some silence. One that is longer
    than MESSAGE_MAX may come without its end. Raises Endless, and OSError if the client resets the
    connection.
    """
    line, received, silence = b"", 0, FOREVER
    while received <= ENDLESS:
        data = yield from read(connection, silence, received)
        if not data:
            return line, received
        received += len(data)
        line, newline, _ = (line + data).partition(b"\n")
        if newline:
            return line[:-1] if line.endswith(b"\r") else line, received
        line = line[:MESSAGE_MAX + 2]  # one more tells that it is too long, one may be its end's \r
        silence = 0.0 if DECISIVE in line[:MESSAGE_MAX] else SILENCE
    raise Endless


def read(connection: socket.socket, silence: float, received: int):
    """Return the bytes that come next; b"" at the end of the stream, or after `silence` seconds.

    A generator as `exchange`. A silence begins with the next look after the last byte: the time of
    the look that read it may be older than the byte. `received` is how many bytes have come before:
    after more than a message, each CHUNK waits for a look of its own, so that a client that pours
    takes nobody's time. Raises OSError if the client resets the connection.
    """
    if received > MESSAGE_MAX:
        yield
    since, silent = FOREVER, 0.0  # no look yet
    while True:
        try:
            return connection.recv(CHUNK)
        except BlockingIOError:
            if silent >= silence:
                return b""
        now = yield
        since = min(since, now)  # the first look's
        silent = now - since


class Client:
    """One client: a look at it carries its exchange on, and nobody need know how far it is."""

    __slots__ = ("ip", "host", "steps")  # there may be ten thousand

    def __init__(self, connection: socket.socket, ip: str, log: logging.Logger) -> None:
        """Take the accepted socket, the address at its other end, and the log."""
        self.ip = ip
        # Whose client it is: an IPv4 address, or the /64 of an IPv6 one (RFC 6177)
        self.host = ip
        if ":" in ip:
            self.host = socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])[:8]
        self.steps = exchange(connection, ip, log)

    def look(self, now: "float | None" = None) -> bool:
        """Carry the exchange on as far as it goes; return True if it is not done.

        `now` is the time in seconds; the first look, which begins it, has none (PEP 342).
        """
        try:
            self.steps.send(now)
        except StopIteration:
            return False
        return True

    def hang_up(self) -> None:
        """End the exchange where it stands, and close the connection."""
        self.steps.close()


def first(count: int, items) -> list:
    """Return the first `count` of `items`, or all, as itertools.islice would."""
    return [item for _, item in zip(range(count), items)]


class Group:
    """The clients of one host that wait. The keys of a dict are a set that keeps its order."""

    __slots__ = ("clients", "turns")

    def __init__(self) -> None:
        """Start with nobody."""
        self.clients = {}  # all of them, the oldest first
        self.turns = {}  # those who are no newcomers any more, in the order of their turns

    def take_turns(self, count: int) -> list:
        """Return `count` clients whose turn it is, or all; they go to the end of the turns.

        Of a crowd, one in NEWEST is of its newest.
        """
        if len(self.turns) <= count:  # or the newest would be taken twice
            return list(self.turns)
        backwards = reversed(list(self.clients))  # before 3.8 a dict cannot be reversed
        newest = first(count // NEWEST, (client for client in backwards if client in self.turns))
        for client in newest:
            self.turns[client] = self.turns.pop(client)
        others = first(count - len(newest), self.turns)
        for client in others:
            self.turns[client] = self.turns.pop(client)
        return newest + others


class Waiting:
    """The clients that are not done: whose turn it is, and who goes when there is no room.

    A newcomer is about to speak, and is looked at each time its age has doubled. From then on it
    has its turn in rounds, which the hosts share equally. Nothing is fixed ahead: a round is shared
    among those who are there when it comes. There is no socket here and no clock: `now` is the
    time, in seconds.
    """

    def __init__(self) -> None:
        """Start with nobody."""
        self.clients = {}  # client: when it came (seconds), the oldest first
        self.newcomers = {}  # client: when its next look is due (seconds)
        self.groups = {}  # host: its Group, in the order of the hosts' turns
        # [count]: the Groups of so many clients or more. To search all of them for the largest,
        # each time one is let go, would saturate a core
        self.at_least = [{}]
        self.next_round = 0.0  # seconds

    def add(self, client: Client, now: float) -> None:
        """Let `client`, who has come `now`, wait."""
        group = self.groups.setdefault(client.host, Group())
        group.clients[client] = None
        if len(group.clients) == len(self.at_least):
            self.at_least.append({})
        self.at_least[len(group.clients)][group] = None
        self.clients[client] = now
        self.newcomers[client] = now + SOON

    def remove(self, client: Client) -> None:
        """Forget `client`, who waits."""
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
        """Return the seconds from `now` to the next look that is due; SLEEP where nobody waits."""
        dues = list(self.newcomers.values())
        if len(dues) < len(self.clients):  # somebody is no newcomer
            dues.append(self.next_round)
        return min(dues) - now if dues else SLEEP

    def take_newcomers(self, now: float) -> list:
        """Return, and count as looked at, the newcomers whose age has doubled since they last were.

        Who is older than ROUND is no newcomer any more, and has its turn in rounds.
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
        """Return, and count as looked at, the clients whose turn it is: LOOKS at most, each ROUND.

        The hosts share the looks equally, and what one cannot use is the others': who has the
        fewest clients takes first, an equal part of what is left. Where there are more hosts than
        looks, they too have turns.
        """
        if now < self.next_round:
            return []
        self.next_round = now + ROUND
        hosts = first(LOOKS, (host for host, group in self.groups.items() if group.turns))
        hosts.sort(key=lambda host: len(self.groups[host].turns))
        clients = []
        for number, host in enumerate(hosts):
            group = self.groups[host] = self.groups.pop(host)  # to the end
            clients += group.take_turns((LOOKS - len(clients)) // (len(hosts) - number))
        return clients

    def overdue(self, now: float) -> list:
        """Return the clients with whom the patience is over."""
        clients = []
        for client, came in self.clients.items():
            if now - came < PATIENCE:
                break
            clients.append(client)
        return clients

    def oldest_of_most(self) -> Client:
        """Return the oldest client of the host that has the most.

        So no host loses one while another has more.
        """
        group = next(iter(self.at_least[-1]))
        return next(iter(group.clients))


class Clock:
    """The seconds that pass, by the stamps that logging puts on its records, for want of `time`."""

    def __init__(self) -> None:
        """Start at 0 seconds."""
        self.now = 0.0
        self.stamp = logging.makeLogRecord({}).created

    def advance(self, wait: float) -> None:
        """Set `now`, after the loop has waited for `wait` seconds at most.

        The stamp is a date. A step back counts for nothing, and one forward for no more than the
        wait and a pass can take: the date was set, or the process was stopped.
        """
        stamp = logging.makeLogRecord({}).created
        self.now += min(max(stamp - self.stamp, 0.0), wait + PASS)
        self.stamp = stamp


class Server:
    """The loop: it begins the exchange of each client that comes, and carries on those who wait."""

    def __init__(self, listener: socket.socket, log: logging.Logger) -> None:
        """Take the listening socket and the log.

        Raises OSError if no descriptor would be left for a client.
        """
        self.listener = listener
        self.log = log
        self.clock = Clock()
        self.waiting = Waiting()
        self.alone_since = 0.0  # when the last client was here, or the log last said that none is
        self.failure = None  # of accept(2), that the log has not said yet
        self.let_go = []  # the addresses of those let go that the log has not said yet
        self.last_warn = 0.0  # when the log last had occasion to say either (seconds)
        # To which nothing ever comes; made now, since later no descriptor may be left
        self.idle = attempt(socket.socket, listener.family, socket.SOCK_DGRAM)
        if not self.has_descriptor():
            self.close()
            raise OSError("Il ne reste aucun descripteur pour un client.")

    def run(self) -> None:
        """Serve until KeyboardInterrupt. Raises OSError where the listener listens no more."""
        while True:
            self.begin_who_comes()
            self.look_at(self.waiting.take_newcomers(self.clock.now))
            self.look_at(self.waiting.take_round(self.clock.now))
            self.end_overdue(self.waiting.overdue(self.clock.now))
            self.report()

    def begin_who_comes(self) -> None:
        """Sleep until somebody comes or the next look is due; begin with who comes, BATCH at most.

        Each is begun before the next is accepted: who is done at once takes nobody's descriptor.
        """
        wait = max(self.waiting.until_next(self.clock.now), SOON)
        for _ in range(BATCH):
            visitor = self.accept(wait)
            if wait:  # nothing else takes long
                self.clock.advance(wait)
            if not visitor:
                break
            self.begin(*visitor)
            # Not to wait saves a poll(2) each, but hides a lack of descriptors (see accept)
            wait = SOON if self.failure else 0.0

    def accept(self, wait: float) -> "tuple | None":
        """Return who comes to the door in `wait` seconds, as (socket, address); None if nobody.

        None too if nobody can come in. Where no descriptor is left, one who waits is let go. Any
        other failure of accept(2) is the network's, and nobody's fault who is here. Raises OSError
        where the listening socket listens no more.
        """
        self.listener.settimeout(wait)
        try:
            return self.listener.accept()
        except NOBODY:
            return None
        except OSError as error:
            if not wait:
                # accept(2) asks for a descriptor before it looks whether anybody is there. The
                # next one waits, in poll(2), which looks at the door alone.
                return None
            if attempt(self.listener.getsockopt, socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0:
                raise  # it listens no more: the system has taken it away (ss -K)
            self.failure = reason(error)
        visitor = None
        if self.waiting.clients and not self.has_descriptor():
            self.let_one_go()
            visitor = attempt(self.listener.accept)  # unless somebody else takes its descriptor
        if not visitor:
            self.rest()
        return visitor

    def has_descriptor(self) -> bool:
        """Return True if the system has a descriptor left for us."""
        probe = attempt(socket.socket, self.listener.family)
        if probe:
            probe.close()
        return bool(probe)

    def rest(self) -> None:
        """Do nothing for a moment: accept(2) would fail again at once."""
        if self.idle:  # some sandboxes forbid datagrams
            self.idle.settimeout(ROUND)
            attempt(self.idle.recv, 1)  # for want of `time`

    def begin(self, connection: socket.socket, address: tuple) -> None:
        """Begin the exchange of a client that was accepted; unless it is done at once, it waits."""
        now = self.alone_since = self.clock.now  # report() sees only those who wait
        # macOS accepts a connection that is already gone, with no address at all
        ip = IPV4_MAPPED.sub("", address[0]) if address else "inconnu"
        client = Client(connection, ip, self.log)
        if client.look():
            self.waiting.add(client, now)
            if len(self.waiting.clients) > WAITING_MAX:
                self.let_one_go()

    def look_at(self, clients: list) -> None:
        """Carry on each of `clients`; who is done waits no longer."""
        for client in clients:
            if not client.look(self.clock.now):
                self.waiting.remove(client)

    def end_overdue(self, clients: list) -> None:
        """Hang up on each of `clients`, with whom the patience is over."""
        for client in clients:
            if self.end(client):
                self.log.warning("Le client %s tarde trop : connexion fermée.", client.ip)

    def let_one_go(self) -> None:
        """Hang up on one who waits, since there is no room: one of the host that has the most."""
        client = self.waiting.oldest_of_most()
        if self.end(client):
            self.let_go.append(client.ip)

    def end(self, client: Client) -> bool:
        """Look at `client` a last time, so that a message that has ended is answered, and hang up.

        Returns True if it was not done by then.
        """
        self.waiting.remove(client)
        undone = client.look(self.clock.now)
        client.hang_up()
        return undone

    def report(self) -> None:
        """Say what is to be said, none of it too often."""
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
        """Say why accept(2) failed and how many were let go, if so, since this was last said."""
        if self.failure:
            self.log.warning("Impossible d'accepter un client : %s", self.failure)
        if self.let_go:
            self.log.warning("Trop de clients en attente ; écartés : %d (le dernier : %s).",
                             len(self.let_go), self.let_go[-1])
        self.failure, self.let_go = None, []

    def close(self) -> None:
        """Say what is held back, look at each client a last time, and close what was opened."""
        self.warn()
        for client in self.waiting.clients:
            client.look(self.clock.now)
            client.hang_up()
        if self.idle:
            self.idle.close()


def address_of(text: str) -> str:
    """Return the IPv4 or IPv6 address that `text` is, without the brackets of an endpoint.

    Raises SystemExit if it is none. What counts is inet_pton(3): getaddrinfo(3) would take 1.2.3
    for 1.2.0.3, `*` for ::1, and digits of any alphabet.
    """
    ip = re.sub(r"^\[(?=.*:)(.*)\]$", r"\1", text)
    try:
        if ":" in ip:
            socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])
        else:
            socket.inet_pton(socket.AF_INET, ip)
    except (OSError, ValueError):
        refuse(f"L'adresse spécifiée {printable(text)} n'est pas une adresse IP valide.", 3)
    return ip


def listen(ip: str, port: int) -> socket.socket:
    """Return a socket that listens on `ip`, IPv4 or IPv6, and `port`.

    Raises SystemExit if the system will not have us listen there.
    """
    listener = None
    try:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        # In bytes: for a text Python loads the IDNA codec, which knows names and no address
        host = ip.encode("utf-8", "surrogateescape")
        info = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        listener = socket.socket(family, socket.SOCK_STREAM)
        # A restarted server listens at once, although the kernel still holds connections of the
        # last one (socket(7)). Windows takes that option for port sharing, and has one against it.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        attempt(listener.setsockopt, socket.SOL_SOCKET, option, 1)
        # On Linux the reply leaves in one segment with the end of the stream: tcp(7)
        option = getattr(socket, "TCP_CORK", socket.TCP_NODELAY)
        attempt(listener.setsockopt, socket.IPPROTO_TCP, option, 1)
        # Urgent bytes (telnet's interrupt) are bytes of the message: RFC 6093, section 5
        attempt(listener.setsockopt, socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        # Or "::" is IPv6 alone, as it always is on OpenBSD: ipv6(7). IPv4 has no such option
        attempt(listener.setsockopt, IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, *info[0][4][1:]))  # the port; of IPv6 the flow and the interface too
        listener.listen(BACKLOG)
    except (OSError, ValueError) as error:
        if listener:
            listener.close()
        place = printable(endpoint(ip, port))
        refuse(f"Impossible d'écouter sur {place} : {reason(error)}", 4)
    return listener


# From here to Parser line for line as in client.py: each file runs alone


def endpoint(ip: str, port: int) -> str:
    """Return `ip` and `port` as one word, an IPv6 address in brackets (RFC 5952, section 6)."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def printable(text: str) -> str:
    """Return `text`, every character escaped that could forge a line or act on a screen.

    What is not printable might; the spaces of French typography do neither.
    """
    if text.isprintable():
        return text
    # repr() and no codec: that would be loaded now, where clients may have every descriptor
    return "".join(c if c.isprintable() or c in SPACES else repr(c)[1:-1] for c in text)


def attempt(call, *args):
    """Return what `call` gives for `args`, or None if that fails: it is done without."""
    try:
        return call(*args)
    except (OSError, ValueError):
        return None


def reason(error: Exception) -> str:
    """Return what `error` says, as a sentence: the system's words, or else its own."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].upper() + text[1:].rstrip(".") + "."


def escaped(text: str, encoding: str) -> str:
    """Return `text`, every character escaped that `encoding` does not have."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(text: str, stream) -> None:
    """Write `text` on `stream`, a standard one, whatever characters that can encode.

    Raises OSError if there is none (None), or nobody can read it there; ValueError if it is closed.
    """
    if stream is None:
        raise OSError("Il n'y a pas de sortie où afficher la réponse.")
    try:
        stream.write(text)
    except UnicodeEncodeError:
        try:
            stream.write(escaped(text, stream.encoding))
        except (AttributeError, LookupError, TypeError, ValueError):  # another program's own
            stream.write(escaped(text, "ascii"))
    stream.flush()


def end_streams() -> None:
    """Flush the standard streams, and close one that fails: Python's exit would fail there too."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except AttributeError:  # none, or another program's own
            pass
        except (OSError, ValueError):
            attempt(getattr(stream, "close", bool))


def is_terminal(stream) -> bool:
    """Return True if `stream`, a standard one, is a terminal."""
    try:
        return stream.isatty()
    except (AttributeError, OSError, ValueError):  # none, another program's own, or closed
        return False


def is_coloured(stream) -> bool:
    """Return True if `stream`, a standard one, is a terminal that shows colours."""
    return sys.platform != "win32" and is_terminal(stream)


def leave(text: str, code: int) -> None:
    """Say `text` on standard error, if there is one, and exit: raises SystemExit(`code`)."""
    attempt(say, f"{text}\n", sys.stderr)  # or nobody can read it there: the code says it
    sys.exit(code)


def error_line(sentence: str) -> str:
    """Return `sentence` as an ERROR for standard error: red on a terminal."""
    return (RED if is_coloured(sys.stderr) else "{}").format(f"ERROR {sentence}")


def refuse(sentence: str, code: int) -> None:
    """Say `sentence` as an ERROR and exit: raises SystemExit(`code`)."""
    leave(error_line(sentence), code)


class Line(logging.Formatter):
    """The notes' line, with WARN for WARNING: made once for both outputs, one date a second."""

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
            self.record = record  # last, as `second` above: Ctrl-C may come in between
        return self.line


class Output:
    """What both handlers do otherwise than the stock ones: a line is most of an exchange's time.

    A stock handler takes two locks a line, which one thread does not need, and shows a traceback a
    line when it fails. This one writes the line at once; if that fails, the other output, if there
    is one, says why, once, and the service goes on. The next line is tried again.
    """

    failed = False

    def handle(self, record: logging.LogRecord) -> None:
        """Write the line of `record`, or let the other output say why that failed."""
        try:
            self.write(self.formatter.format(record) + self.terminator)
        except (OSError, ValueError) as error:
            if not self.failed:  # or a disk that is nearly full would be told of without end
                self.failed = True
                logging.getLogger(__name__).warning("%s ne fonctionne plus : %s",
                                                    self.what, reason(error))


class Journal(Output, logging.handlers.RotatingFileHandler, logging.handlers.WatchedFileHandler):
    """The log file; where it is ours to empty, neither it nor its backup grows past LOG_BYTES.

    Stock rotation renames the file. That is refused where another program has it open (Windows),
    or where the file was given to us and not its folder, and replaces a link by a file. This one
    copies it and empties it: the same file goes on. One that was moved or removed is left as it is,
    and another begun.
    """

    def __init__(self, path: str) -> None:
        """Open the file at `path` to append to. Raises OSError or ValueError if that cannot be."""
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=LOG_BACKUPS, encoding="utf-8")
        self._statstream()  # for reopenIfNeeded: which file this is
        # A descriptor for the backup: clients may have all others
        self.spare = attempt(open, NULL, "rb")
        self.what = f"Le journal {printable(self.baseFilename)}"
        self.backup = f"{self.baseFilename}.{self.backupCount}"
        self.warned = False  # that the backup cannot be written
        # Whether the last line has no end, of a run that was killed; None: it cannot be read back
        self.half = attempt(self.newest, 1) not in (None, b"", b"\n")

    def _open(self):
        """Return the file, in bytes, which are what counts, and with no buffer.

        It is opened twice. The first time only to write, as any file may be that was given to us: a
        pipe opened to be read too would have us as its reader. The second time, if it is ours to
        empty, to be read back too by the handle that stays: ext4 writes a file out when any handle
        on it is closed after it was emptied, which takes longer than all the rest.
        """
        file = open(self.baseFilename, "ab", 0)
        self.ours = file.seekable() and not EVERYBODYS.match(self.baseFilename)
        readable = attempt(open, self.baseFilename, "a+b", 0) if self.ours else None
        if readable:
            attempt(file.close)
        return readable or file

    def size(self) -> int:
        """Return the bytes of the file, opened if it is not. Raises OSError if it fails."""
        if not self.stream or self.stream.closed:  # it did not open when it had moved
            self.stream = self._open()
            self._statstream()
        return self.stream.seek(0, 2)

    def newest(self, count: int) -> bytes:
        """Return the last `count` bytes of the file, or all. Raises OSError if it fails."""
        self.stream.seek(max(self.size() - count, 0))
        return self.stream.read(count)

    def write(self, line: str) -> None:
        """Append `line` to the file, emptied if that would overflow. Raises OSError if it fails."""
        data = line.encode(self.encoding)
        if self.half:
            self.append(b"\n")
        if self.ours:
            if len(data) > self.maxBytes:  # a path or a host may be as long
                end = (CUT + self.terminator).encode(self.encoding)
                kept = data[:self.maxBytes - len(end)].decode(self.encoding, "ignore")
                data = kept.encode(self.encoding) + end
            if self.size() + len(data) > self.maxBytes:
                self.rotate(len(data))
        self.append(data)

    def append(self, data: bytes) -> None:
        """Append `data` to the file. Raises OSError if not all of it can be."""
        while data:  # a raw write may take a part only
            count = self.stream.write(data)
            if count is None:  # a pipe that is full, and does not wait
                raise OSError("Personne ne lit ce qu'il contient déjà.")
            data = data[count:]
            self.half = bool(data)

    def rotate(self, size: int) -> None:
        """Copy the newest bytes to the backup, and make room for `size` bytes even if that fails.

        Raises OSError if there is none. Ctrl-C at worst leaves lines in both, and the end of an
        older backup.
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
            with backup:  # written over, then cut: ext4 writes out what was emptied (see _open)
                backup.write(newest)
                backup.truncate()
        except OSError as error:
            failure = error
        finally:
            attempt(self.reopenIfNeeded)  # if the name leads to our file no longer
            self.spare = attempt(open, NULL, "rb")
        if self.size() + size > self.maxBytes:
            self.stream.truncate(0)
        if failure and not self.warned:
            self.warned = True
            logging.getLogger(__name__).warning("La sauvegarde %s ne peut être écrite : %s",
                                                printable(self.backup), reason(failure))

    def close(self) -> None:
        """Close the file."""
        if self.spare:
            attempt(self.spare.close)
        attempt(super().close)  # a full disk may be told only now (NFS)


class Console(Output, logging.StreamHandler):
    """The log on standard error; a terminal shows the level's word in colour, but on Windows."""

    what = "La console"

    def __init__(self) -> None:
        """Take standard error."""
        super().__init__()
        self.coloured = is_coloured(self.stream)

    def write(self, line: str) -> None:
        """Write `line`. Raises OSError or ValueError if that cannot be."""
        if self.coloured:
            day, time, level, message = line.split(" ", 3)
            line = f"{day} {time} {COLOURS.get(level, level)} {message}"
        say(line, self.stream)


def open_journal(path: "str | None") -> "Journal | None":
    """Return the log file at `path`; None: the first of LOG_FILES that opens, if one does.

    Raises SystemExit if a `path` that was asked for does not open.
    """
    if path is None:
        return attempt(Journal, LOG_FILES[0]) or attempt(Journal, LOG_FILES[1])
    try:
        return Journal(path)
    except (OSError, ValueError) as error:
        refuse(f"Impossible d'ouvrir le journal {printable(path)} : {reason(error)}", LOG_REFUSED)


class Log:
    """The log of one run, for a `with` that gives the logger and leaves `logging` as it was."""

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
        """Set `logging` up as the notes do."""
        vars(logging).update(dict.fromkeys(LOG_UNUSED))
        formatter = Line()
        for output in self.outputs:
            output.setFormatter(formatter)
            self.log.addHandler(output)
        self.log.setLevel(self.level)
        self.log.propagate = False  # or a handler of the root would write each line again
        return self.log

    def __exit__(self, *error) -> None:
        """Take down what was set up."""
        vars(logging).update(self.found)
        self.log.setLevel(self.level_found)
        self.log.propagate = self.propagate_found
        for output in self.outputs:
            self.log.removeHandler(output)
            output.close()


class Parser(argparse.ArgumentParser):
    """An argparse parser that prints in any locale, and to nobody where nobody reads."""

    def _print_message(self, message: str, file) -> None:
        """Print `message` on `file`, as argparse asks: None where a standard stream is closed."""
        attempt(say, message, file)

    def error(self, message: str) -> None:
        """Refuse with the usage and argparse's `message`: stock, that may go to standard output."""
        leave(f"{self.format_usage()}{self.prog}: error: {message}", 2)


def parse(argv: "list | None") -> argparse.Namespace:
    """Return the options in `argv` (None: sys.argv). Raises SystemExit on misuse."""
    parser = Parser(description="Serveur bs : un message, une réponse, et aucun client n'en fait "
                                "attendre un autre.", add_help=False)
    parser.color = False  # 3.14 colours a usage on standard error if standard output is a terminal
    add = parser.add_argument_group("options").add_argument
    add("-h", "--help", action="help", help="affiche cette aide et quitte")
    add("-p", "--port", type=int, default=PORT, metavar="PORT",
        help=f"port d'écoute, de {PRIVILEGED_MAX + 1} à {PORT_MAX} ; ici, les ports jusqu'à "
             f"{PRIVILEGED_MAX} comptent comme privilégiés (défaut : %(default)s)")
    add("-l", "--listen", default=LISTEN, metavar="ADRESSE",
        help="adresse IPv4 ou IPv6 de cette machine sur laquelle écouter (défaut : %(default)s)")
    add("--log-file", metavar="FICHIER",
        help="journal (défaut : {}, sinon {} dans le dossier courant)".format(*LOG_FILES))
    add("-v", "--verbosity", action="store_true",
        help="écrit aussi les lignes DEBUG : la fin de chaque connexion, et sa cause")
    add("--version", action="version", version=f"%(prog)s {VERSION}",
        help="affiche la version et quitte")
    args = parser.parse_args(argv)
    if not 0 <= args.port <= PORT_MAX:
        refuse(f"Le port spécifié n'est pas un port possible (de 0 à {PORT_MAX}).", 1)
    if args.port <= PRIVILEGED_MAX:
        refuse("Le port spécifié est un port privilégié. "
               f"Spécifiez un port au dessus de {PRIVILEGED_MAX}.", 2)
    args.listen = address_of(args.listen)
    return args


def serve(ip: str, port: int, journal: "Journal | None", log: logging.Logger) -> None:
    """Serve on `ip` and `port` until KeyboardInterrupt. Raises SystemExit where that cannot be."""
    with listen(ip, port) as listener:
        try:
            server = Server(listener, log)
        except OSError as error:
            refuse(f"Impossible de démarrer : {reason(error)}", 4)
        try:
            log.info("Le serveur tourne sur %s", printable(endpoint(ip, port)))
            if journal:
                log.info("Journal : %s", printable(journal.baseFilename))
            else:
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
        # Before it listens: to open a pipe that nobody reads yet takes until somebody does
        journal = open_journal(args.log_file)
        with Log(journal, args.verbosity, console=True) as log:
            try:
                serve(args.listen, args.port, journal, log)
            except KeyboardInterrupt:
                log.info("Arrêt du serveur.")
    except KeyboardInterrupt:
        pass  # before it served
    except SystemExit as end:  # a refusal, the help or the version
        return end.code
    finally:
        end_streams()
    return 0


if __name__ == "__main__":
    sys.exit(main())
