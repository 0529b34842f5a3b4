"""Starting a run: from a manifest and the words of the command line to an object in the cluster, or to processes here.

The manifest is checked first with the same report as `trainyard validate`, so that a typo costs a moment and not a Job, or
the time until the trainer has imported torch.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from trainyard.api.run.trainingrun import TrainingRun, TrainingRunSpec
from trainyard.api.schedule.children import merge
from trainyard.cli.checking import FileReport, Source, check, read_sources, render_table
from trainyard.cli.cluster import runs_of, same_cluster, seconds_of
from trainyard.cli.exits import Exit, Misused, Refused
from trainyard.cli.fates import told
from trainyard.cli.options import folders_of_claims
from trainyard.cli.patches import patch_of
from trainyard.cli.printing import print_next
from trainyard.cli.watching import print_changes
from trainyard.client import Rejected


def start(options: argparse.Namespace) -> int:
    """The exit code. Raises Refused, and ClientError."""
    text, manifest, model = _only_run(options)
    if options.local:
        work = options.workdir or Path("trainyard") / model.metadata.name
        from trainyard.cli.local import run_here

        return run_here(text, work, folders_of_claims(options.volume), secrets=options.secrets)
    return _start(options, manifest, model.spec)


def _start(options: argparse.Namespace, manifest: dict[str, Any], spec: TrainingRunSpec) -> int:
    runs = runs_of(options)
    if named := str(manifest["metadata"].get("namespace") or ""):
        if options.namespace not in ("", named):
            raise Misused(
                f"the manifest says namespace {named}, and the command line {options.namespace}: leave one of them out"
            )
        if named != runs.namespace:
            runs.namespace = options.namespace = named
    manifest["metadata"]["namespace"] = runs.namespace
    try:
        run = runs.create(manifest)
    except Rejected as error:
        if error.reason == "AlreadyExists":
            name = manifest["metadata"]["name"]
            raise Refused(
                f"there is a run {name} in namespace {runs.namespace} already: give --name, or "
                f"{options.called_as} retry {name}{same_cluster(options)}"
            ) from error
        raise
    print(f"created {run.name} in namespace {run.namespace}: {_plan(spec)}")
    if options.watch:
        last = print_changes(runs, name=run.name)
        return told(last or run, options)
    if options.wait is not None:
        return told(runs.wait(run.name, seconds=seconds_of(options.wait, option="--wait")), options)
    name, it = options.called_as, run.name + same_cluster(options)
    print_next(f"{name} watch {it}", f"{name} logs -f {it}", f"{name} status {it}")
    return Exit.DONE


def _plan(spec: TrainingRunSpec) -> str:
    """What will happen, as far as the spec alone tells it."""
    facts = [" -> ".join(spec.steps())]
    if (total := spec.total_steps_hint()) is not None:
        facts.append(f"{total} steps")
    devices = {k: v for k, v in spec.resources.limits.items() if "/" in k}
    facts += [
        f"{value} {name}" + (f" in each of {spec.num_nodes} pods" if spec.num_nodes > 1 else "")
        for name, value in devices.items()
    ]
    return ", ".join(facts)


def _only_run(options: argparse.Namespace) -> tuple[str, dict[str, Any], TrainingRun]:
    """The text of the file, its one run with the changes of the command line, and the same as a model."""
    sources = read_sources([options.file], stdin=sys.stdin)
    if len(sources) != 1:
        raise Misused(f"{options.file} is a folder of {len(sources)} manifests; name one of them")
    text, report = sources[0].text, _checked(sources[0])
    found = [one for one in report.objects if isinstance(one.model, TrainingRun)]
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise Misused(f"{report.name} holds {len(found)} TrainingRuns ({names}); this takes one at a time")
    manifest, model = found[0].document.value, found[0].model
    changed = _changed(manifest, options)
    if changed != manifest:
        text, manifest = json.dumps(changed), changed
        model = _checked(Source(f"{report.name}, with the changes of the command line", text)).objects[0].model
    assert isinstance(model, TrainingRun)
    return text, manifest, model


def _checked(source: Source) -> FileReport:
    report = check(source)
    if not report.valid:
        raise Refused(f"nothing was started\n{render_table([report])}")
    return report


def _changed(manifest: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The manifest as the command line wants it."""
    if options.debug and options.dry_run:
        raise Misused("--debug trains and --dry-run does not: give one of them")
    changes = patch_of(options.values)
    if mode := "Debug" if options.debug else "DryRun" if options.dry_run else "":
        changes["mode"] = mode
    if options.phase:
        changes["runPhases"] = options.phase
    metadata = {"name": options.name} if options.name else {}
    return dict(merge(manifest, {"spec": changes, "metadata": metadata}))
