"""Celery messages, by the batch, and a broker that is away."""

from __future__ import annotations

from .mutation import Mutation

BATCHES = "tests/integration/test_message_batches.py"
PARKING = "tests/integration/test_parking.py"
WRONG = "tests/integration/test_wrong_messages.py"
APPS = "tests/integration/test_apps.py"
REFUSALS = "tests/integration/test_broker_refusals.py"
ATTENDANCE = "tests/integration/test_attendance.py"

MUTATIONS = [
    Mutation(
        "kick-after-somebodys-last-look",
        "parviraptor_celery/kicks.py",
        "        if self.is_unattended:\n            return False\n",
        "        return not self.is_unattended\n",
        ATTENDANCE,
    ),
    Mutation(
        "unattended-only-when-inserted",
        "parviraptor_celery/guarded.py",
        "        self._is_unattended = False\n        if not raw",
        "        if not raw",
        ATTENDANCE,
    ),
    Mutation(
        "unattended-as-the-insert-says",
        "parviraptor_celery/guarded.py",
        "found[1:] == (True,)",
        "True",
        ATTENDANCE,
    ),
    Mutation(
        "eager-trampoline",
        "parviraptor_celery/broker.py",
        "if waiting is not None:",
        "if False:",
        "tests/unit",
    ),
    Mutation(
        "batch-fence",
        "parviraptor_celery/fencing.py",
        "filter(status=cls.LEASED, attempt=attempt)",
        "filter(status=cls.LEASED)",
        BATCHES,
    ),
    Mutation(
        "mandatory",
        "jaiminho_celery/transports.py",
        "mandatory=mandatory, retry=False",
        "mandatory=False, retry=False",
        BATCHES,
    ),
    Mutation(
        "refused-messages-fail",
        "jaiminho_celery/transports.py",
        "for at in channel.unrouted:",
        "for at in ():",
        BATCHES,
    ),
    Mutation(
        "confirms-are-awaited",
        "jaiminho_celery/transports.py",
        "channel.await_confirms(settings.BROKER_TIMEOUT_SECONDS)",
        "pass",
        BATCHES,
    ),
    Mutation(
        "one-error-per-message",
        "jaiminho_celery/transports.py",
        "except Exception as error:  # whatever a message makes a serializer or transport raise",
        "except ZeroDivisionError as error:",
        BATCHES,
    ),
    Mutation(
        "broker-away-counts-nothing",
        "jaiminho_celery/messages.py",
        "if not found or not isinstance(found[0], (*broker.FAILURES, Nacked)):",
        "if True:",
        BATCHES,
    ),
    Mutation(
        "stale-connection-replaced",
        "parviraptor_celery/broker.py",
        "if timed_out or not was_connected:",
        "if True:",
        "tests/integration/test_black_hole.py",
    ),
    Mutation(
        "breaker",
        "parviraptor_celery/broker.py",
        "if seconds_until_tried():",
        "if False:",
        "tests/integration/test_black_hole.py",
    ),
    Mutation(
        "parking",
        "jaiminho_celery/messages.py",
        "run_after=_parked_until(messages)",
        "run_after=None",
        PARKING,
    ),
    Mutation(
        "nothing-due-is-parked",
        "jaiminho_celery/messages.py",
        "if not etas or len(etas) < len(tasks):",
        "if not etas:",
        PARKING,
    ),
    Mutation(
        "broker-keeps-its-delays",
        "jaiminho_celery/messages.py",
        'return "celery_delayed_" in message["exchange"]',
        "return False",
        PARKING,
    ),
    Mutation(
        "one-by-one-after-a-broken-line",
        "jaiminho_celery/wire.py",
        "    if isinstance(error, _ConnectionDied | broker.TakesNothing):",
        "    if False:",
        WRONG,
    ),
    Mutation(
        "a-flapping-line-is-nobodys-fault",
        "jaiminho_celery/wire.py",
        "BREAKS = 3",
        "BREAKS = 1",
        WRONG,
    ),
    Mutation(
        "header-is-no-broken-line",
        "parviraptor_celery/broker.py",
        "if isinstance(error, KeyError | FrameSyntaxError):",
        "if False:",
        WRONG,
    ),
    Mutation(
        "declare-only-what-is-needed",
        "jaiminho_celery/transports.py",
        'if message["exchange"] and not is_amqp:',
        'if message["exchange"]:',
        WRONG,
    ),
    Mutation(
        "declaration-error-of-who-asks",
        "jaiminho_celery/transports.py",
        "delivery.errors |= dict.fromkeys(askers[text], error)",
        "delivery.errors |= dict.fromkeys(positions, error)",
        WRONG,
    ),
    Mutation(
        "pipeline-one-by-one",
        "jaiminho_celery/transports.py",
        "            raise\n        for at in _published(",
        "            raise\n        raise error\n        for at in _published(",
        WRONG,
    ),
    Mutation(
        "full-is-away",
        "parviraptor_celery/broker.py",
        "        if _is_for_all(_unwrapped(error)):",
        "        if False:",
        REFUSALS,
    ),
    Mutation(
        "words-inside-a-pipeline",
        "parviraptor_celery/broker.py",
        '.rpartition("caused error: ")[2]',
        '.rpartition("nothing")[2]',
        REFUSALS,
    ),
    Mutation(
        "wrong-password-is-away",
        "parviraptor_celery/broker.py",
        "raise CannotConnect(str(error)) from error",
        "raise",
        REFUSALS,
    ),
    Mutation(
        "nack-is-postponed",
        "jaiminho_celery/messages.py",
        "(*broker.FAILURES, Nacked)",
        "broker.FAILURES",
        REFUSALS,
    ),
    Mutation(
        "message-of-its-own-app",
        "jaiminho_celery/messages.py",
        "if known is None and current.main != name:",
        "if False:",
        APPS,
    ),
    Mutation(
        "one-app-one-error",
        "jaiminho_celery/messages.py",
        "except Exception as error:  # its broker URL, for example",
        "except ZeroDivisionError as error:",
        APPS,
    ),
    Mutation(
        "monitors-repeat-no-task",
        "jaiminho_celery/messages.py",
        "for at in tasks or range(len(messages))",
        "for at in range(len(messages))",
        APPS,
    ),
    Mutation(
        "naive-eta",
        "jaiminho_celery/messages.py",
        "return None if eta is None else maybe_make_aware(eta)",
        "return eta",
        PARKING,
    ),
]
