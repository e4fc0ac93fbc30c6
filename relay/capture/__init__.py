"""What is heard: the only folder that knows LiveKit."""

import os

# onnxruntime, which runs the voice activity detection, reports to its makers unless it is told not to before it loads.
# Job processes inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
