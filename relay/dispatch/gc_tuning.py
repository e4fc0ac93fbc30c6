"""Tunes Python's cyclic garbage collector for a process that sends.

Every POST in flight holds some fifty objects that the collector counts. Lanes that are answered by the same commit
continue together, and with the default threshold of 700 each such wave triggers a useless collection: the objects are
freed without it. Measured, that costs 10 of 150 µs per event, and another 25 in full collections, which walk everything
that was ever imported and stop the process for 60 ms or more.
"""

import gc

THRESHOLD = 10_000
"""New objects that trigger a collection: more than a few hundred POSTs in flight hold."""


def collect_rarely() -> None:
    """Exempt existing objects from collection, and collect after ``THRESHOLD`` new ones. For the whole process.

    Call it once, when everything is imported.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD, *gc.get_threshold()[1:])
