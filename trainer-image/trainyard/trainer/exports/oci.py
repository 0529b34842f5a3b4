"""`oci`: the model as an image in a registry, and a tag that says which image is in use.

prepare: would the registry take an upload?  ->  send: layers, manifests, the image's own tag  ->  promote: the other tag
"""

from __future__ import annotations

from collections.abc import Mapping

from trainyard.api.run.exports import Export
from trainyard.api.run.targets.oci import OciImage
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.sources import secret_values
from trainyard.trainer.errors import invalid_config, source_unavailable
from trainyard.trainer.exports import pointers
from trainyard.trainer.exports.distribution import Credentials, Reference, Registry
from trainyard.trainer.exports.exported import Exported
from trainyard.trainer.exports.facts import facts_of
from trainyard.trainer.exports.image import image_of
from trainyard.trainer.exports.package import package_of
from trainyard.trainer.exports.pointers import CURRENT, Move
from trainyard.trainer.log import say
from trainyard.trainer.reporter import Reporter

DIGEST = "dev.trainyard.digest"


def check(context: RunContext, export: Export, target: OciImage) -> None:
    """Raises UserError: the registry does not take an upload."""
    _registry(context, export, target).ask_whether_writable()
    say(f"{export.field}: {target.image} can be pushed")


def send(
    context: RunContext, export: Export, target: OciImage, inputs: Mapping[str, Exported], reporter: Reporter
) -> Exported:
    """Raises UserError: the tag is another image; the registry refuses, or does not answer."""
    registry, package = _registry(context, export, target), package_of(context, export)
    facts = facts_of(context)
    annotations = {
        "org.opencontainers.image.title": str(facts["model"]),
        "org.opencontainers.image.version": str(facts["version"]),
        DIGEST: package.digest,
    }
    if commit := facts.get("gitCommit"):
        annotations["org.opencontainers.image.revision"] = str(commit)
    image, tag = image_of(package, annotations), registry.reference.tag
    held = registry.get(tag)
    if held is not None and held.digest != image.index.digest:
        raise invalid_config(
            f"{export.field}.image {target.image}: the tag is another image ({held.digest[:19]}), and is not moved",
            hint="put {version} or {digest} into the tag; a tag that moves goes into alias",
        )
    sent = 0
    if held is None:
        sent = registry.send(image)
        registry.put(image.index, tag)
    say(f"{export.field}: {target.image} is {image.index.digest}, {sent} blobs sent")
    uri = f"oci://{registry.reference}"
    return Exported(
        uri, package.digest, version=image.index.digest, facts={"image": f"{target.image}@{image.index.digest}"}
    )


def promote(context: RunContext, export: Export, target: OciImage, exported: Exported) -> None:
    """Let the other tag name this image. Raises UserError."""
    registry, tags = _registry(context, export, target), _tags(target)
    held = _held(registry, tags)
    _move(registry, tags, pointers.promote(exported.version, current=held[0], previous=held[1]))


def back(context: RunContext, export: Export, target: OciImage, exported: Exported) -> None:
    """Let the other tag name the image before this one. Raises UserError."""
    registry, tags = _registry(context, export, target), _tags(target)
    held = _held(registry, tags)
    _move(registry, tags, pointers.back(exported.version, current=held[0], previous=held[1]))


def _tags(target: OciImage) -> tuple[str, str]:
    return target.alias or "", f"{target.alias}-{pointers.PREVIOUS}"


def _held(registry: Registry, tags: tuple[str, str]) -> tuple[str | None, str | None]:
    current, previous = (registry.get(tag) for tag in tags)
    return current.digest if current else None, previous.digest if previous else None


def _move(registry: Registry, tags: tuple[str, str], moves: list[Move]) -> None:
    for move in moves:
        manifest, tag = registry.get(move.version), tags[0] if move.pointer == CURRENT else tags[1]
        if manifest is None:
            raise source_unavailable(
                f"{registry.told}: the registry has lost {move.version}", hint="run the export again"
            )
        registry.put(manifest, tag)
        say(f"{registry.told}: tag {tag} is {move.version}")


def _registry(context: RunContext, export: Export, target: OciImage) -> Registry:
    secret = secret_values(target.secret_ref, context.secrets_dir, told=export.field)
    reference, told = Reference.parse(target.image), f"{export.field}.image {target.image}"
    credentials = Credentials.read(secret, reference.host, told=told)
    return Registry(reference, credentials, told, insecure=target.insecure, ca=secret.get("ca.crt path"))
