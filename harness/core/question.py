"""What is asked about: the one type that every verb, file, page and program hands to :func:`harness.answer.answer.answer`.

Its fields are the options of the command line, the keys of JSON, and the
arguments of the Python API: their words, bounds and help stand here and nowhere else.
"""

from typing import Annotated, Literal

from msgspec import Meta

from harness.core.base import Frozen
from harness.core.option import Option
from harness.core.placement import Placement, placement_of

MOST_TOKENS = 1 << 24
"""No model has a context of more; a number above is a slip of the keyboard."""

EnginePart = Literal["flash-attention", "repack", "mmap"]

Speed = Annotated[float, Meta(gt=0, le=1e9)]
Minutes = Annotated[float, Meta(gt=0, le=1e6)]

Context = Annotated[
    Annotated[int, Meta(ge=64, le=MOST_TOKENS)] | Literal["max"] | None,
    Meta(description="Tokens that the context holds; `max` for as many as fit."),
    Option("--context -c", heading="Request", default="4096, or more where the request needs it"),
]
Prompt = Annotated[
    int,
    Meta(ge=1, le=MOST_TOKENS, description="Tokens in each prompt."),
    Option("--prompt -p", heading="Request"),
]
New = Annotated[
    int,
    Meta(ge=1, le=MOST_TOKENS, description="Tokens to write after each prompt."),
    Option("--tokens -n", heading="Request"),
]
Depth = Annotated[
    int,
    Meta(ge=0, le=MOST_TOKENS, description="Tokens that the context holds already."),
    Option("--depth", heading="Request"),
]
MOST_USERS = 4096
Users = Annotated[
    Annotated[int, Meta(ge=1, le=MOST_USERS)] | Literal["max"],
    Meta(
        description="Users that are served at once, each with an equal part of the context; `max` for as many "
        "as fit, and are as fast as --min-speed."
    ),
    Option("--users --batch", heading="Request"),
]
Ubatch = Annotated[
    int,
    Meta(ge=1, le=MOST_TOKENS, description="Most tokens that one pass computes (llama.cpp: -ub)."),
    Option("--ubatch", heading="Request"),
]
KvType = Annotated[
    str,
    Meta(description="Type of the KV cache: F16, Q8_0, Q4_0, ..."),
    Option("--kv-type", heading="Request"),
]
ValueType = Annotated[
    str,
    Meta(description="Type of the cached values."),
    Option("--value-type", heading="Request", default="that of the keys"),
]
Quant = Annotated[
    str,
    Meta(description="Quantisation, such as Q4_K_M."),
    Option("--quant -q", default="the model's usual one"),
]
ProgramName = Annotated[
    str | None,
    Meta(
        description="Program that runs the model, with its version and options where they matter: "
        "'llama-server b9460 -np 1', 'ollama 0.30.5', llama-cpp-python, jan, mlx, ..."
    ),
    Option(
        "--program",
        heading="Engine and placement",
        metavar="NAME [VERSION] [OPTION ...]",
        default="llama-server; edge-harness itself on this machine",
    ),
]
Api = Annotated[
    str,
    Meta(description="How the chip is driven: cpu, metal, cuda, vulkan, ..."),
    Option("--api", heading="Engine and placement", default="the device's usual one"),
]
Threads = Annotated[
    int,
    Meta(ge=0, le=1024, description="CPU threads."),
    Option(
        "--threads -t",
        heading="Engine and placement",
        default="the physical cores, leaving out much slower ones",
    ),
]
Without = Annotated[
    tuple[EnginePart, ...],
    Meta(
        description="Features of the engine to switch off: flash-attention, repack (rewriting weights for the CPU), "
        "mmap (mapping the file instead of reading it)."
    ),
    Option("--without", heading="Engine and placement"),
]
Placed = Annotated[
    Placement | None,
    Meta(
        description="How layers and experts are split between GPU and CPU, in llama.cpp's flags: "
        "'-ngl 20 --n-cpu-moe 7 -ts 3,1 -sm tensor -mg 0 -nkvo'."
    ),
    Option(
        "--placement",
        heading="Engine and placement",
        default="the fastest that fits",
        reads=placement_of,
    ),
]
Beside = Annotated[
    tuple[str, ...],
    Meta(description="What runs beside the model in the same memory: another model or a system; repeatable."),
    Option("--with", metavar="MODEL|SYSTEM[:SIZE]", is_repeated=True),
]


class Asked(Frozen):
    """All of a question but the model and the device: what is asked of any of them.

    Attributes:
        context_tokens: ``None``: 4,096, or what the request needs; ``max``: the longest that fits.
        users: Sequences decoded together.
        program: ``None``: the device's usual one; empty: the harness itself.
        placement: ``None``: searched.
        draft: A model's name, or a head of the model's own: ``mtp``, ``eagle``, ``dflash``, ``mtp:3``.
        target_tokens_per_s: Decode speed that is wanted.
        minutes: After which the speed is judged.
        ram_budget: RAM that the app may use: a size, or a share of the model's file (``0.6x``).
    """

    quant: Quant = ""
    context_tokens: Context = None
    prompt_tokens: Prompt = 512
    new_tokens: New = 128
    depth_tokens: Depth = 0
    users: Users = 1
    ubatch_tokens: Ubatch = 512
    kv_type: KvType = "F16"
    value_type: ValueType = ""
    program: ProgramName = None
    api: Api = ""
    thread_count: Threads = 0
    without: Without = ()
    placement: Placed = None
    beside: Beside = ()
    draft: Annotated[
        str,
        Meta(
            description="Draft model for speculative decoding: a name (NAME:QUANT for its quantisation) or a file; or "
            "a head on the model itself: mtp, eagle or dflash (mtp:3 drafts 3 tokens at a time)."
        ),
        Option("--draft"),
    ] = ""
    target_tokens_per_s: Annotated[
        Speed | None,
        Meta(description="Decode speed that each user needs, in tokens/s: a slower one is a no."),
        Option("--min-speed"),
    ] = None
    minutes: Annotated[
        Minutes | None,
        Meta(description="Show speed, heat and energy after so many minutes, and judge --min-speed then."),
        Option("--minutes"),
    ] = None
    entitled: Annotated[
        bool,
        Meta(description="Assume an iOS app with the increased-memory-limit entitlement."),
        Option("--entitled", heading="Device and limits"),
    ] = False
    ram_budget: Annotated[
        str,
        Meta(
            description="RAM that the app may use: 2GiB, 600MB, or 0.6x the size of the model's file. The rest is "
            "read from storage."
        ),
        Option("--ram-budget", heading="Device and limits"),
    ] = ""


class Question(Asked):
    """One model on one device, and all that is asked of them.

    Attributes:
        model: As typed: a name, a path, ``hf:org/repo:QUANT``.
        device: As typed: a name, a line of parts, a file; ``this`` for this machine.
    """

    model: str
    device: str = "this"
