#!/usr/bin/env python3
"""The pictures of allot cpus on light and dark backgrounds: every text has a contrast of 4.5 or more with what is drawn
below it, in the colours without and with the media query, on every made-up machine and of every example.

    pictures_test.py ALLOT MACHINES

The picture of the map in the pages is what the command draws today. Exits with 77 (skipped) when the command was built
without its CPU part.
"""
import pathlib
import re
import sys
import xml.etree.ElementTree

from live import ALLOT, FOLDER, MACHINES, checked, run

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
DARK = "@media(prefers-color-scheme:dark){"
LEAST = 4.5


def rules(css):
    """{class or element: {property: value}}; later rules add to earlier ones."""
    out = {}
    for names, body in re.findall(r"([^{}]+)\{([^{}]*)\}", css):
        for name in names.split(","):
            out.setdefault(name.strip().lstrip("."), {}).update(p.split(":", 1) for p in body.split(";") if p)
    return out


def both(css):
    light, _, dark = css.partition(DARK)
    assert dark.endswith("}"), "no colours for dark backgrounds"
    return {"light": rules(light), "dark": rules(light + dark[:-1])}


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    parts = [int(digits[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    parts = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def fill_of(style, element, otherwise):
    found = otherwise
    for name in element.get("class", "").split():
        found = style.get(name, {}).get("fill", found)
    return found


def judge(picture):
    """Walks the drawing in its order; a hatched box lets through what lies below it."""
    root = xml.etree.ElementTree.fromstring(picture)
    tag = "{http://www.w3.org/2000/svg}"
    styles = both(root.find(tag + "style").text)
    wide, high = float(root.get("width")), float(root.get("height"))
    boxes, texts = [], 0
    for e in root.iter():
        if e.tag == tag + "rect":
            size = [float(e.get(k, "0").replace("100%", str(wide if k == "width" else high))) for k in ("x", "y", "width", "height")]
            boxes.append((*size, e))
        if e.tag != tag + "text" or not (e.text or "").strip():
            continue
        texts += 1
        x, y = float(e.get("x")) + (-2 if e.get("text-anchor") == "end" else 2), float(e.get("y")) - 3
        assert 0 <= x <= wide and 0 <= y <= high, (e.text, x, y)
        for mode, style in styles.items():
            below = None
            for left, top, w, h, box in boxes:
                colour = fill_of(style, box, None)
                if left <= x <= left + w and top <= y <= top + h and colour and colour.startswith("#"):
                    below = colour
            own = fill_of(style, e, style["text"]["fill"])
            ratio = contrast(own, below)
            assert ratio >= LEAST, f"{mode}: '{e.text}' has {own} on {below}: {ratio:.2f}"
    return texts


def check_examples():
    for script in sorted((DOCS / "examples").glob("*.sim")):
        picture = pathlib.Path(FOLDER) / "queues.svg"
        assert run("sim", script, "--svg", picture).returncode == 0
        assert judge(picture.read_text()) > 20, script


def check_the_page_of_the_articles():
    """What the page quotes of an output is in the output of an example that it names."""
    page = (DOCS / "articles.md").read_text()
    said = "".join(run("sim", DOCS / "examples" / name).stdout for name in sorted(set(re.findall(r"[\w-]+\.sim", page))))
    quotes = [" ".join(q.split()) for q in re.findall(r"`([^`]*)`", page) if ": " in q or "ESCAPED" in q]
    assert len(quotes) >= 3, quotes
    for quote in quotes:
        assert quote.removesuffix("...").strip() in said, quote
    for picture in re.findall(r"\]\((pictures/[^)]*)\)", page):
        assert (DOCS / picture).is_file(), picture


def check_maps():
    for machine in sorted(p for p in MACHINES.iterdir() if p.is_dir()):
        picture = pathlib.Path(FOLDER) / "map.svg"
        assert run("show", "--machine", machine, "--svg", picture).returncode == 0
        assert judge(picture.read_text()) > 4, machine


def check_map_of_the_pages():
    """Eight slices, for each colour, and the picture that the pages show."""
    picture = pathlib.Path(FOLDER) / "map.svg"
    slices = [word for i in range(8) for word in ("--slice", f"slice{i}=2")]
    assert run("plan", "--machine", MACHINES / "epyc_256", *slices, "--svg", picture).returncode == 0
    judge(picture.read_text())
    kept = (DOCS / "pictures/map.svg").read_text()
    words = ["train=32:gpu=0", "serve=16:gpu=4:exclusive", "tests=7:threads", "notebook=8:gpu=7"]
    run("plan", "--machine", MACHINES / "epyc_256", *[w for s in words for w in ("--slice", s)], "--svg", picture)
    assert picture.read_text() == kept, "draw docs/pictures/map.svg anew"


if __name__ == "__main__":
    sys.exit(checked(check_examples, check_the_page_of_the_articles, check_maps, check_map_of_the_pages))
