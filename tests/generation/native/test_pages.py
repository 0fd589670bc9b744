"""Texts in pages, against texts in lists: whatever is written, shared, cut or dropped."""

from __future__ import annotations

import random

import pytest

from neural.generation.native.pages import PAGE, Pages, Text


class Written:
    """What a machine would hold: each page's tokens, by place."""

    def __init__(self, count: int, most_kept: int) -> None:
        self.pages = Pages(count, most_kept)
        self.places = [[None] * PAGE for _ in range(count)]

    def text(self) -> Text:
        return Text(self.pages, self.copy, 8 * PAGE)

    def copy(self, source: int, target: int) -> None:
        self.places[target] = list(self.places[source])

    def append(self, text: Text, tokens: list[int]) -> None:
        text.make_room(len(tokens))
        for token in tokens:
            self.places[text.table[text.length // PAGE]][text.length % PAGE] = token
            text.length += 1

    def read(self, text: Text) -> list[int]:
        return [self.places[text.table[i // PAGE]][i % PAGE] for i in range(text.length)]


@pytest.mark.parametrize("most_kept", [0, 3, 20])
@pytest.mark.parametrize("seed", range(20))
def test_texts_hold_what_was_written(seed: int, most_kept: int) -> None:
    rng = random.Random(seed)
    count = 9 * 6 + most_kept
    machine = Written(count, most_kept)
    texts: list[tuple[Text, list[int]]] = []
    for _ in range(300):
        match rng.choice(["new", "append", "append", "cut", "share", "find", "drop"]):
            case "new" if len(texts) < 6:
                texts.append((machine.text(), []))
            case "append" if texts:
                text, tokens = rng.choice(texts)
                more = [rng.randint(0, 1) for _ in range(rng.choice([1, 3, PAGE, 100]))][: 8 * PAGE - text.length]
                machine.append(text, more)
                tokens += more
            case "cut" if texts:
                text, tokens = rng.choice(texts)
                text.truncate(length := rng.randint(0, text.length))
                del tokens[length:]
            case "share" if 0 < len(texts) < 6:
                text, tokens = rng.choice(texts)
                other = machine.text()
                other.hold(text.held, text.length)
                texts.append((other, list(tokens)))
            case "find" if 0 < len(texts) < 6:
                _, tokens = rng.choice(texts)
                pages = machine.pages.find(tokens)
                other = machine.text()
                other.hold(pages, len(pages) * PAGE)
                texts.append((other, tokens[: len(pages) * PAGE]))
            case "drop" if texts:
                text, tokens = texts.pop(rng.randrange(len(texts)))
                machine.pages.publish(tokens, text.held)
                text.truncate(0)
        assert all(machine.read(text) == tokens for text, tokens in texts)
    for text, _ in texts:
        text.truncate(0)
    assert machine.pages.used <= most_kept


def test_a_known_beginning_is_found_and_the_oldest_goes_first() -> None:
    machine = Written(8, 3)
    first, second = [1] * (2 * PAGE), [2] * (2 * PAGE)
    for tokens in (first, second):
        text = machine.text()
        machine.append(text, tokens)
        machine.pages.publish(tokens, text.held)
        text.truncate(0)
    assert len(machine.pages.find([*second, 0])) == 2
    assert len(machine.pages.find([*first, 0])) == 1  # its last page was the least recently used
    assert machine.pages.find(second)[:1] == machine.pages.find([*second, 0])[:1]
    assert len(machine.pages.find(second)) == 1  # never the last token
