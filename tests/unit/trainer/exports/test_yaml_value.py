"""One value of a YAML file is replaced, and nothing else: by examples, and by any file that hypothesis thinks of."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainyard.trainer.exports.yaml_value import NotThere, parse_path, read, replace

DEPLOYMENT = """\
# served by vLLM
apiVersion: apps/v1
kind:   Deployment   # odd spaces stay
metadata:
  annotations: {example.org/model: "old"}
spec:
    template:
        spec:
            containers:
            - name: sidecar
              image: sidecar:1
            - name: vllm     # the one
              image: 'vllm:v1'   # bumped by training
              args: ["--model", s3://models/v1/]
---
data:
  version: v1
  number: 12
  empty:
"""


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        ("spec.template.spec.containers[name=vllm].image", "vllm:v2", "'vllm:v1'   #", "'vllm:v2'   #"),
        ("spec.template.spec.containers[1].args[1]", "s3://models/v2/", "s3://models/v1/", "s3://models/v2/"),
        ('metadata.annotations["example.org/model"]', 'a "b"', '"old"', '"a \\"b\\""'),
        ("data.version", "v2", "version: v1", "version: v2"),
        ("data.version", "20261128_1805", "version: v1", 'version: "20261128_1805"'),
        ("data.version", "1e3", "version: v1", 'version: "1e3"'),
        ("data.version", "0o17", "version: v1", 'version: "0o17"'),
        ("data.version", "on", "version: v1", 'version: "on"'),
        ("data.version", "a: b # c", "version: v1", 'version: "a: b # c"'),
        ("data.number", "13", "number: 12", "number: 13"),
        ("data.number", "v13", "number: 12", 'number: "v13"'),
        ("data.empty", "v1", "empty:\n", "empty: v1\n"),
        ("spec.template.spec.containers[name=vllm].image", "it's", "'vllm:v1'", "'it''s'"),
    ],
)
def test_only_the_value_changes(path: str, value: str, old: str, new: str) -> None:
    assert replace(DEPLOYMENT, path, value) == DEPLOYMENT.replace(old, new)
    assert read(replace(DEPLOYMENT, path, value), path) == value


def test_the_same_value_changes_nothing() -> None:
    assert replace(DEPLOYMENT, "data.version", "v1") is DEPLOYMENT


def test_json_is_yaml() -> None:
    assert replace('{"a": {"b": "x"}, "c": [1]}\n', "a.b", "y") == '{"a": {"b": "y"}, "c": [1]}\n'


@pytest.mark.parametrize(
    ("text", "path", "why"),
    [
        (DEPLOYMENT, "spec.replicas", "there is no replicas at line 7"),
        (DEPLOYMENT, "spec.template", "is a mapping, not a single value"),
        (DEPLOYMENT, "spec.template.spec.containers[7]", "there is no 7"),
        (DEPLOYMENT, "a..b", "is no path"),
        (DEPLOYMENT, ".a", "is no path"),
        ("a: 1\na: 2\n", "a", "there are several a"),
        ("a: 1\n---\na: 2\n", "a", "is in 2 documents"),
        ("a: |\n  x\n", "a", "over several lines"),
        ("a: &x v1\nb: *x\n", "a", "has an anchor or a tag"),
        ("a: &x v1\nb: *x\n", "b", "has an anchor or a tag"),
        ("a: !ours v1\n", "a", "has an anchor or a tag"),
        ("a: [1\n", "a", "the file is no YAML: line 2"),
        ("", "a", "the file is empty"),
    ],
)
def test_what_is_refused(text: str, path: str, why: str) -> None:
    with pytest.raises(NotThere, match=re.escape(why)):
        replace(text, path, "new")


def test_anchors_in_anchors_cost_nothing() -> None:
    laughs = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    assert replace(laughs + "c: &c [*c]\nb: 1\n", "b", "2") == laughs + "c: &c [*c]\nb: 2\n"


NAMES = st.text("abcdef", min_size=1, max_size=4)
SCALARS = st.one_of(st.text(max_size=12), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False))


@given(
    tree=st.dictionaries(NAMES, st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(NAMES, SCALARS))),
    old=st.text("abc/.:# '\"0129e_-", max_size=12),
    new=st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20),
    style=st.sampled_from((None, "'", '"')),
)
def test_any_text_comes_back_as_it_was_given_and_all_else_stays(
    tree: dict[str, object], old: str, new: str, style: str | None
) -> None:
    text = yaml.safe_dump({**tree, "zz": {"v": old}}, allow_unicode=True, default_style=style, width=1000)
    changed = replace(text, "zz.v", new)
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
    got = after["zz"].pop("v")
    before["zz"].pop("v")
    assert after == before
    assert str(got) == new if not isinstance(got, str) else got == new


def test_a_path_is_read() -> None:
    keys = [(step.key, step.index, step.by, step.value) for step in parse_path('a-b.c[0][n=x:y]["d.e"].f')]
    assert keys == [
        ("a-b", None, "", ""),
        ("c", None, "", ""),
        (None, 0, "", ""),
        (None, None, "n", "x:y"),
        ("d.e", None, "", ""),
        ("f", None, "", ""),
    ]
