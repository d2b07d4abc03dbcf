"""The services outside: the departure board, and the pricing of landings.

    python -m example_project.demo.external board --port 8001 --journal board.jsonl
    python -m example_project.demo.external pricing --port 8002 --outage-seconds 6

Both know nothing of Django, of the libraries or of each other.
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = tuple[int, dict[str, Any]]
Route = Callable[[dict[str, Any]], Answer]

BASE_FEE = Decimal(75)
FEE_PER_MILE = Decimal("0.12")


class Board:
    """Writes down every message it gets, in the order of arrival."""

    def __init__(self, journal: Path) -> None:
        # One write() per line and no buffer of our own: what was answered survives a SIGKILL.
        self._journal = os.open(journal, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o644)
        self._count = journal.read_bytes().count(b"\n")
        self._lock = threading.Lock()

    def receive(self, message: dict[str, Any]) -> Answer:
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            os.write(self._journal, line)
            self._count += 1
        return 200, {"received": True}

    def count(self, _: dict[str, Any]) -> Answer:
        return 200, {"count": self._count}


class Pricing:
    """Computes fees, except during an outage that begins with the first question."""

    def __init__(self, outage_seconds: float) -> None:
        self._outage_seconds = outage_seconds
        self._first_asked: float | None = None

    def fee(self, question: dict[str, Any]) -> Answer:
        if self._first_asked is None:
            self._first_asked = time.monotonic()
        if time.monotonic() - self._first_asked < self._outage_seconds:
            return 503, {"error": "Pricing is being maintained."}
        miles = question.get("distance_mi")
        if not isinstance(miles, int):
            return 400, {"error": "distance_mi must be a whole number of miles."}
        return 200, {"fee": str(BASE_FEE + miles * FEE_PER_MILE)}


class Handler(BaseHTTPRequestHandler):
    """JSON in, JSON out, on connections that stay open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    routes: dict[tuple[str, str], Route] = {}

    def do_GET(self) -> None:
        self._respond({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            message = json.loads(body)
        except ValueError as error:
            self._send(400, {"error": f"This is not JSON: {error}"})
            return
        if isinstance(message, dict):
            self._respond(message)
        else:
            self._send(400, {"error": "A message is a JSON object."})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the journal says it all."""

    def _respond(self, body: dict[str, Any]) -> None:
        route = self.routes.get((self.command, self.path))
        if route is None:
            self._send(404, {"error": f"{self.path} does not exist here."})
        else:
            self._send(*route(body))

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def serve(port: int, routes: dict[tuple[str, str], Route]) -> None:
    """Serve these routes on the loopback interface, until the process is stopped."""
    handler = type("RoutedHandler", (Handler,), {"routes": routes})
    with Server(("127.0.0.1", port), handler) as server:
        server.serve_forever(poll_interval=0.2)


def main(argv: list[str] | None = None) -> None:
    options = _parser().parse_args(argv)
    if options.service == "board":
        board = Board(options.journal)
        serve(options.port, {("POST", "/messages"): board.receive, ("GET", "/count"): board.count})
    else:
        pricing = Pricing(options.outage_seconds)
        serve(options.port, {("POST", "/fees"): pricing.fee})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="example_project.demo.external", description=__doc__)
    services = parser.add_subparsers(dest="service", required=True)
    board = services.add_parser("board", help="receives messages and keeps them in a journal")
    board.add_argument("--port", type=int, required=True)
    board.add_argument("--journal", type=Path, required=True, help="file, one JSON per line")
    pricing = services.add_parser("pricing", help="answers with landing fees")
    pricing.add_argument("--port", type=int, required=True)
    pricing.add_argument("--outage-seconds", type=float, default=0.0)
    return parser


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
