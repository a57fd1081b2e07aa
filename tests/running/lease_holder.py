"""A driver that holds a folder: python lease_holder.py <folder> <heartbeat> <stale> <seconds>.

Prints "held" once it does, then works in sleeps of `seconds`; ends with a UserError's message and
status 2.
"""

from __future__ import annotations

import sys
import time

from diet_ray import storage
from diet_ray.running import lease

if __name__ == "__main__":
    folder, heartbeat, stale, seconds = sys.argv[1:]
    lease.HEARTBEAT_SECONDS, lease.STALE_SECONDS = float(heartbeat), float(stale)
    lease.LOOK_SECONDS = storage.SETTLE_SECONDS = 0.05
    try:
        with lease.held(folder):
            print("held", flush=True)
            time.sleep(float(seconds))
    except lease.LeaseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
