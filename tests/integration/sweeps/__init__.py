"""Sweeps and kicks: nothing that waits is forgotten, and nothing is asked for without end."""
