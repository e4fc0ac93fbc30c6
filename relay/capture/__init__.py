"""Captures audio and detects speech: the only folder that depends on LiveKit."""

import os

# onnxruntime, which runs the voice activity detection, sends telemetry to its vendor unless disabled before it loads.
# Job processes inherit the setting.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
