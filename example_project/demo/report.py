"""The ledger as a table for people."""

from .ledger import Ledger

_ROW = "{:<18}{:>8}{:>8}{:>12}{:>14}"


def render(ledger: Ledger) -> str:
    """The table, and below it the verdict."""
    board, legs, invoices = ledger.board, ledger.legs, ledger.invoices
    rows = [
        ("", "done", "lost", "duplicated", "out of order"),
        ("departures", ledger.departures_accepted, ledger.departures_lost, "-", "-"),
        ("board messages", board.delivered, board.lost, board.duplicated, board.out_of_order),
        ("aircraft legs", legs.processed, legs.lost, "-", legs.out_of_order),
        ("invoices", invoices.processed, invoices.lost, "-", "-"),
    ]
    table = "\n".join(_ROW.format(*row) for row in rows)
    return f"{table}\n{ledger.seconds:.1f} seconds\n\n{verdict(ledger)}"


def verdict(ledger: Ledger) -> str:
    """One sentence if all is well, else one line for each fault."""
    if ledger.ok:
        return "OK: nothing was lost and nothing was out of order."
    aircraft = ", ".join(ledger.legs.wrong_aircraft[:5])
    details = [f"  (aircraft with a wrong record: {aircraft})"] if aircraft else []
    return "\n".join(["NOT OK:", *(f"  {fault}" for fault in ledger.faults), *details])
