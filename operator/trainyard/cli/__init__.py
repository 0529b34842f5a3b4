"""The command line: `trainyard`, which kubectl also finds as `kubectl trainyard`.

It checks manifests before they go anywhere and runs them on the machine at hand. Everything else is kubectl's work, and
is left to it. Each verb is a module with a function of its name, imported when the verb is called and not before: a
module imports what it likes, and `--help` pays for none of it.
"""
