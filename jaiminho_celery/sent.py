"""What the test kit shows of an event, and how an expected call is compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from json import JSONEncoder
from typing import Any

from . import local_worker, messages, registry
from .conf import settings
from .exceptions import NotSerializable, UnknownFunction, UnreadableEvent
from .models import Event
from .serialization import decode_call, encode_call
from .states import EventStatus

ANY_SIZE = 2**62


@dataclass(frozen=True)
class Sent:
    """One call that was written to the outbox, or one Celery message.

    ``args`` and ``kwargs`` are what the function or task receives: tuples are lists there.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    stream: str
    key: str
    using: str
    """The database."""

    event_id: int
    status: str
    """WAITING, SENT or DEAD, when this was read."""

    run_after: datetime | None = None
    task_id: str | None = None
    """Of a Celery message, as are the next two."""

    headers: dict[str, Any] = field(default_factory=dict)
    routing_key: str = ""
    error: str = ""

    def __str__(self) -> str:
        details = [str(self.status)]
        details += [f"stream {self.stream!r}"] if self.stream else []
        details += [f"key {self.key!r}"] if self.key else []
        details += [self.error] if self.error else []
        return f"{_shown(self.name, self.args, self.kwargs)}  [{', '.join(details)}]"


@dataclass(frozen=True)
class Call:
    """An expected call; without arguments any call of the target."""

    names: frozenset[str]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    encoder: type[JSONEncoder] | None = None

    def __str__(self) -> str:
        name = min(self.names, key=len)
        return _shown(name, self.args, self.kwargs) if self.args or self.kwargs else f"{name}(…)"

    def matches(self, sent: Sent) -> bool:
        """Return whether ``sent`` is such a call, by what the function receives."""
        if sent.name not in self.names:
            return False
        expected = self._received([list(self.args), dict(self.kwargs)])
        got = _listed([list(sent.args), sent.kwargs])
        return not (self.args or self.kwargs) or bool(expected == got)

    def _received(self, value: Any) -> Any:
        """Return ``value`` as the function would receive it; what has no JSON form, as it is."""
        if isinstance(value, list | tuple):
            return [self._received(item) for item in value]
        if isinstance(value, dict):
            return {key: self._received(item) for key, item in value.items()}
        if self.encoder is None:
            return value
        try:
            body = encode_call((value,), {}, self.encoder, ANY_SIZE)
        except NotSerializable:
            return value  # unittest.mock.ANY, for example
        return decode_call(body, 1)[0][0]


def call(target: Any, *args: Any, **kwargs: Any) -> Call:
    """Return an expected call of ``target``: a decorated function, a task, or a name of either.

    Raises:
        UnknownFunction: no decorated function has that name.
        TypeError: ``target`` is none of these.
    """
    if isinstance(target, Call):
        return target
    if isinstance(target, str):
        function = _function_named(target)
    elif isinstance(name := getattr(target, "name", None), str) and hasattr(target, "apply_async"):
        return Call(frozenset({name}), args, kwargs)
    else:
        function = _function_of(target)
    if function is None:
        return Call(frozenset({target}), args, kwargs)
    names = frozenset({function.name, *function.aliases})
    return Call(names, args, kwargs, function.encoder or settings.default_encoder())


def read(event: Event, status: EventStatus | None = None) -> list[Sent]:
    """Return what ``event`` carries: one call, or each of its Celery messages."""
    about: dict[str, Any] = {
        "stream": event.stream,
        "key": event.key,
        "using": event.alias,
        "event_id": event.pk,
        "status": str(status or _status(event)),
        "error": "" if status == EventStatus.SENT else event.error_message,
    }
    run_after = event.run_after if isinstance(event.run_after, datetime) else None
    try:
        args, kwargs = decode_call(event.body, event.version)
    except UnreadableEvent:
        args, kwargs = ["<unreadable>"], {}
    if event.name != messages.NAME or args == ["<unreadable>"]:
        given = (event.name, tuple(args), kwargs)
        return [Sent(*given, run_after=run_after, **about)]
    return [_message(frozen, about) for frozen in args[0]]


def _message(frozen: dict[str, Any], about: dict[str, Any]) -> Sent:
    name, args, kwargs, headers = local_worker.read(frozen)
    eta = headers.get("eta")
    return Sent(
        name=name,
        args=tuple(args),
        kwargs=kwargs,
        task_id=headers.get("id"),
        headers=headers,
        routing_key=frozen["routing_key"],
        run_after=datetime.fromisoformat(eta) if isinstance(eta, str) else eta,
        **about,
    )


def _status(event: Event) -> str:
    return EventStatus.WAITING if event.status == EventStatus.PUBLISHING else event.status


def _function_named(name: str) -> registry.OutboxFunction | None:
    try:
        return registry.find(name)
    except UnknownFunction:
        if ":" not in name:  # a Celery task, perhaps one that another project runs
            return None
        raise UnknownFunction(
            f"No decorated function is called {name!r}. Known: "
            f"{', '.join(function.name for function in registry.all_functions())}."
        ) from None


def _function_of(target: Any) -> registry.OutboxFunction:
    original = getattr(target, "original_func", target)
    for function in registry.all_functions():
        if function.func == original:
            return function
    raise TypeError(
        f"{target!r} is neither a decorated function, nor a Celery task, nor the name of one."
    )


def _listed(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return value


def _shown(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    given = [repr(arg) for arg in args] + [f"{key}={value!r}" for key, value in kwargs.items()]
    return f"{name}({', '.join(given)})"
