"""A house behind Home Assistant's REST API, of which a stand-in on this machine has the shape."""

import http.server
import json
import threading
import time

import pytest

from tf_llm.apps.assistant.home import HomeAssistant, SimulatedHome
from tf_llm.apps.assistant.house import HouseTools
from tf_llm.apps.assistant.slots import Degrees
from tf_llm.apps.assistant.tools import ToolError
from tf_llm.contracts import UserError

TOKEN = "a-token-of-this-test"


class StandIn(http.server.ThreadingHTTPServer):
    """Answers as Home Assistant does, with a `SimulatedHome` behind it; notes the requests."""

    def __init__(self, answer=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.home, self.requests, self.answer = SimulatedHome(["Kitchen", "Living room"]), [], answer
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def reply(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def act(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, self.path, self.headers["Authorization"], body.decode()))
        if self.server.answer:
            return self.server.answer(self)
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.reply(401, b"401: Unauthorized")
        if (self.command, self.path) == ("GET", "/api/states"):
            return self.reply(200, json.dumps(self.server.home.states()).encode())
        _, _, services, domain, service = self.path.split("/")
        assert (self.command, services) == ("POST", "services")
        self.server.home.call(domain, service, json.loads(body))
        return self.reply(200, b"[]")

    do_GET = do_POST = act  # noqa: N815


def test_the_api_is_spoken():
    with StandIn() as server:
        tools = HouseTools(HomeAssistant(server.url + "/", TOKEN))
        assert tools.turn_on_light("living room") == "On: Living room light."
        assert server.requests == [
            ("GET", "/api/states", f"Bearer {TOKEN}", ""),
            ("POST", "/api/services/light/turn_on", f"Bearer {TOKEN}", '{"entity_id": "light.living_room"}'),
        ]
        tools.set_brightness(40.0, "kitchen")
        tools.set_color("teal", None)
        tools.set_temperature(Degrees(68.0, "degF"), "kitchen")
        bodies = [json.loads(body) for method, _, _, body in server.requests if method == "POST"][1:]
        assert bodies == [
            {"entity_id": "light.kitchen", "brightness_pct": 40},
            {"entity_id": "light.kitchen", "color_name": "teal"},
            {"entity_id": "light.living_room", "color_name": "teal"},
            {"entity_id": "climate.kitchen", "temperature": 20.0},
        ]
        assert tools.get_temperature("kitchen") == "Kitchen thermostat: it is 19.5°, set to 20.0°"


def test_the_tools_do_the_same_to_a_simulated_house():
    tools = HouseTools(SimulatedHome(["Kitchen", "Anna's room"]))
    assert tools.turn_on_light() == "On: Kitchen light, Anna's room light." and tools.turn_off_light("kitchen")
    assert tools.set_brightness(0.0, "annas room") == "Off: Anna's room light."
    assert tools.raise_temperature(Degrees(2.0, None), "kitchen") == "Set: Kitchen thermostat at 22°."
    assert tools.lower_temperature() == "Set: Kitchen thermostat at 21°, Anna's room thermostat at 19°."
    for act, expected in (
        (
            lambda: tools.turn_on_light("garage"),
            "a light is expected to be one of Anna's room light, Kitchen light. Rec",
        ),
        (
            lambda: tools.set_temperature(Degrees(90.0, None)),
            "a temperature is expected to be from 5 to 35 °C. Received: 90",
        ),
        (lambda: tools.raise_temperature(Degrees(20.0, None)), "a temperature is expected to be from 5 to 35 °C"),
    ):
        with pytest.raises(ToolError) as error:
            act()
        assert str(error.value).startswith(expected)
    assert tools.get_temperature("kitchen").endswith("set to 21.0°")  # of what was refused, nothing was done


def redirect(handler):
    handler.reply(302, b"", Location="http://127.0.0.1:9/api/states")


def drip(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda handler: handler.reply(500, b"oops"), "does not do it: status 500"),
        (redirect, "does not do it: status 302"),
        (lambda handler: handler.reply(200, b"<html>"), "is expected to answer in JSON"),
        (lambda handler: handler.reply(200, b"[" * 100_000), "is expected to answer in JSON"),
        (lambda handler: handler.reply(200, b'{"a": 1}'), "is expected to answer with a list of states"),
        (lambda handler: handler.reply(200, b'[{"entity_id": 1}]'), "is expected to answer with a list of states"),
        (drip, "is expected to answer briefly and soon"),
        (lambda handler: time.sleep(0.6), "does not answer: "),
    ],
)
def test_a_house_that_answers_otherwise_is_an_error(answer, expected):
    with StandIn(answer) as server, pytest.raises(ToolError) as error:
        HomeAssistant(server.url, TOKEN, seconds=0.3).states()
    assert expected in str(error.value) and TOKEN not in str(error.value)


def test_who_may_not_ask_and_what_is_no_house():
    with StandIn() as server, pytest.raises(ToolError, match="does not do it: the token is not accepted"):
        HomeAssistant(server.url, "another-token").states()
    with pytest.raises(ToolError, match="does not answer: "):
        HomeAssistant(server.url, TOKEN, seconds=1.0).states()
    for url in ("homeassistant.local:8123", "ftp://house", "http://", "http://me:secret@house"):
        with pytest.raises(UserError, match="the address of a house is expected to be like http://host:8123"):
            HomeAssistant(url, TOKEN)
    for token in ("", "two\nlines", "é"):
        with pytest.raises(UserError, match="the token of Home Assistant is expected to be printable ASCII"):
            HomeAssistant("http://house:8123", token)
