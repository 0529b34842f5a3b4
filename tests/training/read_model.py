"""Load a model's folder as its readers do, and print what it answers: run by the interpreter of an environment with another
version of transformers.

    python read_model.py FOLDER LOGITS_FILE
"""

import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, file = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
text = tokenizer.apply_chat_template(
    [{"role": "user", "content": "Where do 12 trains stop?"}], tokenize=False, add_generation_prompt=True
)
ids = tokenizer(text).input_ids
with torch.no_grad():
    torch.save(model(torch.tensor([ids])).logits, file)
print(
    json.dumps(
        {
            "version": transformers.__version__,
            "ids": ids,
            "text": text,
            "special": tokenizer.all_special_tokens,
            "temperature": model.generation_config.temperature,
        }
    )
)
