"""Which characters do the bytes mean? Labelled rightly, wrongly, or not at all."""

import doctest
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_llm.text import charset
from tf_llm.text.charset import decode

TEXTS = {
    "french": "Le garçon a oublié sa clé près de la forêt ; à Noël, les élèves mangent "
    "des crêpes et du pâté où ça leur plaît.",
    "german": "Über den Wölkchen fährt der müde Jäger täglich auf großen Füßen nach Köln, "
    "wo er süße Brötchen und Äpfel isst.",
    "spanish": "El niño comió piñas en el jardín; ¿dónde está la cigüeña? Mañana volverá "
    "con más pájaros y un búho pequeñísimo.",
    "finnish": "Pöllö söi myöhään yöllä hämähäkkejä, ja isäntä hämmästyi: eihän tämä "
    "ole mikään ravintola, sanoi hän äkäisenä.",
    "euro": "Un café coûte 3 € au bord de la mer, où la sœur du maître mange un gâteau à 5 € près du château.",
    "polish": "Zażółć gęślą jaźń, powiedziała żaba do księdza, który właśnie łowił pstrągi "
    "w źródle pod dębem koło Łodzi.",
    "czech": "Příliš žluťoučký kůň úpěl ďábelské ódy, zatímco kočka v čepici počítala hvězdy "
    "nad řekou a žádala o smetanu.",
    "hungarian": "Árvíztűrő tükörfúrógép dolgozott az őszi erdőben, és a szürke egérke örült, "
    "mert végre hűvös lett a levegő.",
    "russian": "Съешь ещё этих мягких французских булок, да выпей чаю, сказал медведь и ушёл в лес искать балалайку.",
    "ukrainian": "Їжак з’їв жирну грушу й заснув під ялинкою, а його бабуся щодня "
    "варила борщ із грибами та співала пісень.",
    "bulgarian": "Жълтата дюля беше щастлива, че пухът, който цъфна, замръзна като "
    "гьон, докато котката спеше на покрива.",
    "greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, είπε η γάτα και κοιμήθηκε πάνω στο ζεστό ψωμί της γιαγιάς μου.",
    "turkish": "Pijamalı hasta yağız şoföre çabucak güvendi; şişman kedi ise ığdır "
    "ağacının altında öğle uykusuna daldı.",
    "hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא חברה, ואמר לה שהתה מתקרר ושהחתול ישן על הכיסא מאז הבוקר.",
    "arabic": "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر، وقالت القطة إنها تفضل السمك على الشاي.",
    "chinese": "其实地上本没有路，走的人多了，也便成了路。猫说它不走路，它只在沙发上睡觉，等着吃鱼。",
    "taiwanese": "其實地上本沒有路，走的人多了，也便成了路。貓說牠不走路，牠只在沙發上睡覺，等著吃魚。",
    "japanese": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。お茶が冷めたので人間を呼んだ。",
    "korean": "모든 인간은 태어날 때부터 자유로우며, 고양이는 태어날 때부터 소파의 주인이다. 차가 식었다고 전해라.",
    "thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า แต่แมวบอกว่ามันประเสริฐกว่า เพราะมันนอนได้ทั้งวันโดยไม่มีใครว่า",
    "english": "“Tea,” said the cat — “and make it hot.” The naïve waiter’s résumé didn’t mention cats…",
}
# Text, its encoding, what the server says, what the page says.
MATRIX = [
    ("french", "iso-8859-1", None, None),
    ("french", "iso-8859-1", "iso-8859-1", None),
    ("french", "iso-8859-1", None, "iso-8859-1"),
    ("french", "iso-8859-1", "utf-8", None),
    ("spanish", "iso-8859-1", "utf-8", "iso-8859-1"),
    ("german", "cp1252", None, None),
    ("english", "cp1252", "iso-8859-1", None),
    ("english", "cp1252", None, None),
    ("finnish", "iso-8859-1", None, None),
    ("euro", "iso-8859-15", "iso-8859-15", None),
    ("euro", "iso-8859-15", None, "iso-8859-15"),
    ("euro", "cp1252", None, None),
    ("polish", "iso-8859-2", "iso-8859-2", None),
    ("polish", "iso-8859-2", None, "iso-8859-2"),
    ("polish", "iso-8859-2", "iso-8859-1", "iso-8859-2"),
    ("polish", "cp1250", None, None),
    ("polish", "cp1250", "iso-8859-2", "windows-1250"),
    ("polish", "iso-8859-2", None, None),
    ("czech", "cp1250", None, None),
    ("czech", "cp1250", "utf-8", "windows-1250"),
    ("czech", "iso-8859-2", None, "iso-8859-2"),
    ("hungarian", "cp1250", None, "windows-1250"),
    ("hungarian", "iso-8859-2", "iso-8859-2", None),
    ("hungarian", "cp1250", "iso-8859-1", None),
    ("russian", "cp1251", None, None),
    ("russian", "cp1251", "iso-8859-1", "windows-1251"),
    ("russian", "cp1251", "utf-8", None),
    ("russian", "cp1251", "iso-8859-1", None),
    ("russian", "koi8-r", None, None),
    ("russian", "koi8-r", "koi8-r", None),
    ("russian", "koi8-r", "windows-1251", "koi8-r"),
    ("russian", "koi8-r", "windows-1251", None),
    ("russian", "iso-8859-5", None, None),
    ("russian", "iso-8859-5", "iso-8859-5", None),
    ("ukrainian", "cp1251", "windows-1251", None),
    ("bulgarian", "cp1251", None, None),
    ("greek", "iso-8859-7", None, None),
    ("greek", "cp1253", None, "windows-1253"),
    ("greek", "iso-8859-7", "iso-8859-1", None),
    ("greek", "cp1253", "iso-8859-1", "windows-1253"),
    ("turkish", "iso-8859-9", "iso-8859-9", None),
    ("turkish", "cp1254", None, "windows-1254"),
    ("hebrew", "cp1255", None, None),
    ("arabic", "cp1256", None, None),
    ("arabic", "cp1256", "windows-1256", None),
    ("chinese", "gb18030", None, None),
    ("chinese", "gbk", "gb2312", None),
    ("chinese", "gb18030", "iso-8859-1", "gb2312"),
    ("chinese", "gbk", "utf-8", None),
    ("taiwanese", "big5", None, None),
    ("taiwanese", "big5", "big5", None),
    ("taiwanese", "big5", "gb2312", "big5"),
    ("japanese", "shift_jis", None, None),
    ("japanese", "shift_jis", "utf-8", "shift_jis"),
    ("japanese", "euc-jp", None, None),
    ("japanese", "euc-jp", "shift_jis", "euc-jp"),
    ("japanese", "iso-2022-jp", None, None),
    ("japanese", "iso-2022-jp", "iso-2022-jp", None),
    ("korean", "euc-kr", None, None),
    ("korean", "euc-kr", "iso-8859-1", None),
    ("thai", "tis-620", None, "tis-620"),
    ("french", "utf-8", "iso-8859-1", None),
    ("russian", "utf-8", None, "windows-1251"),
    ("chinese", "utf-8", "gbk", "gb2312"),
    ("german", "utf-8-sig", "iso-8859-1", None),
    ("japanese", "utf-8", None, None),
    ("russian", "utf-16", None, None),
    ("chinese", "utf-16-le", None, None),
    ("english", "utf-16-be", None, None),
    ("arabic", "utf-16-le", "utf-8", None),
    ("japanese", "utf-16", "shift_jis", None),
    ("korean", "utf-8", "no-such-encoding", "x-also-none"),
]
# The server says Latin-1, the page nothing, and what comes out looks like words: only somebody who knows Hungarian sees
# that õ and û stand for ő and ű.
WRONG = {("hungarian", "cp1250", "iso-8859-1", None)}


def write_page(text, meta):
    meta = f'<meta http-equiv="Content-Type" content="text/html; charset={meta}">' if meta else ""
    return f"<html><head>{meta}<title>{text[:20]}</title></head><body><p>{text}</p></body></html>"


def test_docstring_examples():
    result = doctest.testmod(charset)
    assert result.attempted > 5 and result.failed == 0


def test_the_matrix_is_read_rightly_but_for_what_is_named():
    wrong = set()
    for name, encoding, header, meta in MATRIX:
        page = write_page(TEXTS[name], meta)
        if decode(page.encode(encoding), header) != page:
            wrong.add((name, encoding, header, meta))
    assert wrong == WRONG
    assert len(set(MATRIX)) == len(MATRIX) >= 40 and len(wrong) <= 0.05 * len(MATRIX)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "naïve – 日本語 🫖"),
        ("utf-8-sig", "naïve – 日本語 🫖"),
        ("utf-16", "naïve – 日本語 🫖"),
        ("cp1252", "naïve “café” – 5 €"),
        ("cp1250", "Zażółć gęślą jaźń"),
        ("cp1251", "съешь ещё этих мягких булок"),
        ("gb18030", "其实地上本没有路"),
        ("shift_jis", "吾輩は猫である。名前はまだ無い。"),
        ("iso2022_jp", "吾輩は猫である。名前はまだ無い。"),
        ("euc_kr", "나랏말싸미 듕귁에 달아".replace("듕귁", "중국")),
    ],
)
def test_encodings(encoding, text):
    page = f"<html><p>{text}</p>"
    assert decode(page.encode(encoding), charset=encoding.replace("cp", "windows-")) == page
    labelled = page.replace("<p>", f'<meta charset="{encoding.replace("cp", "windows-")}"><p>')
    assert decode(labelled.encode(encoding)) == labelled


def test_encoding_is_guessed_where_nobody_names_it():
    text = "съешь ещё этих мягких французских булок, да выпей чаю. " * 5
    assert decode(text.encode("cp1251")) == text


@pytest.mark.parametrize("label", ["iso-8859-1", "gbk", "no-such-encoding", "utf-16", "", "\udcff"])
def test_valid_utf8_overrules_wrong_labels(label):
    text = "Žluťoučký kůň úpěl ďábelské ódy"
    assert decode(text.encode(), charset=label) == text
    assert decode(b"plain ascii", charset=label) == "plain ascii"


def test_damaged_bytes_cost_themselves_only():
    utf8 = "“Zażółć gęślą jaźń”, 日本語".encode()
    assert decode(utf8[:-1]) == "“Zażółć gęślą jaźń”, 日本"  # cut within a character, as crawlers cut long pages
    polish = ("Zażółć gęślą jaźń. " * 20).encode("cp1250")
    assert decode(polish + b"\x81", charset="windows-1250") == "Zażółć gęślą jaźń. " * 20


def test_browsers_reading_of_latin1():
    assert decode(b"\x93quoted\x94 \x80 5", charset="ISO-8859-1") == "“quoted” € 5"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_told_by_its_zero_bytes(encoding):
    assert decode("<html><p>Tea for the cat, please.".encode(encoding)) == "<html><p>Tea for the cat, please."
    assert decode(b"binary \0\0\0\0 is no UTF-16") == "binary \0\0\0\0 is no UTF-16"


def test_labels_that_contradict_each_other():
    text = "Съешь ещё этих мягких французских булок"
    page = f"<meta charset=koi8-r>{text}"
    assert decode(page.encode("koi8-r"), charset="windows-1251") == page
    page = f"<meta charset=iso-8859-5>{text}"
    assert decode(page.encode("cp1251"), charset="windows-1251") == page  # the server is right


def test_a_label_is_read_in_the_first_kilobyte_alone():
    page = f"<p>{'tea ' * 300}<meta charset=iso-8859-7>déjà vu, naïve café"
    assert decode(page.encode("cp1252")) == page


def test_few_bytes_outside_ascii_are_what_they_mostly_are():
    assert decode("It wasn’t me.".encode("cp1252")) == "It wasn’t me."


@given(st.binary(max_size=200), st.sampled_from([None, "utf-8", "shift_jis", "iso-2022-jp", "utf-16", "x", "\ud800"]))
def test_any_bytes_become_characters(content, label):
    text = decode(content, label)
    assert (isinstance(text, str) and "\ufffd" not in text) or "\ufffd".encode() in content


HOSTILE = {
    "no blanks": b"\xe9" * 1_000_000,
    "no blanks, ASCII around": b"a" * 500_000 + b"\xff" + b"a" * 500_000,
    "zeros": b"\0" * 1_000_000,
    "metas": b"<meta " * 170_000 + b"\xe9",
    "escapes": b"\x1b$B" * 300_000,
    "alternating": b"a\xe9\xbf" * 330_000,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_take_little_time(content):
    begin = time.process_time()
    decode(content)
    assert time.process_time() - begin < 2
