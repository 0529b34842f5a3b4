"""Versions of a model in MLflow's registry, and the aliases that point at them.

A version carries the digest of what it stands for. Before one is made it is looked for by that, so a process that dies between
making it and writing that down leaves no second one behind. Aliases are asked of the registered model: a search shows none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.trainer.exports import pointers
from trainyard.trainer.exports.pointers import CURRENT, Move
from trainyard.trainer.tracking.rest import Refused, Rest

DIGEST_TAG = "trainyard.dev/digest"
CHAMPION = "champion"
PAGE = 200
VALUE_LIMIT = 5000
"""Characters of a tag that every MLflow since 2 takes."""


@dataclass(frozen=True)
class RegisteredModel:
    """A name in the registry of a server. All raise Away or Refused."""

    server: Rest
    name: str

    def make(self, *, description: str) -> None:
        """See that the name is there."""
        try:
            self.server.post("registered-models/create", {"name": self.name, "description": description})
        except Refused as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise

    def version_of(self, digest: str, source: str) -> str | None:
        """The version that stands for this content at this place."""
        token = ""
        while True:
            found = self.server.get(
                "model-versions/search",
                filter=f"name = '{self.name}'",
                max_results=str(PAGE),
                **({"page_token": token} if token else {}),
            )
            for version in found.get("model_versions", []):
                tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
                if tags.get(DIGEST_TAG) == digest and version.get("source") == source:
                    return str(version["version"])
            token = str(found.get("next_page_token") or "")
            if not token:
                return None

    def add(self, *, digest: str, source: str, run: str, description: str, tags: Mapping[str, Any]) -> str:
        """The version for this content; a new one where there is none. `run` is an MLflow run's id, or empty."""
        if (known := self.version_of(digest, source)) is not None:
            return known
        words = [{"key": k, "value": str(v)[:VALUE_LIMIT]} for k, v in {**tags, DIGEST_TAG: digest}.items()]
        body = {"name": self.name, "source": source, "description": description, "tags": words}
        made = self.server.post("model-versions/create", body | ({"run_id": run} if run else {}))
        return str(made["model_version"]["version"])

    def aliases(self) -> dict[str, str]:
        """Version by alias. Numbers come as text here and as numbers elsewhere."""
        found = self.server.get("registered-models/get", name=self.name)["registered_model"]
        return {str(entry["alias"]): str(entry["version"]) for entry in found.get("aliases", [])}

    def promote(self, version: str, *, alias: str) -> bool:
        """Let the alias name this version, and the alias for the one before name that. Returns whether it was another."""
        held = self.aliases()
        moves = pointers.promote(version, current=held.get(alias), previous=held.get(previous_alias(alias)))
        return self._move(moves, alias)

    def back(self, given_up: str, *, alias: str) -> bool:
        """Let the alias name the version before this one; nothing where it names another by now."""
        held = self.aliases()
        moves = pointers.back(given_up, current=held.get(alias), previous=held.get(previous_alias(alias)))
        return self._move(moves, alias)

    def _move(self, moves: list[Move], alias: str) -> bool:
        for move in moves:
            name = alias if move.pointer == CURRENT else previous_alias(alias)
            self.server.post("registered-models/alias", {"name": self.name, "alias": name, "version": move.version})
        return bool(moves)


def previous_alias(alias: str) -> str:
    """What names the version that an alias named before."""
    return pointers.PREVIOUS if alias == CHAMPION else f"{pointers.PREVIOUS}-{alias}"
