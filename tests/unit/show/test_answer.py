"""The first screen of an answer: what a person asked, in few words, true to the figures behind it."""

import re

import pytest

from harness.answer.answer import Answer, answer
from harness.core.errors import RefusedError
from harness.core.placement import Placement
from harness.core.prediction import Basis, Interval
from harness.core.question import Question
from harness.show.first_screen import as_you_read, basis_line, between_s, first_screen, of_sizes, seconds, several, two


def asked(model: str, device: str, **fields: object) -> Answer:
    return answer(Question(model=model, device=device, **fields))


def with_decode(found: Answer, low: float, mid: float, high: float) -> Answer:
    """The same answer with another decode speed."""
    speed = found.prediction.speed.replace(decode_tokens_per_s=Interval(mid=mid, low=low, high=high))
    return found.replace(prediction=found.prediction.replace(speed=speed))


CARD = asked("llama-3.1-8b", "rtx 3060 12GB")


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.304, "0.3"), (1.04, "1.0"), (9.96, "10"), (56.3, "56"), (130.2, "130"), (1312, "1,300")],
)
def test_a_figure_has_two_digits(value: float, words: str) -> None:
    assert two(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.02, "0.02 s"), (0.31, "0.3 s"), (2.02, "2 s"), (2.44, "2.4 s"), (41.2, "41 s"), (183, "3 min"), (7300, "2 h")],
)
def test_a_time_is_said_as_people_say_it(value: float, words: str) -> None:
    assert seconds(value) == words


def test_a_unit_stands_once() -> None:
    assert between_s(Interval(mid=0.3, low=0.11, high=0.52)) == "0.1 to 0.5 s"
    assert between_s(Interval(mid=60, low=12, high=240)) == "12 s to 4 min"
    assert of_sizes(5.31 * 2**30, 11.4 * 2**30) == "5.3 of 11 GiB"


@pytest.mark.parametrize(
    ("low", "mid", "high", "words"),
    [  # 5.3 tokens/s is reading speed
        (44, 56, 72, "11 times as fast as you read"),
        (4, 5, 7, "about as fast as you read"),
        (1, 2, 3, "slower than you read"),
        (1, 3, 9, ""),
    ],
)
def test_a_speed_beside_reading(low: float, mid: float, high: float, words: str) -> None:
    assert as_you_read(Interval(mid=mid, low=low, high=high)) == words


@pytest.mark.parametrize(
    ("model", "device", "fields", "begins"),
    [
        ("llama-3.1-8b", "rtx 3060 12GB", {}, "Yes. Llama 3.1 8B runs on an RTX 3060 12 GB, all of it on the card."),
        ("gpt-oss-20b", "rtx 4060 + 32GB", {}, "Yes. gpt-oss 20B runs on an RTX 4060"),
        ("llama-3.1-8b", "iphone 12", {}, "No. Llama 3.1 8B does not run on an iPhone 12"),
        ("qwen3-30b-a3b", "macbook air m3 16gb", {}, "Partly. Qwen3 30B A3B is too large for a MacBook Air M3"),
        ("llama-3.1-8b", "rtx 3090", {"users": 8}, "Yes. An RTX 3090 serves Llama 3.1 8B to 8 people at once."),
        ("llama-3.1-8b", "rtx 3060 12GB", {"target_tokens_per_s": 500.0}, "Too slow. Llama 3.1 8B runs on"),
    ],
)
def test_the_first_line_is_the_answer(model: str, device: str, fields: dict[str, object], begins: str) -> None:
    said = " ".join(first_screen(asked(model, device, **fields)))
    assert said.startswith(begins)


@pytest.mark.parametrize(
    ("model", "device", "fields"),
    [
        ("llama-3.1-8b", "rtx 3060 12GB", {}),
        ("gpt-oss-20b", "rtx 4060 + 32GB", {"context_tokens": 16384}),
        ("llama-3.1-8b", "rtx 3090 + rtx 3060 12gb", {}),
        ("llama-3.1-8b", "iphone 12", {}),
        ("qwen3-30b-a3b", "macbook air m3 16gb", {}),
        ("llama-3.1-8b", "rtx 3090", {"users": 8}),
        ("qwen2.5-32b", "rtx 4090", {"draft": "qwen2.5-0.5b"}),
        ("qwen3-235b-a22b", "2x rtx 3090 + 128GB", {}),
        ("glm-4.6", "rtx 4090 + 128gb ddr5-5600", {"quant": "UD-Q2_K_XL"}),
        ("qwen3-32b", "rtx 4090", {"context_tokens": 131072}),
    ],
)
def test_a_first_screen_is_short(model: str, device: str, fields: dict[str, object]) -> None:
    found = asked(model, device, **fields)
    lines = first_screen(found, ["--details", "--minutes N", "--explain"])
    prose = [line for line in lines if line.strip() not in found.commands]
    assert len(lines) <= 14
    assert len(" ".join(prose).split()) <= 110
    assert all(len(line) <= 80 for line in prose)


def test_what_is_not_known_well_has_no_middle() -> None:
    wide = "\n".join(first_screen(with_decode(CARD, 4, 9, 18)))
    assert re.search(r"writes +unsure +4.0 to 18 tokens/s", wide)
    widest = "\n".join(first_screen(with_decode(CARD, 1, 9, 30)))
    assert re.search(r"writes +not known", widest)
    assert " 9" not in next(line for line in widest.splitlines() if line.startswith("  writes"))


def test_a_very_slow_one_is_said_in_seconds_a_token() -> None:
    assert re.search(r"writes +5 s a token", "\n".join(first_screen(with_decode(CARD, 0.15, 0.2, 0.25))))


def test_each_user_s_context_and_speed_are_said() -> None:
    said = "\n".join(first_screen(asked("llama-3.1-8b", "rtx 3090", users=4, context_tokens=8192)))
    assert "with 2,048 tokens of context for each" in said
    assert "-c 8192" in said and "-np 4" in said


def test_a_draft_is_in_the_first_line_and_in_the_command() -> None:
    said = first_screen(asked("qwen2.5-32b", "rtx 4090", draft="qwen2.5-0.5b"))
    assert "drafting" in " ".join(said[:2])
    assert any("-hfd" in line and "--spec-type draft-simple" in line for line in said)


def test_a_limit_within_the_interval_is_barely_met() -> None:
    mid = CARD.prediction.speed.decode_tokens_per_s
    assert first_screen(asked("llama-3.1-8b", "rtx 3060 12GB", target_tokens_per_s=mid.low * 1.02))[0].startswith(
        "Barely."
    )
    assert first_screen(asked("llama-3.1-8b", "rtx 3060 12GB", target_tokens_per_s=mid.low * 0.98))[0].startswith(
        "Yes."
    )


def test_of_several_the_first_line_names_the_fastest_or_the_doubt() -> None:
    near = [asked("llama-3.1-8b", name) for name in ("rtx 3090", "rtx 3090 ti")]
    apart = [asked("llama-3.1-8b", name) for name in ("raspberry pi 5", "rtx 4090")]
    assert several(near)[0].startswith("RTX 3090 Ti is likely the fastest, but RTX 3090 is within the doubt.")
    assert re.match(r"RTX 4090.* is \d+ times as fast as Raspberry Pi 5", several(apart)[0])
    assert all(len(line) <= 80 for line in several(apart))


@pytest.mark.parametrize(("device", "api"), [("strix halo 128gb", "rocm"), ("galaxy s25 ultra", "npu")])
def test_another_engine_that_is_asked_for_is_not_the_cpu(device: str, api: str) -> None:
    found = asked("llama-3.2-3b", device, api=api)
    said = "\n".join(first_screen(found))
    assert found.prediction.api == api
    assert "by the CPU" not in said
    assert "\n  : " not in said


def test_a_speed_stands_after_the_prompt_that_was_asked_for_as_the_verdict_does() -> None:
    """`-p 60000 --min-speed 100` said "too slow" above "writes 180 tokens/s"."""
    found = asked("qwen3-coder-30b-a3b", "2x rtx 3090", context_tokens=65536, prompt_tokens=60000)
    after = found.by_depth[0].decode_tokens_per_s.mid
    assert after < 0.6 * found.prediction.speed.decode_tokens_per_s.mid
    said = "\n".join(first_screen(found))
    assert re.search(rf"writes +{two(after)} tokens/s", said)
    assert "stay in RAM" not in said  # another way's speed stands before the prompt, and would seem faster


@pytest.mark.parametrize(
    ("placement", "says"),
    [
        (Placement(cpu_moe=99), "the experts of 40 of its 40 blocks"),
        (Placement(split_mode="tensor"), "each layer is split over 2 cards"),
    ],
)
def test_a_placement_is_said_as_it_is(placement: Placement, says: str) -> None:
    found = asked("qwen3.6-35b-a3b", "2x rtx 5080 + 64GB", placement=placement)
    assert says in " ".join(" ".join(first_screen(found)).split())


def test_an_idle_option_is_named_as_it_is_typed() -> None:
    with pytest.raises(RefusedError, match=r"^--threads changes nothing"):
        asked("llama-3.1-8b", "rtx 3090", thread_count=32)


@pytest.mark.parametrize(("model", "device"), [("qwen3-8b", "rtx 5070 laptop"), ("qwen3-0.6b", "visionfive 2 8gb")])
def test_the_last_lines_are_no_wider_than_the_others(model: str, device: str) -> None:
    found = asked(model, device)
    assert all(len(line) <= 80 for line in first_screen(found) if line.strip() not in found.commands)


def test_several_with_long_names_are_a_line_each() -> None:
    devices = ("mac studio m4 max 128gb", "dgx spark", "strix halo 128gb")
    said = several([asked("glm-4.5-air", name, context_tokens=32768) for name in devices])
    assert len(said) <= 14
    assert all(len(line) <= 80 for line in said)
    assert [line.split()[0] for line in said[4:7]] == ["Mac", "DGX", "Framework"]


def test_devices_of_one_title_are_named_as_they_were_typed() -> None:
    slow, fast = "ryzen 7800x3d, 2x16GB ddr5-5200", "ryzen 7800x3d, 2x16GB ddr5-8000"
    said = " ".join(several([asked("qwen3-8b", slow), asked("qwen3-8b", fast)])[:2])
    assert said == f"{fast} is likely the fastest, but {slow} is within the doubt."


def test_minutes_that_are_asked_for_have_a_row() -> None:
    found = asked("gemma-3-1b", "pixel 9", minutes=60.0)
    assert found.sustained is not None
    row = next(line for line in first_screen(found) if line.startswith("  later"))
    assert two(found.sustained.tokens_per_s.mid) in row and "after 60 minutes" in row


def test_a_long_answer_has_its_end() -> None:
    """4,000 tokens at some 50 a second."""
    found = asked("qwen3.5-27b", "rtx 4090", new_tokens=4000)
    seconds_each = found.prediction.speed.decode_tokens_per_s.through(lambda rate: 4000 / rate).mid
    said = re.search(r"(\d+) s to the end", " ".join(first_screen(found)))
    assert said and 0.95 < int(said[1]) / seconds_each < 1.1


def test_what_is_left_out_of_a_device_is_said_first() -> None:
    found = asked("qwen3-32b", "rtx 4060 ti 16GB zip drive + 32GB")
    assert "left out, since nobody here knows it: zip, drive" in " ".join(first_screen(found))


def test_a_wide_figure_does_not_touch_what_follows() -> None:
    reads = next(line for line in first_screen(asked("bge-m3", "rtx 3060 12GB")) if line.startswith("  reads"))
    assert " tokens/s likely " in reads


def test_a_long_advice_is_wrapped() -> None:
    for device in ("iphone-15-pro", "rtx 3060 12GB"):
        lines = first_screen(asked("deepseek-r1", device), instead="Keep the cache in Q8_0, " * 6)
        assert all(len(line) <= 80 for line in lines)


def test_of_several_no_option_is_named_that_is_refused() -> None:
    assert several([CARD, CARD])[-1].endswith("More: --json")


@pytest.mark.parametrize(
    ("fields", "flag"), [({"target_tokens_per_s": 9.0}, "--min-speed"), ({"new_tokens": 5}, "--tokens")]
)
def test_an_encoder_is_not_asked_to_write(fields: dict[str, object], flag: str) -> None:
    with pytest.raises(RefusedError, match=f"^{flag}: BGE M3 is an encoder"):
        asked("bge-m3", "rtx 3060 12GB", **fields)


def test_encoders_are_compared_by_what_they_read() -> None:
    found = asked("bge-m3", "rtx 3060 12GB")
    said = "\n".join(several([found, asked("bge-m3", "rtx 4090")]))
    assert f"reads, tokens/s   {two(found.prediction.speed.prefill_tokens_per_s.mid)}" in said
    assert found.sustained is None


def test_a_model_that_sees_has_its_own_name() -> None:
    assert first_screen(asked("qwen2.5-vl-7b", "rtx 3060 12gb"))[0].startswith("Yes. qwen2.5-vl-7b runs")
    assert first_screen(asked("gemma-3-27b", "rtx 3090"))[0].startswith("Yes. Gemma 3 27B IT runs")


def test_one_measurement_is_one() -> None:
    found = asked("gpt-oss-120b", "rtx 4070 + 96gb ddr5-6000")
    evidence = found.prediction.speed.decode_evidence.replace(basis=Basis.CHIP, count=1)
    now = found.prediction.replace(speed=found.prediction.speed.replace(decode_evidence=evidence))
    assert basis_line(found.replace(prediction=now)) == "Predicted from one measurement of this chip by others."


@pytest.mark.parametrize(
    ("model", "device", "fields"),
    [
        ("some-new-model-13b", "rtx 3060", {"quant": "Q8_0"}),
        ("qwen3-8b", "galaxy s24", {"target_tokens_per_s": 5.0, "minutes": 15.0}),
    ],
)
def test_what_is_taken_for_granted_has_the_lines_that_are_left(
    model: str, device: str, fields: dict[str, object]
) -> None:
    found = asked(model, device, **fields)
    assert found.notes
    assert len(first_screen(found, ["--details"])) <= 14


def test_a_slow_figure_is_still_each_user_s() -> None:
    assert "for each" in row(asked("deepseek-r1", "rtx 4090 64GB", users=2), "writes")


def row(found: Answer, label: str) -> str:
    """The row of that label on the first screen; empty where there is none."""
    return next((line for line in first_screen(found) if line.startswith(f"  {label} ")), "")


def test_what_nobody_measured_has_no_figure() -> None:
    found = asked("llama-3.2-1b", "core ultra 7 258v", api="npu")
    assert first_screen(found)[0].startswith("Not known.")
    for label in ("writes", "starts"):
        assert row(found, label).split()[1:] == ["not", "known"]


@pytest.mark.parametrize(
    ("model", "device", "fields", "label", "words"),
    [
        ("qwen2.5-vl-7b", "rtx 3060 12gb", {}, "image", "for each picture"),
        ("gemma-3-27b", "rtx 3090", {}, "image", "left out by --no-mmproj"),
        ("llama-3.1-8b", "rtx 4090", {"quant": "Q2_K"}, "quality", "as of Llama 3"),
        ("gemma-3-1b", "pixel 9", {"minutes": 60.0}, "battery", "of a charge in 60 minutes"),
        ("llama-3.1-8b", "rtx 4090", {"users": 4, "minutes": 20.0}, "later", "not known"),
    ],
)
def test_what_is_asked_for_has_its_row(
    model: str, device: str, fields: dict[str, object], label: str, words: str
) -> None:
    assert words in row(asked(model, device, **fields), label)
    assert len(first_screen(asked(model, device, **fields))) <= 14


@pytest.mark.parametrize(("storage", "is_said"), [("usb stick 100MB/s", True), ("nvme 3.5gb/s", False)])
def test_a_long_load_is_said(storage: str, is_said: bool) -> None:
    # 2.5 GB: 25 s by the stick
    screen = " ".join(first_screen(asked("qwen3-4b", f"i7-8550u 16GB, {storage}")))
    assert ("loads in" in screen) == is_said


@pytest.mark.parametrize(("model", "fields"), [("llama-3.1-8b", {}), ("llama-3.1-8b", {"quant": "Q6_K"})])
def test_what_nobody_asked_for_has_none(model: str, fields: dict[str, object]) -> None:
    found = asked(model, "rtx 4090", **fields)
    assert not any(row(found, label) for label in ("image", "quality", "battery", "later"))


def test_a_speed_that_is_needed_is_each_user_s() -> None:
    # 490 tokens/s together, some 120 for each
    assert asked("qwen3-8b", "rtx 4090", users=4, target_tokens_per_s=60.0).is_wanted
    assert not asked("qwen3-8b", "rtx 4090", users=4, target_tokens_per_s=200.0).is_wanted


def test_the_most_users_are_as_many_as_fit_and_are_fast_enough() -> None:
    found = asked("llama-3.1-8b", "rtx 3090", users="max", target_tokens_per_s=30.0)
    most = found.scenario.batch_count
    assert most > 1
    assert found.is_wanted
    assert not asked("llama-3.1-8b", "rtx 3090", users=most + 1, target_tokens_per_s=30.0).is_wanted
    # 640 tokens for each
    assert asked("llama-3.1-8b", "rtx 3090", users="max", context_tokens=6400).scenario.batch_count == 10


def test_one_card_of_several_can_be_asked_for() -> None:
    rig = "rtx 3090 + rtx 3060 12gb"
    found = asked("llama-3.1-8b", rig, placement=Placement(split_mode="none", main_gpu=1))
    alone = asked("llama-3.1-8b", "rtx 3060 12gb")
    assert two(found.prediction.speed.decode_tokens_per_s.mid) == two(alone.prediction.speed.decode_tokens_per_s.mid)
    assert found.commands[0].endswith("-ngl all -sm none -mg 1")
    with pytest.raises(RefusedError, match="has 2 cards"):
        asked("llama-3.1-8b", rig, placement=Placement(split_mode="none", main_gpu=2))


def test_llama_bench_has_no_option_for_a_context() -> None:
    assert asked("llama-3.1-8b", "rtx 4090", program="llama-bench").scenario.context_tokens == 768  # 512 + 128
    with pytest.raises(RefusedError, match="leave out --context"):
        asked("llama-3.1-8b", "rtx 4090", program="llama-bench", context_tokens=8192)


def test_an_option_stands_once_in_a_command() -> None:
    program = "llama-server -np 3 -ctxcp 128 -cram 131072 --swa-full"
    (command, *_) = asked("qwen3.8-27b", "rtx 4090", quant="IQ2_M", users=3, program=program).commands
    options = [word for word in command.split() if word.startswith("-")]
    assert len(options) == len(set(options))
    assert "--swa-full" in options
    assert not {"-ctxcp", "-cram"} & set(options)  # what they say stands there by the longer names


def test_a_program_that_is_told_no_api_has_no_command_for_another() -> None:
    assert asked("llama-3.1-8b", "rtx 4090", program="ollama", api="vulkan").commands == ()


@pytest.mark.parametrize("wanted", [None, 30.0])
def test_of_many_devices_the_first_screen_shows_those_that_matter(wanted: float | None) -> None:
    cards = ("2060", "2080", "3060 12gb", "3080", "3090", "4060", "4070", "4080", "4090", "5090", "a6000")
    answers = [asked("qwen3.8-27b", f"rtx {card}", target_tokens_per_s=wanted) for card in cards]
    screen = several(answers)
    assert len(screen) <= 14
    assert any("RTX A6000" in line for line in screen)
    assert not any("RTX 2060" in line for line in screen)
    assert "others are left out" in screen[-1]
