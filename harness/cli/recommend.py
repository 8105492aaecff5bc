"""``edge-harness recommend``: which model for a task on a device."""

from typing import Annotated, Literal

from msgspec import Meta

from harness.cli import _options as options
from harness.cli.command import verb
from harness.core.errors import Exit
from harness.core.option import Option
from harness.core.question import Api, Asked, KvType
from harness.show.output import Output, say


@verb
def recommend(
    device: Annotated[str, Option(metavar="DEVICE")],
    task: Annotated[
        Literal["chat", "code", "agents", "vision", "embedding", "long", "reasoning"],
        Option("--task", "What the model is for: it decides which published scores count."),
    ] = "chat",
    min_speed: Annotated[
        float, Meta(gt=0, le=1e9), Option("--min-speed", "Slowest decode speed to accept, in tokens/s.")
    ] = 5.0,
    minutes: Annotated[
        Annotated[float, Meta(gt=0, le=1e5)] | None,
        Option("--minutes", "Require that speed after this many minutes, throttling included."),
    ] = None,
    instead_of: Annotated[
        str,
        Option("--instead-of", "Only models that this other device does not run whole and fast enough."),
    ] = "",
    context_tokens: options.ContextLength = 4096,
    kv_type: KvType = "F16",
    api: Api = "",
) -> Output:
    """Rank models for DEVICE by published quality against the time of a full answer, of those that run fast enough.

    Exit status: 0 there is one, 1 nothing fits or is fast enough.

    Example: edge-harness recommend iphone-15-pro --task code --min-speed 10
    """
    from harness.show.recommended import lines
    from harness.verbs.recommend import recommend as rank

    asked = Asked(
        context_tokens=None if context_tokens == 4096 else context_tokens,
        kv_type=kv_type,
        api=api,
        minutes=minutes,
        target_tokens_per_s=min_speed,
    )
    ranking = rank(device, task, asked, instead_of)

    return Output(ranking, lambda: say(*lines(ranking, device)), Exit.OK if ranking.winner else Exit.BROKEN)
