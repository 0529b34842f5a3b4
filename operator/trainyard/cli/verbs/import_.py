"""`trainyard import`: a TrainingRun of another trainer's configuration. What is done is in `trainyard.cli.importing`."""

import argparse

from trainyard.cli.options import add_files

KINDS = ("axolotl", "homelab", "llamafactory", "tunix")


def arguments(parser: argparse.ArgumentParser) -> None:
    add_files(parser)
    parser.add_argument("--from", dest="kind", choices=KINDS, default="", help="Whose it is. Default: by its keys.")
    parser.add_argument("--name", default="", metavar="NAME", help="Of the run. Default: the file's name.")
    parser.add_argument(
        "--claim",
        default="training-data",
        metavar="NAME",
        help="Claim that stands for that machine's files. Default: training-data.",
    )


def call(options: argparse.Namespace) -> int:
    """Make a TrainingRun of another trainer's configuration.

    Known are tunix-rt (sft_tiny.yaml), Axolotl, LLaMA-Factory, and a ConfigMap with settings (EPOCHS, LR, ...). The run goes to
    standard output; above it, as comments, stands all that could not be carried over. Exit code 1: it was printed and is not
    valid yet; the faults say what to give.
    """
    # Checking the result takes pydantic, and neither --help nor the shell's completion should wait for that.
    from trainyard.cli.importing.printed import print_run

    return print_run(options)
