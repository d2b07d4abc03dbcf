"""The rig that tries to break what docs/guarantees.md promises."""
