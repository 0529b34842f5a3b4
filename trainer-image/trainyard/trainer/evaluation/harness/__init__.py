"""Tasks of lm-evaluation-harness, asked of the result offline.

before the training: includeFrom -> its YAML files -> code, metrics and data that are not allowed are refused
after it:            model/ -> the harness in a process of its own -> metrics `task/metric`, and a line for each record
"""
