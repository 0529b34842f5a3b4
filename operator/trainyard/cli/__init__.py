"""The command line: `trainyard`, which kubectl also finds as `kubectl trainyard`.

It checks manifests before they go anywhere and runs them on the machine at hand. Everything else is kubectl's work, and
is left to it. Each command imports what it needs when it is called, so that checking a file never loads torch.
"""
