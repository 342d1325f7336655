#!/usr/bin/env python3
"""bs client: connect, ask, check, send, receive, close, exit.

It talks to any server of its family (connect, one message, one reply, close), even to one that
greets, that answers and never closes, or that closes before it is asked. What has arrived is shown,
whatever happens afterwards, and the exit code tells a script whether anything failed. It imports
five modules and no others: those of the exercise that it grew out of ("the notes" below). Read
`exchange` first: its steps are the functions above it, in the order in which they happen.
"""

import argparse
import logging.handlers
import re
import socket
import sys

VERSION = "1.0"

SILENCE = 0.5  # seconds that end a reply: a retransmitted segment takes some 0.2
MESSAGE_MAX = 1024  # bytes in UTF-8: the notes' server reads no more
REPLY_MAX = 2000  # bytes that are read and shown: escaped, they still fit the log as a line
GREETING_MAX = 1 << 20  # bytes (1 MiB): of a longer one, the rest is taken for the reply
QUESTION = "Que veux-tu envoyer au serveur : "
CLOSED = "Le serveur a fermé la connexion sans répondre."
CAUSES = (  # by class, since `errno` is not one of the five modules
    (ConnectionRefusedError,
     ("Aucun serveur n'écoute à cette adresse et sur ce port ; "
      "lancez le serveur, ou corrigez -H ou -p")),
    ((socket.timeout, TimeoutError),
     "Pas de réponse dans le délai ; vérifiez l'adresse, le port et le pare-feu"),
    (socket.gaierror,
     "Nom ou adresse introuvable ; vérifiez l'orthographe (sans http://) et le réseau"),
    (ConnectionResetError, "Le serveur a rompu la connexion ; réessayez, ou lisez son journal"),
)
HINT = ("Le mot s'écrit en minuscules ; l'adresse du serveur se donne avec -H et son port avec -p "
        "(-h montre l'aide).")
UNREACHABLE = OSError, "Serveur injoignable ; vérifiez l'adresse, le réseau et le pare-feu"
CUT = "… (coupé)"  # the end of a text that is shown or logged in part


class NoWord(ValueError):
    """A message contains none of the words that it must contain."""


def check_message(message: str) -> str:
    """Return `message` if it may be sent.

    Raises TypeError if it is not a str, ValueError if it is longer than MESSAGE_MAX bytes in UTF-8
    or holds a line break, which could end it, and NoWord if it contains no word of the pattern.
    """
    if not isinstance(message, str):  # a program's own standard input may give bytes
        raise TypeError("Le message doit être une chaîne de caractères.")
    if len(encode(message)) > MESSAGE_MAX:  # first: ask() cuts a long line, perhaps before its word
        raise ValueError(f"Le message ne doit pas dépasser {MESSAGE_MAX} octets en UTF-8.")
    if re.search(r"[\r\n]", message):
        raise ValueError("Le message ne doit pas contenir de retour à la ligne.")
    if not re.search(r"waf|meo", message):
        raise NoWord("Le message doit contenir le mot 'waf' ou 'meo'.")
    return message


def encode(message: str) -> bytes:
    """Return `message` in UTF-8; bytes that the locale could not decode are kept as typed."""
    return message.encode("utf-8", "surrogateescape")


def name_of(host: str) -> bytes:
    """Return `host`, a name or an address, without the brackets of an endpoint.

    Raises ValueError if it can be neither: getaddrinfo(3) would take `*` for ::1, and Python
    full-width digits for digits. Raises LookupError where Python lacks the IDNA codec for a name.
    """
    if re.match(r"(\[.*\]|[^:]*):\d+\Z", host):
        raise ValueError("Donnez l'adresse seule avec -H, et le port avec l'option -p.")
    bare = re.sub(r"^\[(?=.*:)(.*)\]$", r"\1", host)
    # A name; or an IPv6 address, in which what follows a % is an interface and no name
    if ":" in bare or re.match(r"[\w.-]+\Z", bare, re.ASCII):
        return encode(bare)
    name = attempt(bare.encode, "idna") or b""
    if b"xn--" not in name:  # it has become ASCII: full-width digits, or ß
        raise ValueError("Ce n'est ni une adresse ni un nom (lettres, chiffres, points et tirets), "
                         "ou Python ne sait pas le convertir (donnez sa forme en « xn-- »).")
    return name


def connect(host: str, port: int, timeout: float, log: logging.Logger) -> tuple:
    """Return a socket connected to `host` (name or IP) and `port`, and the IP of its other end.

    The addresses of `host` share `timeout` seconds equally, and what one leaves over is shared by
    those after it. Raises OSError if none answers, and as `name_of` does.
    """
    # Without IPv6 Python finds such addresses all the same, and can do nothing with them
    family = socket.AF_UNSPEC if socket.has_ipv6 else socket.AF_INET
    infos = socket.getaddrinfo(name_of(host), port, family, socket.SOCK_STREAM)
    for number, info in enumerate(infos):
        share = timeout / (len(infos) - number)
        before = wall_clock()
        try:
            # Not info[4][0], which lacks the interface since Python 3.7
            ip, _ = socket.getnameinfo(info[4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
            # In bytes: no codec is needed
            return socket.create_connection((ip.encode(), port), share), printable(ip)
        except OSError as error:
            if number + 1 == len(infos):
                raise  # there is always a last one: else getaddrinfo would have raised
            log.debug("Cause : %s.", explained(error, UNREACHABLE))
            timeout -= elapsed(before, share)


def ask() -> str:
    """Return the line that the user types, without its end.

    Raises ValueError if there is none, and OSError if it cannot be asked for or read.

    The notes' input() asks on standard error where readline is not loaded, alters a line that
    Ctrl-D ends, and reads an endless one until memory is gone. It is called only where it has been
    replaced (in a notebook): nothing else reaches the user there.
    """
    if input.__module__ != "builtins":
        try:
            return re.sub(r"\r?\n\Z", "", input(QUESTION))
        except (EOFError, RuntimeError, TypeError):  # a notebook may run without a user
            raise ValueError("Rien n'a été saisi.")
    # Where the user can read it: `client.py >reply.txt` asks on standard error
    console = sys.stderr if is_terminal(sys.stderr) and not is_terminal(sys.stdout) else sys.stdout
    say(QUESTION, console)
    if sys.stdin is None:
        raise ValueError("Il n'y a pas d'entrée standard où lire un message.")
    try:
        line = sys.stdin.readline(MESSAGE_MAX + 2)  # the newline, and one character too many
    except UnicodeDecodeError as error:
        raise ValueError(f"La saisie n'est pas du texte en {error.encoding.upper()}.")
    if not line.endswith("\n"):
        say("\n", console)  # it ended with Ctrl-D, or is too long
    if not line:
        raise ValueError("Rien n'a été saisi.")
    return re.sub(r"\r?\n\Z", "", line)


def read_greeting(connection: socket.socket, said: bytearray) -> None:
    """Add to `said` what has come before we speak: a greeting, or why the server closes.

    A later greeting is taken for the reply. Raises OSError if the connection is closed or reset.
    """
    connection.setblocking(False)
    while len(said) <= GREETING_MAX:
        try:
            data = connection.recv(GREETING_MAX)
        except BlockingIOError:
            return
        if not data:
            raise OSError(CLOSED)
        said += data


def send(connection: socket.socket, message: str) -> None:
    """Send `message`, and the newline that ends it. Raises OSError if that fails.

    A message of MESSAGE_MAX bytes has no newline: the notes' server reads no more, and to close
    with a byte unread resets the connection (RFC 1122, 4.2.2.13).
    """
    connection.sendall((encode(message) + b"\n")[:MESSAGE_MAX])  # fits any send buffer: no wait


def receive(connection: socket.socket, timeout: float, reply: bytearray) -> None:
    """Add to `reply` what comes, until the server closes or, once it has begun, pauses for SILENCE.

    Once there are more than REPLY_MAX bytes no more is read. Raises OSError if the reply has not
    ended in `timeout` seconds, if there is none, or if the connection is lost.
    """
    left = timeout
    try:
        while left > 0.0:
            wait = min(SILENCE, left)
            before = wall_clock()
            connection.settimeout(wait)
            try:
                piece = connection.recv(REPLY_MAX)
            except socket.timeout as error:
                if error.errno:
                    raise  # the kernel's ETIMEDOUT: since Python 3.10 it is of the same class
                if reply and wait == SILENCE:  # not a shorter wait, at the end of the timeout
                    return
                left -= wait
                continue
            left -= elapsed(before, wait)
            reply += piece
            if not reply:
                raise OSError(CLOSED)
            if not piece or len(reply) > REPLY_MAX:
                return
    except OSError as error:
        if reply:
            raise OSError(f"La réponse est peut-être incomplète : {explained(error)}")
        raise
    done = "fini de répondre" if reply else "répondu"
    raise OSError(f"Le serveur n'a pas {done} en {timeout:g} s.")


def wall_clock() -> float:
    """Return the wall-clock time in seconds, as logging stamps it: we may not import `time`."""
    return logging.makeLogRecord({}).created


def elapsed(before: float, wait: float) -> float:
    """Return the seconds since `before`, by wall_clock(), of a wait of `wait` seconds at most.

    If the clock has been set back meanwhile that is 0, and if forward at most `wait`.
    """
    return min(max(wall_clock() - before, 0.0), wait)


def explained(error: Exception, *more: tuple) -> str:
    """Return what `error` means, by CAUSES and `more` such rows, with the system's words."""
    for kind, meaning in (*CAUSES, *more):
        if isinstance(error, kind):
            return f"{meaning} ({reason(error)})"
    return reason(error)


def shown(data: bytearray) -> str:
    """Return what the server has said as one line of text, without its line end."""
    text = re.sub(rb"\r?\n\Z", b"", data[:REPLY_MAX]).decode("utf-8", "backslashreplace")
    return printable(text) + (CUT if len(data) > REPLY_MAX else "")


class NoConnection(Exception):
    """The server cannot be reached; it is raised from the error that says why."""


def exchange(args: argparse.Namespace, log: logging.Logger) -> None:
    """Carry out one exchange as `args` (from `parse`) say, and show what comes of it.

    Raises NoConnection, TypeError or ValueError if the message may not be sent, and OSError if no
    reply comes, or not all of it, or it cannot be shown.
    """
    message = args.message
    if message is not None:
        check_message(message)
    try:
        connection, ip = connect(args.host, args.port, args.timeout, log)
    except (OSError, ValueError, LookupError) as error:
        raise NoConnection from error
    with connection:
        log.info("Connexion réussie à %s.", endpoint(ip, args.port))
        say(f"Connecté avec succès au serveur {ip} sur le port {args.port}\n", sys.stdout)
        if message is None:
            message = check_message(ask())
        said, reply = bytearray(), bytearray()  # filled in place: shown even if the call raises
        try:
            read_greeting(connection, said)
        finally:
            if said:
                log.info('Le serveur %s a dit : "%s".', ip, shown(said))
                say(f"Le serveur a dit : {shown(said)}\n", sys.stdout)
        send(connection, message)
        log.info('Message envoyé au serveur %s : "%s".', ip, printable(message))
        try:
            receive(connection, args.timeout, reply)
        finally:
            if reply:
                log.info('Réponse reçue du serveur %s : "%s".', ip, shown(reply))
                say(f"Le serveur a répondu : {shown(reply)}\n", sys.stdout)


def tell(error: Exception, args: argparse.Namespace, log: logging.Logger) -> None:
    """Log why the exchange of `args` has failed, and show it, unless the log is shown itself."""
    if isinstance(error, NoConnection):
        host = printable(args.host)
        lines = [f"Impossible de se connecter au serveur {host} sur le port {args.port}.",
                 f"Cause : {explained(error.__cause__, UNREACHABLE)}."]
        first = error_line(lines[0])
    else:
        lines = [f"Une erreur est survenue: {explained(error)}."]  # the notes' words
        if isinstance(error, NoWord):
            lines.append(HINT)
        first = lines[0]
    for line in lines:
        log.error(line)
    if not args.verbosity:
        attempt(say, "\n".join([first, *lines[1:], ""]), sys.stderr)


# From here to `integer` all is line for line as in server.py: each file runs alone


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


INTERRUPTED = 130  # exit code after Ctrl-C: 128 + SIGINT, as shells say it
HOST = "127.0.0.1"
PORT = 13337  # the lab's
PORT_MAX = 65535
TIMEOUT = 10.0  # seconds for the connection, then for the whole reply
TIMEOUT_MAX = 86400.0  # seconds (a day): well inside what every system's poll(2) takes
LOG_FILES = ("/var/log/bs_client/bs_client.log", "bs_client.log")  # the first that opens
LOG_REFUSED = 1  # exit code if the file given with --log-file does not open; server.py's is 5


def seconds(text: str) -> float:
    """Return the seconds in `text`. Raises ArgumentTypeError if it spells none, or too many."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= TIMEOUT_MAX:  # false for a NaN too
        raise argparse.ArgumentTypeError(
            "doit être un nombre de secondes, par exemple 2.5 (avec un point), supérieur à 0 et "
            f"inférieur ou égal à {TIMEOUT_MAX:.0f} (un jour)")
    return value


def parse(argv: "list | None") -> argparse.Namespace:
    """Return the options in `argv` (None: sys.argv). Raises SystemExit on misuse."""
    parser = Parser("Client bs. Envoie un message au serveur et montre sa réponse.")
    add = parser.add_argument_group("options").add_argument
    add("-h", "--help", action="help", help="affiche cette aide et quitte")
    add("-H", "--host", default=HOST, metavar="HÔTE",
        help="nom ou adresse IP du serveur (par défaut %(default)s)")
    add("-p", "--port", type=integer, default=PORT, metavar="PORT",
        help=f"port du serveur, de 0 à {PORT_MAX} (par défaut %(default)s)")
    add("-t", "--timeout", type=seconds, default=TIMEOUT, metavar="SECONDES",
        help="délai en secondes pour se connecter, puis pour toute la réponse, par exemple 2.5, et "
             f"un jour ({TIMEOUT_MAX:.0f}) au plus (par défaut %(default)g)")
    add("--log-file", metavar="FICHIER",
        help="journal (par défaut {}, sinon {} dans le dossier courant)".format(*LOG_FILES))
    add("-v", "--verbosity", action="store_true",
        help="affiche aussi le journal sur la console, et pourquoi une adresse n'a pas répondu")
    add("--version", action="version", version=f"%(prog)s {VERSION}",
        help="affiche la version et quitte")
    parser.add_argument_group("message").add_argument(
        "message", nargs="*",
        help="texte à envoyer, en un ou plusieurs mots (entre guillemets s'il a une apostrophe), "
             "qui doit contenir 'waf' ou 'meo' en minuscules (par défaut, il est demandé)")
    args = parser.parse_args(argv)
    args.message = " ".join(args.message) if args.message else None
    if not 0 <= args.port <= PORT_MAX:
        exit_with_error(f"Le port spécifié n'est pas un port possible (de 0 à {PORT_MAX}).", 1)
    return args


def main(argv: "list | None" = None) -> int:
    """Run the client with the options in `argv` (None: sys.argv).

    Returns the exit code: 0 if nothing failed, else one from README's table.
    """
    try:
        args = parse(argv)
        journal = open_journal(args.log_file)
        with Log(journal, args.verbosity, console=args.verbosity) as log:
            if journal:
                log.debug("Journal : %s", printable(journal.baseFilename))
            try:
                exchange(args, log)
            except (NoConnection, OSError, TypeError, ValueError) as error:
                tell(error, args, log)
                return 1
    except SystemExit as end:  # an error, the help or the version
        return end.code
    except KeyboardInterrupt:
        attempt(say, "\n", sys.stderr)  # ends the line of "^C"
        return INTERRUPTED
    finally:
        flush_streams()
    return 0


def die_of_interrupt() -> None:
    """Raise a KeyboardInterrupt that shows no traceback if nobody catches it."""
    stock = sys.excepthook

    def hook(kind: type, *rest) -> None:
        sys.excepthook = stock
        if kind is not KeyboardInterrupt:
            stock(kind, *rest)
    sys.excepthook = hook
    raise KeyboardInterrupt


if __name__ == "__main__":
    status = main()
    if status == INTERRUPTED and sys.version_info >= (3, 8) and sys.platform != "win32":
        # A shell ends its loop only if SIGINT has killed the program, and an interrupt that nobody
        # catches makes Python end like that (bpo-1054041)
        die_of_interrupt()
    sys.exit(status)
