"""A WordNet of a dozen words in the format of the real one (wndb(5WN)), and a tagger, in a folder as NLTK's data."""

from pathlib import Path

NOUNS = {"entity": None, "animal": "entity", "dog": "animal", "cat": "animal", "thing": "entity", "ball": "thing"}
VERBS = {"act": None, "move": "act", "run": "move", "walk": "move"}
"""Words, each in a synset of its own, with the word that is more general."""
SENTENCES = [
    [("the", "DT"), ("dog", "NN"), ("ran", "VBD")],
    [("two", "CD"), ("cats", "NNS"), ("walking", "VBG"), ("with", "IN"), ("the", "DT"), ("ball", "NN")],
]


def data_lines(words: dict[str, str | None], part: str, places: dict[str, int]) -> list[str]:
    """The lines of a data file; the numbers of its synsets are the places of its lines, in bytes."""
    lines = []
    for word, general in words.items():
        below = [other for other, parent in words.items() if parent == word]
        pointers = [("@", general)] if general else []
        pointers += [("~", other) for other in below]
        shown = " ".join(f"{symbol} {places[other]:08d} {part} 0000" for symbol, other in pointers)
        frames = " 01 + 02 00" if part == "v" else ""
        lines.append(f"{places[word]:08d} 00 {part} 01 {word} 0 {len(pointers):03d} {shown}{frames} | a {word}  \n")
    return lines


def write_part(folder: Path, name: str, words: dict[str, str | None], part: str) -> None:
    """Write the data, the index and the exceptions of a part of speech."""
    places = dict.fromkeys(words, 0)
    for _ in range(2):  # lines keep their length
        lines = data_lines(words, part, places)
        places = {word: sum(map(len, lines[:i])) for i, word in enumerate(words)}
    (folder / f"data.{name}").write_text("".join(lines))
    index = [f"{word} {part} 1 1 @ 1 0 {place:08d}  \n" for word, place in sorted(places.items())]
    (folder / f"index.{name}").write_text("".join(index))
    (folder / f"{name}.exc").write_text("ran run\n" if name == "verb" else "")


def write_nltk_data(folder: Path) -> None:
    """Write the WordNet and the tagger."""
    import nltk

    wordnet = folder / "corpora" / "wordnet"
    wordnet.mkdir(parents=True)
    (wordnet / "lexnames").write_text("00\tnoun.Tops\t1\n")
    for name in ("cntlist.rev", "index.sense"):
        (wordnet / name).touch()
    for name, words, part in (("noun", NOUNS, "n"), ("verb", VERBS, "v"), ("adj", {}, "a"), ("adv", {}, "r")):
        write_part(wordnet, name, words, part)
    nltk.data.path.insert(0, str(folder))  # NLTK writes no tagger elsewhere
    try:
        tagger = nltk.tag.PerceptronTagger(load=False)
        tagger.train(SENTENCES)
        tagger.save_to_json("eng", str(folder / "taggers" / "averaged_perceptron_tagger_eng"))
    finally:
        nltk.data.path.remove(str(folder))
