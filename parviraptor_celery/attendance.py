"""Whether somebody comes to a new job by themselves, asked by the statement that writes it.

Whoever runs a lane looks again after every commit, and a job that waits has a kick of its own: a
new one behind these needs none. That may be relied on only if it is seen *after* the commit of
the new job (``LeasedQuerySet.is_attended()``): whoever runs the lane may have had their last look
before. The reverse may be seen at any time, as a kick too many finds nothing to do. So where
the INSERT tells that nobody is there, no other look is needed.
"""

from __future__ import annotations

from typing import Any

from django.db import connections

from . import statements
from .states import CLAIMABLE

BACKLOG = 10
"""Waiting rows without order that are kicked one by one; more have enough workers."""

_NOBODY_IN_LANE = """
NOT EXISTS (SELECT 1 FROM {table} WHERE running_lane = %s)
AND (SELECT id FROM {table} WHERE status = '{waiting}' AND lane BETWEEN %s AND %s
     ORDER BY lane, id LIMIT 1) IS NULL
"""
_FEW_WAIT = "(SELECT count(*) FROM ({first}) AS ahead) < {backlog}"


def question_for(job: Any, using: str) -> tuple[str, list[Any]]:
    """Return what to ask while ``job`` is inserted, and its parameters; "" where it can't be.

    Only outside of transactions, where the kick follows at once: until the end of a long one much
    may change, and of many jobs of a transaction only the first would be asked about.
    """
    connection = connections[using]
    if connection.in_atomic_block or not statements.can_tell_more(using):
        return "", []
    if job.run_after is not None or job.status not in CLAIMABLE:
        return "", []
    rows = job.rows(using)
    if job.lane is None:
        first = rows.prepared_first_in_turn(BACKLOG)
        return _FEW_WAIT.format(first=first.sql, backlog=BACKLOG), list(first.params)
    table = connection.ops.quote_name(job._meta.db_table)
    question = _NOBODY_IN_LANE.format(table=table, waiting=rows.WAITING)
    return question, [job.lane, job.lane, job.lane]
