"""Check of the built site: links, anchors, other hosts, examples, pictures, clicks to the answers.

In a checkout, after ``make -C docs html``::

    python docs/check_site.py docs/_build/html

It reads the pages as they were built, prints each fault, and ends with exit code 1 if there is one.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself when it opens a page, unlike a link that a reader clicks.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}

QUESTIONS = "three-strangers"  # the section of CONTRIBUTING.md whose table links the answers
MOST_CLICKS = 2


class Page(HTMLParser):
    """Anchors, links and fetched addresses of one page."""

    def __init__(self, path):
        super().__init__()
        self.path, self.anchors, self.links, self.fetched = path, {"", "top"}, [], []
        self.pictures = []
        self.answers, self.section, self.in_table = [], None, False
        self.open_link, self.nested = None, []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        """Note what the attributes of one tag name."""
        if tag == "section":
            self.section = dict(attrs).get("id")
        self.in_table |= tag == "table"
        if tag == "img":
            self.pictures.append((dict(attrs).get("src") or "", dict(attrs).get("alt")))
        if tag == "a":
            if self.open_link is not None:
                self.nested.append(self.open_link)
            self.open_link = dict(attrs).get("href") or ""
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif tag == "a" and name == "href":
                self.links.append(value)
                if self.section == QUESTIONS and self.in_table:
                    self.answers.append(value)
            elif FETCHED.get(tag) == name and dict(attrs).get("rel") != "canonical":
                self.fetched.append(value)

    def handle_endtag(self, tag):
        """Note the end of a table or a link."""
        self.in_table &= tag != "table"
        if tag == "a":
            self.open_link = None


def target_of(page, address):
    """Return the file that an address of a page leads to; None if it is on another host."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    return (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path


def dead_links(pages):
    """Yield links and fetched addresses that lead to no file, or to no anchor of it."""
    for page in pages.values():
        for address in page.links + page.fetched:
            target = target_of(page, address)
            fragment = unquote(urlsplit(address).fragment)
            if target is None:
                continue
            if not target.exists():
                yield f"{page.path}: no file {address}"
            elif target in pages and fragment not in pages[target].anchors:
                yield f"{page.path}: no anchor {address}"


def other_hosts(pages):
    """Yield what a browser would fetch from another host."""
    for page in pages.values():
        for address in page.fetched:
            if urlsplit(address).netloc:
                yield f"{page.path}: fetches {address}"


def nested_links(pages):
    """Yield links in which another link begins: browsers end the first one there."""
    for page in pages.values():
        for address in page.nested:
            yield f"{page.path}: a link in the link {address}"


def undescribed(pages):
    """Yield pictures without a text, or with their file's name as one, for who cannot see them."""
    for page in pages.values():
        for address, text in page.pictures:
            if text is None or (text and text.replace(" ", "_") in address):
                yield f"{page.path}: no text for the picture {address}"


def without_example(site):
    """Yield the pages of public names that list no example of the gallery."""
    for path in sorted((site / "api" / "generated").glob("sklearn_featx.[!e]*.html")):
        if "sphx-glr-thumbcontainer" not in path.read_text("utf-8"):
            yield f"{path}: no example"


def clicks(pages, start):
    """Return the number of clicks from one page to each other one."""
    found, now = {start: 0}, [start]
    while now:
        page = now.pop(0)
        for target in (target_of(pages[page], link) for link in pages[page].links):
            if target in pages and target not in found:
                found[target] = found[page] + 1
                now.append(target)
    return found


def far_answers(pages, site):
    """Yield answers to the strangers' questions that are too many clicks away."""
    contributing = pages[site / "contributing.html"]
    answers = {target_of(contributing, link) for link in contributing.answers}
    distances = clicks(pages, site / "index.html")
    for target in sorted(answers):
        if distances.get(target, 9) > MOST_CLICKS:
            yield f"{target}: {distances.get(target)} clicks from the landing page"
    print(f"answers: {len(contributing.answers)}, their pages and clicks:")
    print(*(f"  {path.name} {distances.get(path)}" for path in sorted(answers)), sep="\n")


def main(site):
    site = site.resolve()
    paths = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path) for path in paths}
    faults = [*dead_links(pages), *other_hosts(pages), *without_example(site)]
    faults += [*nested_links(pages), *undescribed(pages), *far_answers(pages, site)]
    n_links = sum(len(page.links) for page in pages.values())
    print(*faults, f"{len(pages)} pages, {n_links} links, {len(faults)} faults", sep="\n")
    return bool(faults) or not pages


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
