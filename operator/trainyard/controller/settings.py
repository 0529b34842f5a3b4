"""What an installation can set, read from `TRAINYARD_*` environment variables.

Each field is the variable of the same name in capitals: `workers` is `TRAINYARD_WORKERS`. Ports are called
`..._LISTEN_PORT`, because Kubernetes itself puts variables like `TRAINYARD_RECEIVER_PORT=tcp://10.0.0.7:8080` into the
pods of a namespace that has a Service of the name `trainyard-receiver`.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, IPvAnyNetwork, ValidationError

PREFIX = "TRAINYARD_"


class InvalidSettings(ValueError):
    """One or more variables cannot be used; the message has a line for each."""


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _table(value: Any) -> Any:
    pairs = (part.partition("=") for part in _split(value)) if isinstance(value, str) else ()
    return {name.strip(): price.strip() for name, _, price in pairs} if isinstance(value, str) else value


Price = Annotated[float, Field(ge=0, le=1_000_000)]
Hours = Annotated[float, Field(ge=0, le=10_000_000)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseModel):
    """Fixed for the life of the process."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    trainer_image: str = Field(min_length=1)
    """Image of the steps where a run names none. Required. A change reaches only Jobs that are made afterwards."""

    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Of the steps' containers where a run says nothing."""

    namespaces: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """Comma-separated namespaces to watch; empty means all. The operator needs its permissions in each of them."""

    operator_namespace: str = "trainyard-system"
    """Where the operator itself lives: its Lease and the Secret that its tokens are made from."""

    workers: int = Field(8, ge=1, le=64)
    """Runs that are looked at side by side. More than 16 only help when the API server is slow to answer."""

    schedule_workers: int = Field(8, ge=1, le=64)
    """Schedules that are looked at side by side; they have a queue of their own."""

    triggers_allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """Comma-separated hosts that triggers of schedules may ask, as they stand in an address; `*` stands for any text, as in
    `*.monitoring.svc`. Redirects included. Empty: all but those that are always refused."""

    triggers_denied_networks: Annotated[tuple[IPvAnyNetwork, ...], BeforeValidator(_split)] = ()
    """Comma-separated networks that triggers may not reach, for example those of the cluster's Services and pods
    (10.96.0.0/12,10.244.0.0/16). Judged is the address that a name leads to. Loopback, link-local, multicast, the metadata
    services of clouds and the operator's own addresses are refused without it."""

    triggers_allow_loopback: bool = False
    """For tests and development only. Whoever may write a schedule can then ask whatever listens in the operator's own pod."""

    triggers_memory_mib: int = Field(20, ge=8, le=4096)
    """Memory of one look at a trigger's source; up to six are taken at a time, each in a process of its own. A larger
    one needs a larger memory limit of the pod."""

    resync_seconds: float = Field(300, ge=10)
    """Pause between two looks at every run that no event asked for; the safety net for lost events."""

    progress_interval_seconds: float = Field(8, ge=1, le=600)
    """A run's status is written at most so often while nothing but numbers move. Each write is a write to etcd."""

    progress_writes_per_second: float = Field(25, gt=0, le=1000)
    """Budget of such writes over all runs; with more active runs than fit, each one's interval grows."""

    retry_base_seconds: float = Field(10, ge=0, le=3600)
    """Pause before the first repeated attempt of a failed step; doubles with each further one."""

    retry_cap_seconds: float = Field(360, ge=0, le=86400)
    """Longest such pause."""

    receiver_url: str = Field("", pattern=r"^(https?://[^\s/]+.*)?$")
    """Base URL under which pods reach the receiver, for example http://trainyard-receiver.trainyard-system.svc:8080.
    Empty: pods push no progress, and a run's numbers appear only at the end of each step."""

    receiver_secret: str = "trainyard-receiver"
    """Secret with the key of the runs' tokens, made at the first start. Deleting it (and restarting the operator) makes
    the tokens of all running pods worthless; their progress is then refused until their next attempt."""

    receiver_listen_port: Port = 8080
    """Port of the receiver."""

    receiver_connections: int = Field(512, ge=16, le=10000)
    """Connections that the receiver has open at a time; further ones are closed at once, and pods send again. A connection
    carries one report and ends after 10 s at the latest, so this is plenty for thousands of pods. Each may hold 100 KiB."""

    receiver_connections_per_address: int = Field(32, ge=2, le=10000)
    """Of these, how many may come from one address. Pods have addresses of their own; raise it where a proxy or a
    translation of addresses makes many pods look like one. With as many as in all, a single pod can keep the others out."""

    page: Literal["Off", "Loopback", "Service"] = "Loopback"
    """Where the live page listens. Loopback: inside of the operator's pod alone, for whoever may forward a port to it
    (`trainyard page`). Service: for everybody who reaches the pod, within page_access."""

    page_access: Literal["Kubernetes", "Token", "Header", "Open"] = "Kubernetes"
    """Who is let in with page=Service. Kubernetes: a token that the API server knows, and what its owner may list. Token: the
    one in page_token_file. Header: whom a proxy in front names, and what that user may list. Open: everybody, all runs."""

    page_token_file: str = ""
    """With page_access=Token: the file with the token."""

    page_user_header: str = Field("X-Forwarded-User", min_length=1)
    """With page_access=Header: the header with the user's name."""

    page_groups_header: str = Field("X-Forwarded-Groups", min_length=1)
    """With page_access=Header: the header with his groups, separated by commas."""

    page_proxies: Annotated[tuple[IPvAnyNetwork, ...], BeforeValidator(_split)] = ()
    """With page_access=Header: comma-separated networks of the proxies whose headers are believed."""

    page_listen_port: Port = 8082
    """Port of the page."""

    gpu_prices: Annotated[Mapping[str, Price], BeforeValidator(_table)] = {}
    """Price of a GPU hour by product, for runs without spec.cost.hourlyRate: NVIDIA-H100-80GB-HBM3=2.5,*=0.35. The product is
    the value of nvidia.com/gpu.product in a run's placement.nodeSelector; `*` is any other, and any run that names none."""

    monthly_gpu_hours: Annotated[Mapping[str, Hours], BeforeValidator(_table)] = {}
    """GPU hours that a namespace, or an agent in it, may use in a calendar month: lab=100,lab/agent-sre=40. Over it, trainings wait."""

    currency: str = Field("", pattern=r"^([A-Z]{3})?$")
    """What gpu_prices are in, and what runs mean that say nothing: EUR, USD."""
    datasets_namespace: str = ""
    """Namespace in which datasets are built for whoever asks the datasets' API (POST /api/datasets/build). Empty: there is no
    such API."""

    datasets_secret: str = "tunix-rt-training-secrets"
    """Secret of that namespace with the address of the database that traces are read from, as database-url."""

    datasets_size: str = Field("1Gi", pattern=r"^[0-9]+(\.[0-9]+)?([KMGT]i?)?$")
    """Size of each dataset's volume."""

    datasets_access: Literal["Loopback", "Kubernetes"] = "Loopback"
    """Who is let in. Loopback: the API listens inside of the operator's pod alone, for whoever may forward a port to it.
    Kubernetes: for everybody who reaches the pod and has a token that the API server knows; its owner must be allowed to create
    TrainingRuns in the namespace, and to build, to read the Secret."""

    datasets_listen_port: Port = 8000
    """Port of the datasets' API."""

    metrics_listen_port: Port = 9090
    """Port of /metrics."""

    metrics_per_model: bool = True
    """Whether /metrics has gauges of single models (loss, accuracy), labelled with agent, name and version as authors chose
    them. At most 100 runs have any."""

    health_listen_port: Port = 8081
    """Port of /healthz and /readyz."""

    lease: bool = True
    """Whether to take the Lease before any work. Without it two operators at a time are possible: nothing is doubled
    even then, but both work for the same runs."""

    lease_name: str = "trainyard-operator"
    """Name of the Lease."""

    identity: str = ""
    """Holder of the Lease: the pod's name. Empty: the host's name, which is the same in a pod. A restarted container of
    the same pod takes its Lease back at once."""

    shutdown_seconds: float = Field(20, ge=0)
    """How long running reconciles may take to end after SIGTERM. Keep it below the pod's terminationGracePeriodSeconds."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity that is logged."""

    log_format: Literal["auto", "json", "text"] = "auto"
    """json: one object per line; text: for people; auto: text on a terminal, json elsewhere."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Raises `InvalidSettings` that names each wrong variable. An empty variable counts as unset."""
        given = {
            name: value for name in cls.model_fields if (value := environ.get(PREFIX + name.upper(), "").strip()) != ""
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise InvalidSettings("\n".join(_explain(error, given))) from None


def misspelled(environ: Mapping[str, str]) -> list[str]:
    """Variables that are close to a setting's name and are none: they would be ignored without a word."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    found = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if close:
                found.append(f"{name} is not a setting and is ignored; did you mean {close[0]}?")
    return found


def _explain(error: ValidationError, given: Mapping[str, str]) -> Iterator[str]:
    for fault in error.errors():
        name = str(fault["loc"][0])
        variable = PREFIX + name.upper()
        if name in given:
            yield f"{variable}={given[name]!r}: {fault['msg']}"
        else:
            yield f"{variable} is not set; {' '.join((Settings.model_fields[name].description or '').split())}"
