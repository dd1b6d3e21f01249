"""The picture of a battery names every control and draws both scores."""

from pathlib import Path

from affectlens.data.stimuli import load_battery
from affectlens.features.config import AuditConfig
from affectlens.features.lexical import audit
from affectlens.report.figures_battery import (
    NAMES,
    Bar,
    battery_figure,
    probe_bars,
    write_battery_figure,
)
from affectlens.report.theme import _style

QUICK = AuditConfig(n_repeats=1, n_bootstrap=50)


class Probed:
    class Row:
        layer, place, auroc, paired_accuracy = 15, "suffix_last", 0.9, 0.95
        auroc_low = auroc_high = paired_low = paired_high = None

    probes = (Row(),)


def test_rows_are_the_controls_then_the_probes() -> None:
    card = audit(load_battery().select(limit=16), QUICK)
    bars = probe_bars(Probed())
    assert bars == (Bar("probe, layer 15", 0.9, None, None, 0.95, None, None),)
    spec = battery_figure(card, bars)
    with _style():
        axes = spec.draw(narrow=True).axes[0]
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert labels == [n for k, n in NAMES.items() if k != "static_embedding"] + ["probe, layer 15"]
    assert "16 pairs" in spec.caption
    assert "above 0.6" in spec.alt


def test_one_cluster_is_drawn_from_pair_rows(tmp_path: Path) -> None:
    made = load_battery()
    card = audit(made.select(clusters=[made.clusters[0]]), QUICK)
    spec = battery_figure(card)
    with _style():
        title = spec.draw(narrow=False).axes[0].get_title(loc="left")
    assert title == "pairs left out; chance is 0.5"
    png, svg = write_battery_figure(spec, tmp_path / "out")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svg.read_bytes()
