"""The rig that tries to break what docs/guarantees.md promises.

`FAULTS=wide` widens all of it: more deaths, more schedules, more and random examples, more hostile
values. `FAULTS=quick` (`make mutations`) tells a failure of a machine as it was found.
"""

import os

KNOB = os.environ.get("FAULTS", "")
IS_WIDE = KNOB == "wide"
