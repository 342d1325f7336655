#!/usr/bin/env python3
"""bs client: connect, ask, check, send, receive, close, exit.

It speaks to any server of its family (connect, one message, one reply, close), also to those that
answer and never close, or that leave before they are asked. What has arrived of a reply is shown,
and the exit code tells a script whether that is all of it.
"""

import argparse
import logging.handlers
import re
import socket
import sys

VERSION = "1.0"

HOST = "127.0.0.1"
PORT = 13337
PORT_MAX = 65535
TIMEOUT = 10.0  # seconds for the connection, then for the whole reply
TIMEOUT_MAX = 86400.0  # seconds (a day): well inside what every system's poll(2) takes
SILENCE = 0.2  # seconds that end a reply whose server never closes: longer than most round trips
MESSAGE_MAX = 1024  # bytes in UTF-8: a server of this family reads no more
REPLY_MAX = 1 << 16  # bytes (64 KiB): a server that talks without end must not fill our memory

LOG_FILES = ("/var/log/bs_client/bs_client.log", "bs_client.log")  # the first that opens
LOG_BYTES = 10000  # that a file holds at most, with one backup: the notes' figures
LOG_BACKUPS = 1
LOG_LINE = 5000  # bytes of a line: a longer one would push out all that was before it
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
LOG_DATE = "%Y-%m-%d %H:%M:%S"
CUT = "… (coupé)"  # ends what is shown or logged in part


class ExitError(Exception):
    """The run ends here; `args` are the text for the user (str) and the exit code (int)."""


def check_message(message: str) -> str:
    """Return `message` if it may be sent.

    Raises TypeError if it is not a str, and ValueError if it contains neither "waf" nor "meo", is
    longer than MESSAGE_MAX bytes in UTF-8, or holds a newline, which would end it.
    """
    if not isinstance(message, str):
        raise TypeError("Le message doit être une chaîne de caractères.")
    if not re.search(r"waf|meo", message):
        raise ValueError("Le message doit contenir le mot 'waf' ou 'meo'.")
    if len(encode(message)) > MESSAGE_MAX:
        raise ValueError(f"Le message ne doit pas dépasser {MESSAGE_MAX} octets en UTF-8.")
    if "\n" in message:
        raise ValueError("Le message ne doit pas contenir de retour à la ligne.")
    return message


def encode(message: str) -> bytes:
    """Return `message` in UTF-8, what the locale could not decode as it was typed."""
    return message.encode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """Return `text`, every character escaped that could forge a line or act on a screen."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason(error: Exception) -> str:
    """Return what `error` says: the system's words, or else ours."""
    return getattr(error, "strerror", None) or str(error)


def incomplete(error: OSError) -> OSError:
    """Return what to tell the user where `error` came in the middle of a reply."""
    return OSError(f"la réponse est peut-être incomplète ({reason(error)}).")


def say(text: str) -> None:
    """Print `text` on standard output, whatever characters that can encode.

    Raises OSError if nobody can read it there.
    """
    if sys.stdout is None:
        raise OSError("il n'y a pas de sortie où afficher la réponse.")
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def connect(host: str, port: int, timeout: float, log: logging.Logger) -> tuple:
    """Return a socket connected to `host` (name or IP) and `port`, and the IP of its other end.

    The addresses of `host` share `timeout` seconds equally: one that is silent must not use up the
    time of the next. Raises ExitError if none answers.
    """
    try:
        infos = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        for info in infos:
            ip, _ = socket.getnameinfo(info[4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
            try:
                return socket.create_connection((ip, port), timeout / len(infos)), ip
            except OSError as error:
                log.debug("Cause : %s.", reason(error))
    except (OSError, UnicodeError) as error:  # UnicodeError: it cannot be a host's name
        log.debug("Cause : %s.", reason(error))
    sentence = f"Impossible de se connecter au serveur {printable(host)} sur le port {port}."
    raise ExitError(f"ERROR {sentence}", 1)


def ask() -> str:
    """Return the message that the user types. Raises ValueError if that is not text."""
    if sys.stdin is None:
        raise ValueError("il n'y a pas d'entrée où saisir un message.")
    try:
        return input("Que veux-tu envoyer au serveur : ")
    except EOFError:
        print()
        raise ValueError("rien n'a été saisi.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"la saisie n'est pas du texte en {error.encoding}.") from None
    except RuntimeError:  # input() needs a standard error too
        raise ValueError("la saisie demande une sortie d'erreur.") from None


def receive(connection: socket.socket, timeout: float) -> tuple:
    """Return what comes of the reply in `timeout` seconds (bytes), and what cut it short (OSError).

    That is None where the server closes, or falls silent without closing, and for a reply that is
    longer than REPLY_MAX: no more of it is read. The last wait may end SILENCE seconds late.
    """
    reply, left = b"", timeout
    connection.settimeout(SILENCE)
    while left > 0.0:
        before = date()
        try:
            data = connection.recv(REPLY_MAX)
        except socket.timeout:  # noqa: UP041  (3.6 knows no other name)
            data = None
        except OSError as error:
            if reply:
                error = incomplete(error)
            return reply, error
        if data:
            reply += data
        elif reply:
            return reply, None
        elif data is not None:
            return reply, OSError("le serveur a fermé la connexion sans répondre.")
        if len(reply) > REPLY_MAX:
            return reply, None
        left -= min(max(date() - before, 0.0), SILENCE)  # a date that somebody sets is no time
    done = "fini de répondre" if reply else "répondu"
    return reply, OSError(f"le serveur n'a pas {done} en {timeout:g} s.")


def date() -> float:
    """Return the date in seconds: the one that logging stamps on a record, for want of `time`."""
    return logging.makeLogRecord({}).created


class Journal(logging.handlers.RotatingFileHandler):
    """The log file; neither it nor its backup grows past LOG_BYTES."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`, cut to LOG_LINE bytes."""
        line = super().format(record)
        data = line.encode("utf-8")
        if len(data) <= LOG_LINE:
            return line
        return data[:LOG_LINE - len(CUT.encode("utf-8"))].decode("utf-8", "ignore") + CUT

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """Return True if the line of `record` would make the file too large.

        Stock logging counts a character for a byte.
        """
        if not self.stream.seekable():
            return False  # a pipe or a terminal, which holds nothing
        size = self.stream.seek(0, 2)  # its end
        line = self.format(record).encode("utf-8")
        return size + len(line) + len("\r\n") > LOG_BYTES


def set_up(log: logging.Logger, path: "str | None", verbose: bool) -> None:
    """Give `log` its file at `path` (None: see LOG_FILES), and the console if `verbose`.

    Raises ExitError if a `path` that was asked for does not open.
    """
    logging.raiseExceptions = False  # a log that stops working is no concern of the user's
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
    outputs = [logging.StreamHandler()] if verbose and sys.stderr else []
    for candidate in LOG_FILES if path is None else [path]:
        try:
            outputs.append(Journal(
                candidate, maxBytes=LOG_BYTES, backupCount=LOG_BACKUPS, encoding="utf-8"))
            break
        except OSError as error:
            cause = error.strerror
    else:
        if path is not None:
            raise ExitError(f"ERROR Impossible d'ouvrir le journal {printable(path)} : {cause}.", 1)
    for output in outputs:
        output.setFormatter(logging.Formatter(LOG_FORMAT, LOG_DATE))
        log.addHandler(output)


class Parser(argparse.ArgumentParser):
    """An argparse parser that prints in any locale, and whose misuse is an ExitError."""

    def _print_message(self, message: str, file=None) -> None:
        """Print the help or the version on standard output, as far as somebody reads it."""
        try:
            say(message.rstrip())
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


def seconds(text: str) -> float:
    """Return the seconds in `text`. Raises argparse.ArgumentTypeError if it spells none."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= TIMEOUT_MAX:  # false for a NaN too
        raise argparse.ArgumentTypeError(f"« {printable(text)} » n'est pas une durée "
                                         f"(plus de 0, au plus {TIMEOUT_MAX:.0f} secondes)")
    return value


def parse(argv: "list | None") -> argparse.Namespace:
    """Return the options in `argv` (None: sys.argv). Raises ExitError on misuse."""
    parser = Parser(description="Client bs : envoie un message au serveur et montre sa réponse.",
                    add_help=False)
    parser.color = False  # 3.14 colours for standard output what may be read somewhere else
    add = parser.add_argument_group("options").add_argument
    add("-h", "--help", action="help", help="affiche cette aide et termine")
    add("-H", "--host", default=HOST, metavar="HÔTE",
        help="nom ou adresse IP du serveur (défaut : %(default)s)")
    add("-p", "--port", type=whole, default=PORT, metavar="PORT",
        help="port du serveur (défaut : %(default)s)")
    add("-t", "--timeout", type=seconds, default=TIMEOUT, metavar="SECONDES",
        help="attente de la connexion, puis de toute la réponse (défaut : %(default)g)")
    add("--log-file", metavar="FICHIER",
        help="journal (défaut : {}, sinon {} dans le dossier courant)".format(*LOG_FILES))
    add("-v", "--verbosity", action="store_true", help="montre aussi le journal sur la console")
    add("--version", action="version", version=f"%(prog)s {VERSION}",
        help="affiche la version et termine")
    parser.add_argument_group("message").add_argument(
        "message", nargs="?", help="à envoyer ; doit contenir 'waf' ou 'meo' (défaut : demandé)")
    args = parser.parse_args(argv)
    if not 0 <= args.port <= PORT_MAX:
        sentence = f"ERROR Le port spécifié n'est pas un port possible (de 0 à {PORT_MAX})."
        raise ExitError(sentence, 1)
    return args


def exchange(args: argparse.Namespace, log: logging.Logger) -> None:
    """Carry out one exchange as `args` (from `parse`) say, and show what comes of it.

    Raises ExitError if there is no connection, ValueError if the message may not be sent, and
    OSError if the connection brings no reply, or not all of it.
    """
    if args.message is not None:
        check_message(args.message)
    connection, ip = connect(args.host, args.port, args.timeout, log)
    try:
        log.info("Connexion réussie à %s:%s.", f"[{ip}]" if ":" in ip else ip, args.port)
        say(f"Connecté avec succès au serveur {ip} sur le port {args.port}")
        message = check_message(ask()) if args.message is None else args.message
        lost = None
        try:
            # Where the newline would be the byte that no server of this family reads, it stays
            # here: to close with a byte unread resets the connection (RFC 1122, 4.2.2.13).
            connection.sendall((encode(message) + b"\n")[:MESSAGE_MAX])
            log.info('Message envoyé au serveur %s : "%s".', ip, printable(message))
        except ConnectionError as error:
            lost = incomplete(error)  # what the server said before may still be read
        reply, cut = receive(connection, args.timeout)
    finally:
        connection.close()
    if reply:
        text = printable(reply[:REPLY_MAX].decode("utf-8", "backslashreplace"))
        text += CUT if len(reply) > REPLY_MAX else ""
        log.info('Réponse reçue du serveur %s : "%s".', ip, text)
        say(f"Le serveur a répondu : {text}")
    if cut or lost:
        raise cut or lost


def complain(sentence: str) -> None:
    """Write `sentence` on standard error, if there is one; an ERROR is red on a terminal."""
    try:
        if sys.stderr.isatty():
            sentence = re.sub(r"^ERROR.*", "\033[31m\\g<0>\033[0m", sentence)
        sys.stderr.write(f"{sentence}\n")
    except (AttributeError, OSError):
        pass


def main(argv: "list | None" = None) -> int:
    """Run the client with the options in `argv` (None: sys.argv).

    Returns the exit code: 0 once a reply is printed, else one of the README's table.
    """
    log = logging.getLogger(__name__)
    log.addHandler(logging.NullHandler())  # with none, logging would print errors by itself
    try:
        args = parse(argv)
        set_up(log, args.log_file, args.verbosity)
        exchange(args, log)
        return 0
    except SystemExit as end:  # argparse has printed the help or the version
        return end.code
    except KeyboardInterrupt:
        complain("")  # ends the line of "^C"
        return 130  # 128 + SIGINT, as shells say it
    except ExitError as refusal:
        sentence, code = refusal.args
    except (OSError, ValueError) as error:
        sentence, code = f"Une erreur est survenue: {reason(error)}", 1
    log.error(re.sub("^ERROR ", "", sentence))
    complain(sentence)
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
