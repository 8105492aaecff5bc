"""The two random models of the page on GPUs: 12 dense layers, and 8 layers of 16 experts, of which a token uses 4.

python -m bench placement_models FOLDER     writes FOLDER/dense12.gguf and FOLDER/mix8.gguf, 208 MB of Q8_0
"""

import sys
from pathlib import Path
from typing import Final

from harness.catalog.synthesize import synthesize
from harness.domain.model import Experts, ModelShape
from harness.predict.weights import weights_of

MODELS: Final = {
    "dense12": ModelShape(
        architecture="llama", layer_count=12, hidden_dim=768, vocab_count=4096, head_count=12, kv_head_count=4,
        head_dim=64, feed_forward_dim=2048, context_max_tokens=8192,
    ),
    "mix8": ModelShape(
        architecture="olmoe", layer_count=8, hidden_dim=512, vocab_count=4096, head_count=8, kv_head_count=8,
        head_dim=64, feed_forward_dim=0, context_max_tokens=8192, qk_norm=True,
        experts=Experts(expert_count=16, used_count=4, feed_forward_dim=512),
    ),
}  # fmt: skip


def write(folder: Path) -> list[Path]:
    """Write both models; the same bytes every time."""
    return [synthesize(weights_of(shape, "Q8_0"), folder / f"{name}.gguf") for name, shape in MODELS.items()]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    for path in write(Path(sys.argv[1])):
        sys.stdout.write(f"{path}\n")
