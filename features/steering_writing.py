"""Writes the texts of the steering study, many arms in one batch, and goes on where it was stopped.

Every arm gets the same prompts and, for the same prompt, the same random stream, so arms differ in
the edit alone. Batches are fixed by the whole list of texts before the first one is written (sorted
by length of the prompt), so a study that was stopped writes the rest exactly as it would have.
Finished batches are appended to a file and fsynced. A process killed while it appends leaves a torn
last line; it is cut off, counted, and its batch is written again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from affectlens.data.artifacts import disk_errors
from affectlens.data.errors import MachineError
from affectlens.data.generation import Sampling, chat_prompt, continuations
from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel
from affectlens.data.progress import track
from affectlens.features.interventions import residual_edit
from affectlens.features.specs import PerRow, Spec
from affectlens.sae.model import SparseAutoencoder

logger = logging.getLogger("affectlens")

FORMAT_VERSION = 1
PARTIAL_FILE = "steering/partial.jsonl"
"""Where a run folder keeps what was written before the study ends."""

GO_ON = (
    "Write the next two or three sentences of this account, in the same voice: how it went on, and "
    "how I felt."
)
ASK = "Write so that the text shows strong {emotion}."
ASK_PLAIN = "Write so that the text shows common words."
"""The instruction of 'prompt_plain': as many words as `ASK`, and no emotion."""


@dataclass(frozen=True, eq=False)
class Item:
    """A text to be written: token ids of the prompt, number of the random stream, edits."""

    ids: tuple[int, ...]
    stream: int
    specs: tuple[Spec, ...]


@dataclass(frozen=True)
class Written:
    """A text, how many tokens of prompt and text were edited, and the mean norm of the change."""

    text: str
    n_edited: int
    norm: float


@dataclass(frozen=True)
class Cost:
    """What a study will write.

    Attributes:
        n_conditions: arms, sets and doses, over all emotions.
        n_texts: texts that are written; equal conditions share theirs.
        n_prompt_tokens: tokens of their prompts.
        max_new_tokens: new tokens at most.
        n_batches: batches.
    """

    n_conditions: int
    n_texts: int
    n_prompt_tokens: int
    max_new_tokens: int
    n_batches: int

    def line(self) -> str:
        """The cost in one sentence."""
        return (
            f"the study writes {self.n_texts:,} texts ({self.n_conditions:,} conditions), up to "
            f"{self.max_new_tokens:,} new tokens after {self.n_prompt_tokens:,} of prompts, in "
            f"{self.n_batches:,} batches, and reads each text twice to score it"
        )


def study_prompt(lm: LanguageModel, scene: str, asked: str) -> str:
    """The prompt for a scene: go on with it, and how it felt, without naming a target.

    `asked` is "" for no instruction, "plain", or the emotion that the instruction asks for. A model
    with a chat template gets a user's message, any other the request above the scene.
    """
    extra = ""
    if asked:
        extra = " " + (ASK_PLAIN if asked == "plain" else ASK.format(emotion=asked))
    if lm.tokenizer.chat_template:
        return chat_prompt(lm, f"{scene}\n\n{GO_ON}{extra}")
    return f"{GO_ON}{extra}\n\n{scene}"


def prompt_ids(lm: LanguageModel, prompt: str, label: str) -> tuple[int, ...]:
    """Token ids of a prompt of `study_prompt`.

    Raises:
        StimulusError: the prompt does not fit the context; `label` names it.
    """
    special = not lm.tokenizer.chat_template
    return tuple(lm.token_ids(prompt, add_special_tokens=special, label=label))


def batches_of(items: Sequence[Item], batch_size: int) -> list[list[int]]:
    """Indices of the items of each batch, prompts of about one length together."""
    order = sorted(range(len(items)), key=lambda i: (len(items[i].ids), i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def write_texts(
    lm: LanguageModel,
    sae: SparseAutoencoder,
    items: Sequence[Item],
    sampling: Sampling,
    batch_size: int,
    *,
    kept: PartialTexts | None = None,
    quiet: bool | None = False,
) -> list[Written]:
    """Write every text, in the order of `items`; finished batches of `kept` are not written again.

    Raises:
        HookError: an edit did not run.
        StimulusError: a prompt and its text exceed the context.
    """
    batches = batches_of(items, batch_size)
    done = kept.finished(batches) if kept is not None else {}
    out: dict[int, Written] = {}
    for number, texts in done.items():
        out.update(zip(batches[number], texts, strict=True))
    with track(len(items), "texts", "steering study", start=len(out), quiet=quiet) as bar:
        for number, rows in enumerate(batches):
            if number in done:
                continue
            texts = _write_batch(lm, sae, [items[i] for i in rows], sampling)
            if kept is not None:
                kept.append(number, texts)
            out.update(zip(rows, texts, strict=True))
            bar.update(len(rows))
    return [out[i] for i in range(len(items))]


def _write_batch(
    lm: LanguageModel, sae: SparseAutoencoder, items: Sequence[Item], sampling: Sampling
) -> list[Written]:
    edit_fn, tally = residual_edit(sae, [PerRow(tuple(item.specs for item in items))])
    edited = any(item.specs for item in items)
    hooked: contextlib.AbstractContextManager[Any] = (
        edit(lm, {sae.info.hook_name: edit_fn}) if edited else contextlib.nullcontext()
    )
    with hooked:
        texts = continuations(
            lm, [item.ids for item in items], sampling, streams=[item.stream for item in items]
        )
    n = [0] * len(items) if tally.row_tokens is None else [int(v) for v in tally.row_tokens]
    norms = [0.0] * len(items) if tally.row_norms is None else [float(v) for v in tally.row_norms]
    return [
        Written(text, count, norm / count if count else 0.0)
        for text, count, norm in zip(texts, n, norms, strict=True)
    ]


class PartialTexts:
    """The file of finished batches: a line with the key of the study, then one line each.

    Open it with `PartialTexts.opened`, which holds the file for one writer.
    """

    def __init__(self, path: Path, key: str, handle: BinaryIO) -> None:
        self.path, self._handle = path, handle
        self.n_dropped = self.n_resumed = 0
        self._header = {"format_version": FORMAT_VERSION, "key": key}
        self._lines: list[_Line] = []
        self._read()

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, key: str) -> Iterator[PartialTexts]:
        """Open or begin the file; texts of another key are dropped.

        Raises:
            MachineError: another process writes to it, or the disk is full.
        """
        path = Path(path)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise MachineError(
                        f"{path} is being written by another study; wait for it or choose another "
                        "folder"
                    ) from None
                yield cls(path, key, handle)

    def finished(self, batches: Sequence[Sequence[int]]) -> dict[int, list[Written]]:
        """Finished batches by number; a line that does not fit the batches ends what is used."""
        found: dict[int, list[Written]] = {}
        for place, line in enumerate(self._lines):
            texts, number = _texts_of(line.value), line.value.get("batch", -1)
            known = type(number) is int and 0 <= number < len(batches)
            if not known or texts is None or len(texts) != len(batches[number]):
                self._cut(line.start, len(self._lines) - place)
                break
            found[number] = texts
        self.n_resumed = sum(map(len, found.values()))
        if found:
            logger.info("steering study: goes on after %s of %s batches", len(found), len(batches))
        return found

    def append(self, number: int, texts: Sequence[Written]) -> None:
        """Add a finished batch; it is on the disk when this returns."""
        self._write(
            {
                "batch": number,
                "texts": [t.text for t in texts],
                "n_edited": [t.n_edited for t in texts],
                "norms": [t.norm for t in texts],
            }
        )

    def remove(self) -> None:
        """Remove the file; what it held stands in the tables."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        self._handle.seek(0)
        data = self._handle.read()
        lines = list(_whole_lines(data))
        n_lines = data.count(b"\n") + bool(data and not data.endswith(b"\n"))
        if not lines or lines[0].value != self._header:
            if n_lines:
                logger.warning(
                    "steering study: %s holds texts of other settings (%s lines); it begins anew",
                    self.path,
                    n_lines,
                )
            self._handle.truncate(0)
            self._write(self._header)
            return
        self._lines = lines[1:]
        if len(lines) < n_lines:
            self._cut(lines[-1].stop, n_lines - len(lines))

    def _cut(self, start: int, n_dropped: int) -> None:
        self.n_dropped += n_dropped
        logger.warning(
            "steering study: %s damaged line(s) of %s dropped; their texts are written again",
            n_dropped,
            self.path,
        )
        # Cut in place: what stands before is not written again, so no kill can lose it.
        self._handle.truncate(start)

    def _write(self, value: Mapping[str, Any]) -> None:
        # Escapes, because a text can hold half of a surrogate pair.
        self._handle.write((json.dumps(value, allow_nan=False) + "\n").encode("ascii"))
        self._handle.flush()
        os.fsync(self._handle.fileno())


@dataclass(frozen=True)
class _Line:
    value: dict[str, Any]
    start: int
    stop: int


def _whole_lines(data: bytes) -> Iterator[_Line]:
    """JSON objects from the start up to the first line that is torn or damaged."""
    start = 0
    for line in data.split(b"\n")[:-1]:
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            return
        if not isinstance(value, dict):
            return
        yield _Line(value, start, start + len(line) + 1)
        start += len(line) + 1


def _texts_of(line: dict[str, Any]) -> list[Written] | None:
    columns: list[list[Any]] = []
    for name, kind in (("texts", str), ("n_edited", int), ("norms", float)):
        column = line.get(name)
        if not isinstance(column, list) or not all(type(value) is kind for value in column):
            return None
        columns.append(column)
    if len({len(column) for column in columns}) > 1:
        return None
    return [Written(*row) for row in zip(*columns, strict=True)]
