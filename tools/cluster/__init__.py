"""The driver of the local test cluster: from a bare Debian machine to two Kubernetes nodes, and back.

`settings` says where everything is, `components` says (purely) what every process is started with, `processes`
starts and ends them, and `local` puts the parts into order. Nothing here needs a package outside the standard
library, since this code runs before anything is installed.
"""
