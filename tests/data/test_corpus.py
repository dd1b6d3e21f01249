import gzip
import json
import sys
from importlib import resources
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from affectlens.data.corpus import (
    build_corpus,
    check_overlap,
    held_out,
    load_corpus,
    windows,
)
from affectlens.data.errors import ConfigError, CorpusError
from affectlens.data.tiny import tiny_model


@pytest.fixture(scope="module")
def lm():
    return tiny_model("llama", n_layers=1)


def write_lines(path, *lines):
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_embedded_corpus_is_large_free_and_apart_from_the_embedded_battery():
    corpus = load_corpus()
    assert corpus.name == "default"
    assert len(corpus.documents) > 1000
    assert corpus.provenance["n_empty"] == corpus.provenance["n_duplicates"] == 0
    assert corpus.provenance["licence"].startswith("CC0")
    marks = held_out([d.id for d in corpus.documents])
    assert 0.07 < sum(marks) / len(marks) < 0.13
    battery = resources.files("affectlens.data") / "batteries" / "affectlens-vignettes.jsonl"
    texts = [json.loads(line)["text"] for line in battery.read_text(encoding="utf-8").splitlines()]
    assert check_overlap(corpus, texts).n_ngrams > 1000


def test_jsonl_with_byte_order_mark_crlf_and_empty_texts(tmp_path):
    path = tmp_path / "c.jsonl"
    rows = ['{"id": "a", "text": "one"}', "", '{"text": "  "}', '{"id": 7, "text": "ü\\n"}']
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    corpus = load_corpus(path)
    assert [(d.id, d.text) for d in corpus.documents] == [("a", "one"), ("7", "ü\n")]
    assert corpus.name == "c.jsonl"
    assert corpus.provenance["n_empty"] == 1
    assert corpus.provenance["n_documents"] == 2


def test_gzip_gives_the_same_corpus_wherever_it_lies(tmp_path):
    lines = "\n".join(json.dumps({"id": f"d{i}", "text": f"text {i}"}) for i in range(5))
    (tmp_path / "c.jsonl").write_text(lines)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    plain, packed = load_corpus(tmp_path / "c.jsonl"), load_corpus(tmp_path / "sub" / "c.jsonl.gz")
    assert plain.sha256 == packed.sha256
    assert plain.documents == packed.documents
    assert str(tmp_path) not in json.dumps(packed.provenance)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2: not JSON"),
        ("[1]", r"line 2: expected an object"),
        ('{"id": "b", "body": "x"}', r"line 2: key 'text' is absent; keys of this row: id, body"),
        ('{"text": 5}', r"line 2: key 'text' holds int, not a string"),
        ('{"id": [1], "text": "x"}', r"line 2: the id must be a string or a whole number"),
        ('{"id": true, "text": "x"}', r"line 2: the id must be"),
        ('{"id": "b", "text": "x\\ud800"}', r"line 2: character 1 is a lone surrogate"),
        ('{"id": "a", "text": "x"}', r"document id 'a' comes twice"),
        ("[" * 100_000, r"line 2: not JSON"),
    ],
)
def test_bad_lines_name_file_and_line(tmp_path, line, message):
    path = write_lines(tmp_path / "c.jsonl", '{"id": "a", "text": "one"}', line)
    with pytest.raises(CorpusError, match=message) as caught:
        load_corpus(path)
    assert "c.jsonl" in str(caught.value)


def test_damaged_files(tmp_path):
    packed = gzip.compress(b'{"text": "a long enough text"}\n' * 50)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "plain.jsonl.gz").write_bytes(b'{"text": "a"}')
    (tmp_path / "latin.jsonl").write_bytes('{"text": "ä"}'.encode("latin-1"))
    (tmp_path / "latin.txt").write_bytes("ä".encode("latin-1"))
    for name in ("cut.jsonl.gz", "plain.jsonl.gz", "latin.jsonl"):
        with pytest.raises(CorpusError, match="damaged or not UTF-8"):
            load_corpus(tmp_path / name)
    with pytest.raises(CorpusError, match="byte 0"):
        load_corpus(tmp_path / "latin.txt")


def test_other_field_and_limit(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", *[json.dumps({"body": f"t{i}"}) for i in range(5)])
    corpus = load_corpus(path, field="body", max_documents=2)
    assert [(d.id, d.text) for d in corpus.documents] == [("line-1", "t0"), ("line-2", "t1")]


def test_text_file_and_folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.md").write_text("# two")
    (tmp_path / "a.TXT").write_bytes(b"\xef\xbb\xbfone")
    (tmp_path / "ignored.py").write_text("pass")
    corpus = load_corpus(tmp_path)
    assert [(d.id, d.text) for d in corpus.documents] == [("a.TXT", "one"), ("b/x.md", "# two")]
    assert load_corpus(tmp_path / "b" / "x.md").documents[0].id == "x.md"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "neither a file nor a folder"),
        ("c.csv", "none of the endings"),
        ("", "no .txt or .md"),
    ],
)
def test_what_is_no_corpus(tmp_path, name, message):
    (tmp_path / "c.csv").write_text("x")
    with pytest.raises(CorpusError, match=message):
        load_corpus(tmp_path / name)


def test_empty_corpus_says_how_many_were_empty():
    with pytest.raises(CorpusError, match="2 empty documents"):
        build_corpus("c", [("a", ""), ("b", " \n")])


def test_hash_covers_ids_texts_and_order():
    base = build_corpus("c", [("a", "x"), ("b", "y")])
    assert base.sha256 == build_corpus("other", [("a", "x"), ("e", ""), ("b", "y")]).sha256
    for other in ([("b", "y"), ("a", "x")], [("a", "y"), ("b", "x")], [("ax", ""), ("b", "y")]):
        assert build_corpus("c", other).sha256 != base.sha256
    assert build_corpus("c", [("a", "x"), ("b", "x")]).provenance["n_duplicates"] == 1


def test_hub_data_set_is_pinned_and_limited(monkeypatch):
    asked = {}

    def load_dataset(repository, **options):
        asked.update(options, repository=repository)
        return ({"body": f"text {i}"} for i in range(10))

    module = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.dataset_info",
        lambda self, name, revision: SimpleNamespace(sha=f"commit-of-{revision}"),
    )
    corpus = load_corpus("hub:org/texts@v1:validation:body", max_documents=3)
    assert len(corpus.documents) == 3
    assert asked == {
        "repository": "org/texts",
        "split": "validation",
        "revision": "commit-of-v1",
        "streaming": True,
    }
    assert corpus.provenance["revision"] == "commit-of-v1"
    assert corpus.provenance["more_rows"] is True
    with pytest.raises(CorpusError, match="row 0: key 'text' is absent"):
        load_corpus("hub:org/texts")


def test_hub_errors_say_what_to_do(monkeypatch):
    def refuse(self, name, revision):
        raise ConnectionError("offline")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    with pytest.raises(
        CorpusError, match=r"cannot be read .ConnectionError: offline.; check the name"
    ):
        load_corpus("hub:org/texts")
    with pytest.raises(CorpusError, match="not of the form"):
        load_corpus("hub:a/b/c")


@settings(deadline=None, max_examples=40)
@given(
    texts=st.lists(
        st.text(alphabet="ab é\n", min_size=1).filter(str.strip), min_size=1, max_size=5
    ),
    length=st.integers(8, 20),
)
def test_windows_hold_every_token_once_in_order(lm, texts, length):
    corpus = build_corpus("c", [(f"d{i}", text) for i, text in enumerate(texts)])
    found = windows(corpus, lm, length)
    for index, text in enumerate(texts):
        pieces = [w for w in found.windows if w.doc_index == index]
        joined = [token for w in pieces for token in w.token_ids]
        assert lm.tokenizer.decode(joined) == text
        starts = [0]
        for piece in pieces:
            assert 1 <= len(piece.token_ids) <= length
            assert piece.start == starts[-1]
            starts.append(piece.start + len(piece.token_ids))
    assert found.n_tokens == sum(len(w.token_ids) for w in found.windows)
    assert found.n_documents == len(texts)
    assert found.n_cut == sum(len(t.encode()) > length for t in texts)
    assert found.n_prefix == 0


def test_each_window_begins_with_the_start_token_where_there_is_one():
    lm = tiny_model("gpt2", n_layers=1)
    lm.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<eos> $A", special_tokens=[("<eos>", lm.tokenizer.eos_token_id)]
    )
    lm.tokenizer.bos_token = "<eos>"
    found = windows(build_corpus("c", [("a", "x" * 20)]), lm, 8)
    assert [len(w.token_ids) for w in found.windows] == [8, 8, 7]
    assert [w.start for w in found.windows] == [0, 7, 14]
    assert {w.token_ids[0] for w in found.windows} == {lm.tokenizer.eos_token_id}
    assert found.n_prefix == 1


def test_windows_stop_at_the_wanted_tokens(lm):
    corpus = build_corpus("c", [(f"d{i}", "x" * 10) for i in range(10)])
    found = windows(corpus, lm, 8, max_tokens=25)
    assert (found.n_tokens, found.n_documents, len(found.windows)) == (28, 3, 5)


def test_windows_longer_than_the_context_are_refused(lm):
    with pytest.raises(ConfigError, match=r"context_length 99999 is more than the 2048 tokens"):
        windows(build_corpus("c", [("a", "x")]), lm, 99_999)


def test_held_out_share_and_stability():
    ids = [f"doc-{i}" for i in range(5000)]
    marks = held_out(ids)
    assert 400 < sum(marks) < 600
    assert held_out(ids[::-1]) == marks[::-1]
    # Which documents are held out may never change: SAEs were trained on the others.
    assert [i for i, mark in enumerate(held_out([f"d{i}" for i in range(40)])) if mark] == [
        9,
        11,
        13,
    ]
    assert sum(held_out(["a", "b", "c"])) >= 1
    assert held_out(["d9"]) == [False]
    assert held_out(["d9", "d11"]).count(True) == 1
    assert held_out([]) == []


def test_overlap_is_found_whatever_case_and_punctuation():
    corpus = build_corpus(
        "c", [("a", "nothing"), ("b", "Well: ONE two,three four\nfive six seven EIGHT!")]
    )
    report = check_overlap(corpus, ["one two three four five six seven", "nine", "zero"])
    assert (report.n, report.n_texts, report.n_short, report.n_documents) == (8, 3, 3, 2)
    with pytest.raises(CorpusError, match=r"document 'b' shares the words 'one two three"):
        check_overlap(corpus, ["So one two three four five six seven eight nine"])


@settings(deadline=None, max_examples=50)
@given(
    left=st.lists(st.sampled_from("abcd"), min_size=1, max_size=30),
    right=st.lists(st.sampled_from("abcd"), min_size=1, max_size=30),
    n=st.integers(1, 5),
)
def test_overlap_equals_the_definition(left, right, n):
    runs = {tuple(right[i : i + n]) for i in range(len(right) - n + 1)}
    shared = any(tuple(left[i : i + n]) in runs for i in range(len(left) - n + 1))
    corpus = build_corpus("c", [("a", " ".join(left))])
    if shared:
        with pytest.raises(CorpusError, match="shares the words"):
            check_overlap(corpus, [" ".join(right)], n)
    else:
        assert check_overlap(corpus, [" ".join(right)], n).n_ngrams == len(runs)


def test_a_field_of_json_lines_is_named_after_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"id": "a", "body": "One."}\n', encoding="utf-8")
    assert load_corpus(f"{path}:body").documents[0].text == "One."
    with pytest.raises(CorpusError, match="key 'title' is absent"):
        load_corpus(f"{path}:title")
