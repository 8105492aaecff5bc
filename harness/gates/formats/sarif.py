"""SARIF 2.1.0, for code-scanning views: one result for each budget that did not pass."""

import json
from collections.abc import Sequence
from urllib.parse import quote

from harness import __version__
from harness.gates import words
from harness.gates.judge import Judgement

_LEVELS = {"fail": "error", "could not run": "error", "inconclusive": "warning"}


def render(judgements: Sequence[Judgement]) -> str:
    """One SARIF log with one run."""
    rules = sorted({j.budget.metric for j in judgements})
    document = {
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "edge-harness",
                        "version": __version__,
                        "rules": [{"id": r, "shortDescription": {"text": f"budget on {r}"}} for r in rules],
                    }
                },
                "results": [
                    {
                        "ruleId": j.budget.metric,
                        "ruleIndex": rules.index(j.budget.metric),
                        "level": _LEVELS[j.answer],
                        "message": {
                            "text": f"{words.title(j.budget)}: {words.interval(j)}; limit: {words.limit(j)}; {j.reason}"
                        },
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {"uri": quote(j.file or "budgets.toml")},
                                    "region": {"startLine": j.line or 1},
                                }
                            }
                        ],
                    }
                    for j in judgements
                    if j.answer in _LEVELS
                ],
            }
        ],
    }
    return json.dumps(document, indent=2) + "\n"
