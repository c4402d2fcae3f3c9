"""The rules together: settings, order, counts, hostile and foreign text."""

import dataclasses
import doctest
import inspect
import pickle
import re
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_llm.contracts import Document, Rejected, UserError
from tf_llm.text import c4, filters
from tf_llm.text.filters import FILTERS, FilterConfig, Filters

URL = "http://cats.example/"
STORY = """The cat with the hat had a plan, and that plan was to have the fish of the neighbour for breakfast.
It went to the window and looked at the garden, where nothing moved but the wind and a very old mouse.
"Good morning," said the mouse. "You have come to ask about the fish, and I have come to ask about the cheese."
They sat down together under the apple tree, drank some tea without milk, and agreed to be honest with each other."""


@pytest.fixture
def lists(tmp_path):
    (tmp_path / "addresses.txt").write_text("dogs.example\n", encoding="utf-8")
    (tmp_path / "words.txt").write_text("bark\n", encoding="utf-8")
    return {"url_list": str(tmp_path / "addresses.txt"), "word_list": str(tmp_path / "words.txt")}


def all_rules(lists, **switches):
    return Filters(FilterConfig(names=", ".join(FILTERS), **lists, **switches))


def test_docstring_examples():
    result = doctest.testmod(filters)
    assert result.attempted > 5 and result.failed == 0


def test_a_good_page_passes_every_rule_unchanged(lists):
    edits = Counter()
    assert all_rules(lists)(Document(URL, STORY, ("eng",)), edits) == Document(URL, STORY, ("en",))
    assert not edits


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (Document("http://www.dogs.example/", STORY, ("en",)), "url_list: blocked"),
        (Document(URL, STORY, ("deu",)), "language: not admitted"),
        (Document(URL, f"{STORY}\nThis line has a {{ in it, as programs have.", ("en",)), "c4: curly bracket"),
        (Document(URL, "The cat sat on a mat. It sat there. It sat well.", ("en",)), "gopher_quality: few words"),
        (Document(URL, f"{STORY}\n{STORY}", ("en",)), "gopher_repetition: lines"),
        (Document(URL, f"{STORY}\nThe dog began to Bark, and that was that.", ("en",)), "word_list: blocked"),
    ],
)
def test_each_rule_can_reject(lists, document, reason):
    edits = Counter({"before": 1})
    result = all_rules(lists, languages="English, es")(document, edits)
    assert isinstance(result, Rejected) and result.reason == reason
    assert edits == {"before": 1}  # what is rejected was not edited


def test_rules_run_in_the_order_of_their_names():
    page = Document(URL, "Write to cat@mail.example, or do not.")
    assert Filters(FilterConfig(names="c4,gopher_quality"))(page, Counter()).reason == "c4: few sentences"
    assert Filters(FilterConfig(names="gopher_quality,c4"))(page, Counter()).reason == "gopher_quality: few words"


def test_by_default_personal_data_is_replaced_and_nothing_else():
    edits = Counter()
    page = Document(URL, "Menu\nmail cat@mail.example {now}")
    assert Filters(FilterConfig())(page, edits).text == "Menu\nmail <email> {now}"
    assert edits == {"personal_data: email": 1}
    assert Filters(FilterConfig(names=""))(page, edits) is page


def test_recheck_counts_sentences_once_more():
    strict, lax = Filters(FilterConfig(names="c4")), Filters(FilterConfig())
    short = Document(URL, "There was a mouse. There was a cat.")
    assert strict.recheck(short) == Rejected(URL, "c4: few sentences", "2 of at least 3")
    long = dataclasses.replace(short, text=f"{short.text} There is a cat.")
    assert strict.recheck(long) is long and lax.recheck(short) is short
    for rules in (strict, lax):
        assert rules.recheck(Document(URL, " \n")) == Rejected(URL, "no text")


def test_pickled_rules_do_the_same(lists):
    rules = all_rules(lists)
    again = pickle.loads(pickle.dumps(rules))
    assert again.config == rules.config and list(again.rules) == list(FILTERS)
    for page in (Document(URL, STORY, ("en",)), Document("https://dogs.example", STORY, ("en",))):
        assert again(page, Counter()) == rules(page, Counter())


def test_a_changed_list_is_another_list(lists, tmp_path):
    before = all_rules(lists).list_digests()
    assert before.keys() == {"url_list", "word_list"} and before == all_rules(lists).list_digests()
    (tmp_path / "words.txt").write_text("bark\nwoof\n", encoding="utf-8")
    after = all_rules(lists).list_digests()
    assert after["word_list"] != before["word_list"] and after["url_list"] == before["url_list"]
    assert Filters(FilterConfig()).list_digests() == {}


@pytest.mark.parametrize(
    ("switches", "text"),
    [
        ({"names": "c4,dogs"}, r"filters\.names expected names among \['c4', .*\]\. Received: 'dogs'"),
        (
            {"names": "url_list"},
            r"filters\.url_list expected a file, for filters\.names has 'url_list'\. Received: none",
        ),
        ({"languages": "en,miaow"}, r"filters\.languages expected codes of ISO 639.* Received: 'miaow'"),
        ({"detector": "cat"}, r"filters\.detector expected one of \['langdetect', 'py3langid'\]\. Received: 'cat'"),
        ({"c4_scripts": "some"}, r"filters\.c4_scripts expected one of \['all', 'english'\]\. Received: 'some'"),
        ({"gopher_stop_words": "x"}, r"filters\.gopher_stop_words expected one of .* Received: 'x'"),
        ({"language_probability": 1.5}, r"filters\.language_probability expected 0 to 1\. Received: 1\.5"),
        ({"c4_sentences": -1}, r"filters\.c4_sentences expected at least 0\. Received: -1"),
    ],
)
def test_wrong_settings_are_named(switches, text):
    with pytest.raises(ValueError, match=text):
        FilterConfig(**switches)


def test_a_missing_list_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"expected a text file with a list of words.*nowhere.*Name another file"):
        Filters(FilterConfig(names="word_list", word_list=str(tmp_path / "nowhere")))


def test_every_switch_has_a_comment_that_can_be_its_help():
    lines = inspect.getsource(FilterConfig)
    for field in dataclasses.fields(FilterConfig):
        assert field.type in ("str", "int", "float", "bool")
        assert re.search(rf"^    {field.name}: {field.type} = .*  # \w.*$", lines, re.MULTILINE), field.name


FOREIGN = {
    "es": """El gato del sombrero tenía un plan, y el plan era desayunar el pescado de la vecina antes de las ocho.
¿Qué hace un gato con sombrero en la cocina? Nadie en la casa lo sabía, y tampoco se lo preguntaron al ratón.
«Buenos días», dijo el ratón, que llevaba los zapatos de la abuela y un paraguas en la mano. ¡Llueve en el salón!
Se sentaron debajo del manzano y bebieron el té sin leche, porque la leche se la había bebido el perro de al lado.""",
    "zh": """戴帽子的猫有一个计划，它打算把邻居家的鱼当早饭吃掉，可是邻居今天没有买鱼，只买了一大把青菜。
老鼠问：“你为什么戴着帽子坐在厨房里？难道外面下雨了吗？”猫没有回答，因为它正在想晚饭的事情。
后来他们一起坐在苹果树下喝茶，聊起了从前的冬天，还约好以后谁也不许再偷奶酪，可是谁也没有把这句话当真。
太阳下山的时候，狗回来了，它什么也没有说，只是把剩下的点心全部吃光，然后躺在门口睡着了！""",
    "ar": """كان لدى القطة ذات القبعة خطة جيدة، وهي أن تأكل سمكة الجيران في الصباح قبل أن يستيقظ أحد من البيت.
ماذا تفعل قطة مع قبعة في المطبخ؟ لا أحد يعرف، ولم يسأل أحد الفأر العجوز الذي كان يجلس على الكرسي.
قال الفأر إن الشاي بارد، وإن الكلب شرب كل الحليب من الإبريق، ثم ضحك الجميع على هذه القصة الغريبة.
جلسوا معا تحت شجرة التفاح حتى المساء، وتحدثوا عن الجبن وعن الشتاء الطويل الذي لا ينتهي في هذه المدينة.""",
    "hi": """टोपी वाली बिल्ली के पास एक योजना थी, और योजना यह थी कि पड़ोसी की मछली को नाश्ते में खा लिया जाए।
रसोई में टोपी पहनकर बिल्ली क्या कर रही है? घर में किसी को पता नहीं था और चूहे से किसी ने पूछा भी नहीं।
चूहे ने कहा कि चाय ठंडी है और सारा दूध कुत्ते ने पी लिया है, इसलिए अब सब लोग पानी ही पिएंगे।
वे शाम तक सेब के पेड़ के नीचे बैठे रहे और लंबी सर्दी की बातें करते रहे, जब तक कि तारे नहीं निकले।""",
    "ja": """帽子をかぶった猫には計画があった。それは隣の家の魚を朝ごはんに食べるという計画だった。
「台所で何をしているの？」と老いたねずみが聞いた。猫は答えず、晩ごはんのことばかり考えていた。
それから二匹はりんごの木の下に座り、牛乳なしのお茶を飲みながら、長かった冬の思い出を話し合った。
夕方になると犬が帰ってきて、残っていたお菓子を全部食べて、何も言わずに玄関で眠ってしまった。""",
}


@pytest.mark.parametrize("language", FOREIGN)
def test_pages_in_other_languages_pass_like_english_ones(language):
    rules = Filters(FilterConfig(names="language,c4,gopher_quality,gopher_repetition", languages="es,zh,ar,hi,ja"))
    edits = Counter()
    document = rules(Document(URL, f"Menu | 菜单 | القائمة\n{FOREIGN[language]}", (language,)), edits)
    assert document == Document(URL, FOREIGN[language], (language,))
    assert edits == {"c4: no end mark": 1}
    published = Filters(FilterConfig(names="c4", c4_scripts="english"))(document, Counter())
    assert isinstance(published, Rejected) == (language in ("zh", "hi", "ja"))  # the others have full stops


HOSTILE = {
    "no blanks": "a" * 250_000,
    "no blanks, signs": "a.b@c-1+" * 31_250,
    "at signs": "@" * 250_000,
    "mail": "a@" * 125_000,
    "plus signs": "+1" * 125_000,
    "digits": "1" * 250_000,
    "digits and blanks": "1 " * 125_000,
    "dots": "1." * 125_000,
    "colons": "2001:" * 50_000,
    "brackets": "[1" * 125_000,
    "telephones": "tel.: " * 40_000,
    "sentences": "A. " * 82_500,
    "hanzi": "猫" * 250_000,
    "wide marks": "。" * 250_000,
    "zeros": "\0 " * 125_000,
    "surrogates": "\ud800 \udfff." * 62_500,
    "lines": "\n" * 250_000,
    "same lines": "The cat sat on the mat.\n" * 10_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_takes_little_time(text, lists):
    for name in set(FILTERS) - {"language"}:
        rules = Filters(FilterConfig(names=name, **lists))
        document = Document(URL, text[: c4.MAX_CHARACTERS] if name == "c4" else text)
        begin = time.process_time()
        assert isinstance(rules(document, Counter()), Document | Rejected)
        assert time.process_time() - begin < 1, name


pieces = st.sampled_from(
    [
        "The cat sat. ",
        "猫。",
        "{",
        "[1]",
        "tel.: 030 12345678 ",
        "a@b.cd",
        "8.8.8.8",
        "...",
        "\n",
        "\ud800",
        "\0",
        "#",
        "•",
    ]
)


@given(st.lists(st.one_of(pieces, st.text(max_size=9)), max_size=40).map("".join))
def test_any_text_is_kept_or_rejected(text):
    for name in set(FILTERS) - {"language", "url_list", "word_list"}:
        edits = Counter()
        rules = Filters(FilterConfig(names=name))
        result = rules(Document(URL, text), edits)
        if isinstance(result, Document):
            assert result.text
        else:
            assert re.fullmatch(rf"({name}: [\w -]+|no text)", result.reason) and not edits
