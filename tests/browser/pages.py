"""What one asks a page with a widget on it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

AREA = """([selector, nth]) => {
  const element = document.querySelectorAll(selector)[nth];
  if (!element) return false;
  const { x, y, width, height } = element.getBoundingClientRect();
  return { x, y, width, height };
}"""


def area(page: "Page", selector: str, nth: int = 0) -> dict[str, float]:
    """Where an element is in the window: x, y, width, height.

    Found and measured in one go. Between a locator's two steps a widget may draw itself anew, and the element found
    in the first is gone in the second.
    """
    return page.wait_for_function(AREA, arg=[selector, nth]).json_value()


def let_draw(page: "Page") -> None:
    """Until the widget has drawn what it was told."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def dataset(page: "Page") -> dict[str, str]:
    """What a widget says that it shows, in its data-… attributes, once it has drawn."""
    let_draw(page)
    return page.evaluate("() => ({ ...document.querySelector('[data-widget]').dataset })")
