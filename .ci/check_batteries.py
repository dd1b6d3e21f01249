"""The contextual bounds of the embedded vignettes, on the embedded model (cached by the demo)."""

import sys

from affectlens.data.models import load_model
from affectlens.data.stimuli import load_battery
from affectlens.features.config import ContextConfig
from affectlens.features.contextual import contextual_card, static_means
from affectlens.features.lexical import AuditConfig, audit

LOWEST_PROBE, FEWEST_READ, HIGHEST_STATIC = 0.90, 6, 0.80


def main() -> None:
    """Print the numbers; end with 1 if one is out of bounds."""
    lm, battery = load_model(), load_battery("affectlens-vignettes")
    card = contextual_card(lm, battery, ContextConfig(layers=(15,), n_bootstrap=0))
    lexical = audit(
        battery, AuditConfig(n_repeats=1, n_bootstrap=0), static=static_means(lm, battery)
    )
    static = lexical.score("static_embedding").auroc
    probe = card.mid_depth.auroc
    sys.stdout.write(
        f"probe AUROC {probe:.3f}, readouts {card.n_read} of 8, static embedding {static:.3f}\n"
    )
    if probe < LOWEST_PROBE or card.n_read < FEWEST_READ or static > HIGHEST_STATIC:
        sys.exit("the embedded vignettes are out of their contextual bounds")


if __name__ == "__main__":
    main()
