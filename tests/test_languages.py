"""Codes of languages: one table, read in both directions."""

import doctest

import pytest

from tf_llm import languages
from tf_llm.contracts import UserError
from tf_llm.languages import find_long_code, load_codes, load_long_codes, name_language, read_table


def test_docstring_examples():
    result = doctest.testmod(languages)
    assert result.attempted == 3 and result.failed == 0


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("eng", "en"), ("en", "en"), ("en-GB", "en"), ("EN_us", "en"), ("English", "en"), ("zho", "zh"), ("chi", "zh"),
        ("zh-cn", "zh"), ("zh-Hant-TW", "zh"), ("cmn", "zh"), ("nob", "no"), ("iw", "he"), ("ceb", "ceb"),
        (" fra ", "fr"),         ("norwegian nynorsk", "nn"), ("", None), ("x", None),
        ("English please", None), ("12", None), ("日本", None),
    ],
)  # fmt: skip
def test_names_of_languages(label, code):
    assert name_language(label) == code


def test_codes_of_three_letters():
    codes = [find_long_code(code) for code in ("ZH", "zho", "yue", "nb", "no", "sh")]
    assert codes == ["zho", "zho", "yue", "nob", "nor", "hbs"]
    for code in ("english", "e.*", "iw", ""):
        with pytest.raises(UserError, match=r"the code of a language, such as eng or en\. Received: .*Use one of ISO"):
            find_long_code(code)


def test_no_two_languages_share_a_code():
    assert len(set(load_codes().values())) == 182 and len(load_long_codes()) == 184
    codes = [code for codes, _ in read_table() for code in codes]
    assert len(codes) == len(set(codes))
    assert {(len(short), len(long)) for short, long in load_long_codes().items()} == {(2, 3)}
