"""Text that must stay text where markup is read."""

_SIGNS = {ord(sign): f"&#{ord(sign)};" for sign in "&\\`*_{}[]<>#|!@~"}


def escape_markdown(text: str) -> str:
    """Text of which no table cell, link, image, HTML tag or mention can be made; one line."""
    return " ".join(text.translate(_SIGNS).split())
