"""JUnit XML: a broken budget is a failure, an inconclusive one is skipped, a run that could not be made is an error."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from harness.gates import words
from harness.gates.judge import Judgement

_ELEMENTS = {"fail": "failure", "could not run": "error", "inconclusive": "skipped"}


def render(judgements: Sequence[Judgement]) -> str:
    """One test suite with one test case a budget."""
    counts = {e: sum(_ELEMENTS.get(j.answer) == e for j in judgements) for e in _ELEMENTS.values()}
    suite = ET.Element(
        "testsuite",
        name="edge-harness gate",
        tests=str(len(judgements)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        time="0",
    )
    for j in judgements:
        case = ET.SubElement(
            suite, "testcase", classname="edge_harness.gate", name=_clean(words.title(j.budget)), time="0"
        )
        if j.file:
            case.set("file", _clean(j.file))
            case.set("line", str(j.line))
        message = f"{words.interval(j)}; limit: {words.limit(j)}; {j.reason}"
        if j.answer in _ELEMENTS:
            element = ET.SubElement(case, _ELEMENTS[j.answer], message=_clean(message))
            if j.answer != "inconclusive":
                element.set("type", j.budget.metric)
            element.text = _clean("\n".join(j.evidence))
        else:
            ET.SubElement(case, "system-out").text = _clean(message)
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    """Without the control characters that XML 1.0 cannot hold."""
    return "".join(
        c for c in text if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
    )
