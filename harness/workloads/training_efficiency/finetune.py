"""Fine-tuning with LoRA: whether it fits a device, and how long it takes.

Memory: frozen weights in their file's type; 16 bytes for each adapter weight (fp32 weight, gradient, two Adam moments);
activations with checkpointing: of one layer about 34 bytes x tokens x width without the score matrix (Korthikanti et
al. 2022, equation 2, fp16 with flash attention), and the inputs of all layers in fp16. Time: 6 N per token (forward
2 N, again for the checkpoint 2 N, backward through frozen weights 2 N) and 6 for each adapter weight.
"""

from typing import Final, NamedTuple

from harness.catalog.devices import load_device
from harness.catalog.names import load_model
from harness.domain.device import DeviceProfile
from harness.domain.model import ModelShape
from harness.predict.workload_cost import rates_of

RANK: Final = 16
BATCH_TOKENS: Final = 512
TRAIN_TOKENS: Final = 1_000_000
_BYTES_PER_ADAPTER_WEIGHT: Final = 16
_ACTIVATION_BYTES: Final = 34
_ASSUMED_MFU: Final = 0.3
_BITS_PER_WEIGHT: Final = 4.5
"""Of the frozen weights: Q4_0."""


class FineTune(NamedTuple):
    """An estimate. ``fits`` compares with what one app may hold; the rate assumes an MFU of 0.3."""

    adapter_count: int
    memory_bytes: int
    available_bytes: int
    fits: bool
    tokens_per_s: float
    hours: float


def lora(shape: ModelShape, parameter_count: int, device: DeviceProfile) -> FineTune:
    """LoRA on the query, key, value and output matrices, the model's weights frozen in 4.5 bits."""
    h, layers = shape.hidden_dim, shape.layer_count
    queries, keys = shape.head_count * shape.head_dim, shape.kv_head_count * shape.head_dim
    adapters = layers * RANK * ((h + queries) + 2 * (h + keys) + (queries + h))
    activations = (_ACTIVATION_BYTES + 2 * layers) * BATCH_TOKENS * h
    logits = 8 * BATCH_TOKENS * shape.vocab_count
    frozen = round(parameter_count * _BITS_PER_WEIGHT / 8)
    memory = frozen + _BYTES_PER_ADAPTER_WEIGHT * adapters + activations + logits
    flops = 6 * parameter_count + 6 * adapters
    engine = device.engine()
    peaks = engine.peak_flops_per_s
    peak = next((peaks[t].value for t in ("fp16", "fp32") if t in peaks), rates_of(device).flops_per_s)
    rate = _ASSUMED_MFU * peak / flops
    available = int(device.pool(engine.pool).usable_bytes.value)
    return FineTune(adapters, memory, available, memory <= available, rate, TRAIN_TOKENS / rate / 3600)


def lora_on(model: str, devices: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """LoRA of a model of the catalogue on each device; UnknownNameError where there is no such model or device."""
    card = load_model(model)
    return {name: lora(card.shape, card.parameter_count, load_device(name))._asdict() for name in devices}
