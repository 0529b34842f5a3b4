"""Settings from the environment, and what wrong ones say."""

import pytest

from trainyard.controller.settings import InvalidSettings, Settings, misspelled

NEEDED = {"TRAINYARD_TRAINER_IMAGE": "registry/trainer:1"}


def test_defaults_need_only_the_image():
    settings = Settings.from_environment(NEEDED | {"TRAINYARD_WORKERS": "", "HOME": "/root"})
    assert (settings.trainer_image, settings.workers, settings.namespaces, settings.lease) == (
        "registry/trainer:1",
        8,
        (),
        True,
    )


def test_values_are_read_as_what_they_are():
    settings = Settings.from_environment(
        NEEDED
        | {
            "TRAINYARD_WORKERS": "16",
            "TRAINYARD_NAMESPACES": "team-a, team-b,",
            "TRAINYARD_LEASE": "false",
            "TRAINYARD_RESYNC_SECONDS": "600",
            "TRAINYARD_RECEIVER_URL": "http://trainyard-receiver.trainyard-system.svc:8080",
        }
    )
    assert (settings.workers, settings.namespaces, settings.lease) == (16, ("team-a", "team-b"), False)
    assert settings.resync_seconds == 600


def test_prices_are_a_table():
    named = {"TRAINYARD_GPU_PRICES": "NVIDIA-H100-80GB-HBM3=2.5, *=0.35", "TRAINYARD_CURRENCY": "EUR"}
    settings = Settings.from_environment(NEEDED | named)
    assert (settings.gpu_prices, settings.currency) == ({"NVIDIA-H100-80GB-HBM3": 2.5, "*": 0.35}, "EUR")
    for wrong in ("H100", "H100=dear", "H100=-1"):
        with pytest.raises(InvalidSettings, match="TRAINYARD_GPU_PRICES"):
            Settings.from_environment(NEEDED | {"TRAINYARD_GPU_PRICES": wrong})


def test_all_faults_are_named_at_once():
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment(
            {"TRAINYARD_WORKERS": "many", "TRAINYARD_RECEIVER_URL": "receiver:8080", "TRAINYARD_LOG_FORMAT": "xml"}
        )
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert any(line.startswith("TRAINYARD_TRAINER_IMAGE is not set; Image of the steps") for line in lines)
    assert any(line.startswith("TRAINYARD_WORKERS='many': ") for line in lines)
    assert any(line.startswith("TRAINYARD_RECEIVER_URL='receiver:8080': ") for line in lines)
    assert any("'auto', 'json' or 'text'" in line for line in lines)


def test_what_triggers_may_not_reach_is_networks():
    named = {"TRAINYARD_TRIGGERS_DENIED_NETWORKS": "10.96.0.0/12, fd00::/8,"}
    assert tuple(map(str, Settings.from_environment(NEEDED | named).triggers_denied_networks)) == (
        "10.96.0.0/12",
        "fd00::/8",
    )
    with pytest.raises(InvalidSettings, match=r"TRAINYARD_TRIGGERS_DENIED_NETWORKS='10\.96\.0\.1/12': "):
        Settings.from_environment(NEEDED | {"TRAINYARD_TRIGGERS_DENIED_NETWORKS": "10.96.0.1/12"})


def test_no_setting_is_mistaken_for_what_kubernetes_injects_for_a_service():
    injected = {
        "TRAINYARD_RECEIVER_PORT": "tcp://10.0.0.7:8080",
        "TRAINYARD_RECEIVER_SERVICE_HOST": "10.0.0.7",
        "TRAINYARD_METRICS_PORT": "tcp://10.0.0.8:9090",
    }
    assert Settings.from_environment(NEEDED | injected) == Settings.from_environment(NEEDED)
    assert not any(name.endswith("_port") and not name.endswith("_listen_port") for name in Settings.model_fields)


def test_a_misspelled_variable_is_noticed():
    assert misspelled({"TRAINYARD_RESYNC_SECOND": "5", "TRAINYARD_WORKERS": "8", "PATH": "/bin"}) == [
        "TRAINYARD_RESYNC_SECOND is not a setting and is ignored; did you mean TRAINYARD_RESYNC_SECONDS?"
    ]


def test_every_setting_is_explained():
    assert all(field.description for field in Settings.model_fields.values())
