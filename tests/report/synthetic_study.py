"""The made-up steering study of a synthetic run."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from synthetic_effects import EMOTIONS, HOSTILE, Settings

from affectlens.features.results import write_table
from affectlens.features.study_record import SteeringSummary

ARMS = (
    "unedited",
    "sae_input",
    "sae_output_score",
    "sae_output",
    "random",
    "diff_of_means",
    "prompt",
    "prompt_plain",
)
DOSES = (0.1, 0.2, 0.4, 0.8)
N_REPORT = 6
GAIN = {
    "sae_input": 0.12,
    "sae_output_score": 0.16,
    "sae_output": 0.2,
    "random": 0.02,
    "diff_of_means": 0.3,
    "prompt": 0.45,
    "prompt_plain": 0.03,
}


def write_study(run: Path, settings: Settings, rng: np.random.Generator) -> None:
    """A steering study whose texts, curves and tables agree in shape, not in number."""
    write_table(_texts(settings), run, "steering/texts")
    curves = _curves(settings, rng)
    write_table(curves, run, "steering/curves")
    write_table(_chosen(curves), run, "steering/chosen")
    write_table(_ranking(settings), run, "steering/ranking")
    write_table(_comparisons(settings), run, "steering/comparisons")
    won = ["grief", "terror", "rage", "ecstasy"] if settings.positive else []
    wins = {
        "arm": ["sae_output", "sae_output_score"],
        "n_emotions": 8,
        "beats_input": [len(won) + 1, 0],
        "beats_random": [len(won), 0],
        "wins": [len(won), 0],
        "bar": 4,
        "reached": [len(won) >= 4, False],
        "min_p_holm": 16 * 2.0**-20,
        "emotions": [",".join(won), ""],
    }
    masked = {"wins": [max(len(won) - 2, 0), 0], "reached": False, "emotions": "", "beats_input": 0}
    by_score = [
        pd.DataFrame(wins).assign(score="overall"),
        pd.DataFrame(wins | masked).assign(score="overall_masked"),
    ]
    write_table(pd.concat(by_score, ignore_index=True), run, "steering/wins")
    _record(settings).write(run)


def _doses_of(arm: str) -> tuple[float, ...]:
    return (0.0,) if arm in ("unedited", "prompt", "prompt_plain") else DOSES


def _sets_of(arm: str) -> range:
    return range(2 if arm == "random" else 1)


def _scores(arm: str, dose: float, settings: Settings) -> dict[str, float]:
    gain = GAIN.get(arm, 0.0)
    if arm.startswith("sae") and not settings.positive:
        gain = 0.02
    steered = gain * min(1.0, dose / 0.4) if dose else gain
    concept = 0.08 + steered
    coherence = max(0.1, 0.9 - (0.9 * dose**2 if dose else 0.0))
    return {"concept": concept, "coherence": coherence, "on_topic": 0.85}


def _texts(settings: Settings) -> pd.DataFrame:
    rows = []
    for emotion, arm in product(EMOTIONS, ARMS):
        for index, dose in product(_sets_of(arm), _doses_of(arm)):
            for place in range(N_REPORT):
                half = "select" if place < 2 else "report"
                text = f"The {arm} text about scene {place}: she stood there. " * 3
                if settings.hostile and place == 2:
                    text = HOSTILE.encode("utf-8", "replace").decode() + text
                scores = _scores(arm, dose, settings)
                rows.append(
                    {
                        "emotion": emotion,
                        "arm": arm,
                        "set_index": index,
                        "dose": dose,
                        "scenario": f"s{place:02d}",
                        "copy": 0,
                        "half": half,
                        "text": text,
                        "n_tokens": 40,
                        "n_edited_tokens": 0 if not dose else 90,
                        "delta_norm": 30 * dose,
                        **scores,
                        "hit": scores["concept"] > 0.3,
                        "concept_masked": scores["concept"] * 0.7,
                        "naming": arm == "prompt",
                        "incoherent": 1 - scores["coherence"],
                        "perplexity": 12.0,
                        "distinct_1": 0.8,
                        "distinct_2": 0.95,
                        "repetition": 0.05,
                        "drift": 0.3,
                        "overall": scores["concept"],
                        "overall_masked": scores["concept"] * 0.7,
                    }
                )
    return pd.DataFrame(rows)


def _curves(settings: Settings, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for emotion, arm, half in product(EMOTIONS, ARMS, ("select", "report")):
        for index, dose in product(_sets_of(arm), _doses_of(arm)):
            s = _scores(arm, dose, settings)
            concept = s["concept"] + rng.normal(0, 0.015)
            overall = 3 / (1 / concept + 1 / s["coherence"] + 1 / s["on_topic"])
            rows.append(
                {
                    "emotion": emotion,
                    "arm": arm,
                    "set_index": index,
                    "dose": dose,
                    "half": half,
                    "n_texts": 20,
                    "overall": overall,
                    "overall_low": overall - 0.05,
                    "overall_high": overall + 0.05,
                    "concept": concept,
                    "concept_low": concept - 0.04,
                    "concept_high": concept + 0.04,
                    "coherence": s["coherence"],
                    "coherence_low": s["coherence"] - 0.03,
                    "coherence_high": s["coherence"] + 0.03,
                    "on_topic": s["on_topic"],
                    "concept_masked": concept * 0.7,
                    "overall_masked": overall * 0.8,
                    "hit": concept,
                    "naming": 0.6 if arm == "prompt" else 0.05,
                    "incoherent": 1 - s["coherence"],
                    "perplexity": 12.0,
                    "distinct_1": 0.8,
                    "distinct_2": 0.95,
                    "repetition": 0.05,
                    "drift": 0.3,
                    "n_tokens": 40.0,
                    "delta_norm": 30 * dose,
                }
            )
    return pd.DataFrame(rows)


def _chosen(curves: pd.DataFrame) -> pd.DataFrame:
    report = curves[curves.half == "report"]
    best = report.loc[report.groupby(["emotion", "arm", "set_index"], sort=False).overall.idxmax()]
    dosed = best.dose > 0
    latents = best.arm.str.startswith("sae") | (best.arm == "random")
    return best.drop(columns="half").assign(
        features=np.where(latents, "12,99,1040", ""),
        matched_to=np.where(best.arm == "random", "sae_output", ""),
        select_overall=best.overall,
        coherence_change=best.coherence - 0.9,
        coherence_change_low=best.coherence - 0.94,
        coherence_change_high=best.coherence - 0.86,
        coherence_equivalent=best.coherence > 0.88,
        concept_slope=np.where(dosed, 0.4, np.nan),
        concept_slope_low=np.where(dosed, 0.3, np.nan),
        concept_slope_high=np.where(dosed, 0.5, np.nan),
        coherence_slope=np.where(dosed, -0.8, np.nan),
        coherence_slope_low=np.where(dosed, -1.0, np.nan),
        coherence_slope_high=np.where(dosed, -0.6, np.nan),
    )


def _ranking(settings: Settings) -> pd.DataFrame:
    rows = []
    for arm in (*ARMS, "random_best"):
        s = _scores("random" if arm == "random_best" else arm, 0.4, settings)
        overall = 2.2 * s["concept"] ** 0.8 / 2
        dosed = len(_doses_of(arm)) > 1
        rows.append(
            {
                "arm": arm,
                "n_emotions": 8,
                "n_scenarios": 20,
                "select_overall": overall + 0.01,
                "overall": overall,
                "overall_masked": overall * 0.8,
                "overall_low": overall - 0.03,
                "overall_high": overall + 0.03,
                "concept": s["concept"],
                "concept_masked": s["concept"] * 0.7,
                "hit": s["concept"],
                "naming": 0.6 if arm == "prompt" else 0.05,
                "coherence": s["coherence"],
                "on_topic": 0.85,
                "coherence_change": -0.01 if not dosed else -0.14,
                "coherence_change_low": -0.03 if not dosed else -0.2,
                "coherence_change_high": 0.01 if not dosed else -0.1,
                "coherence_equivalent": not dosed,
                "concept_slope": 0.4 if dosed else np.nan,
                "delta_norm": 12.0 if dosed else 0.0,
            }
        )
    table = pd.DataFrame(rows).sort_values("overall", ascending=False, kind="stable")
    return table.assign(rank=np.arange(1, len(table) + 1))


def _comparisons(settings: Settings) -> pd.DataFrame:
    rows = []
    for arm, emotion in product(ARMS, (*EMOTIONS, "all")):
        for rival in ("sae_input", "sae_output", "random", "prompt"):
            if rival == arm:
                continue
            difference = GAIN.get(arm, 0.0) - GAIN[rival]
            if not settings.positive and rival != "prompt":
                difference = 0.0
            p = 0.001 if difference > 0.05 else 0.6
            rows.append(
                {
                    "emotion": emotion,
                    "arm": arm,
                    "against": rival,
                    "difference": difference,
                    "low": difference - 0.05,
                    "high": difference + 0.05,
                    "p": p,
                    "p_holm": min(1.0, p * 16),
                    "beats": p < 0.01,
                    "n_scenarios": 20,
                    "min_p": 2.0**-20,
                }
            )
    table = pd.DataFrame(rows)
    masked = table.assign(score="overall_masked", difference=table.difference / 2, beats=False)
    return pd.concat([table.assign(score="overall"), masked], ignore_index=True)


def _record(settings: Settings) -> SteeringSummary:
    scorer = {
        "name": "linear classifier" + (HOSTILE[:-1] if settings.hostile else ""),
        "kind": "TF-IDF, multinomial logistic regression",
        "held_out": {
            "accuracy": {"share": 0.62, "low": 0.58, "high": 0.66, "n": 900, "n_groups": 90},
            "chance": 0.1,
            "labels": [*EMOTIONS, "neutral", "incoherent"],
            "recall": dict.fromkeys(EMOTIONS, 0.5),
            "sound_texts": {
                "passages": {"share": 0.5, "low": 0.4, "high": 0.6, "n": 400, "n_groups": 40},
                "passages that do not": {
                    "share": 0.44,
                    "low": 0.36,
                    "high": 0.52,
                    "n": 200,
                    "n_groups": 40,
                },
            },
        },
    }
    return SteeringSummary(
        model="smollm2-135m-instruct",
        model_fingerprint="aa" * 16,
        sae_sha256="ef56" * 16,
        settings={"dose_unit": "residual_norm", "doses": list(DOSES), "max_new_tokens": 60},
        emotions=EMOTIONS,
        left_out={},
        features={e: {"sae_output": [12, 99, 1040]} for e in EMOTIONS},
        reference="",
        norms={},
        scenarios="affectlens-scenarios",
        scenarios_sha256="11" * 32,
        scenarios_licence="CC0-1.0",
        n_select=20,
        n_report=20,
        go_on="Write the next sentences.",
        ask="Write so that the text shows strong {emotion}.",
        ask_plain="Write so that the text shows common words.",
        chat=True,
        scorer=scorer,
        method={
            "concept": "probability of the emotion by a scorer that sees the text alone",
            "coherence": "1 - P(incoherent), perplexity and repetition, against unedited texts",
            "on_topic": "what the text's own prompt adds to its likelihood",
            "overall": "harmonic mean of the three, 0 if one is 0",
        },
        unedited_perplexity=14.0,
        unedited_new=0.9,
        unedited_readable=0.8,
        unedited_gain=0.3,
        on_topic_measured=True,
        n_conditions=200,
        n_texts=4000,
        n_written=3900,
        n_empty=3,
        margin=0.05,
        alpha=0.05,
    )
