"""Fixtures shared by all tests: tiny random models, a seeded generator, the default model."""

import os
from collections.abc import Callable

# Two workers share two cores; more threads than that wait for each other. Children inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# On some processors MKL's sums depend on where an array lies in memory, which differs between the
# processes whose files are compared byte by byte.
os.environ.setdefault("MKL_CBWR", "AVX2")

import numpy as np
import pytest

from affectlens.data.models import LanguageModel, load_model
from affectlens.data.tiny import FAMILIES, tiny_model


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], LanguageModel]:
    """One shared tiny model for each family; a test that changes a model makes its own."""
    made: dict[str, LanguageModel] = {}

    def get(family: str = "llama") -> LanguageModel:
        if family not in made:
            made[family] = tiny_model(family)
        return made[family]

    return get


@pytest.fixture(params=FAMILIES)
def lm(request: pytest.FixtureRequest, tiny: Callable[[str], LanguageModel]) -> LanguageModel:
    """A tiny model of each of the four families in turn."""
    return tiny(request.param)


@pytest.fixture(scope="session")
def tiny_llama(tiny: Callable[[str], LanguageModel]) -> LanguageModel:
    return tiny("llama")


@pytest.fixture(scope="session")
def default_lm() -> LanguageModel:
    """The default model; mark the tests that ask for it with `default_model`."""
    return load_model()
