"""The generated language: its entropies against brute force, its exact predictor, how far its agreement reaches."""

from collections import defaultdict
from math import log2

import numpy as np
import pytest

from tasks._language import ALPHABET, NUMBERS, VERB_ENDINGS, Language, Letters, Lexicon, language, lexicon

TINY = Lexicon(
    subjects=("b", "da"),
    others=("f", "fa"),
    verbs=("g", "l"),
    subject_law=np.array([0.7, 0.3]),
    verb_law=np.array([0.6, 0.4]),
    chain=np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]]),
)


def spelled(text: np.ndarray) -> str:
    return "".join(ALPHABET[symbol] for symbol in text)


def beginnings(length: int, verb: float) -> dict[str, float]:
    """Probabilities of the first letters of the tiny language's texts, from its rules told anew, by listing them all.

    Held open are (letters so far, probability, the verb's ending or None before a subject, row of the chain).
    """
    found: dict[str, float] = defaultdict(float)
    held: list[tuple[str, float, str | None, int]] = [("", 1.0, None, 2)]
    while held:
        text, p, ending, row = held.pop()
        if len(text) >= length:
            found[text[:length]] += p
        elif ending is None:
            held += [(text + "be ", p * 0.35, "a", 2), (text + "bi ", p * 0.35, "o", 2)]
            held += [(text + "dae ", p * 0.15, "u", 2), (text + "dai ", p * 0.15, "y", 2)]
        else:
            held += [(text + f"g{ending}. ", p * verb * 0.6, None, 2), (text + f"l{ending}. ", p * verb * 0.4, None, 2)]
            for other, share in ((0, TINY.chain[row, 0]), (1, TINY.chain[row, 1])):
                for number in "ei":
                    word = ("f", "fa")[other] + number + " "
                    held.append((text + word, p * (1 - verb) * share / 2, ending, other))
    return found


def block_entropy(law: dict[str, float]) -> float:
    return -sum(p * log2(p) for p in law.values())


def test_entropies_are_the_differences_of_block_entropies_of_all_texts_listed():
    blocks = [0.0] + [block_entropy(beginnings(length, verb=1 / 3)) for length in range(1, 16)]
    np.testing.assert_allclose(Language(2, TINY).entropies(15), np.diff(blocks), atol=1e-12)


def test_next_distribution_is_the_share_of_listed_texts_that_go_on_so():
    spoken, longer, shorter = Language(1, TINY), beginnings(13, verb=0.5), beginnings(12, verb=0.5)
    for text in sorted(shorter)[::7]:
        history = np.array([ALPHABET.index(letter) for letter in text])
        expected = [longer[text + letter] / shorter[text] for letter in ALPHABET]
        np.testing.assert_allclose(spoken.next_distribution(history), expected, atol=1e-12)


def letter_rate(letters: Letters) -> float:
    """Entropy rate from the stationary law of the letter-by-letter chain: its left eigenvector of eigenvalue 1."""
    step = np.zeros((len(letters.probability),) * 2)
    for node, symbol in np.argwhere(letters.probability):
        step[node, letters.following[node, symbol]] += letters.probability[node, symbol]
    values, vectors = np.linalg.eig(step.T)
    law = np.real(vectors[:, np.abs(values - 1).argmin()])
    bits = [sum(-p * log2(p) for p in row if p > 0) for row in letters.probability]
    return float(law @ bits / law.sum())


@pytest.mark.parametrize("distance", [0, 1, 5])
@pytest.mark.parametrize("agrees", [True, False])
def test_the_floor_from_words_is_the_entropy_rate_from_letters(distance, agrees):
    spoken = Language(distance, TINY, agrees=agrees)
    assert spoken.floor() == pytest.approx(letter_rate(spoken.letters), abs=1e-9)


def test_entropies_tend_to_the_floor():
    spoken = language(4)
    assert spoken.entropies(3000)[2000:].mean() == pytest.approx(spoken.floor(), abs=1e-9)


def test_the_oracles_bits_on_long_texts_are_the_floor_within_their_error():
    spoken, drawn = language(8), np.random.default_rng(5).random((64, 4000))
    texts = spoken.texts(drawn)
    given = np.take_along_axis(spoken.distributions(texts), texts[:, :, None].astype(int), 2)[:, :, 0]
    each = -np.log2(given)[:, 200:].mean(1)
    error = each.std(ddof=1) / 8
    assert error < 0.01
    assert abs(each.mean() - spoken.floor()) < 4 * error
    assert abs(each.mean() - language(8, agrees=False).floor()) > 4 * error


def sentences(text: str) -> list[list[str]]:
    """Whole sentences in words, a verb's full stop taken away."""
    return [sentence.split() for sentence in text.split(". ")[:-1]]


def test_every_verb_agrees_with_the_gender_and_number_of_its_subject():
    words, told = lexicon(), []
    for sentence in sentences(spelled(language(6).sample(1, 40_000))):
        subject, verb = sentence[0], sentence[-1]
        gender = words.subjects.index(subject[:-1]) % 2
        assert verb[-1] == VERB_ENDINGS[2 * gender + NUMBERS.index(subject[-1])]
        assert verb[:-1] in words.verbs
        assert all(word[:-1] in words.others and word[-1] in NUMBERS for word in sentence[1:-1])
        told.append(verb[-1])
    assert len(told) > 500
    assert set(told) == set(VERB_ENDINGS)


@pytest.mark.parametrize("distance", [0, 3, 30])
def test_distance_is_the_mean_number_of_words_between_subject_and_verb(distance):
    between = [len(sentence) - 2 for sentence in sentences(spelled(language(distance).sample(2, 60_000)))]
    error = np.std(between) / len(between) ** 0.5
    assert np.mean(between) == pytest.approx(distance, abs=4 * error + 1e-9)


def test_without_agreement_a_text_costs_the_entropy_of_the_endings_more():
    """At distance 0 a sentence is two words and only its verb's ending can differ in what it costs."""
    spoken = language(0)
    forms = spoken.forms
    words = lexicon()
    length = sum(p * (len(stem) + 2) for stem, p in zip(words.subjects, words.subject_law, strict=True))
    length += sum(p * (len(stem) + 3) for stem, p in zip(words.verbs, words.verb_law, strict=True))
    assert forms.sum() == pytest.approx(1)
    extra = language(0, agrees=False).floor() - spoken.floor()
    assert extra == pytest.approx(-(forms * np.log2(forms)).sum() / length, abs=1e-12)


def ngram_bits(train: np.ndarray, test: np.ndarray, order: int) -> float:
    """Bits a symbol of a model that sees order symbols back, each order falling back on the one below."""
    size = len(ALPHABET)
    guess = np.full((len(test), size), 1 / size)
    for seen in range(order + 1):
        counts: dict[bytes, np.ndarray] = {}
        for place in range(seen, len(train)):
            row = counts.setdefault(train[place - seen : place].tobytes(), np.zeros(size))
            row[train[place]] += 1
        for place in range(seen, len(test)):
            row = counts.get(test[place - seen : place].tobytes())
            if row is not None:
                guess[place] = (row + guess[place]) / (row.sum() + 1)
    return float(-np.log2(guess[np.arange(len(test)), test]).mean())


def test_a_model_of_a_few_letters_stays_above_the_floor_however_it_is_trained():
    train, test = language(8).sample(3, 80_000), language(8).sample(4, 10_000)
    bits = [ngram_bits(train, test, order) for order in (0, 5)]
    assert bits[0] - 1 > bits[1] > language(8, agrees=False).floor() > language(8).floor() + 0.03


def test_a_history_that_no_text_has_is_refused():
    with pytest.raises(ValueError, match="does not go on like this at symbol 1"):
        language(2).next_distribution(np.array([ALPHABET.index(".")]))


def test_texts_are_a_function_of_the_seed_and_longer_ones_go_on_from_shorter():
    assert np.array_equal(language(3).sample(7, 100), language(3).sample(7, 300)[:100])
    assert not np.array_equal(language(3).sample(7, 100), language(3).sample(8, 100))
    assert spelled(language(3).sample(0, 60)) == "nele zazi vatite mite nune zavi duna. zube duna. vosi disy. "


def test_symbols_have_shares_of_the_uniform_numbers_as_large_as_their_probabilities():
    grid = (np.arange(5000)[:, None] + 0.5) / 5000
    start = np.bincount(language(3).texts(grid)[:, 0], minlength=len(ALPHABET)) / 5000
    np.testing.assert_allclose(start, language(3).next_distribution(np.empty(0, int)), atol=1 / 5000)


@pytest.mark.parametrize("size", [16, 100])
def test_all_stems_differ_and_are_spelled_in_the_alphabet(size):
    words = lexicon(size, size, size)
    stems = words.subjects + words.others + words.verbs
    assert len(set(stems)) == len(stems) == 3 * size
    assert set("".join(stems)) <= set(ALPHABET)
