"""Records that a model cannot use, splits in which nothing is left, and chat data as it is in the wild: the prepare step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.trainer.data.chat_templates import BARE, CHATML, INST, Structure
from tests.unit.trainer.data.chats import TOOL, World, called, chat, messages, refused
from tests.unit.trainer.run_contexts import prepared
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.data.prepare import prepare
from trainyard.trainer.errors import UserError


class TestCallsOfTools:
    @pytest.mark.parametrize(
        ("way", "shown"),
        [
            ("items", "<city>it's c1</city>"),
            ("tojson", '{"city": "it\'s c1"}'),
            ("text", 'json {"city": "it\'s c1"}'),
            ("bare", '{"city": "it\'s c1"}'),
        ],
    )
    @pytest.mark.parametrize("arguments", ['{"city": "it\'s c1"}', {"city": "it's c1"}], ids=["text", "object"])
    def test_arguments_reach_every_template_in_its_own_form(
        self, world: World, way: str, shown: str, arguments: Any
    ) -> None:
        template = Structure(arguments=way).template()
        (text,), _ = world.prepared(messages(called(arguments)), template=template)
        assert f"⟦<call>weather {shown}</call><|im_end|>" in text

    def test_null_that_arrow_adds_is_left_out_at_any_depth(self, world: World) -> None:
        import pyarrow
        import pyarrow.parquet

        def tool(name: str) -> dict[str, Any]:
            return {
                "type": "function",
                "function": {"name": f"by_{name}", "parameters": {"properties": {name: {"type": "string"}}}},
            }

        record = {**called({"city": "c1"}), "tools": [tool("city"), tool("ticker")]}
        other = {**called({"ticker": "t1"}), "tools": [tool("city"), tool("ticker")]}
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record, other]), world.claim / "a.parquet")
        padded = pyarrow.parquet.read_table(world.claim / "a.parquet").to_pylist()
        assert padded[0]["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "c1", "ticker": None}
        (world.claim / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in padded))
        template = "{% for t in tools %}{{ t | tojson }}{% endfor %}" + CHATML.template()
        for name in ("a.parquet", "a.jsonl"):
            texts, _ = world.prepared(
                {"name": "d", "format": "Messages", "storageUri": f"pvc://m/{name}"}, template=template
            )
            assert "null" not in "".join(texts)
            assert '⟦<call>weather {"city": "c1"}</call>' in texts[0]
            assert '"properties": {"ticker": {"type": "string"}}' in texts[0]

    def test_null_that_says_something_stays(self, world: World) -> None:
        record = {**called('{"city": null}'), "tools": [TOOL]}
        template = "{% for t in tools %}{{ t | tojson }}{% endfor %}" + CHATML.template()
        (text,), _ = world.prepared(messages(record), template=template)
        assert '"enum": ["a", null]' in text
        assert 'weather {"city": null}' in text

    def test_tools_reach_the_template_with_every_format(self, world: World) -> None:
        template = "TOOLS{{ tools | length if tools else 0 }} " + CHATML.template()
        question, answer = [{"role": "user", "content": "rain?"}], [{"role": "assistant", "content": "yes"}]
        other = [{"role": "assistant", "content": "no"}]
        pair = {"prompt": question, "completion": answer, "tools": [TOOL]}
        preference = {"prompt": question, "chosen": answer, "rejected": other, "tools": [TOOL]}
        whole = {"messages": question + answer, "tools": json.dumps([TOOL])}

        def one(record: dict[str, Any], record_format: str, **more: Any) -> dict[str, Any]:
            return {"name": "d", "format": record_format, "inline": {"records": [record]}, **more}

        cases = [
            (one(pair, "PromptCompletion"), {}),
            (one(preference, "Preference"), {"method": "DPO"}),
            (one(whole, "Messages"), {}),
            (one(whole, "Messages", convertTo="PromptCompletion"), {}),
            (one(pair, "PromptCompletion", convertTo="Messages"), {}),
            (one(preference, "Preference", convertTo="PromptCompletion"), {}),
            (one(preference, "Preference", convertTo="Messages"), {}),
            (one({"prompt": question, "tools": [TOOL]}, "Prompt"), {"method": "PPO", "rewards": [{"jsonValid": {}}]}),
            (one(whole, "Messages", convertTo="Prompt"), {"method": "PPO", "rewards": [{"jsonValid": {}}]}),
        ]
        for dataset, more in cases:
            texts, _ = world.prepared(dataset, template=template, **more)
            assert all(text.startswith("TOOLS1 ") for text in texts), (dataset, texts)


class TestTemplates:
    def test_one_that_opens_a_thinking_block_for_the_model(self, world: World) -> None:
        template = Structure(opens="<think>\n").template()
        records = [chat("what is up?", f"all is well with {n}") for n in range(6)]
        texts, manifest = world.prepared(messages(*records), template=template, maxLength=128)
        assert len(texts) == 6
        assert "assistant\n⟦all is well with 0<|im_end|>" in texts[0]
        assert manifest["splits"]["train"]["dropped"] == 0

    def test_one_that_wants_a_user_somewhere_gets_the_whole_conversation(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        template = Structure(refuses=("nobody",)).template()
        record = {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "assistant", "content": "welcome"},
                *chat("b", "second")["messages"],
            ]
        }
        (text,), manifest = world.prepared(messages(record), template=template)
        assert "⟦second<|im_end|>" in text
        assert "⟦welcome" not in text
        assert manifest["splits"]["train"]["answersLeftOut"] == {"beginningRefused": 1}
        assert (
            "train: 1 answers do not count: the chat template refuses the conversation up to them\n"
            in capsys.readouterr().out
        )

    def test_turns_that_are_rewritten_are_told(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        template = Structure(strips_thinking=True).template()
        records = [chat("a", "<think>x</think>one", "b", "<think>y</think>two") for _ in range(3)]
        texts, _ = world.prepared(messages(*records), template=template)
        assert "assistant\none<|im_end|>" in texts[0]
        assert "⟦<think>y</think>two" in texts[0]
        said = capsys.readouterr().out
        assert (
            "train: 3 answers do not count: the chat template shows them, or what comes before them, differently in the whole "
            "conversation\n"
        ) in said

    def test_records_that_it_refuses_are_told_with_their_places(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        template = Structure(refuses=("system",)).template()
        good, bad = chat("a", "b"), chat("a", "b", system="be kind")
        first = world.file("first.jsonl", good, bad, good, good)
        second = world.file("second.jsonl", *[bad] * 30, good)
        fault = refused(
            world,
            {"name": "one", "format": "Messages", "storageUri": first},
            {"name": "two", "format": "Messages", "storageUri": second, "split": {"eval": 0.3}},
            template=template,
        )
        assert fault.message.startswith(
            "31 of 35 records cannot be used: first.jsonl:2: the model's chat template refuses a conversation with the roles "
            "system, user, assistant: System role not supported; second.jsonl:"
        )
        assert fault.message.endswith("; and 28 more")
        assert "often: no system message" in fault.hint
        said = capsys.readouterr().out
        assert said.count("System role not supported") == 20
        assert "and 11 more" in said

    def test_places_are_those_of_records_that_were_chosen_and_of_their_weight(self, world: World) -> None:
        template = Structure(refuses=("system",)).template()
        rows = [{**chat("a", f"b{n}", system="s" if n == 7 else ""), "ok": n != 3} for n in range(12)]
        fault = refused(
            world,
            {
                "name": "d",
                "format": "Messages",
                "storageUri": world.file("a.jsonl", *rows),
                "filters": [{"field": "ok", "values": ["true"]}],
                "weight": 2,
            },
            template=template,
        )
        assert fault.message.startswith("1 of 11 records cannot be used: a.jsonl:8: the model's chat template refuses")

    def test_of_a_version_from_the_cache_the_dataset_is_named(self, world: World) -> None:
        template = Structure(refuses=("system",)).template()
        dataset = {"name": "d", "format": "Messages", "storageUri": world.file("a.jsonl", chat("a", "b", system="s"))}
        storage = {"cache": {"size": "1Gi"}}
        assert "a.jsonl:1" in refused(world, dataset, template=template, storage=storage).message
        import shutil

        shutil.rmtree(world.place / "volume")
        (world.place / "volume").mkdir()
        fault = refused(world, dataset, template=template, storage=storage)
        assert "1 of 1 records cannot be used: dataset d, train record 1: the model's chat template" in fault.message

    def test_whatever_a_template_raises_is_told_with_the_record(self, world: World) -> None:
        for template, said in (
            ("{{ messages[0].content + 1 }}", "TypeError: can only concatenate str"),
            ("{{ messages[0].missing.deeper }}", "'dict object' has no attribute 'missing'"),
            ("{{ 1 // 0 }}", "ZeroDivisionError: integer division or modulo by zero"),
            ("{{ messages[9].content }}", "list object has no element 9"),
        ):
            fault = refused(world, messages(chat("a", "b")), template=template)
            assert "1 of 1 records cannot be used: dataset d:1: the model's chat template refuses" in fault.message
            assert said in fault.message

    def test_a_template_that_is_none(self, world: World) -> None:
        with pytest.raises(UserError, match=r"the model's chat template cannot be read: line 1: ") as caught:
            world.prepared(messages(chat("a", "b")), template="{% for m in messages %}")
        assert caught.value.exit_code == ExitCode.INVALID_CONFIG
        assert "chat_template.jinja" in caught.value.hint

    def test_whatever_a_tokenizer_raises_is_told_with_the_record(self, world: World) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel({"known": 0, "<eos>": 1}))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        world.context([messages(chat("a", "b"))])
        PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>").save_pretrained(world.base.parent / "words")
        world.base = world.base.parent / "words"
        rows = [{"prompt": "known", "completion": word} for word in ("known", "new", "known")]
        dataset = {"name": "d", "format": "PromptCompletion", "storageUri": world.file("a.jsonl", *rows)}
        fault = refused(world, dataset)
        assert fault.message.startswith(
            "1 of 3 records cannot be used: a.jsonl:2: the model's tokenizer cannot encode it: "
        )
        assert "correct or remove" in fault.hint


class TestMessagesThatAreNotLearned:
    def test_weight_and_train_of_a_message(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        wrong, right = {"role": "assistant", "content": "WRONG"}, {"role": "assistant", "content": "right"}
        asked = {"role": "user", "content": "q"}
        record = {
            "messages": [asked, {**wrong, "weight": 0}, asked, {**right, "weight": 1}, asked, {**wrong, "train": False}]
        }
        (text,), _ = world.prepared(messages(record), template=BARE.template())
        assert "⟦right<|eos|>⟧" in text
        assert "⟦WRONG" not in text
        assert "weight" not in text
        assert "train: 2 answers do not count: their messages say weight: 0 or train: false" in capsys.readouterr().out

    def test_the_same_in_a_completion_and_after_a_conversion(self, world: World) -> None:
        asked = {"role": "user", "content": "q"}
        right, wrong = {"role": "assistant", "content": "right"}, {"role": "assistant", "content": "WRONG", "weight": 0}
        pair = {"prompt": [asked], "completion": [wrong, asked, right]}
        (text,), _ = world.prepared({"name": "d", "format": "PromptCompletion", "inline": {"records": [pair]}})
        assert "⟦right" in text
        assert "⟦WRONG" not in text
        record = {"messages": [asked, right, asked, wrong]}
        (text,), _ = world.prepared(messages(record, convertTo="PromptCompletion"))
        assert "⟦right" in text
        assert "WRONG" not in text

    def test_all_of_them_switched_off(self, world: World) -> None:
        record = chat("a", "b")
        record["messages"][1]["train"] = False
        fault = refused(world, messages(record))
        assert fault.message == (
            "nothing is left to train on: all 1 training records are without an answer that counts; 1 answers do not count: "
            "their messages say weight: 0 or train: false"
        )


class TestEmptySplits:
    def test_all_records_are_held_out(self, world: World) -> None:
        fault = refused(world, messages(chat("a", "b"), split={"eval": 0.9, "seed": 1}))
        assert fault.message == "nothing is left to train on: all 1 records are held out"
        assert fault.hint == "lower split.eval and split.test, or add records"

    def test_all_training_records_are_too_long(self, world: World) -> None:
        fault = refused(world, messages(chat("word " * 60, "b")), maxLength=32)
        assert fault.message == (
            "nothing is left to train on: all 1 training records are longer than 32 tokens before anything counts"
        )
        assert fault.hint == "raise spec.training.maxLength (now 32) above the length of the prompts"

    def test_weight_takes_none(self, world: World) -> None:
        fault = refused(world, messages(chat("a", "b"), weight=0.001))
        assert fault.message == "nothing is left to train on: weight takes none of 1 training records"

    def test_the_held_out_records_are_too_long(self, world: World) -> None:
        held_out = {**messages(chat("word " * 60, "b")), "name": "h", "role": "Eval"}
        fault = refused(world, messages(chat("a", "b")), held_out, maxLength=32)
        assert fault.message == (
            "nothing is left to evaluate on: all 1 held-out (eval) records are longer than 32 tokens before anything counts"
        )
        assert fault.hint == (
            "raise spec.training.maxLength (now 32) above the length of the prompts, or set spec.evaluation.enabled: false"
        )

    def test_the_share_is_too_small_for_so_few_records(self, world: World) -> None:
        records = [chat("a", "b")] * 4  # one would be held out of four that differ
        fault = refused(world, messages(*records, split={"test": 0.01}), evaluation={"split": "Test"})
        assert (
            fault.message == "nothing is left to evaluate on: split.test 0.01 of dataset d holds out none of 4 records"
        )
        assert fault.hint == "raise split.test, add records, or set spec.evaluation.enabled: false"

    def test_without_an_evaluation_nothing_has_to_be_held_out(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        world.prepared(messages(chat("a", "b"), split={"eval": 0.01}), evaluation={"enabled": False}, evalSteps=5)
        assert (
            "spec.training.evalSteps 5 has no effect: no record of the split eval can be used"
            in capsys.readouterr().out
        )


class TestPreferences:
    def test_a_prompt_that_both_answers_begin_with_once_more(self, world: World) -> None:
        asked = {"role": "user", "content": "rain?"}
        chosen, rejected = ([asked, {"role": "assistant", "content": text}] for text in ("yes", "no"))
        for prompt in ("rain?", [asked]):
            record = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            texts, _ = world.prepared(
                {"name": "d", "format": "Preference", "inline": {"records": [record]}},
                method="DPO",
                template=INST.template(),
            )
            assert texts == ["<s>[INST] rain? [/INST]⟦yes</s>⟧", "<s>[INST] rain? [/INST]⟦no</s>⟧"]


class TestTokenizers:
    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("tokenizer.json", "{", "has a tokenizer that cannot be read: "),
            ("tokenizer.json", "{}", "has a tokenizer that cannot be read: "),
            ("tokenizer_config.json", "[", "has a tokenizer that cannot be read: "),
            (
                "tokenizer.json",
                "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n",
                "tokenizer.json is a pointer of git-lfs and not the file (run git lfs pull in that folder)",
            ),
        ],
        ids=["cut", "empty", "its settings", "pointer"],
    )
    def test_a_file_of_one_that_is_damaged(self, world: World, name: str, content: str, said: str) -> None:
        made = world.context([messages(chat("a", "b"))])
        (world.claim / "model" / name).write_text(content)
        with pytest.raises(UserError) as caught:
            prepared(made, world.place, prepare=prepare)
        assert caught.value.exit_code == ExitCode.INVALID_CONFIG
        assert said in str(caught.value)
        assert str(caught.value).startswith("pvc://m/model")
