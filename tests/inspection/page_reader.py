"""Takes the page of a report apart."""

import base64
from html.parser import HTMLParser
from io import BytesIO

from PIL import Image

VOID = {"meta", "img", "br"}


class PageReader(HTMLParser):
    """Tags, pictures, headings and captions of a page; its tables as one dictionary."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.links, self.pictures, self.alts = [], [], [], [], []
        self.rows, self.headings, self.captions, self.text = {}, [], [], ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []  # every tag is closed

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [values[name] for name in ("src", "href", "srcset") if name in values]
        if tag == "img":
            kind, data = values["src"].split(",")
            assert kind == "data:image/png;base64"
            self.pictures.append(Image.open(BytesIO(base64.b64decode(data))))
            self.alts.append(values["alt"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] == "style":
            return
        self.text += data
        if self.open[-1] == "th":
            self.row = data
        elif self.open[-1] == "td":
            self.rows[self.row] = data
        elif self.open[-1] == "h2":
            self.headings.append(data)
        elif self.open[-1] == "b":
            self.captions.append(data)
