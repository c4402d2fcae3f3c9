"""The page in a browser, by keyboard alone: streaming, facets, the question before a change; markup stays text.

Needs Chromium (Debian: apt-get install chromium) and the packages of the extra `peers`: Playwright drives it, and axe
(https://github.com/dequelabs/axe-core) looks for what keeps people out.
"""

import re
import shutil

import pytest

pytest.importorskip("playwright", reason="needs the extra: pip install 'tf_llm[peers]'")
pytest.importorskip("axe_playwright_python", reason="needs the extra: pip install 'tf_llm[peers]'")
pytest.importorskip("fastapi", reason="needs the extra: pip install 'tf_llm[serve]'")
pytest.importorskip("tantivy", reason="needs the extra: pip install 'tf_llm[search]'")
pytest.importorskip("Stemmer", reason="needs the extra: pip install 'tf_llm[search]'")
pytest.importorskip("dateparser", reason="needs the extra: pip install 'tf_llm[assistant]'")
pytest.importorskip("pint", reason="needs the extra: pip install 'tf_llm[assistant]'")
pytest.importorskip("recurring_ical_events", reason="needs the extra: pip install 'tf_llm[assistant]'")

from assisting import find_documents
from axe_playwright_python import sync_playwright as axe
from paging import Parrot, build_applications, serve_page
from playwright import sync_api as playwright

from tf_llm.apps.assistant.calls import Call
from tf_llm.apps.search import Entry

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDE, NARROW = {"width": 1200, "height": 800}, {"width": 390, "height": 800}

# Each would do something, were it taken for more than text: `pwned` is what a script of theirs would set.
SCRIPT = "window.pwned=1"
MARKUP = [
    f"<script>{SCRIPT}</script>", "<SCRIPT SRC=https://evil.example/x.js></SCRIPT>", f"</p><script>{SCRIPT}</script>",
    f"</textarea><script>{SCRIPT}</script>", f"--></script><script>{SCRIPT}</script>",
    f"<img src=x onerror={SCRIPT}>", "<img src='https://evil.example/pixel.png'>",
    f'"><img src=x onerror="{SCRIPT}">', f"'><svg onload={SCRIPT}>", f"<svg><script>{SCRIPT}</script></svg>",
    f"<svg/onload={SCRIPT}>", f"<svg><animate onbegin={SCRIPT} attributeName=x>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={SCRIPT}>", f"<body onload={SCRIPT}>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>", "<iframe src=https://evil.example></iframe>",
    "<iframe src=javascript:parent.pwned=1></iframe>", "<object data=https://evil.example/x></object>",
    "<embed src=https://evil.example/x>", f"<a href='javascript:{SCRIPT}'>click</a>", f"javascript:{SCRIPT}",
    f"JaVaScRiPt:{SCRIPT}", f" \tjavascript:{SCRIPT}", f"java\nscript:{SCRIPT}",
    f"data:text/html,<script>{SCRIPT}</script>", "vbscript:msgbox(1)", "file:///etc/passwd",
    "blob:https://evil.example/1", f"[click](javascript:{SCRIPT})", "![pixel](https://evil.example/pixel.png)",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<style>*{background:url(https://evil.example/x)}</style>",
    "<style>@import 'https://evil.example/x.css';</style>",
    "<div style='position:fixed;inset:0;background:url(https://evil.example/x)'>",
    "<base href=https://evil.example/>", "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<form action=https://evil.example><button>Go</form>", f"<input autofocus onfocus={SCRIPT}>",
    f"<details open ontoggle={SCRIPT}>", f"<video><source onerror={SCRIPT}></video>",
    f"<audio src=x onerror={SCRIPT}>", f"<template><script>{SCRIPT}</script></template>",
    "<dialog open>Yes?</dialog>", f"<x-foo onclick={SCRIPT}>", f"&lt;script&gt;{SCRIPT}&lt;/script&gt;",
    "&#60;img src=x onerror=&#112;wned&#62;", f"\\u003cscript\\u003e{SCRIPT}",
    "safe \u202egnp.exe\u202c \u2066\u2067 end", f"{{{{constructor.constructor('{SCRIPT}')()}}}}",
    f"${{{SCRIPT}}} <!--<script>--> ]]> <![CDATA[<script>{SCRIPT}</script>]]>",
    f"data: x\n\nevent: error\ndata: <b>{SCRIPT}</b>",
]  # fmt: skip
MADE = {"P", "DIV", "OL", "LI", "H3", "A", "SPAN", "MARK", "CODE"}  # elements of which answers and hits are made


def list_entries():
    """The shop of somebody who puts markup wherever there is room for text."""
    return [
        Entry(f"javascript:{SCRIPT}//{number}" if number % 2 else f"https://evil.example/{number}\"onclick='x'", each,
              f"markup {each}", fields={"made": each, each[:40].strip(): "x"})
        for number, each in enumerate(MARKUP)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A browser with a new profile."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=CHROMIUM, headless=True, args=ARGUMENTS, viewport=WIDE
        )
        context.set_default_timeout(15_000)
        yield context
        context.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(a `Visitor` of all three applications, the assistant's desk). The model says what it is asked, after a while."""
    found, parrot = find_documents(MARKUP[:5]), Parrot(seconds=0.03)
    applications, desk = build_applications(tmp_path_factory.mktemp("page"), parrot, find=found)
    with serve_page(applications) as visitor:
        yield visitor, desk


@pytest.fixture
def page(context, site):
    """The page, newly opened; behind the test, nothing has gone wrong in it that a test did not ask for."""
    page = context.new_page()
    page.faults, page.requests = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.faults.append(message.text))
    page.on("dialog", lambda dialog: (page.faults.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(site[0].address)
    page.wait_for_selector("#view-chat:not([hidden])")
    yield page
    page.close()
    assert not page.faults
    assert {url for url in page.requests if not url.startswith(f"{site[0].address}/")} == set()


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def tell_focus(page):
    """The id or the text of the element that has the keyboard, and whether one sees that."""
    return page.evaluate(
        "(({id, textContent, value, ...rest}, style) => [id || textContent.trim(), style.outlineStyle !== 'none'])"
        "(document.activeElement, getComputedStyle(document.activeElement))"
    )


def go_to(page, name):
    """Opens a view by keyboard: back to its link."""
    for _ in range(60):
        if tell_focus(page)[0] == name:
            break
        press(page, "Shift+Tab")
    press(page, "Enter")
    page.wait_for_selector(f"#view-{name.lower()}:not([hidden])")


def wait_until_said(page):
    page.wait_for_selector("#chat-send:not([hidden])")


# === By keyboard alone ===


def test_the_keyboard_reaches_everything_in_order_and_one_sees_where_it_is(page):
    assert tell_focus(page) == ["chat-text", True]
    page.keyboard.type("hello")
    press(page, "Enter")
    wait_until_said(page)
    while tell_focus(page)[0] != "Chat":
        press(page, "Shift+Tab")
    order = []
    for _ in range(9):
        place, is_seen = tell_focus(page)
        assert is_seen, place
        order.append(place)
        press(page, "Tab")
    assert order == [
        "Chat", "Search", "Assistant", "chat-log", "chat-text", "chat-send", "chat-retry", "chat-clear", "Settings"
    ]  # fmt: skip
    press(page, "Shift+Tab", "Enter", "Tab", "ArrowRight", "ArrowRight", "Tab")
    assert tell_focus(page)[0] == "chat-seed"
    assert page.text_content("#chat-temperature-value") == "0.2"
    for name in ("Search", "Assistant", "Chat"):
        go_to(page, name)
        assert tell_focus(page) == [f"{name.lower()}-text", True]
        assert page.title() == f"{name} · tf_llm"


def test_an_answer_grows_while_it_is_said_and_can_be_stopped_and_retried(page, site):
    question = "one two three four five six seven eight nine ten " * 3
    page.keyboard.type(question)
    press(page, "Enter")
    lengths = set()
    while page.is_visible("#chat-stop"):
        lengths.add(len(page.text_content(".said")))
        page.wait_for_timeout(20)
    assert len(lengths) > 5, lengths
    assert page.text_content(".said").strip() == question.strip()
    assert page.get_attribute("#chat-log", "role") == "log" and page.get_attribute(".answer", "aria-busy") is None
    page.keyboard.type("x" * 300)
    press(page, "Enter")
    page.wait_for_function("() => document.querySelectorAll('.said')[1]?.textContent.length > 10")
    assert page.get_attribute(".answer >> nth=1", "aria-busy") == "true"  # said to a screen reader when it is whole
    press(page, "Escape")
    wait_until_said(page)
    assert len(page.text_content(".said >> nth=1")) < 300
    assert page.text_content(".answer >> nth=1 >> .notice >> nth=-1") == "Stopped."
    assert "The model no longer sees the first 2 messages" in page.text_content("#chat-log")  # old turns fell out
    assert tell_focus(page)[0] == "chat-text"
    press(page, "Tab", "Tab", "Enter")  # Send, Retry
    wait_until_said(page)
    assert page.locator(".question").count() == page.locator(".answer").count() == 2
    assert page.text_content(".said >> nth=1") == "x" * 300
    page.reload()
    page.wait_for_selector(".said")
    assert page.text_content(".said >> nth=1") == "x" * 300  # the conversation is still there
    press(page, "Tab", "Tab", "Tab", "Enter")  # Clear
    page.wait_for_selector("#chat-log .hint")
    assert not page.locator(".question").count()


def test_a_conversation_that_the_server_forgot_begins_anew(page, site):
    page.keyboard.type("one")
    press(page, "Enter")
    wait_until_said(page)
    page.evaluate("sessionStorage.setItem('session', 'of another time')")
    page.keyboard.type("two")
    press(page, "Enter")
    page.wait_for_selector(".said:text('two')")
    assert "The server has forgotten what was said above." in page.text_content("#chat-log")
    assert all("404" in fault for fault in page.faults)  # by which the page heard of it
    page.faults.clear()


def test_search_by_keyboard_with_facets_highlights_and_another_spelling(page):
    go_to(page, "Search")
    page.keyboard.type("bergamott")
    press(page, "Enter")
    page.wait_for_selector(".suggestion")
    press(page, "Tab", "Tab")
    assert tell_focus(page)[0] == "bergamot"
    press(page, "Enter")
    page.wait_for_selector(".hits mark:text('bergamot')")
    press(page, "Control+a")
    page.keyboard.type("tea leaves")
    press(page, "Enter")
    page.wait_for_selector("text=6 entries found.")
    assert page.locator(".hits mark").all_text_contents()[:2] == ["tea", "leaves"]
    assert re.match(r"https://te[ea]\.example/", page.get_attribute(".hits h3 a >> nth=0", "href"))
    for _ in range(30):
        if page.evaluate("document.activeElement.dataset.choice") == "colour\ngreen":
            break
        press(page, "Tab")
    press(page, "Space")
    page.wait_for_selector("text=2 entries found.")
    assert sorted(page.locator(".hits h3").all_text_contents()) == ["Matcha", "Sencha"]
    assert page.evaluate("document.activeElement.dataset.choice") == "colour\ngreen"  # the keyboard stays where it was
    assert page.text_content("label:has-text('black') .count") == "2"  # what else could be chosen
    press(page, "Space")
    page.wait_for_selector("text=6 entries found.")
    page.focus("[aria-label='price, at most']")
    page.keyboard.type("7.5")
    press(page, "Enter")
    page.wait_for_selector("text=3 entries found.")
    page.focus("[aria-label='date, from']")
    page.keyboard.type("01012025")
    press(page, "Enter")
    page.wait_for_selector("text=2 entries found.")
    page.focus("#search-reset")
    press(page, "Enter")
    page.wait_for_selector("text=6 entries found.")


def test_the_assistant_asks_before_it_changes_something(page, site):
    desk = site[1]
    go_to(page, "Assistant")
    page.keyboard.type('call add_todo(item="tea")')
    press(page, "Enter")
    page.wait_for_selector("#confirm[open]")
    assert page.text_content("#confirm-call") == 'add_todo(item="tea")' and "tea" in page.text_content("#confirm-text")
    assert tell_focus(page) == ["confirm-yes", True]
    press(page, "Escape")
    page.wait_for_selector("text=All right, I won't.")
    assert not page.is_visible("#confirm") and tell_focus(page)[0] == "assistant-text"
    assert not desk.store.list_todos()
    page.keyboard.type('call add_todo(item="tea")')
    press(page, "Enter")
    page.wait_for_selector("#confirm[open]")
    places = set()
    for _ in range(6):
        press(page, "Tab")
        places.add(page.evaluate("document.activeElement.closest('header, main, dialog')?.tagName ?? 'the browser'"))
    assert "DIALOG" in places and places <= {"DIALOG", "the browser"}  # not the page behind
    page.focus("#confirm-yes")
    press(page, "Enter")
    page.wait_for_selector(".answer >> nth=3")
    assert [entry.text for entry in desk.store.list_todos()] == ["tea"]
    assert page.locator(".call").count() == 3  # a call is shown with each answer that has one
    page.keyboard.type('call set_reminder(text="call mum")')
    press(page, "Enter")
    page.wait_for_selector("text=What is the time?")
    assert not page.is_visible("#confirm") and page.get_attribute("#assistant-text", "placeholder") == "Your answer"
    page.keyboard.type("tomorrow at six")
    press(page, "Enter")
    page.wait_for_selector("#confirm[open]")
    assert "18:00" in page.text_content("#confirm-text")
    press(page, "Enter")
    page.wait_for_selector("text=I will remind you")
    assert len(desk.store.list_reminders()) == 1


# === Text stays text ===


def check_inert(page, place):
    """Nothing of the markup has become an element, a handler, a link elsewhere than the web, or a script that ran."""
    tags, handlers, links, pwned = page.evaluate(
        """place => {
          const all = [...document.querySelectorAll(`${place} *`)];
          return [
            [...new Set(all.map((each) => each.tagName))],
            all.flatMap((each) => each.getAttributeNames()).filter((name) => name.startsWith("on") || name === "style"),
            all.filter((each) => each.href).map((each) => each.href),
            window.pwned ?? null,
          ];
        }""",
        place,
    )
    assert set(tags) <= MADE and not handlers and pwned is None, (tags, handlers, pwned)
    assert all(re.match(r"https?://", link) for link in links), links


def show(text):
    """A text as the page shows it: without what turns the writing around."""
    return re.sub("[\u202a-\u202e\u2066-\u2069]", " ", text)


def test_there_are_fifty_of_them():
    assert len(set(MARKUP)) >= 50


def test_what_the_model_says_stays_text(page, site):
    chatbot = site[0].page.applications.begin_chat()
    chatbot.generate.seconds = 0.0
    try:
        for number, each in enumerate(MARKUP):
            page.fill("#chat-text", each)
            press(page, "Enter")
            page.wait_for_function("count => document.querySelectorAll('.answer').length === count", arg=number + 1)
            wait_until_said(page)
        said = page.locator("#chat-log .said").all_text_contents()
    finally:
        chatbot.generate.seconds = 0.03
    assert [each.strip() for each in said] == [show(each).strip() for each in MARKUP]
    check_inert(page, "#chat-log")


def test_what_is_found_stays_text(page, site):
    index = site[0].page.applications.index
    index.update(list_entries())
    try:
        go_to(page, "Search")
        page.keyboard.type("markup")
        press(page, "Enter")
        page.wait_for_selector(f"text={len(MARKUP)} entries found.")
        while page.is_visible("#search-more"):
            shown = page.locator("#search-hits > li").count()
            page.click("#search-more")
            page.wait_for_function("count => document.querySelectorAll('#search-hits > li').length > count", arg=shown)
            if page.locator("#search-hits > li").count() == len(MARKUP):
                break
        titles = page.locator("#search-hits h3").all_text_contents()
        assert sorted(map(normalise, titles)) == sorted(normalise(show(each)) for each in MARKUP)
        check_inert(page, "#search-hits")
        links = page.locator("#search-hits h3 a").count()
        assert links == sum(not number % 2 for number in range(len(MARKUP)))  # a javascript: address leads nowhere
        assert page.locator("#search-facets label").count() > 5
        assert page.evaluate(
            "[...document.querySelectorAll('#search-facets *')].every((each) => !each.onclick && !each.onerror)"
        )
    finally:
        index.remove([entry.address for entry in list_entries()])


def normalise(text):
    return " ".join(text.split())


def test_what_the_assistant_says_stays_text(page, site):
    go_to(page, "Assistant")
    for number, each in enumerate(MARKUP):
        page.fill("#assistant-text", f"call {Call('find_notes', (('text', each),))}")
        press(page, "Enter")
        page.wait_for_function("count => document.querySelectorAll('.answer').length === count", arg=number + 1)
    calls = page.locator("#assistant-log .call").all_text_contents()
    assert calls == [show(str(Call("find_notes", (("text", each),)))) for each in MARKUP]
    page.fill("#assistant-text", 'call search(query="x")')
    press(page, "Enter")
    page.wait_for_selector("#assistant-log .hits")
    for each in MARKUP[::10]:
        page.fill("#assistant-text", f"call {Call('add_note', (('text', each),))}")
        press(page, "Enter")
        page.wait_for_selector("#confirm[open]")
        assert each in page.text_content("#confirm-text")
        assert page.locator("#confirm *").count() == 6
        press(page, "Escape")
        page.wait_for_function("() => !document.querySelector('#assistant-log[aria-busy]')")
    check_inert(page, "#assistant-log")


def test_should_it_ever_fail_the_browser_refuses(page):
    """The second line of defence: no markup from strings, no scripts in attributes, nothing from elsewhere."""
    refused = page.evaluate(
        """async () => {
          const refused = [];
          addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
          const div = document.createElement("div");
          try { div.innerHTML = "<img src=x onerror='window.pwned=1'>"; } catch (error) { refused.push(error.name); }
          const image = document.createElement("img");
          image.src = "https://evil.example/x.png";
          document.body.append(image);
          await fetch("https://evil.example/").catch(() => {});
          await new Promise((resolve) => setTimeout(resolve, 200));
          image.remove();
          return refused;
        }"""
    )
    assert {"TypeError", "img-src", "connect-src"} <= set(refused)
    assert all("Content Security Policy" in fault or "TrustedHTML" in fault for fault in page.faults), page.faults
    page.faults.clear()
    page.requests.clear()  # those that were refused


# === Everybody can use it ===


@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", WIDE), ("light", NARROW), ("dark", NARROW)])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(page, scheme, size):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(size)

    def check(state):
        found = axe.Axe().run(page).response["violations"]
        found = [each for each in found if each["impact"] in ("serious", "critical")]
        serious = [(each["id"], each["nodes"][0]["html"]) for each in found]
        assert not serious, (state, serious)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, (state, wide)

    page.keyboard.type("What is a rather long question, which goes on " + "and on " * 10)
    press(page, "Enter")
    wait_until_said(page)
    page.click("#chat-settings summary")
    check("chat")
    go_to(page, "Search")
    page.keyboard.type("tea leaves")
    press(page, "Enter")
    page.wait_for_selector(".hits mark")
    page.evaluate("document.getElementById('search-filters').open = true")
    check("search")
    go_to(page, "Assistant")
    page.keyboard.type('call add_todo(item="tea")')
    press(page, "Enter")
    page.wait_for_selector("#confirm[open]")
    check("question")
    press(page, "Escape")
    page.wait_for_selector("text=All right, I won't.")
    check("assistant")
