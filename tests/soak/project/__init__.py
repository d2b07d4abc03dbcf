"""A small project in two versions of its code, as they are side by side during a deploy."""
