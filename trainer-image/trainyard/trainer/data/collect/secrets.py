"""Keys, tokens and passwords in text, found by their form and replaced by a word that names the kind.

What a model has seen it can repeat, so nothing that opens a door may reach a dataset. Two kinds of detectors work here.
Most tokens say what they are by a prefix of their issuer; those are found wherever they stand. A password has no form of
its own; it is found by what stands before it (`password:`, `Authorization:`, `user:...@` in an address) and is then
believed to be one unless it is plainly a reference (`${PASSWORD}`, `<your token>`) or a word of the language.

The detectors prefer to take too much: a constant that is lost costs nothing. What they cannot see is a password in prose
without any such word beside it.
"""

# ruff: noqa: E501  (one detector a line)

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Detector:
    """One kind of secret. If the pattern has a group `secret`, only that part is replaced."""

    kind: str
    hints: tuple[str, ...]
    """Characters of which some stand in every secret of the kind, in any case: text without them is not searched."""
    pattern: re.Pattern[str]
    believed: Callable[[str], bool] | None = None


def _detector(kind: str, hints: str, pattern: str, believed: Callable[[str], bool] | None = None) -> Detector:
    return Detector(kind, tuple(hints.lower().split()), re.compile(pattern), believed)


_REFERENCE = re.compile(
    r"^[\s\"'`]*(?:$|[$%#&*<{(\[@/]|\.\.\.|x{3,}|(?i:null|nil|none|true|false|undefined|self|this|config|settings?|env|os\.|process\."
    r"|secrets?\.|var\.|vault|example|placeholder|redacted|todo|your|string|str|bytes|required|optional|empty|default)\b)"
)
_CODE = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*\(|^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$|^[A-Za-z_]+$|^[\d._:+-]+$")


def _is_value(text: str) -> bool:
    """A value that was written down, and not where to find it: no reference, no call, no plain word."""
    return len(text) >= 6 and not _REFERENCE.match(text) and not _CODE.search(text)


def _is_quoted_value(text: str) -> bool:
    """The same of a quoted text, where a plain word may be a password too."""
    return len(text) >= 4 and not _REFERENCE.match(text) and " " not in text.strip()


_NAME = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|apikey|access[_-]?key|secret[_-]?key|private[_-]?key"
    r"|client[_-]?secret|account[_-]?key|encryption[_-]?key|signing[_-]?key|credentials?|connection[_-]?string)"
)
_NO_SECRET = (
    r"[\w-]*(?:name|ref|file|path|type|url|uri|id|length|size|count|limit|policy|class|version|selector|ttl|s)\b"
)
"""Ends of names that speak about a secret and do not hold it: secretName, tokenFile, max_tokens."""
_WORDS = "pass pwd secret token _key -key apikey accesskey privatekey accountkey credential connection"
_KEY = rf"(?i:{_NAME}(?!{_NO_SECRET})[\w-]*[\"']?)"
_UPPER = r"(?:PASS(?:WORD|WD|PHRASE)?|PWD|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIALS?)"
_PEM = r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\Z)"

DETECTORS = (
    _detector("private-key", "-----BEGIN", _PEM),
    _detector("age-key", "AGE-SECRET-KEY", r"AGE-SECRET-KEY-1[0-9A-Z]{50,}"),
    _detector("aws-access-key", "AKIA ASIA AGPA AIDA AROA", r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA)[0-9A-Z]{16}\b"),
    _detector("github-token", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,})"),
    _detector("gitlab-token", "glpat- glptt- gldt- glrt- glcbt- glft- glsoat-", r"\bgl(?:pat|ptt|dt|rt|cbt|ft|soat)-[A-Za-z0-9_.-]{16,}"),
    _detector("slack-token", "xox xapp-", r"\b(?:xox[abeoprs]-|xapp-)[A-Za-z0-9-]{10,}"),
    _detector("slack-webhook", "hooks.slack", r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{20,}"),
    _detector("discord-webhook", "/webhooks/", r"https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/\d+/[\w-]{30,}"),
    _detector("discord-token", ".", r"\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}"),
    _detector("telegram-token", ":AA", r"(?<!\d)\d{8,10}:AA[A-Za-z0-9_-]{32,34}"),
    _detector("google-api-key", "AIza", r"\bAIza[A-Za-z0-9_-]{35}"),
    _detector("google-oauth-secret", "GOCSPX-", r"\bGOCSPX-[A-Za-z0-9_-]{20,}"),
    _detector("google-access-token", "ya29.", r"\bya29\.[A-Za-z0-9_-]{20,}"),
    _detector("stripe-key", "_live_ _test_ whsec_", r"\b(?:(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,})"),
    _detector("twilio-key", "SK AC", r"\b(?:SK|AC)[0-9a-f]{32}\b"),
    _detector("sendgrid-key", "SG.", r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    _detector("mailgun-key", "key-", r"\bkey-[0-9a-f]{32}\b"),
    _detector("mailchimp-key", "-us", r"\b[0-9a-f]{32}-us\d{1,2}\b"),
    _detector("npm-token", "npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
    _detector("pypi-token", "pypi-", r"\bpypi-[A-Za-z0-9_-]{50,}"),
    _detector("rubygems-key", "rubygems_", r"\brubygems_[0-9a-f]{48}\b"),
    _detector("docker-token", "dckr_", r"\bdckr_[po]at_[A-Za-z0-9_-]{20,}"),
    _detector("huggingface-token", "hf_ api_org_", r"\b(?:hf_|api_org_)[A-Za-z0-9]{30,}\b"),
    _detector("anthropic-key", "sk-ant-", r"\bsk-ant-[A-Za-z0-9_-]{20,}"),
    _detector("openai-key", "sk-", r"\bsk-(?:proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_-]{20,}"),
    _detector("tunix-key", "tunix_sk_", r"\btunix_sk_[A-Za-z0-9_]{6,}"),
    _detector("databricks-token", "dapi", r"\bdapi[0-9a-f]{32}(?:-\d)?\b"),
    _detector("digitalocean-token", "dop_v1_ doo_v1_ dor_v1_", r"\bdo[opr]_v1_[0-9a-f]{64}\b"),
    _detector("vault-token", "hvs. hvb. hvr.", r"\bhv[sbr]\.[A-Za-z0-9_-]{20,}"),
    _detector("terraform-token", "atlasv1", r"\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,}"),
    _detector("grafana-token", "glc_ glsa_", r"\bgl(?:c|sa)_[A-Za-z0-9+/=_]{20,}"),
    _detector("linear-key", "lin_api_", r"\blin_api_[A-Za-z0-9]{40}\b"),
    _detector("notion-token", "ntn_ secret_", r"\b(?:ntn_[A-Za-z0-9]{40,}|secret_[A-Za-z0-9]{43})\b"),
    _detector("postman-key", "PMAK-", r"\bPMAK-[0-9a-f]{24}-[0-9a-f]{34}\b"),
    _detector("newrelic-key", "NRAK- NRII-", r"\b(?:NRAK|NRII)-[A-Za-z0-9_-]{27,}"),
    _detector("shopify-token", "shpat_ shpca_ shppa_ shpss_", r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b"),
    _detector("azure-client-secret", "Q~", r"\b[A-Za-z0-9_.~-]{3}\dQ~[A-Za-z0-9_.~-]{31,34}"),
    _detector("azure-storage-key", "AccountKey= AccessKey= SharedKey=", r"(?:Account|SharedAccess|Shared)Key=(?P<secret>[A-Za-z0-9+/]{40,}={0,2})"),
    _detector("azure-sas", "sig=", r"[?&]sig=(?P<secret>[A-Za-z0-9%+/=_-]{20,})"),
    _detector("signed-url", "-Signature=", r"X-(?:Amz|Goog)-Signature=(?P<secret>[0-9A-Fa-f]{32,})"),
    _detector("json-web-token", "eyJ", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    _detector("password-in-address", "://", r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@\"'<>]*:(?P<secret>[^\s/@\"'<>]{3,})@", lambda t: not _REFERENCE.match(t)),
    _detector("authorization-header", "authorization bearer", r"(?i:authorization[\"']?\s*[:=]\s*[\"']?(?:basic|bearer|token)\s+|\bbearer\s+)(?P<secret>[A-Za-z0-9+/=_.~-]{12,})", lambda t: not _REFERENCE.match(t)),
    _detector("npm-auth", "_auth", r"_auth(?:Token)?\s*=\s*(?P<secret>[^\s$\"']{8,})"),
    _detector("netrc-password", "machine", r"\bmachine\s+\S+\s+login\s+\S+\s+password\s+(?P<secret>\S+)"),
    _detector("password-hash", "$2 $5$ $6$ $y$ $apr1$ $argon2", r"\$(?:2[aby]\$\d\d\$[./A-Za-z0-9]{53}|(?:5|6|y|apr1)\$[./A-Za-z0-9=,$]{20,}|argon2i?d?\$[A-Za-z0-9+/=,$]{30,})"),
    _detector("docker-auth", '"auth"', r"\"auth\"\s*:\s*\"(?P<secret>[A-Za-z0-9+/]{8,}={0,2})\""),
    _detector("command-line-password", "--p --token --secret --api sshpass", r"(?:--pass(?:word|wd)?|--token|--secret|--api-key|\bsshpass -p)(?:=|\s+)[\"']?(?P<secret>[^\s\"']{4,})", _is_quoted_value),
    _detector("assigned-secret", _WORDS, rf"{_KEY}(?:\s*:\s*[A-Za-z][\w\[\], |.?]{{0,40}}?)?\s*(?::=|=>|[:=])\s*[rbuf@$]?(?:[\"'](?P<secret>[^\"'\n]{{4,200}})[\"'])", _is_quoted_value),
    _detector("assigned-secret", _WORDS, rf"{_KEY}[ \t]*[:=][ \t]*(?P<secret>[^\s\"',;{{}}\[\]()]{{6,200}}+)(?!\()", _is_value),
    _detector("assigned-secret", _WORDS, rf"(?m:^[ \t]*(?:export |ENV |ARG |set )?[A-Z0-9_]*{_UPPER}[A-Z0-9_]*(?:=| )(?P<secret>[^\s\"'$]{{4,200}})[ \t]*$)", _is_quoted_value),
    _detector("assigned-secret", _WORDS, r"(?m:^[ \t-]*[\w.-]*(?i:password|passwd|passphrase|pwd):[ \t]+(?P<secret>[a-z][\w-]{3,})[ \t]*$)", _is_quoted_value),
    _detector("connection-string", "password pwd", r"(?i:;\s*(?:password|pwd)\s*=\s*)(?P<secret>[^;\"'\s]{3,})", _is_quoted_value),
    _detector("xml-secret", "</", rf"(?i:<(?P<tag>[\w.:-]*{_NAME}[\w-]*)>)(?P<secret>[^<\n]{{4,200}})</(?P=tag)>", _is_quoted_value),
    _detector("keyed-entry", "value", rf"(?i:(?:key|name)\s*[=:]\s*[\"']?[\w.:-]*{_NAME}[\w-]*[\"']?,?\s+(?:-\s+)?value\s*[=:]\s*[\"']?)(?P<secret>[^\s\"'<>{{}}]{{4,200}})", _is_quoted_value),
)  # fmt: skip
"""In this order: the precise ones first, so that what they took is not taken apart by the general ones."""

_KUBERNETES_SECRET = re.compile(r"^kind:\s*[\"']?Secret[\"']?\s*$", re.MULTILINE)
_DATA_BLOCK = re.compile(
    r"^(?P<indent>[ ]*)(?:data|stringData):[ ]*\n(?P<body>(?:(?P=indent)[ ]+.*\n?|[ ]*\n)+)", re.MULTILINE
)
_DATA_VALUE = re.compile(r"^([ ]+[\w./-]+:)[ ]*(?:[|>][-+]?[ ]*\n(?:[ ]{4,}.*\n?)+|(?P<value>\S.*)$)", re.MULTILINE)
MARK = "<redacted:{}>"
_MARKED = "<redacted:"


def redact(text: str, found: Counter[str] | None = None) -> str:
    """The text with every secret replaced by `<redacted:kind>`. `found` counts them by kind."""
    found = Counter() if found is None else found
    lowered = text.lower()
    for detector in DETECTORS:
        for hint in detector.hints:
            if hint in lowered:
                text = _replace(detector, text, found)
                break
    return "\n---".join(_kubernetes(part, found) for part in text.split("\n---")) if "kind:" in text else text


def _replace(detector: Detector, text: str, found: Counter[str]) -> str:
    part: str | int = "secret" if "secret" in detector.pattern.groupindex else 0

    def mark(match: re.Match[str]) -> str:
        value = match[part]
        if _MARKED in value or (detector.believed and not detector.believed(value)):
            return match[0]
        found[detector.kind] += 1
        begin, end = match.start(part) - match.start(), match.end(part) - match.start()
        return match[0][:begin] + MARK.format(detector.kind) + match[0][end:]

    return detector.pattern.sub(mark, text)


def _kubernetes(document: str, found: Counter[str]) -> str:
    """All values of a Secret manifest, which are base64 and look like nothing."""
    if not _KUBERNETES_SECRET.search(document):
        return document

    def value(match: re.Match[str]) -> str:
        if match["value"] is not None and _MARKED in match["value"]:
            return match[0]
        found["kubernetes-secret"] += 1
        return f"{match[1]} {MARK.format('kubernetes-secret')}" + ("\n" if match[0].endswith("\n") else "")

    return _DATA_BLOCK.sub(lambda block: _DATA_VALUE.sub(value, block[0]), document)


SECRET_FILES = (
    "**/.env", "**/.env.*", "**/*.env", "**/*.pem", "**/*.key", "**/*.p12", "**/*.pfx", "**/*.jks", "**/*.keystore",
    "**/*.kdbx", "**/id_rsa*", "**/id_dsa*", "**/id_ecdsa*", "**/id_ed25519*", "**/.netrc", "**/.npmrc", "**/.pypirc",
    "**/.pgpass", "**/.htpasswd", "**/.git-credentials", "**/.dockercfg", "**/.docker/config.json", "**/kubeconfig*",
    "**/*.kubeconfig", "**/.kube/**", "**/.aws/**", "**/.ssh/**", "**/.gnupg/**", "**/*.tfstate", "**/*.tfstate.backup",
    "**/*.tfvars", "**/credentials.json", "**/service-account*.json", "**/.vault-token", "**/secrets.y*ml",
)  # fmt: skip
"""Files that hold credentials by their name; never taken, whatever they contain."""
