"""What needs no kernel: simulations, in which parts of server.py run without one, and none waits.

1. `Exchanges`: one client's exchange meets a script. 2. `Turns`: whose turn it is, with no socket
at all. 3. `Loops`: the whole loop, in a world of a listener, descriptors, errors and a date.

A script is what a client says and when: [(seconds, bytes, END or RESET)]. `owed` and `closing` say
from the script alone what README promises, and `judge` holds that against what came of it. To add a
kind of client, draw its script in `drawn`, or give a world one of its own:

    def test_two_words_in_one_line(self):
        world = World()
        peer = world.client(1.0, (0.0, b"waf "), (0.1, b"meo\n"))
        world.run(10)
        judge(peer)

A failure tells the client's story and the seed that gives it again: `make worlds SEED=123`;
`make worlds N=1000` draws a thousand of them.
"""

import collections
import gc
import itertools
import os
import random
import re
import socket
import sys
import types
import unittest
import unittest.mock

import server

END, RESET = "<end>", "<reset>"  # what a client may say beside bytes
FOREVER = float("inf")
# Not taken from server.py: a judge has its own figures
MEO, WAF, HUMAN = "Meo à toi confrère.", "ptdr t ki", "Mes respects humble humain."
CHUNK = 1 << 12  # bytes that a look reads, once the message has ended
LOOKS_PER_ROUND = 500
ROUND = 0.02  # seconds
RESERVE = 8  # descriptors
BYTE = 1e-8  # seconds that one takes to be read, from a client that pours on a machine of two cores
PASS_MAX = 0.02  # seconds that a pass of the loop may take
LINES = 3  # of INFO, that an exchange has
LATE = 3 * (ROUND + PASS_MAX)  # seconds: looks for a byte, for its silence and for the end of that
SEEDS = ([int(os.environ["SEED"])] if os.environ.get("SEED")
         else range(int(os.environ.get("N") or 25)))
# Pieces of the scripts of which all are played: with three it takes half a minute
PIECES_MAX = 3 if len(SEEDS) >= 500 else 2
if not SEEDS:
    raise SystemExit("N=0: no world is played")


def each_seed(play):
    """Make of `play(self, seed)` a test that plays each of SEEDS and tells which one fails."""
    def test(self):
        for number, seed in enumerate(SEEDS):
            if len(SEEDS) == 1 or number and not number % 100:
                print(f" {seed}", end="", file=sys.stderr, flush=True)
            try:
                play(self, seed)
            except Exception as error:
                raise AssertionError(f"{error}\nagain: make worlds SEED={seed}") from error
    return test


# What is owed


def reply_owed(message):
    """Return the reply that README's table has for `message` (bytes)."""
    return MEO if b"meo" in message else WAF if b"waf" in message else HUMAN


def owed(script):
    """Return the reply (None: none) owed for this `script`, and when its message ends."""
    text, last = b"", FOREVER
    for at, what in script:
        if at - last > 0.2:
            break
        if what in (END, RESET):
            return (reply_owed(text) if text and what is END else None), at
        text, last = (text + what)[:1024], at
        if b"\n" in text:
            return reply_owed(text.partition(b"\n")[0]), at
        if b"meo" in text or len(text) == 1024:
            return reply_owed(text), at
    return (reply_owed(text) if text else None), last + 0.2 if text else FOREVER


def closing(script, replied):
    """Return when the connection is closed, whose reply went out at `replied` seconds."""
    last = replied
    for at, what in script:
        if at - last > 2.0:
            break
        if what in (END, RESET):
            return max(at, replied)
        last = max(at, replied)
    return last + 2.0


def judge(peer, late=LATE, until=FOREVER):
    """Fail with the story of `peer` unless it got what it was owed, `late` seconds late at most."""
    if peer.accepted is None:
        raise AssertionError(f"no client is left in the queue\n{peer}")
    reply, end = owed(peer.script)
    reset = min([at for at, what in peer.script if what is RESET], default=FOREVER)
    end = max(end, peer.accepted)
    # What follows the message takes a look for each piece, and for each CHUNK of it
    looks = sum(1 + len(what) // CHUNK for _, what in peer.script)

    def check(holds, promise):
        if not holds:
            raise AssertionError(f"{promise}: owed {reply!r} at {end:.4f} s\n{peer}")
    if min(end, reset) + late > min(until, peer.accepted + 300):
        return  # the world, or the patience, has ended before its message: nothing is owed
    check(not peer.hung_up, "no client is hung up on")
    check(len(peer.replies) <= 1, "there is one reply")
    if reset > end + late:
        check(peer.replies == ([reply.encode()] if reply else []), "the reply is the table's")
    if peer.replies:
        check(end - 1e-6 <= peer.replied <= end + late, "the reply comes when the message ends")
        close = closing(peer.script, peer.replied)
    else:
        close = min(end, reset)
    late += looks * (ROUND + PASS_MAX)
    if close + late < min(until, peer.accepted + 300):
        check(peer.closed is not None and close - 1e-6 <= peer.closed <= close + late,
              f"the connection is closed at {close:.4f} s")
        check(peer.replies == [] or peer.shut, "the reply has an end")


class Scripted:
    """The server's socket of a client that follows a script."""

    def __init__(self, world, at, ip, script, leaves):
        """Connect at `at` (seconds; the script counts from there), and end `leaves` s after the
        reply, or never (None): that is added to the script then. `world` has the time as `now`."""
        self.world, self.at, self.ip, self.leaves = world, at, ip, leaves
        self.script = [(at + after, what) for after, what in script]
        self.unread = self.script[::-1]  # the next last
        self.accepted, self.closed, self.replied = at, None, None
        self.replies, self.shut, self.hung_up = [], False, False

    def __repr__(self):
        said = ", ".join(f"{at:.4f} s {what[-30:]!r} ({len(what)})" for at, what in self.script[:9])
        return (f"{self.ip} at {self.at:.4f} s says {said or 'nothing'}; accepted "
                f"{self.accepted}, replied {self.replied} {self.replies}, closed {self.closed}"
                + (", hung up on" if self.hung_up else ""))

    def setblocking(self, blocking):
        """Do as a socket."""
        assert not blocking

    def recv(self, count):
        """Do as a socket."""
        self.world.takes_time()
        if not self.unread or self.unread[-1][0] > self.world.now:
            raise BlockingIOError(11, "again")
        at, what = self.unread[-1]
        end, last = self.unread[0]
        if last is RESET and end <= self.world.now:
            raise ConnectionResetError(104, "reset")
        if what is END:
            return b""
        self.unread[-1:] = [(at, what[count:])] if what[count:] else []
        self.world.takes_time(len(what[:count]))
        return what[:count]

    def send(self, data, flags=0):
        """Do as a socket."""
        self.world.takes_time()
        self.replies.append(data)
        self.replied = self.world.now
        return len(data)

    def shutdown(self, how):
        """Do as a socket; the client leaves, unless it has left or never will."""
        self.shut = how == socket.SHUT_WR
        if self.leaves is not None and (not self.script or self.script[-1][1] not in (END, RESET)):
            last = self.script[-1][0] if self.script else 0.0
            self.script.append((max(self.world.now, last) + self.leaves, END))
            self.unread.insert(0, self.script[-1])

    def close(self):
        """Do as a socket; to close a generator is to hang up."""
        if self.closed is None:
            self.closed = self.world.now
            self.hung_up = sys.exc_info()[0] is GeneratorExit
            self.world.has_closed(self)


def drawn(chance):
    """Return a script as a client may follow it, and when it leaves after the reply.

    Pieces are less than 0.2 s apart, or so far that the silence has been seen.
    """
    pieces = [chance.choice([b"waf", b"meo", b"w", b"af", b"me", b"o", b"\r", b"\xff", b" ",
                             b"x" * chance.randrange(1, 1100), b"x" * chance.randrange(1015, 1028)])
              for _ in range(chance.randrange(1, 7))]
    pieces[-1] += chance.choice([b"", b"\n", b"\r\n", b"\nmeo"])
    pours = chance.random() < 0.03
    if pours:
        pieces = [b"x" * 65536] * chance.randrange(1, 9)
    at, script = chance.choice([0.0, chance.uniform(0, 0.03), chance.uniform(0, 3)]), []
    for piece in pieces:
        script.append((at, piece))
        at += chance.choice([0.0, chance.uniform(0, 0.01), chance.uniform(0, 0.2), 0.1999])
    if chance.random() < 0.2:
        at += 9 if pours else chance.choice([0.35, chance.uniform(0.35, 1.7),
                                             chance.uniform(2.6, 4)])
        script.append((at, b"meo\n"))
    if chance.random() < 0.3:
        script.append((at, chance.choice([END, END, RESET])))
    return script, chance.choice([0.0, 0.01, chance.uniform(0, 1.9), None])


# 1. The exchange meets a script


class Stage:
    """The world of a single client: its time."""

    now = 0.0

    def takes_time(self, count=0):
        """Let a call take its time."""

    def has_closed(self, peer):
        """Take note of nothing."""


class Exchanges(unittest.TestCase):
    """An exchange gives what it owes, whenever it is looked at."""

    def play(self, script, leaves=0.01, chance=None, pace=None):
        """Return the client that follows `script`, looked at until it is done.

        `pace` is the least and the most seconds between two looks, if they are not drawn.
        """
        chance = chance or random.Random(0)
        stage, lines, ends = Stage(), [], []
        log = types.SimpleNamespace(info=lambda text, *args: lines.append(text % args),
                                    warning=lambda text, *args: lines.append(text % args),
                                    debug=lambda text, *args: ends.append(text % args))
        peer = Scripted(stage, 0.0, "192.0.2.1", script, leaves)
        client, now = server.Client(peer, peer.ip, log), None
        while not client.look(now) and stage.now < 60:
            stale = stage.now
            stage.now += chance.uniform(*pace or (0.0005, chance.choice([0.001, ROUND, ROUND])))
            now = max(now or 0.0, chance.uniform(stale, stage.now))  # the clock is read once a pass
        judge(peer)
        peer.lines, peer.ends = lines, ends
        self.assertEqual(peer.ends[-1:], ["Fin de la connexion du client 192.0.2.1."])
        return peer

    # Seconds between two looks, at least and at most: at random, seldom, or often
    paces = (0.0005, ROUND), (ROUND, ROUND), (0.008, 0.008)
    pieces = (b"w", b"af", b"waf", b"meo", b"\r", b"\n", b"\xff", b"x" * 1022, b"x" * 65536, END,
              RESET)
    gaps = (0.0, 0.1, 0.1999, 0.45, 2.7)  # seconds

    def test_of_every_short_script_the_oracle_is_right(self):
        scripts = (zip(itertools.accumulate(gaps), pieces) for count in range(1, PIECES_MAX + 1)
                   for pieces in itertools.product(self.pieces, repeat=count)
                   if not {END, RESET} & set(pieces[:-1])  # after which there is nothing
                   for gaps in itertools.product(self.gaps, repeat=count))
        for script, pace in zip(scripts, itertools.cycle(self.paces)):
            self.play(list(script), pace=pace)

    @each_seed
    def test_whatever_is_said_and_whenever_the_oracle_is_right(self, seed):
        for number in range(40):
            chance = random.Random(f"{seed} {number}")
            self.play(*drawn(chance), chance=chance)

    def test_silence_begins_with_the_byte_and_not_with_the_look_that_read_it(self):
        stage = Stage()
        peer = Scripted(stage, 0.0, "192.0.2.1", [(0.045, b"wa"), (0.242, b"f\n")], 0.0)
        client = server.Client(peer, peer.ip, unittest.mock.Mock())
        for stage.now, now in ((0.045, None), (0.05, 0.05), (0.241, 0.241), (0.243, 0.243)):
            client.look(now)  # the first began its pass 45 ms before
        self.assertEqual(peer.replies, [WAF.encode()])

    def test_meo_is_answered_at_the_first_look(self):
        peer = Scripted(Stage(), 0.0, "192.0.2.1", [(0.0, b"a meo")], 0.0)
        server.Client(peer, peer.ip, unittest.mock.Mock()).look()
        self.assertEqual(peer.replies, [MEO.encode()])

    def test_1024_bytes_end_a_message_and_the_log_has_them_however_they_came(self):
        for size in range(1018, 1028):
            for end in (b"meo", b"waf\r\n", b"\r\n", b"\n"):
                text = b"x" * size + end
                shown = re.sub("\r?\n.*", "", text[:1024].decode()).replace("\r", r"\r")
                for cut in range(1016, len(text)):
                    peer = self.play([(0.0, text[:cut]), (0.1, text[cut:]), (0.15, END)])
                    self.assertEqual(peer.lines[1], f'Le client 192.0.2.1 a envoyé "{shown}".')
        peer = self.play([(0.0, b"x" * 1024)], leaves=None)
        self.assertEqual((peer.replied, peer.replies), (0.0, [HUMAN.encode()]))  # at the first look

    def test_after_a_message_a_look_reads_one_chunk_at_most(self):
        for script, reads in (([(0.0, b"x" * 100000)], [2 * CHUNK] + [CHUNK] * 7),
                              ([(0.0, b"x" * 1000)] * 9, [3000, 1000, 1000]),
                              ([(0.0, b"waf\n")] * 300, [8, 4, 4])):
            peer = Scripted(Stage(), 0.0, "192.0.2.1", script, None)
            client, now, left = server.Client(peer, peer.ip, unittest.mock.Mock()), None, []
            for _ in reads:
                left.append(sum(len(what) for _, what in peer.unread))
                client.look(now)
                now = 0.0
            left.append(sum(len(what) for _, what in peer.unread))
            self.assertEqual([a - b for a, b in zip(left, left[1:])], reads)

    def test_what_the_log_says_is_what_was_said(self):
        lines = self.play([(0.0, b"\xff\x1b[2J wa"), (0.1, b"f\r\r\nmeo")]).lines
        self.assertEqual(len(lines), LINES)
        self.assertEqual(lines, ["Un client 192.0.2.1 s'est connecté.",
                                 r'Le client 192.0.2.1 a envoyé "\xff\x1b[2J waf\r".',
                                 'Réponse envoyée au client 192.0.2.1 : "ptdr t ki".'])
        self.assertEqual(len(self.play([(1.0, END)]).lines), 1)  # it left without a byte
        gone = self.play([(0.0, b"wa"), (0.1, RESET)])
        self.assertEqual((len(gone.lines), gone.ends[0]),
                         (1, "Le client 192.0.2.1 a rompu la connexion : Reset."))

    def test_an_exchange_leaves_no_object_behind(self):
        counts = []
        for _ in range(3):
            for _ in range(100):
                self.play([(0.0, b"waf"), (1.0, END)])
            gc.collect()
            counts.append(len(gc.get_objects()))
        self.assertLess(counts[-1] - counts[-2], 100)

    def test_a_close_that_fails_ends_nothing(self):
        peer = Scripted(Stage(), 0.0, "192.0.2.1", [(0.0, b"waf\n"), (0.0, END)], None)
        peer.close = unittest.mock.Mock(side_effect=OSError(5, "input/output error"))
        self.assertTrue(server.Client(peer, peer.ip, unittest.mock.Mock()).look())
        peer.close.assert_called_once_with()


# 2. Whose turn it is


class Waiter:
    """All that `Waiting` knows of a client."""

    def __init__(self, host):
        """Be of `host`."""
        self.host = host

    def __repr__(self):
        return f"a client of {self.host}"


class Turns(unittest.TestCase):
    """The laws of the scheduler: which client is looked at when, and which is evicted."""

    def wait(self, sizes, now=0.0, age=10.0):
        """Return a Waiting at `now`, and its clients by host: so many of each, no newcomers."""
        waiting, hosts = server.Waiting(), []
        for number, size in enumerate(sizes):
            hosts.append([Waiter(number) for _ in range(size)])
        for clients in hosts:
            for client in clients:
                waiting.add(client, now - age)
        while waiting.newcomers:
            waiting.take_newcomers(now)
        return waiting, hosts

    def looks(self, waiting, rounds):
        """Return how often each client is looked at in so many rounds, which must be lawful."""
        counts, now = {}, waiting.next_round
        for _ in range(rounds):
            chosen = waiting.take_round(now)
            self.assertEqual(len(set(chosen)), len(chosen), "none twice")
            self.assertEqual(len(chosen), min(LOOKS_PER_ROUND, len(waiting.clients)))
            self.assertEqual(waiting.take_round(now + 0.019), [], "a round each 20 ms")
            for client in chosen:
                counts[client] = counts.get(client, 0) + 1
            now += ROUND
        return counts

    @each_seed
    def test_each_client_has_a_turn_in_as_few_rounds_as_can_be_from_however_many_hosts(self, seed):
        chance = random.Random(seed)
        hosts = chance.choice([1, 2, 40, 5000])
        sizes = [chance.choice([1, chance.randrange(1, 2 + 9000 // hosts)]) for _ in range(hosts)]
        waiting, _ = self.wait(sizes)
        rounds = -(-sum(sizes) // LOOKS_PER_ROUND)
        self.looks(waiting, chance.randrange(4))
        self.assertEqual(len(self.looks(waiting, rounds)), sum(sizes))

    def test_a_crowd_that_has_left_costs_no_client_a_turn(self):
        waiting, hosts = self.wait([1] * 5000 + [100])
        self.looks(waiting, 3)
        for client, in hosts[:-1]:
            waiting.remove(client)
        self.assertEqual(set(waiting.take_round(FOREVER)), set(hosts[-1]))

    def test_a_newcomer_is_looked_at_each_time_its_age_has_doubled_up_to_300_ms(self):
        waiting, ages, now = server.Waiting(), [], 0.0
        waiting.add(Waiter(1), now)
        waiting.next_round = FOREVER
        while waiting.newcomers:
            self.assertLess(len(ages), 9)
            self.assertEqual(waiting.take_newcomers(now), [])  # not before, nor twice
            now += waiting.until_next(now)
            ages += [now] * len(waiting.take_newcomers(now))
        self.assertEqual([round(age * 1000) for age in ages], [2 ** count for count in range(9)])

    def test_a_newcomer_takes_its_turns_from_the_start(self):
        waiting, (crowd,) = self.wait([LOOKS_PER_ROUND])
        newcomer = Waiter(1)
        waiting.add(newcomer, 0.0)
        self.assertEqual(waiting.take_round(FOREVER), crowd)
        waiting.next_round = 0.0
        self.assertIn(newcomer, waiting.take_round(0.0))
        self.assertIn(newcomer, waiting.newcomers)

    @each_seed
    def test_no_client_is_looked_at_twice_in_one_pass(self, seed):
        chance = random.Random(seed)
        waiting, now = server.Waiting(), 0.0
        for _ in range(100):
            for _ in range(chance.choice([0, 1, 5])):
                waiting.add(Waiter(chance.randrange(3)), now)
            now += chance.choice([0.001, 0.005, waiting.until_next(now)])
            newcomers = [each for each, due_at in waiting.newcomers.items() if due_at <= now]
            looks = waiting.take_due(now)
            self.assertEqual(len(set(looks)), len(looks))
            self.assertLessEqual(set(newcomers), set(looks))
            self.assertGreater(waiting.until_next(now), 0)

    def test_until_the_next_look_is_until_the_next_round_or_that_of_a_newcomer(self):
        waiting, _ = self.wait([3])
        waiting.take_round(5.0)
        self.assertAlmostEqual(waiting.until_next(5.005), ROUND - 0.005)
        waiting.add(Waiter(1), 5.005)
        self.assertAlmostEqual(waiting.until_next(5.005), 0.001)
        self.assertEqual(server.Waiting().until_next(9.0), 1.0)

    @each_seed
    def test_the_victim_is_the_oldest_of_the_most_and_nothing_is_kept_of_one_gone(self, seed):
        chance, here, now = random.Random(seed), [], 0.0
        waiting = server.Waiting()
        for step in range(400):
            now += chance.uniform(0, 0.01)
            if here and chance.random() < (0.3 if step < 200 else 0.7):
                gone = chance.choice([waiting.victim(), chance.choice(here)])
                waiting.remove(gone)
                here.remove(gone)
            else:
                here.append(Waiter(chance.randrange(5)))
                waiting.add(here[-1], now)
            waiting.take_newcomers(now)
            waiting.take_round(now)
            hosts = [peer.host for peer in here]
            if here:
                oldest = waiting.victim()
                self.assertEqual(hosts.count(oldest.host), max(map(hosts.count, hosts)))
                self.assertIs(oldest, here[hosts.index(oldest.host)])
        for peer in here:
            waiting.remove(peer)
        empty = server.Waiting()
        self.assertEqual(dict(vars(waiting), next_round=0), dict(vars(empty), next_round=0))

    def test_when_a_client_came_is_known_however_often_it_is_looked_at(self):
        waiting, ((client,),) = self.wait([1], now=10.0, age=4.0)
        waiting.take_round(20.0)
        self.assertEqual(waiting.clients, {client: 6.0})


# 3. The loop in a world


def host_of(ip):
    """Return what counts as one host: an IPv4 address, or the first half of an IPv6 one."""
    return ip if "." in ip else socket.inet_pton(socket.AF_INET6, ip)[:8]


class World:
    """Clients, a listener, descriptors, a log and a clock, all made up, around the real Server."""

    def __init__(self, seed=0, descriptors=FOREVER, waiting_max=10000):
        """Begin at 0 seconds with no client, and so many `descriptors` for clients and the rest."""
        self.chance = random.Random(seed)
        self.descriptors, self.waiting_max = descriptors, waiting_max
        self.now = self.until = 0.0
        self.cost = self.chance.uniform(1e-6, 3e-6)  # seconds that a call of a socket takes
        self.clients, self.here, self.open, self.faults = [], {}, [], []
        self.errors = []  # (seconds, OSError): what accept(2) passes on, of no client here
        self.steps, self.stops = [], []  # (seconds, seconds): the clock is set; we are stopped
        self.line = 0.0  # seconds that the log takes to write a line
        self.mac = False  # whether it does not say that it listens
        self.datagrams = True  # whether it has sockets for them
        self.lowered = []  # (from, to, count) in seconds: only so many descriptors are left
        self.dups = 0  # how many of them the server has taken to count them
        self.killed = FOREVER  # seconds: when the system takes the listening socket away
        self.lines, self.timeout, self.accepts, self.family = [], None, 0, socket.AF_INET
        self.log = types.SimpleNamespace(
            info=lambda *record: self.write("INFO", *record),
            warning=lambda *record: self.write("WARN", *record),
            debug=lambda *record: self.write("DEBUG", *record))

    def client(self, at, *script, ip=None, leaves=0.01):
        """Return a client that connects `at` seconds, from a host of its own if `ip` is None."""
        number = len(self.clients)
        ip = ip or ("198.51.{}.{}", "::ffff:203.0.{}.{}", "2001:db8:{:x}:{:x}::1")[
            number % 3].format(number // 250, number % 250)
        self.clients.append(Scripted(self, at, ip, script, leaves))
        self.clients[-1].accepted = None
        return self.clients[-1]

    def run(self, until):
        """Let server.py serve this world for so many seconds, and return the server."""
        self.until = until
        self.queue = sorted(self.clients, key=lambda peer: -peer.at)
        patch = unittest.mock.patch.object
        with patch(server.logging, "makeLogRecord", self.stamp), \
                patch(server.socket, "socket", self.socket), \
                patch(server, "WAITING_MAX", self.waiting_max):
            served = server.Server(self, self.log)
            try:
                served.run()
            except KeyboardInterrupt:
                pass
            finally:
                self.until = self.now  # a client that is hung up on from now on is not evicted
            served.close()
        assert not self.faults, self.faults[0]
        assert not self.here and not self.open
        return served

    # Time

    def takes_time(self, count=0):
        """Let a call take its time, in which so many bytes are read."""
        self.now += self.cost + count * BYTE

    def recv(self, count):
        """Do as a socket to which nothing ever comes, whose timeout is `nap`."""
        self.now += self.nap
        raise socket.timeout

    def stamp(self, _):
        """Do as logging.makeLogRecord: show the clock, which may be set, and be stopped."""
        self.takes_time()
        while self.stops and self.stops[0][0] <= self.now:
            self.now += self.stops.pop(0)[1]
        step = sum(step for at, step in self.steps if at <= self.now)
        return types.SimpleNamespace(created=1.7e9 + self.now + step)

    # The listener

    def settimeout(self, timeout):
        """Do as a socket; on Windows a Ctrl-C waits for the end of a wait."""
        assert timeout <= 1
        self.timeout = timeout

    def gettimeout(self):
        """Do as a socket."""
        return self.timeout

    def getsockopt(self, level, option):
        """Do as a socket that is asked whether it listens."""
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if self.mac:
            raise OSError(42, "no such option")
        return int(self.now < self.killed)

    def limit(self):
        """Return how many descriptors there are now."""
        return min([self.descriptors] + [count for begin, end, count in self.lowered
                                         if begin <= self.now < end])

    def full(self):
        """Return True if no descriptor is left."""
        return len(self.here) + self.dups >= self.limit()

    def dup(self):
        """Do as a socket: take a descriptor, for somebody who only counts them."""
        if self.full():
            raise OSError(24, "no descriptor")
        self.dups += 1
        return types.SimpleNamespace(close=self.give_back)

    def give_back(self):
        """Do as a socket that is closed, which dup() has given."""
        self.dups -= 1

    def next_arrival(self):
        """Return when the next client or error comes into the queue (seconds)."""
        came = self.queue[-1].at if self.queue else FOREVER
        return min(came, self.errors[0][0]) if self.errors else came

    def socket(self, family, kind=None):
        """Do as socket.socket: give one if a descriptor is left, to which nothing ever comes."""
        if self.full():
            raise OSError(24, "no descriptor")
        if kind == socket.SOCK_DGRAM and not self.datagrams:
            raise PermissionError(13, "no datagram")
        self.open.append(family)
        return types.SimpleNamespace(settimeout=lambda timeout: setattr(self, "nap", timeout),
                                     recv=self.recv, close=lambda: self.open.remove(family))

    def accept(self):
        """Do as a socket. In a wait, the end of the world is a Ctrl-C."""
        self.takes_time()
        self.accepts += 1
        if self.now >= self.killed:
            raise OSError(22, "no listener")
        came = self.next_arrival()
        if self.timeout:  # poll(2) looks at the queue alone
            self.now += min(max(came - self.now, 0.0), self.timeout)
            if self.now >= self.until:
                raise KeyboardInterrupt
            if came > self.now:
                raise socket.timeout
        if self.full():  # accept(2) first wants a descriptor
            raise OSError(24, "no descriptor")
        if came > self.now:
            raise BlockingIOError(11, "again")
        if self.errors and self.errors[0][0] <= self.now:
            raise self.errors.pop(0)[1]
        peer = self.queue.pop()
        peer.accepted = self.now
        if len(self.here) > self.room():
            self.faults.append(f"no more wait than may: {peer}")
        self.here[peer] = None
        return peer, (peer.ip, 1) if peer.ip != "inconnu" else ""

    # What happens

    def write(self, level, text, *args):
        """Do as a log."""
        self.lines.append((self.now, level, text % args))
        self.now += self.line * (level != "DEBUG")

    def warned(self, beginning=""):
        """Return when the log had WARN lines with this `beginning`, and which."""
        return [(at, text) for at, level, text in self.lines
                if level == "WARN" and text.startswith(beginning)]

    def has_closed(self, peer):
        """Take note that `peer` is closed, and of a fault if it was evicted and might not be."""
        here = list(self.here)
        del self.here[peer]
        overdue = peer.closed - peer.accepted >= server.EXCHANGE_MAX - 1  # some tests set that
        if peer.hung_up and not overdue and self.now < self.until:
            self.faults += [f"an evicted client is not {promise}: {peer}"
                            for promise, holds in self.may_go(peer, here).items() if not holds]

    def room(self):
        """Return how many clients may wait; while the limit is lowered, at most."""
        limit = self.descriptors if self.lowered else self.limit()
        return min(self.waiting_max, limit - RESERVE)

    def may_go(self, peer, here):
        """Return for each promise whether `peer`, one of those `here`, may be evicted by it."""
        sizes = collections.Counter(host_of(other.ip) for other in here)
        own = [other for other in here if host_of(other.ip) == host_of(peer.ip)]
        crowded = len(here) > min(self.waiting_max, self.limit() - RESERVE)
        read = not peer.unread or peer.unread[-1][0] > self.now
        return {"of the host that has the most": len(own) == max(sizes.values()),
                "its oldest": peer.accepted == min(other.accepted for other in own),
                "for want of room": crowded,
                "looked at a last time": read or peer.replies}  # of what follows, one piece a look


class Loops(unittest.TestCase):
    """What holds in every world, and what one could not wait for."""

    @each_seed
    def test_in_every_world_an_honest_client_is_served(self, seed):
        chance = random.Random(seed)
        most = chance.randrange(5, 60)
        world = World(seed, *chance.choice([(FOREVER, 10000), (most + 40 + RESERVE, 10000),
                                            (FOREVER, most + 40)]))
        honest = []
        for _ in range(most):
            script, leaves = drawn(chance)
            honest.append(world.client(chance.choice([1.0, chance.uniform(1, 4)]), *script,
                                       leaves=leaves))
        begin = chance.uniform(1, 4)
        for number in range(chance.choice([0, 30, 300])):
            hostile, _ = drawn(chance)
            hostile = chance.choice([[], [], [(0.1, b"wa")], hostile,
                                     [(at / 10, b"x") for at in range(9)]])
            world.client(begin + number * 0.001, *hostile, leaves=None,
                         ip=("192.0.2.1", f"2001:db8:bad:1::{number + 1:x}")[number % 2])
        world.errors = [(at, ConnectionAbortedError(103, "gone")) for at in (2.0, 2.0, 5.0)]
        world.run(15)
        for peer in honest:
            judge(peer, LATE, 15)
        count = sum(int(re.search(r"écartés : (\d+)", text).group(1))
                    for _, text in world.warned("Trop"))
        self.assertEqual(count, sum(peer.hung_up and peer.closed < world.until
                                    for peer in world.clients))
        times = [at for at, _ in world.warned("Trop")]
        self.assertTrue(all(b - a > 0.98 or b >= 15 for a, b in zip(times, times[1:])), times)
        said = {text for _, _, text in world.lines}
        for peer in world.clients:
            self.assertIn(f"Un client {peer.ip.replace('::ffff:', '')} s'est connecté.", said)
        for text in ("s'est connecté", "Fin de la connexion"):
            self.assertEqual(sum(text in line for _, _, line in world.lines), len(world.clients))

    def test_as_many_wait_as_there_are_descriptors_but_for_the_reserve(self):
        world = World(descriptors=13 + RESERVE)
        for number in range(13):
            world.client(1.0 + number / 100, ip="192.0.2.1")
        world.run(20)
        self.assertEqual(world.warned(), [])
        self.assertFalse([peer for peer in world.clients if peer.closed < 20])

    def test_for_want_of_room_the_oldest_of_the_most_is_evicted_after_a_last_look(self):
        world = World(descriptors=4 + RESERVE)
        crowd = [world.client(1.0 + number / 10, ip="192.0.2.1") for number in range(3)]
        crowd.append(world.client(1.5, (0.4995, b"waf\n"), ip="2001:db8::1", leaves=None))
        crowd += [world.client(1.9999, ip="192.0.2.1"), world.client(2.0, (0.0, b"meo\n"))]
        world.run(20)
        self.assertEqual([peer for peer in crowd if peer.hung_up and peer.closed < 20], crowd[:2])
        self.assertEqual(crowd[-1].replies + crowd[3].replies, [MEO.encode(), WAF.encode()])
        self.assertEqual([text for _, text in world.warned()],
                         ["Trop de clients en attente ; écartés : 2 (le dernier : 192.0.2.1)."])

    def test_a_flood_is_let_in_at_once(self):
        world = World(descriptors=10 + RESERVE)
        crowd = [world.client(1.0, ip="192.0.2.1") for _ in range(200)]
        world.run(10)
        self.assertLess(max(peer.accepted for peer in crowd), 1.05)

    def test_where_no_descriptor_is_left_for_a_client_it_does_not_begin(self):
        for descriptors in (0, 1, RESERVE):
            world = World(descriptors=descriptors)
            with self.assertRaisesRegex(OSError, "^Il ne reste aucun descripteur pour un client"):
                world.run(1)
            self.assertFalse(world.open)
        world = World(descriptors=RESERVE + 1)
        lone = world.client(1.0, (0.5, b"waf\n"))
        world.run(3)
        self.assertEqual(lone.replies, [WAF.encode()])

    def test_a_limit_that_is_lowered_costs_a_crowd_its_places_and_no_honest_client_its_reply(self):
        world = World(descriptors=200)
        for number in range(400):
            world.client(1.0 + number / 50, ip="192.0.2.1")
        honest = [world.client(2.0 + number / 7, (0.0, b"waf")) for number in range(40)]
        world.lowered = [(2.5, FOREVER, 50)]
        world.run(10)
        for peer in honest:
            judge(peer, LATE + 0.3)
        lowered = world.warned("Impossible")
        self.assertTrue(lowered)
        self.assertLess(lowered[-1][0], 4.6)  # from then on the reserve is free again

    def test_what_has_been_said_is_answered_before_an_eviction(self):
        world = World(waiting_max=20)
        said = [world.client(1.0, (1.00001, b"waf\n"), *[(1.00001, END)] * (number % 2),
                             ip="192.0.2.1") for number in range(20)]
        for _ in range(60):
            world.client(2.00002, ip="192.0.2.1")
        world.run(10)
        self.assertEqual([peer.replies for peer in said], [[WAF.encode()]] * 20)
        self.assertLess(world.warned("Trop")[0][0], 3.1)

    def test_the_warning_names_the_last_client_that_was_evicted(self):
        world = World(waiting_max=20)
        crowd = [world.client(2.0, ip=f"2001:db8::{number:x}") for number in range(1, 41)]
        world.run(10)
        _, last = max((peer.closed, peer.ip) for peer in crowd if peer.closed < world.until)
        self.assertIn(f"(le dernier : {last}).", world.warned("Trop")[-1][1])

    def test_a_message_that_has_ended_is_answered_before_the_server_ends(self):
        world = World()
        crowd = [world.client(1.0, (8.9995, b"waf" + b"x" * size + b"\n"), ip="192.0.2.1")
                 for size in (0, 0, 0, 5000, 60000) * 60]
        world.run(10)
        self.assertEqual([peer.replies for peer in crowd], [[WAF.encode()]] * 300)

    def test_a_client_without_an_address_is_served(self):  # macOS: one that has left the queue
        world = World()
        peer = world.client(1.0, (0.0, b"waf\n"), ip="inconnu")
        world.run(10)
        self.assertEqual(peer.replies, [WAF.encode()])
        self.assertIn("Un client inconnu s'est connecté.", [text for _, _, text in world.lines])

    def test_a_system_that_does_not_say_whether_it_listens_is_believed_to(self):
        world = World()
        world.mac, world.lowered = True, [(1.0, 2.0, 0)]
        last = world.client(1.5, (0.0, b"waf\n"))
        world.run(10)
        self.assertEqual(last.replies, [WAF.encode()])

    def test_only_a_lack_of_descriptors_costs_anybody_a_place(self):
        for error in (ConnectionResetError(104, "reset"), ConnectionAbortedError(103, "gone"),
                      OSError(100, "network is down"), OSError(71, "protocol error"),
                      OSError(113, "no route"), PermissionError(1, "firewall")):
            world = World()
            silent = [world.client(1.0) for _ in range(5)]
            world.errors = [(2.0, error)] * 40
            last = world.client(3.0, (0.0, b"waf\n"))
            world.run(20)
            self.assertFalse([peer for peer in silent if peer.closed < 20])
            self.assertEqual(last.replies, [WAF.encode()])
            self.assertEqual(bool(world.warned("Impossible")),
                             not isinstance(error, ConnectionError))
            self.assertEqual(len(world.warned()), len(world.warned("Impossible")))

    def test_a_burst_that_is_done_at_once_evicts_none(self):
        world = World(descriptors=30 + RESERVE)
        silent = [world.client(1.0) for _ in range(29)]
        burst = [world.client(2.0, (0.0, b"waf\n"), (0.0, END)) for _ in range(100)]
        world.run(10)
        self.assertEqual(world.warned(), [])
        self.assertFalse([peer for peer in silent if peer.closed < 10])
        self.assertEqual([peer.replies for peer in burst], [[WAF.encode()]] * 100)

    def test_without_any_descriptor_it_rests_and_says_so_once_a_second(self):
        for datagrams, seconds, most in ((True, 10, 600), (False, 0.1, FOREVER)):
            world = World()
            world.lowered, world.datagrams = [(1.0, 1.0 + seconds, 0)], datagrams
            queued = world.client(1.0, (0.0, b"waf\n"))
            for _ in range(20):  # no place is lost for good, since nobody waited
                world.client(19.9, ip="192.0.2.1")
            world.run(20)
            self.assertEqual(world.warned("Trop"), [])
            self.assertAlmostEqual(queued.replied, 1.0 + seconds, delta=0.05)
            self.assertAlmostEqual(len(world.warned("Impossible")), seconds, delta=2)
            self.assertLess(world.accepts, most)

    def test_a_listening_socket_that_is_taken_away_ends_the_loop(self):
        world = World()
        world.killed = 2.0
        world.client(1.0)
        with self.assertRaisesRegex(OSError, "no listener"):
            world.run(10)
        self.assertLess(world.now, 3.1)

    def test_none_stays_longer_than_five_minutes_and_that_is_one_warning(self):
        world, kept = World(), []

        class Kept(server.Client):
            def __init__(self, *args):
                super().__init__(*args)
                kept.append(self)  # or the collector hangs up on one that is only forgotten

        for number, script in enumerate((
                [], [(at / 10, b"a") for at in range(9000)],
                [(0.0, b"waf\n"), *[(at * 1.9, b"x") for at in range(1, 200)]])):
            world.client(1.0, *script, leaves=None, ip=f"192.0.2.{number}")
        with unittest.mock.patch.object(server, "Client", Kept):
            world.run(350)
        for peer in world.clients:
            self.assertAlmostEqual(peer.closed, 301, delta=2 * ROUND)
        self.assertCountEqual(world.warned("Le client"), [
            (peer.closed, f"Le client {peer.ip} tarde trop : connexion fermée.")
            for peer in world.clients])

    def test_a_client_that_takes_just_less_than_five_minutes_is_served(self):
        world = World()
        for _ in range(2000):  # whose looks are some 0.08 s apart: most are over it at their last
            world.client(1.0, (4.99, b"waf\n"), (4.99, END), ip="192.0.2.1")
        with unittest.mock.patch.object(server, "EXCHANGE_MAX", 5.0):
            world.run(10)
        self.assertEqual([peer.replies for peer in world.clients], [[WAF.encode()]] * 2000)
        self.assertEqual(world.warned(), [])

    def test_a_minute_alone_is_said_and_said_again_every_minute(self):
        world = World()
        world.client(200.5, (0.0, b"waf\n"), (0.0, END))  # done at once
        world.client(400.0, (1.0, END))
        world.run(470)
        self.assertEqual([int(at) for at, _ in world.warned("Aucun client depuis")],
                         [60, 120, 180, 260, 320, 380, 461])

    def test_a_server_without_clients_sleeps(self):
        world = World()
        world.client(1.0, (0.5, b"waf\n"))
        world.run(101)
        self.assertLess(world.accepts, 100 + 50)

    def test_a_clock_that_is_set_in_the_middle_of_a_message_does_not_end_it(self):
        for step in (3600, 1, -1, -3600):
            world = World()
            peer = world.client(1.0, (0.0, b"un petit "), (0.15, b"waf\n"))
            world.steps = [(1.05, step)]
            silent = world.client(1.0, (0.0, b"waf"), ip="192.0.2.1")
            world.run(10)
            if step < 0:  # one forward counts for a pass
                judge(silent)
            self.assertEqual(peer.replies, [WAF.encode()], step)

    def test_a_process_that_is_stopped_cuts_off_none(self):
        world = World()
        half = world.client(1.0, (0.0, b"un petit "), (0.15, b"waf\n"))
        prompt = world.client(1.0, (4290, b"meo\n"))
        world.stops = [(1.1, 4000)]
        world.run(6000)
        self.assertEqual(half.replies + prompt.replies, [WAF.encode(), MEO.encode()])

    def test_lone_people_and_a_crowd_behind_one_address_are_answered_alike_within_120_ms(self):
        world = World()
        for number in range(2130):
            ip = "192.0.2.1" if number > 129 else None
            world.client(1.0, (2 + number * 7 % 2130 / 2130, b"waf\n"), ip=ip)
        world.run(10)
        late = [peer.replied - owed(peer.script)[1] for peer in world.clients]
        self.assertLess(max(late), LATE)
        lone, crowd = sorted(late[:130]), sorted(late[130:])
        self.assertLess(abs(lone[65] - crowd[1000]), 0.02)

    def test_beside_9800_silent_clients_all_are_answered_as_soon_as_readme_says(self):
        readme = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "README.md")
        with open(readme, encoding="utf-8") as file:
            said = re.search(
                r"9,800 silent ones of any hosts, a client that speaks as it connects is answered "
                r"at once, one that has waited within ([\d.]+) s, and, if its message ends with "
                r"nothing, within ([\d.]+) s\.", " ".join(file.read().split()))
        for ip in ("192.0.2.1", None):
            world = World()
            for _ in range(9800):
                world.client(1.0, ip=ip)
            new, ended, endless = [
                [world.client(1.5 + number * 0.0731, (after, text), ip=ip) for number in range(20)]
                for after, text in ((0.0, b"waf\n"), (1.0, b"waf\n"), (1.0, b"waf"))]
            world.run(5.5)
            self.assertLess(max(peer.replied - peer.at for peer in new), 0.02)
            for peers, most in ((ended, float(said.group(1))), (endless, float(said.group(2)))):
                late = max(peer.replied - peer.at - 1.0 for peer in peers)
                self.assertLess(late, most)
                self.assertGreater(late, most * 0.4)

    def test_where_the_log_is_slow_no_message_ends_too_soon_and_none_much_too_late(self):
        for burst, seconds, most in ((25, 0.015, 0.5), (5, 0.06, 1.3)):
            world = World()
            world.line = seconds / LINES
            for number in range(600):
                world.client(1.0 + number // burst / 2, (0.0, b"meo\n"))
            patient = [world.client(2 + number * 0.437, (after, b"waf"), leaves=None)
                       for number in range(12) for after in (0.0, 0.003, 0.02, 0.3)]
            world.run(12)
            late = [peer.replied - owed(peer.script)[1] for peer in patient]
            self.assertGreaterEqual(min(late), 0.0)
            self.assertLess(max(late), most)

    def test_clients_that_pour_keep_no_other_waiting(self):
        for piece in (b"x" * 4096, b"x" * 4095 + b"\n", b"x" * 1000):
            world = World()
            for number in range(100):
                world.client(1.0 + number // 10 / 10, *[(0.0, piece)] * ((1 << 21) // len(piece)),
                             ip="192.0.2.1", leaves=None)
            honest = [world.client(1.0 + number / 97, (0.0, b"waf\n")) for number in range(97)]
            world.run(3)
            for peer in honest:
                self.assertLess(peer.replied, peer.at + ROUND)
            for peer in world.clients[:100]:
                self.assertEqual((peer.replies, peer.replied - peer.at < ROUND),
                                 ([HUMAN.encode()], True))

    def test_after_thousands_of_hosts_have_left_a_crowd_is_answered_and_nothing_is_kept(self):
        world = World()
        for _ in range(100):
            world.client(1.0, (4.0, b"waf\n"), ip="192.0.2.1")
        for number in range(5000):
            world.client(1.5 + number / 5000, (1.0, END), ip=f"10.0.{number // 250}.{number % 250}")
        served = world.run(10)
        for peer in world.clients[:100]:
            judge(peer, 0.1)
        self.assertFalse(served.waiting.clients)
        gc.collect()
        self.assertFalse([thing for thing in gc.get_objects()
                          if isinstance(thing, server.Client)])
