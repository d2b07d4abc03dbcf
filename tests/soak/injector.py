"""What is broken on purpose, one thing after another, by dice."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable

import psutil

from tests.faults.ledger import Ledger
from tests.integration.black_hole import BlackHole
from tests.soak import databases
from tests.soak.brokers import Broker
from tests.soak.fleet import NEWEST, Fleet, Member, children_of, process_of
from tests.soak.options import WEIGHTS, Options
from tests.soak.watch import Watch

WITHOUT_BEAT_SECONDS = 4
TWO_BEATS_SECONDS = 6
AIM_SECONDS = 2
HOLE_SECONDS = (1, 4)
BROKER_DOWN_SECONDS = (0, 2)


class Injector:
    """Breaks something whenever ``advance()`` finds that it is time to, and mends it later."""

    def __init__(
        self,
        options: Options,
        fleet: Fleet,
        broker: Broker,
        hole: BlackHole,
        ledger: Ledger,
        watch: Watch,
        dice: random.Random,
    ) -> None:
        self.fleet, self.broker, self.hole = fleet, broker, hole
        self.ledger, self.watch, self.dice = ledger, watch, dice
        self.lease, self.pace = options.lease, options.pace
        self._next = time.monotonic() + self.pace
        self._mends: list[tuple[float, str, Callable[[], None]]] = []
        """What is broken now: until when, what, and how to mend it."""
        self._aims: list[tuple[float, Callable[[Member, psutil.Process], None]]] = []
        """What waits for somebody to be in a body, and until when it does."""
        weights = {name: WEIGHTS[name] for name in options.only or WEIGHTS}
        if broker.is_durable:
            weights.pop("empty-the-broker", None)
        self._faults, self._weights = list(weights), list(weights.values())

    def advance(self) -> None:
        """Mend what is due, and break the next thing if it is time to."""
        now = time.monotonic()
        for mend in [mend for mend in self._mends if mend[0] <= now]:
            self._mends.remove(mend)
            mend[2]()
        if self._aims:
            self._strike()
        if now >= self._next:
            self._next = now + self.dice.expovariate(1 / self.pace)
            (fault,) = self.dice.choices(self._faults, self._weights)
            getattr(self, fault.replace("-", "_"))()

    def stop(self) -> None:
        """Mend everything; from now on one beat, and the newest version everywhere."""
        self._aims.clear()
        while self._mends:
            self._mends.pop(0)[2]()
        self.broker.await_up()
        for worker in self.fleet.those("worker"):
            if worker.version != NEWEST:
                self.fleet.replace(worker, NEWEST)

    def kill_a_child(self) -> None:
        self._strike_a_body_with(self._kill_child)

    def kill_a_worker(self) -> None:
        self._note("worker killed")
        self.fleet.kill(self.dice.choice(self.fleet.those("worker")))

    def kill_a_producer(self) -> None:
        self._note("producer killed")
        self.fleet.kill(self.dice.choice(self.fleet.those("producer")))

    def hold_a_child(self) -> None:
        self._strike_a_body_with(self._hold_child)

    def hold_a_producer(self) -> None:
        if producer := process_of(self.dice.choice(self.fleet.those("producer"))):
            self._hold("producer held", producer)

    def hold_a_worker(self) -> None:
        """Stop a worker altogether, as a machine that is suspended."""
        worker = self.dice.choice(self.fleet.those("worker"))
        main = process_of(worker)
        all_of_it = [main, *children_of(worker)] if main else []
        if all_of_it and all(self._is_free(f"process {process.pid}") for process in all_of_it):
            self._note("worker held")
            seconds = self._longer_than_a_lease()
            for process in all_of_it:
                self._stop(process, seconds)

    def cut_a_connection(self) -> None:
        """End a connection of a worker or producer at the database, whatever it does just now."""
        owners = {
            connection.laddr.port: connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.pid is not None and connection.raddr
        }
        ours = self._ours()
        clients = [
            (number, owners[port])
            for port, number in databases.clients().items()
            if owners.get(port) in ours
        ]
        if clients:
            busy = [client for client in clients if str(client[1]) in self.watch.in_body]
            number, pid = self.dice.choice(busy or clients)
            self._note("database connection ended")
            self.ledger.note("struck", process=str(pid), note="cut off")
            databases.terminate(number)

    def restart_the_broker(self) -> None:
        if self._is_free("broker"):
            self._note("broker restarted")
            self._take_down_the_broker()

    def empty_the_broker(self) -> None:
        if self._is_free("broker"):
            self._note("broker emptied")
            self.hole.shut()
            for item in sorted(self.broker.forget()):
                self.ledger.note("dropped", item)
            self._mend_after(self.dice.uniform(*BROKER_DOWN_SECONDS), "broker", self.hole.heal)

    def swallow_packets(self) -> None:
        if self._is_free("broker"):
            self._note("broker swallowed packets")
            self.hole.swallow()
            self._mend_after(self.dice.uniform(*HOLE_SECONDS), "broker", self.hole.heal)

    def two_beats(self) -> None:
        if self._is_free("beat"):
            self._note("two beats")
            second = self.fleet.start("beat", 1, NEWEST)
            self._mend_after(TWO_BEATS_SECONDS, "beat", lambda: self.fleet.dismiss(second))

    def no_beat(self) -> None:
        if self._is_free("beat"):
            self._note("no beat")
            for beat in self.fleet.those("beat"):
                self.fleet.dismiss(beat)
            again = lambda: self.fleet.start("beat", 0, NEWEST)  # noqa: E731
            self._mend_after(WITHOUT_BEAT_SECONDS, "beat", again)

    def roll_a_worker(self) -> None:
        worker = self.dice.choice(self.fleet.those("worker"))
        self._note("worker rolled")
        self.fleet.replace(worker, 3 - worker.version)

    def roll_a_producer(self) -> None:
        producer = self.dice.choice(self.fleet.those("producer"))
        self._note("producer rolled")
        self.fleet.replace(producer, 3 - producer.version)

    def _take_down_the_broker(self) -> None:
        self.broker.kill()
        self._mend_after(self.dice.uniform(*BROKER_DOWN_SECONDS), "broker", self.broker.start)

    def _hold(self, kind: str, process: psutil.Process) -> None:
        if self._is_free(f"process {process.pid}"):
            self._note(kind)
            self._stop(process, self._longer_than_a_lease())

    def _stop(self, process: psutil.Process, seconds: float) -> None:
        pid = process.pid
        self.ledger.note("struck", process=str(pid), note="held")
        self.ledger.note("held", process=str(pid))
        _signal(process, signal.SIGSTOP)

        def release() -> None:
            _signal(process, signal.SIGCONT)
            self.ledger.note("released", process=str(pid))

        self._mend_after(seconds, f"process {pid}", release)

    def _longer_than_a_lease(self) -> float:
        return self.lease * self.dice.uniform(1.1, 2)

    def _strike_a_body_with(self, strike: Callable[[Member, psutil.Process], None]) -> None:
        self._aims.append((time.monotonic() + AIM_SECONDS, strike))

    def _strike(self) -> None:
        """Strike children that are in a body, where it hurts; any other after a while."""
        for aim in list(self._aims):
            until, strike = aim
            children = self._children()
            busy = [(w, child) for w, child in children if str(child.pid) in self.watch.in_body]
            if busy or (children and until <= time.monotonic()):
                self._aims.remove(aim)
                strike(*self.dice.choice(busy or children))

    def _kill_child(self, worker: Member, child: psutil.Process) -> None:
        self._note("pool child killed")
        self.fleet.kill_child(worker, child)

    def _hold_child(self, worker: Member, child: psutil.Process) -> None:
        self._hold("pool child held", child)

    def _children(self) -> list[tuple[Member, psutil.Process]]:
        workers = self.fleet.those("worker")
        return [(worker, child) for worker in workers for child in children_of(worker)]

    def _ours(self) -> set[int]:
        mains = {m.process.pid for m in self.fleet.members if m.role != "beat"}
        return mains | {child.pid for _, child in self._children()}

    def _is_free(self, what: str) -> bool:
        return all(name != what for _, name, _ in self._mends)

    def _mend_after(self, seconds: float, what: str, mend: Callable[[], object]) -> None:
        self._mends.append((time.monotonic() + seconds, what, mend))  # type: ignore[arg-type]

    def _note(self, kind: str) -> None:
        self.ledger.note("fault", note=kind)


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # it was faster
        process.send_signal(number)
