"""The one thread that owns the model: loads it, takes requests from a queue, writes by turns.

Requests that wait together and share a temperature become one batch. Batches that are under way
take turns, a token each, so a request that comes later begins at once and does not wait until all
earlier texts are done. `max_batches` bounds how many; the others wait, and are told their place.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from affectlens.data.errors import AffectLensError
from affectlens.demo.asked import Asked, check_features
from affectlens.demo.settings import DemoSettings

if TYPE_CHECKING:
    from affectlens.demo.batches import Batch, Event, Finished, Job
    from affectlens.demo.world import World

logger = logging.getLogger("affectlens")

State = Literal["loading", "ready", "failed", "stopped"]


@dataclass(frozen=True)
class Status:
    """How far the engine is; `seconds` is how long loading took, or has taken so far."""

    state: State
    message: str
    seconds: float


class QueueFullError(AffectLensError):
    """As many texts wait for the model as may."""


class NotReadyError(AffectLensError):
    """The model is still being loaded, or could not be."""


class Engine:
    """Runs everything that touches the model on a thread of its own.

    Args:
        load: makes the world; called on the engine's thread.
        settings: the limits.
    """

    def __init__(self, load: Callable[[], World], settings: DemoSettings) -> None:
        self._load, self.settings = load, settings
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._stopping = False
        self._began = time.monotonic()
        self._status = Status("loading", "the model is being loaded", 0.0)
        self._world: World | None = None
        self._thread = threading.Thread(target=self._run, name="affectlens-demo", daemon=True)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread; texts that are under way are told so."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        # A model that is still being loaded cannot be interrupted, and is not waited for.
        self._thread.join(timeout if self._status.state != "loading" else 0)

    @property
    def status(self) -> Status:
        """Where it stands."""
        now = self._status
        if now.state != "loading":
            return now
        return Status("loading", now.message, round(time.monotonic() - self._began, 1))

    @property
    def world(self) -> World:
        """What was loaded.

        Raises:
            NotReadyError: nothing yet.
        """
        if self._world is None:
            raise NotReadyError(f"{self._status.message}; try again in a moment")
        return self._world

    def submit(self, asked: Asked, emit: Callable[[Event], None]) -> Job:
        """Queue a request; its events go to `emit`, on the engine's thread.

        Raises:
            NotReadyError: the model is not loaded.
            QueueFullError: too many wait.
            ConfigError: features that the SAE does not have, or a clamp without a unit.
        """
        from affectlens.demo.batches import Job

        world = self.world
        maxima = world.catalogue.maxima
        check_features(asked, d_sae=world.sae.d_sae, sae=world.catalogue.sae, maxima=maxima)
        job = Job(asked, emit)
        with self._changed:
            if self._stopping:
                raise NotReadyError("the server is being stopped")
            self._waiting = [other for other in self._waiting if not other.cancelled.is_set()]
            if len(self._waiting) >= self.settings.max_waiting:
                raise QueueFullError(
                    f"{len(self._waiting)} texts wait for the model already; try again in a moment"
                )
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Nobody wants this text any more; its rows are dropped before the next token."""
        job.cancelled.set()
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._world = self._load()
        except Exception as error:  # noqa: BLE001 - whatever it is, the page must say so
            known = isinstance(error, AffectLensError)
            said = str(error) if known else f"{type(error).__name__}: {error}"
            logger.error("the model could not be loaded: %s", said)
            self._set("failed", f"the model could not be loaded: {said}")
            return
        self._set("ready", f"{self._world.lm.name} is loaded")
        logger.info("ready after %.1f s", self._status.seconds)
        active: list[Batch] = []
        try:
            while self._await_work(active):
                active += self._admitted(len(active))
                for batch in list(active):
                    self._turn(batch)
                active = [batch for batch in active if batch.running]
        finally:
            self._set("stopped", "the server was stopped")
            left = [job for batch in active for job in batch.jobs]
            for job in [*left, *self._waiting]:
                job.emit({"type": "error", "message": "the server was stopped"})

    def _set(self, state: State, message: str) -> None:
        seconds = round(time.monotonic() - self._began, 1)
        self._status = Status(state, message, seconds)

    def _await_work(self, active: Sequence[Batch]) -> bool:
        """Wait until there is something to do; False when the engine is to stop."""
        with self._changed:
            idle = not active
            while not (self._stopping or active or self._waiting):
                self._changed.wait()
            stopping = self._stopping
        if idle and not stopping:
            # Requests that come together share a batch.
            time.sleep(self.settings.gather_s)
        return not stopping

    def _admitted(self, n_active: int) -> list[Batch]:
        made: list[Batch] = []
        while n_active + len(made) < self.settings.max_batches:
            with self._changed:
                jobs = self._next_together()
            if not jobs:
                break
            ready = [job for job in jobs if self._prepared(job)]
            if ready:
                made += self._begun(ready)
        self._tell_places()
        return made

    def _next_together(self) -> list[Job]:
        """The first that waits, and those behind it that can share its batch."""
        self._waiting = [job for job in self._waiting if not job.cancelled.is_set()]
        if not self._waiting:
            return []
        heat = self._waiting[0].asked.temperature
        alike = [job for job in self._waiting if job.asked.temperature == heat]
        taken = alike[: self.settings.max_in_batch]
        self._waiting = [job for job in self._waiting if job not in taken]
        return taken

    def _tell_places(self) -> None:
        with self._changed:
            waiting = list(self._waiting)
        for place, job in enumerate(waiting, start=1):
            if job.place != place:
                job.place = place
                job.emit({"type": "queued", "place": place})

    def _prepared(self, job: Job) -> bool:
        try:
            ids = self.world.lm.token_ids(job.asked.prompt, label="the opening")
        except AffectLensError as error:
            job.emit({"type": "error", "message": str(error)})
            return False
        limit = self.settings.max_prompt_tokens
        if len(ids) > limit:
            job.emit(
                {
                    "type": "error",
                    "message": f"the opening has {len(ids)} tokens; at most {limit} are allowed",
                }
            )
            return False
        job.ids = tuple(ids)
        return True

    def _begun(self, jobs: Sequence[Job]) -> list[Batch]:
        from affectlens.demo.batches import Batch

        world = self.world
        try:
            batch = Batch(world.lm, world.sae, jobs, world.catalogue.maxima, self.settings.top_p)
        except AffectLensError as error:
            _tell_all(jobs, str(error))
            return []
        for job in jobs:
            job.emit({"type": "started", "together": len(jobs)})
        return [batch]

    def _turn(self, batch: Batch) -> None:
        try:
            for done in batch.step():
                self._finish(done)
        except AffectLensError as error:
            _tell_all(batch.jobs, str(error))
            batch.close()
        except Exception as error:
            logger.exception("a text could not be written")
            _tell_all(batch.jobs, f"unexpected {type(error).__name__}; the terminal says more")
            batch.close()

    def _finish(self, done: Finished) -> None:
        job, world = done.job, self.world
        job.emit(done.event)
        if not job.cancelled.is_set():
            if world.readout is None:
                job.emit({"type": "readout", "why": world.no_readout})
            else:
                job.emit(world.readout.event(done.texts))
        job.emit({"type": "done"})


def _tell_all(jobs: Sequence[Job], message: str) -> None:
    for job in jobs:
        job.emit({"type": "error", "message": message})
