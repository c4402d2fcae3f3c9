"""Lists of addresses and of words."""

import doctest
from collections import Counter

import pytest

from tf_llm.contracts import Document, Rejected, UserError
from tf_llm.text import block_lists
from tf_llm.text.block_lists import UrlList, WordList, split_address

URL = "http://cats.example/"


def write(path, *lines, encoding="utf-8"):
    path.write_text("\n".join(lines), encoding=encoding)
    return str(path)


def test_docstring_examples():
    result = doctest.testmod(block_lists)
    assert result.attempted > 3 and result.failed == 0


@pytest.mark.parametrize(
    ("url", "blocked"),
    [
        ("http://dogs.example/", True),
        ("https://www.DOGS.example:8080/rex?bark=1", True),
        ("https://a.b.c.dogs.example", True),
        ("http://user:word@dogs.example./", True),
        ("http://hotdogs.example/", False),
        ("http://dogs.example.cats.example/", False),
        ("http://cats.example/dogs.example/", False),
        ("http://zoo.example/dogs/rex", True),
        ("http://zoo.example/dogs", False),
        ("http://zoo.example/cats?next=/dogs/", False),
        ("http://www.zoo.example/dogs/", False),
        ("http://zoo.example/Dogs/", False),
        ("http://zoo.example?breed=poodle&page=2", True),
        ("http://bücher.example/", True),
        ("http://xn--bcher-kva.example/", True),
        ("http://hündchen.example/", True),
        ("http://[2001:db8::1]/", True),
        ("http://[::1", False),
        ("", False),
        ("\ud800\0", False),
        ("page 7 of dogs.example", False),
    ],
)
def test_addresses(tmp_path, url, blocked):
    path = write(
        tmp_path / "list.txt", "# dogs", "", "dogs.example", " https://Zoo.example/dogs/ ", "zoo.example?breed=poodle",
        "xn--bcher-kva.example", "hündchen.example", "[2001:db8::1]",
    )  # fmt: skip
    result = UrlList(path)(Document(url, "Miau."), Counter())
    assert result == (Rejected(url, "url_list: blocked") if blocked else Document(url, "Miau."))


@pytest.mark.parametrize("address", ["http://a" * 40, "a" * 70 + "é.example/x", "//x", "?", "http:///path"])
def test_odd_addresses_are_split_somehow(address):
    assert all(isinstance(part, str) for part in split_address(address))


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("The dog began to Bark.", "bark"),
        ("bark", "bark"),
        ("BARK\nsaid the dog", "bark"),
        ("123bark_456", "bark"),
        ("The embarkation went well, said the barkeeper.", None),
        ("Bad dog! Sit.", "bad dog"),
        ("Bad\ndog!", None),
        ("A bad dogma it is.", None),
        ("We sell c++ and cats.", "c++"),
        ("xc++", None),
        ("Señor Perro", "perro"),
        ("这是一只坏狗吗", "坏狗"),
        ("Гав, сказала собака.", "гав"),
        ("гавань", None),
        ("यह कुत्ता है", "कुत्ता"),
        ("यह कुत्ते हैं", None),
        ("", None),
    ],
)
def test_words(tmp_path, text, entry):
    path = write(
        tmp_path / "list.txt", "Bark", "bad dog", "c++", "perro", "坏狗", "гав", "कुत्ता", "कुत्त", encoding="utf-8-sig"
    )
    result = WordList(path)(Document(URL, text), Counter())
    assert result == (Rejected(URL, "word_list: blocked", entry) if entry else Document(URL, text))


@pytest.mark.parametrize("kind", [UrlList, WordList])
def test_user_errors_name_the_file(tmp_path, kind):
    for path, text in (
        (
            str(tmp_path / "nowhere.txt"),
            r"one a line, at .*nowhere\.txt\. Received: .*No such file.*\. Name another file",
        ),
        (write(tmp_path / "empty.txt", "# nothing", ""), r"one a line, in .*empty\.txt\. Received: no entry\. Name"),
        (write(tmp_path / "utf16.txt", "cat", encoding="utf-16"), r"utf16\.txt\. Received: 'utf-8' codec"),
    ):
        with pytest.raises(UserError, match=text):
            kind(path)
