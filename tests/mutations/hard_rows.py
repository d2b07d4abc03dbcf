"""Rows that can't be read or claimed, and bodies that end in unusual ways."""

from __future__ import annotations

from .mutation import Mutation

HARD_ROWS = "tests/integration/test_hard_rows.py"
UNCLAIMABLE = "tests/integration/test_unclaimable_rows.py"
LEFT_OPEN = "tests/integration/test_left_open.py"
OWN_DELETION = "tests/integration/test_own_deletion.py"
HOSTILE_ROWS = "tests/integration/test_hostile_rows.py"

MUTATIONS = [
    Mutation(
        "asynchronous-bodies-are-refused",
        "parviraptor_celery/checks.py",
        "if any(is_kind(getattr(queue, name)) for is_kind in NOT_RUN_BY_A_CALL):",
        "if False:",
        "tests/unit/parviraptor/test_checks.py",
    ),
    Mutation(
        "unreadable-head",
        "parviraptor_celery/lane_feed.py",
        "            alone(self.using, functools.partial(self.rows.postpone, error))\n"
        "            return None",
        "            raise",
        UNCLAIMABLE,
    ),
    Mutation(
        "unreadable-in-a-pool",
        "parviraptor_celery/pool_feed.py",
        "        with reading(self.rows.model):",
        "        if True:",
        UNCLAIMABLE,
    ),
    Mutation(
        "unreadable-successor",
        "parviraptor_celery/handoff.py",
        "        rows.put_back(error)\n        return None",
        "        raise",
        UNCLAIMABLE,
    ),
    Mutation(
        "unreadable-successor-unanswered",
        "parviraptor_celery/leased.py",
        "            self.put_back(error)\n            return None",
        "            raise",
        UNCLAIMABLE,
    ),
    Mutation(
        "unreadable-and-expired",
        "parviraptor_celery/querysets.py",
        "return super().expired().defer(*own, *(self.model.dependent_fields or ()))",
        "return super().expired()",
        UNCLAIMABLE,
    ),
    Mutation(
        "key-of-an-unreadable-successor",
        "parviraptor_celery/leased.py",
        "row.put_back(**postponed(error))",
        "fenced_update(self.model, self.db, fence, {'status': self.WAITING, 'lease_until': None,"
        " 'running_lane': None, **postponed(error)}) > 0",
        UNCLAIMABLE,
    ),
    Mutation(
        "date-of-a-head",
        "parviraptor_celery/leased.py",
        "            if not is_refusal(error):\n                raise\n            seen",
        "            raise\n            seen",
        UNCLAIMABLE,
    ),
    Mutation(
        "date-of-a-successor",
        "parviraptor_celery/dispatch.py",
        "except DataError:",
        "except ZeroDivisionError:",
        UNCLAIMABLE,
    ),
    Mutation(
        "unclaimable-head",
        "parviraptor_celery/lane_feed.py",
        "            with claiming(self.rows.model, row):",
        "            if True:",
        UNCLAIMABLE,
    ),
    Mutation(
        "unclaimable-in-a-pool",
        "parviraptor_celery/pool_feed.py",
        "        with claiming(self.rows.model):",
        "        if True:",
        UNCLAIMABLE,
    ),
    Mutation(
        "unclaimable-lane",
        "jaiminho_celery/dispatch.py",
        "        with claiming(Event, head):",
        "        if True:",
        UNCLAIMABLE,
    ),
    Mutation(
        "spoilt-batch",
        "parviraptor_celery/pool_feed.py",
        "                    self.apart = self.next_apart()",
        "                    return []",
        HOSTILE_ROWS,
    ),
    Mutation(
        "spoilt-batch-passed-over",
        "parviraptor_celery/pool_feed.py",
        "for _ in range(MOST_SPOILT):",
        "for _ in range(1):",
        UNCLAIMABLE,
    ),
    Mutation(
        "spoilt-batch-runs-nothing-twice",
        "parviraptor_celery/querysets.py",
        "ready = self.filter(~self.paused()).waiting().due()",
        "ready = self",
        UNCLAIMABLE,
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
        "if undo_left_open(transactions) and isinstance(outcome, Processed):",
        "if False:",
        HARD_ROWS,
    ),
    Mutation(
        "own-outcome-of-what-raised-in-a-transaction",
        "parviraptor_celery/execution.py",
        "if undo_left_open(transactions) and isinstance(outcome, Processed):",
        "if undo_left_open(transactions):",
        LEFT_OPEN,
    ),
    Mutation(
        "transaction-of-a-statement",
        "parviraptor_celery/left_open.py",
        "return states.transaction_status in _OPEN_POSTGRESQL_STATES",
        "return False",
        LEFT_OPEN,
    ),
    Mutation(
        "transaction-of-a-statement-on-sqlite",
        "parviraptor_celery/left_open.py",
        'return bool(getattr(session, "in_transaction", False))',
        "return False",
        LEFT_OPEN,
    ),
    Mutation(
        "transaction-of-a-statement-on-mariadb",
        "parviraptor_celery/left_open.py",
        "            connection.execute_wrappers.append(_note)",
        "            pass",
        LEFT_OPEN,
    ),
    Mutation(
        "transaction-left-open-by-a-function",
        "jaiminho_celery/execution.py",
        "if undo_left_open(transactions) and isinstance(attempt.outcome, Published):",
        "if False:",
        LEFT_OPEN,
    ),
    Mutation(
        "committed-without-autocommit",
        "parviraptor_celery/left_open.py",
        "    return was_open\n",
        "    return True\n",
        LEFT_OPEN,
    ),
    Mutation(
        "transaction-of-the-caller",
        "parviraptor_celery/left_open.py",
        "if _depth(connection) > before.get(connection.alias, 0)",
        "if _depth(connection)",
        LEFT_OPEN,
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
        "job-deleted-by-its-atomic-body",
        "parviraptor_celery/execution.py",
        "if not finished.settle() and not _has_deleted_itself(job, transactions):",
        "if not finished.settle():",
        OWN_DELETION,
    ),
    Mutation(
        "job-deleted-by-another-worker",
        "parviraptor_celery/own_deletion.py",
        "if is_enclosed or _is_in_memory(connections[job.alias]):",
        "if True:",
        OWN_DELETION,
    ),
    Mutation(
        "deleted-job-starts-again",
        "parviraptor_celery/execution.py",
        "job.pk, job.status = job.claimed_pk, JobStatus.PROCESSING",
        "job.status = JobStatus.PROCESSING",
        OWN_DELETION,
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
]
