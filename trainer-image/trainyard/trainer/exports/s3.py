"""`s3`: the model as a folder of a bucket, and an object that says which folder is in use.

prepare: may these keys write there?  ->  send: files, then manifest.json  ->  promote: latest.json, one conditional write
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from trainyard.api.run.exports import Export
from trainyard.api.run.targets.s3 import GOOGLE, S3, VARYING
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.bucket import Bucket
from trainyard.trainer.data.sources import s3_client, secret_values
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.exports import latest, stored
from trainyard.trainer.exports.exported import Exported
from trainyard.trainer.exports.facts import facts_of
from trainyard.trainer.exports.package import package_of
from trainyard.trainer.log import say
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import MANIFEST

POINTER = "pointer"


def check(context: RunContext, export: Export, target: S3) -> None:
    """Raises UserError: these keys may not write there, or the folder is another run's."""
    bucket, prefix = _bucket(context, export, target), _prefix(target)
    bucket.ask_whether_writable(prefix + MANIFEST)
    held = stored.manifest_at(bucket, prefix)
    if held is not None and held.get("uid") != context.uid:
        raise invalid_config(
            f"{bucket.told}: holds the model of run {held.get('run') or 'unknown'}, and what is stored under a name stays",
            hint="put {version}, {timestamp} or {digest} into uri",
        )
    if target.latest:
        bucket.read(_pointer(export, target))
    say(f"{bucket.told}: can be written to")


def send(
    context: RunContext, export: Export, target: S3, inputs: Mapping[str, Exported], reporter: Reporter
) -> Exported:
    """Raises UserError: there is another model; the store refuses, or does not answer."""
    package, bucket, prefix = package_of(context, export), _bucket(context, export, target), _prefix(target)
    facts = facts_of(context)
    sent = stored.put(bucket, prefix, package, facts)
    say(f"{bucket.told}: {sent} files sent, {package.bytes} bytes in all")
    uri = f"{target.uri.rstrip('/')}/"
    return Exported(uri, package.digest, version=str(facts["version"]), facts={"manifest": f"{uri}{MANIFEST}"})


def promote(context: RunContext, export: Export, target: S3, exported: Exported) -> None:
    """Let latest.json name this folder. Raises UserError."""
    bucket, key = _bucket(context, export, target), _pointer(export, target)
    if latest.promote(bucket, key, _entry(context, exported)):
        say(f"{_address(target, key)} names {exported.uri}")


def back(context: RunContext, export: Export, target: S3, exported: Exported) -> None:
    """Let latest.json name the folder before this one. Raises UserError."""
    bucket, key = _bucket(context, export, target), _pointer(export, target)
    if latest.back(bucket, key, _entry(context, exported)):
        say(f"{_address(target, key)} names the folder before {exported.uri} again")


def pointer_of(template: str, uri: str) -> str:
    """Key of latest.json: in the folder before the first part that differs from run to run, at least in the one above."""
    parts = urlsplit(template).path.strip("/").split("/")
    fixed = next((number for number, part in enumerate(parts) if re.search(VARYING, part)), len(parts) - 1)
    return "/".join([*urlsplit(uri).path.strip("/").split("/")[: min(fixed, len(parts) - 1)], latest.NAME])


def _pointer(export: Export, target: S3) -> str:
    return pointer_of(export.target.uri, target.uri)


def _entry(context: RunContext, exported: Exported) -> dict[str, str]:
    return {
        "uri": exported.uri,
        "digest": exported.digest,
        "version": exported.version,
        "run": f"{context.run.metadata.namespace}/{context.run.metadata.name}",
    }


def _address(target: S3, key: str) -> str:
    parts = urlsplit(target.uri)
    return f"{parts.scheme}://{parts.netloc}/{key}"


def _prefix(target: S3) -> str:
    return f"{urlsplit(target.uri).path.strip('/')}/"


def _bucket(context: RunContext, export: Export, target: S3) -> Bucket:
    parts = urlsplit(target.uri)
    secret = secret_values(target.secret_ref, context.secrets_dir, told=export.field)
    own = GOOGLE if parts.scheme == "gs" and not secret.get("AWS_ENDPOINT_URL") else ""
    client = s3_client(secret, endpoint=target.endpoint or own, region=target.region, patient=True)
    return Bucket(
        client=client,
        name=parts.netloc,
        told=f"{export.field}.uri {target.uri}",
        hint=f"check the bucket, {export.field}.endpoint and the keys in secretRef; they need ListBucket, GetObject, PutObject and "
        "AbortMultipartUpload",
    )
