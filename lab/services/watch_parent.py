#!/usr/bin/env python3
"""watch_parent.py PID CMD...: waits until that process is gone, however it ended, then becomes CMD. If it is gone already: at once."""
import os
import select
import sys

try:
    select.select([os.pidfd_open(int(sys.argv[1]))], [], [])
except ProcessLookupError:
    pass
os.execvp(sys.argv[2], sys.argv[2:])
