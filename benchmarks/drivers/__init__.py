"""What runs inside the peers' own virtual environments: one package or module per peer."""
