"""The terminal's tables of a ladder."""

from harness.app.ladder import RungAdvice
from harness.cli._output import console
from harness.cli.ladder import ladder_tables
from harness.domain.prediction import Interval
from harness.domain.quality import CalibrationChange, Change, TextScore
from harness.records.ladder import Ladder, Rung, reference_of

NOTHING = Change(value=0.0, low=0.0, high=0.0)
CALIBRATION = CalibrationChange(
    row_count=510, accuracy=0.5, mean_confidence=0.52, ece=0.03, smooth_ece=0.03, nll=2.35,
    nll_change=Change(value=0.05, low=0.02, high=0.08), ece_change=Change(value=0.01, low=-0.01, high=0.02),
    smooth_ece_change=NOTHING, accuracy_change=NOTHING, lost_count=30, gained_count=12,
)  # fmt: skip
QUALITY = TextScore(
    token_count=510, perplexity=10.4856, perplexity_error=0.5, kl_divergence=0.0574, kl_divergence_error=0.001,
    top1_agreement_ratio=0.9,
)  # fmt: skip


def shown(*rungs: Rung, advice: tuple[RungAdvice, ...] = ()) -> list[str]:
    """Lines of everything that is printed."""
    result = Ladder(
        model="m", source_quant="Q4_1", reference_quant="F16", text="t", reference=reference_of(rungs), rungs=rungs
    )
    screen = console()
    with screen.capture() as captured:
        for part in ladder_tables(result, advice):
            screen.print(part, markup=False)
    return captured.get().splitlines()


def line_with(lines: list[str], *words: str) -> str:
    (found,) = [line for line in lines if all(word in line for word in words)]
    return found


def test_a_rung_says_what_it_does_to_calibration() -> None:
    rung = Rung(
        quant="Q4_K_M", size_bytes=103_700_000, bits_per_weight=6.17, types={"Q5_0": 0.58, "Q8_0": 0.42},
        decode_tokens_per_s=160.2, speed_outcome="inconclusive", quality=QUALITY, calibration=CALIBRATION,
        requantized_from="Q4_1", on_frontier=True,
    )  # fmt: skip
    lines = shown(rung)
    size = line_with(lines, "Q4_K_M", "104", "6.17")
    assert all(word in size for word in ("Q5_0 58%", "~160.2", "10.4856 ± 0.500", "0.0574 ± 0.0010", "frontier"))
    # 30 + 12 tokens changed sides; the NLL's interval leaves 0 out, the ECE's does not.
    changes = " ".join(line_with(lines, "*+0.0500").split())
    assert changes == "Q4_K_M *+0.0500 [+0.0200, +0.0800] 42 30 12 0.0300 +0.0100 [-0.0100, +0.0200]"
    # The reference's own: 2.35 - 0.05, 0.03 - 0.01.
    assert "510; NLL 2.3000, ECE 0.0200" in line_with(lines, "Calibration beside F16")
    assert "Q4_K_M: most weights are of a wider type" in " ".join(lines)
    assert "the machine was disturbed" in " ".join(lines)


def test_a_rung_that_failed_and_devices() -> None:
    speed = Interval(mid=20.0, low=15.0, high=25.0)
    takes = RungAdvice(device="phone", quant="Q2_K", kl_divergence=0.5, decode_tokens_per_s=speed)
    lines = shown(Rung(quant="IQ1_S", outcome="no room"), advice=(takes, RungAdvice(device="board")))
    assert line_with(lines, "IQ1_S").split()[-2:] == ["no", "room"]
    assert "20.0 [15.0, 25.0]" in line_with(lines, "phone", "Q2_K", "no rung within 0.1 nats")
    assert "no rung fits" in line_with(lines, "board")
