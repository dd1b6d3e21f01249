"""Edited rows of many jobs, waiting for a forward pass over the blocks above the hook."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from affectlens.data.models import LanguageModel
from affectlens.features.jobs import EditedTexts, JobPlan
from affectlens.features.prepared_texts import PreparedTexts, TextBlock
from affectlens.features.readouts import Readout
from affectlens.features.resumed import Stored, batches, last_logits


@dataclass(frozen=True, eq=False)
class _Waiting:
    """Changed rows of one text in one job.

    Attributes:
        stored: their tokens and edited residuals.
        suffixes: which rows of the text they are.
        pair: place of the text and job among those that wait.
    """

    stored: Stored
    suffixes: tuple[int, ...]
    pair: int


@dataclass(frozen=True, eq=False)
class _Pair:
    """A text of a job: the plan, the text's index, and its unedited distributions [n_main, v]."""

    plan: JobPlan
    text: int
    main: Tensor


class EditedRows:
    """Collects changed rows, runs them in batches of like length and writes the effects.

    All changed rows of a text and job are in one run, so that its readout is complete.

    Attributes:
        n_bytes: memory of the edited residuals that wait.
    """

    def __init__(self, lm: LanguageModel, readout: Readout, texts: PreparedTexts) -> None:
        self._lm, self._readout, self._texts = lm, readout, texts
        self._clear()

    def _clear(self) -> None:
        self._waiting: list[_Waiting] = []
        self._pairs: list[_Pair] = []
        self.n_bytes = 0

    def add(self, plan: JobPlan, block: TextBlock, edited: EditedTexts) -> None:
        """Take the rows that an edit changed; the others are counted as skipped."""
        for i, place in enumerate(edited.places):
            suffixes = tuple(int(j) for j in edited.changed[i].nonzero()[0])
            plan.n_run += len(suffixes)
            plan.n_skipped += edited.changed.shape[1] - len(suffixes)
            if not suffixes:
                continue
            self._pairs.append(_Pair(plan, int(block.texts[place]), block.main[place]))
            together = block.shares and bool(edited.alike[i, list(suffixes)].all())
            rows = block.stored[place].rows
            for group in rows.groups(suffixes) if together else [(j,) for j in suffixes]:
                stored = Stored.cut(rows.only(group), edited.resid[i, list(group)])
                self._waiting.append(_Waiting(stored, group, len(self._pairs) - 1))
                self.n_bytes += stored.resid.nbytes

    def run(self) -> None:
        """Run what waits and write effects and KL into the plans."""
        if not self._pairs:
            return
        logp = self._texts.logp[[pair.text for pair in self._pairs]]
        unedited = self._readout.scores(logp)
        kl = torch.zeros(len(self._pairs), dtype=torch.float64)
        for places in batches([w.stored.rows for w in self._waiting], self._texts.max_tokens):
            self._run_batch([self._waiting[i] for i in places], logp, kl)
        effect = (self._readout.scores(logp) - unedited).numpy()
        for i, pair in enumerate(self._pairs):
            row = pair.plan.row[pair.text]
            pair.plan.effect[row] = effect[i]
            pair.plan.kl[row] = max(0.0, float(kl[i]))  # below zero by rounding only
        self._clear()

    def _run_batch(self, waiting: list[_Waiting], logp: Tensor, kl: Tensor) -> None:
        """Put the log-probabilities of some rows in their places; add their part to `kl`."""
        logits = last_logits(self._lm, self._texts.layer, [w.stored for w in waiting])
        found = torch.log_softmax(logits.double().flatten(0, 1), dim=-1)
        pairs = [w.pair for w in waiting for _ in w.suffixes]
        suffixes = [j for w in waiting for j in w.suffixes]
        logp[pairs, suffixes] = found[:, list(self._readout.tokens)].cpu()
        main = self._texts.main
        at = [k for k, j in enumerate(suffixes) if j in main]
        if at:
            before = torch.stack(
                [self._pairs[pairs[k]].main[main.index(suffixes[k])] for k in at]
            ).double()
            parts = (before.exp() * (before - found[at])).sum(-1).cpu() / len(main)
            kl.index_add_(0, torch.tensor([pairs[k] for k in at]), parts)
