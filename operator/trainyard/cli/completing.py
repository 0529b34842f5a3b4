"""What may follow the words so far, in the form that kubectl takes from its plugins: a candidate a line, then a directive.

The candidates of a verb come from its own parser, so an option is completed as soon as it exists. Names come from the
cluster, within a short time or not at all: a shell that hangs at the tab key is worse than one that does not know.
"""

import argparse
from collections.abc import Iterable, Sequence

from trainyard.cli.catalogue import OTHER_NAMES, VERBS, Parser, module_of
from trainyard.client.errors import ClientError

NO_FILES = 4
FILES = 0
"""cobra's directives: nothing but the candidates, or what the shell itself would complete."""
SECONDS = 2.0
"""How long the API server may take."""


def answer(words: Sequence[str]) -> str:
    """The candidates for the last of the words, which may be empty."""
    before, last = list(words[:-1]), words[-1] if words else ""
    candidates, directive = _candidates(before, last)
    lines = [c for c in candidates if c.startswith(last) or ("\t" in c and c.partition("\t")[0].startswith(last))]
    return "\n".join([*lines, f":{directive}"])


def _candidates(before: Sequence[str], last: str) -> tuple[Iterable[str], int]:
    verb = next((word for word in before if word in VERBS or word in OTHER_NAMES), None)
    if verb is None:
        return [f"{name}\t{row.sentence}" for name, row in VERBS.items()], NO_FILES
    parser = Parser("trainyard", module_of(OTHER_NAMES.get(verb, verb)))
    given = _options_given(parser, before)
    previous = before[-1] if before else ""
    actions = {word: action for action in parser._actions for word in action.option_strings}
    if (action := actions.get(previous)) is not None and action.nargs is None:
        return _values(action, given)
    if last.startswith("-"):
        shown = [word for word in actions if word.startswith("--") or last == "-"]
        return [f"{word}\t{actions[word].help or ''}" for word in shown if word not in before], NO_FILES
    places = [action for action in parser._actions if not action.option_strings]
    taken = _positionals(before, verb, actions)
    if taken < len(places):
        return _values(places[taken], given)
    return [], NO_FILES


def _positionals(before: Sequence[str], verb: str, actions: dict[str, argparse.Action]) -> int:
    """How many words stand there already that are no options, nor values of options."""
    count, skip = 0, False
    for word in before:
        if skip:
            skip = False
        elif word in actions:
            skip = actions[word].nargs is None
        elif word != verb and not word.startswith("-"):
            count += 1
    return count


def _options_given(parser: Parser, before: Sequence[str]) -> dict[str, str]:
    """Those that say which cluster and which namespace."""
    found = {}
    names = {"-n": "namespace", "--namespace": "namespace", "--context": "context", "--kubeconfig": "kubeconfig"}
    for word, following in zip(before, [*before[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option in names:
            found[names[option]] = value if equals else following
    return found


def _values(action: argparse.Action, given: dict[str, str]) -> tuple[Iterable[str], int]:
    if action.choices:
        return [str(choice) for choice in action.choices], NO_FILES
    kind = getattr(action, "complete", "") or {"namespace": "namespace", "context": "context"}.get(action.dest, "")
    if kind == "file" or action.dest in ("kubeconfig", "directory", "workdir", "secrets", "volume"):
        return [], FILES
    try:
        return _from_the_cluster(kind, given), NO_FILES
    except (ClientError, OSError):
        return [], NO_FILES


def _from_the_cluster(kind: str, given: dict[str, str]) -> list[str]:
    from trainyard.client import connect
    from trainyard.client.kubeconfig import contexts

    if kind == "context":
        return contexts(kubeconfig=given.get("kubeconfig", ""))
    if kind == "step":
        from trainyard.api.steps import STEPS

        return list(STEPS)
    if kind not in ("run", "schedule", "sweep", "namespace"):
        return []
    runs = connect(**given, timeout=SECONDS)
    path = {
        "run": runs.path(),
        "schedule": runs.path(plural="trainingschedules"),
        "sweep": runs.path(plural="trainingsweeps"),
        "namespace": "/api/v1/namespaces",
    }[kind]
    return sorted(runs.api.names(path))
