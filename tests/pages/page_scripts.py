"""What tests ask a page in a browser, as JavaScript."""

from __future__ import annotations

import json

from browser import Browser

READY = """(async () => {
  const dialog = document.getElementById("viewer");
  for (let n = 0; n < 500 && !dialog.dataset.ready; n++) await new Promise(done => setTimeout(done, 10));
  return [dialog.open, dialog.dataset.ready,
    [...dialog.querySelectorAll("canvas")].map(canvas => canvas.ariaLabel),
    [...dialog.querySelectorAll("figcaption")].map(caption => caption.textContent)];
})()"""
CLOSE = """(() => {
  const dialog = document.getElementById("viewer");
  dialog.close(); delete dialog.dataset.ready;
})()"""
OUTSIDE = """[...document.querySelectorAll("body *")].filter(one => !one.closest(".scroll")
  && one.getBoundingClientRect().right > innerWidth + 1).map(one => `${one.tagName} ${one.className} ${one.id}`)"""
WIDE = 'Math.max(document.documentElement.scrollWidth, document.getElementById("viewer").scrollWidth)'
LEVELS = '[...document.querySelectorAll("h1, h2, h3, h4, h5")].map(one => Number(one.tagName[1]))'
UNEXPLAINED = """[...document.querySelectorAll("td")].filter(one => one.textContent.trim() === "–"
  && !one.title && !one.querySelector("[title]")).map(one => one.outerHTML)"""


def opened(browser: Browser, selector: str) -> tuple[list[str], list[str]]:
    """Labels and captions of the planes after a click on the first such element."""
    browser.evaluate(CLOSE)
    browser.evaluate(f"document.querySelector({json.dumps(selector)}).click()")
    is_open, _, labels, captions = browser.evaluate(READY)
    assert is_open and len(labels) == 3
    return labels, captions
