"""A made-up language whose entropy rate is known: a verb agrees with a subject that may stand far before it.

A text is a row of sentences: a subject, some other words, a verb and a full stop, words parted by blanks. A subject is
a stem, which has one of two genders, and the ending of one of two numbers; the verb is a stem and one of four endings,
which gender and number decide. The words between are stems in a Markov chain, with the same endings of number drawn
freely, so that the nearest ending misleads. After every word but a verb the verb is next with probability
1 / (distance + 1), hence `distance` words lie between on average.

Every word is known from its letters and the blank after it, so what came before fixes the state of the process, and
next_distribution is exact: no predictor does better. Entropies are in bits a symbol, 0 to log2 of the 22 symbols.
Agreement of subject and verb past misleading words, as a test of models: Linzen et al., "Assessing the Ability of
LSTMs to Learn Syntax-Sensitive Dependencies", 2016. https://arxiv.org/abs/1611.01368
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

ALPHABET = " .aeioubdfgklmnprstvzy"
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
NUMBERS = "ei"  # endings of the singular and the plural
VERB_ENDINGS = "aouy"  # of gender and number: 2 * gender + number
START: Hashable = "start"

Words = list[tuple[str, float, Hashable]]  # a word with its blank, its probability, the state after it


@dataclass(frozen=True)
class Lexicon:
    """Stems with their probabilities.

    chain: probabilities of the words between, [others + 1, others]; the last row is of the word after a subject.
    """

    subjects: tuple[str, ...]
    others: tuple[str, ...]
    verbs: tuple[str, ...]
    subject_law: np.ndarray
    verb_law: np.ndarray
    chain: np.ndarray


def lexicon(subjects: int = 16, others: int = 24, verbs: int = 12, seed: int = 0) -> Lexicon:
    """Different stems of one or two syllables, all drawn from the seed; probabilities fall as 1 / rank."""
    chance = np.random.default_rng(seed)
    stems = list(distinct(spelling(chance), subjects + others + verbs))
    laws = [zipf(others)[np.argsort(chance.random(others))] for _ in range(others + 1)]
    return Lexicon(
        subjects=tuple(stems[:subjects]),
        others=tuple(stems[subjects : subjects + others]),
        verbs=tuple(stems[subjects + others :]),
        subject_law=zipf(subjects),
        verb_law=zipf(verbs),
        chain=np.stack(laws),
    )


def spelling(chance: np.random.Generator) -> Iterator[str]:
    while True:
        stem = ""
        for _ in range(1 + int(chance.random() < 0.5)):
            stem += CONSONANTS[int(chance.random() * len(CONSONANTS))] + VOWELS[int(chance.random() * len(VOWELS))]
        yield stem + CONSONANTS[int(chance.random() * len(CONSONANTS))]


def distinct(drawn: Iterator[str], count: int) -> Iterator[str]:
    seen: set[str] = set()
    while len(seen) < count:
        if (stem := next(drawn)) not in seen:
            seen.add(stem)
            yield stem


def zipf(count: int) -> np.ndarray:
    law = 1 / np.arange(1, count + 1)
    return law / law.sum()


class Language:
    """The language at one distance.

    agrees: whether verbs agree; without, their endings are drawn with the same frequencies from nothing before, which
        is how the language looks to a predictor that forgets every subject at once.
    """

    def __init__(self, distance: int, words: Lexicon | None = None, *, agrees: bool = True):
        self.lexicon = words or lexicon()
        self.verb = 1 / (distance + 1)
        self.agrees = agrees
        self.symbols = {letter: number for number, letter in enumerate(ALPHABET)}
        genders = np.arange(len(self.lexicon.subjects)) % 2
        share = np.bincount(genders, self.lexicon.subject_law, minlength=2)
        self.forms = np.repeat(share, 2) / 2  # how frequent each of the verbs' endings is

    def words(self, state: Hashable) -> Words:
        """What may come at the border of a word. A state is START, or the subject's form and the row of the chain."""
        here = self.lexicon
        if state == START:
            return [
                (f"{stem}{NUMBERS[number]} ", law / 2, ((2 * (i % 2) + number) if self.agrees else None, -1))
                for i, (stem, law) in enumerate(zip(here.subjects, here.subject_law.tolist(), strict=True))
                for number in (0, 1)
            ]
        assert isinstance(state, tuple)
        form, row = state
        law = np.eye(4)[form] if self.agrees else self.forms
        found: Words = [
            (f"{stem}{VERB_ENDINGS[ending]}. ", self.verb * share * law[ending].item(), START)
            for stem, share in zip(here.verbs, here.verb_law.tolist(), strict=True)
            for ending in range(4)
        ]
        found += [
            (f"{stem}{ending} ", (1 - self.verb) * share / 2, (form, i))
            for i, (stem, share) in enumerate(zip(here.others, here.chain[row].tolist(), strict=True))
            for ending in NUMBERS
        ]
        return [word for word in found if word[1] > 0]

    @cached_property
    def letters(self) -> "Letters":
        return spelled(self.words, self.symbols)

    def sample(self, seed: int, length: int) -> np.ndarray:
        """A text of that many symbols, as their numbers in ALPHABET, uint8."""
        return self.texts(np.random.default_rng(seed).random((1, length)))[0]

    def texts(self, drawn: np.ndarray) -> np.ndarray:
        """Texts from their start, one symbol for each uniform number in [0, 1): [texts, length], uint8."""
        node, found = np.zeros(len(drawn), np.int64), np.empty(drawn.shape, np.uint8)
        for place in range(drawn.shape[1]):
            below = self.letters.below[node] <= drawn[:, place, None]
            found[:, place] = below.sum(1)
            node = self.letters.following[node, found[:, place]]
        return found

    def next_distribution(self, history: np.ndarray) -> np.ndarray:
        """Probabilities of every symbol after a text's beginning, [symbols].

        Raises ValueError for a beginning that no text of the language has.
        """
        return self.distributions(np.append(history, 0)[None])[0, -1]

    def distributions(self, texts: np.ndarray) -> np.ndarray:
        """The same before every place of texts [texts, length]: [texts, length, symbols]."""
        node, found = np.zeros(len(texts), np.int64), []
        for place in range(texts.shape[1]):
            found.append(self.letters.probability[node])
            node = self.letters.following[node, texts[:, place]]
            if place < texts.shape[1] - 1 and (node < 0).any():
                raise ValueError(f"a text of the language does not go on like this at symbol {place + 1}.")
        return np.stack(found, 1)

    def floor(self) -> float:
        """Entropy rate: bits a symbol that remain to the best predictor on an endless text.

        New information a word over letters a word, both in the stationary law of the states between words.
        """
        states, outs = reachable(self.words)
        law = stationary(states, outs)
        bits = [sum(-p * np.log2(p) for _, p, _ in out) for out in outs]
        letters = [sum(p * len(word) for word, p, _ in out) for out in outs]
        return float(law @ bits / (law @ letters))

    def entropies(self, length: int) -> np.ndarray:
        """Bits that remain to the best predictor at each of the first places of a text, exactly: [length].

        It has seen the text from its start. Their mean tends to the floor.
        """
        nodes, symbols = np.nonzero(self.letters.probability)
        mass = self.letters.probability[nodes, symbols]
        after, own = self.letters.following[nodes, symbols], self.letters.entropy
        law, found = np.eye(1, len(own))[0], np.empty(length)
        for place in range(length):
            found[place] = law @ own
            law = np.bincount(after, law[nodes] * mass, minlength=len(own))
        return found


@dataclass(frozen=True)
class Letters:
    """The language letter by letter: node 0 is the start of a text.

    probability: of every symbol at every node; following: the node after it, -1 where it cannot come.
    """

    probability: np.ndarray
    following: np.ndarray

    @cached_property
    def below(self) -> np.ndarray:
        """At each node and symbol the upper end of its share of [0, 1); symbols that cannot come have none."""
        ends = self.probability.cumsum(1)
        return ends / ends[:, -1:]

    @cached_property
    def entropy(self) -> np.ndarray:
        """Bits of the next symbol at each node."""
        logs = np.log2(self.probability, where=self.probability > 0, out=np.zeros_like(self.probability))
        return -(self.probability * logs).sum(1)


def spelled(words: Callable[[Hashable], Words], symbols: dict[str, int]) -> Letters:
    """From words to letters: a node is a state between words and what has been spelled since."""
    states, outs = reachable(words)
    nodes = {(state, ""): number for number, state in enumerate(states)}
    edges: dict[tuple[int, int], tuple[float, int]] = {}
    for state, out in zip(states, outs, strict=True):
        for word, p, after in out:
            for end in range(len(word)):
                here = nodes[state, word[:end]]
                ahead = (after, "") if end == len(word) - 1 else (state, word[: end + 1])
                there = nodes.setdefault(ahead, len(nodes))
                edge = here, symbols[word[end]]
                edges[edge] = edges.get(edge, (0.0, there))[0] + p, there
    probability, following = np.zeros((len(nodes), len(symbols))), np.full((len(nodes), len(symbols)), -1)
    for edge, (mass, there) in edges.items():
        probability[edge], following[edge] = mass, there
    return Letters(probability / probability.sum(1, keepdims=True), following)


def reachable(words: Callable[[Hashable], Words]) -> tuple[list[Hashable], list[Words]]:
    """All states between words, the start first, and what may come at each."""
    states, outs = [START], []
    for state in states:  # it grows while it is walked through
        outs.append(words(state))
        states += [after for after in dict.fromkeys(after for *_, after in outs[-1]) if after not in states]
    return states, outs


def stationary(states: list[Hashable], outs: list[Words]) -> np.ndarray:
    """How often each state stands between words in the long run."""
    number = {state: i for i, state in enumerate(states)}
    step = np.zeros((len(states), len(states)))
    for i, out in enumerate(outs):
        for _, p, after in out:
            step[i, number[after]] += p
    balance = np.vstack([step.T - np.eye(len(states)), np.ones(len(states))])
    return np.linalg.lstsq(balance, np.eye(1, len(states) + 1, len(states))[0], rcond=None)[0]


@cache
def language(distance: int, *, agrees: bool = True) -> Language:
    """The language that the tasks use."""
    return Language(distance, agrees=agrees)
