"""Whether the API server serves our kinds, under schemas that hold what this version reads and writes.

Helm and GitOps tools may bring a new operator before the new CustomResourceDefinitions. Under older ones the API server
drops what it does not know, from what users write as well as from the status, so the operator does not start.
"""

import logging
from collections.abc import Mapping
from typing import Any

from trainyard.api.compatibility import SCHEMA_ANNOTATION, fields_lacking, schema_of
from trainyard.api.crd import training_run_crd, training_schedule_crd, training_sweep_crd
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import TRAININGRUNS, Cluster
from trainyard.controller.kube.resources import CRDS, TRAININGSCHEDULES, TRAININGSWEEPS

log = logging.getLogger(__name__)

SHOWN = 5
"""So many of the fields are named that a definition lacks."""
_INSTALL = "install the CRDs first: kubectl apply --server-side -f crds/, or the Helm chart, which brings them along"


async def fault(cluster: Cluster) -> str | None:
    """Why this version cannot work under what is installed, with the way out; None if it can. Raises `ClusterError`."""
    for kind, ours in (
        (TRAININGRUNS, training_run_crd()),
        (TRAININGSCHEDULES, training_schedule_crd()),
        (TRAININGSWEEPS, training_sweep_crd()),
    ):
        if not await cluster.serves(kind):
            return f"the API server does not know {kind.plural}.{kind.group}/{kind.version}; {_INSTALL}"
        try:
            lacking = await _lacking(cluster, ours)
        except errors.Forbidden:
            log.info(
                "no right to read the CRD of %s, so nobody knows whether it is as new as the operator", kind.plural
            )
            continue
        if lacking:
            more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
            return (
                f"the CRD {ours['metadata']['name']} is older than this operator: it lacks "
                f"{', '.join(lacking[:SHOWN])}{more}, which the API server would drop from every object; {_INSTALL}"
            )
    return None


async def _lacking(cluster: Cluster, ours: Mapping[str, Any]) -> list[str]:
    """The fields that the installed definition would drop; a difference of another kind is only told about."""
    name, digest = ours["metadata"]["name"], ours["metadata"]["annotations"][SCHEMA_ANNOTATION]
    brief = await cluster.get(CRDS, None, name, metadata_only=True)
    noted = ((brief or {}).get("metadata", {}).get("annotations") or {}).get(SCHEMA_ANNOTATION)
    if noted == digest or (installed := await cluster.get(CRDS, None, name)) is None:
        return []
    lacking = list(fields_lacking(schema_of(ours), schema_of(installed)))
    if not lacking:
        log.warning(
            "the CRD %s is of another version than this operator: all fields are there, bounds and rules may differ",
            name,
            extra={"annotation": SCHEMA_ANNOTATION, "installed": noted, "expected": digest},
        )
    return lacking
