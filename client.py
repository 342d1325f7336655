#!/usr/bin/env python3
"""bs client: connect, ask, check, send, receive, close, exit.

It speaks to any server of its family (connect, one message, one reply, close), also to those that
answer and never close, and it leaves by an exit code that a script can test.
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
TIMEOUT = 10.0  # seconds for the connection, and for each wait for the reply
TIMEOUT_MAX = 86400.0  # seconds (a day): well inside what every system's poll(2) takes
SILENCE = 0.2  # seconds that end a reply whose server never closes: longer than most round trips
MESSAGE_MAX = 1024  # bytes in UTF-8: a server of this family reads no more
REPLY_MAX = 1 << 16  # bytes (64 KiB): a server that talks without end must not fill our memory

LOG_FILES = ("/var/log/bs_client/bs_client.log", "bs_client.log")  # the first that opens
LOG_BYTES = 10000  # that a file holds at most, with one backup: the notes' figures
LOG_BACKUPS = 1
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
LOG_DATE = "%Y-%m-%d %H:%M:%S"


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


def say(text: str) -> None:
    """Print `text` on standard output, whatever characters that can encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def connect(host: str, port: int, timeout: float, log: logging.Logger) -> socket.socket:
    """Return a socket connected to `host` (name or IP) and `port`.

    Each address of `host` gets `timeout` seconds. Raises ExitError, logged, if none answers.
    """
    try:
        return socket.create_connection((host, port), timeout)
    except (OSError, UnicodeError) as error:  # UnicodeError: it cannot be a host's name
        sentence = f"Impossible de se connecter au serveur {printable(host)} sur le port {port}."
        log.error(sentence)
        log.debug("Cause : %s.", getattr(error, "strerror", None) or error)
        raise ExitError(f"ERROR {sentence}", 1) from None


def ask() -> str:
    """Return the message that the user types. Raises ValueError if that is not text."""
    try:
        return input("Que veux-tu envoyer au serveur : ")
    except EOFError:
        print()
        raise ValueError("rien n'a été saisi.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"la saisie n'est pas du texte en {error.encoding}.") from None
    except RuntimeError:  # no standard input at all
        raise ValueError("il n'y a pas d'entrée où saisir un message.") from None


def send(connection: socket.socket, message: str) -> None:
    """Send `message` and its end, and half-close. Raises OSError if the server is gone."""
    connection.sendall(encode(message) + b"\n")
    connection.shutdown(socket.SHUT_WR)


def receive(connection: socket.socket, timeout: float) -> str:
    """Return the reply, waiting at most `timeout` seconds for its beginning.

    It ends where the server closes, or falls silent without closing. Raises OSError if none comes.
    """
    reply = b""
    while len(reply) < REPLY_MAX:
        try:
            data = connection.recv(REPLY_MAX - len(reply))
        except OSError as error:
            if reply:
                break
            if isinstance(error, socket.timeout):
                raise OSError(f"le serveur n'a pas répondu en {timeout:g} s.") from None
            raise
        if not data:
            break
        reply += data
        connection.settimeout(SILENCE)
    if not reply:
        raise OSError("le serveur a fermé la connexion sans répondre.")
    return reply.decode("utf-8", "backslashreplace")


def set_up(log: logging.Logger, path: "str | None", verbose: bool) -> None:
    """Give `log` its file at `path` (None: see LOG_FILES), and the console if `verbose`.

    Raises ExitError if a `path` that was asked for does not open.
    """
    logging.addLevelName(logging.WARNING, "WARN")
    logging.raiseExceptions = False  # a log that stops working is no concern of the user's
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
    # with no handler at all, logging would print errors on standard error by itself
    outputs = [logging.StreamHandler() if verbose and sys.stderr else logging.NullHandler()]
    for candidate in LOG_FILES if path is None else [path]:
        try:
            outputs.append(logging.handlers.RotatingFileHandler(
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
    """An argparse parser whose help prints in any locale and whose misuse is an ExitError."""

    def print_help(self, file=None) -> None:
        """Print the help on standard output, as far as somebody reads it (`| head`)."""
        try:
            say(self.format_help().rstrip())
        except OSError:
            pass

    def error(self, message: str) -> None:
        """Raise ExitError with the usage and argparse's `message`."""
        raise ExitError(f"{self.format_usage()}{self.prog}: erreur: {message}", 2)


def seconds(text: str) -> float:
    """Return the seconds in `text`. Raises argparse.ArgumentTypeError if it spells none."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= TIMEOUT_MAX:  # false for a NaN too
        raise argparse.ArgumentTypeError(
            f"« {text} » n'est pas une durée (plus de 0, au plus {TIMEOUT_MAX:.0f} secondes)")
    return value


def parse(argv: "list | None") -> argparse.Namespace:
    """Return the options in `argv` (None: sys.argv). Raises ExitError on misuse."""
    parser = Parser(description="Client bs : envoie un message au serveur et montre sa réponse.",
                    add_help=False)
    add = parser.add_argument_group("options").add_argument
    add("-h", "--help", action="help", help="affiche cette aide et termine")
    add("-H", "--host", default=HOST, metavar="HÔTE",
        help="nom ou adresse IP du serveur (défaut : %(default)s)")
    add("-p", "--port", type=int, default=PORT, metavar="PORT",
        help="port du serveur (défaut : %(default)s)")
    add("-t", "--timeout", type=seconds, default=TIMEOUT, metavar="SECONDES",
        help="attente de la connexion, puis de la réponse (défaut : %(default)g)")
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
    """Carry out one exchange as `args` (from `parse`) say, and show it.

    Raises ExitError if there is no connection, ValueError if the message may not be sent, and
    OSError if the connection brings no reply.
    """
    if args.message is not None:
        check_message(args.message)
    connection = connect(args.host, args.port, args.timeout, log)
    try:
        ip = connection.getpeername()[0]
        log.info("Connexion réussie à %s:%s.", f"[{ip}]" if ":" in ip else ip, args.port)
        say(f"Connecté avec succès au serveur {ip} sur le port {args.port}")
        message = check_message(ask()) if args.message is None else args.message
        send(connection, message)
        log.info('Message envoyé au serveur %s : "%s".', ip, printable(message))
        reply = printable(receive(connection, args.timeout))
        log.info('Réponse reçue du serveur %s : "%s".', ip, reply)
        say(f"Le serveur a répondu : {reply}")
    finally:
        connection.close()


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
    try:
        args = parse(argv)
        set_up(log, args.log_file, args.verbosity)
        exchange(args, log)
    except ExitError as refusal:
        sentence, code = refusal.args
    except (OSError, ValueError) as error:
        sentence, code = f"Une erreur est survenue: {getattr(error, 'strerror', None) or error}", 1
        log.error(sentence)
    except KeyboardInterrupt:
        sentence, code = "", 130  # 128 + SIGINT, as shells say it; the line after "^C" is ours
    except SystemExit as end:  # argparse has printed the help or the version
        return end.code
    else:
        return 0
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
