"""The integrity record: no prefix and no flipped byte of what was written passes for the SAE."""

import json
from pathlib import Path

import pytest
import sae_lens
import torch

from affectlens.sae.errors import SAEError
from affectlens.sae.loading import load_sae, save_sae
from affectlens.sae.model import SparseAutoencoder
from affectlens.sae.saving import write_sae

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
NAMES = ("cfg.json", "sae_weights.safetensors")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory) -> Path:
    """A centred SAE of d_in 4 and d_sae 8, so that lost metadata would change its latents."""
    config = sae_lens.TopKSAEConfig(d_in=4, d_sae=8, k=2)
    raw = sae_lens.TopKSAE(config)
    g = torch.Generator().manual_seed(0)
    for parameter in raw.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g)
    raw.cfg.metadata.hook_name = "blocks.1.hook_resid_post"
    sae = SparseAutoencoder(raw, centre=True)
    return save_sae(sae, tmp_path_factory.mktemp("integrity") / "sae")


def passes_for_it(folder: Path, expected: torch.Tensor) -> bool:
    try:
        return torch.equal(load_sae(folder).encode(X), expected)
    except SAEError:
        return True


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_every_flipped_byte(artefact, name, flip):
    expected, path = load_sae(artefact).encode(X), artefact / name
    original = path.read_bytes()
    try:
        for i in range(len(original)):
            damaged = bytearray(original)
            damaged[i] ^= flip
            path.write_bytes(damaged)
            assert passes_for_it(artefact, expected), f"byte {i} of {name}"
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("name", NAMES)
def test_every_prefix(artefact, name):
    expected, path = load_sae(artefact).encode(X), artefact / name
    original = path.read_bytes()
    try:
        for n in range(len(original)):
            path.write_bytes(original[:n])
            with pytest.raises(SAEError):
                load_sae(artefact)
    finally:
        path.write_bytes(original)
    assert torch.equal(load_sae(artefact).encode(X), expected)


def test_what_we_write_is_verified_and_what_others_write_is_not(raw, folder, tmp_path):
    assert load_sae(folder).info.verified
    raw().save_model(tmp_path / "plain")
    assert not load_sae(tmp_path / "plain").info.verified


def test_sae_lens_opens_it_and_what_it_saves_again_is_a_plain_folder(folder, tmp_path, rows):
    theirs = sae_lens.SAE.load_from_disk(folder)
    assert torch.equal(theirs.encode(rows), load_sae(folder).encode(rows))
    theirs.b_dec.data += 1
    theirs.save_model(tmp_path / "changed")
    again = load_sae(tmp_path / "changed")
    assert not again.info.verified
    assert torch.equal(again.encode(rows), theirs.encode(rows))


def test_swapped_weights_are_noticed_and_the_way_out_works(raw, folder, tmp_path, unseal):
    other = save_sae(SparseAutoencoder(raw(seed=4)), tmp_path / "other")
    weights = (other / NAMES[1]).read_bytes()
    (folder / NAMES[1]).write_bytes(weights)
    with pytest.raises(SAEError, match=r"sae_weights\.safetensors is not what was written"):
        load_sae(folder)
    unseal(folder)
    assert load_sae(folder).fingerprint == load_sae(other).fingerprint


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "integrity is 'None', expected an object with two hashes"),
        ([], "expected an object with two hashes"),
        ({}, r"cfg\.json is not what was written"),
        ({"cfg_sha256": 3}, r"cfg\.json is not what was written"),
    ],
)
def test_broken_records(folder, record, message):
    cfg = json.loads((folder / NAMES[0]).read_text())
    (folder / NAMES[0]).write_text(json.dumps({**cfg, "integrity": record}))
    with pytest.raises(SAEError, match=message):
        load_sae(folder)


def test_an_edit_of_the_metadata_breaks_the_seal_and_writing_again_mends_it(raw, tmp_path):
    sae = raw()
    write_sae(sae, tmp_path / "sae")
    path = tmp_path / "sae" / NAMES[0]
    path.write_text(path.read_text().replace("blocks.1", "blocks.2"))
    with pytest.raises(SAEError, match=r"edited.*remove 'integrity' from"):
        load_sae(tmp_path / "sae")
    sae.cfg.metadata.hook_name = "blocks.2.hook_resid_post"
    write_sae(sae, tmp_path / "sae")
    assert load_sae(tmp_path / "sae").info.hook_name == "blocks.2.hook_resid_post"


def test_the_same_sae_is_written_to_the_same_bytes(raw, tmp_path):
    one, two = write_sae(raw(), tmp_path / "one"), write_sae(raw(), tmp_path / "two")
    for name in NAMES:
        assert (one / name).read_bytes() == (two / name).read_bytes()
