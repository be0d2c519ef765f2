"""Says in which Python it runs. One process per call: JSON on stdin, JSON on stdout."""

import json
import platform
import sys

json.load(sys.stdin)
json.dump({"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}, sys.stdout)
