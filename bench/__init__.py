"""How fast it is: loads the real service with calls, and measures it at its two edges.

Three processes: the service under test (`service_process`), a model server that replays recorded replies
(`model_process`), and the callers (`callers`, in the process of `porteiro bench`). All of them stamp what
they send and receive by CLOCK_MONOTONIC, which is one for the whole machine; `figures` puts it together.
"""
