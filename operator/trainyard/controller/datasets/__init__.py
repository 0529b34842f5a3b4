"""Datasets by API: a trace store's two routes, answered by runs of mode Dataset.

`request.py` says what may be asked and which run that is, `gate.py` who may ask, `application.py` serves it, `relay.py` brings the
lines of a dataset from a pod that has its volume to whoever asked for them.
"""
