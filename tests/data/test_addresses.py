import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from affectlens.data.addresses import Address, find_blocks
from affectlens.data.errors import HookError, ModelError

PRE = Address(7, "resid_pre")
POST = Address(7, "resid_post")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("blocks.7.hook_resid_post", POST),
        ("blocks.7.hook_resid_pre", PRE),
        ("blocks.7.hook_out", POST),
        ("blocks.7.hook_in", PRE),
        ("model.layers.7", POST),
        ("layers.7", POST),
        ("transformer.h.7", POST),
        ("gpt_neox.layers.7", POST),
        ("resid_post.7", POST),
        ("resid_pre.7", PRE),
        (" 7 ", POST),
        (7, POST),
        (np.int64(7), POST),
        (PRE, PRE),
    ],
)
def test_accepted_forms(text, address):
    assert Address.parse(text) == address


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 999), st.sampled_from(["resid_pre", "resid_post"]))
def test_name_is_read_back(layer, site):
    address = Address(layer, site)
    assert Address.parse(address.name) == address


@pytest.mark.parametrize(
    "bad", ["blocks.x.hook_resid_post", "blocks.1.hook_mlp_out", "", "-1", -1, True, 1.5, None]
)
def test_other_forms_are_refused(bad):
    with pytest.raises(HookError, match="unknown hook address"):
        Address.parse(bad)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        assert Address.parse(text).layer >= 0
    except HookError as error:
        assert "unknown hook address" in str(error)


def test_layer_outside_the_model_names_the_range():
    assert Address(3).check(4) == Address(3)
    with pytest.raises(HookError, match=r"layer 4 does not exist: the model has 4 blocks, 0 to 3"):
        Address(4).check(4)


def test_blocks_of_every_family(lm):
    assert len(find_blocks(lm.model)) == 4
    assert find_blocks(lm.model) is lm.blocks


class _Config:
    num_hidden_layers = 3


def test_an_unknown_layout_is_found_by_its_length():
    model = nn.Module()
    model.config = _Config()
    model.trunk = nn.ModuleList([nn.Linear(1, 1) for _ in range(3)])
    model.heads = nn.ModuleList([nn.Linear(1, 1)])
    assert find_blocks(model) is model.trunk


def test_two_candidates_are_listed():
    model = nn.Module()
    model.config = _Config()
    model.encoder = nn.ModuleList([nn.Linear(1, 1) for _ in range(3)])
    model.decoder = nn.ModuleList([nn.Linear(1, 1) for _ in range(3)])
    with pytest.raises(ModelError, match=r"encoder \(3 modules\), decoder \(3 modules\)"):
        find_blocks(model)
