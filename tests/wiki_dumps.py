"""Small dumps for tests, in the form in which Wikimedia writes them: export-0.11, streams of bzip2, and their index."""

import bz2
import hashlib
import json
from xml.sax.saxutils import escape, quoteattr

NAMESPACES = {-2: "Media", -1: "Special", 0: "", 1: "Talk", 2: "User", 4: "Wikipedia", 6: "File", 10: "Template"}
ENGLISH = {**NAMESPACES, 14: "Category", 828: "Module"}
GERMAN = {**NAMESPACES, -2: "Medium", 1: "Diskussion", 6: "Datei", 10: "Vorlage", 14: "Kategorie"}
TEXT = (
    "'''{title}''' is a [[noun|word]].{{{{citation needed}}}}\n\n== Use ==\n* It stands for {title}.\n\n"
    "[[Category:Words]]"
)


def write_head(language="en", namespaces=ENGLISH, main_page="Main_Page"):
    spaces = "".join(
        f'      <namespace key="{key}" case="first-letter">{name}</namespace>\n'
        if name
        else f'      <namespace key="{key}" case="first-letter" />\n'
        for key, name in namespaces.items()
    )
    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:schemaLocation="http://www.mediawiki.org/xml/export-0.11/ http://www.mediawiki.org/xml/export-0.11.xsd" '
        f'version="0.11" xml:lang="{language}">\n  <siteinfo>\n    <sitename>Wikipedia</sitename>\n'
        f"    <dbname>{language}wiki</dbname>\n    <base>https://{language}.wikipedia.org/wiki/{main_page}</base>\n"
        "    <generator>MediaWiki 1.45.0-wmf.1</generator>\n    <case>first-letter</case>\n"
        f"    <namespaces>\n{spaces}    </namespaces>\n  </siteinfo>\n"
    )


def write_page(number, title, text=None, namespace=0, redirect=None, model="wikitext"):
    if text is None:
        text = TEXT.format(title=title)
    to = f"    <redirect title={quoteattr(redirect)} />\n" if redirect else ""
    size = len(text.encode("utf-8", "surrogatepass"))
    return (
        f"  <page>\n    <title>{escape(title)}</title>\n    <ns>{namespace}</ns>\n    <id>{number}</id>\n{to}"
        f"    <revision>\n      <id>{number + 900}</id>\n      <parentid>{number + 800}</parentid>\n"
        "      <timestamp>2026-10-31T12:00:00Z</timestamp>\n      <contributor>\n"
        "        <username>A. N. Other</username>\n        <id>7</id>\n      </contributor>\n"
        f"      <comment>/* Use */ it&apos;s</comment>\n      <origin>{number + 900}</origin>\n"
        f"      <model>{model}</model>\n      <format>text/x-wiki</format>\n"
        f'      <text bytes="{size}" sha1="0" xml:space="preserve">{escape(text)}</text>\n      <sha1>0</sha1>\n'
        "    </revision>\n  </page>\n"
    )


def write_streams(pages, per_stream=2, **head):
    """The streams of a multistream dump: the head, some pages each, the tail."""
    groups = ["".join(pages[start : start + per_stream]) for start in range(0, len(pages), per_stream)]
    return [bz2.compress(part.encode()) for part in (write_head(**head), *groups, "</mediawiki>\n")]


def write_xml(pages, **head):
    return (write_head(**head) + "".join(pages) + "</mediawiki>\n").encode()


def make_pages(count, first=1):
    return [write_page(number, f"Word {number}") for number in range(first, first + count)]


def write_status(files, status="done"):
    """dumpstatus.json; `files` has names and contents."""
    listed = {
        name: {"size": len(content), "url": f"/{name}", "md5": "0", "sha1": hashlib.sha1(content).hexdigest()}
        for name, content in files.items()
    }
    jobs = {
        "articlesmultistreamdump": {"status": status, "updated": "2026-11-02 10:37:39", "files": listed},
        "pagetable": {"status": "waiting", "updated": ""},
    }
    return json.dumps({"jobs": jobs, "version": "0.8"}).encode()
