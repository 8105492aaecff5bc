"""A tool-using agent of smolagents: it looks up prices and adds them. pip install "smolagents[openai]"."""

import os

from smolagents import AgentError, OpenAIServerModel, ToolCallingAgent, tool

PRICES = {"kettle": 31.5, "lamp": 18.0, "rug": 74.0, "vase": 12.25}


@tool
def price(item: str) -> float:
    """Look up the price of an item in euros.

    Args:
        item: Name of the item, one word.
    """
    return PRICES.get(item.strip().lower(), 0.0)


@tool
def add(one: float, two: float) -> float:
    """Add two numbers.

    Args:
        one: The first number.
        two: The second number.
    """
    return one + two


model = OpenAIServerModel(
    "local", api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"], max_tokens=96, temperature=0
)
agent = ToolCallingAgent(tools=[price, add], model=model, max_steps=4, verbosity_level=0)
for items in (("kettle", "lamp"), ("rug", "vase"), ("lamp", "rug")):
    try:
        print(items, agent.run(f"What do a {items[0]} and a {items[1]} cost together?"))
    except AgentError as error:  # a small model may write no call that can be read
        print(items, type(error).__name__)
