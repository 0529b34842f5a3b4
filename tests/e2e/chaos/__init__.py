"""An hour of faults under an operator that works: `pytest -m load tests/e2e/chaos`.

The operator runs as a process of this machine, because two of the faults need that: the API server that it talks to is a
proxy which answers 429 and 5xx when it is told to, and its clock can be put forward and back. Everything else is the real
cluster: API server, kubelets, containers, volumes.
"""
