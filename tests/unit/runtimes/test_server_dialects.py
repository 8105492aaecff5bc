"""What each kind of server says, from exchanges in its own documentation, and what is made of it."""

import random

import pytest

from harness.core.errors import RefusedError
from harness.runtimes.server import RUNTIME
from harness.runtimes.server.pieces import Request, ServerAnswer
from harness.runtimes.server.stream import Endpoint, ServerError
from tests.faults.replay_server import END, LINES_HEAD, NO_PAGE, STREAM_HEAD, event, line, page, replay, sends

# Ollama, docs/api.md: "Generate a completion" (streaming), "Show Model Information", "List Local Models".
OLLAMA = {
    "/api/version": page({"version": "0.5.1"}),
    "/api/ps": page({"models": []}),
    "/api/tags": page({"models": [{"name": "llama3.2:latest", "size": 2019393189, "details": {"family": "llama"}}]}),
    "/api/show": page(
        {
            "details": {"format": "gguf", "family": "llama", "parameter_size": "8.0B", "quantization_level": "Q4_0"},
            "model_info": {
                "general.architecture": "llama",
                "general.parameter_count": 8030261248,
                "llama.context_length": 8192,
            },
        }
    ),
    "/api/generate": sends(
        LINES_HEAD,
        line({"model": "llama3.2", "created_at": "2023-08-04T08:52:19Z", "response": "The", "done": False}),
        line({"model": "llama3.2", "created_at": "2023-08-04T08:52:20Z", "response": " sky", "done": False}),
        line(
            {"model": "llama3.2", "response": "", "done": True, "context": [1, 2, 3], "total_duration": 10706818083,
             "load_duration": 6338219291, "prompt_eval_count": 26, "prompt_eval_duration": 130079000, "eval_count": 2,
             "eval_duration": 4232710000}
        ),
        END,
    ),
}  # fmt: skip

# LM Studio, REST API v0: "GET /api/v0/models", "POST /api/v0/completions" (its stats in the last event of a stream).
LMSTUDIO = {
    "/api/v0/models": page(
        {
            "object": "list",
            "data": [
                {"id": "qwen2-vl-7b-instruct", "type": "vlm", "arch": "qwen2_vl", "quantization": "4bit",
                 "state": "not-loaded", "max_context_length": 32768},
                {"id": "granite-3.0-2b-instruct", "type": "llm", "arch": "granite", "quantization": "Q4_K_M",
                 "state": "loaded", "max_context_length": 131072, "loaded_context_length": 4096},
                {"id": "text-embedding-nomic-embed-text-v1.5", "type": "embeddings", "state": "loaded"},
            ],
        }
    ),
    "/api/v0/completions": sends(
        STREAM_HEAD,
        event({"object": "text_completion", "choices": [{"index": 0, "text": " to", "finish_reason": None}]}),
        event({"object": "text_completion", "choices": [{"index": 0, "text": " find", "finish_reason": None}]}),
        event(
            {"object": "text_completion", "choices": [{"index": 0, "text": "", "finish_reason": "length"}],
             "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
             "stats": {"tokens_per_second": 57.69, "time_to_first_token": 0.299, "generation_time": 0.156}}
        ),
        event(b"[DONE]"),
        END,
    ),
}  # fmt: skip


def openai(usage=True, **more):
    """OpenAI's API reference, "Completions" (stream, include_usage)."""
    events = [
        event({"object": "text_completion", "choices": [{"text": t, "index": 0, "finish_reason": None}]})
        for t in ("You", "'re")
    ]
    ended = {"object": "text_completion", "choices": [{"text": "", "index": 0, "finish_reason": "length"}]}
    said = {"usage": {"completion_tokens": 2, "prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}}
    return {
        "/v1/models": page({"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 2048}]}),
        "/v1/completions": sends(STREAM_HEAD, *events, event(ended | (said if usage else {})), event(b"[DONE]"), END),
        **more,
    }


def test_ollama_fields_in_their_units():
    with replay(OLLAMA) as server:
        attached = RUNTIME.attach(server.url)
        answer = attached.ask(Request(prompt="Why is the sky blue?", new_tokens=2, context_tokens=1024))
    d = attached.described
    assert (d.software, d.version, d.model, d.quant, d.architecture) == (
        "ollama",
        "0.5.1",
        "llama3.2:latest",
        "Q4_0",
        "llama",
    )
    assert (d.parameter_count, d.size_bytes, d.context_tokens) == (8030261248, 2019393189, 8192)
    assert (answer.prompt_tokens, answer.new_tokens, answer.text) == (26, 2, "The sky")
    assert answer.prompt_s == pytest.approx(0.130079)
    assert answer.decode_s == pytest.approx(4.23271)
    path, asked = server.asked[-1]
    assert path == "/api/generate"
    assert asked["raw"] is True
    assert asked["options"] == {"num_predict": 2, "temperature": 0, "num_ctx": 1024}


def test_lm_studio_says_what_its_model_is_and_its_stats():
    with replay(LMSTUDIO) as server:
        attached = RUNTIME.attach(server.url, model="granite-3.0-2b-instruct")
        answer = attached.ask(Request(prompt="the meaning of life is", new_tokens=2))
    model = attached.model()
    assert (model.name, model.quant, model.architecture) == ("granite-3.0-2b-instruct", "Q4_K_M", "granite")
    assert attached.described.context_tokens == 4096
    assert (answer.new_tokens, answer.prompt_tokens) == (2, 5)
    assert answer.decode_s == pytest.approx(0.156)


def test_openai_usage_and_cache():
    with replay(openai()) as server:
        attached = RUNTIME.attach(server.url)
        answer = attached.ask(Request(prompt="a b c d", new_tokens=2))
    assert (attached.described.software, attached.described.context_tokens) == ("vllm", 2048)
    assert (answer.new_tokens, answer.prompt_tokens, answer.cached_tokens, answer.finish) == (2, 4, 3, "length")
    assert server.asked[-1][1]["stream_options"] == {"include_usage": True}


def test_without_usage_pieces_are_counted():
    with replay(openai(usage=False)) as server:
        answer = RUNTIME.attach(server.url).ask(Request(prompt="a", new_tokens=2))
    assert (answer.new_tokens, answer.prompt_tokens) == (2, None)


def test_chat_where_there_are_no_completions():
    events = [event({"object": "chat.completion.chunk", "choices": [{"delta": {"role": "assistant", "content": ""}}]})]
    events += [event({"choices": [{"delta": {"content": t}}]}) for t in ("Hello", "!")]
    events += [event({"choices": [{"delta": {}, "finish_reason": "stop"}]}), event(b"[DONE]"), END]
    pages = openai() | {"/v1/completions": NO_PAGE, "/v1/chat/completions": sends(STREAM_HEAD, *events)}
    with replay(pages) as server:
        attached = RUNTIME.attach(server.url)
        answer = attached.ask(Request(prompt="hi", new_tokens=5))
    assert (answer.text, answer.new_tokens, answer.finish) == ("Hello!", 2, "stop")


@pytest.mark.parametrize(("models", "known"), [({}, True), ({"models": []}, True), ([], False), ("no", False)])
def test_any_object_at_its_page_of_models_is_enough(models, known):
    with replay({"/v1/models": page(models)}) as server:
        if known:
            assert RUNTIME.attach(server.url, model="m").described.software == "openai"
        else:
            with pytest.raises(ServerError, match="no object at /v1/models"):
                RUNTIME.attach(server.url, model="m")


@pytest.mark.parametrize(("model", "words"), [("", "has 2 models"), ("other", "found 'other', expected one of")])
def test_model_must_be_one_of_the_servers(model, words):
    pages = {"/v1/models": page({"data": [{"id": "m"}, {"id": "n"}]})}
    with replay(pages) as server, pytest.raises(RefusedError, match=words):
        RUNTIME.attach(server.url, model=model)


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h:x", "http://me:pw@h", "http://h?a=1"])
def test_bad_addresses(url):
    with pytest.raises(RefusedError):
        Endpoint(url)


def test_prompt_is_fitted_by_the_tokenizer_and_keeps_its_length():
    """A tokenizer that makes one token of a word and adds a first one, as most do."""

    def tokens(connection, asked):
        connection.sendall(page({"count": len(asked["prompt"].split()) + 1}))

    with replay(openai() | {"/tokenize": tokens}) as server:
        attached = RUNTIME.attach(server.url)
        prompts = {attached.prompt(16, random.Random(seed)) for seed in range(3)}
    assert len(prompts) == 3
    assert {len(p.split()) for p in prompts} == {15}
    assert sum(path == "/tokenize" for path, _ in server.asked) == 2


@pytest.mark.parametrize(
    ("arrivals", "counts", "new", "gaps"),
    [
        ((1.0, 1.5, 1.75), (1, 2, 3), 3, (0.5, 0.25)),
        ((1.0, 1.5, 2.5), (1, 2, 4), 4, (0.5, 0.5, 0.5)),  # two tokens in one piece: two equal gaps
        ((1.0, 1.5), (2, 3), 3, (0.5,)),  # the first token was half a character: it came with the second
        ((1.0, 1.5), (1, 2), 3, ()),  # three tokens in two pieces that nobody numbered
    ],
)
def test_gaps_between_tokens(arrivals, counts, new, gaps):
    answer = ServerAnswer(sent_s=0.25, arrivals_s=arrivals, counts=counts, text="", new_tokens=new)
    assert answer.gaps_s() == gaps
    assert answer.first_token_s == 0.75


@pytest.mark.parametrize(
    ("arrivals", "own_s", "late"),
    [
        ((0.0, 1.0, 2.0, 3.0), 3.0, False),
        ((2.5, 2.5, 2.6, 3.0), 3.0, True),  # the first was read when the third was there: 0.5 s of 3 are left
        ((0.0, 1.0, 2.0, 3.0), 4.0, False),  # Ollama counts the first token's time too
        ((0.0, 1.0, 1.0, 2.0, 3.0), None, False),  # one of four came with the piece before
        ((2.5, 2.5001, 2.5002, 3.0), None, True),  # chunks of one write, read one by one
        ((3.0, 3.0, 3.0, 3.0), None, True),
    ],
)
def test_tokens_that_waited_to_be_read_are_noticed(arrivals, own_s, late):
    counts = tuple(range(1, len(arrivals) + 1))
    answer = ServerAnswer(
        sent_s=0.0, arrivals_s=arrivals, counts=counts, text="", new_tokens=len(counts), decode_s=own_s
    )
    assert answer.read_late is late
