#!/usr/bin/env bash
# transformers' Trainer, resumed from the checkpoint of its last step: it trains one step more than it was asked for.
#
# A job that is killed between its last checkpoint and its end (while it uploads the result, say) is started again, finds that
# checkpoint and resumes from it. Nothing is left to do: max_steps is reached.
#
#   expected  no step; global_step stays 10 and the weights are those of the checkpoint
#   seen      transformers 5.23.0 takes one more step: global_step is 11, and the weights are others
#
# Needs python3, a package index and room for torch. Ends with 0 while this is so, with 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.15.0 transformers==5.23.0 accelerate==1.15.0

CUDA_VISIBLE_DEVICES="" "$work/venv/bin/python" - "$work/out" <<'PY'
import sys

import torch
from transformers import Trainer, TrainingArguments

STEPS = 10


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def forward(self, x, labels):
        said = self.line(x)[:, 0]
        return {"loss": ((said - labels) ** 2).mean(), "logits": said}


def trainer():
    torch.manual_seed(0)
    arguments = TrainingArguments(
        sys.argv[1], max_steps=STEPS, save_steps=STEPS, per_device_train_batch_size=2, learning_rate=0.1,
        lr_scheduler_type="constant", use_cpu=True, report_to=[], disable_tqdm=True,
    )
    data = [{"x": torch.tensor([float(i)]), "labels": 2.0 * i} for i in range(8)]
    return Trainer(model=Line(), args=arguments, train_dataset=data)


first = trainer()
first.train()
again = trainer()
again.train(resume_from_checkpoint=f"{sys.argv[1]}/checkpoint-{STEPS}")
same = all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters()))
print(f"asked for {STEPS} steps; after resuming from checkpoint-{STEPS}: global_step {again.state.global_step}, same weights: {same}")
sys.exit(0 if again.state.global_step == STEPS + 1 and not same else 1)
PY
