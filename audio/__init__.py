"""Sound without I/O: frames, resampling, voice activity, playout, recording format."""

import os

# numpy's matrix product would share a second of speech among threads, and those then spin for its duration:
# three times the CPU time of a whole call. Read when numpy is first loaded, which this room does.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
