"""A TLS server on loopback, for as long as a test needs it."""

import os
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from simulations.deploy.connection import Address
from simulations.deploy.key_folder import Layout


class _Healthy(BaseHTTPRequestHandler):
    """Answers as a healthy SuperLink does."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Quiet(HTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that refuses the certificate ends the connection: that is what is tested."""


@contextmanager
def listening(layout: Layout | None) -> Iterator[Address]:
    """A server with the certificate of a folder, or without TLS."""
    server = _Quiet(("127.0.0.1", 0), _Healthy)
    if layout is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(layout.server, layout.server_key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Address("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Layout | None], Address]]:
    """Starts servers that end with the test."""
    with ExitStack() as stack:
        yield lambda layout: stack.enter_context(listening(layout))


@pytest.fixture(autouse=True)
def programs_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment that is activated."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where certificates go."""
    return tmp_path / "keys"
