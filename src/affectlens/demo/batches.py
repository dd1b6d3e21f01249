"""Several requests written as one batch, the default and the steered text of each as two rows.

Both rows of a request draw from one random stream, so what differs is the edit alone. The number of
the stream is the request's seed, so requests with different seeds share a batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from affectlens.data.generation import Sampling, stream_ids
from affectlens.data.hooks import edit
from affectlens.data.models import LanguageModel
from affectlens.demo.asked import Asked
from affectlens.demo.pieces import Pieces, pieces_of
from affectlens.demo.traces import Trace, Values
from affectlens.features.interventions import EditTally, residual_edit
from affectlens.features.specs import AddLatents, Clamp, PerRow, Spec
from affectlens.sae.model import SparseAutoencoder

Event = dict[str, Any]
SIDES = ("default", "steered")


@dataclass(eq=False)
class Job:
    """One request in work.

    Attributes:
        asked: what is wanted.
        emit: takes the events of this request; may be called from the engine's thread.
        ids: token ids of the prompt.
        cancelled: set by whoever no longer wants the text.
        began: when it was asked for, by `time.monotonic`.
        place: place in the queue that it was told last; 0 for none.
    """

    asked: Asked
    emit: Callable[[Event], None]
    ids: tuple[int, ...] = ()
    cancelled: threading.Event = field(default_factory=threading.Event)
    began: float = field(default_factory=time.monotonic)
    place: int = 0


@dataclass(eq=False)
class _Side:
    """One of the two texts: its row, how it is cut into pieces, and how far it is."""

    row: int
    pieces: Pieces
    text: str = ""
    n_tokens: int = 0
    n_read: int = 0
    ended: bool = False

    @property
    def unread(self) -> bool:
        """Whether the activation on its last token is not known yet."""
        return self.n_read < self.n_tokens


@dataclass(frozen=True)
class Finished:
    """A request whose texts are complete, and the texts with the prompt before them."""

    job: Job
    texts: tuple[str, str]
    event: Event


def specs_of(asked: Asked, maxima: Mapping[int, float]) -> tuple[Spec, ...]:
    """The edit of a request; empty if nothing is turned."""
    turned = [t for t in asked.features if t.edits]
    clamps = [t for t in turned if t.mode == "clamp"]
    adds = [t for t in turned if t.mode == "add"]
    specs: list[Spec] = []
    if clamps:
        values = tuple(t.value * maxima[t.feature] for t in clamps)
        specs.append(Clamp(tuple(t.feature for t in clamps), values))
    if adds:
        specs.append(AddLatents(tuple(t.feature for t in adds), tuple(t.value for t in adds)))
    return tuple(specs)


class Batch:
    """Requests that are written together; `step` writes one token of each of their texts.

    The model is hooked during a step only, so several batches can take turns, and a batch that is
    dropped leaves nothing behind.
    """

    def __init__(
        self,
        lm: LanguageModel,
        sae: SparseAutoencoder,
        jobs: Sequence[Job],
        maxima: Mapping[int, float],
        top_p: float,
    ) -> None:
        self._lm, self._hook = lm, sae.info.hook_name
        self.jobs = list(jobs)
        edits: list[tuple[Spec, ...]] = []
        for job in jobs:
            edits += [(), specs_of(job.asked, maxima)]
        edit_fn, self._tally = residual_edit(sae, [PerRow(tuple(edits))])
        wanted = [[t.feature for t in job.asked.features] for job in jobs for _ in SIDES]
        # Above the edit both rows of a request hold the same, so one of the prompts is read.
        self._trace = Trace(sae, wanted, edit_fn, told=range(0, len(wanted), 2))
        self._sides = {
            id(job): [_Side(2 * n + s, Pieces(lm.tokenizer, job.ids)) for s in range(2)]
            for n, job in enumerate(jobs)
        }
        # One more, whose pass reads the activation on the last token that is shown.
        self._left = max(job.asked.max_tokens for job in jobs) + 1
        self._n_steps = 0
        sampling = Sampling(self._left, jobs[0].asked.temperature, top_p, seed=0)
        rows = [job.ids for job in jobs for _ in SIDES]
        streams = [job.asked.seed for job in jobs for _ in SIDES]
        self._steps = stream_ids(lm, rows, sampling, streams=streams)

    @property
    def running(self) -> bool:
        """Whether there is anything left to write."""
        return bool(self.jobs) and self._left > 0

    def step(self) -> list[Finished]:
        """Write the next token of every row; returns the requests that are complete with it.

        Raises:
            HookError, ConfigError, ModelError: the edit could not be made.
        """
        self.jobs = [job for job in self.jobs if not job.cancelled.is_set()]
        if not self.running:
            return []
        with edit(self._lm, {self._hook: self._trace}):
            tokens = next(self._steps, None)
        self._left -= 1
        if self._n_steps == 0:
            for job in self.jobs:
                self._tell_prompt(job)
        self._n_steps += 1
        done = [job for job in self.jobs if self._advance(job, tokens)]
        self.jobs = [job for job in self.jobs if job not in done]
        return [self._finished(job) for job in done]

    def close(self) -> None:
        """Stop writing."""
        self._steps = iter(())
        self.jobs = []

    def _tell_prompt(self, job: Job) -> None:
        row = self._sides[id(job)][0].row
        texts = pieces_of(self._lm.tokenizer, job.ids)
        acts = [_rounded(values) for values in self._trace.prompts[row]]
        job.emit({"type": "prompt", "tokens": texts, "acts": acts})

    def _advance(self, job: Job, tokens: Sequence[int | None] | None) -> bool:
        """Tell what this step brought for one request; True if it is complete."""
        sides = self._sides[id(job)]
        told: Event = {"type": "step", "tokens": [None, None], "acts": [None, None]}
        for place, side in enumerate(sides):
            if side.unread:
                told["acts"][place] = {"values": _rounded(self._trace.latest[side.row])}
                side.n_read += 1
            token = None if tokens is None else tokens[side.row]
            side.ended = side.ended or token is None
            if token is not None and not side.ended and side.n_tokens < job.asked.max_tokens:
                piece = side.pieces.add(token)
                side.text += piece
                side.n_tokens += 1
                told["tokens"][place] = piece
        if told["tokens"] != [None, None] or told["acts"] != [None, None]:
            job.emit(told)
        return all(
            (side.ended or side.n_tokens >= job.asked.max_tokens) and not side.unread
            for side in sides
        )

    def _finished(self, job: Job) -> Finished:
        sides = self._sides[id(job)]
        rest = [side.pieces.rest() for side in sides]
        texts = [job.asked.prompt + side.text + more for side, more in zip(sides, rest)]
        seconds = time.monotonic() - job.began
        event = {
            "type": "written",
            "rest": rest,
            "ended": ["stop" if side.ended else "length" for side in sides],
            "n_tokens": [side.n_tokens for side in sides],
            "seconds": round(seconds, 3),
            "share": _share(self._tally, self._trace, sides[1].row),
        }
        return Finished(job, (texts[0], texts[1]), event)


def _share(tally: EditTally, trace: Trace, row: int) -> float:
    """What was written to a row, as a share of its residual's norm over prompt and text."""
    if tally.row_norms is None or not trace.norms[row]:
        return 0.0
    return round(float(tally.row_norms[row] / trace.norms[row]), 4)


def _rounded(values: Values) -> Values:
    return None if values is None else [round(value, 4) for value in values]
