"""Look of the feature pages: contrast in both themes, and nothing loaded from outside."""

import re
from importlib.resources import files


def resource(name: str) -> str:
    return files("affectlens.report").joinpath("templates", name).read_text(encoding="utf-8")


def rgb(colour: str) -> tuple[float, float, float]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))  # type: ignore[return-value]


def luminance(colour: tuple[float, ...]) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (v / 255 for v in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def themes() -> list[dict[str, str]]:
    """Variables of both themes of the page, light first."""
    found = [
        dict(re.findall(r"--([a-z-]+):\s*([^;]+);", block))
        for block in re.findall(r":root \{([^}]*)\}", resource("style.css"))
    ]
    themes_ = [t for t in found if "ink" in t and "shade" in t]
    assert len(themes_) >= 2, "style.css has no light and dark theme"
    return themes_


def test_shaded_tokens_can_be_read_in_both_themes() -> None:
    alphas = [float(a) for a in re.findall(r"\.s\d \{ background: rgba\(var\(--shade\), ([.\d]+)\)",
                                           resource("style.css"))]  # fmt: skip
    assert len(alphas) == 9
    for theme in themes():
        shade_ = tuple(float(c) for c in theme["shade"].split(","))
        card, ink = rgb(theme["card"]), rgb(theme["ink"])
        for alpha in alphas:
            below = tuple(alpha * s + (1 - alpha) * c for s, c in zip(shade_, card, strict=True))
            assert contrast(ink, below) >= 4.5, (alpha, contrast(ink, below))


def test_lines_of_the_slope_plot_stand_out_in_both_themes() -> None:
    colours = re.findall(r"\.e(\d) \{ --c: (#[0-9a-f]{6}); \}", resource("feature_pages.css"))
    assert [int(k) for k, _ in colours] == list(range(8))
    assert len({c for _, c in colours}) == 8
    for theme in themes():
        for _, colour in colours:
            assert contrast(rgb(colour), rgb(theme["card"])) >= 3.0, (colour, theme["card"])


def test_style_and_script_load_nothing() -> None:
    for name in ("feature_pages.css", "feature_pages.js"):
        text = resource(name)
        assert not re.search(r"url\(|@import|https?:|innerHTML|eval\(|fetch\(", text), name
