"""Plain text to train and describe on: reading it, cutting it into token windows, and checking that
it shares nothing with the battery.

A corpus is a list of documents. A document is the unit that is held out as a whole, so text that
belongs together should be one document.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.data.artifacts import read_json, sha256_json
from affectlens.data.corpus_files import (
    TEXT_SUFFIXES,
    read_hub,
    read_jsonl,
    read_text_file,
    read_text_folder,
)
from affectlens.data.errors import ConfigError, CorpusError

if TYPE_CHECKING:
    from affectlens.data.models import LanguageModel

DEFAULT_FILE = "default.jsonl.gz"
DEFAULT_PROVENANCE = "default.json"
HELD_OUT_ONE_IN = 10
_TOKENIZE_BATCH = 256
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True)
class Document:
    """One text of a corpus; ids are unique within it."""

    id: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents in their order.

    Attributes:
        name: the name or file name that was asked for.
        documents: the non-empty documents.
        sha256: over every id and text in order.
        provenance: where it came from, with `n_documents`, `n_empty` (empty texts left out) and
            `n_duplicates` (documents whose text an earlier one has; kept).
    """

    name: str
    documents: tuple[Document, ...] = field(repr=False)
    sha256: str
    provenance: dict[str, Any] = field(compare=False)


@dataclass(frozen=True)
class TokenWindow:
    """A piece of one document as the model sees it.

    Attributes:
        doc_index: index into the corpus' documents.
        start: how many of the document's own tokens come before this window.
        token_ids: what goes in, a beginning-of-sequence token first where the tokenizer has one.
    """

    doc_index: int
    start: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class TokenizedCorpus:
    """Token windows in corpus order.

    Attributes:
        windows: the windows.
        n_tokens: tokens in all windows.
        n_documents: documents they come from.
        n_cut: documents that were longer than one window.
        n_prefix: tokens at the head of each window that are not the document's own (0 or 1).
    """

    windows: tuple[TokenWindow, ...]
    n_tokens: int
    n_documents: int
    n_cut: int
    n_prefix: int


@dataclass(frozen=True)
class OverlapReport:
    """What was compared without finding a shared run of words.

    Attributes:
        n: words in a run.
        n_texts: texts compared.
        n_short: texts with fewer than `n` words, which cannot be compared.
        n_ngrams: distinct runs looked for.
        n_documents: documents searched.
    """

    n: int
    n_texts: int
    n_short: int
    n_ngrams: int
    n_documents: int


def load_corpus(
    name: str | Path = "default", *, field: str = "text", max_documents: int | None = None
) -> Corpus:
    """Read a corpus.

    Args:
        name: "default" (the embedded one); a .txt or .md file (one document); a folder of those
            (one document a file); a .jsonl or .jsonl.gz file, with :FIELD behind it to name
            the key; or
            "hub:org/dataset[@revision][:split][:field]", read through the `datasets` package.
        field: key of the text in JSON lines and hub data sets.
        max_documents: stop after this many documents (for a hub data set 20,000 if not given).

    Raises:
        CorpusError: not found, unreadable (file and line are named), or without any text.
    """
    spec = str(name)
    provenance: dict[str, Any] = {"source": spec, "field": field}
    if spec == "default":
        with resources.as_file(resources.files("affectlens.data") / "corpora") as folder:
            if not (folder / DEFAULT_FILE).exists():
                raise CorpusError("the embedded corpus is missing; install affectlens again")
            pairs = list(read_jsonl(folder / DEFAULT_FILE, field, max_documents))
            made = read_json(folder / DEFAULT_PROVENANCE)
            provenance |= {"licence": made["licence"], "sampled_from": made["model"]["name"]}
    elif spec.startswith("hub:"):
        pairs, extra = read_hub(spec.removeprefix("hub:"), field, max_documents)
        provenance |= extra
    else:
        pairs = list(_read_path(Path(spec), field, max_documents))
        # Not the whole path: results must not depend on where a file lies.
        spec = provenance["source"] = Path(spec).name
    return build_corpus(spec, pairs, provenance)


def build_corpus(
    name: str, pairs: Iterable[tuple[str, str]], provenance: dict[str, Any] | None = None
) -> Corpus:
    """Make a corpus of (id, text) pairs; texts of white space only are counted and left out.

    Raises:
        CorpusError: an id comes twice, or no text is left.
    """
    documents: list[Document] = []
    ids: set[str] = set()
    n_empty = 0
    for doc_id, text in pairs:
        if doc_id in ids:
            raise CorpusError(
                f"corpus {name!r}: document id {doc_id!r} comes twice; ids must be unique"
            )
        ids.add(doc_id)
        if text.strip():
            documents.append(Document(doc_id, text))
        else:
            n_empty += 1
    if not documents:
        raise CorpusError(
            f"corpus {name!r} holds no text ({n_empty} empty documents); "
            "give a file or folder with text"
        )
    digest = hashlib.sha256()
    for document in documents:
        digest.update(sha256_json([document.id, document.text]).encode())
    counts = Counter(document.text for document in documents)
    details = {
        **(provenance or {}),
        "n_documents": len(documents),
        "n_empty": n_empty,
        "n_duplicates": len(documents) - len(counts),
    }
    return Corpus(name, tuple(documents), digest.hexdigest(), details)


def windows(
    corpus: Corpus, lm: LanguageModel, context_length: int, max_tokens: int | None = None
) -> TokenizedCorpus:
    """Cut every document into windows of at most `context_length` tokens, in corpus order.

    Each window begins with the beginning-of-sequence token if the tokenizer puts one before a text.
    With `max_tokens`, the window that reaches that count is the last; it is kept whole.

    Raises:
        ConfigError: the windows do not fit into the model's context.
        CorpusError: a document gives no tokens.
    """
    if context_length > lm.context_length:
        raise ConfigError(
            f"context_length {context_length} is more than the {lm.context_length} tokens "
            f"{lm.name} can take; choose {lm.context_length} or fewer"
        )
    prefix = _prefix_ids(lm.tokenizer)
    found: list[TokenWindow] = []
    n_tokens = n_documents = n_cut = 0
    for index, ids in _token_ids(corpus, lm.tokenizer):
        pieces = list(_cut(index, ids, prefix, context_length))
        n_documents += 1
        n_cut += len(pieces) > 1
        for piece in pieces:
            found.append(piece)
            n_tokens += len(piece.token_ids)
            if max_tokens is not None and n_tokens >= max_tokens:
                return TokenizedCorpus(tuple(found), n_tokens, n_documents, n_cut, len(prefix))
    return TokenizedCorpus(tuple(found), n_tokens, n_documents, n_cut, len(prefix))


def held_out(ids: Sequence[str]) -> list[bool]:
    """Which documents are never trained on: those whose id hashes to 0 modulo ten.

    Both parts get a document where there are two or more: if none or all would be held out, the one
    with the smallest hash is, or the one with the largest is not. An only document is not held out.
    """
    hashes = [document_hash(doc_id) for doc_id in ids]
    marks = [value % HELD_OUT_ONE_IN == 0 for value in hashes]
    if len(ids) > 1 and not any(marks):
        marks[hashes.index(min(hashes))] = True
    elif ids and all(marks):
        marks[hashes.index(max(hashes))] = False
    return marks


def document_hash(doc_id: str) -> int:
    """A number in [0, 2^64) from a document id, the same on every machine."""
    return int.from_bytes(hashlib.sha256(doc_id.encode("utf-8")).digest()[:8], "big")


def check_overlap(corpus: Corpus, texts: Iterable[str], n: int = 8) -> OverlapReport:
    """Check that no run of `n` words of `texts` occurs in the corpus.

    Words are compared in lower case and without punctuation. A text with fewer words has no such
    run and is only counted.

    Raises:
        CorpusError: a run is shared; the first document and the run are named.
    """
    wanted: dict[str, str] = {}
    n_texts = n_short = 0
    for text in texts:
        words = _words(text)
        n_texts += 1
        n_short += len(words) < n
        wanted.update(dict.fromkeys(_runs(words, n), text))
    for document in corpus.documents if wanted else ():
        shared = next((run for run in _runs(_words(document.text), n) if run in wanted), None)
        if shared is not None:
            raise CorpusError(
                f"corpus {corpus.name!r}, document {document.id!r} shares the words {shared!r} "
                f"with the text {wanted[shared][:60]!r}; take that document out, or use "
                "another corpus"
            )
    return OverlapReport(n, n_texts, n_short, len(wanted), len(corpus.documents))


def _read_path(path: Path, field: str, limit: int | None) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        return read_text_folder(path, limit)
    if not path.exists():
        stem, _, named = str(path).rpartition(":")
        if stem.endswith((".jsonl", ".jsonl.gz")) and Path(stem).exists():
            return read_jsonl(Path(stem), named, limit)
        raise CorpusError(
            f"no corpus {str(path)!r}: neither a file nor a folder; known names: default, "
            "hub:org/dataset[@revision][:split][:field]"
        )
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return read_jsonl(path, field, limit)
    if path.suffix.lower() in TEXT_SUFFIXES:
        return read_text_file(path)
    raise CorpusError(
        f"{path} has none of the endings .txt, .md, .jsonl, .jsonl.gz; rename or convert it"
    )


def _token_ids(corpus: Corpus, tokenizer: Any) -> Iterator[tuple[int, list[int]]]:
    documents = corpus.documents
    for first in range(0, len(documents), _TOKENIZE_BATCH):
        part = documents[first : first + _TOKENIZE_BATCH]
        encoded = tokenizer([d.text for d in part], add_special_tokens=False, verbose=False)
        for offset, ids in enumerate(encoded["input_ids"]):
            if not ids:
                raise CorpusError(
                    f"corpus {corpus.name!r}, document {part[offset].id!r} gives no tokens; "
                    "take it out"
                )
            yield first + offset, list(ids)


def _cut(index: int, ids: list[int], prefix: list[int], length: int) -> Iterator[TokenWindow]:
    step = length - len(prefix)
    for start in range(0, len(ids), step):
        yield TokenWindow(index, start, (*prefix, *ids[start : start + step]))


def _prefix_ids(tokenizer: Any) -> list[int]:
    """The beginning-of-sequence token, if the tokenizer puts one before a text."""
    bos = tokenizer.bos_token_id
    ids = tokenizer("a", verbose=False)["input_ids"]
    return [bos] if bos is not None and ids[:1] == [bos] else []


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("’", "'"))


def _runs(words: list[str], n: int) -> Iterator[str]:
    return (" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
