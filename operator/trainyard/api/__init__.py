"""The contract between users, operator and trainer.

Everything that two parts of Trainyard must agree on lives here and nowhere else: the custom resources as pydantic
models, the names of labels, files and environment variables, the exit codes, the progress records and the conditions.
The package imports none of the other packages, and of third parties only pydantic and PyYAML, so that `trainyard
validate` starts in a fraction of a second and both images carry the same copy.
"""

GROUP = "trainyard.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
