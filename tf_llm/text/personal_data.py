"""What says who somebody is or where to reach them: e-mail addresses, telephone numbers, IP addresses.

    >>> edits = Counter()
    >>> text = "Write to tom.cat@mail.example, call +44 20 7946 0958, or knock at 8.8.8.8. Version 2.0.1 is out."
    >>> PersonalData()(Document("http://a.example/", text), edits).text
    'Write to <email>, call <phone>, or knock at <ip>. Version 2.0.1 is out.'
    >>> sorted(edits.items())
    [('personal_data: email', 1), ('personal_data: ip', 1), ('personal_data: phone', 1)]

E-mail and IP addresses follow datatrove, which cleaned FineWeb; like there, only public IP addresses are replaced
(192.168.0.1 is everybody's). A telephone number is replaced where it says that it is one: +44 ... or 0044 ... with 9 to
15 digits (ITU-T E.164), (415) 555-0132 as in North America, or any number of 6 digits or more behind a word such as
"Tel.:". So dates, prices, ISBNs and versions stay, and so does a number that looks like nothing in particular.

The rule runs on every page, so each pattern begins with a character that is rare in prose, which `re` looks for
quickly, and looks back from there. None takes more than one look at a text: hostile text costs no more than other text.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections import Counter

from tf_llm.contracts import Document, Rejected

DOMAIN = re.compile(r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])")
LOCAL_PART = re.compile(r"(?<![A-Za-z0-9._%+'-])[A-Za-z0-9][A-Za-z0-9._%+'-]{0,63}$")
LOCAL_LENGTH = 64  # RFC 5321

# Not a piece of a longer number: 1.2.3.4.5 is a version or a section.
IPV4 = re.compile(r"[0-9](?<![\w.].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\w|\.\w)")
VERSION = re.compile(r"(?:version|release|firmware|build|ver\.?|section|§) ?$", re.IGNORECASE)
# All public addresses of version 6 lie in 2000::/3, so far.
IPV6 = re.compile(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:])")

_DIGIT = r"(?:[ .\-/\u2010-\u2013\u00a0]{0,2}\(?\d\)?)"  # a digit with what may stand around it
# +44 20 7946 0958, 0044 (0)20 7946 0958
INTERNATIONAL = (
    re.compile(rf"\+(?<![\w+.].)[1-9]\d?{_DIGIT}{{6,14}}(?![\d%])", re.ASCII),
    re.compile(rf"00(?<![\w+.]..)(?<!\d ..)[1-9]\d?{_DIGIT}{{6,14}}(?![\d%])", re.ASCII),
)
LEAST_DIGITS = 9  # of an international number, the country's included
# (415) 555-0132, 415-555-0132, 1-415-555-0132: area codes and exchanges begin with 2 to 9
AMERICAN = re.compile(
    r"[(1-9](?<![\w+.-].)(?:(?<=1)[ .-]\(?[2-9]\d\d|(?<=\()[2-9]\d\d|(?<=[2-9])\d\d)(?:\) ?|[ .-])"
    r"[2-9]\d\d[ .-]\d{4}(?![\w-]|[.,]\d)",
    re.ASCII,
)
# Tel.: 030 123456
COLON = re.compile(rf"[.:：](?<=\w.) ?[.:：]? ?(?P<number>[+(]?\d\)?{_DIGIT}{{5,14}})(?!\d)")
LABEL = re.compile(r"[^\W\d_]+$")
LABEL_LENGTH = 12
LABELS = (
    "tel telephone phone mobile cell fax tél téléphone télécopie portable telefon handy teléfono móvil telefono "
    "cellulare telefone celular telefoon telefoni puhelin тел телефон факс τηλ هاتف फ़ोन 電話 电话 手机 传真 전화"
)
LABELS = frozenset(LABELS.split())


@dataclasses.dataclass(frozen=True)
class PersonalData:
    """The rule "personal_data": puts words in the place of addresses and numbers.

    email, phone, ip: what to put there; an empty one leaves that kind as it is.
    """

    email: str = "<email>"
    phone: str = "<phone>"
    ip: str = "<ip>"

    def __call__(self, document: Document, edits: Counter[str]) -> Document | Rejected:
        """The document without them. Adds to `edits` how many of each were replaced."""
        text = document.text
        for name, replacement, find in (
            ("email", self.email, find_emails),
            ("ip", self.ip, find_ips),  # before the numbers, some of which look like one
            ("phone", self.phone, find_phones),
        ):
            if replacement and (spans := find(text)):
                edits[f"personal_data: {name}"] += len(spans)
                text = replace_spans(text, spans, replacement)
        return document if text is document.text else dataclasses.replace(document, text=text)


def find_emails(text: str) -> list[tuple[int, int]]:
    """Where e-mail addresses begin and end.

    >>> find_emails("to tom.cat+mice@mail.example, not to tom@cat")
    [(3, 28)]
    """
    spans = []
    for match in DOMAIN.finditer(text):
        begin = max(match.start() - LOCAL_LENGTH - 1, spans[-1][1] if spans else 0)
        if local := LOCAL_PART.search(text[begin : match.start()]):
            spans.append((begin + local.start(), match.end()))
    return spans


def find_ips(text: str) -> list[tuple[int, int]]:
    """Where public IP addresses begin and end.

    >>> find_ips("8.8.8.8, 192.168.0.1, version 1.2.3.4, 2001:4860:4860::8888, 12:30:45")
    [(0, 7), (39, 59)]
    """
    spans = []
    if text.count(".") > 2:
        for match in IPV4.finditer(text):
            if is_public(match[0]) and not VERSION.search(text, max(0, match.start() - 12), match.start()):
                spans.append(match.span())
    if ":" in text:
        spans += [match.span() for match in IPV6.finditer(text) if is_public(match[0])]
    return sorted(spans)


def is_public(address: str) -> bool:
    """Whether it is an IP address under which the whole net can reach somebody, as IANA's registries of them say.

    >>> is_public("8.8.8.8"), is_public("192.168.0.1"), is_public("999.1.1.1")
    (True, False, False)
    """
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:  # it only looked like one
        return False


def find_phones(text: str) -> list[tuple[int, int]]:
    """Where telephone numbers begin and end.

    >>> find_phones("Tel.: 030 123456, +49 30 123456, 1.234.567, 2026-11-30")
    [(6, 16), (18, 31)]
    """
    spans = [
        match.span()
        for pattern in INTERNATIONAL
        for match in pattern.finditer(text)
        if sum(map(str.isdigit, match[0])) >= LEAST_DIGITS
    ]
    spans += [match.span() for match in AMERICAN.finditer(text)]
    for match in COLON.finditer(text):
        label = LABEL.search(text[max(0, match.start() - LABEL_LENGTH) : match.start()])
        if label and label[0].lower() in LABELS:
            spans.append(match.span("number"))
    found, last = [], 0
    for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if begin >= last:  # what two patterns found is one number
            found.append((begin, end))
            last = end
    return found


def replace_spans(text: str, spans: list[tuple[int, int]], replacement: str) -> str:
    """The text with something else in the place of each span; spans are in order and apart.

    >>> replace_spans("a cat and a dog", [(2, 5), (12, 15)], "fish")
    'a fish and a fish'
    """
    ends = [0, *(end for _, end in spans)]
    begins = [*(begin for begin, _ in spans), len(text)]
    return replacement.join(text[end:begin] for end, begin in zip(ends, begins, strict=True))
