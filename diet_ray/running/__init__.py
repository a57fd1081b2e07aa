"""What makes a job one that a cluster can be left alone with.

One driver at a time writes into an output (`lease`), it ends in an orderly way when it is told to
(`stopping`) and says where it hangs instead of hanging (`watchdog`); actors that come late are
waited for (`patience`), and nodes that are about to go are left in time (`draining`).
"""
