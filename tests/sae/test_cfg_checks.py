"""The configuration of an SAE: whatever stands in it, an SAEError or a working SAE."""

import json
from pathlib import Path

import pytest
import sae_lens
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affectlens.sae.cfg_checks import MAX_WIDTH
from affectlens.sae.errors import SAEError
from affectlens.sae.loading import load_sae
from affectlens.sae.model import SparseAutoencoder

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=12)
    | st.sampled_from([0, 1, 4, 25, 2**31, 10**9, 10**300, 1e300, "topk", "none", "float16"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner,
                                                                 max_size=3),
    max_leaves=4,
)  # fmt: skip
TOP = ("d_in", "d_sae", "dtype", "device", "k", "architecture", "apply_b_dec_to_input",
       "normalize_activations", "reshape_activations", "rescale_acts_by_decoder_norm", "metadata",
       "activation_fn", "activation_fn_kwargs", "finetuning_scaling_factor", "sae_lens_version",
       "hook_point", "integrity")  # fmt: skip
META = ("hook_name", "model_name", "model_fingerprint", "skip_first", "norm_limit", "centre", "k",
        "model_from_pretrained_kwargs", "sae_lens_version", "release", "revision",
        "to_dict")  # fmt: skip
HARD = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def opens_or_explains(folder: Path) -> bool:
    """Whether it opened; anything but an SAEError or a working SAE fails the test."""
    try:
        sae = load_sae(folder)
    except SAEError as error:
        assert len(str(error)) < 2000
        return False
    z = sae.encode(torch.ones(2, sae.d_in))
    assert z.shape == (2, sae.d_sae)
    assert sae.reconstruct(torch.ones(2, sae.d_in)).isfinite().all()
    return True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_in": "8"}, "d_in is '8'"),
        ({"d_in": True}, "d_in is True"),
        ({"d_sae": 10**12}, f"d_sae is 1000000000000, expected .* 1..{MAX_WIDTH}"),
        ({"d_sae": 10**9}, "d_sae is 1000000000"),
        ({"d_sae": 25}, r"W_enc is \[8, 24\].*\[8, 25\]"),
        ({"d_sae": 24.0}, r"d_sae is 24\.0"),
        ({"k": -1}, "k is -1"),
        ({"k": 25}, "k is 25, expected a positive number up to d_sae=24"),
        ({"k": 1e300}, r"k is 1e\+300"),
        ({"k": 10**300}, "k is 1000"),
        ({"k": 4.5}, r"k is 4\.5, expected a whole number"),
        ({"k": True}, "k is True"),
        ({"k": None}, "has no k"),
        ({"architecture": "magic"}, "unknown architecture 'magic'"),
        ({"architecture": ["topk"]}, "unknown architecture"),
        ({"architecture": None}, "unknown architecture None"),
        ({"metadata": 3}, "metadata must be"),
        ({"metadata": {"to_dict": 1}}, "cannot hold a field named 'to_dict'"),
        ({"metadata": {"__class__": 1}}, "cannot hold a field named '__class__'"),
        ({"metadata": {"self": 1}}, "cannot hold a field named 'self'"),
        ({"metadata": {"centre": "no"}}, "centre is 'no', expected true or false"),
        ({"metadata": {"norm_limit": -1}}, "norm_limit is -1, expected a number above 0"),
        ({"metadata": {"hook_name": 3}}, "hook_name is 3, expected text"),
        ({"metadata": {"k": 10**400}}, "metadata: k is 1000"),
        ({"metadata": {"model_from_pretrained_kwargs": {"center_writing_weights": "no"}}},
         "center_writing_weights is 'no'"),
        ({"dtype": "float99"}, "dtype is 'float99', expected one of bfloat16"),
        ({"dtype": ["float32"]}, "dtype is"),
        ({"apply_b_dec_to_input": "no"}, "apply_b_dec_to_input is 'no'"),
        ({"normalize_activations": "sometimes"}, "normalize_activations is 'sometimes'"),
        ({"reshape_activations": []}, r"reshape_activations is \[\]"),
    ],
)  # fmt: skip
def test_bad_fields_are_named(folder, unseal, changes, message):
    unseal(folder, **changes)
    with pytest.raises(SAEError, match=message):
        load_sae(folder)


@pytest.mark.parametrize("key", ["d_in", "d_sae", "dtype", "k"])
def test_missing_fields_are_named(folder, unseal, key):
    unseal(folder)
    cfg = json.loads((folder / "cfg.json").read_text())
    del cfg[key]
    (folder / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(SAEError, match=rf"{key}"):
        load_sae(folder)


def test_keys_that_nothing_reads_are_recorded(folder, unseal):
    unseal(folder, lr=0.1, wandb_project="x")
    info = load_sae(folder).info
    assert info.notes == ("keys of cfg.json that nothing reads: lr, wandb_project",)
    assert not info.verified


def test_configurations_from_before_version_6_open(raw, rows, folder, unseal):
    raw("standard").save_model(folder)
    (folder / "cfg.json").write_text(json.dumps({
        "d_in": 8, "d_sae": 24, "dtype": "float32", "hook_point": "blocks.2.hook_resid_pre",
        "model_name": "gpt2-small", "lr": 1e-4, "normalize_activations": False,
    }))  # fmt: skip
    sae = load_sae(folder)
    assert (sae.info.architecture, sae.info.hook_name) == ("standard", "blocks.2.hook_resid_pre")
    assert sae.info.notes == ("keys of cfg.json that nothing reads: lr",)
    assert sae.info.model_name == "gpt2-small"
    torch.testing.assert_close(sae.encode(rows), raw("standard").encode(rows))


def test_old_activation_functions_that_are_not_relu_are_refused(folder, unseal):
    unseal(folder, activation_fn_str="tanh-relu")
    with pytest.raises(SAEError, match="activation_fn_str is 'tanh-relu', expected relu or topk"):
        load_sae(folder)


@HARD
@given(key=st.sampled_from(TOP) | st.text(max_size=8), value=json_values)
def test_any_value_in_any_field(folder, unseal, key, value):
    original = (folder / "cfg.json").read_text()
    try:
        unseal(folder, **{key: value})
        opens_or_explains(folder)
    finally:
        (folder / "cfg.json").write_text(original)


@HARD
@given(key=st.sampled_from(META) | st.text(max_size=8), value=json_values)
def test_any_value_in_the_metadata(folder, unseal, key, value):
    original = (folder / "cfg.json").read_text()
    try:
        unseal(folder, metadata={"hook_name": "blocks.1.hook_resid_post", key: value})
        opens_or_explains(folder)
    finally:
        (folder / "cfg.json").write_text(original)


@HARD
@given(value=json_values)
def test_any_json_in_place_of_the_configuration(folder, value):
    original = (folder / "cfg.json").read_text()
    try:
        (folder / "cfg.json").write_text(json.dumps(value))
        assert not opens_or_explains(folder)
    finally:
        (folder / "cfg.json").write_text(original)


@pytest.mark.parametrize("digits", [5_000, 400])
def test_numbers_of_thousands_of_digits(folder, digits):
    text = (folder / "cfg.json").read_text()
    (folder / "cfg.json").write_text(text.replace('"k": 4', '"k": ' + "9" * digits, 1))
    assert not opens_or_explains(folder)


@pytest.mark.parametrize(("d_in", "d_sae"), [(8, MAX_WIDTH), (MAX_WIDTH, MAX_WIDTH)])
def test_a_claimed_width_is_refused_before_anything_is_built(
    folder, unseal, monkeypatch, d_in, d_sae
):
    def built(*args, **kwargs):
        raise AssertionError("an SAE was built")

    monkeypatch.setattr(sae_lens.SAE, "load_from_disk", built)
    unseal(folder, d_in=d_in, d_sae=d_sae)
    with pytest.raises(SAEError, match=r"W_enc is \[8, 24\], but"):
        load_sae(folder)


def test_a_record_in_memory_is_plain(raw):
    info = SparseAutoencoder(raw()).info
    assert (info.release, info.revision, info.verified, info.notes) == (None, None, False, ())


def test_a_new_configuration_names_its_architecture(raw, folder, unseal):
    raw("standard").save_model(folder)
    cfg = json.loads((folder / "cfg.json").read_text())
    del cfg["architecture"]
    (folder / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(SAEError, match=r"cfg\.json has no architecture; expected one of abstopk"):
        load_sae(folder)
    unseal(folder, metadata={"sae_lens_version": "newest"})
    with pytest.raises(SAEError, match="sae_lens_version is 'newest', expected a version such as"):
        load_sae(folder)


@pytest.mark.parametrize("where", ["reshape_activations", "hook_point"])
def test_attention_heads_are_refused_by_what_they_are(folder, unseal, where):
    value = {"reshape_activations": "hook_z", "hook_point": "blocks.3.attn.hook_z"}[where]
    unseal(folder, **{where: value})
    with pytest.raises(SAEError, match=r"reads .*hook_z.*only SAEs of the residual"):
        load_sae(folder)
