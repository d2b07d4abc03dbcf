from __future__ import annotations

import argparse
import shutil
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from jaiminho_celery import dead_letters
from jaiminho_celery.dead_letters import Line, Report
from jaiminho_celery.exceptions import BadSelection, UnknownAlias
from parviraptor_celery.admin_tools import id_in
from parviraptor_celery.texts import in_local_zone, printable

VERBS = {
    "replay": dead_letters.replay,
    "skip": dead_letters.skip,
    "discard": dead_letters.discard,
}
PARTICIPLES = {"replay": "replayed", "skip": "skipped", "discard": "discarded"}
HEADINGS = ("count", "oldest", "fingerprint", "database", "stream", "name", "reason")


class Command(BaseCommand):
    help = (
        "Lists dead letters, grouped by how they died, and replays, skips or discards those "
        "that meet every filter. A replayed event waits for the relay again, in its old place; "
        "a skipped one is kept and its lane goes on; a discarded one is deleted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=["list", *VERBS], help="what to do with them")
        parser.add_argument("--stream", metavar="NAME", help='"" means events without a stream')
        parser.add_argument("--key", help="the ordering key, as the admin shows it")
        parser.add_argument("--name", metavar="FUNCTION", help="as in module:qualified.name")
        parser.add_argument("--fingerprint", metavar="HEX", help="as the list shows it")
        parser.add_argument(
            "--id",
            dest="identities",
            type=_identity,
            action="append",
            metavar="ID|UUID",
            help="one event; may be repeated",
        )
        parser.add_argument(
            "--using", metavar="ALIAS", help="only this database (default: all of the outbox)"
        )
        parser.add_argument("--all", action="store_true", help="no filter: every dead letter")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
        parser.add_argument("--no-input", action="store_true", help="don't ask before discarding")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        try:
            self._handle(action, _selection(action, options), options)
        except (BadSelection, UnknownAlias) as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise CommandError(
                f"The outbox in {options['using']!r} could not be read ({type(error).__name__}: "
                f"{error}). Is it migrated, and reachable?"
            ) from error

    def _handle(self, action: str, selection: Any, options: dict[str, Any]) -> None:
        if action == "list":
            report = dead_letters.summary(**selection)
            self._show(report)
            self._say(report, f"{_letters(report.total)}")
        elif options["dry_run"]:
            report = VERBS[action](dry_run=True, **selection)
            self._show(report)
            self._say(report, f"{_letters(report.total)} would be {PARTICIPLES[action]}")
        else:
            if action == "discard" and not options["no_input"]:
                selection = self._confirm(selection)
            report = VERBS[action](**selection)
            self._show(report)
            left_alone = f", {report.left_alone} left alone: somebody else decided about them"
            end = left_alone if report.left_alone else ""
            self._say(report, f"{_letters(report.total)} {PARTICIPLES[action]}{end}")

    def _confirm(self, selection: Any) -> Any:
        """Return what a person agreed to delete: nothing that dies while the question stands."""
        report = dead_letters.discard(dry_run=True, **selection)
        self._show(report)
        if not report.total:
            return selection
        question = f"Delete {_letters(report.total)} for good? Type 'yes' to go on: "
        try:
            answer = input(question)
        except EOFError:
            raise CommandError("Nobody can be asked here. Pass --no-input to discard.") from None
        if answer.strip() != "yes":
            raise CommandError("Nothing was discarded.")
        shown_until = max(line.latest for line in report.lines)
        return {**selection, "everything": False, "until": shown_until}

    def _show(self, report: Report) -> None:
        if not report.lines:
            return
        rows = [HEADINGS, *map(_cells, report.lines)]
        columns = [
            number
            for number, heading in enumerate(HEADINGS)
            if heading != "database" or len({line.using for line in report.lines}) > 1
        ]
        widths = {number: max(len(row[number]) for row in rows) for number in columns}
        limit = shutil.get_terminal_size().columns if self.stdout.isatty() else None
        for row in rows:
            cells = ["{:<{}}".format(row[number], widths[number]) for number in columns]
            self.stdout.write("  ".join(cells).rstrip()[:limit])

    def _say(self, report: Report, sentence: str) -> None:
        self.stdout.write(f"{sentence}.")
        if report.left_out:
            raise CommandError(
                f"The outbox in {', '.join(report.left_out)} could not be read or was not "
                "finished; the log says why. Run the command again."
            )


def _identity(text: str) -> int | UUID:
    if (pk := id_in(text)) is not None:
        return pk
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an id nor a UUID") from None


def _selection(action: str, options: dict[str, Any]) -> dict[str, Any]:
    names = ("using", "stream", "key", "name", "fingerprint")
    given = {name: options[name] for name in names if options[name] is not None}
    identities = options["identities"] or []
    if ids := [value for value in identities if isinstance(value, int)]:
        given["ids"] = ids
    if uuids := [value for value in identities if isinstance(value, UUID)]:
        given["uuids"] = uuids
    has_filter = bool(given.keys() - {"using"})
    if ids and uuids:
        raise CommandError("Give ids or UUIDs with --id, not both.")
    if options["all"] and has_filter:
        raise CommandError("--all and a filter exclude each other. Leave one out.")
    if action != "list" and not (options["all"] or has_filter):
        raise CommandError(
            f"Say which dead letters to {action}: with --stream, --key, --name, --fingerprint or "
            "--id, or with --all. `dead_letters list` shows what there is."
        )
    if action != "list" and options["all"]:
        given["everything"] = True
    return given


def _cells(line: Line) -> tuple[str, ...]:
    return (
        str(line.count),
        f"{in_local_zone(line.oldest):%Y-%m-%d %H:%M}",
        printable(line.fingerprint) or "-",
        line.using,
        printable(line.stream) or "-",
        printable(line.name),
        printable(line.reason),
    )


def _letters(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count} dead letters"
