"""`trainyard completion`: a few lines for a shell, which ask the program itself at each tab."""

import argparse
from collections.abc import Mapping

BASH = r"""# source <(trainyard completion bash)
_trainyard() {
    local IFS=$'\n' out line directive words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    out=$("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null) || return
    directive=${out##*:}
    COMPREPLY=()
    for line in ${out%:*}; do COMPREPLY+=("${line%%$'\t'*}"); done
    if [ "$directive" = 0 ]; then compopt -o default 2>/dev/null; fi
}
complete -F _trainyard trainyard
"""
ZSH = r"""#compdef trainyard
# source <(trainyard completion zsh)
_trainyard() {
    local -a lines candidates
    local line directive
    lines=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    directive=${lines[-1]#:}
    for line in "${(@)lines[1,-2]}"; do
        candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    if [ "$directive" = 0 ]; then _files; else _describe trainyard candidates; fi
}
if [ "$funcstack[1]" = _trainyard ]; then _trainyard "$@"; else compdef _trainyard trainyard; fi
"""
FISH = r"""# trainyard completion fish | source
function __trainyard_complete
    set -l words (commandline -opc)[2..-1] (commandline -ct)
    set -l lines (trainyard __complete $words 2>/dev/null)
    if test "$lines[-1]" = ":0"
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $lines[1..-2]
    end
end
complete -c trainyard -f -a '(__trainyard_complete)'
"""
SCRIPTS: Mapping[str, str] = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=sorted(SCRIPTS), help="Which shell's.")


def call(options: argparse.Namespace) -> None:
    """Print the completion script of a shell.

    bash: source <(trainyard completion bash)

    zsh: source <(trainyard completion zsh)

    fish: trainyard completion fish | source

    kubectl completes kubectl trainyard by itself, through kubectl_complete-trainyard on the PATH.
    """
    print(SCRIPTS[options.shell], end="")
