"""Secrets planted in a code corpus never reach the dataset, and what is no secret does."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.servers.git_server import commit, serving
from tests.unit.trainer.data.collect.collecting import context, records
from trainyard.trainer.data.build import build_records
from trainyard.trainer.data.collect.secrets import redact

A = "aB3dE5gH7jK9mN1pQ3sT5vX7zA9cE1gI3kM5oQ7s"
"""Forty characters that look random."""
HEX = "0123456789abcdef0123456789abcdef"

# What each kind looks like in a file, and the part that must not be seen. Put together here, so that this file itself
# holds none of them whole.
PLANTED: dict[str, tuple[str, str]] = {
    "aws-access-key": ("aws_id = '{}'", "AKIA" + "Q3EGZJ7TNW5KVXPM"),
    "aws-secret-key": ("aws_secret_access_key = {}", "wJalrXUtnFEMI/K7MDENG" + "/bPxRfiCYzzzzzzzzKEY"),
    "github": ("git clone https://{}@github.com/a/b", "ghp" + "_" + A[:36]),
    "github-fine": ("GH={}", "github" + "_pat_" + A + "_" + A),
    "gitlab": ("curl -H 'PRIVATE-TOKEN: {}'", "glpat" + "-" + A[:20]),
    "slack": ('slack = "{}"', "xoxb" + "-123456789012-123456789012-" + A[:24]),
    "slack-webhook": ("url: {}", "https://hooks.slack" + ".com/services/T0AAAAAAA/B0AAAAAAA/" + A[:24]),
    "google-api": ("maps({})", "AIza" + A[:35]),
    "google-oauth": ('"client": "{}"', "GOCSPX" + "-" + A[:28]),
    "stripe": ("Stripe.ApiKey = {};", "sk" + "_live_" + A[:24]),
    "twilio": ("sid {}", "SK" + HEX),
    "sendgrid": ("mail({})", "SG" + "." + A[:22] + "." + A + A[:3]),
    "npm": ("//registry.example.org/:_authToken={}", "npm" + "_" + A[:36]),
    "pypi": ("twine {}", "pypi" + "-" + "AgEIcHlwaS5vcmc" + A + A),
    "huggingface": ("login({})", "hf" + "_" + A[:34]),
    "openai": ("openai({})", "sk" + "-proj-" + A),
    "anthropic": ("claude({})", "sk" + "-ant-api03-" + A + A),
    "json-web-token": (
        "Cookie: session={}",
        "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + "." + A,
    ),
    "private-key": (
        "tls = '''{}'''",
        "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\n" + A + "\n-----END RSA " + "PRIVATE KEY-----",
    ),
    "openssh-key": (
        "{}\n",
        "-----BEGIN OPENSSH "
        + "PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n"
        + A
        + "\n-----END OPENSSH "
        + "PRIVATE KEY-----",
    ),
    "azure-storage": ('"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={};"', A + A + "abcdEF=="),
    "azure-client": ("client: {}", "abc8Q~" + A[:34]),
    "sql-connection": ('"Server=db;Database=x;User Id=sa;Password={};Encrypt=True"', "Tr0ub4dor&3"),
    "sql-connection-word": ('"Server=db;User Id=sa;Pwd={};"', "letmein"),
    "database-address": ("DATABASE_URL=postgresql+asyncpg://app:{}@db:5432/x", "p4ssw0rd-of-app"),
    "redis-address": ("redis://:{}@cache:6379/0", "redispw123"),
    "basic-header": ("Authorization: Basic {}", "dXNlcjpwYXNzd29yZDEyMw=="),
    "bearer-header": ("curl -H 'Authorization: Bearer {}'", "f00dcafe" + A[:20]),
    "digitalocean": ("do {}", "dop" + "_v1_" + HEX + HEX),
    "vault": ("vault login {}", "hvs" + "." + A[:24]),
    "telegram": ("bot{}/sendMessage", "1234567890" + ":AA" + A[:33]),
    "discord-webhook": ("post {}", "https://discord" + ".com/api/webhooks/123456789012345678/" + A + A[:20]),
    "grafana": ("grafana {}", "glsa" + "_" + A[:32] + "_1a2b3c4d"),
    "docker": ("docker login -p {}", "dckr" + "_pat_" + A[:27]),
    "databricks": ("databricks {}", "dapi" + HEX),
    "tunix": ("TUNIX={}", "tunix" + "_sk_prod_" + A[:12]),
    "age": ("age {}", "AGE-SECRET" + "-KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"),
    "yaml-password": ("db:\n  password: {}\n", "S3cret-Pa55"),
    "yaml-password-word": ("db:\n  password: {}\n", "swordfish"),
    "json-password": ('{{"adminPassword": "{}"}}', "correcthorse"),
    "python-password": ('password: str = "{}"', "opensesame1"),
    "csharp-secret": ('private const string ClientSecret = "{}";', "Zx81-Spectrum"),
    "env-line": ("export API_TOKEN={}", "plainwordtoken"),
    "dockerfile-env": ("ENV DB_PASSWORD {}", "dockerpass"),
    "kubernetes-env": ("- name: SMTP_PASSWORD\n  value: {}\n", "mailpass99"),
    "app-config": ('<add key="SmtpPassword" value="{}" />', "xmlpass12"),
    "xml-element": ("<ClientSecret>{}</ClientSecret>", "elementpass"),
    "kubernetes-secret": (
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\ndata:\n  a.txt: {}\n",
        "aGVsbG8gd29ybGQ=",
    ),
    "netrc": ("machine git.example.org login me password {}", "netrcpass"),
    "command-line": ("helm upgrade --password {} x", "clipass77"),
    "password-hash": ("admin:{}", "$2b$12$" + "abcdefghijklmnopqrstuvABCDEFGHIJKLMNOPQRSTUVWXYZ01234"),
    "signed-url": ("https://b.example.org/x?X-Amz-Credential=c&X-Amz-Signature={}", HEX + HEX),
}

HARMLESS = (
    "secretName: trainyard-login",
    "max_tokens: 4096000",
    "password: ${DB_PASSWORD}",
    "password: {{ .Values.password }}",
    "password = os.environ['DB_PASSWORD']",
    "token = tokenizer.encode(text)",
    'var password = configuration.GetValue<string>("Db");',
    "def login(user: str, password: str) -> Token:",
    "public string Password { get; set; }",
    "tokenFile: /var/run/secrets/token",
    "if password is None:",
    "api_key: Optional[str] = None",
    "apiVersion: v1\nkind: ConfigMap\ndata:\n  a: aGVsbG8gd29ybGQ=\n",
    "git commit 0123456789abcdef0123456789abcdef01234567",
    "https://example.org:8080/path@v1",
)


@pytest.mark.parametrize("kind", PLANTED)
def test_each_kind_is_replaced(kind: str) -> None:
    line, value = PLANTED[kind]
    clean = redact(f"before\n{line.format(value)}\nafter\n")
    assert value not in clean, clean
    assert "<redacted:" in clean
    assert clean.startswith("before\n")
    assert clean.endswith("after\n")
    assert redact(clean) == clean


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_nothing_planted_in_a_repository_reaches_the_dataset(tmp_path: Path) -> None:
    """All kinds, each in several languages, and files that are secrets as a whole; searched for in every byte written."""
    files: dict[str, str | bytes] = {}
    for index, (line, value) in enumerate(PLANTED.values()):
        text = line.format(value)
        for suffix, comment in ((".cs", "//"), (".py", "#"), (".yaml", "#"), (".md", "")):
            files[f"src/f{index}{suffix}"] = f"{comment} file {index}\n{text}\n{comment} end\n"
    files |= {".env": "A=topsecretvalue\n", "id_rsa": "topsecretvalue\n", "deploy/kubeconfig": "topsecretvalue\n"}
    commit(tmp_path / "git" / "app", files)
    with serving(tmp_path / "git") as server:
        found = records(tmp_path, code={"url": f"{server.url}/app", "include": ["**/*"]})
        assert len(found) == 4 * len(PLANTED)
        for record in found:
            index = int(record["path"].split("/f")[1].split(".")[0])
            assert f"file {index}\n" in record["text"]
            assert "end\n" in record["text"]
        told = json.dumps(found, ensure_ascii=False)
        run = context(tmp_path, code={"url": f"{server.url}/app", "include": ["**/*"]})
        out = tmp_path / "out"
        (out / "staging").mkdir(parents=True)
        build_records(run, out, out / "staging")
    written = "".join(f.read_text() for f in out.rglob("*") if f.is_file())
    assert len(written) > 10_000
    for kind, (_, value) in PLANTED.items():
        for part in (p for p in value.splitlines() if len(p) > 5 and "-----" not in p):
            for place in (told, written):
                assert part not in place, kind
                assert json.dumps(part)[1:-1] not in place, kind
    assert "topsecretvalue" not in told + written
    for piece in (tmp_path / "work").rglob("*.jsonl.gz"):
        assert not any(value.encode() in gzip.decompress(piece.read_bytes()) for _, value in PLANTED.values())
