"""A door for other programs: the page as an application, JSON, and tools for agents, from one local process."""
