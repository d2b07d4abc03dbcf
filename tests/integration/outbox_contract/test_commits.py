"""Behaviours 1 and 3: what is committed is sent, in the order of a lane."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from tests import servers
from tests.integration.outbox_contract.common import Crash, done, let_leases_run_out, relay
from tests.integration.threads import open_transaction

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)


@pytest.mark.usefixtures("quiet")
def test_behaviour_1_nothing_committed_is_lost_and_nothing_rolled_back_is_sent(using: str) -> None:
    @save_to_outbox(using=using, name="contract.one")
    def one(payload: Any) -> None:
        done.append(payload)

    @save_to_outbox_stream("contract", "keep-order", using, name="contract.two")
    def two(payload: Any) -> None:
        done.append(payload)

    with pytest.raises(ZeroDivisionError), transaction.atomic(using=using):
        one("never")
        two("never")
        raise ZeroDivisionError
    with transaction.atomic(using=using):
        one(1)
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=using):
            one("never")
            raise ZeroDivisionError
        two(2)
        assert Event.objects.using(using).count() == 2
    assert done == [1]
    relay(using)
    assert done == [1, 2]
    assert Event.objects.using(using).get().sent_at


@pytest.mark.usefixtures("quiet")
def test_behaviour_1_a_row_is_leased_to_its_hook_and_then_the_relay_takes_it(using: str) -> None:
    @save_to_outbox(using=using, name="contract.dying")
    def publish(payload: Any) -> None:
        done.append(payload)

    def die() -> None:
        raise Crash

    with pytest.raises(Crash), transaction.atomic(using=using):
        transaction.on_commit(die, using=using)  # after the commit, before the event's hook
        publish("survives")
    relay(using)
    assert done == [], "the lease of the hook holds"
    let_leases_run_out(using)
    relay(using)
    assert done == ["survives"]
    assert Event.objects.using(using).get().sent_at


@pytest.mark.usefixtures("quiet")
@pytest.mark.django_db(transaction=True, databases=["default", "postgresql"])
def test_behaviour_1_a_warning_says_when_only_another_alias_is_in_a_transaction(
    caplog: pytest.LogCaptureFixture,
) -> None:
    servers.require("postgresql")
    function = save_to_outbox(name="contract.elsewhere")(done.append)
    with transaction.atomic(using="postgresql"):
        function(1)
    assert "is in no transaction, while 'postgresql' is" in caplog.text
    caplog.clear()
    with transaction.atomic(using="postgresql"), transaction.atomic():
        function(2)
    assert caplog.text == ""


@CONCURRENT
@pytest.mark.usefixtures("quiet")
def test_behaviour_3_a_commit_that_arrives_late_with_a_lower_id_is_not_overtaken(
    using: str,
) -> None:
    options: Any = {"using": using, "key": lambda key, _: key, "name": "contract.keyed"}

    @save_to_outbox_stream("contract", "keep-order", **options)
    def publish(key: str, number: int) -> None:
        done.append((key, number))

    with open_transaction(using, lambda: publish("a", 1)) as late:
        publish("a", 2)
        publish("b", 3)
        relay(using)
        assert done == [("b", 3)], "another key is not held"
        late.committed()
    relay(using)
    assert done == [("b", 3), ("a", 1), ("a", 2)]
