#!/bin/sh
# The commands of a training's own manage.sh, for the run of this folder:
#   ./manage.sh start [--debug] [--phase NAME] | status | logs | stop | resume [/checkpoints/step-10000] | shell
# RUN names another run, FILE another manifest; what else follows goes to trainyard as it is (-n NAMESPACE).
set -eu
RUN=${RUN:-committee}
FILE=${FILE:-$(dirname "$0")/trainingrun.yaml}
verb=${1:-}
[ $# -eq 0 ] || shift
case "$verb" in
    start) exec trainyard run -f "$FILE" --name "$RUN" "$@" ;;
    status | stop | shell) exec trainyard "$verb" "$RUN" "$@" ;;
    logs) exec trainyard logs -f "$RUN" "$@" ;;
    resume)
        case "${1:-}" in
            "" | -*) exec trainyard resume "$RUN" "$@" ;;
        esac
        path=$1
        shift
        exec trainyard resume "$RUN" --from "$path" "$@"
        ;;
    *)
        sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
        exit 64
        ;;
esac
