"""`--set FIELD=VALUE`: words of the command line as a JSON merge patch."""

from collections.abc import Sequence
from typing import Any

from trainyard.cli.exits import Refused


def patch_of(values: Sequence[str]) -> dict[str, Any]:
    """The JSON merge patch of `a.b=value` words; values are YAML. Raises Refused."""
    from trainyard.api.manifest import InvalidManifest, read_documents

    patch: dict[str, Any] = {}
    for word in values:
        path, equals, text = word.partition("=")
        keys = [key.replace("\0", ".") for key in path.replace("\\.", "\0").split(".")]
        if not equals or not all(keys):
            raise Refused(f"--set {word!r} has not the form FIELD=VALUE, for example training.maxSteps=100")
        try:
            value = read_documents(f"value: {text}")[0].value["value"]
        except InvalidManifest as error:
            raise Refused(f"--set {word!r}: the value is not YAML: {error.faults[0].message}") from None
        into = patch
        for key in keys[:-1]:
            into = into.setdefault(key, {})
            if not isinstance(into, dict):
                raise Refused(f"--set {word!r} goes into {key}, which an earlier --set gives a plain value")
        into[keys[-1]] = value
    return patch
