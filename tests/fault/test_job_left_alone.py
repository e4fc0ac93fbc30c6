"""A job process whose service was killed."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

SERVICE = """
import multiprocessing, signal, threading
from relay.capture.worker.job_processes import end_after_service

def job():
    end_after_service(0.1)
    threading.Thread(target=threading.Event().wait).start()  # as LiveKit's, which nothing ends

if __name__ == "__main__":
    process = multiprocessing.get_context("forkserver").Process(target=job)
    process.start()
    print(process.pid, flush=True)
    signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere jobs are not forked by a fork server")
def test_a_job_ends_although_its_killed_service_left_it_an_endless_thread(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    with subprocess.Popen([sys.executable, tmp_path / "service.py"], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        job = psutil.Process(int(service.stdout.readline()))
        service.send_signal(signal.SIGKILL)
    try:
        job.wait(30)
    except psutil.TimeoutExpired:
        job.kill()
        pytest.fail("a job that is left alone must end")
