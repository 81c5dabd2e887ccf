"""What all live widgets share.

A widget lives in `name.py`, `name.js` and `name.css`. Its JavaScript draws and answers in the browser, so that it goes
on when the kernel stops; `shared.js` comes before it, so that its functions are there without an import.
"""

import base64
import io
import json
import sys
from pathlib import Path
from string import Template
from typing import Any, ClassVar

import anywidget
import ipywidgets
from PIL import Image

HERE = Path(__file__).parent
VIEW = "application/vnd.jupyter.widget-view+json"


class Widget(anywidget.AnyWidget):
    """Base class. A subclass has synced traits, `describe` and `draw`; its JavaScript exports `{ render }`.

    Where there is no JavaScript one sees the picture that `draw` gives, with the words of `describe`. `page` is the
    widget without any kernel: a file of its own that needs no network.
    """

    javascript: ClassVar[str]  # the whole module
    parts: ClassVar[tuple[str, ...]] = ()  # files of this folder whose functions its own .js uses

    def __init_subclass__(cls, files: Path | None = None, **kwargs: Any) -> None:
        """`files`: where the subclass's .js and .css are, without suffix; by default beside its own module."""
        # traitlets makes a subclass for every instance: it inherits.
        if files or not hasattr(cls, "javascript"):
            files = files or Path(sys.modules[cls.__module__].__file__).with_suffix("")
            parts = [HERE / name for name in ("shared.js", *cls.parts)]
            cls.javascript = cls._esm = "".join(_text(part) for part in [*parts, files.with_suffix(".js")])
            style = files.with_suffix(".css")
            cls._css = _text(HERE / "shared.css") + (_text(style) if style.exists() else "")
        super().__init_subclass__(**kwargs)

    def describe(self) -> str:
        """What is seen, in a sentence or two: the same on every machine."""
        raise NotImplementedError

    def draw(self) -> Image.Image:
        """What is seen, as a picture: for places without JavaScript."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.describe()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        alt = self.describe()
        data = {"image/png": self._png(), "text/plain": alt, VIEW: data[VIEW]}
        return data, metadata | {"image/png": {"alt": alt}}

    def page(self, title: str = "minivis") -> str:
        """The widget as it is now, as the text of an HTML page that works without kernel and network."""
        alt = self.describe()
        content = {"module": self.javascript, "state": self.own_state()}
        return Template(_text(HERE / "page.html")).substitute(
            title=_escaped(title),
            style=self._css,
            picture=self._png(),
            alt=_escaped(alt),
            content=json.dumps(content, default=_as_base64).replace("</", "<\\/"),
        )

    def own_state(self) -> dict[str, Any]:
        """The synced traits that this widget itself has."""
        common = set(ipywidgets.DOMWidget.class_trait_names(sync=True))
        return self.get_state([key for key in self.keys if not key.startswith("_") and key not in common])

    def _png(self) -> str:
        png = io.BytesIO()
        self.draw().save(png, format="png", optimize=True)
        return base64.b64encode(png.getvalue()).decode()


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _as_base64(value: Any) -> dict[str, str]:
    """Bytes, as JSON can hold them; page.html makes a DataView of them, as Jupyter does."""
    return {"base64": base64.b64encode(bytes(value)).decode()}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
