"""A retrieval app of haystack: it finds passages by BM25 and answers from them. pip install haystack-ai."""

import os

from haystack import Document, Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore

PLACES = ("harbour", "market", "station", "museum", "library", "theatre", "garden", "tower")
store = InMemoryDocumentStore()
store.write_documents(
    [
        Document(content=f"The {place} opens at {7 + at} and closes at {16 + at % 5}. Tickets cost {3 + 2 * at} euros.")
        for at, place in enumerate(PLACES)
    ]
)
words = """Answer from these passages, in one sentence.
{% for document in documents %}{{ document.content }}
{% endfor %}Question: {{ question }}"""
app = Pipeline()
app.add_component("find", InMemoryBM25Retriever(store, top_k=4))
app.add_component("ask", ChatPromptBuilder([ChatMessage.from_user(words)], required_variables="*"))
app.add_component(
    "answer",
    OpenAIChatGenerator(
        model="local",
        api_base_url=os.environ["OPENAI_BASE_URL"],
        generation_kwargs={"max_tokens": 48, "temperature": 0},
    ),
)
app.connect("find.documents", "ask.documents")
app.connect("ask.prompt", "answer.messages")
for place in PLACES:
    question = f"When does the {place} close?"
    told = app.run({"find": {"query": question}, "ask": {"question": question}})
    print(told["answer"]["replies"][0].text)
