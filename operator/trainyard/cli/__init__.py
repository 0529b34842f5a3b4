"""The command line: `trainyard`, which kubectl also finds as `kubectl trainyard`.

Each verb is a module in `verbs/` with two functions: `arguments` says what may stand after it, `call` does it. A module is
imported when its verb is called and not before, and what a verb seldom needs is imported where it is needed: the program is
meant to have answered before anybody notices that it was started. So the words are read by argparse, and the cluster is
spoken to by `trainyard.client`, both without anything that is slow to import.
"""
