"""Rows that can't be read or claimed, and bodies that end in unusual ways."""

from __future__ import annotations

from .mutation import Mutation

HARD_ROWS = "tests/integration/test_hard_rows.py"
UNCLAIMABLE = "tests/integration/test_unclaimable_rows.py"
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
        "parviraptor_celery/leased.py",
        "        with reading(self.model):\n            return list(",
        "        if True:\n            return list(",
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
        "        except DataError as error:",
        "        except ZeroDivisionError as error:",
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
]
