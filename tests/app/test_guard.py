"""A misfit that only a measurement shows is refused by every stage, unless it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import affectlens as al
from affectlens.features.misfits import MISFITS, misfit_of
from affectlens.guard import ensure_checked, recall
from affectlens.sae.errors import SAEError
from affectlens.training.check import SAECheck


@pytest.fixture(scope="module")
def lm() -> Any:
    return al.load_model("tiny:llama")


@pytest.fixture(scope="module")
def battery() -> Any:
    return al.load_battery().select(emotions=["grief", "rage"], limit=8)


@pytest.fixture(scope="module")
def folder(lm: Any, battery: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained SAE and its store."""
    place = tmp_path_factory.mktemp("guard")
    store = al.harvest(
        lm, "default", layer=2, out=place / "acts", avoid=battery, max_tokens=4000, quiet=True
    )
    al.train(store, out=place / "sae", d_sae=96, k=8, n_samples=6000, batch_size=512, quiet=True)
    return place


def spoilt(folder: Path) -> Any:
    """The SAE with an encoder twenty times too large: width, place and model still agree."""
    sae = al.load_sae(folder / "sae")
    with torch.no_grad():
        sae.sae.W_enc.mul_(20)
    return sae


# A model of random weights predicts nothing that a reconstruction could keep.
NOISE = ("loss-recovered",)


def test_every_stage_refuses_what_the_check_measured(lm: Any, battery: Any, folder: Path) -> None:
    good = al.load_sae(folder / "sae")
    found = al.search(lm, good, battery, n_permutations=100, min_items=2, allow_misfit=NOISE)
    chosen = found.top("all", 1, rising=False)
    calls = {
        "search": lambda sae, **k: al.search(lm, sae, battery, n_permutations=100, **k),
        "intervene": lambda sae, **k: al.intervene(
            lm, sae, chosen, battery, n_random_sets=1, quiet=True, **k
        ),
        "steer": lambda sae, **k: al.steer(lm, sae, chosen, max_new_tokens=1, quiet=True, **k),
    }
    for name, call in calls.items():
        bad = spoilt(folder)
        with pytest.raises(SAEError, match="--allow-misfit fvu"):
            call(bad)
        assert bad.fit is not None and "fvu" in bad.fit.failed, name
        with pytest.raises(SAEError, match="found a misfit"), al.clamped(lm, bad, {0: 1.0}):
            pass


def test_what_is_overridden_is_recorded(lm: Any, battery: Any, folder: Path) -> None:
    bad = spoilt(folder)
    ensure_checked(bad, lm)
    assert bad.fit is not None
    allowed = tuple(bad.fit.failed)
    found = al.search(lm, bad, battery, n_permutations=100, allow_misfit=allowed)
    assert [said.partition(":")[0] for said in found.summary.misfits] == list(allowed)


def test_an_sae_that_fits_is_checked_once(
    lm: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import affectlens.guard as guard

    count = 0
    real = guard.check_sae

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(guard, "check_sae", counted)
    sae, file = al.load_sae(folder / "sae"), tmp_path / "check.json"
    ensure_checked(sae, lm, file=file)
    ensure_checked(sae, lm, file=file)
    assert count == 1 and SAECheck.read(file).model_fingerprint == lm.fingerprint
    again = al.load_sae(folder / "sae")
    ensure_checked(again, lm, file=file)
    assert count == 1 and again.fit == sae.fit
    other = al.load_model("tiny:gpt2")
    ensure_checked(again, other, file=file)
    assert count == 2 and again.fit is not None
    assert again.fit.model_fingerprint == other.fingerprint


def test_a_damaged_or_foreign_check_is_not_believed(lm: Any, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    ensure_checked(al.load_sae(folder / "sae"), lm, file=file)
    bad = spoilt(folder)
    bad.info = type(bad.info)(**{**vars(bad.info), "sha256": "0" * 64})
    recall(bad, file)
    assert bad.fit is None
    file.write_text(file.read_text()[:-20])
    good = al.load_sae(folder / "sae")
    recall(good, file)
    assert good.fit is None
    recall(good, tmp_path / "none.json")
    assert good.fit is None


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("FVU", "fvu"),
        ("loss recovered (mean)", "loss-recovered"),
        ("loss recovered (zero)", "loss-recovered"),
        ("input scale", "input-scale"),
        ("store hook", "hook"),
        ("mask rule", "mask-rule"),
        ("L0", "l0"),
    ],
)
def test_every_failing_line_can_be_named(line: str, name: str) -> None:
    assert misfit_of(line) == name and name in MISFITS
