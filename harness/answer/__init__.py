"""Answer a question: look up what it names, try each way to run it, and say what was found."""
