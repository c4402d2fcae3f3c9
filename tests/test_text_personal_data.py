"""What says where to reach somebody is replaced, and what only looks like it stays."""

import doctest
from collections import Counter

import pytest

from tf_llm.contracts import Document
from tf_llm.text import personal_data
from tf_llm.text.personal_data import PersonalData

URL = "http://cats.example/"


def clean(text, **switches):
    edits = Counter()
    return PersonalData(**switches)(Document(URL, text), edits).text, dict(edits)


def test_docstring_examples():
    result = doctest.testmod(personal_data)
    assert result.attempted > 6 and result.failed == 0


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("cat@mail.example", "<email>"),
        ("Write to <tom.cat+mice@mail.cats.example>.", "Write to <<email>>."),
        ("mailto:o'malley_cat-1@xn--bcher-kva.example, please", "mailto:<email>, please"),
        ("邮箱cat@mail.example。", "邮箱<email>。"),
        ("a@b.cd;e@f.gh", "<email>;<email>"),
        ("user@192.168.0.1", "user@192.168.0.1"),
        ("@cat and cat@home and cat@ mail.example", "@cat and cat@home and cat@ mail.example"),
        ("import cat@1.2.3", "import cat@1.2.3"),
    ],
)
def test_email(text, cleaned):
    assert clean(text)[0] == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("The cat lives at 8.8.8.8.", "The cat lives at <ip>."),
        ("http://8.8.4.4:8080/cat and [2001:4860:4860::8888]", "http://<ip>:8080/cat and [<ip>]"),
        ("2a00:1450:4001:81b::200e", "<ip>"),
        ("127.0.0.1, 10.0.0.1, 192.168.1.1, 0.0.0.0", "127.0.0.1, 10.0.0.1, 192.168.1.1, 0.0.0.0"),
        ("fe80::1, ::1, 2001:db8::1", "fe80::1, ::1, 2001:db8::1"),
        ("256.1.1.1 and 1.2.3 and 1.2.3.4.5 and 08.8.8.8", "256.1.1.1 and 1.2.3 and 1.2.3.4.5 and 08.8.8.8"),
        ("version 4.3.2.1, Release 9.8.7.6, v5.4.3.2", "version 4.3.2.1, Release 9.8.7.6, v5.4.3.2"),
        ("12:30:45, 2026:11, std::cat, 3232:", "12:30:45, 2026:11, std::cat, 3232:"),
    ],
)
def test_ip(text, cleaned):
    assert clean(text)[0] == cleaned


PHONES = [
    "+44 20 7946 0958", "+442079460958", "+44 (0)20 7946 0958", "+1 (415) 555-0132", "+1-415-555-0132",
    "+49 30 123456", "+49/30/12 34 56", "+34 912 34 56 78", "+33 1 23 45 67 89", "+86 10 1234 5678",
    "+91 98765 43210", "+7 (495) 123-45-67", "+55 11 91234-5678", "+353 1 234 5678", "0044 20 7946 0958",
    "(415) 555-0132", "(415)555-0132", "415-555-0132", "415.555.0132", "1-800-555-0199", "+86-138-0013-8000",
]  # fmt: skip
LABELLED = [
    "Tel.: 030 123456", "tel: (0)30/123 45 67", "Phone: 555 01 32", "Fax: 020 7946 0958", "Téléphone: 01 23 45 67 89",
    "Tel. 91 234 56 78", "тел. 8 (495) 123-45-67", "电话：010-12345678", "电话:13800138000", "Teléfono: 912 345 678",
]  # fmt: skip


@pytest.mark.parametrize("number", PHONES)
def test_telephone_numbers(number):
    assert clean(f"Call {number}, and ask for the cat.") == (
        "Call <phone>, and ask for the cat.", {"personal_data: phone": 1}
    )  # fmt: skip
    assert clean(f"{number}\n{number}")[0] == "<phone>\n<phone>"


@pytest.mark.parametrize("text", LABELLED)
def test_telephone_numbers_behind_a_label(text):
    label = text[: next(place for place, character in enumerate(text) if character.isdigit() or character in "(+")]
    cleaned, edits = clean(f"Cats! {text}. Dogs!")
    assert cleaned == f"Cats! {label}<phone>. Dogs!" and edits == {"personal_data: phone": 1}


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-30 or 30.11.2026 or 11/30/2026 12:30",
        "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, ISSN 2049-3630",
        "Version 10.15.7.2026 and 1.2.3-4567",
        "1,234,567 cats, 1 234 567 890 fleas, 1.234.567,89 €",
        "+5 points, +12 %, +100 000 jobs, 2 + 1234567890",
        "IBAN DE89 3704 0044 0532 0130 00",
        "4111 1111 1111 1111 is a card",
        "192-555-0132 and 415-155-0132 have areas that do not exist",
        "DOI 10.1000/182, 3.14159265358979",
        "1914-1918, 1939-1945, pages 100-200-300",
        "order 20071234567, part 415-555-01324",
        "Hotel: 123456 stars",
        "tel. 12",
        "0.415.555.0132 is no number",
        "007 415",
    ],
)
def test_other_numbers_stay(text):
    assert clean(text) == (text, {})


def test_each_kind_can_be_left_or_called_something_else():
    text = "cat@mail.example, 8.8.8.8, +44 20 7946 0958"
    assert clean(text, email="", ip="X")[0] == "cat@mail.example, X, <phone>"
    assert clean(text, phone="")[1] == {"personal_data: email": 1, "personal_data: ip": 1}
    assert clean(text, email=r"\1 \g<0>")[0] == r"\1 \g<0>, <ip>, <phone>"


def test_text_without_any_is_the_same_document():
    document = Document(URL, "The cat is not at home.")
    assert PersonalData()(document, Counter()) is document
