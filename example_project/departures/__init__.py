"""Departures: saved, announced, flown and invoiced, in one transaction."""
