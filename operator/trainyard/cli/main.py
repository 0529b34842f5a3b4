"""Entry point: from words to a verb, and what becomes of one that refuses."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from trainyard.cli.catalogue import OTHER_NAMES, VERBS, Parser, module_of, wrapped_plainly
from trainyard.cli.exits import Exit, Refused, code_of
from trainyard.client.errors import ClientError

ASKED_BY_THE_SHELL = "__complete"


def call(words: Sequence[str], *, name: str = "trainyard") -> int:
    """Do what the words say; how the program has to end. `name` is what it calls itself."""
    verb, rest = _verb_first(words)
    if verb == ASKED_BY_THE_SHELL:
        from trainyard.cli.completing import answer

        print(answer(rest))
        return Exit.DONE
    if verb in ("", "-h", "--help", "help"):
        print(overview(name))
        return Exit.DONE if words else Exit.MISUSED
    verb = OTHER_NAMES.get(verb, verb)
    if verb not in VERBS:
        return _unknown(verb, name)
    try:
        module = module_of(verb)
        parser = Parser(f"{name} {verb}", module)
        words, command = _cut(rest)
        options = parser.parse_args(words)
        if command and not getattr(options, "takes_command", False):
            parser.error(f"nothing may stand after --: {' '.join(command)}")
        options.called_as, options.command = name, command
        return int(module.call(options) or Exit.DONE)
    except Refused as refused:
        return _tell(str(refused), refused.code, name)
    except ClientError as error:
        return _tell(str(error), code_of(error), name)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _cut(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before `--`, and those after it."""
    place = words.index("--") if "--" in words else len(words)
    return list(words[:place]), list(words[place + 1 :])


def overview(name: str) -> str:
    """The help of the whole program."""
    lines = [
        f"Usage: {name} VERB [...]",
        "",
        "Train models on Kubernetes: start runs, follow them, fetch their results.",
    ]
    group = ""
    for word, verb in VERBS.items():
        if verb.group != group:
            lines += ["", verb.group]
            group = verb.group
        first, *more = wrapped_plainly(verb.sentence, 64)
        lines += [f"  {word:<13}{first}", *(f"{'':<15}{line}" for line in more)]
    other = ", ".join(f"{short} = {long}" for short, long in OTHER_NAMES.items())
    ends = "Exit codes: 0 done, 1 failed, 2 wrong use, 3 not found, 4 no right, 5 cluster away, 124 time-out, 130 interrupted."
    return "\n".join([*lines, "", f"Also: {other}.", *wrapped_plainly(ends, 78), f"Each verb: {name} VERB --help"])


def _verb_first(words: Sequence[str]) -> tuple[str, list[str]]:
    """The verb and what belongs to it: `-n lab list` means the same as `list -n lab`."""
    for place, word in enumerate(words):
        if word in VERBS or word in OTHER_NAMES or word == ASKED_BY_THE_SHELL:
            return word, [*words[:place], *words[place + 1 :]]
        if not words[0].startswith("-") or word in ("-h", "--help"):
            break
    return (words[0] if words else ""), list(words[1:])


def _unknown(word: str, name: str) -> int:
    import difflib

    close = difflib.get_close_matches(word, [*VERBS, *OTHER_NAMES], n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"{name} --help lists the verbs"
    return _tell(f"there is no verb {word!r}; {hint}", Exit.MISUSED, name)


def _tell(message: str, code: Exit, name: str) -> int:
    sys.stdout.flush()
    print(f"{name}: {message} (exit code {int(code)})", file=sys.stderr)
    return code


def main() -> NoReturn:
    """Run the program under the name it was called by."""
    called_as = Path(sys.argv[0]).name
    name = called_as.replace("kubectl-", "kubectl ").replace("_", "-")
    try:
        code = call(sys.argv[1:], name=name if name.endswith("trainyard") else "trainyard")
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.FAILED
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    sys.exit(code)


def complete() -> NoReturn:
    """`kubectl_complete-trainyard`: kubectl calls it with the words so far, and prints what it prints."""
    from trainyard.cli.completing import answer

    print(answer(sys.argv[1:]))
    sys.exit(0)


if __name__ == "__main__":
    main()
