#!/usr/bin/env bash
# A model folder that transformers 5 has saved, read by mlx-lm: the rope base is another one, without a word.
#
# transformers 5.23.0 writes `rope_parameters: {rope_theta: ...}` into config.json and no `rope_theta` beside it. mlx-lm 0.32.2
# takes `rope_theta` from the top level alone, and has a default.
#
#   expected  mlx-lm uses the base that the file has (500000), or refuses a file that it does not understand
#   seen      mlx-lm uses 10000: the weights load, and every position is turned by the wrong angle
#
# Needs python3 and a package index; no model is downloaded. Ends with 0 while this is so, with 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/saves"
python3 -m venv "$work/reads"
"$work/saves/bin/pip" install --quiet transformers==5.23.0
"$work/reads/bin/pip" install --quiet "mlx-lm[cpu]==0.32.2"

"$work/saves/bin/python" - "$work/model" <<'PY'
import sys
from transformers import LlamaConfig

LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": 500000.0}).save_pretrained(sys.argv[1])
PY

"$work/reads/bin/python" - "$work/model/config.json" <<'PY'
import json
import sys
from mlx_lm.models.llama import ModelArgs

config = json.load(open(sys.argv[1]))
written = config["rope_parameters"]["rope_theta"]
read = ModelArgs.from_dict(config).rope_theta
print(f"transformers 5.23.0 has written {written}, beside it rope_theta is {config.get('rope_theta')}; mlx-lm 0.32.2 reads {read}")
sys.exit(0 if (written, read) == (500000.0, 10000) else 1)
PY
