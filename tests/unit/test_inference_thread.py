"""The end of a process, while its inference thread computes."""

import subprocess
import sys

RUNNER = """
import asyncio, threading
from relay.capture.health.inference_thread import Runner

runner = Runner("model", 8.0)
began = threading.Event()

def job():
    began.set()
    {job}
    print("computed", flush=True)

async def main():
    answer = runner.run(job)
    await asyncio.to_thread(began.wait)
    answer.cancel()

asyncio.run(main())
{then}
"""


def output(job: str, then: str = "") -> str:
    """What a process prints that ends while ``job`` is running."""
    script = RUNNER.format(job=job, then=then)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == ""
    return ended.stdout


def test_a_process_ends_after_the_job_that_is_running() -> None:
    # The interpreter is shutting down once its main thread has ended; a thread that nobody waits for stops then.
    after_main = "threading.main_thread().join()"
    assert output(after_main) == "computed\n"
    assert output(after_main, then="runner.close()") == "computed\n"


def test_a_process_ends_although_a_job_never_does() -> None:
    assert output("threading.Event().wait()") == ""
