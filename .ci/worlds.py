"""What needs no kernel: rooms in which parts of server.py run without one, and nobody waits.

1. `Exchanges`: one client's exchange meets a script. 2. `Turns`: whose turn it is, with no socket
at all. 3. `Loops`: the whole loop, in a world of a listener, descriptors, errors and a date.

A script is what a client says and when: [(seconds, bytes, END or RESET)]. `owed` and `closing` say
from the script alone what README promises, and `judge` holds that against what came of it. To add a
kind of client, draw its script in `drawn`, or give a world one of its own:

    def test_two_words_in_one_line(self):
        world = World()
        who = world.client(1.0, (0.0, b"waf "), (0.1, b"meo\n"))
        world.run(10)
        judge(who)

A failure tells the client's story and the seed that gives it again: `make worlds SEED=123`;
`make worlds N=1000` draws a thousand of them.
"""

import collections
import gc
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
# README's figures, and not server.py's: who judges has its own
MEO, WAF, HUMAN = "Meo à toi confrère.", "ptdr t ki", "Mes respects humble humain."
MIB, CHUNK = 1 << 20, 1 << 12  # bytes
LOOKS = 500  # in a round
ROUND = 0.02  # seconds
BYTE = 1e-8  # seconds that one takes to be read, from a client that pours on a machine of two cores
PASS = 0.02  # seconds that a pass of the loop may take
LATE = 3 * (ROUND + PASS)  # seconds: looks for a byte, for its silence and for the end of that
SEEDS = ([int(os.environ["SEED"])] if os.environ.get("SEED")
         else range(int(os.environ.get("N") or 25)))
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
    counts = message[:1024]
    return MEO if b"meo" in counts else WAF if b"waf" in counts else HUMAN


def owed(script):
    """Return the reply (None: none) owed to who says `script`, and when its message ends."""
    text, last = b"", FOREVER
    for at, what in script:
        if at - last > 0.2:
            break
        if what in (END, RESET):
            return (reply_owed(text) if text and what is END else None), at
        text, last = text + what, at
        if b"\n" in text:
            return reply_owed(text.partition(b"\n")[0]), at
        if b"meo" in text[:1024]:
            return MEO, at
        if len(text) > MIB:
            return None, at
    return (reply_owed(text) if text else None), last + 0.2 if text else FOREVER


def closing(script, replied):
    """Return when the connection is closed, whose reply went out at `replied` seconds."""
    last, received = replied, 0
    for at, what in script:
        received += len(what) if isinstance(what, bytes) else 0
        if at - last > 2.0:
            break
        if what in (END, RESET) or received > MIB:
            return max(at, replied)
        last = max(at, replied)
    return last + 2.0


def judge(who, late=LATE, until=FOREVER):
    """Fail with the story of `who` unless it got what it was owed, `late` seconds late at most."""
    if who.accepted is None:
        raise AssertionError(f"nobody is left at the door\n{who}")
    reply, end = owed(who.script)
    reset = min([at for at, what in who.script if what is RESET], default=FOREVER)
    end = max(end, who.accepted)
    size = sum(len(what) for _, what in who.script)
    if size > 1024:  # a look for each piece, and for each CHUNK of it
        late += (len(who.script) + size // CHUNK) * (ROUND + PASS)

    def check(holds, promise):
        if not holds:
            raise AssertionError(f"{promise}: owed {reply!r} at {end:.4f} s\n{who}")
    if min(end, reset) + late > min(until, who.accepted + 300):
        return  # the world, or the patience, has ended before its message: nothing is owed
    check(not who.hung_up, "nobody who is here is hung up on")
    check(len(who.replies) <= 1, "there is one reply")
    if reset > end + late:
        check(who.replies == ([reply.encode()] if reply else []), "the reply is the table's")
    if who.replies:
        check(end - 1e-6 <= who.replied <= end + late, "the reply comes when the message has ended")
        close = closing(who.script, who.replied)
    else:
        close = min(end, reset)
    if close + late < min(until, who.accepted + 300):
        check(who.closed is not None and close - 1e-6 <= who.closed <= close + late,
              f"the connection is closed at {close:.4f} s")
        check(who.replies == [] or who.shut, "the reply has an end")


class Scripted:
    """The socket that the server has for a client who follows a script."""

    def __init__(self, world, at, ip, script, leaves):
        """Connect at `at` (seconds; the script counts from there), and end `leaves` s after the
        reply, or never (None): that is added to the script then. `world` has the time as `now`."""
        self.world, self.at, self.ip, self.leaves = world, at, ip, leaves
        self.script = [(at + after, what) for after, what in script]
        self.unread = self.script[::-1]  # the next last
        self.accepted, self.closed, self.replied = at, None, None
        self.replies, self.shut, self.hung_up = [], False, False

    def __str__(self):
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
        """Do as a socket; who closes a generator hangs up."""
        if self.closed is None:
            self.closed = self.world.now
            self.hung_up = sys.exc_info()[0] is GeneratorExit
            self.world.has_closed(self)


def drawn(chance):
    """Return a script as somebody may follow it, and when it leaves after the reply.

    Pieces are less than 0.2 s apart, or so far that the silence has been seen.
    """
    pieces = [chance.choice([b"waf", b"meo", b"w", b"af", b"me", b"o", b"\r", b"\xff", b" ",
                             b"x" * chance.randrange(1, 1100), b"x" * chance.randrange(1015, 1028)])
              for _ in range(chance.randrange(1, 7))]
    pieces[-1] += chance.choice([b"", b"\n", b"\r\n", b"\nmeo"])
    pours = chance.random() < 0.03
    if pours:
        pieces = [b"x" * 65536] * chance.randrange(15, 19)
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
    if chance.random() < 0.05:
        script = script[-1:]
    return script, chance.choice([0.0, 0.01, chance.uniform(0, 1.9), None])


# 1. The exchange meets a script


class Stage:
    """The world of a single client: its time."""

    now = 0.0

    def takes_time(self, count=0):
        """Let a call take its time."""

    def has_closed(self, who):
        """Take note of nothing."""


class Exchanges(unittest.TestCase):
    """An exchange gives what it owes, whenever it is looked at."""

    def play(self, script, leaves=0.01, chance=None):
        """Return the client who follows `script`, looked at until it is done."""
        chance = chance or random.Random(0)
        stage, lines, ends = Stage(), [], []
        log = types.SimpleNamespace(info=lambda text, *args: lines.append(text % args),
                                    warning=lambda text, *args: lines.append(text % args),
                                    debug=lambda text, *args: ends.append(text % args))
        who = Scripted(stage, 0.0, "192.0.2.1", script, leaves)
        client, now = server.Client(who, who.ip, log), None
        while client.look(now) and stage.now < 60:
            stale, longest = stage.now, chance.choice([0.001, ROUND, ROUND])
            stage.now += chance.uniform(0.0005, longest)
            now = max(now or 0.0, chance.uniform(stale, stage.now))  # the clock is read once a pass
        judge(who)
        who.lines, who.ends = lines, ends
        self.assertEqual(who.ends[-1:], ["Fin de la connexion du client 192.0.2.1."])
        return who

    @each_seed
    def test_whatever_is_said_and_whenever_the_oracle_is_right(self, seed):
        for number in range(40):
            chance = random.Random(f"{seed} {number}")
            self.play(*drawn(chance), chance=chance)

    def test_no_cut_changes_the_reply(self):
        for message in (b"un petit waf\n", b"waf meo", b"meowaf\r\n"):
            for cut in range(1, len(message)):
                for gap in (0.0, 0.0005, 0.1, 0.1999):
                    who = self.play([(0.0, message[:cut]), (gap, message[cut:])])
                    self.assertEqual(len(who.lines), 3)

    def test_silence_begins_with_the_byte_and_not_with_the_look_that_read_it(self):
        stage = Stage()
        who = Scripted(stage, 0.0, "192.0.2.1", [(0.045, b"wa"), (0.242, b"f\n")], 0.0)
        client = server.Client(who, who.ip, unittest.mock.Mock())
        for stage.now, now in ((0.045, None), (0.05, 0.05), (0.241, 0.241), (0.243, 0.243)):
            client.look(now)  # the first began its pass 45 ms before
        self.assertEqual(who.replies, [WAF.encode()])

    def test_meo_is_answered_at_the_first_look(self):
        who = Scripted(Stage(), 0.0, "192.0.2.1", [(0.0, b"a meo")], 0.0)
        server.Client(who, who.ip, unittest.mock.Mock()).look()
        self.assertEqual(who.replies, [MEO.encode()])

    def test_only_1024_bytes_count_and_a_mebibyte_is_the_most(self):
        for size in range(1018, 1028):
            self.play([(0.0, b"x" * size), (0.1, b"meo"), (0.15, b"\r"), (0.16, b"\n")])
            self.play([(0.0, b"x" * size), (0.1, b"waf\r"), (0.15, b"\n")])
        many = [(0.0, b"x" * 65536)] * 16
        self.assertEqual(self.play([*many, (0.1, b"\n")]).replies, [HUMAN.encode()])
        endless = self.play([*many, (0.1, b"x")])
        self.assertEqual((endless.replies, endless.lines[1:]), (
            [], ["Le client 192.0.2.1 envoie sans fin : connexion coupée."]))
        after = [(at / 2, b"x" * 65536) for at in range(1, 30)]
        talks_on = self.play([(0.0, b"waf\n"), *after], leaves=None)
        self.assertAlmostEqual(talks_on.closed, 8.0, delta=3 * LATE)  # 16 looks a piece

    def test_a_look_reads_4_kib_at_most_and_one_piece_after_a_message(self):
        for script, reads in (([(0.0, b"x" * MIB)], [CHUNK] * 8),
                              ([(0.0, b"x" * 1000)] * 9, [2000, 1000, 1000]),
                              ([(0.0, b"waf\n")] * 300, [1028, 4, 4])):
            who = Scripted(Stage(), 0.0, "192.0.2.1", script, None)
            client, now, left = server.Client(who, who.ip, unittest.mock.Mock()), None, []
            for _ in reads:
                left.append(sum(len(what) for _, what in who.unread))
                client.look(now)
                now = 0.0
            left.append(sum(len(what) for _, what in who.unread))
            self.assertEqual([a - b for a, b in zip(left, left[1:])], reads)

    def test_what_the_log_says_is_what_was_said(self):
        lines = self.play([(0.0, b"\xff\x1b[2J wa"), (0.1, b"f\r\r\nmeo")]).lines
        self.assertEqual(lines, ["Un client 192.0.2.1 s'est connecté.",
                                 r'Le client 192.0.2.1 a envoyé "\xff\x1b[2J waf\r".',
                                 'Réponse envoyée au client 192.0.2.1 : "ptdr t ki".'])
        self.assertEqual(len(self.play([(1.0, END)]).lines), 1)  # it left without a byte
        gone = self.play([(0.0, b"wa"), (0.1, RESET)])
        self.assertEqual((len(gone.lines), gone.ends[0]),
                         (1, "Le client 192.0.2.1 a rompu la connexion : Reset."))

    def test_a_reset_that_meets_the_reply_is_told_as_one(self):
        who = Scripted(Stage(), 0.0, "192.0.2.1", [(0.0, b"waf\n")], 0.0)
        who.send = unittest.mock.Mock(side_effect=[ConnectionResetError(104, "reset"),
                                                   BrokenPipeError(32, "pipe")])
        log = unittest.mock.Mock()
        self.assertFalse(server.Client(who, who.ip, log).look())
        ends = [text % tuple(args) for (text, *args), _ in log.debug.call_args_list]
        self.assertEqual(ends[0], "Le client 192.0.2.1 a rompu la connexion : Reset.")

    def test_a_close_that_fails_ends_nothing(self):
        who = Scripted(Stage(), 0.0, "192.0.2.1", [(0.0, b"waf\n"), (0.0, END)], None)
        who.close = unittest.mock.Mock(side_effect=OSError(5, "input/output error"))
        self.assertFalse(server.Client(who, who.ip, unittest.mock.Mock()).look())
        who.close.assert_called_once_with()

    def test_the_log_says_of_a_message_that_it_was_cut_and_only_then(self):
        cuts = ((b"x" * 1023 + b"\rabc", "x\\r… (coupé)"), (b"x" * 1022 + b"meo", "xme… (coupé)"),
                (b"x" * 1024, "xxx"), (b"x" * 1025, "xxx… (coupé)"), (b"x" * 1021 + b"meo", "xmeo"),
                (b"x" * 1024 + b"\r\r", "xxx… (coupé)"), (b"x" * 1024 + b"\rab", "xxx… (coupé)"))
        for said, shown in cuts:
            for end in ([(0.0, b"\n")], [(0.1, b"\n")], [(0.1, b"\r\n")], [(0.1, END)]):
                lines = self.play([(0.0, said), *end]).lines
                self.assertTrue(lines[1].endswith(f'{shown}".'), (said[1000:], end, lines[1]))


# 2. Whose turn it is


class Waiter:
    """All that `Waiting` knows of a client."""

    def __init__(self, host):
        """Be of `host`."""
        self.host = host


class Turns(unittest.TestCase):
    """The laws of who is looked at when, and of who goes."""

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
            self.assertEqual(len(set(chosen)), len(chosen), "nobody twice")
            self.assertEqual(len(chosen), min(LOOKS, len(waiting.clients)), "each look is used")
            self.assertEqual(waiting.take_round(now + 0.019), [], "a round each 20 ms")
            for client in chosen:
                counts[client] = counts.get(client, 0) + 1
            now += ROUND
        return counts

    @each_seed
    def test_hosts_share_a_round_equally_and_what_one_cannot_use_is_the_others(self, seed):
        chance = random.Random(seed)
        sizes = [chance.choice([1, 1, 2, chance.randrange(1, 50), chance.randrange(1, 900)])
                 for _ in range(chance.randrange(1, 60))]
        waiting, hosts = self.wait(sizes)
        counts = self.looks(waiting, 1)
        got = [sum(counts.get(client, 0) for client in clients) for clients in hosts]
        for mine, size in zip(got, sizes):
            self.assertTrue(mine == size or mine >= max(got) - 1, (sizes, got))

    def test_everybody_has_a_turn(self):
        for sizes in ([2000], [1] * 2000, [1] * 330 + [500], [1] * 499 + [300], [900, 1, 1, 1]):
            waiting, hosts = self.wait(sizes)
            share = max(LOOKS // len(sizes), 1)
            rounds = -(-len(sizes) // LOOKS) * -(-max(sizes) // (share - share // 4))
            self.assertEqual(len(self.looks(waiting, rounds)), sum(sizes))

    def test_a_quarter_of_a_crowds_looks_is_for_its_newest(self):
        waiting, (crowd, *_) = self.wait([5000, 1, 1])
        counts = self.looks(waiting, 10)
        self.assertEqual([counts.get(client, 0) for client in crowd[-124:]], [10] * 124)
        self.assertEqual(sum(counts[client] for client in crowd if client in counts), 4980)
        for client in crowd[-124:]:
            waiting.remove(client)
        self.assertIn(crowd[-125], waiting.take_round(FOREVER))

    def test_a_crowd_that_has_left_costs_nobody_a_turn(self):
        waiting, hosts = self.wait([1] * 5000 + [100])
        self.looks(waiting, 3)
        for client, in hosts[:-1]:
            waiting.remove(client)
        self.assertEqual(set(waiting.take_round(FOREVER)), set(hosts[-1]))

    def test_a_newcomer_is_looked_at_each_time_its_age_has_doubled(self):
        waiting, ages, now = server.Waiting(), [], 0.0
        waiting.add(Waiter(1), now)
        while waiting.newcomers:
            self.assertLess(len(ages), 6)
            self.assertEqual(waiting.take_newcomers(now), [])  # not before, nor twice
            now += waiting.until_next(now)
            ages += [now] * len(waiting.take_newcomers(now))
        for age, expected in zip(ages, (0.001, 0.002, 0.004, 0.008, 0.016)):
            self.assertAlmostEqual(age, expected)
        self.assertEqual(len(ages), 5)
        self.assertEqual(len(waiting.take_round(now)), 1)  # and from then on it has its turn
        self.assertAlmostEqual(waiting.until_next(now), ROUND)

    def test_hosts_of_newcomers_alone_take_no_turn_in_a_round(self):
        waiting, patient = server.Waiting(), Waiter("patient")
        for number in range(300):
            waiting.add(Waiter(number), 5.0)
        waiting.add(patient, 4.0)
        waiting.take_newcomers(5.0)
        self.assertEqual(waiting.take_round(5.0), [patient])

    @each_seed
    def test_nobody_is_looked_at_twice_in_one_pass(self, seed):
        chance = random.Random(seed)
        waiting, now = server.Waiting(), 0.0
        for _ in range(100):
            for _ in range(chance.choice([0, 1, 5])):
                waiting.add(Waiter(chance.randrange(3)), now)
            now += chance.choice([0.001, 0.005, waiting.until_next(now)])
            looks = waiting.take_newcomers(now) + waiting.take_round(now)
            self.assertEqual(len(set(looks)), len(looks))
            self.assertGreater(waiting.until_next(now), 0)

    @each_seed
    def test_who_goes_is_the_oldest_of_the_most_and_nothing_is_kept_of_who_has_gone(self, seed):
        chance, here, now = random.Random(seed), [], 0.0
        waiting = server.Waiting()
        for step in range(400):
            now += chance.uniform(0, 0.01)
            if here and chance.random() < (0.3 if step < 200 else 0.7):
                gone = chance.choice([waiting.oldest_of_most(), chance.choice(here)])
                waiting.remove(gone)
                here.remove(gone)
            else:
                here.append(Waiter(chance.randrange(5)))
                waiting.add(here[-1], now)
            waiting.take_newcomers(now)
            waiting.take_round(now)
            hosts = [who.host for who in here]
            if here:
                oldest = waiting.oldest_of_most()
                self.assertEqual(hosts.count(oldest.host), max(map(hosts.count, hosts)))
                self.assertIs(oldest, here[hosts.index(oldest.host)])
        for who in here:
            waiting.remove(who)
        empty = server.Waiting()
        self.assertEqual(dict(vars(waiting), next_round=0), dict(vars(empty), next_round=0))

    def test_the_patience_ends_with_five_minutes(self):
        waiting, (clients,) = self.wait([500], now=10.0, age=0.05)
        later = Waiter(0)
        waiting.add(later, 20.0)
        self.assertEqual(waiting.overdue(309.9), [])
        self.assertEqual(waiting.overdue(310.0), clients)
        self.assertEqual(waiting.overdue(320.0), [*clients, later])


# 3. The loop in a world


def host_of(ip):
    """Return what counts as one host: an IPv4 address, or the first half of an IPv6 one."""
    return ip if "." in ip else socket.inet_pton(socket.AF_INET6, ip)[:8]


class World:
    """Clients, a listener, descriptors, a log and a date, all made up, around the real Server."""

    def __init__(self, seed=0, descriptors=FOREVER, waiting_max=10000):
        """Begin at 0 seconds with nobody, and so many `descriptors` for clients."""
        self.chance = random.Random(seed)
        self.descriptors, self.waiting_max = descriptors, waiting_max
        self.now = self.until = 0.0
        self.cost = self.chance.uniform(1e-6, 3e-6)  # seconds that a call of a socket takes
        self.clients, self.here, self.open, self.faults = [], {}, [], []
        self.errors = []  # (seconds, OSError): what accept(2) passes on, of nobody here
        self.steps, self.stops = [], []  # (seconds, seconds): the date is set; we are stopped
        self.mac = False  # whether it does not say that it listens
        self.datagrams = True  # whether it has sockets for them
        self.taken = []  # (from, to) in seconds: somebody else has every descriptor
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
        self.queue = sorted(self.clients, key=lambda who: -who.at)
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
                self.until = self.now  # who is hung up on from now on is not let go
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
        """Do as logging.makeLogRecord: show the date, which somebody may set, and be stopped."""
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

    def getsockopt(self, level, option):
        """Do as a socket that is asked whether it listens."""
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if self.mac:
            raise OSError(42, "no such option")
        return int(self.now < self.killed)

    def full(self):
        """Return True if no descriptor is left."""
        return (len(self.here) >= self.descriptors
                or any(begin <= self.now < end for begin, end in self.taken))

    def door(self):
        """Return when the next one comes to the door (seconds)."""
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
        if self.now >= self.until:
            raise KeyboardInterrupt
        if self.now >= self.killed:
            raise OSError(22, "no listener")
        came = self.door()
        if self.timeout:  # poll(2) looks at the door alone
            self.now += min(max(came - self.now, 0.0), self.timeout)
            if came > self.now:
                raise socket.timeout
        if self.full():  # accept(2) first wants a descriptor
            raise OSError(24, "no descriptor")
        if came > self.now:
            raise BlockingIOError(11, "again")
        if self.errors and self.errors[0][0] <= self.now:
            raise self.errors.pop(0)[1]
        who = self.queue.pop()
        who.accepted = self.now
        if len(self.here) > self.waiting_max:
            self.faults.append(f"no more wait than may: {who}")
        self.here[who] = None
        return who, (who.ip, 1) if who.ip != "inconnu" else ""

    # What happens

    def write(self, level, text, *args):
        """Do as a log."""
        self.lines.append((self.now, level, text % args))

    def warned(self, beginning=""):
        """Return when the log had WARN lines with this `beginning`, and which."""
        return [(at, text) for at, level, text in self.lines
                if level == "WARN" and text.startswith(beginning)]

    def has_closed(self, who):
        """Take note that `who` is closed, and of a fault if it was let go and might not be."""
        here = list(self.here)
        del self.here[who]
        overdue = who.closed - who.accepted >= server.PATIENCE - 1  # which a test may have set
        if who.hung_up and not overdue and self.now < self.until:
            self.faults += [f"who is let go is not {promise}: {who}"
                            for promise, holds in self.may_go(who, here).items() if not holds]

    def may_go(self, who, here):
        """Return for each promise whether `who`, one of those `here`, may be let go by it."""
        sizes = collections.Counter(host_of(other.ip) for other in here)
        own = [other for other in here if host_of(other.ip) == host_of(who.ip)]
        crowded = len(here) > self.waiting_max
        full = len(here) >= self.descriptors and self.door() <= self.now
        read = not who.unread or who.unread[-1][0] > self.now
        pours = sum(len(what) for at, what in who.script if at <= self.now) > 1024
        return {"of the host that has the most": len(own) == max(sizes.values()),
                "its oldest": who.accepted == min(other.accepted for other in own),
                "for somebody at the door": crowded or full,
                "looked at a last time": read or pours}


class Loops(unittest.TestCase):
    """What holds in every world, and what one could not wait for."""

    @each_seed
    def test_in_every_world_who_is_honest_is_served(self, seed):
        chance = random.Random(seed)
        most = chance.randrange(5, 60)
        world = World(seed, *chance.choice([(FOREVER, 10000), (most + 40, 10000),
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
        for who in honest:
            judge(who, LATE, 15)
        count = sum(int(re.search(r"écartés : (\d+)", text).group(1))
                    for _, text in world.warned("Trop"))
        self.assertEqual(count, sum(who.hung_up and who.closed < world.until
                                    for who in world.clients))
        times = [at for at, _ in world.warned("Trop")]
        self.assertTrue(all(b - a > 0.98 or b >= 15 for a, b in zip(times, times[1:])), times)
        said = {text for _, _, text in world.lines}
        for who in world.clients:
            self.assertIn(f"Un client {who.ip.replace('::ffff:', '')} s'est connecté.", said)
        for text in ("s'est connecté", "Fin de la connexion"):
            self.assertEqual(sum(text in line for _, _, line in world.lines), len(world.clients))

    def test_nobody_is_let_go_for_an_empty_door(self):
        world = World(descriptors=13)
        for number in range(13):
            world.client(1.0 + number / 100, ip="192.0.2.1")
        world.run(20)
        self.assertEqual(world.warned(), [])
        self.assertFalse([who for who in world.clients if who.closed < 20])

    def test_for_somebody_at_the_door_the_oldest_of_the_most_is_let_go_after_a_last_look(self):
        world = World(descriptors=4)
        crowd = [world.client(1.0 + number / 10, ip="192.0.2.1") for number in range(3)]
        crowd.append(world.client(1.5, (0.4995, b"waf\n"), ip="2001:db8::1", leaves=None))
        crowd += [world.client(1.9999, ip="192.0.2.1"), world.client(2.0, (0.0, b"meo\n"))]
        world.run(20)
        gone = [who for who in crowd if who.hung_up and who.closed < 20]
        self.assertEqual(gone, crowd[:len(gone)])
        self.assertIn(len(gone), (1, 2))
        self.assertEqual(crowd[-1].replies + crowd[3].replies, [MEO.encode(), WAF.encode()])
        self.assertEqual(world.warned()[0][1], "Impossible d'accepter un client : No descriptor.")

    def test_a_flood_is_let_in_at_once(self):
        world = World(descriptors=10)
        crowd = [world.client(1.0, ip="192.0.2.1") for _ in range(200)]
        world.run(10)
        self.assertLess(max(who.accepted for who in crowd), 1.05)

    def test_what_has_been_said_is_answered_before_one_is_let_go(self):
        world = World(waiting_max=20)
        said = [world.client(1.0, (1.00001, b"waf\n"), ip="192.0.2.1") for _ in range(20)]
        for _ in range(60):
            world.client(2.00002, ip="192.0.2.1")
        world.run(10)
        self.assertEqual([who.replies for who in said], [[WAF.encode()]] * 20)
        self.assertLess(world.warned("Trop")[0][0], 3.1)

    def test_who_has_said_all_is_answered_before_the_server_ends(self):
        world = World()
        crowd = [world.client(1.0, (8.9995, b"waf\n"), ip="192.0.2.1") for _ in range(300)]
        world.run(10)
        self.assertEqual([who.replies for who in crowd], [[WAF.encode()]] * 300)

    def test_who_comes_without_an_address_is_served(self):  # macOS: accept(2) of who has left
        world = World()
        who = world.client(1.0, (0.0, b"waf\n"), ip="inconnu")
        world.run(10)
        self.assertEqual(who.replies, [WAF.encode()])
        self.assertIn("Un client inconnu s'est connecté.", [text for _, _, text in world.lines])

    def test_a_system_that_does_not_say_whether_it_listens_is_believed_to(self):
        world = World(descriptors=10)
        world.mac = True
        crowd = [world.client(1.0, ip="192.0.2.1") for _ in range(30)]
        last = world.client(2.0, (0.0, b"waf\n"))
        world.run(10)
        self.assertEqual((last.replies, crowd[0].hung_up), ([WAF.encode()], True))

    def test_only_a_lack_of_descriptors_costs_anybody_a_place(self):
        for error in (ConnectionResetError(104, "reset"), ConnectionAbortedError(103, "gone"),
                      OSError(100, "network is down"), OSError(71, "protocol error"),
                      OSError(113, "no route"), PermissionError(1, "firewall")):
            world = World()
            silent = [world.client(1.0) for _ in range(5)]
            world.errors = [(2.0, error)] * 40
            last = world.client(3.0, (0.0, b"waf\n"))
            world.run(20)
            self.assertFalse([who for who in silent if who.closed < 20])
            self.assertEqual(last.replies, [WAF.encode()])
            self.assertEqual(bool(world.warned("Impossible")),
                             not isinstance(error, ConnectionError))
            self.assertEqual(len(world.warned()), len(world.warned("Impossible")))

    def test_a_burst_that_is_done_at_once_pushes_out_nobody(self):
        world = World(descriptors=30)
        silent = [world.client(1.0) for _ in range(29)]
        burst = [world.client(2.0, (0.0, b"waf\n"), (0.0, END)) for _ in range(100)]
        world.run(10)
        self.assertEqual(world.warned(), [])
        self.assertFalse([who for who in silent if who.closed < 10])
        self.assertEqual([who.replies for who in burst], [[WAF.encode()]] * 100)

    def test_without_any_descriptor_it_rests_and_says_so_once_a_second(self):
        world = World()
        world.taken = [(1.0, 11.0)]
        at_door = world.client(2.0, (0.0, b"waf\n"))
        world.run(20)
        self.assertAlmostEqual(at_door.replied, 11.0, delta=0.05)
        self.assertIn(len(world.warned("Impossible")), (9, 10))
        self.assertLess(world.accepts, 9 * 60 + 50)

    def test_without_datagrams_it_serves_too(self):
        world = World()
        world.datagrams, world.taken = False, [(1.0, 1.1)]
        at_door = world.client(1.0, (0.0, b"waf\n"))
        world.run(5)
        self.assertAlmostEqual(at_door.replied, 1.1, delta=0.01)

    def test_a_listening_socket_that_is_taken_away_ends_the_loop(self):
        world = World()
        world.killed = 2.0
        world.client(1.0)
        with self.assertRaisesRegex(OSError, "no listener"):
            world.run(10)
        self.assertLess(world.now, 3.1)

    def test_nobody_stays_longer_than_five_minutes_and_that_is_one_warning(self):
        world, kept = World(), []

        class Kept(server.Client):
            def __init__(self, *args):
                super().__init__(*args)
                kept.append(self)  # or the collector hangs up on who is only forgotten

        for number, script in enumerate((
                [], [(at / 10, b"a") for at in range(9000)],
                [(0.0, b"waf\n"), *[(at * 1.9, b"x") for at in range(1, 200)]])):
            world.client(1.0, *script, leaves=None, ip=f"192.0.2.{number}")
        with unittest.mock.patch.object(server, "Client", Kept):
            world.run(350)
        for who in world.clients:
            self.assertAlmostEqual(who.closed, 301, delta=2 * ROUND)
        self.assertCountEqual(world.warned("Le client"), [
            (who.closed, f"Le client {who.ip} tarde trop : connexion fermée.")
            for who in world.clients])

    def test_who_takes_just_less_than_five_minutes_is_served(self):
        world = World()
        for _ in range(900):  # whose looks are some 0.1 s apart
            world.client(1.0, (4.99, b"waf\n"), (4.99, END), ip="192.0.2.1")
        with unittest.mock.patch.object(server, "PATIENCE", 5.0):
            world.run(10)
        self.assertEqual([who.replies for who in world.clients], [[WAF.encode()]] * 900)
        self.assertEqual(world.warned(), [])

    def test_a_minute_alone_is_said_and_said_again_every_minute(self):
        world = World()
        world.client(200.5, (0.0, b"waf\n"), (0.0, END))  # done at once
        world.client(400.0, (1.0, END))
        world.run(470)
        self.assertEqual([int(at) for at, _ in world.warned("Aucun client depuis")],
                         [60, 120, 180, 260, 320, 380, 461])

    def test_nobody_alone_is_awake_for_nothing(self):
        world = World()
        world.client(1.0, (0.5, b"waf\n"))
        world.run(101)
        self.assertLess(world.accepts, 100 + 50)

    def test_a_date_that_is_set_in_the_middle_of_a_message_does_not_end_it(self):
        for step in (3600, 1, -1, -3600):
            world = World()
            who = world.client(1.0, (0.0, b"un petit "), (0.15, b"waf\n"))
            world.steps = [(1.05, step)]
            silent = world.client(1.0, (0.0, b"waf"), ip="192.0.2.1")
            world.run(10)
            if step < 0:  # one forward counts for a pass
                judge(silent)
            self.assertEqual(who.replies, [WAF.encode()], step)

    def test_a_process_that_is_stopped_cuts_off_nobody(self):
        world = World()
        half = world.client(1.0, (0.0, b"un petit "), (0.15, b"waf\n"))
        prompt = world.client(1.0, (4290, b"meo\n"))
        world.stops = [(1.1, 4000)]
        world.run(6000)
        self.assertEqual(half.replies + prompt.replies, [WAF.encode(), MEO.encode()])

    def test_lone_people_and_a_crowd_behind_one_address_are_answered_within_100_ms(self):
        world = World()
        for number in range(330):
            ip = "192.0.2.1" if number > 129 else None
            world.client(1.0, (2 + number / 300, b"waf\n"), ip=ip)
        world.run(10)
        for who in world.clients:
            judge(who, 0.1)

    def test_clients_that_pour_hold_up_nobody(self):
        for piece in (b"x" * 4096, b"x" * 4095 + b"\n", b"x" * 1000):
            world = World()
            for number in range(100):
                world.client(1.0 + number // 10 / 10, *[(0.0, piece)] * (2 * MIB // len(piece)),
                             ip="192.0.2.1")
            honest = [world.client(1.0 + number / 97, (0.0, b"waf\n")) for number in range(97)]
            world.run(3)
            for who in honest:
                self.assertLess(who.replied, who.at + ROUND)

    def test_after_thousands_of_hosts_have_left_a_crowd_is_answered_and_nothing_is_kept(self):
        world = World()
        for _ in range(100):
            world.client(1.0, (4.0, b"waf\n"), ip="192.0.2.1")
        for number in range(5000):
            world.client(1.5 + number / 5000, (1.0, END), ip=f"10.0.{number // 250}.{number % 250}")
        served = world.run(10)
        for who in world.clients[:100]:
            judge(who, 0.1)
        self.assertFalse(served.waiting.clients)
        gc.collect()
        self.assertFalse([thing for thing in gc.get_objects()
                          if isinstance(thing, (server.Client, server.Group))])
