"""`spec.exports`: where the trained model goes besides the run's volume, and in which order.

An export is a step of the run with one target. Exports that need not wait for each other work beside each other, and one that
fails takes nothing with it but what comes after it. `TARGETS` has a row for each target; the fields of a target are a class in
`targets/`, and `trainyard.trainer.exports` has a module of its name, unless the operator does it itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from trainyard.api.base import ApiModel, DnsLabel, Rule, exactly_one
from trainyard.api.run.pod import Resources
from trainyard.api.run.targets.benchmark import Benchmark
from trainyard.api.run.targets.config_map import ConfigMap
from trainyard.api.run.targets.gguf import Gguf
from trainyard.api.run.targets.git import GitFile
from trainyard.api.run.targets.hub import Hub
from trainyard.api.run.targets.kserve import KServe
from trainyard.api.run.targets.mlflow import MlflowModel
from trainyard.api.run.targets.mlx import Mlx
from trainyard.api.run.targets.oci import OciImage
from trainyard.api.run.targets.ollama import Ollama
from trainyard.api.run.targets.s3 import S3
from trainyard.api.steps import export_step

EXPORTS_LIMIT = 16
PUSHED_TO_HUB = "push-to-hub"
"""Name of the export that the deprecated `spec.pushToHub` stands for."""


RESERVED = ("claim", "dataset", "model", "uri")
"""Keys of `status.outputs` beside those of exports."""


@dataclass(frozen=True)
class Target:
    """What is special about a target; the name of the row is that of its field in `Export`."""

    by_operator: bool = False
    """It needs rights at the API server, which no pod has: there is no Job and no module for it."""
    runs_model: bool = False
    """It has the model in memory, converted and asked; its Job gets what the training's pods get, but for devices."""
    makes_files: bool = False
    """It leaves files in the run's folder that a later export can send."""
    promotes: Callable[[Any], bool] = lambda target: False
    """Whether something points at the newest result here (an alias) that is to be moved last of all: its module has
    `promote` and `back`."""


TARGETS: dict[str, Target] = {
    "s3": Target(promotes=lambda target: target.latest),
    "mlflow": Target(promotes=lambda target: target.pointer is not None),
    "git": Target(promotes=lambda target: True),
    "hub": Target(),
    "config_map": Target(by_operator=True),
    "kserve": Target(by_operator=True),
    "gguf": Target(runs_model=True, makes_files=True),
    "ollama": Target(runs_model=True),
    "mlx": Target(runs_model=True, makes_files=True),
    "benchmark": Target(runs_model=True),
    "oci": Target(promotes=lambda target: target.alias is not None),
}
"""By field of `Export`."""

ExportName = Annotated[DnsLabel, Field(min_length=1, max_length=32)]


class Export(ApiModel):
    """One place that the result goes to. Exactly one target."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            *TARGETS, message=f"an export has exactly one target: give one of {', '.join(map(to_camel, TARGETS))}"
        ),
        Rule(
            f"!(self.name in {list(RESERVED)})",
            f"an export cannot be called {', '.join(RESERVED)}: status.outputs has something else under these names",
            lambda e: e.name not in RESERVED,
        ),
        Rule(  # in CEL for what it is written in mostly: each mention of a field counts, over all texts of all exports
            "has(self.dependsOn) && size(self.dependsOn) > 0 || "
            "(!has(self.kserve) || !self.kserve.storageUri.contains('{uri}')) && "
            "(!has(self.git) || !self.git.value.contains('{uri}'))",
            "{uri} is what the first export of dependsOn has left: give dependsOn, or write the address out",
            lambda e: bool(e.depends_on) or not _has_uri(e),
        ),
        Rule(
            "!has(self.benchmark) || has(self.dependsOn) && size(self.dependsOn) > 0",
            "a benchmark measures what other exports have made: name them in dependsOn (gguf, mlx or ollama)",
            lambda e: e.benchmark is None or len(e.depends_on) > 0,
        ),
        Rule(
            "!has(self.resources) || (!has(self.configMap) && !has(self.kserve))",
            "an export's resources are those of its Job, and configMap and kserve have none: remove resources",
            lambda e: e.resources is None or (e.config_map is None and e.kserve is None),
        ),
    )

    name: ExportName = Field(description="Name of the export, of its step and its Jobs.")
    depends_on: list[ExportName] = Field(
        default_factory=list,
        max_length=EXPORTS_LIMIT,
        description="Exports that have to have succeeded before. What they have left can be used: files of gguf and mlx are what is sent.",
    )
    when: Literal["Succeeded", "GatesPassed"] | None = Field(
        None,
        description="Succeeded: when the training (and the evaluation) has succeeded. GatesPassed: only if the evaluation has found "
        "the result good enough. Default: GatesPassed where spec.evaluation has a gate.",
    )
    on_failure: Literal["Fail", "Continue"] = Field(
        "Fail",
        description="What a failed export means for the run, when all others have ended. The trained model stays in any case.",
    )
    backoff_limit: int = Field(
        3,
        ge=0,
        le=100,
        description="How many failed attempts it may have; they do not count against the run's backoffLimit.",
    )
    resources: Resources | None = Field(
        None,
        description="Resources of its Job. Default: where the model itself is run (gguf, ollama, mlx, benchmark) those of the training "
        "step without its GPUs, otherwise those of the prepare step.",
    )
    s3: S3 | None = Field(None, description="A bucket of an object store.")
    mlflow: MlflowModel | None = Field(
        None, description="MLflow's registry of models. Needs an s3 export in dependsOn."
    )
    git: GitFile | None = Field(None, description="A file or value in a git repository.")
    hub: Hub | None = Field(None, description="A Hugging Face hub.")
    config_map: ConfigMap | None = Field(None, description="Keys of a ConfigMap, and a Deployment that reads them.")
    kserve: KServe | None = Field(None, description="The model of a KServe InferenceService.")
    gguf: Gguf | None = Field(None, description="GGUF files, for llama.cpp and Ollama.")
    ollama: Ollama | None = Field(None, description="An Ollama server.")
    mlx: Mlx | None = Field(None, description="A folder for MLX.")
    benchmark: Benchmark | None = Field(None, description="Speed and memory of what other exports have made.")
    oci: OciImage | None = Field(None, description="An image in a registry.")

    @property
    def kind(self) -> str:
        """The field of its target."""
        return next(name for name in TARGETS if getattr(self, name) is not None)

    @property
    def target(self) -> Any:
        """What its target's field holds."""
        return getattr(self, self.kind)

    @property
    def field(self) -> str:
        """Where its target stands in the spec, for messages."""
        return "spec.pushToHub" if self.name == PUSHED_TO_HUB else f"spec.exports[{self.name}].{to_camel(self.kind)}"

    @property
    def row(self) -> Target:
        """Its target's row."""
        return TARGETS[self.kind]

    @property
    def step(self) -> str:
        """The step that does it."""
        return export_step(self.name)

    @property
    def promotes(self) -> bool:
        """Whether something is to point at its result, last of all."""
        return self.row.promotes(self.target)


def _has_uri(export: Export) -> bool:
    return any("{uri}" in t.model_dump_json() for name in TARGETS if (t := getattr(export, name)) is not None)


def in_order(exports: Sequence[Export]) -> tuple[Export, ...]:
    """Each after what it depends on, otherwise as they stand. Those that wait for each other, or for none that is there, are
    left out."""
    placed: dict[str, Export] = {}
    while ready := [e for e in exports if e.name not in placed and placed.keys() >= set(e.depends_on)]:
        placed[ready[0].name] = ready[0]
    return tuple(placed.values())
