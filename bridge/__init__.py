"""The running calls and the service around them."""

import os

# numpy's matrix product would share a second of speech among threads, and those then spin for a while: three
# times the CPU time of the whole call. Read when numpy is first loaded, which is later than this.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
