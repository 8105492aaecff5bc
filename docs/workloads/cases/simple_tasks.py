"""Five simple tasks with exact answers, made by a seed: python simple_tasks.py [SEED [COUNT]] > tasks.jsonl.

Counting letters, directions after turns, days before and after, what is not true of three facts, people and rooms
under constraints: the tasks that "The Research Frontier in 2026" says frontier models fail. Each question has four
answers, the right one at a place that is drawn.
"""

import json
import random
import sys
from itertools import permutations

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WAYS = ("north", "east", "south", "west")
WORDS = ("strawberry", "bookkeeper", "parallel", "committee", "mississippi", "assessment", "cappuccino", "happiness")
PEOPLE, ROOMS = ("Ada", "Bo", "Cem", "Dee"), ("red", "blue", "green", "white")
COLOURS, THINGS = ("red", "blue", "green", "black"), ("cup", "hat", "box", "pen", "key")


def counting(rng):
    """Letters in a word."""
    word = rng.choice(WORDS)
    letter = rng.choice(sorted(set(word)))
    right = word.count(letter)
    others = [count for count in range(6) if count != right]
    return f"How many times does the letter {letter!r} stand in {word!r}?", right, rng.sample(others, 3)


def spatial(rng):
    """Where somebody faces after some turns."""
    start, turns = rng.randrange(4), [rng.choice(("left", "right")) for _ in range(rng.randint(1, 3))]
    end = WAYS[(start + sum(1 if turn == "right" else -1 for turn in turns)) % 4]
    told = ", then ".join(f"turn {turn}" for turn in turns)
    return f"I face {WAYS[start]}, {told}. Which way do I face?", end, [way for way in WAYS if way != end]


def temporal(rng):
    """The day of something so many days before or after."""
    day, count, after = rng.randrange(7), rng.randint(2, 5), rng.random() < 0.5
    right = DAYS[(day - count if after else day + count) % 7]
    where = "after" if after else "before"
    asked = f"{DAYS[day]} is {count} days {where} the fair. On which day is the fair?"
    return asked, right, rng.sample([each for each in DAYS if each != right], 3)


def negation(rng):
    """What is not true of three facts."""
    things, colours = rng.sample(THINGS, 3), [rng.choice(COLOURS) for _ in range(3)]
    facts = [f"the {thing} is {colour}" for thing, colour in zip(things, colours, strict=True)]
    wrong = f"the {things[0]} is {rng.choice([each for each in COLOURS if each != colours[0]])}"
    return f"{'; '.join(facts)}. Which of these is NOT true?", wrong, facts


def constraint(rng):
    """Four people in four rooms, told by constraints that leave one answer."""
    order = rng.sample(ROOMS, 4)
    told = [f"{PEOPLE[at]} is not in the {room} room" for at in range(4) for room in ROOMS if room != order[at]]
    rng.shuffle(told)
    kept = list(told)
    for one in told:
        fewer = [each for each in kept if each != one]
        if len(solutions(fewer)) == 1:
            kept = fewer
    who = rng.randrange(4)
    asked = f"Four people are in four rooms, one in each: {', '.join(ROOMS)}. {'. '.join(kept)}. "
    return f"{asked}In which room is {PEOPLE[who]}?", order[who], [room for room in ROOMS if room != order[who]]


def solutions(told):
    """Orders of rooms that break no constraint."""
    return [
        order
        for order in permutations(ROOMS)
        if not any(f"{one} is not in the {room} room" in told for one, room in zip(PEOPLE, order, strict=True))
    ]


def main(seed=1, count=20):
    """Print so many questions of each task."""
    for task in (counting, spatial, temporal, negation, constraint):
        rng = random.Random(f"{task.__name__} {seed}")
        for _ in range(count):
            question, right, others = task(rng)
            options = [str(right), *map(str, others)]
            rng.shuffle(options)
            place = options.index(str(right))
            case = {"kind": "choose", "task": task.__name__, "question": question, "options": options, "right": place}
            print(json.dumps(case))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
