"""Malformed data: for each fault the place, the field, the value and the way out, word for word."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data.formats import check
from trainyard.trainer.data.readers import read_rows
from trainyard.trainer.data.row import Fault, Row
from trainyard.trainer.data.select import columns_of
from trainyard.trainer.data.sources import SourceFile, format_of

TRM = (
    '{"problem": "up?", "initial_answer": "", "solution": "all are up", "reasoning_steps": ["look"], "metadata": '
    '{"source": "prometheus", "query": "up", "type": "metric_analysis", "timestamp": "2025-12-28T10:00:00"}}\n'
)
PACKED = gzip.compress(b"".join(b'{"text": "record %d of many"}\n' % n for n in range(400)), compresslevel=0, mtime=0)
PAGE = ROOT / "docs/use/errors.md"
GOOD_TEXT = '{"text": "fine"}\n'


def parquet(names: list[str], columns: list[list[Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array(c) for c in columns], names=names), sink)
    return bytes(sink.getvalue())


def faults(tmp_path: Path, name: str, content: str | bytes, record_format: str) -> list[str]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    file = SourceFile(path, name)
    file_format = format_of(file, "Auto")
    assert file_format is not None
    dataset = Dataset.model_validate({"name": "d", "storageUri": f"file://{path}", "format": record_format})
    found = []
    for row in read_rows(file, file_format, columns_of(dataset)):
        checked = row if isinstance(row, Fault) else check(row, record_format)
        if isinstance(checked, Fault):
            found.append(str(checked))
    return found


CASES = [
    (
        "broken.jsonl",
        GOOD_TEXT * 6 + '{"text": "no end\n',
        "Text",
        "broken.jsonl:7: not JSON: Invalid control character at column 17",
    ),
    (
        "comma.jsonl",
        '{"text": "a"},\n',
        "Text",
        "comma.jsonl:1: not JSON: Extra data at column 14",
    ),
    (
        "list.jsonl",
        '["a"]\n',
        "Text",
        'list.jsonl:1: expected an object like {"text": ...}, found a list',
    ),
    (
        "latin.jsonl",
        GOOD_TEXT.encode() + b'{"text": "caf\xe9"}\n',
        "Text",
        "latin.jsonl:2: byte 0xe9 at position 13 is not UTF-8; convert the file, for example with iconv -t utf-8",
    ),
    (
        "name.jsonl",
        '{"txt": "a"}\n',
        "Text",
        "name.jsonl:1: field text: is missing, format Text needs it; did you mean to call txt so?",
    ),
    (
        "nothing.jsonl",
        "{}\n",
        "Text",
        "nothing.jsonl:1: field text: is missing, format Text needs it; the record has no fields",
    ),
    (
        "other.jsonl",
        '{"messages": []}\n',
        "Text",
        "other.jsonl:1: field text: is missing, format Text needs it; the record looks like format Messages: set format: "
        "Messages",
    ),
    ("null.jsonl", '{"text": null}\n', "Text", "null.jsonl:1: field text: is null"),
    ("number.jsonl", '{"text": 7}\n', "Text", "number.jsonl:1: field text: expected a string, found 7"),
    (
        "half.jsonl",
        '{"prompt": "a"}\n',
        "PromptCompletion",
        "half.jsonl:1: field completion: is missing, format PromptCompletion needs it; the record has prompt",
    ),
    (
        "empty.jsonl",
        '{"prompt": "a", "completion": ""}\n',
        "PromptCompletion",
        "empty.jsonl:1: field completion: is empty, so there is nothing to learn; remove the record",
    ),
    (
        "mixed.jsonl",
        '{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}\n',
        "PromptCompletion",
        "mixed.jsonl:1: field prompt: expected a string (or both as lists of messages), found "
        '[{"role": "user", "content": "a"}]',
    ),
    (
        "role.jsonl",
        '{"messages": [{"role": "asistant", "content": "a"}]}\n',
        "Messages",
        'role.jsonl:1: field messages[0].role: "asistant" is not a role; did you mean assistant?',
    ),
    (
        "human.jsonl",
        '{"messages": [{"speaker": "human", "value": "a"}]}\n',
        "Messages",
        "human.jsonl:1: field messages[0].role: null is not a role; known are system, developer, user, assistant, tool",
    ),
    (
        "content.jsonl",
        '{"messages": [{"role": "user", "content": 3}]}\n',
        "Messages",
        "content.jsonl:1: field messages[0].content: expected a string, found 3",
    ),
    (
        "call.jsonl",
        '{"messages": [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "w", "arguments": "{"}}]}]}\n',
        "Messages",
        "call.jsonl:1: field messages[0].tool_calls[0].function.arguments: expected an object, or one as JSON in a text, "
        'found "{"',
    ),
    (
        "silent.jsonl",
        '{"messages": [{"role": "user", "content": "hello?"}]}\n',
        "Messages",
        "silent.jsonl:1: field messages: no message has role assistant, so there is nothing to learn",
    ),
    ("none.jsonl", '{"messages": []}\n', "Messages", "none.jsonl:1: field messages: is empty"),
    (
        "dict.jsonl",
        '{"messages": {"role": "user"}}\n',
        "Messages",
        'dict.jsonl:1: field messages: expected a list of messages, found {"role": "user"}',
    ),
    (
        "string.jsonl",
        '{"messages": ["hello"]}\n',
        "Messages",
        'string.jsonl:1: field messages[0]: expected an object with role and content, found "hello"',
    ),
    (
        "lines.json",
        '{"text": "a"}\n{"text": "b"}\n',
        "Text",
        "lines.json:2: not JSON: Extra data at column 1; a file with one record per line is JSONL: name it .jsonl or set "
        "fileFormat: JSONL",
    ),
    ("object.json", '{"text": "a"}', "Text", "object.json: expected a list of records, found an object"),
    ("item.json", '[{"text": "a"}, "b"]', "Text", "item.json:2: expected an object, found a string"),
    (
        "wide.csv",
        "prompt,completion\na,b\na,b,c\n",
        "PromptCompletion",
        "wide.csv:3: has 3 fields where the header names 2; quote values that contain commas",
    ),
    (
        "narrow.csv",
        "prompt,completion\na\n",
        "PromptCompletion",
        "narrow.csv:2: has 1 fields where the header names 2; quote values that contain commas",
    ),
    (
        "quote.csv",
        'text\n"a"b\n',
        "Text",
        "quote.csv:2: not CSV: ',' expected after '\"'",
    ),
    (
        "fake.parquet",
        "not a parquet file at all",
        "Text",
        "fake.parquet: not a Parquet file: Parquet magic bytes not found in footer. Either the file is corrupted or this is "
        "not a parquet file.",
    ),
    (
        "binary.txt",
        b"text\n\xff\xfe\n",
        "Text",
        "binary.txt:2: byte 0xff at position 0 is not UTF-8; convert the file, for example with iconv -t utf-8",
    ),
    (
        "parts.jsonl",
        '{"prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c"}\n',
        "Preference",
        "parts.jsonl:1: fields chosen, prompt, rejected: must be all text or all lists of messages; where the lists begin with the "
        "prompt, remove the field prompt",
    ),
    (
        "worse.jsonl",
        '{"prompt": "a", "chosen": "b"}\n',
        "Preference",
        "worse.jsonl:1: field rejected: is missing, format Preference needs it; the record has chosen, prompt",
    ),
    (
        "chosen.jsonl",
        '{"prompt": "a", "chosen": ["b"], "rejected": "c"}\n',
        "Preference",
        'chosen.jsonl:1: field chosen[0]: expected an object with role and content, found "b"',
    ),
    (
        "asked.jsonl",
        '{"prompt": 7}\n',
        "Prompt",
        "asked.jsonl:1: field prompt: expected a string or a list of messages, found 7",
    ),
    (
        "steps.jsonl",
        TRM.replace('["look"]', '"look"'),
        "TRM",
        'steps.jsonl:1: field reasoning_steps: expected a list of strings, found "look"',
    ),
    (
        "step.jsonl",
        TRM.replace('["look"]', '["look", 2]'),
        "TRM",
        "step.jsonl:1: field reasoning_steps[1]: expected a string, found 2",
    ),
    (
        "first.jsonl",
        TRM.replace('"initial_answer": "", ', ""),
        "TRM",
        "first.jsonl:1: field initial_answer: is missing, format TRM needs it; the record has metadata, problem, "
        "reasoning_steps, solution",
    ),
    (
        "solution.jsonl",
        TRM.replace('"all are up"', '""'),
        "TRM",
        "solution.jsonl:1: field solution: is empty, so there is nothing to learn; remove the record",
    ),
    (
        "query.jsonl",
        TRM.replace('"query": "up", ', ""),
        "TRM",
        "query.jsonl:1: field metadata.query: expected a string, it is missing; an empty text is allowed",
    ),
    (
        "time.jsonl",
        TRM.replace("2025-12-28T10:00:00", "28.12.2025"),
        "TRM",
        'time.jsonl:1: field metadata.timestamp: "28.12.2025" is no time; write it as 2025-12-28T10:00:00Z',
    ),
    (
        "response.jsonl",
        '{"prompt": "a", "answer": "b"}\n',
        "TrainingExample",
        "response.jsonl:1: field response: is missing, format TrainingExample needs it; the record has answer, prompt",
    ),
    (
        "turns.jsonl",
        '{"prompts": "Why?", "final_answer": "So."}\n',
        "TunixSFT",
        "turns.jsonl:1: field prompts: has no turn; expected <start_of_turn>user, the text, <end_of_turn> and so on. For plain "
        "text use format TrainingExample",
    ),
    (
        "final.jsonl",
        '{"prompts": "<start_of_turn>user\\nWhy?<end_of_turn>"}\n',
        "TunixSFT",
        "final.jsonl:1: field final_answer: is missing, and prompts does not end with an answer of the model",
    ),
    (
        "raw.jsonl",
        '{"kind": "log", "line": "a", "labels": {}}\n',
        "Text",
        "raw.jsonl:1: a collected log is no record of format Text: set generate, which makes examples of it",
    ),
    (
        "cut.jsonl.gz",
        PACKED[:-2000],
        "Text",
        "cut.jsonl.gz:336: the compressed file is cut off after line 335; copy it again",
    ),
    (
        "damaged.jsonl.gz",
        PACKED[:-8] + b"\x00" * 8,
        "Text",
        "damaged.jsonl.gz:401: the compressed file is damaged after line 400 (CRC check failed 0x0 != 0x18d7522d); copy it again",
    ),
    (
        "cut.json.gz",
        gzip.compress(b'[{"text": "a"}]', mtime=0)[:-5],
        "Text",
        "cut.json.gz: the compressed file is cut off before its end; copy it again",
    ),
    (
        "cut.csv.gz",
        gzip.compress(b"text\n" + b"a\n" * 500, compresslevel=0, mtime=0)[:-9],
        "Text",
        "cut.csv.gz:501: the compressed file is cut off after line 500; copy it again",
    ),
    (
        "twice.csv",
        "prompt,completion,completion\na,b,c\n",
        "PromptCompletion",
        "twice.csv:1: the header names completion twice; rename or remove one of the columns",
    ),
    (
        "header.csv",
        b"pr\xe9mpt,completion\na,b\n",
        "PromptCompletion",
        "header.csv:1: byte 0xe9 at position 2 is not UTF-8; convert the file, for example with iconv -t utf-8",
    ),
    (
        "deep.jsonl",
        '{"text": ' + "[" * 100_000,
        "Text",
        "deep.jsonl:1: is nested too deeply",
    ),
    (
        "half.txt.jsonl",
        GOOD_TEXT + '{"text": "a smile: \\ud83d"}\n',
        "Text",
        "half.txt.jsonl:2: field text: has half of a surrogate pair (\\ud83d) at character 10; write the whole character, or "
        "remove it",
    ),
    (
        "half-name.jsonl",
        '{"prompt": "a", "response": "b", "metadata": {"\\ud83d": 1}}\n',
        "TrainingExample",
        "half-name.jsonl:1: field metadata: a name in it has half of a surrogate pair (\\ud83d) at character 1; write the whole "
        "character, or remove it",
    ),
    (
        "half-turn.jsonl",
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\\udc00"}]}\n',
        "Messages",
        "half-turn.jsonl:1: field messages[1].content: has half of a surrogate pair (\\udc00) at character 1; write the whole "
        "character, or remove it",
    ),
    (
        "blank.jsonl",
        '{"prompts": "<start_of_turn>user\\n<end_of_turn>", "final_answer": "So."}\n',
        "TunixSFT",
        "blank.jsonl:1: field prompts: has no text in any turn; remove the record",
    ),
    (
        "early.jsonl",
        TRM.replace("2025-12-28T10:00:00", "0001-01-01T00:00:00+10:00"),
        "TRM",
        'early.jsonl:1: field metadata.timestamp: "0001-01-01T00:00:00+10:00" is no time; write it as 2025-12-28T10:00:00Z',
    ),
    (
        "columns.parquet",
        parquet(["text", "text"], [["a"], ["b"]]),
        "Text",
        "columns.parquet: has two columns text; rename or remove one of them",
    ),
    (
        "bytes.parquet",
        parquet(["text"], [[b"fine", b"\xff\xfe"]]),
        "Text",
        "bytes.parquet:2: field text: a value of type binary cannot be read: its bytes are no UTF-8 text",
    ),
    (
        "cut.parquet",
        parquet(["text"], [["a"] * 5])[:-30],
        "Text",
        "cut.parquet: not a Parquet file: Parquet magic bytes not found in footer. Either the file is corrupted or this is not "
        "a parquet file.",
    ),
]


@pytest.mark.parametrize(("name", "content", "record_format", "message"), CASES, ids=[case[0] for case in CASES])
def test_a_fault_is_named_with_place_and_way_out(
    tmp_path: Path, name: str, content: str | bytes, record_format: str, message: str
) -> None:
    assert faults(tmp_path, name, content, record_format) == [message]


def test_the_table_of_the_documentation_is_this_one() -> None:
    page = PAGE.read_text().partition("## Malformed data\n")[2].partition("\n## ")[0]
    assert not [name for name, _, _, message in CASES if f"`{message}`" not in page]
    assert page.count("\n| `") == len(CASES)


def test_a_fault_does_not_hide_the_next(tmp_path: Path) -> None:
    content = GOOD_TEXT + "{\n" + GOOD_TEXT + '{"text": 1}\n' + GOOD_TEXT
    assert [f.split(": ")[0] for f in faults(tmp_path, "two.jsonl", content, "Text")] == ["two.jsonl:2", "two.jsonl:4"]


def rows(tmp_path: Path, name: str, content: bytes) -> list[Row]:
    (tmp_path / name).write_bytes(content)
    file = SourceFile(tmp_path / name, name)
    file_format = format_of(file, "Auto")
    assert file_format is not None
    found = list(read_rows(file, file_format))
    assert all(isinstance(row, Row) for row in found)
    return found  # type: ignore[return-value]


class TestWhatIsFine:
    def test_blank_lines_and_byte_order_marks(self, tmp_path: Path) -> None:
        found = rows(tmp_path, "bom.jsonl", b'\xef\xbb\xbf{"text": "a"}\n\n{"text": "b"}\r\n')
        assert [(r.line, r.value["text"]) for r in found] == [(1, "a"), (3, "b")]

    def test_gzip(self, tmp_path: Path) -> None:
        found = rows(tmp_path, "a.jsonl.gz", gzip.compress(b'{"text": "packed"}\n'))
        assert found[0].value == {"text": "packed"}

    def test_quoted_csv_with_line_breaks_and_tabs(self, tmp_path: Path) -> None:
        found = rows(tmp_path, "a.csv", b'prompt,completion\n"a,\nb",c\n')
        assert found[0].value == {"prompt": "a,\nb", "completion": "c"}
        found = rows(tmp_path, "a.tsv", b"prompt\tcompletion\na,b\tc\n")
        assert found[0].value == {"prompt": "a,b", "completion": "c"}

    def test_parquet_with_messages(self, tmp_path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        messages = [{"role": "user", "content": "a", "name": None}, {"role": "assistant", "content": "b", "name": None}]
        table = pyarrow.table({"messages": [messages] * 3000})
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=500)
        found = list(read_rows(SourceFile(tmp_path / "a.parquet", "a.parquet"), "Parquet"))
        assert len(found) == 3000
        assert isinstance(found[-1], Row)
        assert found[-1].place == "a.parquet:3000"
        assert check(found[-1], "Messages") == {
            "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        }

    def test_messages_as_json_text_in_csv(self, tmp_path: Path) -> None:
        text = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
        quoted = text.replace('"', '""')
        found = rows(tmp_path, "chat.csv", f'messages\n"{quoted}"\n'.encode())
        assert check(found[0], "Messages") == {"messages": json.loads(text)}

    def test_further_fields_are_ignored_and_empty_text_is_skipped(self) -> None:
        assert check(Row("f", 1, {"text": "a", "id": 3}), "Text") == {"text": "a"}
        assert check(Row("f", 1, {"text": "  \n"}), "Text") is None

    def test_a_conversation_as_prompt_and_completion(self) -> None:
        value = {
            "prompt": [{"role": "user", "content": "q"}],
            "completion": [{"role": "assistant", "content": "a"}],
        }
        assert check(Row("f", 1, value), "PromptCompletion") == value

    def test_a_large_text_is_cut_at_empty_lines(self, tmp_path: Path) -> None:
        paragraph = ("word " * 200 + "\n") * 5 + "\n"
        content = (paragraph * 20).encode()
        found = rows(tmp_path, "book.txt", content)
        assert 2 <= len(found) <= 4
        assert "".join(row.value["text"] for row in found).encode() == content
        assert all(row.value["text"].endswith("\n\n") for row in found)
        assert found[1].line == found[0].value["text"].count("\n") + 1

    def test_a_small_text_is_one_record(self, tmp_path: Path) -> None:
        assert len(rows(tmp_path, "module.py", b"import os\n\n\ndef f():\n    pass\n")) == 1
