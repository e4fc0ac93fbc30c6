"""Runs the relay inside another application's voice agent, without disturbing its session.

It uses two threads. On the agent's event loop, session and detector reports are captured and handed over (``media``,
``vad``, ``stt``, ``realtime``, ``follower``). The relay's own thread runs the tracker, the log and the delivery
(``background``, ``recording``). A slow or failing second thread does not affect the first.
"""
