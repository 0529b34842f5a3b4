"""Starts trainer steps from a process that has imported torch already.

Importing costs seconds, training the tests' models milliseconds; a test that kills a training ten times would wait for
imports only. So one process imports everything and then forks a child for every line of JSON on its standard input:
`{"step": "train", "environment": {...}, "output": "/a/pipe", "exit": "/a/file", "patch": "code"}`. It answers with the child's pid, and
writes the exit code (or minus the signal) into the `exit` file once the child is gone.

No parallel computation may happen in here before the fork: OpenMP's threads would be missing in the child.
"""

import json
import os
import sys
import threading
import traceback
from pathlib import Path


def main() -> None:
    from peft import LoraConfig  # noqa: F401
    from transformers import GPT2LMHeadModel, LlamaForCausalLM  # noqa: F401

    import trainyard.trainer.__main__ as trainer
    from trainyard.api.steps import step_arguments

    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                output = os.open(request["output"], os.O_WRONLY)
                os.dup2(output, 1)
                os.dup2(output, 2)
                os.environ.update(request["environment"])
                sys.stdout = os.fdopen(1, "w", buffering=1)
                sys.stderr = os.fdopen(2, "w", buffering=1)
                exec(request["patch"], {})  # what cannot be brought about from outside, such as a GPU out of memory
                code = trainer.main(step_arguments(request["step"]))
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        threading.Thread(target=wait_for, args=(pid, Path(request["exit"])), daemon=True).start()
        print(pid, flush=True)


def wait_for(pid: int, file: Path) -> None:
    _, status = os.waitpid(pid, 0)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(str(os.waitstatus_to_exitcode(status)))
    temporary.rename(file)


if __name__ == "__main__":
    main()
