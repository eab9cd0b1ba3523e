"""The page on which people compare clips, served to browsers on this machine, or with a token."""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
from collections.abc import Callable
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from regrow.control.people.pages import comparing_page
from regrow.control.people.store import Preferences, Question

__all__ = ["make_server"]

_LONGEST = 4096  # bytes of a request's body
_NAMES = {"localhost", "127.0.0.1", "::1"}


def make_server(
    preferences: Preferences, host: str = "127.0.0.1", port: int = 0, token: str | None = None
) -> ThreadingHTTPServer:
    """Return a server that is bound to its port; ``serve_forever`` lets it answer.

    Args:
        preferences: what is asked, and where answers go.
        host: an address of this machine.
        port: 0: any that is free; ``server_port`` tells which.
        token: who does not know it is turned away; needed for other machines to be let in.

    Raises:
        ValueError: ``host`` is open to other machines, and there is no token.
        OSError: the port is taken, or the address is none of this machine's.
    """
    if not _loopback(host) and not token:
        raise ValueError(
            f"host={host!r} lets other machines in: give a token, too, or host='127.0.0.1'"
        )

    class Handler(_Handler):
        pass

    Handler.preferences, Handler.token = preferences, token
    Handler.names = _NAMES if _loopback(host) else None

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        return Server((host, port), Handler)
    except OSError as error:
        raise OSError(
            f"host={host!r}, port={port}: {error.strerror}; port=0 takes one that is free"
        ) from error


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    """Answers the page's requests: /next, /answer and /undo."""

    preferences: Preferences
    token: str | None
    names: set[str] | None

    def do_GET(self) -> None:
        """Send the page, or the next question."""
        path = urlsplit(self.path).path
        if path == "/" and self._let_in():
            self._send(200, comparing_page().encode(), "text/html; charset=utf-8")
        elif path == "/next" and self._let_in():
            person = self._asked("person")
            self._answer(lambda: self._state(self.preferences.next(person)))
        elif path not in ("/", "/next"):
            self._send(404, b"not found", "text/plain")

    def do_POST(self) -> None:
        """Keep an answer, or take the latest one back."""
        if not self._let_in():
            return
        path, said = urlsplit(self.path).path, self._body()
        if said is None:
            return
        if path == "/answer":
            call: Callable[[], Any] = lambda: self._state(None, kept=self._keep(said))  # noqa: E731
        elif path == "/undo":
            call = lambda: self._state(None, undone=self.preferences.undo(str(said["person"])))  # noqa: E731
        else:
            self._send(404, b"not found", "text/plain")
            return
        self._answer(call)

    def _keep(self, said: dict[str, Any]) -> bool:
        number, choice, person = said["number"], str(said["choice"]), str(said["person"])
        if type(number) is not int or not 0 < number < 2**63:
            raise ValueError(f"number={number!r}: that of a question is needed")
        return self.preferences.answer(number, choice, person)

    def _state(self, question: Question | None, **more: Any) -> dict[str, Any]:
        asked, answered = self.preferences.counts()
        told: dict[str, Any] = {"asked": asked, "answered": answered, **more}
        if question is not None:
            clips = [{"box": c.box, "rate": c.rate, "frames": c.frames} for c in question.clips]
            told["question"] = {"number": question.number, "clips": clips}
        return told

    def _answer(self, call: Callable[[], Any]) -> None:
        try:
            told, status = call(), 200
        except KeyError as error:
            told, status = {"error": f"{error} is missing"}, 400
        except ValueError as error:
            told, status = {"error": str(error)}, 400
        except OSError as error:  # the disk is full, or the file is held by something else
            told, status = {"error": str(error)}, 503
        self._send(status, json.dumps(told).encode(), "application/json")

    def _body(self) -> dict[str, Any] | None:
        """Return what was posted; None, if that is no object of JSON, and one is told so."""
        told = self.headers.get("Content-Length") or "0"
        length = int(told) if told.isdecimal() else _LONGEST + 1
        # No form of a strange page can send this type without asking first.
        if self.headers.get("Content-Type") != "application/json" or length > _LONGEST:
            self._send(400, b"JSON of at most 4096 bytes is needed", "text/plain")
            return None
        try:
            said = json.loads(self.rfile.read(length))
            if isinstance(said, dict):
                return said
        except ValueError:
            pass
        self._send(400, b"no JSON object", "text/plain")
        return None

    def _let_in(self) -> bool:
        """Whether a request may be answered; who may not be is told."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if self.names is not None and host not in self.names:  # a strange name that leads here
            self._send(403, b"this page is for this machine", "text/plain")
            return False
        if self.token is None:
            return True
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("token")
        given = self._asked("token") or (unquote(cookie.value) if cookie else "")
        if hmac.compare_digest(given.encode(), self.token.encode()):
            return True
        self._send(403, b"add ?token=... to the address", "text/plain")
        return False

    def _asked(self, name: str) -> str:
        return parse_qs(urlsplit(self.path).query).get(name, [""])[0]

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status == 200 and self.token and self._asked("token"):
            self.send_header(
                "Set-Cookie", f"token={quote(self.token, safe='')}; HttpOnly; SameSite=Strict"
            )
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of every request."""
