"""Effects of edits and steered generation against plain re-runs and against sae-lens.

1. The effect of single latents on pairs of the embedded battery, from residuals captured once,
   against the same texts run anew through every block with an edit hook: same model, same batch
   size, rows of like length together, logits at the last token alone. Once with every row run
   (clamped latents), with and without running the suffixes of a text as branches, and once with
   ablated latents, of which most are silent on most texts. The bar for the first is
   0.9 * n_layers / (n_layers - L) for an SAE after block L.
2. The same clamp with sae-lens on a TransformerLens bridge of the same model.
3. Generation, see `generation.py`.

Both sides alternate, and the best time of each counts. Preparing the texts is timed on a line of
its own. Effects of both sides are compared; a difference above 1e-4 is an error.

    python benchmarks/interventions.py [--json] [--quick] [--sae FOLDER] [--layers 15 22]
"""

import argparse
import contextlib
import copy
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The neighbour statistics.py bears the name of a standard module that other libraries import, so
# the folder is looked through last.
HERE = Path(__file__).resolve().parent
sys.path[:] = [*(p for p in sys.path if Path(p or ".").resolve() != HERE), str(HERE)]

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import sae_lens  # noqa: E402
import torch  # noqa: E402
from generation import generation_lines  # noqa: E402
from lines import Line, best, cost, show  # noqa: E402

from affectlens.data.addresses import Address  # noqa: E402
from affectlens.data.hooks import capture, edit  # noqa: E402
from affectlens.data.masking import MaskRule, norm_limit, token_norms  # noqa: E402
from affectlens.data.models import Batch, LanguageModel, load_model  # noqa: E402
from affectlens.data.stimuli import load_battery  # noqa: E402
from affectlens.features.exact_effects import exact_effects  # noqa: E402
from affectlens.features.interventions import residual_edit  # noqa: E402
from affectlens.features.measure import Meter  # noqa: E402
from affectlens.features.readouts import Readout, build_readout, readout_of  # noqa: E402
from affectlens.features.specs import Ablate, Clamp, Spec  # noqa: E402
from affectlens.sae.loading import load_sae  # noqa: E402
from affectlens.sae.model import SparseAutoencoder  # noqa: E402

TOLERANCE = 1e-4
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One autoencoder on some texts."""

    lm: LanguageModel
    sae: SparseAutoencoder
    readout: Readout
    texts: list[str]
    features: list[int]
    value: float
    n_peer: int
    batch_size: int
    repeats: int

    @property
    def layer(self) -> int:
        return Address.parse(self.sae.info.hook_name).layer

    @property
    def place(self) -> str:
        return f"SAE after block {self.layer} of {self.lm.n_layers}"

    @property
    def size(self) -> str:
        return f"{len(self.texts)} texts x {self.readout.n_suffixes} suffixes"

    def clamp(self, feature: int) -> Spec:
        return Clamp((feature,), (self.value,))

    def meter(self, *, share: bool = True) -> Meter:
        return Meter(
            self.lm,
            self.sae,
            self.texts,
            self.readout,
            batch_size=self.batch_size,
            share_beginnings=share,
        )

    def run_anew(self, spec: Spec | None) -> Floats:
        """The peer: every block of every row, with an edit hook."""
        run = lambda: readout_of(self.lm, self.texts, self.readout, batch_size=self.batch_size)  # noqa: E731
        if spec is None:
            return run()
        function, _ = residual_edit(self.sae, [spec])
        with edit(self.lm, {self.sae.info.hook_name: function}):
            return run()


def random_sae(lm: LanguageModel, texts: Sequence[str], layer: int) -> SparseAutoencoder:
    """TopK of random unit rows, width 4608, with the mask rule of a harvested one."""
    name = Address(layer).name
    batch = lm.encode(list(texts)[:8])
    norms = token_norms(capture(lm, [name], batch)[name])
    content = batch.attention_mask & (batch.positions > 0)
    metadata = sae_lens.saes.sae.SAEMetadata(
        hook_name=name, skip_first=True, norm_limit=norm_limit(norms[content], 10.0)
    )
    sae = sae_lens.TopKSAE(
        sae_lens.TopKSAEConfig(d_in=lm.d_model, d_sae=4608, k=32, metadata=metadata)
    )
    rows = torch.randn(4608, lm.d_model, generator=torch.Generator().manual_seed(layer))
    with torch.no_grad():
        sae.W_dec.copy_(rows / rows.norm(dim=-1, keepdim=True))
        sae.W_enc.copy_(sae.W_dec.T)
    return SparseAutoencoder(sae)


@torch.inference_mode()
def firing(
    lm: LanguageModel, sae: SparseAutoencoder, texts: Sequence[str]
) -> tuple[list[int], float]:
    """Latents that fire on a text, in random order, and the largest activation of a usual one."""
    batch = lm.encode(list(texts))
    hook = sae.info.hook_name
    x = capture(lm, [hook], batch)[hook]
    rule = MaskRule(skip_first=sae.info.skip_first, norm_limit=sae.info.norm_limit)
    largest = sae.encode(x[rule.keep(x, batch.positions, batch.attention_mask)]).amax(0)
    alive = largest.nonzero().flatten().numpy()
    return np.random.default_rng(0).permutation(alive).tolist(), float(largest[alive].median())


def largest_difference(case: Case, effect: Floats, make_spec: Callable[[int], Spec]) -> float:
    """Between effects of the first latents and those of plain re-runs."""
    unedited = case.run_anew(None)
    found = 0.0
    for place, feature in enumerate(case.features[: case.n_peer]):
        expected = case.run_anew(make_spec(feature)) - unedited
        found = max(found, float(np.abs(effect[place] - expected).max()))
    if not found <= TOLERANCE:
        raise SystemExit(f"effects differ by {found} from those of full runs ({case.place})")
    return found


def against_runs(
    case: Case, name: str, meter: Meter, make_spec: Callable[[int], Spec], bar: float | None
) -> Line:
    """Seconds for a latent, ours over all latents and the peer's over the first few."""
    few = case.features[: case.n_peer]
    ours, peer = [], []
    for _ in range(case.repeats):
        ours.append(best(lambda: exact_effects(meter, case.features, make_spec), 1))
        peer.append(best(lambda: [case.run_anew(make_spec(f)) for f in few], 1))
    found = exact_effects(meter, case.features, make_spec)
    line = cost(
        f"effect of one {name} latent on {case.size}, {case.place} "
        f"(mean of {len(case.features)}; every block run anew: of {len(few)})",
        min(ours) / len(case.features),
        min(peer) / len(few),
        "s a latent",
    )
    line["largest_difference"] = largest_difference(case, found.effect, make_spec)
    line["share_of_rows_run"] = round(found.n_run / (found.n_run + found.n_skipped), 4)
    return line if bar is None else {**line, "bar": round(bar, 2)}


def preparation(case: Case) -> Line:
    """What is paid once for some texts, against one re-run of them."""
    ours = best(lambda: case.meter(), case.repeats)
    peer = best(lambda: case.run_anew(case.clamp(case.features[0])), case.repeats)
    return cost(f"preparing {case.size} once, {case.place}; peer: one run of them", ours, peer)


def sae_lens_bridge(lm: LanguageModel) -> Any:
    """The same model with sae-lens' way to attach autoencoders. A copy: booting changes blocks."""
    from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SAETransformerBridge.boot_transformers(
            lm.name,
            hf_model=copy.deepcopy(lm.model),
            tokenizer=copy.deepcopy(lm.tokenizer),
            device=str(lm.device),
        )


def against_sae_lens(case: Case, bridge: Any, meter: Meter, n_texts: int) -> Line:
    """One clamped latent on the first texts, with an attached SAE, its error term and a hook."""
    feature, tokens = case.features[0], list(case.readout.tokens)
    part = range(min(n_texts, len(case.texts)))
    rows = case.readout.rows(case.lm, [case.texts[i] for i in part]).rows
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    places = [order[i : i + case.batch_size] for i in range(0, len(order), case.batch_size)]
    batches = [case.lm.pad([rows[i] for i in at]) for at in places]
    kept = [_kept(case, batch) for batch in batches]

    def run(batch: Batch, keep: torch.Tensor) -> torch.Tensor:
        def clamp(z: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            z[..., feature] = torch.where(keep, case.value, z[..., feature])
            return z

        # Right padding needs no mask in a causal model.
        hook = (bridge.get_sae_hook_name(case.sae.sae), clamp)
        logits = bridge.run_with_hooks(batch.input_ids, fwd_hooks=[hook])
        last = logits[torch.arange(len(batch)), batch.last_index].double()
        return torch.log_softmax(last, dim=-1)[:, tokens]

    @torch.inference_mode()
    def peer() -> Floats:
        logp = torch.empty(len(rows), len(tokens), dtype=torch.float64)
        # (`run_with_hooks_with_saes` of the bridge takes no error term.)
        with bridge.saes([case.sae.sae], use_error_term=True):
            for at, batch, keep in zip(places, batches, kept, strict=True):
                logp[at] = run(batch, keep)
        shape = (len(part), case.readout.n_suffixes, len(tokens))
        return case.readout.scores(logp.reshape(shape)).numpy()

    def ours() -> Floats:
        effect = exact_effects(meter, [feature], case.clamp, texts=part).effect[0]
        return meter.unedited[list(part)] + effect

    difference = float(np.abs(ours() - peer()).max())
    if not difference <= TOLERANCE:
        raise SystemExit(f"effects differ by {difference} from those of sae-lens ({case.place})")
    line = cost(
        f"one clamped latent on {len(part)} texts x {case.readout.n_suffixes} suffixes, "
        f"{case.place}; peer: sae-lens bridge with saes() and run_with_hooks",
        best(ours, case.repeats),
        best(peer, case.repeats),
    )
    return {**line, "largest_difference": difference}


def _kept(case: Case, batch: Batch) -> torch.Tensor:
    info = case.sae.info
    x = capture(case.lm, [info.hook_name], batch)[info.hook_name]
    rule = MaskRule(skip_first=info.skip_first, norm_limit=info.norm_limit)
    return rule.keep(x, batch.positions, batch.attention_mask)


def lines_of(case: Case, bridge: Any, n_bridge: int) -> list[Line]:
    """All comparisons for one autoencoder."""
    bar = 0.9 * case.lm.n_layers / (case.lm.n_layers - case.layer)
    meter = case.meter()
    found = [
        against_runs(case, "clamped", meter, case.clamp, bar),
        against_runs(case, "clamped (no branches)", case.meter(share=False), case.clamp, bar),
        against_runs(case, "ablated", meter, lambda f: Ablate((f,)), None),
        preparation(case),
    ]
    if bridge is not None:
        found.append(against_sae_lens(case, bridge, meter, n_bridge))
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON line a comparison")
    parser.add_argument("--quick", action="store_true", help="few texts and latents, one layer")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--sae", type=Path, help="folder of an SAE; by default random ones")
    parser.add_argument("--layers", type=int, nargs="+", default=[15, 22])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--features", type=int, default=6)
    parser.add_argument("--peer-features", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--no-sae-lens", action="store_true", help="leave that peer out")
    parser.add_argument("--no-generation", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.layers, options.pairs, options.features = options.layers[:1], 2, 3
        options.peer_features = options.repeats = 1
    return options


def main() -> None:
    options = arguments()
    lm = load_model(options.model)
    pairs = load_battery("affectlens-vignettes").pairs
    chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, options.pairs).astype(int)]
    texts = [item.text for pair in chosen for item in (pair.clinical, pair.neutral)]
    readout = build_readout(lm)
    bridge = None if options.no_sae_lens else sae_lens_bridge(lm)
    if options.sae is not None:
        saes = [load_sae(str(options.sae))]
    else:
        saes = [random_sae(lm, texts, layer) for layer in options.layers]
    for sae in saes:
        alive, value = firing(lm, sae, texts)
        case = Case(
            lm,
            sae,
            readout,
            texts,
            alive[: options.features],
            value,
            min(options.peer_features, options.features),
            options.batch_size,
            options.repeats,
        )
        for line in lines_of(case, bridge, 1 if options.quick else 4):
            details = [f"{k} {line[k]}" for k in list(line)[5:]]
            show(line, as_json=options.json, more="".join(f", {d}" for d in details))
    if options.no_generation:
        return
    with contextlib.suppress(KeyboardInterrupt):
        for line in generation_lines(lm, saes[0], alive[0], bridge, quick=options.quick):
            show(line, as_json=options.json)


if __name__ == "__main__":
    main()
