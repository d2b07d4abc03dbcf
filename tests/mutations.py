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
PAUSES, HEALTH = "tests/integration/test_pauses.py", "tests/unit/parviraptor/test_health.py"
REASONS = "tests/integration/test_reasons.py"
ADMIN = "tests/unit/parviraptor/test_admin.py"
POLICIES, SQUASHING = (
    "tests/integration/test_failure_policies.py",
    "tests/integration/test_squashing.py",
)
KEYS, OUTCOMES = "tests/integration/test_unique_keys.py", "tests/integration/test_outcomes.py"
KICK_MESSAGES = "tests/integration/test_kick_messages.py"
PUBLISHER = "tests/integration/test_publisher.py"
HARD_ROWS = "tests/integration/test_hard_rows.py"
INTERLEAVINGS = "tests/integration/test_interleavings.py"
CLOCK, CRASHES = "tests/integration/test_virtual_clock.py", "tests/integration/test_crash_points.py"
KIT = "tests/integration/test_test_api.py"
SCHEDULES = "tests/integration/test_schedules.py"
DECISIONS = "tests/integration/test_schedules_decisions.py"
OUTBOX_SCHEDULES = "tests/integration/test_schedules_outbox.py"
HOSTILE_KICKS = "tests/unit/test_hostile_kicks.py"
HOSTILE_PAYLOADS = "tests/unit/test_hostile_payloads.py"
HOSTILE_PAGES, HOSTILE_VISITORS = (
    "tests/unit/test_hostile_pages.py",
    "tests/unit/test_hostile_visitors.py",
)
HOSTILE_ROWS = "tests/integration/test_hostile_rows.py"
HOSTILE_QUERIES = "tests/integration/test_hostile_queries.py"
HOSTILE_LOGS = "tests/integration/test_hostile_logs.py"
CAUSES, VERDICT = "tests/unit/test_causes.py", "tests/unit/test_soak_verdict.py"
QUEUE_MACHINE = "tests/integration/test_queue_machine.py"
OUTBOX_MACHINE = "tests/integration/test_outbox_machine.py"
_ANY_STEP = "test_a_death_or_a_lost_answer_at_any_step_breaks_no_promise"
DEATHS = f"tests/integration/test_crash_enumeration.py::{_ANY_STEP}"
OUTBOX_DEATHS = f"tests/integration/test_crash_enumeration_outbox.py::{_ANY_STEP}"


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
        "unreadable-head",
        "parviraptor_celery/feeds.py",
        "alone(self.using, functools.partial(self.rows.postpone, error))\n"
        "                return None",
        "raise",
        HARD_ROWS,
    ),
    Mutation(
        "unreadable-in-a-pool",
        "parviraptor_celery/leased.py",
        "return next(filter(None, looks), [])",
        "raise",
        HARD_ROWS,
    ),
    Mutation(
        "unreadable-successor",
        "parviraptor_celery/handoff.py",
        "        _put_back(error, using)\n        return None",
        "        raise",
        HARD_ROWS,
    ),
    Mutation(
        "unreadable-and-expired",
        "parviraptor_celery/querysets.py",
        "return super().expired().defer(*own, *(self.model.dependent_fields or ()))",
        "return super().expired()",
        HARD_ROWS,
    ),
    Mutation(
        "exit-of-a-body",
        "parviraptor_celery/execution.py",
        "    except ENDS_OF_A_BODY as error:",
        "    except ZeroDivisionError as error:",
        HARD_ROWS,
    ),
    Mutation(
        "transaction-left-open",
        "parviraptor_celery/execution.py",
        "    if undo_left_open(blocks):\n        outcome = Failed(LEFT_OPEN)",
        "    if False:\n        outcome = Failed(LEFT_OPEN)",
        HARD_ROWS,
    ),
    Mutation(
        "hook-of-an-atomic-body",
        "parviraptor_celery/execution.py",
        "if committed:",
        "if False:",
        HARD_ROWS,
    ),
    Mutation(
        "handed-back-in-an-atomic-body",
        "parviraptor_celery/execution.py",
        "            _hand_back_again(job)",
        "            pass",
        HARD_ROWS,
    ),
    Mutation(
        "copy-of-a-job",
        "parviraptor_celery/fencing.py",
        "self.token, self.claimed_pk = self.attempt, self.pk",
        "self.token = self.attempt",
        HARD_ROWS,
    ),
    Mutation(
        "stale-object-of-a-bulk",
        "parviraptor_celery/querysets.py",
        "                job.remember()",
        "                job._as_stored = {}",
        HARD_ROWS,
    ),
    Mutation(
        "long-job-shares",
        "parviraptor_celery/dispatch.py",
        "if self.rows.give_back_unbegun(list(self.claimed)):",
        "if False:",
        HARD_ROWS,
    ),
    Mutation(
        "sharing-spares-what-has-begun",
        "parviraptor_celery/querysets.py",
        "held.filter(begun_at__isnull=True).update(",
        "held.update(",
        HARD_ROWS,
    ),
    Mutation(
        "foreground-lanes-take-turns",
        "parviraptor_celery/foreground.py",
        "Budget(settings.KICK_JOBS, settings.KICK_SECONDS, self.stop.is_set)",
        "Budget.endless(self.stop.is_set)",
        HARD_ROWS,
    ),
    Mutation(
        "fence",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.claimed_pk, "status": status, "attempt": self.token}',
        'return {"pk": self.claimed_pk}',
        f"{INTERLEAVINGS}::TestTheFence",
    ),
    Mutation(
        "fence-of-attempts",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.claimed_pk, "status": status, "attempt": self.token}',
        'return {"pk": self.claimed_pk, "status": status}',
        f"{INTERLEAVINGS}::TestTheFence",
    ),
    Mutation(
        "fence-of-a-batch",
        "parviraptor_celery/fencing.py",
        "table = cls.rows(using).filter(status=cls.LEASED, attempt=attempt)",
        "table = cls.rows(using).filter(status=cls.LEASED)",
        f"{INTERLEAVINGS}::TestTheFence",
    ),
    Mutation(
        "fence-of-save",
        "parviraptor_celery/guarded.py",
        "if columns and not self.held().update(**columns):",
        "if columns and not self.rows(self.alias).filter(pk=self.pk).update(**columns):",
        f"{INTERLEAVINGS}::TestTheFence",
    ),
    Mutation(
        "unique",
        "parviraptor_celery/fencing.py",
        '"attempt": self.attempt + 1, "running_lane": self.lane}',
        '"attempt": self.attempt + 1, "running_lane": None}',
        f"{INTERLEAVINGS}::TestTheUniqueLane",
    ),
    Mutation(
        "unique-after-a-hand-off",
        "parviraptor_celery/handoff.py",
        '"running_lane": ANY_LANE, ',
        "",
        f"{INTERLEAVINGS}::TestTheUniqueLane",
    ),
    Mutation(
        "look-after-commit",
        "parviraptor_celery/drains.py",
        "if row is None and not report.is_exhausted:",
        "if False:",
        f"{INTERLEAVINGS}::TestTheLookAfterTheCommit",
    ),
    Mutation(
        "hand-off-locks-both-rows-first",
        "parviraptor_celery/feeds.py",
        "self.rows.lock([run.row.pk, successor.pk])",
        "pass",
        f"{INTERLEAVINGS}::TestAFinisherAndACompetingKick",
    ),
    Mutation(
        "update-by-the-primary-key",
        "parviraptor_celery/statements.py",
        'table += " FORCE INDEX (PRIMARY)"',
        "pass",
        f"{INTERLEAVINGS}::TestAFinisherAndACompetingKick",
    ),
    Mutation(
        "virtual-clock-keeps-no-sql",
        "parviraptor_celery/clock.py",
        "return keeping(*arguments) if _offset == _NOT_MOVED else compose(*arguments)",
        "return keeping(*arguments)",
        CLOCK,
    ),
    Mutation(
        "virtual-clock-forgets",
        "parviraptor_celery/clock.py",
        "for forget in _kept:",
        "for forget in []:",
        CLOCK,
    ),
    Mutation(
        "virtual-clock-is-put-right",
        "parviraptor_celery/virtual_clock.py",
        "stack.callback(clock.move, timedelta())",
        "pass",
        CLOCK,
    ),
    Mutation(
        "virtual-clock-of-new-rows",
        "parviraptor_celery/virtual_clock.py",
        "for field in _fields_that_default_to_now():",
        "for field in []:",
        CLOCK,
    ),
    Mutation(
        "the-dead-write-nothing",
        "parviraptor_celery/crash_points.py",
        'if sql.startswith(("ROLLBACK TO", "RELEASE")):',
        "if True:",
        CRASHES,
    ),
    Mutation(
        "crash-points-are-reached",
        "parviraptor_celery/crash_points.py",
        "if not crash.has_happened:",
        "if False:",
        CRASHES,
    ),
    Mutation(
        "crash-points-are-tied-to-the-engine",
        "parviraptor_celery/crash_points.py",
        '_after(execution, "_run_body", come_by)',
        '_after(execution, "_restore", come_by)',
        CRASHES,
    ),
    Mutation(
        "order-of-bodies",
        "parviraptor_celery/bodies.py",
        "if (before := highest.get(lane)) and body.pk < before.pk:",
        "if False:",
        KIT,
    ),
    Mutation(
        "workers-end-together",
        "parviraptor_celery/crews.py",
        "if self.idle >= self.size:",
        "if True:",
        KIT,
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
        "pause-of-a-lane",
        "parviraptor_celery/dispatch.py",
        "if head is not None and head.is_paused:",
        "if False:",
        PAUSES,
    ),
    Mutation(
        "pause-of-a-lane-of-deferred",
        "parviraptor_celery/dispatch.py",
        "if deferred is None or deferred.is_paused:",
        "if deferred is None:",
        PAUSES,
    ),
    Mutation(
        "pause-of-a-pool",
        "parviraptor_celery/querysets.py",
        "self.waiting().filter(~self.paused(), **when)",
        "self.waiting().filter(**when)",
        PAUSES,
    ),
    Mutation(
        "pause-of-a-pool-of-deferred",
        "parviraptor_celery/querysets.py",
        "self.filter(~self.paused(), status=Literal(JobStatus.DEFERRED))",
        "self.filter(status=Literal(JobStatus.DEFERRED))",
        PAUSES,
    ),
    Mutation(
        "pause-and-hand-off",
        "parviraptor_celery/handoff.py",
        '_MAY_RUN = "is_due AND held_by IS NULL AND NOT is_paused"',
        '_MAY_RUN = "is_due AND held_by IS NULL"',
        PAUSES,
    ),
    Mutation(
        "pause-and-sweep",
        "parviraptor_celery/querysets.py",
        "for lane, pk in heads.items() if lane not in paused})",
        "for lane, pk in heads.items()})",
        PAUSES,
    ),
    Mutation(
        "pause-without-table",
        "parviraptor_celery/querysets.py",
        "return pauses.can_be_made(self.db)",
        "return None",
        PAUSES,
    ),
    Mutation(
        "why-asks-about-the-route",
        "parviraptor_celery/consumers.py",
        "app.amqp.router.route({}, kicks.PROCESS, args=(), kwargs=arguments)",
        "{}",
        REASONS,
    ),
    Mutation(
        "resume-wakes",
        "parviraptor_celery/pauses.py",
        "transaction.on_commit(lambda: _wake(queue, alias, lane), using=alias, robust=True)",
        "pass",
        PAUSES,
    ),
    Mutation(
        "cancel-kicks",
        "parviraptor_celery/decided.py",
        "kicks.on_commit(self, self.alias)\n"
        "            return self.move(JobStatus.IGNORED)\n\n"
        "    @classmethod",
        "return self.move(JobStatus.IGNORED)\n\n    @classmethod",
        PAUSES,
    ),
    Mutation(
        "cancel-frees-key",
        "parviraptor_celery/keyed.py",
        'return super().move(to, **columns | {"waiting_key": None})',
        "return super().move(to, **columns)",
        PAUSES,
    ),
    Mutation(
        "failing-makes-room",
        "parviraptor_celery/dispatch.py",
        "self.comes_back = count == FAIL_CHUNK",
        "pass",
        POLICIES,
    ),
    Mutation(
        "turns-are-counted",
        "parviraptor_celery/drains.py",
        "            budget.spend(1)\n",
        "",
        POLICIES,
    ),
    Mutation(
        "hold-lane-and-sweep",
        "parviraptor_celery/querysets.py",
        "return self._not_parked(heads, lanes)",
        "return lanes",
        POLICIES,
    ),
    Mutation(
        "go-on",
        "parviraptor_celery/querysets.py",
        "if self.model.FAILURE_POLICY is FailurePolicy.GO_ON:",
        "if False:",
        POLICIES,
    ),
    Mutation(
        "squash-locks",
        "parviraptor_celery/squashing.py",
        "if newest is None or not rows.are_waiting_locked({head.pk, newest}):",
        "if newest is None:",
        SQUASHING,
    ),
    Mutation(
        "squash-before-hand-off",
        "parviraptor_celery/execution.py",
        "if self.row.SQUASH_WAITING_JOBS:",
        "if False:",
        SQUASHING,
    ),
    Mutation(
        "squash-not-past-a-failed-job",
        "parviraptor_celery/querysets.py",
        "waiting = waiting.filter(id__lt=obstacle)",
        "pass",
        SQUASHING,
    ),
    Mutation(
        "newest-of-a-key-waits",
        "parviraptor_celery/keyed.py",
        "if holder is not None and holder > self.pk:",
        "if holder is not None:",
        KEYS,
    ),
    Mutation(
        "lost-lease-supersedes-nobody",
        "parviraptor_celery/keyed.py",
        "        if not is_done:\n",
        "        if False:\n",
        KEYS,
    ),
    Mutation(
        "key-looked-for-again",
        "parviraptor_celery/keyed.py",
        "if attempt == ATTEMPTS or not is_taken(error, type(self)):",
        "if True:",
        KEYS,
    ),
    Mutation(
        "stale-object-leaves-key",
        "parviraptor_celery/guarded.py",
        'follows = {"waiting_key"} if {"status", "unique_key"} & set(names) else set()',
        'follows = {"waiting_key"}',
        KEYS,
    ),
    Mutation(
        "superseded-comes-not-back",
        "parviraptor_celery/execution.py",
        "self.outcome, self.pause = Superseded(self.row.error_message), None",
        "pass",
        KEYS,
    ),
    Mutation(
        "unprocessable-in-a-row",
        "parviraptor_celery/feeds.py",
        "self.is_paused = self.unprocessable_in_a_row >= MOST_UNPROCESSABLE",
        "self.is_paused = run.pauses_pool",
        OUTCOMES,
    ),
    Mutation(
        "admin-asks-first",
        "parviraptor_celery/admin.py",
        "if shown_until is None:",
        "if False:",
        ADMIN,
    ),
    Mutation(
        "admin-leaves-later-changes-alone",
        "parviraptor_celery/admin.py",
        "queryset.filter(modification_date__lte=shown_until)",
        "queryset",
        ADMIN,
    ),
    Mutation(
        "admin-decides-only-with-permission",
        "parviraptor_celery/admin.py",
        "def has_cancel_permission(self, request: HttpRequest) -> bool:\n"
        "        return self.has_change_permission(request)",
        "def has_cancel_permission(self, request: HttpRequest) -> bool:\n        return True",
        ADMIN,
    ),
    Mutation(
        "admin-engine-read-only",
        "parviraptor_celery/admin.py",
        "return (*given, *ENGINE, *lane,",
        "return (*given, *lane,",
        ADMIN,
    ),
    Mutation(
        "admin-tracebacks-as-text",
        "parviraptor_celery/admin.py",
        'format_html("<pre>{}</pre>", job.error_traceback)',
        'type(format_html("{}", ""))(job.error_traceback)',
        ADMIN,
    ),
    Mutation(
        "health-misses-sweeps",
        "parviraptor_celery/monitoring.py",
        "if pulse in needed and pulse.is_missing(age):",
        "if False:",
        HEALTH,
    ),
    Mutation(
        "health-forgives-beat",
        "parviraptor_celery/monitoring.py",
        "if pulse in needed and pulse.is_missing(age):",
        "if pulse.is_missing(age):",
        HEALTH,
    ),
    Mutation(
        "health-status",
        "parviraptor_celery/views.py",
        "status=200 if found.is_fine else 503",
        "status=200",
        HEALTH,
    ),
    Mutation(
        "asker-is-noted",
        "parviraptor_celery/tasks.py",
        "sweep.note_asker(asked_by)",
        "pass",
        HEALTH,
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
        "kicks-within-a-task-have-a-parent",
        "parviraptor_celery/kick_messages.py",
        "if app.current_worker_task is not None or any(signal.receivers for signal in _SIGNALS):",
        "if any(signal.receivers for signal in _SIGNALS):",
        KICK_MESSAGES,
    ),
    Mutation(
        "kicks-are-seen-by-receivers",
        "parviraptor_celery/kick_messages.py",
        "if app.current_worker_task is not None or any(signal.receivers for signal in _SIGNALS):",
        "if app.current_worker_task is not None:",
        KICK_MESSAGES,
    ),
    Mutation(
        "kicks-follow-new-routes",
        "parviraptor_celery/kick_messages.py",
        "if form is None or form.about != about:",
        "if form is None:",
        KICK_MESSAGES,
    ),
    Mutation(
        "kicks-routed-by-a-function",
        "parviraptor_celery/kick_messages.py",
        "if not all(type(route) is MapRoute for route in routes):",
        "if False:",
        KICK_MESSAGES,
    ),
    Mutation(
        "kicks-sent-in-the-apps-own-way",
        "parviraptor_celery/kick_messages.py",
        "if how not in _sends_as_celery or len(published) != 1:",
        "if len(published) != 1:",
        KICK_MESSAGES,
    ),
    Mutation(
        "kicks-with-an-event-each",
        "parviraptor_celery/kick_messages.py",
        "if how not in _sends_as_celery or len(published) != 1:",
        "if how not in _sends_as_celery:",
        KICK_MESSAGES,
    ),
    Mutation(
        "kicks-declare-their-queue",
        "parviraptor_celery/kick_messages.py",
        "is_declared: bool = hash(entity) in connection.declared_entities",
        "is_declared: bool = True",
        KICK_MESSAGES,
    ),
    Mutation(
        "kicks-described-as-celery-does",
        "parviraptor_celery/kick_messages.py",
        "return len(shown) <= LONGEST_SHOWN and",
        "return True or",
        KICK_MESSAGES,
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
        "return self._in_lane(lane, EventStatus.DEAD)",
        "return self._in_lane(lane, EventStatus.SKIPPED)",
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
        "return lookup in own and",
        "return super().lookup_allowed(lookup, value, request) and",
        "tests/unit/jaiminho/test_admin.py",
    ),
    Mutation(
        "naive-eta",
        "jaiminho_celery/messages.py",
        "return None if eta is None else maybe_make_aware(eta)",
        "return eta",
        PARKING,
    ),
    Mutation(
        "soak-strike-in-time",
        "tests/faults/causes.py",
        "return after is None or after.began >= self.since",
        "return True",
        CAUSES,
    ),
    Mutation(
        "soak-strike-before",
        "tests/faults/causes.py",
        "return before is None or before.began <= self.until",
        "return True",
        CAUSES,
    ),
    Mutation(
        "soak-strike-once",
        "tests/faults/causes.py",
        "if strike not in used or match(used[strike], tried):",
        "if True:",
        CAUSES,
    ),
    Mutation(
        "soak-strike-of-its-own-process",
        "tests/faults/causes.py",
        "for s in at_hand[run.process] if",
        "for some in at_hand.values() for s in some if",
        CAUSES,
    ),
    Mutation(
        "soak-message-in-time",
        "tests/faults/causes.py",
        "if any(written <= at <= own[-1].began for at in moments):",
        "if moments:",
        CAUSES,
    ),
    Mutation(
        "soak-batch",
        "tests/faults/causes.py",
        "if repeats > batch * len(moments):",
        "if False:",
        CAUSES,
    ),
    Mutation(
        "soak-lost-messages",
        "tests/soak/verdict.py",
        "if len(messages) > allowed:",
        "if False:",
        VERDICT,
    ),
    Mutation(
        "soak-durable-broker",
        "tests/soak/verdict.py",
        "        if self.broker_is_durable:\n            return 0\n",
        "",
        VERDICT,
    ),
    Mutation(
        "soak-ghosts",
        "tests/soak/verdict.py",
        "for item in sorted(history.ghosts())",
        "for item in ()",
        VERDICT,
    ),
    Mutation(
        "soak-sum",
        "tests/soak/verdict.py",
        "return [] if counted == wanted else",
        "return [] if True else",
        VERDICT,
    ),
    Mutation(
        "soak-deaths",
        "tests/soak/verdict.py",
        "if deaths > strikes else []",
        "if False else []",
        VERDICT,
    ),
    Mutation(
        "soak-rest",
        "tests/soak/verdict.py",
        'if status != "PROCESSED"',
        "if False",
        VERDICT,
    ),
    Mutation(
        "schedules-see-the-unique-lane",
        "parviraptor_celery/fencing.py",
        '"attempt": self.attempt + 1, "running_lane": self.lane}',
        '"attempt": self.attempt + 1, "running_lane": None}',
        f"{SCHEDULES}::test_a_hand_off_and_a_competing_kick_neither_deadlock_nor_overlap",
    ),
    Mutation(
        "schedules-see-the-fence",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.claimed_pk, "status": status, "attempt": self.token}',
        'return {"pk": self.claimed_pk}',
        f"{SCHEDULES}::test_a_worker_that_lost_its_lease_records_nothing_at_any_step",
    ),
    Mutation(
        "schedules-see-the-look-after-commit",
        "parviraptor_celery/drains.py",
        "if row is None and not report.is_exhausted:",
        "if False:",
        f"{SCHEDULES}::test_a_job_that_commits_while_the_settlement_waits_for_a_heartbeat_is_run",
    ),
    Mutation(
        "schedules-see-the-row-locks",
        "parviraptor_celery/feeds.py",
        "self.rows.lock([run.row.pk, successor.pk])",
        "pass",
        f"{SCHEDULES}::test_a_hand_off_and_a_competing_kick_neither_deadlock_nor_overlap",
    ),
    Mutation(
        "schedules-see-a-lost-kick",
        "parviraptor_celery/kicks.py",
        "return bool(self.model.rows(self.using).is_attended(self.lane, self.pk))",
        "return True",
        f"{SCHEDULES}::test_a_job_that_is_enqueued_while_its_lane_drains_is_never_stranded",
    ),
    Mutation(
        "schedules-see-the-lock-on-the-cause",
        "parviraptor_celery/dispatch.py",
        "if not self.rows.failed().filter(pk=row.held_by).exists_locked():",
        "if not self.rows.failed().filter(pk=row.held_by).exists():",
        f"{DECISIONS}::test_after_a_decision_about_their_cause_no_job_fails_and_none_is_stranded",
    ),
    Mutation(
        "schedules-see-a-pause",
        "parviraptor_celery/dispatch.py",
        "if head is not None and head.is_paused:",
        "if False:",
        f"{DECISIONS}::test_a_pause_lets_at_most_the_one_run_that_was_found_and_a_resume_wakes_all",
    ),
    Mutation(
        "key-that-is-freed",
        "parviraptor_celery/intake.py",
        "if not is_taken(error, queue):",
        "if True:",
        f"{DECISIONS}::test_of_one_key_one_job_waits_and_whoever_comes_too_late_is_told_so",
    ),
    Mutation(
        "key-that-comes-and-goes",
        "parviraptor_celery/keyed.py",
        "                # Somebody was faster with the key, even if it is free again.\n"
        "                if attempt == ATTEMPTS or not is_taken(error, type(self)):",
        "                if attempt == ATTEMPTS or self._holder_of_key() is None:",
        f"{DECISIONS}::test_of_one_key_one_job_waits_and_whoever_comes_too_late_is_told_so",
    ),
    Mutation(
        "schedules-see-the-barrier",
        "jaiminho_celery/barriers.py",
        "if event.pk <= self.passed:",
        "if True:",
        f"{OUTBOX_SCHEDULES}::test_a_commit_that_comes_late_with_a_lower_id_is_never_overtaken",
    ),
    Mutation(
        "schedules-see-a-late-hook",
        "jaiminho_celery/hooks.py",
        "return not is_late or alone(self.event.alias, self.event.renew)",
        "return True",
        f"{OUTBOX_SCHEDULES}::test_a_late_hook_never_begins_what_a_relay_has_taken_away",
    ),
    Mutation(
        "schedules-see-the-fence-of-the-outbox",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.pk, "status": status, "attempt": self.attempt}',
        'return {"pk": self.pk}',
        f"{OUTBOX_SCHEDULES}::test_a_hook_and_a_relay_publish_twice_only_if_the_lease_was_lost_and_lose_nothing",
    ),
    # Seen by real workers only.
    Mutation(
        "worker-asks-for-sweeps",
        "parviraptor_celery/worker.py",
        "worker.timer.call_repeatedly(interval, broker.kick, args=(task,), kwargs=kwargs)",
        "return",
        "tests/e2e/test_nodes.py",
    ),
    Mutation(
        "sweep-rescues-the-jobs-of-the-dead",
        "parviraptor_celery/sweep.py",
        "    rescue(queue, using)\n    if queue",
        "    if queue",
        "tests/e2e/test_nodes.py",
    ),
    Mutation(
        "e2e-asks-the-engine",
        "tests/e2e/engine.py",
        "return DOCKER if _engine_answers(client) else PROCESSES",
        "return PROCESSES",
        "tests/unit/test_e2e_engine.py",
    ),
    Mutation(
        "hostile-nudge-lanes",
        "jaiminho_celery/tasks.py",
        'known = sound_lanes(lanes, f"the outbox in {using}", logger)',
        "known = lanes",
        HOSTILE_KICKS,
    ),
    Mutation(
        "hostile-quoted-kick",
        "parviraptor_celery/exceptions.py",
        'f"{shown(label)} is not a job queue',
        'f"{label!r} is not a job queue',
        HOSTILE_KICKS,
    ),
    Mutation(
        "payload-bomb",
        "jaiminho_celery/serialization.py",
        "        if self._left < 0:",
        "        if self._left < -50 * self._max_bytes:",
        HOSTILE_PAYLOADS,
    ),
    Mutation(
        "message-of-another-shape",
        "jaiminho_celery/messages.py",
        "if (unreadable := _problem_of(call)) is not None:",
        "if (unreadable := None) is not None:",
        HOSTILE_PAYLOADS,
    ),
    Mutation(
        "markup-in-open-entries",
        "parviraptor_celery/templates/parviraptor_celery/open_queue_entries.html",
        "{{ pause.reason }}",
        "{{ pause.reason|safe }}",
        HOSTILE_PAGES,
    ),
    Mutation(
        "orders-in-the-log",
        "jaiminho_celery/receivers.py",
        "printable(event.name)",
        "event.name",
        HOSTILE_PAGES,
    ),
    Mutation(
        "monitoring-closed",
        "parviraptor_celery/views.py",
        "if not settings.MONITORING_IS_OPEN and not (user",
        "if False and not (user",
        HOSTILE_VISITORS,
    ),
    Mutation(
        "events-are-never-added",
        "jaiminho_celery/admin.py",
        "    def has_add_permission(self, request: HttpRequest) -> bool:\n        return False",
        "    def has_add_permission(self, request: HttpRequest) -> bool:\n        return True",
        HOSTILE_VISITORS,
    ),
    Mutation(
        "spoilt-batch",
        "parviraptor_celery/feeds.py",
        "            if claimed := self._claim_one_by_one():",
        "            if claimed := []:",
        HOSTILE_ROWS,
    ),
    Mutation(
        "spoilt-rescue",
        "parviraptor_celery/sweeping.py",
        "        total += _rescue_one_by_one(rows, give_back, announce)",
        "        raise",
        HOSTILE_ROWS,
    ),
    Mutation(
        "signed-columns",
        "jaiminho_celery/signing.py",
        "        event.strategy,\n",
        "",
        "tests/unit/test_hostile_signatures.py",
    ),
    Mutation(
        "digits-in-a-search",
        "parviraptor_celery/admin_tools.py",
        " and len(term) <= LONGEST_ID",
        "",
        HOSTILE_QUERIES,
    ),
    Mutation(
        "edges-of-time-in-a-form",
        "parviraptor_celery/admin_tools.py",
        "        found.astimezone(UTC)  # at",
        "        pass  # at",
        HOSTILE_QUERIES,
    ),
    Mutation(
        "nul-in-a-filter",
        "jaiminho_celery/admin.py",
        'lookup in own and "\\0" not in str(value)',
        "lookup in own and True",
        HOSTILE_QUERIES,
    ),
    Mutation(
        "row-quoted-in-the-log",
        "parviraptor_celery/registry.py",
        "exc_info=tells_no_value(error)",
        "exc_info=True",
        HOSTILE_LOGS,
    ),
    Mutation(
        "machine-fence",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.claimed_pk, "status": status, "attempt": self.token}',
        'return {"pk": self.claimed_pk, "status": status}',
        QUEUE_MACHINE,
    ),
    Mutation(
        "machine-dependents-fail",
        "parviraptor_celery/dispatch.py",
        "return row.held_by is not None and policy is FailurePolicy.FAIL_DEPENDENTS",
        "return False",
        QUEUE_MACHINE,
    ),
    Mutation(
        "machine-back-off-holds",
        "parviraptor_celery/settlement.py",
        '"run_after": from_now(pause)}',
        '"run_after": None}',
        QUEUE_MACHINE,
    ),
    Mutation(
        "machine-dead-letter-holds",
        "jaiminho_celery/querysets.py",
        "return self._in_lane(lane, EventStatus.DEAD)",
        "return self.none()",
        OUTBOX_MACHINE,
    ),
    Mutation(
        "machine-born-leased",
        "jaiminho_celery/strategies.py",
        "event.lease_until = from_now(settings.LEASE_SECONDS)",
        "event.lease_until = from_now(0)",
        OUTBOX_MACHINE,
    ),
    Mutation(
        "machine-late-hook",
        "jaiminho_celery/hooks.py",
        "return not is_late or alone(self.event.alias, self.event.renew)",
        "return True",
        OUTBOX_MACHINE,
    ),
    Mutation(
        "machine-failed-alone",
        "jaiminho_celery/dispatch.py",
        "        if first.error_count:\n            return [first]\n",
        "",
        OUTBOX_MACHINE,
    ),
    Mutation(
        "machine-last-attempt",
        "jaiminho_celery/models.py",
        "return most is not None and error_count + 1 >= most",
        "return most is not None and error_count >= most",
        OUTBOX_MACHINE,
    ),
    Mutation(
        "why-about-to-be-squashed",
        "parviraptor_celery/reasons.py",
        "if job.SQUASH_WAITING_JOBS and may_run and job.pk < head.pk:",
        "if False:",
        REASONS,
    ),
    Mutation(
        "why-deferred-before-failed",
        "parviraptor_celery/reasons.py",
        "head.is_due and head.held_by is None\n    if job.SQUASH",
        "head.is_due\n    if job.SQUASH",
        REASONS,
    ),
    # Deaths, and answers that were lost, at each step
    Mutation(
        "claim-unanswered",
        "parviraptor_celery/feeds.py",
        "                again=_repeatable_claim(row, row.claim_again),\n",
        "",
        f"{DEATHS}[postgresql-hand-off]",
    ),
    Mutation(
        "hand-off-unanswered",
        "parviraptor_celery/feeds.py",
        "        run.settle_again()\n        row = self.rows.held_here()",
        "        run.settle_again()\n        return None\n        row = self.rows.held_here()",
        f"{DEATHS}[postgresql-hand-off]",
    ),
    Mutation(
        "settlement-unanswered",
        "parviraptor_celery/feeds.py",
        "alone(using, run.settle, again=run.settle_again)",
        "alone(using, run.settle)",
        f"{DEATHS}[postgresql-back-off]",
    ),
    Mutation(
        "batch-unanswered",
        "parviraptor_celery/feeds.py",
        "return self.prepare(rows) if rows else self._claim_batch()",
        "return self._claim_batch()",
        f"{DEATHS}[postgresql-pool]",
    ),
    Mutation(
        "atomic-unanswered",
        "parviraptor_celery/execution.py",
        "if finished.is_recorded and _is_committed_after_all(job):",
        "if False:",
        f"{DEATHS}[postgresql-atomic]",
    ),
    Mutation(
        "hand-back-unanswered",
        "parviraptor_celery/jobs.py",
        "alone(self.alias, self.put_back, again=self._put_back_again)",
        "self.put_back()",
        f"{DEATHS}[postgresql-resume]",
    ),
    Mutation(
        "lost-by-psycopg",
        "parviraptor_celery/database.py",
        'str(cause.sqlstate or "08")',
        'str(cause.sqlstate or "")',
        "tests/unit/parviraptor/test_database.py",
    ),
    Mutation(
        "identity-of-a-thread",
        "parviraptor_celery/leases.py",
        "_of_this_thread = threading.local()",
        '_of_this_thread = type("Shared", (), {})()',
        "tests/integration/test_lost_answers.py",
    ),
    Mutation(
        "outbox-settlement-unanswered",
        "jaiminho_celery/execution.py",
        "self.settle() or self.row.has_come_to(self._end())",
        "self.settle()",
        f"{OUTBOX_DEATHS}[postgresql-dead-letter]",
    ),
    Mutation(
        "messages-unanswered",
        "jaiminho_celery/batches.py",
        "            again=lambda: Event.settle_together_again(events, self.using, columns),\n",
        "",
        "tests/integration/test_crash_enumeration_outbox.py"
        "::test_a_death_repeats_one_batch_of_messages_at_most[postgresql-messages-relay-redis]",
    ),
    Mutation(
        "settled-before-published",
        "jaiminho_celery/execution.py",
        "        _publish(attempt)\n        restore_autocommit()",
        "        attempt.settle()\n        _publish(attempt)",
        f"{OUTBOX_DEATHS}[sqlite-on-commit]",
    ),
    Mutation(
        "born-with-a-lease-that-ends",
        "jaiminho_celery/strategies.py",
        "event.lease_until = from_now(settings.LEASE_SECONDS)",
        "event.lease_until = from_now(settings.LEASE_SECONDS * 1_000_000)",
        f"{OUTBOX_DEATHS}[sqlite-on-commit]",
    ),
    Mutation(
        "body-and-completion-together",
        "parviraptor_celery/execution.py",
        "return _run_atomically(job) if job.atomic else _run_body(job)",
        "return _run_body(job)",
        f"{DEATHS}[sqlite-atomic]",
    ),
    Mutation(
        "look-after-the-settlement",
        "parviraptor_celery/drains.py",
        "if row is None and not report.is_exhausted:",
        "if False:",
        f"{DEATHS}[sqlite-atomic]",
    ),
    Mutation(
        "not-begun-pays-nothing",
        "parviraptor_celery/sweep.py",
        "(job.begun_at is not None)",
        "1",
        f"{DEATHS}[sqlite-pool]",
    ),
    # Found by the soak.
    Mutation(
        "ended-by-the-server",
        "parviraptor_celery/database.py",
        "LOST_MYSQL_CODES = (1053, 1927, 3169,",
        "LOST_MYSQL_CODES = (",
        "tests/integration/test_reconnect.py",
    ),
    Mutation(
        "atomic-body-of-somebody-else",
        "parviraptor_celery/execution.py",
        "    return alone(job.alias, lambda: job.held().exists())",
        "    return True",
        "tests/integration/test_reconnect.py",
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
        # What the machines find need not be shrunk.
        environment = {**os.environ, "PYTHONPATH": str(copy), "FAULTS": "quick"}
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
