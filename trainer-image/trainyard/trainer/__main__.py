"""`python -m trainyard.trainer STEP`: one step of a run, from the environment to an exit code.

The order in here matters. Signals come first, so that a pod that is told to go while it still imports leaves with the
right exit code. The thread count comes before numpy and torch, which read it when they are loaded. Then the step runs,
and whatever happens in it becomes a final record.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from trainyard.api.addresses import told
from trainyard.api.exitcodes import ExitCode
from trainyard.api.steps import STEP_EXPORT, STEP_PROMOTE, STEP_ROLLBACK, STEP_TRAIN, STEPS, step_arguments, train_step
from trainyard.trainer.context import attempt_number, read_context, termination_log
from trainyard.trainer.data.hand_over import FORMATS, hand_over
from trainyard.trainer.errors import UserError, describe
from trainyard.trainer.log import be_silent, cut_addresses, say
from trainyard.trainer.machine import threads
from trainyard.trainer.machine.launch import launch, processes_here
from trainyard.trainer.machine.team import lost_peer, ranks, team_of
from trainyard.trainer.phases import in_phase
from trainyard.trainer.progress import Sender
from trainyard.trainer.reporter import Reporter, write_final_record
from trainyard.trainer.signals import STOP
from trainyard.trainer.steps import run_step

if TYPE_CHECKING:
    from trainyard.trainer.tracking.follow import Tracking
    from trainyard.trainer.tracking.lab import LabFollower

TOOLS = {
    "serve": "answer requests with a trained Tiny Recursive Model",
    "program": "write one step of a trained Tiny Recursive Model as a torch.export program",
    "hand-over": "send the lines of the run's dataset to the operator, for whoever has asked it for them",
}
"""What is done with a result. No step of a run: it needs no run file, and stops when it is told to."""


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if any(word.partition("=")[0] in ("--config", "--execution-id") for word in words):
        from trainyard.trainer.job import run_job

        return run_job(words)
    parser = argparse.ArgumentParser(
        prog="python -m trainyard.trainer",
        description="One step of a TrainingRun. The run is read from $TRAINYARD_RUN_FILE, folders from $TRAINYARD_*_DIR.",
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for base, row in STEPS.items():
        one = steps.add_parser(base, help=row.help)
        if base == STEP_TRAIN:
            one.add_argument("--phase", help="which of spec.phases, where the run has phases")
        if base == STEP_EXPORT:
            one.add_argument("--name", required=True, help="which of spec.exports")
        if base == STEP_ROLLBACK:
            one.add_argument("--name", default="1", help="which of the requests for it")
    add_tools(steps)
    given = parser.parse_args(arguments)
    if given.step in TOOLS:
        return run_tool(given)
    phase: str | None = getattr(given, "phase", None)
    name: str = getattr(given, "name", "")
    step: str = train_step(phase) if phase else f"{given.step}-{name}" if name else given.step

    reporter = Reporter(step, attempt_number())
    tracking: Tracking | None = None
    lab: LabFollower | None = None
    if given.step == STEP_TRAIN:
        if (processes := processes_here()) > 1:
            command = [sys.executable, "-m", "trainyard.trainer", *step_arguments(step)]
            return launch(command, processes, termination_log=termination_log())
        if processes == 1:
            os.environ |= ranks(os.environ, 0)
    STOP.install(lambda: leave(reporter))
    cut_addresses()
    team = team_of()
    if not team.leads:
        be_silent()
    threads.apply(max(1, threads.available() // team.local_size))
    try:
        whole = read_context(step)
        context = in_phase(whole, phase)
        context.work_dir.mkdir(parents=True, exist_ok=True)
        if team.leads:
            reporter.send_through(Sender.of(context))
            if (lab := follower_of_lab()) is not None:
                lab.follow(reporter)
        # What follows the training goes on without: its pods have no Secret of the tracker.
        if (
            team.leads
            and whole.run.spec.tracking is not None
            and given.step not in (STEP_EXPORT, STEP_PROMOTE, STEP_ROLLBACK)
        ):
            from trainyard.trainer.tracking.follow import follow

            tracking = follow(context, reporter, is_last_step=whole.run.spec.steps()[-1] == step)
        run_step(given.step, context, reporter, name=name)
        if lab is not None:
            lab.close()
        if tracking is not None:
            tracking.close(succeeded=True)
    except BaseException as error:
        return fail(lost_peer(error) or describe(error), error, reporter, tracking)
    write_final_record(termination_log(), reporter.final_record("Succeeded"))
    reporter.close()
    return ExitCode.OK


def follower_of_lab() -> LabFollower | None:
    """Where the environment names a lab of the user's own."""
    if not os.environ.get("METRICS_API_URL"):
        return None
    from trainyard.trainer.tracking.lab import LabFollower

    return LabFollower.of()


def add_tools(parsers: Any) -> None:
    """Arguments of `TOOLS`."""
    serve, program, handing = (parsers.add_parser(name, help=text) for name, text in TOOLS.items())
    handing.add_argument("--format", required=True, choices=FORMATS)
    for tool in (serve, program):
        tool.add_argument("--model", required=True, help="the model/ folder of a run")
    serve.add_argument("--name", default="trm-homelab", help="name that requests call the model by")
    serve.add_argument("--host", default="0.0.0.0")
    serve.add_argument("--port", type=int, default=11434)
    program.add_argument("--output", required=True, help="file to write, for example step.pt2")


def run_tool(given: argparse.Namespace) -> int:
    """Run one of `TOOLS` until it ends."""
    if given.step == "hand-over":
        return hand_over(given.format)
    threads.apply(threads.available())
    try:
        if given.step == "serve":
            from trainyard.trainer.trm.serve import serve

            serve(given.model, name=given.name, host=given.host, port=given.port)
        else:
            from trainyard.trainer.trm.inference import TRMModel
            from trainyard.trainer.trm.program import export_step

            export_step(TRMModel.load_from_checkpoint(given.model, device="cpu"), Path(given.output))
            say(f"one supervision step: {given.output}")
    except (ValueError, OSError) as error:
        say(f"{given.step}: {error}")
        return ExitCode.INVALID_CONFIG
    return ExitCode.OK


def fail(fault: UserError, error: BaseException, reporter: Reporter, tracking: Tracking | None) -> int:
    """Say what went wrong, to people and to the operator."""
    if not isinstance(error, UserError):
        sys.stderr.write(told("".join(traceback.format_exception(error))))
    say(f"{reporter.step} failed: {fault.message}", always=True)
    if fault.hint:
        say(f"what to do: {fault.hint}", always=True)
    write_final_record(termination_log(), reporter.final_record("Resume" if fault.again else "Failed", fault))
    if tracking is not None and not fault.again:
        tracking.close(succeeded=False)
    reporter.close(timeout=1.0)
    return fault.exit_code


def leave(reporter: Reporter) -> NoReturn:
    """Answer a stop signal: the process ends here and now, everything worth keeping is committed already."""
    print(f"{reporter.step}: told to stop; everything finished so far is kept, run me again", flush=True)
    write_final_record(termination_log(), reporter.final_record("Resume"))
    # The checkpoint that was just made: of a pod that is deleted nobody may get to read the final record.
    reporter.close(timeout=2.0)
    os._exit(ExitCode.RESUME)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    code = main()
    sys.stdout.flush()
    # Not sys.exit: tearing down torch's threads can hang or crash, and nothing after this point is of use to anyone.
    os._exit(code)
