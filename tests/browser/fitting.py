"""Helpers for the tests of page layout: the languages, a sound, and the elements that do not fit."""

from pathlib import Path

from tests.support.tone import sine, to_pcm

LANGUAGES = sorted(path.stem for path in Path("relay/pages/locales").glob("*.json"))

SOUND = to_pcm(sine(440, 16_000, 1))

OVERFLOWING = """
    () => {
      const isClipped = ({ scrollWidth, clientWidth }) => scrollWidth > clientWidth + 1;
      const worded = [...document.querySelectorAll("button, label, legend, p, h1, h2, dt, dd, summary, small, .value")];
      return [document.documentElement, document.body, ...worded]
        .filter((element) => element.checkVisibility() && !element.closest(".visually-hidden, legend"))
        .filter((element) => getComputedStyle(element).display !== "inline" && isClipped(element))
        .map((element) => `${element.tagName} ${element.id}: ${element.textContent.trim().slice(0, 60)}`);
    }
"""
