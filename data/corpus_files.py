"""Readers of corpus files; each yields (id, text) and names file and line in its errors."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from affectlens.data.errors import CorpusError

TEXT_SUFFIXES = (".txt", ".md")
HUB_LIMIT = 20_000
"""Documents read of a hub data set unless asked otherwise."""

logger = logging.getLogger("affectlens")


def read_text_file(path: Path, doc_id: str | None = None) -> Iterator[tuple[str, str]]:
    """One UTF-8 file as one document.

    Raises:
        CorpusError: not UTF-8; the byte is named.
    """
    try:
        yield doc_id or path.name, path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8 (byte {error.start}: {error.reason}); convert it to UTF-8"
        ) from error


def read_text_folder(folder: Path, limit: int | None = None) -> Iterator[tuple[str, str]]:
    """Every .txt and .md file below `folder` as a document, in the order of their paths.

    Raises:
        CorpusError: there is no such file, or one is not UTF-8.
    """
    files = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in TEXT_SUFFIXES and p.is_file()
    )
    if not files:
        raise CorpusError(
            f"{folder} holds no .txt or .md file; a .jsonl corpus is given by its file name"
        )
    for path in files[:limit]:
        yield from read_text_file(path, path.relative_to(folder).as_posix())


def read_jsonl(
    path: Path, field: str = "text", limit: int | None = None
) -> Iterator[tuple[str, str]]:
    """JSON lines, gzipped or not; the id is the key "id", else "line-<number>".

    Blank lines are no rows.

    Raises:
        CorpusError: a line is not a JSON object, or lacks the text; file, line and key are named.
    """
    count = 0
    for number, line in _lines(path):
        if not line.strip():
            continue
        if limit is not None and count >= limit:
            return
        count += 1
        yield _parse_line(line, field, f"{path}, line {number}", number)


def read_hub(
    spec: str, field: str, limit: int | None
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Stream "org/dataset[@revision][:split][:field]" and return its texts and what was read.

    The revision is resolved to a commit, which is returned in the provenance.

    Raises:
        CorpusError: `datasets` is not installed, or the data set cannot be read.
    """
    source, *rest = spec.split(":")
    repository, _, revision = source.partition("@")
    split = rest[0] if rest and rest[0] else "train"
    field = rest[1] if len(rest) > 1 and rest[1] else field
    if len(rest) > 2 or repository.count("/") > 1 or not repository:
        raise CorpusError(f"{spec!r} is not of the form org/dataset[@revision][:split][:field]")
    try:
        import datasets
        from huggingface_hub import HfApi
    except ImportError as error:
        raise CorpusError(
            "reading a hub corpus needs the package `datasets`; install it"
        ) from error
    count = HUB_LIMIT if limit is None else limit
    try:
        commit = HfApi().dataset_info(repository, revision=revision or None).sha
        rows = datasets.load_dataset(repository, split=split, revision=commit, streaming=True)
        taken = list(islice(rows, count + 1))
    except Exception as error:
        raise CorpusError(
            f"data set {repository!r} (split {split!r}) cannot be read "
            f"({type(error).__name__}: {error}); check the name and the network, or "
            "save the texts as a .jsonl file and give that"
        ) from error
    if len(taken) > count and limit is None:
        logger.warning("%s: only the first %s documents are read", spec, f"{count:,}")
    pairs = [
        _hub_row(row, field, f"{repository}, row {i}", i) for i, row in enumerate(taken[:count])
    ]
    provenance = {
        "revision": commit,
        "split": split,
        "field": field,
        "more_rows": len(taken) > count,
    }
    return pairs, provenance


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="\n")
            if path.name.endswith(".gz")
            else path.open(encoding="utf-8-sig", newline="\n")
        ) as handle:
            for number, line in enumerate(handle, start=1):
                yield number, line
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorpusError(
            f"{path}, after line {number}: {error}; the file is damaged or not UTF-8"
        ) from error


def _parse_line(line: str, field: str, where: str, number: int) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise CorpusError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise CorpusError(f'{where}: expected an object like {{"id": ..., "{field}": ...}}')
    doc_id = row.get("id", f"line-{number}")
    if isinstance(doc_id, bool) or not isinstance(doc_id, str | int):
        raise CorpusError(f"{where}: the id must be a string or a whole number, not {doc_id!r}")
    return _clean(str(doc_id), where), _text_of(row, field, where)


def _hub_row(row: dict[str, Any], field: str, where: str, number: int) -> tuple[str, str]:
    return f"row-{number}", _text_of(row, field, where)


def _text_of(row: dict[str, Any], field: str, where: str) -> str:
    text = row.get(field)
    if not isinstance(text, str):
        found = "is absent" if field not in row else f"holds {type(text).__name__}, not a string"
        raise CorpusError(
            f"{where}: key {field!r} {found}; keys of this row: {', '.join(map(str, row))}"
        )
    return _clean(text, where)


def _clean(text: str, where: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{where}: character {error.start} is a lone surrogate; repair the text"
        ) from error
    return text
