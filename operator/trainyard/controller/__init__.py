"""The operator: turns TrainingRuns into Jobs and their pods' reports into status.

Two halves. The shell (this package's own modules) talks to the outside: the API server, the watch engine, pods that
report, probes and scrapers. The brain (`runs`, `manifests`) decides what a run needs, and most of it is pure. Events
only ever put a key on the queue; every decision is made from objects read live.
"""
