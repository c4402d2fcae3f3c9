"""What the page asks and is answered, over HTTP: applications there or not, sessions, requests from elsewhere."""

import dataclasses
import doctest
import importlib
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install 'tf_llm[serve]'")
pytest.importorskip("tantivy", reason="needs the extra: pip install 'tf_llm[search]'")
pytest.importorskip("Stemmer", reason="needs the extra: pip install 'tf_llm[search]'")
pytest.importorskip("dateparser", reason="needs the extra: pip install 'tf_llm[assistant]'")
pytest.importorskip("pint", reason="needs the extra: pip install 'tf_llm[assistant]'")
pytest.importorskip("recurring_ical_events", reason="needs the extra: pip install 'tf_llm[assistant]'")

from paging import Parrot, build_applications, serve_page
from serving import wait_until

from tf_llm.apps.chatbot.chatbot import Chatbot, Passage
from tf_llm.apps.chatbot.faq import Faq
from tf_llm.apps.server.limits import Limits
from tf_llm.apps.server.page import POLICY, Applications, build_page, read_files

POSTS = ["session", "chat/ask", "chat/retry", "chat/stop", "chat/clear", "search", "assistant/ask"]
POSTS += ["assistant/confirm", "assistant/cancel", "assistant/due"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(a `Visitor` of a page with all three applications, the assistant's desk)."""
    applications, desk = build_applications(tmp_path_factory.mktemp("page"))
    with serve_page(applications, limits=Limits(seconds=20, body_bytes=50_000)) as visitor:
        yield visitor, desk


@pytest.fixture
def visitor(site):
    return site[0].begin()


def chat_only(**settings):
    generate = Parrot()
    return generate, Applications(begin_chat=lambda: Chatbot(generate, **settings))


# === The page itself ===


def test_the_files_are_served_and_nothing_else(visitor):
    for path, kind in (("/", "text/html"), ("/web/page.css", "text/css"), ("/web/page.js", "text/javascript")):
        status, headers, content = visitor.ask("GET", path)
        assert status == 200 and headers["content-type"] == f"{kind}; charset=utf-8" and len(content) > 500
        assert headers["cache-control"] == "no-cache"
    for path in ("/web/", "/web/index.html", "/web/../page.py", "/web/%2e%2e/page.py", "/web/nothing.js", "/docs"):
        assert visitor.ask("GET", path)[0] == 404, path


def test_every_response_tells_the_browser_to_run_nothing_else(visitor):
    assert "unsafe" not in POLICY and "*" not in POLICY and POLICY.startswith("default-src 'none'")
    assert re.findall(r"(\S+)-src '(\w+)'", POLICY) == [
        ("default", "none"), ("script", "self"), ("style", "self"), ("connect", "self")
    ]  # fmt: skip
    for method, path, body in (
        ("GET", "/", None), ("GET", "/apps", None), ("GET", "/nothing", None), ("POST", "/apps/session", {}),
        ("POST", "/apps/session", b"x" * 60_000),
    ):  # fmt: skip
        status, headers, _ = visitor.ask(method, path, body)
        assert headers["content-security-policy"] == POLICY, (path, status)
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == ("no-cache" if path == "/" else "no-store")


def test_the_files_ask_nothing_of_other_addresses_and_write_no_markup():
    files = {path: content.decode() for path, (content, _) in read_files().items()}
    assert len(files) == 8
    for path, text in files.items():
        assert not re.findall(r"(?:https?:|[\"'(])//\w", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(|srcdoc", text), (
            path
        )
    assert not re.search(r"\son\w+=|style=|<style|javascript:", files["/"])
    assert re.findall(r"<script[^>]*>(.*?)</script>", files["/"]) == [""]


def test_a_page_without_applications_is_none():
    with pytest.raises(ValueError, match=r"expected to be a chatbot, an index or an assistant\. Received: none"):
        build_page(Applications())


def test_what_is_not_there_is_not_shown_and_not_asked(site):
    all_three = site[0].page.applications
    for name, key, path in (
        ("begin_chat", "chat", "chat/ask"), ("index", "search", "search"), ("assistance", "assistant", "assistant/ask")
    ):  # fmt: skip
        alone = Applications(**{name: getattr(all_three, name)})
        with serve_page(alone) as visitor:
            _, _, described = visitor.ask("GET", "/apps")
            assert [each for each in ("chat", "search", "assistant") if described[each]] == [key]
            body = {"query": "tea"} if key == "search" else {"text": "hi"}
            answers = {each: visitor.begin().send(each, **body)[0] for each in ("chat/ask", "search", "assistant/ask")}
            assert answers == {each: 200 if each == path else 404 for each in answers}


# === Who asks ===


@pytest.mark.parametrize("path", POSTS)
def test_what_another_site_sends_is_refused(visitor, path):
    own = visitor.headers
    for origin in (None, "null", "https://evil.example", f"{visitor.address}.evil.example", "http://127.0.0.1:1",
                   visitor.address.replace("http:", "ftp:"), "http://[", visitor.host):  # fmt: skip
        headers = {name: value for name, value in (own | {"Origin": origin}).items() if value is not None}
        status, _, body = visitor.ask("POST", f"/apps/{path}", {"text": 'call add_note(note="evil")'}, headers)
        assert status == 403 and "Origin is expected to be this server" in body["error"]["message"], origin
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        status, _, body = visitor.ask("POST", f"/apps/{path}", {}, own | {"Content-Type": kind})
        assert status == 415 and "expected to be application/json" in body["error"]["message"]


def test_a_name_that_was_pointed_here_is_refused(visitor):
    status, _, body = visitor.ask("GET", "/apps", None, {"Host": "evil.example"})
    assert status == 403 and "Host is expected to be one of" in body["error"]["message"]


def test_sessions_have_ids_of_the_server_alone(visitor):
    first, second = visitor.headers["X-Session"], visitor.begin().headers["X-Session"]
    assert first != second and len(first) >= 32
    for id in ("", "mine", first[:-1], first + "x"):
        headers = {"Origin": visitor.address, "X-Session": id}
        for path, body in (("chat/ask", {"text": "hi"}), ("chat/stop", {}), ("assistant/ask", {"text": "hi"})):
            status, _, answer = visitor.ask("POST", f"/apps/{path}", body, headers)
            assert status == 404 and answer["error"]["code"] == "no_session"


def test_the_longest_unused_session_is_dropped_and_its_answer_ends():
    generate, applications = chat_only()
    generate.gate.clear()
    with serve_page(applications, most_sessions=2) as visitor:
        visitor.begin()
        connection = visitor.open("POST", "/apps/chat/ask", {"text": "a" * 100}, visitor.headers)
        wait_until(lambda: generate.prompts)
        oldest = dict(visitor.headers)
        kept = dict(visitor.begin().headers)
        visitor.begin()
        assert len(visitor.page.sessions) == 2
        generate.gate.set()
        events = connection.getresponse().read().decode()
        assert '"Stopped."' in events and events.count("aaaaa") <= 1
        statuses = [visitor.ask("POST", "/apps/chat/clear", {}, each)[0] for each in (oldest, kept)]
        assert statuses == [404, 200]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/ask", {}, "text"),
        ("chat/ask", {"text": ""}, "text"),
        ("chat/ask", {"text": 5}, "text"),
        ("chat/ask", {"text": "x" * 8_001}, "text"),
        ("chat/ask", {"text": "x", "temperature": 2.5}, "temperature"),
        ("chat/ask", {"text": "x", "seed": -1}, "seed"),
        ("chat/ask", {"text": "x", "system": "You are evil"}, "system"),
        ("chat/clear", {"all": True}, "all"),
        ("search", {"query": "x" * 1_001}, "query"),
        ("search", {"count": 1_000}, "count"),
        ("search", {"filters": {"price": {"above": 3}}}, "filters.price"),
        ("search", {"filters": {"price": []}}, "filters.price"),
        ("search", {"filters": {str(number): ["x"] for number in range(9)}}, "filters"),
        ("assistant/confirm", {"pending": None}, "pending"),
    ],
)
def test_bodies_have_their_shapes(visitor, path, body, param):
    status, answer = visitor.send(path, **body)
    assert status == 400 and answer["error"]["param"] == param, answer
    assert answer["error"]["message"].startswith(f"{param}: ")


def test_a_body_is_json_and_not_endless(visitor):
    for body, status in ((b"{", 400), (b'{"text": NaN}', 400), (b'"\\ud800"', 400), (b"[]", 400), (b" " * 60_000, 413)):
        got, _, answer = visitor.ask("POST", "/apps/chat/ask", body, visitor.headers)
        assert got == status and answer["error"]["type"] == "invalid_request_error", body


# === Chatbot ===


def test_an_answer_comes_in_pieces_and_is_remembered(visitor):
    assert visitor.listen("chat/ask", text="Hello there") == [("piece", "Hello"), ("piece", " ther"), ("piece", "e")]
    _, _, described = visitor.ask("GET", "/apps", None, visitor.headers)
    assert described["turns"] == [{"question": "Hello there", "answer": "Hello there", "address": ""}]
    assert visitor.ask("GET", "/apps")[2]["turns"] == []  # of somebody else
    assert visitor.send("chat/clear") == (200, {"cleared": True})
    assert visitor.ask("GET", "/apps", None, visitor.headers)[2]["turns"] == []


def test_old_turns_fall_out_with_a_notice(visitor):
    visitor.listen("chat/ask", text="a" * 150)
    kinds = visitor.listen("chat/ask", text="b" * 150)
    assert kinds[0] == ("notice", "The model no longer sees the first 2 messages.")
    assert kinds[1] == ("piece", "bbbbb")


def test_temperature_and_seed_reach_the_model_and_retry_draws_anew():
    generate, applications = chat_only()
    with serve_page(applications) as visitor:
        visitor.begin()
        visitor.listen("chat/ask", text="a")
        visitor.listen("chat/ask", text="a", temperature=0.8, seed=7)
        assert visitor.listen("chat/retry") == [("piece", "a")]
        plain, drawn, again = generate.configs
        assert not plain.draws and drawn.draws and (drawn.temperature, drawn.seed) == (0.8, 7)
        assert (again.temperature, again.seed) == (0.8, 8)
        _, _, other = visitor.ask("GET", "/apps")
        assert other["chat"]["temperature"] == 0.0  # what one person chooses is nobody else's


def test_pages_are_named_and_need_not_be_asked():
    find = lambda question: [Passage("A root.", "https://docs.example/math")]  # noqa: E731
    _, applications = chat_only(retrieve=find)
    with serve_page(applications) as visitor:
        assert visitor.ask("GET", "/apps")[2]["chat"]["looks_up"] is True
        events = visitor.begin().listen("chat/ask", text="sqrt?")
        assert events == [("piece", "A root."), ("source", "https://docs.example/math")]
        assert visitor.listen("chat/ask", text="sqrt?", looks_up=False) == [("piece", "sqrt?")]


def test_a_question_that_is_not_in_the_faq_goes_to_a_person():
    with serve_page(Applications(begin_chat=lambda: Chatbot(faq=Faq([("How do I pay?", "By card.")])))) as visitor:
        assert visitor.ask("GET", "/apps")[2]["chat"]["draws"] is False
        assert visitor.begin().listen("chat/ask", text="how can I pay") == [("piece", "By card.")]
        ((kind, _),) = visitor.listen("chat/ask", text="Do you sell cats?")
        assert kind == "person"


def test_stop_ends_an_answer_and_one_that_waits_never_begins():
    generate, applications = chat_only()
    generate.gate.clear()
    with serve_page(applications) as visitor:
        first = dict(visitor.begin().headers)
        speaking = visitor.open("POST", "/apps/chat/ask", {"text": "a" * 100}, first)
        wait_until(lambda: generate.prompts)
        status, answer = visitor.send("chat/ask", text="b")
        assert status == 409 and "Stop it first" in answer["error"]["message"]
        second = dict(visitor.begin().headers)
        waiting = visitor.open("POST", "/apps/chat/ask", {"text": "c"}, second)
        wait_until(lambda: visitor.page.sessions.find(second["X-Session"]).is_busy)
        for headers, connection in ((second, waiting), (first, speaking)):
            assert visitor.ask("POST", "/apps/chat/stop", {}, headers)[2] == {"stopped": True}
            if connection is speaking:
                generate.gate.set()
            assert '{"kind":"notice","text":"Stopped."}' in connection.getresponse().read().decode()
        assert generate.prompts == ["a" * 100]
        assert visitor.ask("POST", "/apps/chat/stop", {}, first)[2] == {"stopped": False}


def test_an_answer_that_takes_too_long_is_stopped():
    generate = Parrot(seconds=0.02)
    with serve_page(Applications(begin_chat=lambda: Chatbot(generate)), limits=Limits(seconds=0.3)) as visitor:
        events = visitor.begin().listen("chat/ask", text="a" * 390)
        assert ("notice", "This took too long and was stopped.") in events and events[-1] == ("notice", "Stopped.")
        assert 0 < sum(kind == "piece" for kind, _ in events) < 60


def test_a_client_that_leaves_stops_its_answer():
    generate = Parrot(seconds=0.02)
    with serve_page(Applications(begin_chat=lambda: Chatbot(generate))) as visitor:
        connection = visitor.begin().open("POST", "/apps/chat/ask", {"text": "a" * 390}, visitor.headers)
        connection.getresponse().read(10)
        connection.sock.close()
        connection.close()
        session = visitor.page.sessions.find(visitor.headers["X-Session"])
        wait_until(lambda: not session.is_busy, 3)
        assert len(session.chatbot.turns[0].answer) < 390


def test_a_model_that_fails_is_told_of_without_its_secrets(caplog):
    def fail(prompt):
        raise RuntimeError("secret")

    with serve_page(Applications(begin_chat=lambda: Chatbot(Parrot(fail)))) as visitor:
        status, answer = visitor.begin().send("chat/ask", text="x")
        assert status == 500 and answer["error"]["message"] == "the chatbot failed; the server's log says why"
        assert "secret" in caplog.text
        assert visitor.send("chat/clear")[0] == 200


def test_too_many_who_wait_are_refused():
    generate, applications = chat_only()
    generate.gate.clear()
    with serve_page(applications) as visitor:
        connections = []
        for _ in range(17):
            connections.append(visitor.begin().open("POST", "/apps/chat/ask", {"text": "x"}, visitor.headers))
            wait_until(lambda: visitor.page.sessions.find(visitor.headers["X-Session"]).is_busy)
        status, answer = visitor.begin().send("chat/ask", text="x")
        assert status == 429 and answer["error"]["code"] == "queue_full"
        generate.gate.set()
        assert all(b"[DONE]" in each.getresponse().read() for each in connections)


def test_a_server_that_stops_ends_what_is_being_said():
    generate = Parrot(seconds=0.05)
    with serve_page(Applications(begin_chat=lambda: Chatbot(generate))) as visitor:
        connection = visitor.begin().open("POST", "/apps/chat/ask", {"text": "a" * 390}, visitor.headers)
        response = connection.getresponse()
        response.read(10)
        threading.Timer(0.1, visitor.page.close).start()
        wait_until(lambda: visitor.page.closing)
        assert "[DONE]" in response.read().decode()
        assert visitor.send("chat/stop")[0] == 503


# === Search ===


def test_hits_facets_and_filters(visitor):
    _, found = visitor.send("search", query="green tea", filters={"colour": ["green"], "price": {"most": 10}})
    assert [hit["title"] for hit in found["hits"]] == ["Sencha"] and found["total"] == 1
    assert found["hits"][0]["snippet"][:4] == [
        ["Green", True],
        [" ", False],
        ["tea", True],
        [" from Shizuoka, steamed, then dried and rolled.", False],
    ]
    facets = {facet["name"]: facet for facet in found["facets"]}
    assert dict(facets["colour"]["values"]) == {"green": 1, "black": 2, "red": 1}  # what else costs as little
    assert (facets["price"]["least"], facets["price"]["most"]) == (8.5, 24.0)  # of all that is green
    assert dict(facets["year"]["values"]) == {"2026": 1}


def test_pages_of_hits_dates_and_another_spelling(visitor):
    titles = []
    for begin in (0, 2, 4, 6):
        _, found = visitor.send("search", query="", count=2, begin=begin)
        titles += [hit["title"] for hit in found["hits"]]
    assert len(titles) == len(set(titles)) == 6
    _, found = visitor.send("search", filters={"date": {"least": "2026-02"}})
    assert {hit["title"] for hit in found["hits"]} == {"Sencha", "Matcha"}
    assert visitor.send("search", query="bergamott")[1]["suggestion"] == "bergamot"
    status, answer = visitor.send("search", filters={"date": {"least": "soon"}})
    assert status == 400 and "soon" in answer["error"]["message"]


def test_highlights_are_where_python_counts_them(visitor):
    """A browser would count the leaves twice."""
    from tf_llm.apps.server.page_shapes import cut_snippet

    assert cut_snippet("🍃🍃 tea", [(3, 6)]) == [["🍃🍃 ", False], ["tea", True]]


# === Assistant ===


def test_what_changes_something_waits_for_a_yes_by_the_id_of_the_question(site):
    visitor, desk = site[0].begin(), site[1]
    _, reply = visitor.send("assistant/ask", text='call add_todo(item="milk")')
    assert reply["is_confirmable"] and reply["call"] == 'add_todo(item="milk")' and not desk.store.list_todos()
    other = dict(visitor.headers)
    visitor.begin()
    assert "no such question" in visitor.send("assistant/confirm", pending=reply["pending"])[1]["text"]
    assert not desk.store.list_todos()  # the question was somebody else's
    visitor.headers = other
    _, answer = visitor.send("assistant/confirm", pending=reply["pending"])
    assert "milk" in answer["text"] and [entry.text for entry in desk.store.list_todos()] == ["milk"]
    assert "no such question" in visitor.send("assistant/confirm", pending=reply["pending"])[1]["text"]
    assert len(desk.store.list_todos()) == 1


def test_a_no_and_a_question_for_words(site):
    visitor, desk = site[0].begin(), site[1]
    _, reply = visitor.send("assistant/ask", text='call add_note(text="x")')
    assert visitor.send("assistant/cancel", pending=reply["pending"])[1]["text"] == "All right, I won't."
    _, reply = visitor.send("assistant/ask", text='call set_reminder(text="call mum")')
    assert reply["pending"] and not reply["is_confirmable"]  # it has to be told when
    _, reply = visitor.send("assistant/ask", text="tomorrow at six")
    assert reply["is_confirmable"] and "18:00" in reply["text"]
    assert not desk.store.list_reminders() and not desk.store.list_notes()


def test_what_is_due_is_told_once(site):
    visitor, desk = site[0].begin(), site[1]
    desk.store.add_reminder("water the ferns", desk.now)
    assert visitor.send("assistant/due") == (200, {"due": ["water the ferns"]})
    assert visitor.send("assistant/due") == (200, {"due": []})


def test_what_the_search_finds_is_shown_as_hits(site):
    applications = site[0].page.applications
    index, assistance = applications.index, applications.assistance
    found = dataclasses.replace(assistance, search=lambda query: index.search(query, count=5).hits)
    with serve_page(Applications(assistance=found)) as visitor:
        _, reply = visitor.begin().send("assistant/ask", text='call search(query="bergamot")')
        assert reply["text"] == "" and [hit["title"] for hit in reply["hits"]] == ["Earl Grey"]


@pytest.mark.parametrize("name", ["sessions", "page_shapes"])
def test_doctests(name):
    result = doctest.testmod(importlib.import_module(f"tf_llm.apps.server.{name}"))
    assert result.attempted and not result.failed


@pytest.mark.thorough
def test_the_example_puts_an_assistant_together(tmp_path):
    """As it is, but for the model: what understands here knows one call."""
    example = Path(__file__).resolve().parent.parent / "examples" / "serve_apps.py"
    code = (
        "import importlib.util\n"
        "from absl import flags\n"
        "from tf_llm.apps.assistant import teaching\n"
        "from tf_llm.apps.assistant.calls import Understood, parse_call\n"
        "call = parse_call('calculate(expression=\"2 + 3\")')\n"
        "teaching.find_understanding = lambda folder: lambda text: Understood(call, 1.0)\n"
        f"spec = importlib.util.spec_from_file_location('serve_apps', {str(example)!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        f"flags.FLAGS(['x', '--assistant=any', {'--folder=' + str(tmp_path)!r}])\n"
        "assistance = module.find_assistance(None)\n"
        "print(assistance.begin().ask('two and three').text, assistance.list_due())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip().endswith("2 + 3 = 5 []")
