"""Charts as inline SVG that follows the page's theme: specifications of ``templates/charts.json``, with rows put in.

A specification is Vega-Lite; ``{"given": NAME}`` in it stands for a value of that name. Colours are the page's CSS
variables, of the series Okabe and Ito's. Rows are plain values; ``says`` of a row is what a pointer or a screen reader
tells of its mark. What stands around each drawing is in ``templates/figures.toml``.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree as ET

from harness.domain.base import shipped_table, shipped_text
from harness.errors import optional

_SVG: Final = "http://www.w3.org/2000/svg"
_WIDE_PX: Final = 440
_NARROW_PX: Final = 250

Row = dict[str, Any]
Chart = dict[str, Any]


class PageFigure(NamedTuple):
    """One figure; ``note`` says what to see in it."""

    key: str
    title: str
    note: str
    svg: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def figure(
    key: str,
    table: Sequence[tuple[str, ...]],
    *,
    wide_px: int = _WIDE_PX,
    **given: Any,
) -> PageFigure | None:
    """A figure drawn for wide and for narrow pages, of which a style sheet shows the one that fits; None without rows.

    ``key`` is its anchor on the page and its name in ``figures.toml``; ``table`` has the same numbers for those who
    cannot see or point. ``given`` is what the chart named ``key`` and the note ask for.

    Raises:
        MissingPackageError: vl-convert is not installed.
    """
    if not table:
        return None
    text = shipped_table("templates/figures.toml", "harness.report")[key]
    svg = "".join(
        _drawn(chart(key, **given), width, f"{key}-{kind}", text["label"], kind)
        for kind, width in (("wide", wide_px), ("narrow", _NARROW_PX))
    )
    return PageFigure(key, text["title"], text["note"].format(**given), svg, tuple(text["columns"]), tuple(table))


def plotted(
    key: str, rows: Sequence[Row], *, drawn: Sequence[Row] | None = None, wide_px: int = _WIDE_PX, **given: Any
) -> PageFigure | None:
    """A figure of rows, of which ``drawn`` are in the plot (all unless given); None without rows.

    ``figures.toml`` has the words of a mark (``says``) and the cells of the table, which a row's fields are put in; a
    row whose ``is_listed`` is false has no line there.
    """
    text = shipped_table("templates/figures.toml", "harness.report")[key]
    for row in rows:
        row["says"] = text["says"].format(**row)
    table = [tuple(cell.format(**row) for cell in text["cells"]) for row in rows if row.get("is_listed", True)]
    return figure(key, table, wide_px=wide_px, rows=list(rows if drawn is None else drawn), **given)


def chart(name: str, **given: Any) -> Chart:
    """A chart of ``charts.json`` with what it asks for."""
    specifications: dict[str, Chart] = json.loads(shipped_text("templates/charts.json", "harness.report"))
    return dict(_filled(specifications[name], given))


def _filled(part: Any, given: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_filled(each, given) for each in part]
    if not isinstance(part, dict):
        return part
    return given[part["given"]] if "given" in part else {key: _filled(value, given) for key, value in part.items()}


def _drawn(drawing: Chart, width: int, name: str, label: str, kind: str) -> str:
    with optional("vl-convert-python", "report"):
        import vl_convert
    config = chart("config", width=width, columns=max(1, width // 210), names_px=min(330, width // 2))
    ET.register_namespace("", _SVG)
    text = vl_convert.vegalite_to_svg(drawing | {"config": config}, allowed_base_urls=[])
    root = ET.fromstring(text)  # noqa: S314 - drawn by us a line above, not read from anywhere
    size = f"0 0 {root.get('width', '100')} {root.get('height', '100')}"
    _tidy(root, name)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"class": f"plot {kind}", "viewBox": size, "role": "img", "aria-label": label}
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
            element.attrib.pop("aria-label", None)
            element.attrib.pop("role", None)
        elif label := element.get("aria-label"):
            element.set("class", "mark")
            title = ET.Element(f"{{{_SVG}}}title")
            title.text = label
            element.insert(0, title)
