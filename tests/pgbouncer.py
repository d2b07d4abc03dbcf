"""A PgBouncer private to one supervisor, where it is installed: no wheel brings it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tests.ports import lasting_port
from tests.supervision import embedded, processes

PATHS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])

CONFIGURATION = """
[databases]
* = host={host} port={port} {password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
min_pool_size = {sessions}
ignore_startup_parameters = extra_float_digits, options
"""


def start_pgbouncer(
    supervisor: processes.Supervisor, directory: Path, server: dict[str, Any], sessions: int
) -> int:
    """Start a pooler in front of ``server`` (a dictionary of DATABASES); return its port.

    Each transaction gets whichever of ``sessions`` sessions is free.

    MissingServer without PgBouncer, ProcessFailed if it doesn't come up.
    """
    program = shutil.which("pgbouncer", path=PATHS)
    if program is None:
        raise embedded.MissingServer("PgBouncer is not installed here (apt-get install pgbouncer).")
    port, file = lasting_port(), directory / "pgbouncer.ini"
    user, password = server["USER"] or "postgres", server["PASSWORD"]
    text = CONFIGURATION.format(
        host=server["HOST"] or "127.0.0.1",
        port=server["PORT"] or 5432,
        password=f"user={user}" + (f" password={password}" if password else ""),
        own_port=port,
        sessions=sessions,
    )
    command = [program, str(file)]
    if os.getuid() == 0:
        command += ["-u", "nobody"]  # it refuses to run as root
        os.chmod(directory, 0o755)
    file.write_text(text)
    file.chmod(0o644)
    supervisor.start(
        "pgbouncer",
        command,
        ready=lambda: processes.port_answers("127.0.0.1", port),
        log=directory / "pgbouncer.log",
    )
    return port
