"""What a run over minutes found: speed in windows, and where it fell."""

from harness.domain.base import Frozen


class Window(Frozen, frozen=True, kw_only=True):
    """Some seconds of decoding. What the device does not tell is None.

    Attributes:
        duration_s: How long it took, pauses of the duty cycle left out.
        celsius: Hottest sensor at its end.
        frequency_hz: Mean frequency of the CPUs at its end.
        joules: Energy used in it, less what the idle device used before.
        battery_percent: Charge at its end.
        resident_bytes: Memory of the process at its end.
    """

    since_start_s: float
    duration_s: float
    token_count: int
    celsius: float | None = None
    frequency_hz: float | None = None
    joules: float | None = None
    battery_percent: float | None = None
    resident_bytes: int | None = None

    @property
    def tokens_per_s(self) -> float:
        """Speed of this window."""
        return self.token_count / self.duration_s


class Soak(Frozen, frozen=True, kw_only=True, tag="soak", tag_field="kind"):
    """Decoding for minutes.

    Attributes:
        minutes: How long it really ran.
        burst_tokens_per_s: Middle speed before the knee; of the whole run without one.
        sustained_tokens_per_s: Middle speed of the last quarter.
        knee_s: When it fell for good; None where no fall is told from noise.
        drop_ratio: By how much, as a share of the burst; 0 without a knee.
        burst_joules_per_token: Before the knee; None where the device does not tell.
        sustained_joules_per_token: In the last quarter.
        energy_scope: What the energy counts; empty without.
        tokens_per_charge: Of a full battery at the sustained rate; None without one.
        stopped: Which limit ended it early; empty for none.
    """

    minutes: float
    duty_ratio: float
    windows: tuple[Window, ...]
    burst_tokens_per_s: float
    sustained_tokens_per_s: float
    knee_s: float | None = None
    drop_ratio: float = 0.0
    burst_joules_per_token: float | None = None
    sustained_joules_per_token: float | None = None
    energy_scope: str = ""
    tokens_per_charge: float | None = None
    stopped: str = ""
