"""A house with lights and thermostats: one behind Home Assistant's REST API, or a simulated one.

Both know two things, in that API's shapes (https://developers.home-assistant.io/docs/api/rest):

    states()                       GET /api/states: [{"entity_id": "light.hall", "state": "on", "attributes": {…}}, …]
    call(domain, service, data)    POST /api/services/light/turn_on {"entity_id": "light.hall"}
"""

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request

from tf_llm.apps.assistant.tools import ToolError
from tf_llm.contracts import UserError

ROOMS = ("Kitchen", "Living room", "Bedroom", "Bathroom", "Hall", "Office", "Study", "Garage")
ANSWER_BYTES = 16 << 20  # the states of a large house are a few megabytes


class HomeAssistant:
    """A house that Home Assistant keeps.

    Args:
        url: where it answers, "http://homeassistant.local:8123".
        token: a long-lived access token of it (your profile → Security).
        seconds: how long an answer may take.

    Raises:
        UserError: the address or the token cannot be.
    """

    def __init__(self, url, token, seconds=10.0):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise UserError(f"the address of a house is expected to be like http://host:8123. Received: {url!r}")
        if not token or not token.isascii() or not token.isprintable():
            raise UserError(
                "the token of Home Assistant is expected to be printable ASCII, in one line. Received: something else"
            )
        self._url, self._token, self._seconds = url.rstrip("/"), token, seconds
        # The house is in this network: no proxy, and no redirection, which would take the token elsewhere.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Unredirected())

    def states(self):
        """The state of everything in the house."""
        states = self._ask("GET", "/api/states")
        if not isinstance(states, list) or not all(is_state(state) for state in states):
            raise ToolError("the house is expected to answer with a list of states. Received: something else")
        return states

    def call(self, domain, service, data):
        """Has a service of the house act."""
        self._ask("POST", f"/api/services/{domain}/{service}", data)

    def _ask(self, method, path, data=None):
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if data is None else json.dumps(data).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            return json.loads(self._fetch(request))
        except urllib.error.HTTPError as error:
            reason = "the token is not accepted" if error.code == 401 else f"status {error.code}"
            raise ToolError(f"the house at {self._url} does not do it: {reason}") from error
        except OSError as error:  # timeouts and unreachable hosts among them
            raise ToolError(f"the house at {self._url} does not answer: {getattr(error, 'reason', error)}") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, http.client.HTTPException) as error:
            raise ToolError("the house is expected to answer in JSON. Received: something else") from error

    def _fetch(self, request):
        """The body of the answer."""
        deadline, body = time.monotonic() + self._seconds, b""
        with self._opener.open(request, timeout=self._seconds) as response:
            while chunk := response.read1(1 << 16):
                body += chunk
                if len(body) > ANSWER_BYTES or time.monotonic() > deadline:
                    raise ToolError("the house is expected to answer briefly and soon. Received: no end of it")
        return body


class Unredirected(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it is the error that its status is."""

    def redirect_request(self, *arguments):
        return None


class SimulatedHome:
    """A house in memory, to try things with.

    Args:
        rooms: each has a light and a thermostat.

    >>> home = SimulatedHome(["Hall"])
    >>> home.call("light", "turn_on", {"entity_id": "light.hall"})
    >>> [(state["entity_id"], state["state"]) for state in home.states()]
    [('light.hall', 'on'), ('climate.hall', 'heat')]
    """

    def __init__(self, rooms=ROOMS):
        self._states = {}
        for room in rooms:
            key = room.lower().replace(" ", "_")
            lamp = {"friendly_name": f"{room} light"}
            heating = {"friendly_name": f"{room} thermostat", "temperature": 20.0, "current_temperature": 19.5}
            self._states[f"light.{key}"] = {"entity_id": f"light.{key}", "state": "off", "attributes": lamp}
            self._states[f"climate.{key}"] = {"entity_id": f"climate.{key}", "state": "heat", "attributes": heating}

    def states(self):
        """The state of everything in the house."""
        return [{**state, "attributes": dict(state["attributes"])} for state in self._states.values()]

    def call(self, domain, service, data):
        """Has a service of the house act."""
        state = self._states.get(data.get("entity_id"))
        if state is None or not data["entity_id"].startswith(f"{domain}."):
            raise ToolError(f"an entity is expected to be one of {', '.join(self._states)}. Received: {data!r}")
        if (domain, service) in (("light", "turn_on"), ("light", "turn_off")):
            state["state"] = service.removeprefix("turn_")
        elif (domain, service) != ("climate", "set_temperature"):
            raise ToolError(f"a service is expected to be of a light or a thermostat. Received: {domain}/{service}")
        state["attributes"] |= {name: value for name, value in data.items() if name != "entity_id"}


def is_state(state):
    """Whether that is the state of an entity."""
    return (
        isinstance(state, dict)
        and isinstance(state.get("entity_id"), str)
        and isinstance(state.get("state"), str)
        and isinstance(state.get("attributes"), dict)
    )
