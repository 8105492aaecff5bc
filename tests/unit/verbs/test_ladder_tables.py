"""A rung's cells, the frontier, and what to keep in mind when reading them."""

from msgspec.structs import replace

from harness.core.quality import CalibrationChange, QualityChange, TextScore
from harness.core.result import Quality
from harness.records.ladder import COLUMNS, Rung, caveats, cells, mark_frontier

NOTHING = QualityChange(value=0.0, low=0.0, high=0.0)
CALIBRATION = CalibrationChange(
    row_count=510, nll_change=QualityChange(value=0.05, low=0.02, high=0.08),
    ece_change=QualityChange(value=0.01, low=-0.01, high=0.02),
    lost_count=30, gained_count=12,
)  # fmt: skip
SCORE = TextScore(
    token_count=510, perplexity=10.4856, perplexity_error=0.5, kl_divergence=0.0574, kl_divergence_error=0.001,
    top1_agreement_ratio=0.9,
)  # fmt: skip
QUALITY = Quality(
    text="t.txt", chunk_count=2, bits_per_weight=6.17, types={"Q5_0": 0.58, "Q8_0": 0.42},
    score=SCORE, calibration=CALIBRATION,
)  # fmt: skip


def test_a_rung_in_cells() -> None:
    rung = Rung(
        model="m", quant="Q4_K_M", size_bytes=103_700_000, decode_tokens_per_s=160.2, speed_outcome="inconclusive",
        quality=QUALITY, requantized_from="Q4_1", on_frontier=True,
    )  # fmt: skip
    # 30 + 12 tokens changed sides; the NLL's interval leaves 0 out, the ECE's does not.
    assert dict(zip(COLUMNS, cells(rung), strict=True)) == {
        "quant": "Q4_K_M",
        "MB": "104",
        "bits": "6.17",
        "mostly": "Q5_0 58%",
        "tg/s": "~160.2",
        "pp/s": "",
        "peak MB": "",
        "perplexity": "10.4856 ± 0.500",
        "KL, nats": "0.0574 ± 0.0010",
        "same top": "0.900",
        "frontier": "yes",
        "NLL change, 95 %": "*+0.0500 [+0.0200, +0.0800]",
        "ECE change, 95 %": "+0.0100 [-0.0100, +0.0200]",
        "flips: lost + gained": "42: 30 + 12",
    }
    (requantized,) = caveats([rung])
    assert requantized.startswith("Requantized from Q4_1")


def test_a_rung_that_failed_says_why() -> None:
    rung = Rung(model="m", quant="IQ1_S", outcome="failed: no room")
    assert cells(rung)[:3] == ("IQ1_S", "failed: no room", "")
    assert caveats([rung]) == []


def test_the_frontier_is_what_no_other_rung_of_the_model_beats() -> None:
    shapes = [
        ("Q8_0", 4e9, 10, 0.001, True),
        ("Q4_K_M", 2e9, 20, 0.05, True),
        ("Q4_1", 2.2e9, 19, 0.06, False),  # larger, slower and worse than the one before
        ("Q2_K", 1e9, 25, 0.9, True),
    ]
    rungs = [
        Rung(
            model="m",
            quant=quant,
            size_bytes=int(size),
            decode_tokens_per_s=speed,
            quality=replace(QUALITY, score=replace(SCORE, kl_divergence=kl)),
        )
        for quant, size, speed, kl, _ in shapes
    ]
    others = [replace(rungs[2], model="another"), Rung(model="m", quant="IQ1_S", outcome="failed")]
    marks = [rung.on_frontier for rung in mark_frontier([*rungs, *others])]
    assert marks == [*(best for *_, best in shapes), True, False]
