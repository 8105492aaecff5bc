"""A system of your own: copy this file, and change the four parts that are marked."""

from harness.workloads.scores import share
from harness.workloads.system import System, WorkloadCase


class Greet(WorkloadCase, tag="greet"):  # 1. A case: one line of a case file, with its columns.
    """A person who is greeted."""

    name: str


class Greeter(System):
    """Greets people by their names."""

    name, title, kinds = "greet", "Greet by name", (Greet,)

    def cases(self, size):  # 2. Cases that ship with it.
        """Two people."""
        return [Greet(name="Ada"), Greet(name="Bo")]

    def step(self, state, case):  # 3. The work, which is timed: call your app here.
        """The greeting."""
        return {"text": f"Hello {case.name}"}

    def score(self, cases, answers):  # 4. What is right, and what answers without the work would get.
        """The share of people who are greeted by their own name, beside always greeting Ada."""
        right = [case.name in answer["text"] for case, answer in zip(cases, answers, strict=True)]
        return [share("right_ratio", right, "greet", {"always Ada": 0.5})]


SYSTEM = Greeter()
