"""What of the service runs beside its event loop."""

from __future__ import annotations

import os
import subprocess
import sys


def test_numpy_has_no_threads_that_would_burn_a_core_beside_the_event_loop() -> None:
    """In a process whose environment says nothing of it. Those of other libraries sleep."""
    code = "import os, bridge.cli, audio.resample; print(len(os.listdir('/proc/self/task')))"
    plain = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=plain, capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout == "1\n"
