"""`affectlens battery rate`: label a battery's items blindly in the terminal, and sum up labels."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli_battery_input import DEFAULT, Name
from affectlens.cli_options import Common
from affectlens.console import Console, visible
from affectlens.data.errors import ConfigError

if TYPE_CHECKING:
    from affectlens.data.agreement import Agreement, Estimate
    from affectlens.data.ratings import RatingLog
    from affectlens.data.stimuli import Battery

LIMIT = "stop after N answers"
EXAMPLES = """affectlens battery rate --rater anna --out ratings/anna.jsonl
affectlens battery rate --rater anna --out ratings/anna.jsonl --answers answers.jsonl
affectlens battery rate --out ratings --summary"""

_UNDO, _STOP = "u", "q"
_SHOWN = 20


def rate(
    common: Common,
    battery: Name = DEFAULT,
    rater: Annotated[str | None, typer.Option(help="who answers", metavar="NAME")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="file of the answers, begun or gone on with; for --summary also a folder",
            metavar="FILE",
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            help="take the answers from JSON lines, not from the terminal", metavar="FILE"
        ),
    ] = None,
    summary: Annotated[  # noqa: FBT002 - typer's way of declaring a flag
        bool, typer.Option("--summary", help="show agreement with the intent and between raters")
    ] = False,
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--with", help="further ratings files or folders for --summary", metavar="PATH"
        ),
    ] = None,
    second_reading: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--second-reading",
            help="also the second reading by a language model that ships with the battery",
        ),
    ] = False,
) -> None:
    """Label items one by one, without seeing what they are meant to be.

    Every answer is written at once; the same command goes on where it was stopped. --seed sets the
    order. With --summary nothing is asked: accuracy, kappa, confusions and differing items.
    """
    from affectlens.data.stimuli import load_battery

    if summary:
        files = [*([out] if out is not None else []), *(others or [])]
        _summary(common, load_battery(battery), battery, files, rater, shipped=second_reading)
        return
    if rater is None or not rater.strip() or out is None:
        raise ConfigError("give --rater NAME and --out FILE: who answers, and the file to write")
    if others or second_reading:
        raise ConfigError("--with and --second-reading are for --summary")
    if answers is not None:
        _import(common, load_battery(battery), rater, out, answers)
        return
    if common.console.json:
        raise ConfigError("--json goes with --summary or --answers, not with questions")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "rating asks questions and needs a terminal; run it in one, or give the answers as "
            "JSON lines with --answers FILE"
        )
    _rate(common, load_battery(battery), rater, out)


@dataclass
class Sitting:
    """One sitting of a rater; `ask` gives the typed line, or None at the end of input.

    Attributes:
        log: the file, open.
        texts: text of every item.
        hashes: SHA-256 of every text.
        rater: who answers.
        queue: ids still to be shown, next first.
        ask: puts a question.
        say: writes a line.
        clock: seconds, for the time an answer takes.
    """

    log: RatingLog
    texts: dict[str, str]
    hashes: dict[str, str]
    rater: str
    queue: list[str]
    ask: Callable[[str], str | None]
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    given: int = field(default=0, init=False)

    def run(self, limit: int | None = None) -> int:
        """Ask until all is answered, the rater stops, or `limit` answers; how many were given."""
        while self.queue and (limit is None or self.given < limit):
            item = self.queue[0]
            self.say(f"\n{len(self.log.rows) + 1} of {len(self.texts)}\n\n{self.texts[item]}\n")
            begun = self.clock()
            emotion = self._choice("emotion", self._keys(), f"{_keys_line()}\nemotion")
            if emotion == _STOP:
                break
            if emotion == _UNDO:
                self._undo()
                continue
            intensity = self._choice("intensity", tuple("0123456"), "intensity 0 (none) to 6")
            if intensity == _STOP:
                break
            if intensity == _UNDO:
                continue
            seconds = round(self.clock() - begun, 2)
            comment = self.ask("comment (Enter for none): ") or ""
            self._add(item, emotion, int(intensity), seconds, comment)
        return self.given

    def _add(self, item: str, key: str, intensity: int, seconds: float, comment: str) -> None:
        from affectlens.data.ratings import KEYS, Rating

        # A terminal that does not speak UTF-8 hands over bytes that no file may hold.
        clean = comment.strip().encode("utf-8", "replace").decode("utf-8")
        self.log.add(
            Rating.model_validate(
                {
                    "item": item,
                    "text_sha256": self.hashes[item],
                    "rater": self.rater,
                    "emotion": KEYS[key],
                    "intensity": intensity,
                    "seconds": seconds,
                    "time": datetime.now(UTC).isoformat(timespec="seconds"),
                    "comment": clean,
                }
            )
        )
        self.queue.pop(0)
        self.given += 1

    def _undo(self) -> None:
        last = self.log.undo()
        if last is None:
            self.say("there is nothing to undo")
            return
        self.queue.insert(0, last.item)
        self.given -= 1
        self.say("the last answer is taken back")

    def _choice(self, what: str, allowed: Sequence[str], prompt: str) -> str:
        while True:
            typed = self.ask(f"{prompt}: ")
            if typed is None:
                return _STOP
            typed = typed.strip().lower()
            if typed in (*allowed, _UNDO, _STOP):
                return typed
            self.say(
                f"{what}: type one of {', '.join(allowed)}, or {_UNDO} to go back, {_STOP} to stop"
            )

    @staticmethod
    def _keys() -> tuple[str, ...]:
        from affectlens.data.ratings import KEYS

        return tuple(KEYS)


def _keys_line() -> str:
    from affectlens.data.ratings import KEYS, OTHER

    shown = [f"{k} {'other or unclear' if a == OTHER else a}" for k, a in KEYS.items()]
    return "  ".join([*shown, f"({_UNDO} undo, {_STOP} stop)"])


def order_of(battery: Battery, rater: str, seed: int) -> tuple[str, ...]:
    """The order in which this rater sees the items; the same for the same seed and name."""
    import hashlib

    import numpy as np

    from affectlens.data.ratings import presentation_order

    # Raters see different orders, so that tiredness does not fall on the same items.
    name = int.from_bytes(hashlib.sha256(rater.encode("utf-8")).digest()[:8], "little")
    return presentation_order(battery, np.random.default_rng([seed, name]))


def _rate(common: Common, battery: Battery, rater: str, out: Path) -> None:
    from affectlens.data.ratings import open_log, text_sha256

    console = common.console
    with open_log(out, battery, rater) as log:
        _tell_torn(console, out, log.n_torn)
        done = {r.item for r in log.rows}
        order = order_of(battery, rater, common.seed or 0)
        sitting = Sitting(
            log=log,
            texts={i.id: i.text for i in battery.items},
            hashes={i.id: text_sha256(i.text) for i in battery.items},
            rater=rater,
            queue=[name for name in order if name not in done],
            ask=_ask,
            say=console.say,
        )
        console.say(
            f"{len(done)} of {len(battery.items)} items are answered. What does the main person of "
            "each scene feel? Answer by number, 9 for nothing in particular, then how strong it is."
        )
        given = sitting.run(common.limit)
        console.say(f"\n{given} answers given, {len(log.rows)} of {len(battery.items)} in {out}")


def _ask(prompt: str) -> str | None:
    try:
        return input(visible(prompt))
    except EOFError:
        return None


def _import(common: Common, battery: Battery, rater: str, out: Path, answers: Path) -> None:
    from affectlens.data.errors import StimulusError
    from affectlens.data.ratings import open_log, read_answers

    console = common.console
    found = read_answers(answers, battery, rater)
    _tell_torn(console, answers, found.n_torn)
    with open_log(out, battery, rater) as log:
        _tell_torn(console, out, log.n_torn)
        have = {r.item: r for r in log.rows}
        for line, row in zip(found.lines, found.rows, strict=True):
            old = have.get(row.item)
            if old is not None and (old.emotion, old.intensity) != (row.emotion, row.intensity):
                raise StimulusError(
                    f"{answers}, line {line}: item {row.item!r} has another answer in {out}; "
                    "nothing was imported. Take one of the two out"
                )
        new = [row for row in found.rows if row.item not in have][: common.limit]
        for row in new:
            log.add(row)
        total = len(log.rows)
    same = len([r for r in found.rows if r.item in have])
    console.say(
        f"{len(new)} answers imported, {same} were there before; {total} of {len(battery.items)} "
        f"items in {out}"
    )
    console.result(
        {
            "path": out,
            "rater": rater,
            "imported": len(new),
            "already_there": same,
            "answered": total,
            "n_items": len(battery.items),
            "torn_lines": found.n_torn + log.n_torn,
        }
    )


def _summary(
    common: Common,
    battery: Battery,
    name: str,
    places: Sequence[Path],
    rater: str | None,
    *,
    shipped: bool,
) -> None:
    from affectlens.data.agreement import agreement
    from affectlens.data.ratings import read_ratings, second_reading

    files = [f for p in places for f in (sorted(p.glob("*.jsonl")) if p.is_dir() else [p])]
    if shipped:
        place = second_reading(name)
        if place is None:
            raise ConfigError(f"battery {name!r} ships without a second reading")
        files.append(place)
    if not files:
        raise ConfigError("nothing to sum up: give --out FILE or folder, --with, --second-reading")
    rows, torn = [], 0
    for file in dict.fromkeys(files):
        found = read_ratings(file)
        found.check(battery)
        _tell_torn(common.console, file, found.n_torn)
        torn += found.n_torn
        rows += [r for r in found.rows if rater in (None, r.rater)]
    result = agreement(battery, rows, seed=common.seed or 0)
    _show(common.console, result, common.limit or _SHOWN)
    common.console.result({**asdict(result), "files": files, "torn_lines": torn})


def _show(console: Console, result: Agreement, most: int) -> None:
    console.say(
        f"{result.battery}: {result.n_items} items, {result.n_unrated} rated by nobody; intervals: "
        f"95 %, bootstrap over {result.unit}s\n"
    )
    console.table(
        ["rater", "against", "items", "accuracy", "95 %", "Cohen's kappa", "95 %"],
        [
            [c.a, c.b, c.n, c.accuracy.value, _range(c.accuracy), c.kappa.value, _range(c.kappa)]
            for c in (*result.with_intent, *result.between)
        ],
    )
    if result.fleiss is not None:
        f = result.fleiss
        value = "undefined" if f.kappa.value is None else f"{f.kappa.value:.3f}"
        console.say(
            f"\nFleiss' kappa of {len(f.raters)} raters on {f.n} items: {value} {_range(f.kappa)}"
        )
    for comparison in result.with_intent:
        table = comparison.table
        console.say(f"\n{comparison.a} (rows) against the intent (columns)")
        console.table(
            ["", *table.columns],
            [[name, *map(int, row)] for name, row in zip(table.index, table.to_numpy())],
        )
    if result.intensities:
        console.say("\nmean intensity, 0 to 6")
        console.table(
            ["rater", "split", "items", "mean"],
            [[m.rater, m.split, m.n, m.mean] for m in result.intensities],
        )
    n = len(result.differences)
    console.say(f"\n{n} answers differ from the intent{'; the first:' if n > most else ''}")
    if n:
        console.table(
            ["item", "intent", "rater", "answer", "intensity", "comment"],
            [
                [d.item, d.intent, d.rater, d.emotion, d.intensity, d.comment]
                for d in result.differences[:most]
            ],
        )


def _range(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "-"
    return f"{estimate.low:.3f} to {estimate.high:.3f}"


def _tell_torn(console: Console, path: Any, n: int) -> None:
    if n:
        console.say(f"{path}: {n} line was cut short and left out; its item is asked again")
