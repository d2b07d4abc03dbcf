"""Posts the departures over HTTP, one thread per airport, in the order of the file.

A departure waits until the one before it of the same aircraft has been accepted, wherever that
one starts: so there is a right order for each airport and for each aircraft, and the ledger can
tell whether it was kept.
"""

import http.client
import json
import threading
from collections.abc import Sequence

from .timetable import Flight

RETRY_SECONDS = 0.1
TIMEOUT_SECONDS = 30.0


class PostRefused(Exception):
    """The web application says that this departure is wrong; posting it again won't help."""


class Poster:
    """Posts in the background; `accepted` grows, `problem` tells why a thread gave up."""

    def __init__(self, port: int, flights: Sequence[Flight]) -> None:
        self._port = port
        self._flights = flights
        self._done = [threading.Event() for _ in flights]
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._post_all, args=(origin,), daemon=True, name=origin)
            for origin in sorted({flight.origin for flight in flights})
        ]
        self.problem: Exception | None = None
        self.retries = 0

    @property
    def accepted(self) -> list[Flight]:
        """What was answered with 201 so far, in the order of the file."""
        flights = zip(self._flights, self._done, strict=True)
        return [flight for flight, done in flights if done.is_set()]

    @property
    def finished(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Give up what has not been posted yet."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS)

    def _post_all(self, origin: str) -> None:
        connection = _Connection(self._port)
        previous: dict[str, threading.Event] = {}
        try:
            for flight, done in zip(self._flights, self._done, strict=True):
                if flight.origin == origin:
                    self._await(previous.get(flight.tailnum))
                    self._post(connection, flight)
                    if self._stopped.is_set():
                        return
                    done.set()
                previous[flight.tailnum] = done
        except Exception as error:
            # Whatever it is, the main thread has to know, and the others need not wait for it.
            self.problem = error
            self._stopped.set()
        finally:
            connection.close()

    def _await(self, previous: threading.Event | None) -> None:
        while previous and not previous.wait(RETRY_SECONDS) and not self._stopped.is_set():
            continue

    def _post(self, connection: "_Connection", flight: Flight) -> None:
        """Post until the answer is yes; a 409 after an unanswered attempt is a yes too."""
        asked_before = False
        while not self._stopped.is_set():
            try:
                status, text = connection.post("/departures/", flight.as_json())
            except (OSError, http.client.HTTPException) as error:
                status, text = 0, str(error)
            if status == 201 or (status == 409 and asked_before):
                return
            if 0 < status < 500:
                raise PostRefused(f"{flight} was answered with {status}: {text}")
            asked_before = True
            self.retries += 1
            self._stopped.wait(RETRY_SECONDS)


class _Connection:
    """One connection that stays open, and is opened again after an error."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)

    def post(self, path: str, data: dict[str, object]) -> tuple[int, str]:
        headers = {"Content-Type": "application/json"}
        try:
            self._http.request("POST", path, json.dumps(data).encode(), headers)
            response = self._http.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def close(self) -> None:
        self._http.close()
