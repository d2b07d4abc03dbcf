"""Takes out, one at a time, the lines that keep a promise; each time a test must turn red.

    make mutations                      # all of them, a few minutes
    make mutations ARGS="fence unique"  # some, by name

Works on a copy of the tree. A mutation that no test notices makes the run fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LANES, OUTBOX = "tests/integration/test_lanes.py", "tests/integration/test_outbox.py"
BATCHES, PARKING = "tests/integration/test_message_batches.py", "tests/integration/test_parking.py"
BACKGROUND = "tests/integration/test_background.py"
ENDINGS = "tests/integration/test_background_processes.py"
WRONG, APPS = "tests/integration/test_wrong_messages.py", "tests/integration/test_apps.py"
REFUSALS, TURNS = "tests/integration/test_broker_refusals.py", "tests/integration/test_turns.py"
PUBLISHER = "tests/integration/test_publisher.py"


@dataclass(frozen=True)
class Mutation:
    """A line that protects something, what it becomes, and the tests that should notice."""

    name: str
    path: str
    before: str
    after: str
    tests: str


MUTATIONS = [
    Mutation(
        "fence",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.pk, "status": status, "attempt": attempt}',
        'return {"pk": self.pk}',
        LANES,
    ),
    Mutation(
        "unique",
        "parviraptor_celery/fencing.py",
        "running_lane=self.lane,",
        "running_lane=None,",
        LANES,
    ),
    Mutation(
        "look-after-commit",
        "parviraptor_celery/drains.py",
        "if row is None and not report.is_exhausted:",
        "if False:",
        LANES,
    ),
    Mutation(
        "lane-head-by-range",
        "parviraptor_celery/leased.py",
        'same_lane = {"lane__gte": lane, "lane__lte": lane}',
        'same_lane = {"lane": lane}',
        LANES,
    ),
    Mutation(
        "resolved-expressions",
        "parviraptor_celery/statements.py",
        "expression.resolve_expression(compiler.query, allow_joins=False, for_save=True)",
        "expression",
        LANES,
    ),
    Mutation(
        "unbegun-pay-nothing",
        "parviraptor_celery/sweep.py",
        "job.worker_deaths + (job.begun_at is not None)",
        "job.worker_deaths + 1",
        LANES,
    ),
    Mutation(
        "atomic-undo",
        "parviraptor_celery/execution.py",
        "if not isinstance(finished.outcome, Processed) or not finished.settle():",
        "if not finished.settle():",
        LANES,
    ),
    Mutation(
        "born-leased",
        "jaiminho_celery/strategies.py",
        "event.status = EventStatus.PUBLISHING",
        "event.status = EventStatus.WAITING; return event.save(using=alias)",
        OUTBOX,
    ),
    Mutation(
        "order-barrier",
        "jaiminho_celery/barriers.py",
        "if event.pk <= self.passed:",
        "if True:",
        OUTBOX,
    ),
    Mutation(
        "late-hook-wins-again",
        "jaiminho_celery/hooks.py",
        "return not is_late or alone(self.event.alias, self.event.renew)",
        "return True",
        OUTBOX,
    ),
    Mutation(
        "signature",
        "jaiminho_celery/execution.py",
        "verify(event)",
        "pass",
        "tests/unit/jaiminho",
    ),
    Mutation(
        "import-only-installed-apps",
        "jaiminho_celery/registry.py",
        "if not separator or not _is_in_installed_app(module):",
        "if not separator:",
        "tests/unit/jaiminho",
    ),
    Mutation(
        "dependents-fail",
        "parviraptor_celery/feeds.py",
        "if row.held_by is not None:",
        "if False:",
        "tests/unit/parviraptor",
    ),
    Mutation(
        "eager-trampoline",
        "parviraptor_celery/broker.py",
        "if waiting is not None:",
        "if False:",
        "tests/unit",
    ),
    Mutation(
        "settled-before-it-waits",
        "parviraptor_celery/feeds.py",
        "row = alone(self.using, self.candidate_at_once)",
        "row = alone(self.using, self.candidate)",
        OUTBOX,
    ),
    Mutation(
        "batch-fence",
        "parviraptor_celery/fencing.py",
        "filter(status=cls.LEASED, attempt=attempt)",
        "filter(status=cls.LEASED)",
        BATCHES,
    ),
    Mutation(
        "all-or-nothing",
        "jaiminho_celery/models.py",
        "raise _LeaseLost",
        "pass",
        BACKGROUND,
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
        BATCHES,
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
        "forget-the-parent",
        "jaiminho_celery/publisher.py",
        "os.register_at_fork(after_in_child=self._begin_anew)",
        "pass",
        ENDINGS,
    ),
    Mutation(
        "flush-at-exit",
        "jaiminho_celery/publisher.py",
        "atexit.register(self.flush, EXIT_SECONDS)",
        "pass",
        ENDINGS,
    ),
    Mutation(
        "flush-of-a-worker's-child",
        "jaiminho_celery/tasks.py",
        '@worker_process_shutdown.connect(dispatch_uid="jaiminho_celery.flush_child")',
        "",
        ENDINGS,
    ),
    Mutation(
        "no-thread-inside-a-transaction",
        "jaiminho_celery/hooks.py",
        " and not connection.in_atomic_block",
        "",
        BACKGROUND,
    ),
    Mutation(
        "thread-outlives-a-database",
        "jaiminho_celery/publisher.py",
        "except Exception:  # a database that is away, for example",
        "except ZeroDivisionError:",
        BACKGROUND,
    ),
    Mutation(
        "thread-closes-connections",
        "jaiminho_celery/publisher.py",
        "connection.close_if_unusable_or_obsolete()",
        "pass",
        BACKGROUND,
    ),
    Mutation(
        "held-by-a-test",
        "jaiminho_celery/hooks.py",
        "if holding.is_held():",
        "if False:",
        "tests/unit/jaiminho/test_kit.py",
    ),
    Mutation(
        "failed-request-is-none",
        "jaiminho_celery/kicks.py",
        "if broker.kick(RELAY, countdown=seconds, using=using):",
        "if broker.kick(RELAY, countdown=seconds, using=using) or True:",
        "tests/unit/jaiminho/test_coming_back.py",
    ),
    Mutation(
        "one-request-for-many",
        "jaiminho_celery/kicks.py",
        "if now < _asked_for.get(using, 0.0) <= due:",
        "if False:",
        "tests/unit/jaiminho/test_coming_back.py",
    ),
    Mutation(
        "dead-letter-holds-its-lane",
        "jaiminho_celery/querysets.py",
        'self.filter(status=EventStatus.DEAD, lane=OuterRef("lane"))',
        'self.filter(status=EventStatus.SKIPPED, lane=OuterRef("lane"))',
        "tests/integration/test_dead_letters.py",
    ),
    Mutation(
        "fingerprint-knows-the-place",
        "jaiminho_celery/fingerprints.py",
        '{kind.__qualname__}", _raised_in(error))',
        '{kind.__qualname__}", "")',
        "tests/unit/jaiminho/test_fingerprints.py",
    ),
    Mutation(
        "receiver-of-a-class-method",
        "jaiminho_celery/execution.py",
        "attempt.receiver = methods.find(function.func, event.body)",
        "pass",
        "tests/unit/jaiminho/test_methods.py",
    ),
    Mutation(
        "receiver-of-the-hook",
        "jaiminho_celery/hooks.py",
        "by_relay=False, receiver=leased.receiver)",
        "by_relay=False)",
        "tests/unit/jaiminho/test_methods.py",
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
        "a-round-ends",
        "jaiminho_celery/sweep.py",
        "dispatch.relay_pool(using, _turn(budget), stream, until=until)",
        "dispatch.relay_pool(using, _turn(budget), stream)",
        TURNS,
    ),
    Mutation(
        "turns",
        "jaiminho_celery/sweep.py",
        "relay_pool(using, _turn(budget),",
        "relay_pool(using, budget,",
        TURNS,
    ),
    Mutation(
        "a-lane-ends-with-the-round",
        "jaiminho_celery/sweep.py",
        "return [lane for lane in lanes if lane in held]",
        "return lanes",
        TURNS,
    ),
    Mutation(
        "given-back-as-due-as-before",
        "jaiminho_celery/dispatch.py",
        "event.put_back(run_after=event.run_after)",
        "event.put_back()",
        TURNS,
    ),
    Mutation(
        "relay-rows",
        "jaiminho_celery/dispatch.py",
        "look = int(min(self.look, max(self.budget.rows, 1)))",
        "look = self.look",
        TURNS,
    ),
    Mutation(
        "batches-by-bytes",
        "jaiminho_celery/dispatch.py",
        "return min(MESSAGE_BATCH, max(1, BATCH_BYTES // max(largest, 1)))",
        "return MESSAGE_BATCH",
        TURNS,
    ),
    Mutation(
        "fenced-delete",
        "jaiminho_celery/querysets.py",
        "return int(self._raw_delete(self.db))",
        "return self.delete()[0]",
        TURNS,
    ),
    Mutation(
        "batches-by-database",
        "jaiminho_celery/publisher.py",
        "groupby(sorted(batch, key=_alias), key=_alias)",
        "groupby(batch, key=_alias)",
        PUBLISHER,
    ),
    Mutation(
        "thread-hands-on",
        "jaiminho_celery/publisher.py",
        "            self._hand_on()",
        "            pass",
        PUBLISHER,
    ),
    Mutation(
        "one-warning",
        "jaiminho_celery/publisher.py",
        "if is_full and not self._was_full:",
        "if is_full:",
        PUBLISHER,
    ),
    Mutation(
        "bytes-are-counted",
        "jaiminho_celery/publisher.py",
        "            self._bytes += len(leased.event.body)",
        "            pass",
        PUBLISHER,
    ),
    Mutation(
        "blanks-at-the-end",
        "jaiminho_celery/querysets.py",
        'rows = rows.filter(**{f"{name}_length": len(text)})',
        "pass",
        "tests/integration/test_dead_letters.py",
    ),
    Mutation(
        "only-what-was-shown",
        "jaiminho_celery/management/commands/dead_letters.py",
        '"until": shown_until}',
        '"until": None}',
        "tests/unit/jaiminho/test_dead_letters_command.py",
    ),
    Mutation(
        "admin-is-no-oracle",
        "jaiminho_celery/admin.py",
        "return lookup in own",
        "return super().lookup_allowed(lookup, value, request)",
        "tests/unit/jaiminho/test_admin.py",
    ),
    Mutation(
        "naive-eta",
        "jaiminho_celery/messages.py",
        "return None if eta is None else maybe_make_aware(eta)",
        "return eta",
        PARKING,
    ),
]


def main(names: list[str]) -> int:
    """Try the named mutations (all without names); return how many nobody noticed."""
    unknown = sorted(set(names) - {mutation.name for mutation in MUTATIONS})
    if unknown:
        known = ", ".join(mutation.name for mutation in MUTATIONS)
        print(f"no mutation is called {', '.join(unknown)}; there are: {known}")
        return 2
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    unnoticed = [mutation for mutation in chosen if not is_noticed(mutation)]
    for mutation in unnoticed:
        print(f"NOBODY NOTICED {mutation.name}: {mutation.path}: {mutation.before}")
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} mutations were noticed")
    return len(unnoticed)


def is_noticed(mutation: Mutation) -> bool:
    """Return whether a test turns red when ``mutation`` is applied to a copy of the tree."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", "*.egg-info", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, copy, ignore=ignored)
        _apply(mutation, copy / mutation.path)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", mutation.tests]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, check=False
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    print(f"{mutation.name:28} {failed[0] if failed else 'nothing failed'}", flush=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return bool(failed)


def _apply(mutation: Mutation, path: Path) -> None:
    source = path.read_text()
    if source.count(mutation.before) != 1:
        raise SystemExit(f"{mutation.name}: {mutation.path} doesn't hold its line exactly once")
    path.write_text(source.replace(mutation.before, mutation.after))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
