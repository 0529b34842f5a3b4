"""What the scheduler says, as versions of Kubernetes say it, and the way out that is told with it."""

import re

import pytest

from trainyard.api.run.pod import Placement
from trainyard.controller.runs.wordings import WORDINGS, Cause, causes, hint

SENTENCES = {
    Cause.TAINT: [
        "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 Insufficient cpu. no new claims to deallocate",
        "0/3 nodes are available: 3 node(s) had untolerated taint {dedicated: arcanine}. preemption: 0/3 nodes are available",
        "0/1 nodes are available: 1 node(s) had taint {dedicated: gpu}, that the pod didn't tolerate.",
        "0/1 nodes are available: 1 node(s) had taints that the pod didn't tolerate.",
    ],
    Cause.VOLUME_ELSEWHERE: [
        "0/5 nodes are available: 5 node(s) had volume node affinity conflict.",
        "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) had untolerated taint(s).",
        "0/3 nodes are available: 3 node(s) had no available volume zone.",
    ],
    Cause.CLAIM_UNBOUND: [
        "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found",
        "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.",
        "0/2 nodes are available: 2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).",
        '0/2 nodes are available: persistentvolumeclaim "data" not found.',
    ],
    Cause.NOT_SELECTED: [
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
        "0/2 nodes are available: 2 node(s) didn't match node selector.",
    ],
    Cause.FULL: ["0/2 nodes are available: 2 Insufficient nvidia.com/gpu."],
}
HERE = "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) had untolerated taint(s)."
BEFORE = "0/2 nodes are available: 1 node(s) had volume node affinity conflict, 1 node(s) had untolerated taint {a: b}."
TAINTED = SENTENCES[Cause.TAINT][1]


@pytest.mark.parametrize(("cause", "sentence"), [(cause, s) for cause, all_of in SENTENCES.items() for s in all_of])
def test_a_sentence_is_understood_whatever_version_says_it(cause: Cause, sentence: str) -> None:
    assert cause in causes(sentence)


def test_each_row_of_the_table_is_needed_by_one_of_the_sentences() -> None:
    sentences = [sentence for all_of in SENTENCES.values() for sentence in all_of]
    assert all(any(re.search(w.pattern, sentence) for sentence in sentences) for w in WORDINGS)
    assert set(SENTENCES) == set(Cause)


@pytest.mark.parametrize("said", [HERE, BEFORE])
def test_a_volume_on_another_node_than_the_named_one_is_told_with_both(said: str) -> None:
    told = hint(said, Placement(node_names=["forge"]), volumes=(("shared-claim", "arcanine"),))
    assert told == (
        "; the volume of claim shared-claim lies on arcanine, spec.placement.nodeNames asks for forge: name arcanine there, or "
        "use a StorageClass whose volumes can move"
    )
    assert "toleration" not in told
    unnamed = hint(said, Placement(), volumes=(("shared-claim", "arcanine"),))
    assert unnamed == "; the volume of claim shared-claim lies on arcanine: name arcanine in spec.placement.nodeNames"
    assert "not on forge, which spec.placement.nodeNames asks for" in hint(said, Placement(node_names=["forge"]))


def test_nothing_is_advised_that_was_done_already() -> None:
    named = hint(TAINTED, Placement(node_names=["arcanine"]))
    assert "name the node" not in named
    assert "if that is a taint of arcanine, add the toleration" in named
    assert "name the node in spec.placement.nodeNames, or add the toleration to" in hint(TAINTED, Placement())
    tolerating = Placement.model_validate({"tolerations": [{"key": "a", "operator": "Exists"}]})
    assert "add the toleration for that taint too" in hint(TAINTED, tolerating)
    assert hint(SENTENCES[Cause.FULL][0], Placement()) == ""
