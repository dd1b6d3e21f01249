"""The picture of a sweep."""

import pytest

from affectlens.report.figures_sweep import sweep_figure, write_sweep_figure

HOOKS = ("blocks.9.hook_resid_post", "blocks.15.hook_resid_post")


def row(hook=HOOKS[0], arch="topk", d_sae=512, l0=16.0, fvu=0.3, ce=0.9, **more):
    return {"hook_name": hook, "arch": arch, "d_sae": d_sae, "l0": l0, "fvu": fvu,
            "ce_recovered_mean": ce, **more}  # fmt: skip


ROWS = [
    row(h, a, d, l0, 0.4 - l0 / 300, 0.8 + l0 / 1000)
    for h in HOOKS
    for a in ("topk", "batchtopk")
    for d in (512, 1024)
    for l0 in (16.0, 31.9, 64.2)
]


@pytest.mark.parametrize("narrow", [True, False])
def test_every_sae_is_a_point_in_every_measure(narrow):
    spec = sweep_figure(ROWS)
    figure = spec.draw(narrow=narrow)
    panels = figure.axes
    assert len(panels) == 4
    drawn = sum(len(line.get_xdata()) for axes in panels for line in axes.lines)
    assert drawn == 2 * len(ROWS)
    titles = [axes.get_title(loc="left") for axes in panels]
    assert titles == [HOOKS[0], HOOKS[0], HOOKS[1], HOOKS[1]]
    (best,) = [r for r in ROWS if r["l0"] == 64.2][:1]
    assert f"lowest FVU {best['fvu']:.3f} at L0 64" in spec.alt
    assert len({text.get_text() for text in figure.legends[0].get_texts()}) == 4


def test_curves_rise_along_l0_whatever_the_order_of_rows():
    figure = sweep_figure(list(reversed(ROWS))).draw(narrow=False)
    for axes in figure.axes:
        for line in axes.lines:
            assert list(line.get_xdata()) == sorted(line.get_xdata())


def test_without_a_model_the_loss_has_no_panel():
    spec = sweep_figure([row(ce=None), row(l0=32.0, ce=None)])
    assert len(spec.draw(narrow=False).axes) == 1


def test_failed_saes_are_left_out(tmp_path):
    failed = row(l0=None, fvu=None, ce=None, error="out of memory")
    assert sweep_figure([failed]) is None
    assert write_sweep_figure([failed], tmp_path) is None
    assert write_sweep_figure([failed, row()], tmp_path) == tmp_path / "sweep.png"
    assert (tmp_path / "sweep.svg").stat().st_size > 1000
