"""Languages by label and by detection."""

import doctest
from collections import Counter

import pytest

from tf_llm.contracts import Document, Rejected, UserError
from tf_llm.text import languages
from tf_llm.text.languages import DETECTORS, Language, load_detector

URL = "http://cats.example/"
TEXTS = {
    "en": "The cat with the hat had a plan, and the plan was to have the neighbour's fish for breakfast.",
    "es": "El gato del sombrero tenía un plan, y el plan era desayunar el pescado de la vecina.",
    "de": "Die Katze mit dem Hut hatte einen Plan, und der Plan war, den Fisch der Nachbarin zu frühstücken.",
    "fr": "Le chat au chapeau avait un plan, et ce plan était de manger le poisson de la voisine au petit déjeuner.",
    "zh": "戴帽子的猫有一个计划，它打算把邻居家的鱼当早饭吃掉，可是邻居今天没有买鱼。",
    "ja": "帽子をかぶった猫には計画があった。それは隣の家の魚を朝ごはんに食べるという計画だった。",
    "ar": "كان لدى القطة ذات القبعة خطة جيدة، وهي أن تأكل سمكة الجيران في الصباح قبل أن يستيقظ أحد.",
    "hi": "टोपी वाली बिल्ली के पास एक योजना थी, और योजना यह थी कि पड़ोसी की मछली को नाश्ते में खा लिया जाए।",
    "ru": "У кошки в шляпе был план, и план был такой: съесть на завтрак рыбу соседки.",
    "ko": "모자를 쓴 고양이에게는 계획이 있었고, 그 계획은 이웃집 생선을 아침으로 먹는 것이었다.",
}


def test_docstring_examples():
    result = doctest.testmod(languages)
    assert result.attempted > 2 and result.failed == 0


@pytest.mark.parametrize(
    ("labels", "admitted", "result"),
    [
        (("eng", "spa"), ("en",), ("en", "es")),
        (("eng",), (), ("en",)),
        (("spa", "eng"), ("en",), "es"),  # the first one is what most of the page is in
        (("nonsense", "eng"), ("en",), ("en",)),
        (("ceb",), ("ceb",), ("ceb",)),
    ],
)
def test_labels(labels, admitted, result):
    edits = Counter()
    document = Language(admitted)(Document(URL, "Miau.", labels), edits)
    if isinstance(result, tuple):
        assert document == Document(URL, "Miau.", result)
    else:
        assert document == Rejected(URL, "language: not admitted", result)
    assert not edits


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("language", TEXTS)
def test_detection(detector, language):
    pytest.importorskip(detector)
    edits = Counter()
    document = Language((language,), detector)(Document(URL, TEXTS[language]), edits)
    assert document == Document(URL, TEXTS[language], (language,)) and edits == {"language: detected": 1}
    other = "fi" if language != "fi" else "en"
    rejected = Language((other,), detector)(Document(URL, TEXTS[language]), Counter())
    assert rejected == Rejected(URL, "language: not admitted", language)


@pytest.mark.parametrize("detector", DETECTORS)
def test_labels_that_are_not_trusted(detector):
    pytest.importorskip(detector)
    rule = Language(("en",), detector, trust_labels=False)
    assert rule(Document(URL, TEXTS["en"], ("spa",)), Counter()).languages == ("en",)
    assert rule(Document(URL, TEXTS["es"], ("eng",)), Counter()).detail == "es"


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("text", ["", "12345 67890", "\ud800", "... !!! ...", "\0\0\0"])
def test_what_is_no_language(detector, text):
    pytest.importorskip(detector)
    result = Language((), detector, probability=0.9)(Document(URL, text), Counter())
    assert isinstance(result, Rejected) and result.reason == "language: unclear"


@pytest.mark.parametrize("detector", DETECTORS)
def test_what_a_detector_has_to_be_sure_of(detector):
    pytest.importorskip(detector)
    code, probability = load_detector(detector)(TEXTS["en"])
    assert code == "en" and 0.3 < probability <= 1.001
    assert Language((), detector, probability=1.01)(Document(URL, TEXTS["en"]), Counter()).reason == "language: unclear"
    assert load_detector(detector)(TEXTS["en"]) == (code, probability)  # as sure as before


@pytest.mark.parametrize("detector", DETECTORS)
def test_long_pages_take_no_longer(detector):
    pytest.importorskip(detector)
    assert Language(("en",), detector)(Document(URL, TEXTS["en"] * 20_000), Counter()).languages == ("en",)


@pytest.mark.parametrize("detector", DETECTORS)
def test_without_a_detector_labels_are_all_there_is(detector, monkeypatch, caplog):
    monkeypatch.setattr(languages, "has_detector", lambda name: False)
    with pytest.raises(
        UserError, match=rf'the package {detector}, which detects languages\..* pip install "tf_llm\[languages\]"'
    ):
        Language((), detector, trust_labels=False)
    rule = Language((), detector)
    assert f"pages without a language label will be rejected: expected the package {detector}" in caplog.text
    assert rule(Document(URL, "Miau.", ("en",)), Counter()).languages == ("en",)
    assert rule(Document(URL, "Miau."), Counter()) == Rejected(URL, "language: no label")
