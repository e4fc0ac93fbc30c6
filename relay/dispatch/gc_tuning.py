"""Python's cyclic garbage collector, set up for a process that sends.

Every POST in flight holds some fifty objects that the collector counts. Lanes that are answered by the same commit go
on together, and with the default threshold of 700 each such wave sets it off, for nothing: they are freed without it.
Measured, that is 10 of 150 µs an event, and another 25 in full collections, which walk everything that was ever
imported and stop the process for 60 ms or more.
"""

import gc

THRESHOLD = 10_000
"""Objects made and not yet freed that set off a collection: above what a few hundred POSTs in flight hold."""


def collect_rarely() -> None:
    """Leave what exists out of collections, and collect after ``THRESHOLD`` new objects. For the whole process.

    To be called once, when everything is imported.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD, *gc.get_threshold()[1:])
