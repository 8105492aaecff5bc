"""A question with its model, its device and all else looked up: what an answer is computed from."""

import warnings
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from harness.answer.own_format import runner_of
from harness.answer.resolve import (
    THIS_MACHINE,
    Model,
    resolve_device,
    resolve_model,
    scenario_from,
    with_kept_costs,
)
from harness.core import plugins
from harness.core.device import Device, Pool, Sourced
from harness.core.errors import EngineError, HarnessError, InputError, RefusedError, UnknownNameError
from harness.core.model import Weights
from harness.core.placement import Placement
from harness.core.program import program_named
from harness.core.question import Question
from harness.core.scenario import Scenario
from harness.core.units import counted, format_bytes, parse_bytes
from harness.memory.co_resident import Companion
from harness.memory.splits import program_fit
from harness.memory.verdict import check_entitlement
from harness.speed.draft_cycle import BLOCK_RATIO, HEAD_RATIO, HEADS

USUAL_CONTEXT_TOKENS: Final = 4096
_MOST_SHARES: Final = 10
"""Of a model's file in a RAM budget: cache and scratch of a small model are some times its weights, no more."""
_RESERVING: Final = frozenset({"vllm", "sglang", "tensorrt-llm", "mlc-llm"})
"""Programs that reserve a share of a card whatever a model needs."""
_MOST_DRAFTED: Final = 64


class Case(NamedTuple):
    """One model on one device, ready to be computed.

    Attributes:
        scenario: With the api that is meant and the context that is made.
        is_placed: Whether the placement was asked for: no other is looked for.
        is_longest: Whether the longest context is wanted.
        is_whole: Whether its program splits nothing with the CPU and reads nothing from storage.
        draft: The model that drafts.
        head: The model's own that drafts: ``mtp``, ``eagle``, ``dflash``; empty for none.
        beside: Systems that live in the same memory.
        others: Other models that do, each whole and with a context of its own.
        here: Whether the device is this machine.
        assumed: What was read into the names, and taken for granted.
    """

    model: Model
    device: Device
    scenario: Scenario
    is_placed: bool = False
    is_longest: bool = False
    is_whole: bool = False
    draft: Model | None = None
    head: str = ""
    beside: tuple[Companion, ...] = ()
    others: tuple[Model, ...] = ()
    target_tokens_per_s: float | None = None
    minutes: float | None = None
    entitled: bool = False
    here: bool = False
    assumed: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model, device: Device, scenario: Scenario) -> "Case":
        """A model on a device that are looked up already.

        A placement in the scenario is the one that is asked for.
        """
        placed = scenario.replace(api=device.api(scenario.api))
        return cls(model, device, placed, is_placed=scenario.placement != Placement())

    def at(self, **changes: object) -> "Case":
        """The same with other values of the scenario."""
        return self._replace(scenario=self.scenario.replace(**changes))


def case_of(question: Question, model: Model, device: Device | None = None) -> Case:
    """Look up what a question names of its model, on its device unless that was looked up already.

    Raises:
        UnknownNameError: No such device, program, api or system.
        RefusedError: What is asked for cannot be had together, such as another vocabulary of a draft.
        InputError: Tokens that have no room in the context that was asked for.
        BadDataError: A file breaks its format.
    """
    head, drafted = _head(question.draft)
    scenario = _scenario(question, model, drafted)
    device = with_kept_costs(device or resolve_device(question.device), scenario)
    here = question.device in THIS_MACHINE
    assumed = [*model.notes]
    if question.ram_budget:
        device = within_budget(device, budget_bytes(question.ram_budget, model.weights.file_bytes))
        assumed.append(f"the app may use {format_bytes(device.pool('ram').usable_bytes.value)} of RAM")
    program = question.program
    if model.format is not None:
        runner, api = runner_of(model, device, program or "", scenario.api)
        program = program or runner.name.replace("bitsandbytes", "vllm")
        scenario = scenario.replace(api=api, program=program)
    scenario = scenario.replace(api=device.api(scenario.api))
    if device.engine_for(scenario.api) is None:
        there = ", ".join(sorted({name for one in device.engines for name in one.apis}))
        raise RefusedError(f"{device.name} has no api {scenario.api!r}; it has {there}")
    check_entitlement(question.entitled, device)
    if program is None:
        scenario = scenario.replace(program="" if here else "llama-server")
    if question.placement is not None:
        scenario = scenario.replace(placement=over_cards(device, question.placement))
    if model.weights.shape.lazy_row_count:
        assumed.insert(0, "its table of n-grams stays on disk, so its file is larger than what memory holds")
    if head == "mtp" and not model.weights.shape.mtp_layer_count:
        assumed.append("a file of it that holds an MTP head: without one no engine drafts so")
    systems, others = _beside(question.beside, model.weights)
    case = Case(
        model=model,
        device=device,
        scenario=scenario,
        is_placed=question.placement is not None,
        is_longest=question.context_tokens == "max",
        is_whole=model.format is not None,
        draft=resolve_model(question.draft) if question.draft and not head else None,
        head=head,
        beside=(*systems, *_head_beside(head, model)),
        others=tuple(others),
        target_tokens_per_s=question.target_tokens_per_s,
        minutes=question.minutes,
        entitled=question.entitled,
        here=here,
        assumed=tuple(assumed),
    )
    return _by_program(case, context_asked=question.context_tokens is not None)


def _scenario(question: Question, model: Model, drafted: int) -> Scenario:
    """What is asked of the model; the context is as typed, or has room for all that is asked for.

    Nobody's context is longer than what the model was made for unless it is asked for.
    """
    fields = {name: getattr(question, name) for name in Scenario.__struct_fields__ if hasattr(question, name)}
    users = 1 if question.users == "max" else question.users
    fields |= {"batch_count": users, "without": question.without, "draft_tokens": drafted}
    fields["program"] = question.program or ""
    if model.reads_only:
        new = 0
    else:
        new = question.new_tokens
    needed = users * (question.depth_tokens + question.prompt_tokens + new)
    asked = question.context_tokens
    is_bench = program_named(fields["program"]).name == "llama-bench"
    if is_bench and asked is not None:
        raise RefusedError(
            "llama-bench makes a context of the prompt, --depth and --tokens: leave out --context"
        )
    if isinstance(asked, int):
        if users > 1 and needed > asked:
            found = f"a context of {asked:,} tokens for {users} users"
            raise InputError(f"{found}, expected {needed:,} or more: {needed // users:,} tokens for each")
        fields["context_tokens"] = asked
    else:
        most = model.weights.shape.context_max_tokens or USUAL_CONTEXT_TOKENS
        least = min(USUAL_CONTEXT_TOKENS, most)
        if is_bench:
            least = 0
        fields["context_tokens"] = max(-(-needed // 256) * 256, least)
    return scenario_from(fields)


def _by_program(case: Case, *, context_asked: bool) -> Case:
    """The case with the context and the placement that its program chooses by itself.

    For llama-server nothing is changed, since its command states both.
    """
    program = program_named(case.scenario.program)
    if program.name == "mlx" and case.scenario.api != "metal":
        raise RefusedError(f"mlx runs on Apple's GPUs, and {case.device.title} has none that it drives")
    if program.name in _RESERVING:
        said = f"memory as llama.cpp takes it: {program.name} reserves what it may (vLLM: 90 % of a card)"
        case = case._replace(assumed=(*case.assumed, said))
    if not program.fit or program.name in {"", "llama-server", "llama-cli", "llama-bench"}:
        return case
    try:
        made = program_fit(
            case.model.weights,
            case.scenario,
            case.device,
            context_asked=context_asked,
            layers_asked=case.is_placed,
        )
    except ValueError as error:
        raise no_cache(case, error) from error
    if made is None:
        return case
    return case._replace(scenario=made.scenario, is_placed=True, assumed=(*case.assumed, made.why))


def no_cache(case: Case, error: ValueError) -> RefusedError:
    """What to say of a cache whose type does not divide a row of the model's keys."""
    return RefusedError(
        f"{case.model.name}: a KV cache of type {case.scenario.kv_type} is impossible: {error}"
    )


def _head(draft: str) -> tuple[str, int]:
    """The head that a draft names, empty for a model.

    And the tokens it drafts at a time, 0 where nobody says.
    """
    word, _, length = draft.partition(":")
    if word not in HEADS:
        return "", 0
    if not length:
        return word, 0
    if not length.isdecimal() or not 1 <= int(length) <= _MOST_DRAFTED:
        raise InputError(f"draft: found {draft!r}, expected 1 to {_MOST_DRAFTED} tokens, such as {word}:3")
    return word, int(length)


def _head_beside(head: str, model: Model) -> list[Companion]:
    """The weights of a head that drafts; an MTP head's lie in the model's own file."""
    ratio = {"eagle": HEAD_RATIO, "dflash": BLOCK_RATIO}.get(head)
    if ratio is None:
        return []
    why = "weights of the head that drafts, as a share of the model's"
    return [Companion(f"{head} head", round(ratio * model.weights.file_bytes), reason=why)]


def _beside(names: tuple[str, ...], weights: Weights) -> tuple[list[Companion], list[Model]]:
    """Systems and models that are named to run beside the model.

    Raises:
        UnknownNameError: A name is neither's.
        RefusedError: A system refuses what follows its colon.
    """
    systems = list[Companion]()
    others = list[Model]()
    for name in names:
        try:
            systems.append(companion(name, weights))
        except UnknownNameError as unknown:
            try:
                others.append(resolve_model(name))
            except UnknownNameError:
                raise unknown from None
    return systems, others


def companion(text: str, weights: Weights) -> Companion:
    """Find the system of that name to run beside a model with these weights, in every installed package.

    The name that a package offers may be a pattern, such as ``*.trace.json``.

    Raises:
        RefusedError: The package of that name refuses what follows the colon.
        UnknownNameError: No package knows that name.
    """
    offers = plugins.every("edge_harness.companions")
    known: list[str] = []
    for offer in offers:
        names, make = _offered(offer)
        if any(fnmatchcase(text.partition(":")[0], name) for name in names):
            return _made(make, text, weights)
        known += names
    raise UnknownNameError("system", text.partition(":")[0], known)


def _offered(offer: Callable[[], Any]) -> tuple[list[str], Callable[..., Any]]:
    """Names and maker of an offer; none, with a warning, where it is not what the group promises."""
    where = getattr(offer, "__module__", type(offer).__name__)
    try:
        names, make = offer()
        is_right = (
            not isinstance(names, str) and callable(make) and all(isinstance(name, str) for name in names)
        )
        fault = (
            ""
            if is_right
            else f"found {type(names).__name__} and {type(make).__name__}, expected names and a function"
        )
    except Exception as error:  # noqa: BLE001 - of a stranger's package: the others are asked
        fault = plugins.crash_words(error)
    if not fault:
        return list(names), make
    warnings.warn(f"what {where} offers beside a model is left out: {fault}", stacklevel=3)
    return [], Companion


def _made(make: Callable[..., Any], text: str, weights: Weights) -> Companion:
    """The companion that an offer makes.

    Raises:
        EngineError: It broke, or made something else.
    """
    try:
        found = make(text, weights)
    except HarnessError:
        raise
    except Exception as error:
        raise EngineError(f"--with {text}: {plugins.crash_words(error)}") from error
    if not isinstance(found, Companion):
        raise EngineError(f"--with {text}: found {type(found).__name__}, expected a Companion")
    return found


def budget_bytes(text: str, whole_bytes: int) -> int:
    """Bytes of a RAM budget: a size, or a share of a model's bytes such as ``0.6x``.

    Raises:
        InputError: It is neither, or a share of more than ten times the model.
    """
    try:
        found = parse_bytes(text, whole_bytes)
    except ValueError as error:
        raise InputError(f"--ram-budget: {error}") from None
    if text.strip().lower().endswith("x") and found > _MOST_SHARES * whole_bytes:
        raise InputError(f"--ram-budget: found {text!r}, expected at most {_MOST_SHARES}x of the file")
    return found


def within_budget(device: Device, ram_budget_bytes: int) -> Device:
    """The device with at most that much RAM for the app, whatever its system would allow.

    Raises:
        RefusedError: The budget is zero or less.
    """
    if ram_budget_bytes <= 0:
        raise RefusedError(f"a RAM budget is above 0 bytes, got {ram_budget_bytes}")

    def cut(pool: Pool) -> Pool:
        if pool.is_own:
            return pool
        usable = min(ram_budget_bytes, pool.total_bytes.value)
        return pool.replace(usable_bytes=Sourced(usable, "asked for", "assumed"), entitled_bytes=None)

    cards = tuple(within_budget(card, ram_budget_bytes) for card in device.cards)
    return device.replace(pools=tuple(map(cut, device.pools)), cards=cards)


def over_cards(device: Device, placement: Placement) -> Placement:
    """A placement that was asked for with a share for each of several cards: those of their memory unless it has any.

    Raises:
        RefusedError: It has shares of more cards than there are, or names one that is not there.
    """
    count = device.card_count
    if placement.main_gpu >= count:
        raise RefusedError(
            f"-mg {placement.main_gpu}: {device.title} has {counted(count, 'card')}, the first one is 0"
        )
    if count < 2 or placement.split_mode == "none":
        return placement
    shares = placement.tensor_split or device.card_shares
    if len(shares) > count:
        raise RefusedError(
            f"-ts {','.join(f'{share:g}' for share in shares)}: {device.name} has {count} cards"
        )
    return placement.replace(tensor_split=(*shares, *(0.0,) * (count - len(shares))))
