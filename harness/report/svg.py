"""From a chart to an inline SVG that follows the page's theme: colours by CSS variables, titles on every mark."""

from collections.abc import Callable
from typing import Any, Final
from xml.etree import ElementTree as ET

from harness.errors import MissingPackageError

_SVG: Final = "http://www.w3.org/2000/svg"

PALETTE: Final = ("c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8")
"""CSS variables of the series; their values are Okabe and Ito's colours, apart for light and dark pages."""


def colour(name: str) -> str:
    """A stand-in for the CSS variable ``--name``: a colour that no chart holds otherwise, replaced after drawing."""
    return f"#fe{_NAMES.index(name):04x}"


_NAMES: Final = ("ink", "muted", "line", "card", "good", "warn", "bad", *PALETTE)
SERIES: Final = tuple(colour(name) for name in PALETTE)

CONFIG: Final[dict[str, Any]] = {
    "background": "transparent",
    "padding": {"left": 14, "right": 10, "top": 4, "bottom": 4},
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": colour("muted"),
        "titleColor": colour("ink"),
        "gridColor": colour("line"),
        "domainColor": colour("line"),
        "tickColor": colour("line"),
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 190,
    },
    "legend": {
        "labelColor": colour("ink"),
        "titleColor": colour("muted"),
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "orient": "top",
        "direction": "horizontal",
        "labelLimit": 230,
        "symbolStrokeWidth": 2,
    },
    "range": {"category": list(SERIES)},
    "text": {"color": colour("ink"), "fontSize": 11},
    "rule": {"color": colour("muted")},
    "line": {"strokeWidth": 2},
}

Draw = Callable[[int], Any]
"""Makes an Altair chart for a plot that is so many pixels wide."""

WIDTHS: Final = {"wide": 440, "narrow": 250}


def both_widths(draw: Draw, name: str, label: str, *, wide: int = WIDTHS["wide"]) -> str:
    """One chart drawn for wide and for narrow pages; a style sheet shows the one that fits."""
    widths = WIDTHS | {"wide": wide}
    return "".join(to_svg(draw(width), f"{name}-{kind}", label, kind) for kind, width in widths.items())


def to_svg(chart: Any, name: str, label: str, kind: str = "wide") -> str:
    """Draw a chart.

    Raises:
        MissingPackageError: vl-convert is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise MissingPackageError("vl-convert-python", "report") from error
    text = vl_convert.vegalite_to_svg(chart.to_dict() | {"config": CONFIG}, allowed_base_urls=[])
    for index, variable in enumerate(_NAMES):
        text = text.replace(f"#fe{index:04x}", f"var(--{variable})")
    ET.register_namespace("", _SVG)
    root = ET.fromstring(text)  # noqa: S314 - drawn by us a line above, not read from anywhere
    width, height = root.get("width", "100"), root.get("height", "100")
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("class", f"plot {kind}")
    root.set("viewBox", f"0 0 {width} {height}")
    root.set("role", "img")
    root.set("aria-label", label)
    _tidy(root, name)
    return ET.tostring(root, encoding="unicode")


def _tidy(root: ET.Element, name: str) -> None:
    """Marks get a title (what a pointer shows); styles and scripts, which a strict policy forbids, cannot stay."""
    for parent in root.iter():
        for child in list(parent):
            if child.tag in {f"{{{_SVG}}}style", f"{{{_SVG}}}script"}:
                parent.remove(child)
    for element in root.iter():
        element.attrib.pop("style", None)
        role = element.attrib.pop("aria-roledescription", "")
        for key, value in list(element.attrib.items()):
            if key == "id":
                element.set("id", f"{name}-{value}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
        if element is root or role in {"axis", "legend", "title"} or element.get("role") == "graphics-object":
            if element is not root:
                element.attrib.pop("aria-label", None)
                element.attrib.pop("role", None)
            continue
        label = element.get("aria-label")
        if label:
            element.set("class", "mark")
            title = ET.Element(f"{{{_SVG}}}title")
            title.text = label
            element.insert(0, title)
