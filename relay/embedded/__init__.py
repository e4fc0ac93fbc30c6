"""The relay inside somebody's own voice agent: its session is heard, and not disturbed.

Two threads. On the agent's event loop: what the session and its detectors say, taken down on the way and handed over
(``hearing``, ``vad``, ``stt``, ``realtime``, ``follower``). On a thread of the relay's own: the tracker, the log and
the sending (``background``, ``recording``). Nothing that is slow or fails on the second is felt on the first.
"""
