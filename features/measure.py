"""The effect of interventions on the emotion readout, from residuals that are captured once.

The residual at the SAE's hook does not depend on the edit. It is captured once for every text and
suffix; an edit is then a function of stored numbers, and only the blocks above the hook are run on
its result:

1. the edit of each job is applied to the stored residual, outside any forward pass;
2. rows that it leaves as they are have an effect of exactly zero; they are not run, only counted;
3. the changed rows of all jobs are put into batches of like length, the suffixes of one text as
   the branches of one row (`resumed`), and run from the hook on, with logits where a row ends.

The result is that of a full forward pass with the edit on, up to float rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from affectlens.data.models import LanguageModel
from affectlens.features.edited_rows import EditedRows
from affectlens.features.jobs import Floats, Job, JobPlan, Measured
from affectlens.features.prepared_texts import PreparedTexts
from affectlens.features.readouts import Readout
from affectlens.features.stored_rows import StoredRows
from affectlens.sae.model import SparseAutoencoder

QUEUE_BYTES = 2**28
"""Edited residuals that wait for a forward pass, at most (and those of one block more)."""


class Meter:
    """Texts prepared once (captured, unedited readout), measured many times.

    Args:
        lm: the model.
        sae: its autoencoder, on the model's device; its hook is where the residual is edited.
        texts: what is read.
        readout: how it is read.
        batch_size: rows that are run together; a batch holds as many tokens as that many rows of
            the longest text.
        share_beginnings: run the suffixes of a text as branches of one row, where this model gives
            the same logits that way (checked on every text). Turn it off to open edits of other
            layers around `measure`: those need rows that are run one by one.
        max_bytes: limit of stored residuals and unedited distributions, for each text about 4 bytes
            * (tokens * d_model + n_templates * d_vocab). Texts past it are captured anew in every
            `measure_many`. Working memory comes on top: `QUEUE_BYTES` of edited residuals,
            `stored_rows.LATENT_BYTES` of latents, and a batch's activations and logits.

    Attributes:
        names: columns of the readout.
        n_texts: number of texts.
        unedited: [n_texts, n_names] readout of the unedited model.

    Raises:
        HookError: the SAE's hook lies outside the model.
        StimulusError: no text, or one that is empty or too long.
    """

    def __init__(
        self,
        lm: LanguageModel,
        sae: SparseAutoencoder,
        texts: Sequence[str],
        readout: Readout,
        *,
        batch_size: int = 16,
        share_beginnings: bool = True,
        max_bytes: int = 2**30,
    ) -> None:
        self._lm, self.sae, self._readout = lm, sae, readout
        self.n_texts, self.names = len(texts), readout.names
        self._texts = PreparedTexts(
            lm,
            sae.info.hook_name,
            readout,
            texts,
            batch_size=batch_size,
            share_beginnings=share_beginnings,
            max_bytes=max_bytes,
        )
        self.unedited: Floats = readout.scores(self._texts.logp).numpy()

    @property
    def shares_beginnings(self) -> list[bool]:
        """Whether the suffixes of a text are run as branches of one row, for each text."""
        shares = dict[int, bool]()
        for number in range(len(self._texts)):
            block = self._texts.block(number)
            shares |= dict.fromkeys(map(int, block.texts), block.shares)
        return [shares[text] for text in range(self.n_texts)]

    def measure(self, job: Job) -> Measured:
        """Measure one condition, see `measure_many`."""
        return self.measure_many([job])[0]

    @torch.inference_mode()
    def measure_many(
        self, jobs: Sequence[Job], done: Callable[[int], object] | None = None
    ) -> list[Measured]:
        """Measure conditions together, which fills batches better than one after the other.

        Args:
            jobs: the conditions.
            done: called as the work goes on with the number of jobs that were finished since.

        Raises:
            ConfigError: a text outside the meter or named twice, specs that are no list of specs,
                that do not fit the SAE or the texts, or a result that is not finite.
        """
        plans = [JobPlan(job, self.sae, self.n_texts, len(self.names)) for job in jobs]
        progress = _Progress(sum(len(p.texts) for p in plans), len(plans), done)
        waiting = EditedRows(self._lm, self._readout, self._texts)
        for number in range(len(self._texts) if plans else 0):
            block = self._texts.block(number)
            rows = StoredRows(self.sae, block)
            for plan in plans:
                edited = plan.apply(block, rows)
                if edited is not None:
                    waiting.add(plan, block, edited)
                progress.add(plan.n_measured_in(block))
                if waiting.n_bytes > QUEUE_BYTES:
                    waiting.run()
            if not self._texts.is_kept(number):
                waiting.run()
        waiting.run()
        return [plan.measured() for plan in plans]


class _Progress:
    """Tells how many jobs' worth of texts were worked through."""

    def __init__(self, total: int, n_jobs: int, done: Callable[[int], object] | None) -> None:
        self._total, self._n_jobs, self._done = total, n_jobs, done
        self._texts = self._told = 0

    def add(self, n_texts: int) -> None:
        """Count texts."""
        self._texts += n_texts
        finished = self._texts * self._n_jobs // max(self._total, 1)
        if self._done is not None and finished > self._told:
            self._done(finished - self._told)
        self._told = finished
