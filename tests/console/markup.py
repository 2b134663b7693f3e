"""Reads a page as strictly as a validator, and says what is wrong with it: for browsers, and for people.

Beside what HTML demands (https://html.spec.whatwg.org): every control has a label, nothing refers to what is
not there, and nothing is written into the page that its content security policy would refuse.
"""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser


def words(text: str) -> frozenset[str]:
    """Several of them."""
    return frozenset(text.split())


VOID = words("area base br col embed hr img input link meta source track wbr")
SVG = words(
    "svg path circle rect line text title g polyline polygon use defs clippath pattern tspan desc symbol"
    " lineargradient stop marker"
)
KNOWN = (
    VOID
    | SVG
    | words(
        "html head body title main nav header footer section article aside div span p a h1 h2 h3 h4 ul ol li"
        " dl dt dd table thead tbody tfoot tr th td caption form fieldset legend label select option optgroup"
        " textarea button details summary dialog noscript script strong em b i s small code pre time datalist"
        " output audio canvas figure figcaption mark progress template abbr kbd samp q blockquote del ins"
    )
)
PHRASING_ONLY = words("p h1 h2 h3 h4 span label button summary legend dt a small")
BLOCKS = words("div p ul ol dl table section article header footer form fieldset pre")
WORDLESS = words("ul ol table tr tbody select dl")
"""What holds elements, and no text of its own."""
CONTROLS = {"input", "select", "textarea"}
REFERENCES = ("aria-labelledby", "aria-describedby", "aria-controls", "list", "popovertarget")
PARENTS = {
    "li": {"ul", "ol"},
    "tr": {"thead", "tbody"},
    "td": {"tr"},
    "th": {"tr"},
    "dt": {"dl", "div"},
    "dd": {"dl", "div"},
    "option": {"select", "datalist", "optgroup"},
    "legend": {"fieldset"},
    "summary": {"details"},
}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.labelled: set[str] = set()
        self.wanted: list[tuple[str, str]] = []
        self.controls: list[dict[str, str]] = []
        self.buttons = 0
        self.text = ""
        self.headings: list[int] = []

    def say(self, what: str) -> None:
        line, column = self.getpos()
        self.wrong.append(f"{line}:{column}: {what}")

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if len(given) < len(attributes):
            self.say(f"<{tag}>: an attribute twice")
        if tag not in KNOWN:
            self.say(f"<{tag}> is no element of ours")
        self._check_place(tag)
        self._check_attributes(tag, given)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            if tag not in SVG:
                self.say(f"<{tag}/> ends nothing in HTML")
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID or not self.open or self.open[-1] != tag:
            self.say(f"</{tag}> while {self.open[-3:]} are open")
            return
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
        if data.strip() and self.open and self.open[-1] in WORDLESS:
            self.say(f"text {data.strip()[:30]!r} directly in <{self.open[-1]}>")

    def _check_place(self, tag: str) -> None:
        if tag in BLOCKS:
            inner = [each for each in self.open if each in PHRASING_ONLY]
            if inner and not {"td", "th", "details", "dd"} & set(self.open[self.open.index(inner[-1]) :]):
                self.say(f"<{tag}> inside <{inner[-1]}>")
        parents = PARENTS.get(tag)
        if parents and (not self.open or self.open[-1] not in parents):
            self.say(f"<{tag}> inside {self.open[-1:]}")
        if tag in ("a", "button") and {"a", "button"} & set(self.open):
            self.say(f"<{tag}> inside another")
        if tag == "form" and "form" in self.open:
            self.say("<form> inside another")
        if re.fullmatch(r"h[1-4]", tag):
            self.headings.append(int(tag[1]))

    def _check_attributes(self, tag: str, given: dict[str, str]) -> None:
        for name, value in given.items():
            if name.startswith("on") or name == "style" or "javascript:" in value.lower():
                self.say(f"<{tag} {name}>: the policy refuses it")
            if name == "id":
                self.ids[value] += 1
                if not value or re.search(r"\s", value):
                    self.say(f"id {value!r}")
            if name in REFERENCES:
                self.wanted += [(name, each) for each in value.split()]
            if name == "for":
                self.labelled.add(value)
                self.wanted.append((name, value))
        if tag == "script" and ("src" not in given or not given["src"].startswith("/console/static/")):
            self.say("a script that is none of our files")
        if tag == "img" and "alt" not in given:
            self.say("<img> without alt")
        if tag == "a" and not given.get("href", "#").startswith(("/", "#", "?")):
            self.say(f"a link to {given['href'][:60]!r}")
        if tag in CONTROLS and given.get("type") not in ("hidden", "submit"):
            inside = "label" in self.open
            self.controls.append(given | {"inside": "yes" if inside else ""})


def problems_of(page: str) -> list[str]:
    """What is wrong with a page; empty where nothing is."""
    if not page.startswith("<!doctype html>\n<html lang="):
        return ["no doctype, or no language"]
    reader = _Reader()
    reader.feed(page)
    reader.close()
    wrong = reader.wrong
    if reader.open:
        wrong.append(f"{reader.open} are never closed")
    wrong += [f"id {name!r} {count} times" for name, count in reader.ids.items() if count > 1]
    wrong += [
        f"{name} of {wanted!r}: there is none" for name, wanted in reader.wanted if wanted not in reader.ids
    ]
    for given in reader.controls:
        named = given.get("id") in reader.labelled or given.get("aria-label") or given["inside"]
        if not named and given.get("aria-hidden") != "true":
            wrong.append(f"a control without a label: {given}")
    if reader.headings.count(1) != 1:
        wrong.append(f"{reader.headings.count(1)} headings of the first rank")
    return wrong
