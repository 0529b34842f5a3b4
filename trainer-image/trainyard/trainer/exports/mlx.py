"""The result for MLX, in the run's folder, asked the run's own prompts before it is there.

mlx-lm converts on a CPU as well as on Apple's chips. It compiles parts of a model with a C++ compiler when it is run on a CPU,
which an image has not, so that is switched off.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainyard.api.run.exports import Export
from trainyard.api.run.targets.mlx import Mlx
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import first_line, invalid_config
from trainyard.trainer.exports.exported import Exported, digest_of, files_dir
from trainyard.trainer.exports.handover.answer import Answer
from trainyard.trainer.exports.handover.checked import reference_of
from trainyard.trainer.exports.handover.compare import Agreement, Bar, compare
from trainyard.trainer.exports.handover.reference import Reference, prompt_of
from trainyard.trainer.exports.whole import check_whole
from trainyard.trainer.log import say
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import commit_folder, read_made_from
from trainyard.trainer.volume.result import find_result


def check(context: RunContext, export: Export, target: Mlx) -> None:
    """Whether the model can become one.

    Raises:
        UserError: it cannot.
    """
    check_whole(context, field=export.field)


def send(
    context: RunContext, export: Export, target: Mlx, inputs: Mapping[str, Exported], reporter: Reporter
) -> Exported:
    """Make the folder.

    Raises:
        UserError: mlx-lm does not know the model, or it does not answer as the trained one does.
    """
    result, folder = find_result(context), files_dir(context, export.name)
    assert result is not None, "the frame has asked for it"
    key = f"{digest_of(result)} {target.bits} {target.group_size} {version('mlx-lm')}"

    def write(place: Path) -> Mapping[str, Any]:
        convert(context.model_dir, place, target, field=export.field)
        reference = reference_of(context)
        agreement = check_folder(place, reference, field=export.field, exact=target.bits is None)
        return {"facts": agreement.facts()}

    made = read_made_from(folder, key) or commit_folder(folder, write, key=key)
    return Exported(
        uri=made.path.relative_to(context.volume).as_posix(),
        digest=digest_of(made),
        files=tuple(made.manifest["files"]),
        facts={str(name): str(fact) for name, fact in made.manifest["facts"].items()},
    )


def convert(model: Path, place: Path, target: Mlx, *, field: str) -> None:
    """Write the converted model into an existing folder."""
    from mlx_lm.convert import convert as convert_with_mlx

    made, given = place / "mlx", place / "given"  # it wants a folder that is not there yet
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            convert_with_mlx(
                str(_readable(model, given)),
                mlx_path=str(made),
                quantize=target.bits is not None,
                q_bits=target.bits,
                q_group_size=target.group_size,
            )
    except (ValueError, KeyError, NotImplementedError) as error:
        raise invalid_config(
            f"{field}: mlx-lm refuses the model: {first_line(error)}",
            hint="hand out the model as safetensors (s3, hub, mlflow), or take another groupSize if rows do not fit it",
        ) from error
    for file in made.iterdir():
        file.rename(place / file.name)
    made.rmdir()
    shutil.rmtree(given)


def _readable(model: Path, given: Path) -> Path:
    """The model's files with a config.json as mlx-lm reads it: it looks for rope_theta and rope_scaling, where transformers 5
    writes rope_parameters, and where there is none it takes 10000 without a word."""
    given.mkdir()
    for file in model.iterdir():
        if file.name != "config.json":
            (given / file.name).symlink_to(file.absolute())
    config = json.loads((model / "config.json").read_text())
    (given / "config.json").write_text(json.dumps(with_rope(config), indent=2))
    return given


def with_rope(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the positions' values under their older names as well; those that are there stay."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        return config  # none, or a set for each kind of layer, which models that have it read by themselves
    older = {"rope_theta": rope["rope_theta"]}
    if rope.get("rope_type", "default") != "default":
        older["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    return {**older, **config}


def check_folder(folder: Path, reference: Reference, *, field: str, exact: bool) -> Agreement:
    """A converted folder against the model.

    Raises:
        UserError: it is not the same model.
    """
    bar = Bar(f"{field}: {folder.name.removeprefix('.tmp-')}", exact)
    agreement = compare(reference, ask(folder, reference, whole=exact), bar=bar)
    say(
        f"{bar.name}: {agreement.equal} of {agreement.tokens} tokens as the trained model, {agreement.ties} decided by rounding"
    )
    return agreement


def ask(folder: Path, reference: Reference, *, whole: bool) -> Sequence[Answer]:
    """All questions of the reference; a model that is not quantized computes in f32, as the reference did."""
    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_lm.generate import generate_step

    network, tokenizer = load(folder)
    if whole:
        network.update(
            tree_map(lambda v: v.astype(mx.float32) if mx.issubdtype(v.dtype, mx.floating) else v, network.parameters())
        )
    ends = set(tokenizer.eos_token_ids)
    own = getattr(tokenizer, "_tokenizer", tokenizer)
    found = []
    for question in reference.questions:
        prompt, given = prompt_of(own, question)
        ids: list[int] = []
        ended = False
        for token, _ in generate_step(mx.array(given), network, max_tokens=reference.new_tokens):
            if ended := int(token) in ends:
                break
            ids.append(int(token))
        found.append(Answer(prompt, tuple(ids), own.decode(ids), ended, prompt_ids=tuple(given)))
    return found


def load(folder: Path) -> Any:
    """Network and tokenizer of a converted folder."""
    import mlx.core as mx
    from mlx_lm import load as load_with_mlx

    mx.disable_compile()
    return load_with_mlx(str(folder))[:2]
