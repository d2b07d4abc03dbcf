#!/usr/bin/env python
"""Django's command line: `python example_project/manage.py migrate`, from any directory."""

import os
import sys
from pathlib import Path


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
    # Python puts this file's own folder first in the path; there, the project's celery.py
    # would be taken for the Celery package itself.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
