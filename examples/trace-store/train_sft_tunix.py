"""The command line of tunix-rt's training script, for its configs: a run is made of the config and done on this machine.

    cd training; python train_sft_tunix.py --config configs/sft_tiny.yaml [--dry-run]

Paths in the config are taken from the folder above, as there; --root names another one. Needs trainyard on the PATH.
"""

import argparse
import subprocess
import sys
import tempfile

CLAIM = "training-data"


def main() -> int:
    parser = argparse.ArgumentParser(description="Train with a config of tunix-rt.")
    parser.add_argument("--config", required=True)
    parser.add_argument("--dry-run", action="store_true", help="check config and data, and stop")
    parser.add_argument("--root", default="..", help="the folder that paths in the config begin in")
    given = parser.parse_args()
    made = subprocess.run(
        ["trainyard", "import", "-f", given.config, "--claim", CLAIM], stdout=subprocess.PIPE, text=True
    )
    if made.returncode:
        return made.returncode
    with tempfile.NamedTemporaryFile("w", prefix="run-", suffix=".yaml") as run:
        run.write(made.stdout)
        run.flush()
        words = ["trainyard", "run", "-f", run.name, "--local", "--volume", f"{CLAIM}={given.root}"]
        return subprocess.run([*words, *(["--dry-run"] if given.dry_run else [])]).returncode


if __name__ == "__main__":
    sys.exit(main())
