"""Pages of the application: sizes, policy, titles that agree with their rows, faults that keep the question."""

import csv
import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("starlette")
pytest.importorskip("jinja2")
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from harness.answer.answer import answer
from harness.answer.variations import variations
from harness.core.question import Question
from harness.serve import app_pages
from harness.show.compare_page import named, standings
from harness.show.first_screen import each
from harness.show.ranking import finding

ASK = "/?model=qwen3-14b&device=rtx+3060+12gb&context_tokens=16,384&users=1"
MANY = "model=gpt-oss-20b&device=rtx+4090&device=strix-halo&device=macbook+pro+m4+pro+24gb&device=rtx+3060+12gb"
KB = 1000


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    pages = app_pages
    routes = [
        *(Route(path, function) for path, function in (("/", pages.ask), ("/compare", pages.compare))),
        *(Route(path, function) for path, function in (("/matrix", pages.matrix), ("/card.svg", pages.card))),
        *(Route(path, function) for path, function in (("/answer.md", pages.markdown), ("/answer.csv", pages.table))),
        *(Route(path, function) for path, function in (("/v1/compare", pages.compared), ("/v1/matrix", pages.cells))),
    ]
    with TestClient(Starlette(routes=routes)) as made:
        yield made


@pytest.mark.parametrize(
    ("address", "most_bytes"),
    [(ASK, 60 * KB), (f"/compare?{MANY}", 40 * KB), ("/matrix", 40 * KB), (f"/card.svg?{MANY}", 8 * KB),
     (f"/card.svg{ASK[1:]}", 8 * KB), (f"/answer.md?{MANY}", 1500), (f"/answer.md{ASK[1:]}", 1500)],
)  # fmt: skip
def test_a_page_is_no_larger_than_its_design_allows(client: TestClient, address: str, most_bytes: int) -> None:
    got = client.get(address)
    assert got.status_code == 200
    assert len(got.content) <= most_bytes
    text = got.text
    assert (
        "<script" not in text
        and " style=" not in text.replace(' style="fill', "")
        and "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    )


def test_the_first_sentence_holds_verdict_figure_and_range(client: TestClient) -> None:
    page = client.get(ASK).text
    (heading,) = re.findall(r"<h1>(.*?)</h1>", page, re.S)
    one = answer(Question(model="qwen3-14b", device="rtx 3060 12gb", context_tokens=16384))
    speed = each(one)
    for words in (
        f"<b>{speed.mid:.0f}</b>",
        "tokens a second",
        f"likely {speed.low:.0f} to {speed.high:.0f}",
        "Barely.",
    ):
        assert words in heading
    assert page.count('<li class="card">') == 4


def test_each_picture_says_its_figures(client: TestClient) -> None:
    page = client.get(ASK).text
    labels = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert len(labels) > 20
    assert all(re.search(r"\d|does not fit|Scale", label) for label in labels)


def test_an_unknown_name_keeps_the_rest_of_the_question(client: TestClient) -> None:
    got = client.get("/?model=qwen3-14b&device=rtx+3061&context_tokens=16384&kv_type=Q8_0")
    assert got.status_code == 404
    alert = got.text.partition('role="alert"')[2].partition("</div>")[0]
    assert "rtx 3061" in alert
    links = re.findall(r'href="([^"]+)"', alert)
    assert len(links) == 3
    assert all("context_tokens=16384" in link and "kv_type=Q8_0" in link for link in links)
    assert "aria-invalid" in got.text
    assert all(client.get(link.replace("&amp;", "&")).status_code == 200 for link in links)


def test_a_comparison_is_the_ranking_of_its_answers(client: TestClient) -> None:
    devices = ("rtx 4090", "strix-halo", "macbook pro m4 pro 24gb", "rtx 3060 12gb")
    answers = [answer(Question(model="gpt-oss-20b", device=device), advises=False) for device in devices]
    document = client.get(f"/v1/compare?{MANY}").json()
    assert document["finding"] == finding(standings(answers))
    assert [row["name"] for row in document["rows"]] == [one.name for one in standings(answers)]
    assert set(named(answers)) == {row["name"] for row in document["rows"]}
    rows = list(csv.DictReader(io.StringIO(client.get(f"/answer.csv?{MANY}").text)))
    assert [float(row["decode_tokens_per_s"]) for row in rows] == [
        pytest.approx(each(one).mid, rel=1e-3) for one in answers
    ]


def test_a_matrix_counts_the_cells_that_it_colours(client: TestClient) -> None:
    page = client.get("/matrix").text
    document = client.get("/v1/matrix").json()
    coloured = len(re.findall(r'<td class="h[345]"', page))
    assert f"{coloured} of 72 pairs write as fast as you read" in page
    assert document["finding"] in page.replace("&#39;", "'")
    assert len(document["cells"]) == 72


def test_one_model_on_one_device_shows_types_and_contexts(client: TestClient) -> None:
    page = client.get("/matrix?model=qwen3-14b&device=rtx+3060+12gb").text
    assert all(name in page for name in ("Q8_0", "Q2_K", "4,096", "32,768", "loses"))


def test_a_card_is_svg_that_a_reader_takes(client: TestClient) -> None:
    for query in (ASK[2:], MANY, "model=llama-3.3-70b&device=iphone-16-pro"):
        root = ET.fromstring(client.get(f"/card.svg?{query}").text)
        assert (root.get("width"), root.get("height")) == ("1200", "630")
        sizes = [
            int(text.get("font-size"))
            for text in root.iter("{http://www.w3.org/2000/svg}text")
            if text.get("font-size")
        ]
        assert min(sizes) >= 20


def test_changes_that_gain_stand_before_those_that_cost() -> None:
    one = answer(Question(model="qwen3-14b", device="rtx 3060 12gb", context_tokens=16384), advises=False)
    found = variations(one)
    assert [change.change for change in found][:3] == [
        "Coarser weights, IQ4_XS",
        "Keep the cache in Q8_0",
        "Twice the context, cache in Q8_0",
    ]
    assert found[-1].change == "Twice the context"
    assert len(found) <= 7


@pytest.mark.parametrize(
    "address", ["/matrix?model=" + ",".join(f"m{n}" for n in range(200)), "/compare?model=a&" + "device=b&" * 9]
)
def test_too_many_cells_are_refused_in_words(client: TestClient, address: str) -> None:
    got = client.get(address)
    assert got.status_code == 400
    assert "expected at most" in got.text
