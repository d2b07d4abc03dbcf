"""The command line of the demo."""

import argparse
from dataclasses import dataclass

SABOTAGES = ("drop-event", "swap-legs")

_DESCRIPTION = """\
Runs web, worker and beat as real processes, posts New York's departures of one week over HTTP,
breaks things on the way, and ends with a ledger. The exit status is 0 only if nothing was lost and
nothing was out of order; 1 if something was, or if the run failed; 130 if it was interrupted.
"""
_EPILOG = """\
DATABASE_URL and CELERY_BROKER_URL name servers to use (postgres://, mysql://; redis://, amqp://).
Without them the demo brings its own: an SQLite file and an embedded Valkey.
In a database that is given, the demo's own tables are emptied first.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; `deadline` is in seconds from the first post."""

    departures: int | None
    seed: int
    deadline: float
    sabotage: str | None


def parse(argv: list[str] | None = None) -> Options:
    """Read the command line; exits with a message if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m example_project.demo",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--departures", type=_positive, metavar="N", help="only the first N")
    parser.add_argument("--seed", type=int, default=1, help="moves the moments of the accidents")
    parser.add_argument(
        "--deadline",
        type=float,
        default=180.0,
        metavar="SECONDS",
        help="give up so long after the first post (default: %(default)g)",
    )
    parser.add_argument(
        "--sabotage",
        choices=SABOTAGES,
        help="self-test of the ledger: delete a message from the outbox, or process an aircraft's"
        " legs in the wrong order; the ledger must say so, and the exit status be 1",
    )
    return Options(**vars(parser.parse_args(argv)))


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
